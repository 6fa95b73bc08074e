use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use pingferry_testnet::isolated;

use super::support::*;
use super::*;

#[test]
fn only_this_user_can_open_the_socket_and_it_is_removed_at_the_end() {
    isolated(|| {
        let admin = Admin::start(&[]);
        let mode = fs::metadata(&admin.address).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{mode:o}");
        admin.served.running.stop();
        assert!(!admin.address.exists());
    });
}

#[test]
fn the_socket_of_a_killed_process_is_replaced_and_that_of_a_running_one_is_not() {
    isolated(|| {
        let admin = Admin::start(&[]);
        let again = |socket: &str| {
            let mut command = pingferry_that_ends();
            command.args(["run", "--admin"]).arg(format!("unix:{}", admin.address.display()));
            command.arg("--unix").arg(admin.served.socket.with_file_name(socket)).output().unwrap()
        };
        let second = again("second.sock");
        assert!(stderr(&second).contains("Address already in use"), "{}", stderr(&second));
        admin.served.running.signal(rustix::process::Signal::KILL);
        let Admin { served, address } = admin;
        served.running.end();
        let mut command = pingferry();
        command.args(["run", "--admin"]).arg(format!("unix:{}", address.display()));
        command.arg("--unix").arg(served.socket.with_file_name("third.sock"));
        let third = Running::start(&served.network.proxy, &mut command);
        assert_eq!(http::get(&address, "/livez").status, 200);
        third.stop();
    });
}

#[test]
fn an_address_that_other_hosts_reach_needs_permission() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9090"] {
            let mut command = pingferry_that_ends();
            let socket = folder.path().join("ping.sock");
            let output = command.args(["run", "--admin", address, "--unix"]).arg(socket).output().unwrap();
            assert_eq!(output.status.code(), Some(64), "{address}");
            assert!(stderr(&output).contains("--admin-allow-remote"), "{}", stderr(&output));
        }
        Served::start(&["--admin", "0.0.0.0:0", "--admin-allow-remote"]).running.stop();
    });
}

#[test]
fn the_server_is_confined_like_all_threads_and_still_answers() {
    isolated(|| {
        let admin = Admin::start(&[]);
        for path in ["/", "/metrics", "/livez", "/readyz", "/status", "/flows"] {
            assert_eq!(admin.get(path).status, 200, "{path}");
        }
        let mut names = Vec::new();
        for task in fs::read_dir(format!("/proc/{}/task", admin.served.running.id())).unwrap() {
            // A thread that has just ended has no status.
            let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else { continue };
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
            assert_eq!((field("CapEff:").as_str(), field("Seccomp:").as_str()), ("0000000000000000", "2"), "{status}");
            names.push(field("Name:"));
        }
        assert!(names.iter().any(|name| name == "admin"), "{names:?}");
    });
}

/// More clients than are served at a time send the beginning of a request and then nothing.
#[test]
fn slow_clients_do_not_keep_others_out() {
    isolated(|| {
        let admin = Admin::start(&[]);
        let slow: Vec<_> = (0..40)
            .map(|_| {
                let mut stream = http::connect(&admin.address);
                stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: loc").unwrap();
                stream
            })
            .collect();
        assert_eq!(admin.get("/livez").status, 200);
        // Their connections were closed, and pings cross all the while.
        for mut stream in slow {
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        }
        ping(&admin.client(), CLIENT, TARGET, 1);
    });
}

#[test]
fn a_request_that_is_too_long_or_wrong_is_refused() {
    isolated(|| {
        let admin = Admin::start(&[]);
        let long = format!("/{}", "a".repeat(20_000));
        for (request, status) in [
            (format!("GET {long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), 431),
            ("nonsense\r\n\r\n".to_owned(), 400),
            (
                "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    .to_owned(),
                405,
            ),
        ] {
            let answer = http::request(&admin.address, &request);
            assert!(answer.status == status || (status == 431 && answer.status == 414), "{}", answer.head);
        }
        assert_eq!(admin.get("/nothing").status, 404);
        assert_eq!(admin.get("/flows?cursor=x").status, 400);
        assert_eq!(admin.get("/flows?cursor=9999999999.18446744073709551615").status, 200);
        assert_eq!(admin.get("/livez").status, 200);
    });
}
