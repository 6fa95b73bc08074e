//! Tests that are root of a network of their own.
//!
//! # Theory of operation
//!
//! libtest runs tests as threads of one process, and a process with several threads cannot create a user namespace. So the
//! test runs the test binary again in new namespaces, for this one test. The test function is called there again, and then
//! runs its body. The kernel deletes the namespaces when their last process exits.

use std::any::type_name_of_val;
use std::env;
use std::io::{self, Write};
use std::process::{Command, Output};

use pingferry_sys::namespace::{allow_ping, isolate};
use pingferry_sys::netlink::{LOOPBACK, Netlink};

use crate::require::require;

/// The environment variable that names the test to a process that already is in its namespaces.
const INSIDE: &str = "PINGFERRY_ISOLATED";

/// Printed after the body. It proves that the body ran: libtest succeeds even when no test has the name.
const DONE: &str = "isolated body done";

/// Runs `body` as root of a new user and network namespace, in which loopback is up and ping sockets are allowed. `body`
/// must be a closure directly in a `#[test]` function, whose name identifies the test.
///
/// Where namespaces cannot be created, prints `skipped: REASON` and returns ([`require`](crate::require)).
///
/// # Panics
///
/// When `body` panics; the message contains the output of its process. When namespaces cannot be created and
/// `PINGFERRY_REQUIRE` contains `netns`.
///
/// # Examples
///
/// ```no_run
/// #[test]
/// fn loopback_answers() {
///     pingferry_testnet::isolated(|| {
///         let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
///         socket.send_to(b"hello", socket.local_addr().unwrap()).unwrap();
///     });
/// }
/// ```
pub fn isolated(body: impl FnOnce()) {
    let test = test_name(type_name_of_val(&body));
    if env::var(INSIDE).is_ok_and(|inside| inside == test) {
        prepare().unwrap_or_else(|error| panic!("prepare the isolated network: {error}"));
        body();
        println!("{DONE}");
        return;
    }
    match run_again(test) {
        Ok(output) => report(test, &output).unwrap_or_else(|failure| panic!("{failure}")),
        Err(error) => {
            require("netns", Err(format!("user and network namespaces: {error}")));
        }
    }
}

/// The name of a test in libtest: the path of the function that contains the closure, without the crate.
fn test_name(closure: &str) -> &str {
    let function = closure.split("::{{closure}}").next().unwrap_or(closure);
    function.split_once("::").map_or(function, |(_crate, path)| path)
}

fn prepare() -> io::Result<()> {
    Netlink::open()?.set_up(LOOPBACK)?;
    allow_ping(0, 0)
}

fn run_again(test: &str) -> io::Result<Output> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["--exact", test, "--nocapture", "--include-ignored"]).env(INSIDE, test);
    isolate(&mut command).output()
}

/// Repeats the output of the other process, or returns it as the reason of a failure.
fn report(test: &str, output: &Output) -> Result<(), String> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !stdout.contains(DONE) {
        return Err(format!("isolated test {test} failed ({})\n{stdout}\n{stderr}", output.status));
    }
    print!("{stdout}");
    // Written directly, because libtest captures the output of a passing test and would hide the skip.
    for line in stderr.lines().filter(|line| line.starts_with("skipped: ")) {
        let _ = writeln!(io::stderr(), "{line}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    #[test]
    fn the_name_is_the_path_without_the_crate() {
        assert_eq!(test_name("krate::one::two::{{closure}}"), "one::two");
        assert_eq!(test_name("krate::two::{{closure}}::{{closure}}"), "two");
    }

    #[test]
    fn the_body_runs_as_root_of_an_empty_network() {
        isolated(|| {
            let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
            assert!(map.split_whitespace().eq(["0", map.split_whitespace().nth(1).unwrap(), "1"]), "{map}");
            let range = std::fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").unwrap();
            assert_eq!(range.split_whitespace().collect::<Vec<_>>(), ["0", "0"]);
            let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            let names = devices.lines().skip(2).filter_map(|line| line.split(':').next());
            assert!(names.map(str::trim).any(|name| name == "lo"), "{devices}");
            let loopback = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            loopback.send_to(b"x", loopback.local_addr().unwrap()).unwrap();
            assert_eq!(loopback.recv(&mut [0; 2]).unwrap(), 1);
        });
    }

    #[test]
    fn a_failure_reports_the_output_of_its_process() {
        let failed = report("test", &output(101 << 8, "on stdout", "the reason")).unwrap_err();
        assert_eq!(failed, "isolated test test failed (exit status: 101)\non stdout\nthe reason");
        assert!(report("test", &output(101 << 8, DONE, "failed after the body")).is_err());
        assert!(report("test", &output(0, DONE, "")).is_ok());
    }

    #[test]
    fn a_body_that_did_not_run_is_a_failure() {
        let failed = report("test", &output(0, "test result: ok. 0 passed", "")).unwrap_err();
        assert!(failed.contains("0 passed"));
    }

    fn output(status: i32, stdout: &str, stderr: &str) -> Output {
        Output { status: ExitStatus::from_raw(status), stdout: stdout.into(), stderr: stderr.into() }
    }
}
