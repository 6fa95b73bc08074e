//! Whoever reads the output can stop reading, be gone, or have no room: nothing stops, waits or panics for that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write, pipe};
use std::process::{Command, Stdio};

use pingferry_testnet::{eventually, isolated};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use support::client::{Client, echo};
use support::*;

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// A pipe that has no room left.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// `run` with a Unix socket, at `level`, whose log goes to `stderr`.
fn serve(level: &str, stderr: impl Into<Stdio>) -> Served {
    Served::start_as(|socket| {
        let mut command = pingferry();
        command.args(["run", "--log-level", level, "--unix"]).arg(socket).stderr(stderr);
        command
    })
}

fn ping(client: &Client, payload: &[u8]) {
    client.send(&echo(CLIENT, TARGET, 1, payload));
    assert!(client.receive().ends_with(payload));
}

/// Sends packets that are dropped, each with a line in the log at the level `debug`. A ping still crosses after them.
fn send_bad_packets_and_ping(client: &Client) {
    (0..10_000).for_each(|_| client.send(&[0x15; 100]));
    ping(client, b"still");
}

/// The first packet that has the proxy's address and the identifier of its socket is logged, as a loop.
#[test]
fn a_log_without_a_reader_does_not_stop_the_proxy() {
    isolated(|| {
        let (reader, writer) = pipe().unwrap();
        let served = serve("info", writer);
        drop(reader);
        let client = served.client();
        ping(&client, b"before");
        let ident = forgery::ping_ident(&served.network);
        (0..3).for_each(|_| client.send(&echo(PROXY, TARGET, ident, b"")));
        ping(&client, b"after");
        assert_eq!(served.running.stop()["request_drops"]["loop"], 3);
    });
}

#[test]
fn a_log_without_room_does_not_stop_the_proxy() {
    isolated(|| {
        let served = serve("debug", full());
        send_bad_packets_and_ping(&served.client());
        assert_eq!(served.running.stop()["request_drops"]["bad_version"], 10_000);
    });
}

/// Neither the threads that forward packets wait for the reader, nor the one that waits for signals.
#[test]
fn a_log_that_nobody_reads_holds_nothing_up() {
    isolated(|| {
        let (_reader, writer) = full_pipe();
        let served = serve("debug", writer);
        send_bad_packets_and_ping(&served.client());
        served.running.signal(Signal::HUP);
        served.running.signal(Signal::USR1);
        served.running.signal(Signal::USR2);
        assert_eq!(served.running.stop()["request_drops"]["bad_version"], 10_000);
    });
}

#[test]
fn lines_that_are_lost_are_counted_in_the_log() {
    isolated(|| {
        let (reader, writer) = full_pipe();
        let served = serve("debug", writer);
        send_bad_packets_and_ping(&served.client());
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let lost = lines.find(|line| line.contains("lines of the log were lost")).unwrap();
        assert!(!lost.contains(" 0 lines"), "{lost}");
        served.running.stop();
    });
}

/// Also the last line is written, which says why the command ends.
#[test]
fn the_last_line_is_written_before_the_end() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let network = Network::new();
        let (mut reader, writer) = pipe().unwrap();
        let mut command = pingferry();
        command.args(["run", "--tun", "ping0", "--log-level", "error"]).stderr(writer);
        let running = Running::start(&network.proxy, &mut command);
        drop(command);
        delete_ping0(&network);
        let (code, stats) = running.end_with_output();
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        let line: serde_json::Value = serde_json::from_str(&log).unwrap();
        assert!(line["fields"]["message"].as_str().unwrap().starts_with("TUN device ping0 is gone: "), "{log}");
        assert_eq!(log.lines().count(), 1, "{log}");
        assert_eq!(code, Some(1));
        assert!(stats.contains("\"packets\":"), "the statistics are printed: {stats}");
    });
}

fn delete_ping0(network: &Network) {
    let delete = |netlink: &mut pingferry_sys::netlink::Netlink| {
        let index = netlink.index("ping0")?;
        netlink.delete_link(index)
    };
    network.proxy.with_netlink(delete).unwrap();
}

#[test]
fn signals_are_heard_when_the_log_has_no_reader() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pingferry.toml");
        std::fs::write(&file, "policy = []").unwrap();
        let (reader, writer) = pipe().unwrap();
        let served = Served::start_as(|socket| {
            let mut command = pingferry();
            command.args(["run", "--config"]).arg(&file).arg("--unix").arg(socket).stderr(writer);
            command
        });
        drop(reader);
        std::fs::write(&file, "policy = [\"deny 0.0.0.0/0\"]").unwrap();
        served.running.reload();
        let client = served.client();
        eventually("the new policy", || {
            client.send(&echo(CLIENT, TARGET, 1, b"x"));
            Ok(client.receive()[20..22] == [3, 13])
        })
        .unwrap();
        served.running.signal(Signal::USR1);
        served.running.reload();
        served.running.stop();
    });
}

#[test]
fn it_serves_and_stops_when_nobody_reads_its_standard_output() {
    isolated(|| {
        let mut served = serve("info", Stdio::null());
        served.running.close_stdout();
        ping(&served.client(), b"still");
        served.running.signal(Signal::TERM);
        assert_eq!(served.running.end().code(), Some(0));

        // A pipe without room, and a device without.
        let (_reader, writer) = full_pipe();
        for stdout in [Stdio::from(writer), Stdio::from(full())] {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("ping.sock");
            let mut command = pingferry();
            let mut child =
                served.network.proxy.spawn(command.args(["run", "--unix"]).arg(&socket).stdout(stdout)).unwrap();
            let connect = || Client::try_connect(&socket);
            let client = std::cell::OnceCell::new();
            eventually("a connection", || Ok(connect().is_some_and(|connected| client.set(connected).is_ok())))
                .unwrap();
            ping(client.get().unwrap(), b"works");
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(0));
        }
    });
}

#[test]
fn statistics_come_at_a_signal_and_other_signals_do_not_end_it() {
    isolated(|| {
        let (reader, writer) = pipe().unwrap();
        let served = serve("info", writer);
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let mut next = |with: &str| lines.find(|line| line.contains(with)).unwrap();
        ping(&served.client(), b"one");
        served.running.signal(Signal::USR1);
        let stats: serde_json::Value = serde_json::from_str(&next("\"packets\"")).unwrap();
        assert_eq!((&stats["packets"], &stats["replies_returned"]), (&1.into(), &1.into()));
        served.running.signal(Signal::USR2);
        next("SIGUSR2 has no meaning");
        served.running.signal(Signal::HUP);
        next("there is no configuration file");
        assert_eq!(served.running.stop()["packets"], 1);
    });
}

/// A log that says only that a packet was dropped helps nobody.
#[test]
fn the_log_says_whose_packet_was_dropped_and_why() {
    isolated(|| {
        let (reader, writer) = pipe().unwrap();
        let served = Served::start_as(|socket| {
            let mut command = pingferry();
            command.args(["run", "--log-level", "debug", "--deny", "192.0.2.9", "--unix"]).arg(socket).stderr(writer);
            command
        });
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let mut next = |with: &str| {
            let line = lines.find(|line| line.contains(with)).unwrap();
            serde_json::from_str::<serde_json::Value>(&line).unwrap()["fields"].clone()
        };
        let client = served.client();
        let whose = |fields: &serde_json::Value| {
            ["src", "dst", "ident", "reason"].map(|key| fields[key].to_string().replace('"', ""))
        };
        client.send(&echo(CLIENT, "192.0.2.9", 4711, b"denied"));
        assert_eq!(whose(&next("packet dropped")), [CLIENT, "192.0.2.9", "4711", "destination_refused"]);
        let mut damaged = echo(CLIENT, TARGET, 4711, b"damaged");
        damaged[8] ^= 1;
        client.send(&damaged);
        assert_eq!(whose(&next("packet dropped")), [CLIENT, TARGET, "null", "bad_header_checksum"]);
        client.send(&echo(CLIENT, "203.0.113.1", 4712, b"no route"));
        assert_eq!(whose(&next("request not sent")), [CLIENT, "203.0.113.1", "4712", "no_route"]);
        served.running.stop();
    });
}

/// Also those that say why it ends, the statistics, and the one that says that it is ready.
#[test]
fn with_json_every_line_is_json_with_a_time() {
    isolated(|| {
        let (mut reader, writer) = pipe().unwrap();
        let served = serve("debug", writer);
        let client = served.client();
        ping(&client, b"one");
        client.send(&[0x15; 40]);
        served.running.signal(Signal::USR1);
        served.running.signal(Signal::USR2);
        let ready = served.running.ready.clone();
        let stats = served.running.stop();
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        for line in log.lines().chain([&*ready, &*stats.to_string()]) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        }
        let start = log.lines().find(|line| line.contains("\"message\":\"serving\"")).unwrap();
        for part in ["\"message\":\"serving\"", "\"version\":", "Unix socket ", "IPv4 ", "\"rules\":0", "\"degraded\":"]
        {
            assert!(start.contains(part), "{part} is not in {start}");
        }
        let mut command = pingferry_that_ends();
        let failed = command.args(["run", "--log-format", "json", "--config", "/nonexistent.toml"]).output().unwrap();
        let error: serde_json::Value = serde_json::from_str(&stderr(&failed)).unwrap();
        assert_eq!((failed.status.code(), &error["level"]), (Some(64), &"ERROR".into()));
    });
}

#[test]
fn with_json_a_wrong_command_line_is_json_too() {
    let mut commands = [pingferry(), pingferry(), pingferry()];
    commands[0].args(["run", "--nonsense", "--log-format", "json"]);
    commands[1].args(["--log-format=json", "run", "--mtu", "many"]);
    commands[2].arg("ruin").env("PINGFERRY_LOG_FORMAT", "json");
    for (command, expected) in commands.iter_mut().zip(["--nonsense", "many", "ruin"]) {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{}", all_output(&output));
        let line: serde_json::Value = serde_json::from_str(&stderr(&output)).unwrap();
        assert!(line["timestamp"].is_string() && line["level"] == "ERROR", "{line}");
        assert!(line["fields"]["message"].as_str().unwrap().contains(expected), "{line}");
    }
}

#[test]
fn requests_replies_and_drops_have_the_same_fields() {
    isolated(|| {
        let (reader, writer) = pipe().unwrap();
        let served = serve("debug", writer);
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let mut next = |with: &str| {
            let line = lines.find(|line| line.contains(with)).unwrap();
            let fields = serde_json::from_str::<serde_json::Value>(&line).unwrap()["fields"].clone();
            ["src", "dst", "ident", "seq"].map(|key| fields[key].to_string().replace('"', ""))
        };
        ping(&served.client(), b"one");
        assert_eq!(next("request forwarded"), [CLIENT, TARGET, "1", "1"]);
        assert_eq!(next("packet delivered"), [TARGET, CLIENT, "1", "1"]);
        served.client().send(&echo(CLIENT, "127.0.0.1", 7, b""));
        assert_eq!(next("packet dropped"), [CLIENT, "127.0.0.1", "7", "1"]);
        served.running.stop();
    });
}

/// The journal knows the time of a line and, by its prefix, how important it is.
#[test]
fn lines_for_the_journal_have_a_priority_and_no_time() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let (log, socket) = (folder.path().join("log"), folder.path().join("ping.sock"));
        let network = Network::new();
        // What systemd does: standard error is the journal, whose device and inode the variable has.
        let script = r#"export JOURNAL_STREAM=$(stat -Lc %d:%i /dev/stderr); exec "$0" run --unix "$1""#;
        let mut command = Command::new("sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_pingferry")]).arg(&socket).stderr(File::create(&log).unwrap());
        let mut child = network.proxy.spawn(command.stdout(Stdio::piped())).unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        child.wait().unwrap();
        let log = std::fs::read_to_string(&log).unwrap();
        assert!(log.lines().any(|line| line.starts_with("<6> INFO serving ")), "{log}");
        assert!(log.lines().all(|line| line.starts_with('<')), "{log}");
    });
}

/// The client's kernel looks for routers and joins groups by itself.
#[test]
fn what_a_kernel_sends_by_itself_is_no_refused_request() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let network = Network::new();
        network.client.set_sysctl("net/ipv6/conf/default/router_solicitations", "1").unwrap();
        let (reader, writer) = pipe().unwrap();
        let running = network.run_with(&["--log-level", "debug"], writer.into());
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        lines.find(|line| line.contains("packet dropped")).unwrap();
        let drops = running.stop()["request_drops"].clone();
        assert_eq!(drops.as_object().unwrap().keys().collect::<Vec<_>>(), ["link_control"], "{drops}");
    });
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    isolated(|| {
        for args in [
            &["check"][..],
            &["check", "--json"],
            &["check", "--policy", "192.0.2.1"],
            &["run", "--print-config"],
            &["run", "--unix", "/u", "--check"],
            &["demo"],
            &["--help"],
            &["run", "--help"],
            &["--version"],
        ] {
            if args == ["demo"] && !can_run(&[]) {
                continue;
            }
            let mut command = pingferry();
            let output = command.args(args).stdout(full()).stderr(Stdio::piped()).spawn().unwrap().wait_with_output();
            let output = output.unwrap();
            let expected = "pingferry: cannot write to standard output: No space left on device (os error 28)\n";
            assert_eq!((output.status.code(), &*stderr(&output)), (Some(1), expected), "{args:?}");

            // Nor can the error be written.
            let status = pingferry().args(args).stdout(full()).stderr(full()).status().unwrap();
            assert_eq!(status.code(), Some(1), "{args:?}");
        }
        assert_eq!(pingferry().arg("fly").stderr(full()).status().unwrap().code(), Some(64));
        assert_eq!(pingferry().args(["run", "--check"]).stderr(full()).status().unwrap().code(), Some(64));
    });
}

#[test]
fn a_reader_that_has_read_enough_is_no_error() {
    isolated(|| {
        for args in [&["check"][..], &["run", "--print-config"], &["demo"], &["--help"]] {
            if args == ["demo"] && !can_run(&[]) {
                continue;
            }
            // There is no route here, so that `check` does not end with 0.
            let expected =
                if args == ["check"] { pingferry().args(args).output().unwrap().status.code() } else { Some(0) };
            let (reader, writer) = pipe().unwrap();
            let mut command: Command = pingferry();
            let child = command.args(args).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
            drop(command);
            let mut first = String::new();
            let mut reader = BufReader::with_capacity(1, reader);
            reader.read_line(&mut first).unwrap();
            assert!(!first.is_empty());
            drop(reader);
            let output = child.wait_with_output().unwrap();
            assert_eq!((output.status.code(), &*stderr(&output)), (expected, ""), "{args:?}");
        }
    });
}
