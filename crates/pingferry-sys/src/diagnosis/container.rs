//! Which container or unit a process runs in.
//!
//! No system call tells it. Each engine leaves a trace: a file, or an environment variable.

use std::path::Path;

/// A kind of container, as far as other commands help in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Container {
    /// A pod, whatever runs its containers.
    Kubernetes,
    /// Podman, with or without root.
    Podman,
    /// Docker.
    Docker,
    /// LXC, LXD or Incus.
    Lxc,
    /// Another one.
    Other,
}

impl Container {
    /// Looks for traces in the files below `root`, which is `/`, and in environment variables.
    pub(super) fn detect(root: &Path, variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let exists = |path: &str| root.join(path).exists();
        // The API server's address is in the environment of every container of a pod, and its token in a file.
        if variable("KUBERNETES_SERVICE_HOST").is_some() || exists("var/run/secrets/kubernetes.io") {
            return Some(Self::Kubernetes);
        }
        // An engine names itself in the environment of the first process (https://systemd.io/CONTAINER_INTERFACE), which systemd
        // writes to a file for those that may not read that.
        if let Some(name) = variable("container") {
            return Some(Self::named(&name));
        }
        let traces = [
            ("run/.containerenv", Self::Podman),
            (".dockerenv", Self::Docker),
            ("dev/lxd/sock", Self::Lxc),
            ("dev/incus/sock", Self::Lxc),
        ];
        if let Some((_, engine)) = traces.into_iter().find(|(path, _)| exists(path)) {
            return Some(engine);
        }
        let of_init = || {
            let environment = std::fs::read_to_string(root.join("proc/1/environ")).ok()?;
            environment.split('\0').find_map(|variable| variable.strip_prefix("container=").map(str::to_owned))
        };
        let written = || std::fs::read_to_string(root.join("run/systemd/container")).ok();
        of_init().or_else(written).map(|name| Self::named(&name))
    }

    fn named(name: &str) -> Self {
        match name.trim() {
            "lxc" | "lxc-libvirt" => Self::Lxc,
            "podman" => Self::Podman,
            "docker" => Self::Docker,
            _ => Self::Other,
        }
    }
}

/// The systemd unit whose program this process is. A shell within a unit, such as that of a terminal, is not the unit's
/// program: `SYSTEMD_EXEC_PID` tells them apart (systemd.exec(5)).
pub(super) fn unit(root: &Path, pid: u32, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    if variable("SYSTEMD_EXEC_PID")? != pid.to_string() {
        return None;
    }
    let cgroup = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let name = cgroup.lines().filter_map(|line| line.rsplit('/').next()).find(|name| name.ends_with(".service"));
    Some(name.unwrap_or("UNIT").to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::fs;

    use super::*;

    /// A root with these files, and an environment.
    fn detect(files: &[(&str, &str)], environment: &[(&str, &str)]) -> (Option<Container>, Option<String>) {
        let name = std::thread::current().name().unwrap_or("test").replace("::", "-");
        let root = std::env::temp_dir().join(format!("pingferry-{}-{name}", std::process::id()));
        for (path, text) in files {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        }
        let variable =
            |name: &str| environment.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned());
        let found = (Container::detect(&root, variable), unit(&root, 42, variable));
        if !files.is_empty() {
            fs::remove_dir_all(&root).unwrap();
        }
        found
    }

    #[test]
    fn each_engine_leaves_a_trace() {
        for (files, environment, expected) in [
            (&[][..], &[][..], None),
            (&[("run/.containerenv", "")], &[], Some(Container::Podman)),
            (&[], &[("container", "podman")], Some(Container::Podman)),
            (&[(".dockerenv", "")], &[], Some(Container::Docker)),
            (&[(".dockerenv", "")], &[("KUBERNETES_SERVICE_HOST", "10.0.0.1")], Some(Container::Kubernetes)),
            (
                &[("var/run/secrets/kubernetes.io/serviceaccount/token", "")],
                &[("container", "oci")],
                Some(Container::Kubernetes),
            ),
            (&[("proc/1/environ", "PATH=/bin\0container=lxc\0")], &[], Some(Container::Lxc)),
            (&[("run/systemd/container", "lxc\n")], &[], Some(Container::Lxc)),
            (&[("dev/incus/sock", "")], &[], Some(Container::Lxc)),
            (&[], &[("container", "systemd-nspawn")], Some(Container::Other)),
            (&[("proc/1/environ", "PATH=/bin\0")], &[], None),
        ] {
            assert_eq!(detect(files, environment).0, expected, "{files:?} {environment:?}");
        }
    }

    #[test]
    fn a_unit_is_that_of_its_own_program_only() {
        let cgroup = [("proc/self/cgroup", "0::/system.slice/pingferry.service\n")];
        assert_eq!(detect(&cgroup, &[("SYSTEMD_EXEC_PID", "42")]).1.unwrap(), "pingferry.service");
        assert_eq!(detect(&cgroup, &[("SYSTEMD_EXEC_PID", "41")]).1, None);
        assert_eq!(detect(&cgroup, &[("INVOCATION_ID", "1")]).1, None);
        assert_eq!(detect(&[], &[("SYSTEMD_EXEC_PID", "42")]).1.unwrap(), "UNIT");
    }
}
