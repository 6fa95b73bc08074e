//! What fixes what is missing, from the table of pingferry-sys.

use pingferry_sys::diagnosis::{How, Operation, Remedy};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::report::Report;

/// The name of the device that is to be made. A device of another name is made likewise.
const DEVICE: &str = "ping0";

/// Something that is missing, why, and its remedies. One of them is enough.
#[derive(Debug, Serialize)]
pub(super) struct Fix {
    pub(super) missing: Missing,
    pub(super) cause: String,
    #[serde(serialize_with = "remedies")]
    pub(super) remedies: Vec<Remedy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Missing {
    PingSockets,
    Tun,
    CreateTun,
    UserNamespaces,
}

/// The fixes for everything that is missing according to the report, as far as commands can fix it.
pub(super) fn fixes(report: &Report) -> Vec<Fix> {
    let socket_error = report.ipv4.socket.as_ref().err().or(report.ipv6.socket.as_ref().err());
    let open_error = report.tun.open.as_ref().err();
    let create_error = report.tun.create.as_ref().err().filter(|_| open_error.is_none());
    let failed = [
        (Missing::PingSockets, Operation::OpenPingSocket, socket_error),
        (Missing::Tun, Operation::OpenTunFile, open_error),
        (Missing::CreateTun, Operation::CreateDevice(DEVICE), create_error),
        (Missing::UserNamespaces, Operation::CreateNamespaces, report.user_namespaces.create.as_ref().err()),
    ];
    let diagnosed = failed.into_iter().filter_map(|(missing, operation, error)| {
        let diagnosis = report.diagnose(&operation, error?);
        Some(Fix { missing, cause: diagnosis.cause, remedies: diagnosis.remedies })
    });
    diagnosed.filter(|fix| !fix.remedies.is_empty()).collect()
}

fn remedies<S: Serializer>(remedies: &[Remedy], serializer: S) -> Result<S::Ok, S::Error> {
    struct Stable<'a>(&'a Remedy);

    impl Serialize for Stable<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut fields = serializer.serialize_struct("Remedy", 2)?;
            fields.serialize_field("how", name(self.0.how))?;
            fields.serialize_field("command", &self.0.command)?;
            fields.end()
        }
    }

    serializer.collect_seq(remedies.iter().map(Stable))
}

/// The name in JSON.
fn name(how: How) -> &'static str {
    match how {
        How::Now => "now",
        How::NowForOneGroup => "now_for_one_group",
        How::EveryBoot => "every_boot",
        How::OnHost => "on_host",
        How::Unit => "unit",
        How::Docker => "docker",
        How::Podman => "podman",
        How::Kubernetes => "kubernetes",
        How::Lxc => "lxc",
        _ => "instead",
    }
}

#[cfg(test)]
mod tests {
    use pingferry_sys::diagnosis::Container;
    use rustix::io::Errno;

    use super::super::report::examples::{admitted, error, refused};
    use super::*;

    fn missing(report: &Report) -> Vec<Missing> {
        fixes(report).into_iter().map(|fix| fix.missing).collect()
    }

    #[test]
    fn nothing_missing_needs_no_fix() {
        assert!(fixes(&admitted()).is_empty());
    }

    #[test]
    fn each_missing_thing_is_looked_up_in_the_table() {
        assert_eq!(missing(&refused()), [Missing::PingSockets, Missing::Tun, Missing::UserNamespaces]);
        let mut report = admitted();
        report.tun.create = Err(error(Errno::PERM, ""));
        assert_eq!(missing(&report), [Missing::CreateTun]);
        assert!(fixes(&report)[0].remedies[0].command.starts_with("ip tuntap add dev ping0 mode tun user 1000"));
        report.situation.container = Some(Container::Docker);
        assert!(fixes(&report)[0].remedies[0].command.starts_with("docker run --user 0 --cap-add NET_ADMIN"));
    }

    #[test]
    fn a_missing_family_is_not_fixed_by_the_range() {
        let mut report = refused();
        report.ipv4.socket = Ok(());
        report.ipv6.socket = Err(error(Errno::AFNOSUPPORT, "Address family not supported by protocol"));
        assert!(!missing(&report).contains(&Missing::PingSockets));
    }

    #[test]
    fn a_range_that_admits_the_process_needs_no_fix() {
        let mut report = refused();
        report.situation.ping_group_range = admitted().situation.ping_group_range;
        assert!(!missing(&report).contains(&Missing::PingSockets));
    }
}
