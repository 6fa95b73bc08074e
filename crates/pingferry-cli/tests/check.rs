//! What `check` and the errors of the other commands say in each situation, and that it helps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use pingferry_sys::namespace::Netns;
use pingferry_testnet::{Host, isolated, require_root};
use serde_json::Value;
use support::*;

/// Runs a command of `sh` on a host, in a mount namespace of its own. `$0` is pingferry.
fn shell(host: &Host, script: &str) -> Output {
    let mut command = Command::new("unshare");
    let program = pingferry();
    command.args(["--mount", "sh", "-c", script]).arg(program.get_program());
    for (name, _) in program.get_envs() {
        command.env_remove(name);
    }
    // No container but the one that the script names.
    command.env_remove("KUBERNETES_SERVICE_HOST").env_remove("container");
    host.output(&mut command).unwrap()
}

/// The prefix of a command that has the user, but no capability.
const POWERLESS: &str = "setpriv --bounding-set=-all --inh-caps=-all";

fn can_run_scripts(programs: &[&str]) -> bool {
    can_run(&[&["unshare", "setpriv", "mount"], programs].concat())
}

/// Asserts that a permission is missing, which is said in one line, and returns the line.
fn denied(output: &Output) -> String {
    let line = stderr(output);
    assert_eq!((output.status.code(), line.lines().count()), (Some(77), 1), "{}", all_output(output));
    line
}

/// A process in a user and network namespace of its own, which nobody is mapped into.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        let mut command = Command::new("unshare");
        Self(command.args(["--user", "--net", "sleep", "1000"]).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The command that a line tells root to run.
fn fix(line: &str) -> &str {
    line.split_once("; run as root: ").unwrap_or_else(|| panic!("{line}")).1.trim_end()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", all_output(output)))
}

#[test]
fn it_works_with_an_address() {
    isolated(|| {
        let host = Host::new("host").unwrap();
        host.add_address("lo", net("192.0.2.1/24")).unwrap();
        let output = host.output(pingferry().arg("check")).unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", all_output(&output));
        let text = stdout(&output);
        assert!(text.starts_with("works for IPv4 only; IPv6: there is no default route\n"), "{text}");
        assert!(!text.contains("missing"), "{text}");
        host.add_address("lo", net("2001:db8::1/64")).unwrap();
        let output = host.output(pingferry().args(["check", "--json"])).unwrap();
        let expected = "works: this process can ping over IPv4 and IPv6";
        assert!(report(&output)["verdict"].as_str().unwrap().starts_with(expected), "{}", all_output(&output));
        assert_eq!(report(&output)["works"], true);
    });
}

#[test]
fn a_host_without_ipv6_works_for_ipv4() {
    isolated(|| {
        let host = Host::new("host").unwrap();
        host.set_sysctl("net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        host.add_address("lo", net("192.0.2.1/24")).unwrap();
        let output = host.output(pingferry().arg("check")).unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", all_output(&output));
        assert!(stdout(&output).starts_with("works for IPv4 only; IPv6: "), "{}", stdout(&output));
        assert!(!stdout(&output).contains("missing"), "{}", stdout(&output));
    });
}

/// That is no permission.
#[test]
fn a_host_without_routes_does_not_work() {
    isolated(|| {
        let host = Host::new("host").unwrap();
        let output = host.output(pingferry().arg("check")).unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", all_output(&output));
        assert!(stdout(&output).starts_with("does not work: there is no default route\n"), "{}", stdout(&output));
    });
}

#[test]
fn a_closed_range_of_groups_has_the_fix_of_its_container() {
    isolated(|| {
        let bare = Netns::create().unwrap();
        let checked = |name: &str, value: &str| {
            let mut command = pingferry();
            let output = bare.run(|| command.arg("check").env(name, value).output()).unwrap().unwrap();
            assert_eq!(output.status.code(), Some(77), "{}", all_output(&output));
            let text = stdout(&output);
            assert!(
                text.starts_with("does not work: no group of this process is in net.ipv4.ping_group_range"),
                "{text}"
            );
            text
        };
        for (name, value, fix) in [
            ("container", "podman", "podman run --sysctl net.ipv4.ping_group_range=\"0 0\" IMAGE\n"),
            ("container", "docker", "docker run --sysctl net.ipv4.ping_group_range=\"0 0\" IMAGE\n"),
            ("container", "lxc", "lxc.sysctl.net.ipv4.ping_group_range = 0 0\n"),
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1", "securityContext: {sysctls: [{name: net.ipv4.ping_group_range,"),
        ] {
            assert!(checked(name, value).contains(fix), "{fix}: {}", checked(name, value));
        }
        // This process may set it itself.
        assert!(checked("container", "podman").contains("sysctl -w net.ipv4.ping_group_range=\"0 0\"\n"));
        let output = bare.run(|| pingferry().args(["run", "--unix", "/tmp/pingferry-never.sock"]).output());
        let line = denied(&output.unwrap().unwrap());
        assert!(line.starts_with("pingferry: not permitted to ping: "), "{line}");
        assert!(line.contains("; no group of this process is in net.ipv4.ping_group_range"), "{line}");
        assert!(line.contains("sysctl"), "{line}");
    });
}

/// The map of a rootless container. The kernel must take the range that is advised, and it must let the process ping.
#[test]
fn the_range_for_a_rootless_container_is_one_that_the_kernel_takes() {
    if !require_root() || !can_run(&["unshare", "nsenter", "setpriv"]) {
        return;
    }
    let sleeper = Sleeper::start();
    let pid = sleeper.0.id();
    let map = |name: &str| std::fs::write(format!("/proc/{pid}/{name}"), "0 1000 1\n1 100000 65536\n");
    pingferry_testnet::eventually("the user namespace", || {
        let read = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user"));
        Ok(read(&pid.to_string())? != read("self")?)
    })
    .unwrap();
    map("uid_map").and_then(|()| map("gid_map")).unwrap();
    let inside = |script: &str| {
        let mut command = Command::new("nsenter");
        command.args(["-U", "-n", "-t", &pid.to_string(), "sh", "-c", script]).arg(pingferry().get_program());
        command.env("container", "podman").output().unwrap()
    };
    for (group, range) in [(0, "0 65535"), (65_534, "0 65535")] {
        let check = format!("exec setpriv --regid {group} --clear-groups \"$0\" check");
        let text = stdout(&inside(&check));
        assert!(text.contains(&format!("podman run --sysctl net.ipv4.ping_group_range=\"{range}\" IMAGE")), "{text}");
        let set = format!("echo {range} > /proc/sys/net/ipv4/ping_group_range && {check}");
        assert!(stdout(&inside(&set)).contains("ok       IPv4 ping socket"), "{}", all_output(&inside(&set)));
        let too_wide = inside("echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range");
        assert!(!too_wide.status.success(), "the kernel takes more than the widest range");
        inside("echo 1 0 > /proc/sys/net/ipv4/ping_group_range; true");
    }
}

#[test]
fn a_tun_file_that_cannot_be_opened() {
    isolated(|| {
        if !can_run_scripts(&[]) {
            return;
        }
        let host = Host::new("host").unwrap();
        host.add_address("lo", net("192.0.2.1/24")).unwrap();
        let closed = "f=$(mktemp) && chmod 0 $f && mount --bind $f /dev/net/tun && rm -f $f && ";
        let line = denied(&shell(&host, &format!("{closed} exec {POWERLESS} \"$0\" run --tun ping0")));
        assert!(line.contains("the mode of /dev/net/tun does not let this user open it; "), "{line}");
        assert!(line.contains("chmod 666 /dev/net/tun"), "{line}");

        let output = shell(&host, &format!("{closed} exec {POWERLESS} \"$0\" check"));
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "pings cross without it: {text}");
        assert!(text.contains("no       /dev/net/tun") && text.contains("no       exec"), "{text}");
        assert!(!text.contains("missing"), "{text}");

        let none = "mount -t tmpfs none /dev/net && ";
        let output = shell(&host, &format!("{none} container=podman exec \"$0\" run --tun ping0"));
        assert!(stderr(&output).ends_with("podman run --device /dev/net/tun IMAGE\n"), "{}", all_output(&output));
        assert_eq!(output.status.code(), Some(1));
        let output = shell(&host, &format!("{none} exec \"$0\" exec -- true"));
        assert!(stderr(&output).contains("/dev/net/tun") || stderr(&output).contains("TUN"), "{}", stderr(&output));
    });
}

#[test]
fn a_device_that_cannot_be_created() {
    isolated(|| {
        if !can_run_scripts(&[]) {
            return;
        }
        let host = Host::new("host").unwrap();
        host.add_address("lo", net("192.0.2.1/24")).unwrap();
        let run = format!("exec {POWERLESS} \"$0\" run --tun ping0");
        for (environment, expected) in [
            ("container=lxc", "run as root: ip tuntap add dev ping0 mode tun user 0 && ip link set ping0 up\n"),
            ("container=docker", "start the container with: docker run --cap-add NET_ADMIN IMAGE\n"),
            ("KUBERNETES_SERVICE_HOST=x", "securityContext: {capabilities: {add: [NET_ADMIN]}}\n"),
            (
                "SYSTEMD_EXEC_PID=$$",
                "in [Service] of the unit: AmbientCapabilities=CAP_NET_ADMIN CapabilityBoundingSet=CAP_NET_ADMIN\n",
            ),
        ] {
            let line = denied(&shell(&host, &format!("{environment} {run}")));
            assert!(line.contains("; only CAP_NET_ADMIN lets a process create a device; "), "{line}");
            assert!(line.ends_with(expected), "{expected}: {line}");
        }
        let output = shell(&host, &format!("exec {POWERLESS} \"$0\" check"));
        assert!(stdout(&output).contains("no       create a device"), "{}", stdout(&output));
        let output = shell(&host, "exec \"$0\" check");
        assert!(stdout(&output).contains("ok       create a device"), "{}", stdout(&output));
        assert!(stdout(&output).contains("ok       exec"), "{}", stdout(&output));
    });
}

/// Root makes the device, and pingferry has no capability. The command that each error names is enough.
#[test]
fn a_device_that_was_made_before_takes_its_configuration_from_root() {
    isolated(|| {
        if !can_run_scripts(&["ip", "timeout"]) {
            return;
        }
        let host = Host::new("host").unwrap();
        host.add_address("lo", net("192.0.2.1/24")).unwrap();
        let made = shell(&host, "ip tuntap add dev ping0 mode tun user 0");
        assert!(made.status.success(), "{}", all_output(&made));
        let run = |options: &str| {
            shell(&host, &format!("SYSTEMD_EXEC_PID= exec timeout 20 {POWERLESS} \"$0\" run --tun ping0 {options}"))
        };
        let helps = |options: &str, expected: &str| {
            let line = match run(options) {
                output if expected.contains("multi_queue") => stderr(&output),
                output => denied(&output),
            };
            assert!(fix(&line).contains(expected), "{expected}: {line}");
            let fixed = shell(&host, fix(&line));
            assert!(fixed.status.success(), "{}: {}", fix(&line), all_output(&fixed));
        };
        helps("", "ip link set ping0 up");
        helps("--mtu 1400", "ip link set ping0 mtu 1400");
        helps("--mtu 1400 --address 10.0.0.1/24", "ip address add 10.0.0.1/24 dev ping0");
        let all = "--mtu 1400 --address 10.0.0.1/24 --route 10.9.0.0/16";
        helps(all, "ip route add 10.9.0.0/16 dev ping0");
        // Now nothing is left to do for root.
        let start = |options: &str| {
            let script = format!("exec {POWERLESS} \"$0\" run --tun ping0 {options} \"$@\"");
            let mut command = Command::new("sh");
            command.args(["-c", &script]).arg(pingferry().get_program());
            Running::start(&host, &mut command).stop();
        };
        start(all);
        helps("--workers 2", "tun multi_queue user 0");
        start("--workers 2");
    });
}

#[test]
fn devices_of_another_kind_are_named() {
    isolated(|| {
        if !can_run_scripts(&["ip"]) {
            return;
        }
        let host = Host::new("host").unwrap();
        let made = shell(&host, "ip tuntap add dev tap0 mode tap && ip link add veth0 type veth peer name veth1");
        assert!(made.status.success(), "{}", all_output(&made));
        for (name, code, expected) in [
            (
                "tap0",
                1,
                "it is a TAP device, with Ethernet frames, and not a TUN device; run as root: ip link delete tap0",
            ),
            ("veth0", 1, "it is another kind of device, and not a TUN device; choose another name"),
            ("a-name-of-16-bytes", 64, "a device has a name of 1 to 15 bytes"),
            ("a/b", 64, "a device has a name of 1 to 15 bytes, without spaces, `/` and `:`"),
        ] {
            let output = shell(&host, &format!("exec \"$0\" run --tun {name}"));
            assert_eq!(output.status.code(), Some(code), "{}", all_output(&output));
            assert!(stderr(&output).contains(expected), "{}", stderr(&output));
        }
    });
}

#[test]
fn the_namespaces_of_others_cannot_be_entered() {
    isolated(|| {
        if !can_run_scripts(&[]) {
            return;
        }
        let host = Host::new("host").unwrap();
        let line = denied(&shell(&host, "exec \"$0\" run --tun ping0 --pid 1"));
        assert!(line.contains("process 1 is the first process of this host"), "{line}");
        let other = Host::new("other").unwrap();
        let path = netns_path(&other);
        let line = denied(&shell(&host, &format!("exec {POWERLESS} \"$0\" run --tun ping0 --netns {path}")));
        assert!(line.contains("the process belongs to another user, or has more rights; run pingferry as"), "{line}");
        let bound = format!("f=$(mktemp) && mount --bind {path} $f");
        let line = denied(&shell(&host, &format!("{bound} && exec {POWERLESS} \"$0\" run --tun ping0 --netns $f")));
        assert!(line.contains("run pingferry as root, or as the user who created it"), "{line}");
    });
}

#[test]
fn the_namespace_of_another_user_cannot_be_entered() {
    if !require_root() || !can_run(&["unshare", "setpriv"]) {
        return;
    }
    let sleeper = Sleeper::start();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(pingferry().get_program());
    let output = command.args(["run", "--tun", "ping0", "--pid", &sleeper.0.id().to_string()]).output().unwrap();
    let line = denied(&output);
    assert!(line.contains("the process belongs to another user, or has more rights; run pingferry as"), "{line}");
}

#[test]
fn user_namespaces_that_are_turned_off_have_the_sysctl_that_allows_them() {
    isolated(|| {
        if !can_run_scripts(&[]) {
            return;
        }
        let host = Host::new("host").unwrap();
        host.add_address("lo", net("192.0.2.1/24")).unwrap();
        std::fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
        for command in ["exec -- true", "demo"] {
            let line = denied(&shell(&host, &format!("exec \"$0\" {command}")));
            assert!(line.contains("; user namespaces are turned off; run as root"), "{line}");
            assert!(line.ends_with("sysctl -w user.max_user_namespaces=15000\n"), "{line}");
        }
        let output = shell(&host, "exec \"$0\" check");
        assert_eq!(output.status.code(), Some(0), "pings cross without them: {}", all_output(&output));
        assert!(stdout(&output).contains("no       user namespaces"), "{}", stdout(&output));
        assert!(stdout(&output).contains("no       exec"), "{}", stdout(&output));
        std::fs::write("/proc/sys/user/max_user_namespaces", "15000").unwrap();
        assert_eq!(shell(&host, "exec \"$0\" exec -- true").status.code(), Some(0));
    });
}

/// As in an ordinary container.
const READ_ONLY: &str =
    "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && container=podman exec";

#[test]
fn exec_works_where_sysctls_are_read_only() {
    isolated(|| {
        if !can_run_scripts(&["ping"]) {
            return;
        }
        let network = Network::new();
        let script = format!("{READ_ONLY} \"$0\" exec -- ping -n -c 1 {TARGET}");
        let output = shell(&network.proxy, &script);
        assert_eq!(output.status.code(), Some(0), "{}", all_output(&output));
        assert!(stdout(&output).contains("1 received"), "{}", all_output(&output));
        let warning = "the command cannot open ping sockets: set net.ipv4.ping_group_range to 0 0: Read-only";
        assert!(stderr(&output).contains(warning), "{}", stderr(&output));
        let output = shell(&network.proxy, &format!("{READ_ONLY} \"$0\" check"));
        assert!(stdout(&output).contains("ok       exec "), "{}", stdout(&output));
    });
}

/// The kernel lets no process of a new network namespace open ping sockets before that sysctl is set.
#[test]
fn the_demo_says_what_it_needs_where_sysctls_are_read_only() {
    isolated(|| {
        if !can_run_scripts(&[]) {
            return;
        }
        let host = Host::new("host").unwrap();
        let line = denied(&shell(&host, &format!("{READ_ONLY} \"$0\" demo")));
        assert!(line.contains("Read-only file system (os error 30); /proc/sys is read-only here; "), "{line}");
        assert!(
            line.ends_with("start the container with: podman run --security-opt unmask=/proc/sys IMAGE\n"),
            "{line}"
        );
    });
}

#[test]
fn a_socket_that_cannot_be_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("file"), "").unwrap();
    let run = |path: &Path| pingferry_that_ends().args(["run", "--unix"]).arg(path).output().unwrap();
    let missing = stderr(&run(&path("none/socket")));
    assert!(missing.contains("its folder does not exist; run: mkdir -p "), "{missing}");
    let file = stderr(&run(&path("file")));
    assert!(file.contains("a file that is no socket is there; if nobody needs it, run: rm "), "{file}");
}

#[test]
fn the_decision_of_a_policy_is_json_too() {
    let check = |args: &[&str]| {
        let output = pingferry().args(["check", "--json", "--policy", "10.1.0.1"]).args(args).output().unwrap();
        (report(&output), output.status.code())
    };
    let (answer, code) = check(&["--from", "10.9.0.1", "--deny", "10.0.0.0/8"]);
    assert_eq!((&answer["allowed"], code), (&Value::Bool(false), Some(1)));
    assert_eq!((&answer["rule"], &answer["source"]), (&"deny 10.0.0.0/8".into(), &"10.9.0.1".into()));
    let (answer, code) = check(&[]);
    assert_eq!((&answer["allowed"], &answer["rule"], code), (&Value::Bool(true), &Value::Null, Some(0)));
    assert_eq!(answer["why"], "allowed by default: no rule matches");
}

#[test]
fn what_is_hardly_meant_is_a_warning() {
    isolated(|| {
        if !can_run_scripts(&[]) {
            return;
        }
        let network = Network::new();
        let run = |options: &str| {
            let output = shell(&network.proxy, &format!("ulimit -n 200; exec \"$0\" exec {options} -- true"));
            assert_eq!(output.status.code(), Some(0), "{}", all_output(&output));
            stderr(&output)
        };
        assert!(run("--deny 10.0.0.1/8").contains("10.0.0.1/8 has host bits, and means 10.0.0.0/8"));
        let many = run("--max-sockets 4096");
        assert!(many.contains("the limit of descriptors is 200") && many.contains("the 4096 of max_sockets"), "{many}");
        assert_eq!(run("--max-sockets 20 --deny 10.0.0.0/8"), "");
    });
}
