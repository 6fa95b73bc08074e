//! What helps, and where it is to be done.

use std::fmt;

use super::container::Container;
use super::situation::Situation;

/// What helps against an error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remedy {
    /// Where, and for how long it helps.
    pub how: How,
    /// The command, or the lines of a configuration.
    pub command: String,
}

/// Where a [`Remedy`] is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum How {
    /// A shell command for root. It lasts until the next boot.
    Now,
    /// The same, for one group only.
    NowForOneGroup,
    /// A shell command for root. It works from the next boot on.
    EveryBoot,
    /// A shell command for root on the host of the container.
    OnHost,
    /// Lines for `[Service]` of the unit.
    Unit,
    /// Options of `docker run`.
    Docker,
    /// Options of `podman run`.
    Podman,
    /// A part of the pod's `spec`.
    Kubernetes,
    /// Lines of the configuration of an LXC container.
    Lxc,
    /// Something that this user can do, as part of a sentence.
    Instead,
}

impl Remedy {
    pub(super) fn new(how: How, command: impl Into<String>) -> Self {
        Self { how, command: command.into() }
    }
}

/// As the last part of a line.
impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.how {
            How::Now | How::NowForOneGroup | How::EveryBoot => "run as root: ",
            How::OnHost => "run as root on the host: ",
            How::Unit => "in [Service] of the unit: ",
            How::Docker | How::Podman => "start the container with: ",
            How::Kubernetes => "in the spec of the pod: ",
            How::Lxc => "in the configuration of the container: ",
            How::Instead => "",
        };
        write!(f, "{how}{}", self.command)
    }
}

pub(super) fn now(command: impl Into<String>) -> Vec<Remedy> {
    vec![Remedy::new(How::Now, command)]
}

pub(super) fn instead(command: impl Into<String>) -> Vec<Remedy> {
    vec![Remedy::new(How::Instead, command)]
}

/// A command now, and a line of a file for every boot.
pub(super) fn now_and_at_boot(command: &str, line: &str, file: &str) -> Vec<Remedy> {
    vec![Remedy::new(How::Now, command), Remedy::new(How::EveryBoot, format!("echo '{line}' >> {file}"))]
}

/// Sets a sysctl of the host.
pub(super) fn sysctl(name: &str, value: &str) -> Vec<Remedy> {
    now_and_at_boot(&set(name, value), &format!("{name} = {value}"), "/etc/sysctl.d/60-pingferry.conf")
}

pub(super) fn set(name: &str, value: &str) -> String {
    let value = if value.contains(' ') { format!("\"{value}\"") } else { value.into() };
    format!("sysctl -w {name}={value}")
}

/// What a container is given when it is started: by options of both engines, by the spec of a pod, and by lines for LXC.
pub(super) struct Given<'a> {
    pub(super) docker: &'a str,
    pub(super) podman: &'a str,
    pub(super) pod: &'a str,
    pub(super) lxc: &'a str,
}

impl Given<'_> {
    /// Those for this container; for an unknown one, all that could be meant. Empty outside of containers.
    pub(super) fn to(&self, container: Option<Container>) -> Vec<Remedy> {
        let docker = || Remedy::new(How::Docker, format!("docker run {} IMAGE", self.docker));
        let podman = || Remedy::new(How::Podman, format!("podman run {} IMAGE", self.podman));
        let pod = || Remedy::new(How::Kubernetes, self.pod);
        match container {
            None => Vec::new(),
            Some(Container::Docker) => vec![docker()],
            Some(Container::Podman) => vec![podman()],
            Some(Container::Kubernetes) => vec![pod()],
            Some(Container::Lxc) => vec![Remedy::new(How::Lxc, self.lxc)],
            Some(Container::Other) => vec![docker(), podman(), pod()],
        }
    }
}

/// What gives a capability to this process: lines of its unit, or what its container is started with.
pub(super) fn capability(name: &str, at: &Situation) -> Vec<Remedy> {
    if at.unit.is_some() {
        let lines = format!("AmbientCapabilities=CAP_{name} CapabilityBoundingSet=CAP_{name}");
        return vec![Remedy::new(How::Unit, lines)];
    }
    // Docker and Kubernetes give capabilities to root only.
    let is_root = at.user == 0;
    let (user, of_pod) = if is_root { ("", "") } else { ("--user 0 ", ", runAsUser: 0") };
    let given = Given {
        docker: &format!("{user}--cap-add {name}"),
        podman: &format!("--cap-add {name}"),
        pod: &format!("securityContext: {{capabilities: {{add: [{name}]}}{of_pod}}}"),
        lxc: &format!("lxc.cap.keep = {}", name.to_lowercase()),
    };
    given.to(at.container.filter(|container| *container != Container::Lxc))
}
