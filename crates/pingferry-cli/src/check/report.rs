//! The result of the probe, with the names that the JSON has.

use std::fmt;
use std::io;
use std::net::IpAddr;

use pingferry_sys::diagnosis::{Container, Diagnosis, Operation, Situation, diagnose};
use serde::{Serialize, Serializer};

/// Everything that `pingferry check` examines.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) ipv4: Reach,
    pub(super) ipv6: Reach,
    pub(super) permission: Permission,
    pub(super) descriptors: Descriptors,
    pub(super) tun: TunDevice,
    pub(super) user_namespaces: UserNamespaces,
    /// Whether `pingferry exec` can run a command.
    #[serde(serialize_with = "outcome")]
    pub(super) exec: Result<(), KernelError>,
    pub(super) environment: Environment,
    /// What the fixes depend on.
    #[serde(skip)]
    pub(super) situation: Situation,
}

impl Report {
    /// Whether pings cross over at least one family.
    pub(super) fn works(&self) -> bool {
        self.ipv4.works() || self.ipv6.works()
    }

    /// What denies ping sockets, if neither family can have one.
    pub(super) fn denial(&self) -> Option<Diagnosis> {
        let errors = [self.ipv4.socket.as_ref().err()?, self.ipv6.socket.as_ref().err()?];
        let diagnoses = errors.map(|error| self.diagnose(&Operation::OpenPingSocket, error));
        diagnoses.into_iter().find(|diagnosis| diagnosis.is_permission)
    }

    /// Why an operation failed here.
    pub(super) fn diagnose(&self, operation: &Operation<'_>, error: &KernelError) -> Diagnosis {
        diagnose(operation, error.errno.unwrap_or_default(), &self.situation)
    }
}

/// What one family can do.
#[derive(Debug, Serialize)]
pub(super) struct Reach {
    /// Whether a ping socket opens.
    #[serde(serialize_with = "outcome")]
    pub(super) socket: Result<(), KernelError>,
    /// The source address that the kernel's routing chooses toward the Internet.
    #[serde(serialize_with = "outcome")]
    pub(super) source: Result<IpAddr, KernelError>,
    /// Whether the host has an address that is valid beyond its links, and so reaches its own network without a default
    /// route.
    pub(super) has_network: bool,
}

impl Reach {
    /// Whether pings cross.
    pub(super) fn works(&self) -> bool {
        self.socket.is_ok() && (self.source.is_ok() || self.has_network)
    }
}

/// Where the process runs, as far as it was found out.
#[derive(Debug, Serialize)]
pub(super) struct Environment {
    /// The kind of container.
    pub(super) container: Option<&'static str>,
    /// The systemd unit whose program the process is.
    pub(super) unit: Option<String>,
}

impl Environment {
    pub(super) fn of(situation: &Situation) -> Self {
        let container = situation.container.map(|container| match container {
            Container::Kubernetes => "kubernetes",
            Container::Podman => "podman",
            Container::Docker => "docker",
            Container::Lxc => "lxc",
            _ => "other",
        });
        Self { container, unit: situation.unit.clone() }
    }
}

/// The groups of this process, and `net.ipv4.ping_group_range`.
#[derive(Debug, Serialize)]
pub(super) struct Permission {
    pub(super) effective_gid: u32,
    pub(super) supplementary_gids: Vec<u32>,
    /// Whether the user namespace has both ends of the range of all groups. The kernel refuses with `EINVAL` a range
    /// whose ends do not exist in the writer's user namespace (`ipv4_ping_group_range` in net/ipv4/sysctl_net_ipv4.c).
    pub(super) every_gid_exists: bool,
    #[serde(serialize_with = "outcome")]
    pub(super) ping_group_range: Result<Admission, KernelError>,
}

/// `net.ipv4.ping_group_range`, as the user namespace of this process reads it.
#[derive(Debug, Serialize)]
pub(super) struct Admission {
    pub(super) low: u32,
    pub(super) high: u32,
    /// Whether a group of this process is in it.
    pub(super) admits: bool,
}

/// The number of descriptors that the process can have. `None` is no limit.
#[derive(Debug, Serialize)]
pub(super) struct Descriptors {
    pub(super) soft: Option<u64>,
    pub(super) hard: Option<u64>,
}

/// `/dev/net/tun`.
#[derive(Debug, Serialize)]
pub(super) struct TunDevice {
    pub(super) exists: bool,
    #[serde(serialize_with = "outcome")]
    pub(super) open: Result<(), KernelError>,
    /// Whether the process may create a device in its network namespace.
    #[serde(serialize_with = "outcome")]
    pub(super) create: Result<(), KernelError>,
}

/// Whether a child can start in a new user namespace, and the sysctls that can forbid it (`None` if the kernel does not
/// have them).
#[derive(Debug, Serialize)]
pub(super) struct UserNamespaces {
    #[serde(serialize_with = "outcome")]
    pub(super) create: Result<(), KernelError>,
    /// `user.max_user_namespaces`; 0 forbids.
    pub(super) max_user_namespaces: Option<u64>,
    /// `kernel.unprivileged_userns_clone` of Debian's kernels; 0 forbids.
    pub(super) unprivileged_userns_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns` of Ubuntu's kernels; 1 removes all rights inside.
    pub(super) apparmor_restrict_unprivileged_userns: Option<u64>,
}

/// A kernel error in a form that can be stored and serialized.
#[derive(Clone, Debug, Serialize)]
pub(super) struct KernelError {
    pub(super) errno: Option<i32>,
    pub(super) message: String,
}

impl From<&io::Error> for KernelError {
    fn from(error: &io::Error) -> Self {
        Self { errno: pingferry_sys::errno(error), message: error.to_string() }
    }
}

impl From<io::Error> for KernelError {
    fn from(error: io::Error) -> Self {
        Self::from(&error)
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Serializes a `Result` with the same keys in both cases, unlike serde's `{"Ok": …}` or `{"Err": …}`.
fn outcome<T: Serialize, S: Serializer>(result: &Result<T, KernelError>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Outcome<'a, T> {
        ok: bool,
        value: Option<&'a T>,
        error: Option<&'a KernelError>,
    }
    Outcome { ok: result.is_ok(), value: result.as_ref().ok(), error: result.as_ref().err() }.serialize(serializer)
}

/// Invented machines for tests.
#[cfg(test)]
pub(super) mod examples {
    use pingferry_sys::preflight::GroupRange;
    use rustix::io::Errno;

    use super::*;

    pub(in super::super) fn error(errno: Errno, message: &str) -> KernelError {
        KernelError { errno: Some(errno.raw_os_error()), message: message.into() }
    }

    /// A machine with nothing missing.
    pub(in super::super) fn admitted() -> Report {
        let reach = |source: &str| Reach { socket: Ok(()), source: Ok(source.parse().unwrap()), has_network: true };
        let mut situation = Situation::of_host(1000, 1000);
        situation.ping_group_range = Some(GroupRange { low: 0, high: 2_147_483_647 });
        Report {
            ipv4: reach("192.0.2.7"),
            ipv6: reach("2001:db8::7"),
            permission: Permission {
                effective_gid: 1000,
                supplementary_gids: vec![27, 1000],
                every_gid_exists: true,
                ping_group_range: Ok(Admission { low: 0, high: 2_147_483_647, admits: true }),
            },
            descriptors: Descriptors { soft: Some(1024), hard: None },
            tun: TunDevice { exists: true, open: Ok(()), create: Ok(()) },
            user_namespaces: UserNamespaces {
                create: Ok(()),
                max_user_namespaces: Some(63_000),
                unprivileged_userns_clone: None,
                apparmor_restrict_unprivileged_userns: None,
            },
            exec: Ok(()),
            environment: Environment::of(&situation),
            situation,
        }
    }

    /// A machine with everything missing.
    pub(in super::super) fn refused() -> Report {
        let reach = |family: &str| Reach {
            socket: Err(error(Errno::ACCESS, &format!("open a ping socket for {family}: Permission denied"))),
            source: Err(error(Errno::NETUNREACH, "find the source address: Network is unreachable")),
            has_network: false,
        };
        let mut report = admitted();
        report.ipv4 = reach("IPv4");
        report.ipv6 = reach("IPv6");
        report.permission.ping_group_range = Ok(Admission { low: 1, high: 0, admits: false });
        let no_file = || Err(error(Errno::NOENT, "No such file or directory"));
        report.tun = TunDevice { exists: false, open: no_file(), create: no_file() };
        report.user_namespaces.create = Err(error(Errno::PERM, "Operation not permitted"));
        report.user_namespaces.apparmor_restrict_unprivileged_userns = Some(1);
        report.exec = report.user_namespaces.create.clone();
        report.situation.ping_group_range = Some(GroupRange { low: 1, high: 0 });
        report.situation.apparmor_restrict_unprivileged_userns = Some(1);
        report
    }
}
