//! The policy and the configuration file, with the whole program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pingferry_testnet::{eventually, isolated};
use support::client::echo;
use support::*;
use tempfile::TempDir;

/// A folder with a configuration file in it.
struct Folder(TempDir);

impl Folder {
    fn with(text: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write(text);
        folder
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("pingferry.toml")
    }

    /// Replaces the file as editors do.
    fn write(&self, text: &str) {
        let new = self.0.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.file()).unwrap();
    }
}

/// Pings once from the client, always with the same flow.
fn ping(network: &Network, target: &str) -> String {
    all_output(&network.client.ping(&["-n", "-c", "1", "-W", "2", "-e", "7", target]).unwrap())
}

#[test]
fn denied_requests_get_an_error_and_are_counted() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        let running = network.run(
            &[
                ["--allow", "192.0.2.2 from 198.51.100.0/24"],
                ["--deny", "192.0.2.0/24"],
                ["--deny", "198.18.0.0/15 from 198.51.100.2"],
                ["--deny", "2001:db8::/64"],
            ]
            .concat(),
        );
        assert!(ping(&network, TARGET).contains("1 received"));
        for denied in ["192.0.2.3", "198.18.0.1"] {
            assert!(ping(&network, denied).contains(&format!("From {PROXY} icmp_seq=1 Packet filtered")), "{denied}");
        }
        assert!(ping(&network, TARGET_6).contains("Administratively prohibited"));
        let stats = running.stop();
        assert_eq!(stats["request_drops"]["destination_refused"], 3, "{stats}");
        assert_eq!(stats["errors_generated"], 3, "{stats}");
    });
}

#[test]
fn sighup_changes_the_policy_and_keeps_flows() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        let folder = Folder::with("workers = 1\n");
        let log = folder.0.path().join("log");
        let mut command = pingferry();
        command.args(["run", "--tun", "ping0", "--netns", &network.netns_path(), "--address", "198.51.100.2/32"]);
        command.args(["--route", "default", "--workers", "2", "--config"]).arg(folder.file());
        command.stderr(File::create(&log).unwrap());
        let running = Running::start(&network.proxy, &mut command);
        let mut lines = 0;
        let mut reload_until_logged = |text: &str, expected: &str| {
            folder.write(text);
            running.reload();
            eventually("the reload to be logged", || {
                Ok(fs::read_to_string(&log)?.lines().skip(lines).any(|line| line.contains(expected)))
            })
            .unwrap_or_else(|error| panic!("{error}: {}", fs::read_to_string(&log).unwrap()));
            lines = fs::read_to_string(&log).unwrap().lines().count();
        };

        assert!(ping(&network, TARGET).contains("1 received"));
        reload_until_logged("policy = [\"deny 192.0.2.2\"]", "policy: 1 rules");
        assert!(ping(&network, TARGET).contains("Packet filtered"));
        reload_until_logged("policy = [\n\"allow 192.0.2.2\",\n\"deny\"]", "at line 3: `deny` is not valid");
        assert!(ping(&network, TARGET).contains("Packet filtered"), "the old policy stays");
        // The option overrides `workers` in the file, so that it does not change.
        reload_until_logged("policy = []\nidle_timeout = \"5s\"\nworkers = 3", "only after a restart: idle_timeout\"");
        assert!(ping(&network, TARGET).contains("1 received"));

        let stats = running.stop();
        assert_eq!((&stats["flows_opened"], &stats["flows_alive"]), (&1.into(), &1.into()), "{stats}");
        assert_eq!(stats["request_drops"]["destination_refused"], 2);
    });
}

/// A file that was emptied or cut off has no rules, and would allow everything.
#[test]
fn a_file_that_lost_what_it_had_changes_nothing() {
    isolated(|| {
        let (socket, file) = ("[[ingress]]\nunix = \"", "policy = [\"deny 192.0.2.0/24\"]\n");
        let table = |path: &Path| format!("{socket}{}\"\nsource = [\"198.51.100.0/24\"]\n", path.display());
        let folder = Folder::with("");
        let (reader, writer) = std::io::pipe().unwrap();
        let served = Served::start_as(|path| {
            folder.write(&format!("{file}{}", table(path)));
            let mut command = pingferry();
            command.args(["run", "--config"]).arg(folder.file()).stderr(writer);
            command
        });
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let client = served.client();
        let mut reload = |text: &str, expected: &str| {
            folder.write(text);
            served.running.reload();
            let line = lines.find(|line| line.contains("was not changed") || line.contains("reloaded")).unwrap();
            assert!(line.contains(expected), "{text}: {line}");
            client.send(&echo(CLIENT, TARGET, 1, b"x"));
            client.receive()[20..22] == [3, 13]
        };
        let table = table(&served.socket);
        for (text, lost) in [
            (String::new(), "the file is empty"),
            ("# policy = []\n".into(), "the file is empty"),
            (table.clone(), "`policy` is missing, which the file had before; to empty it, write `policy = []`"),
            (file.into(), "`source` of Unix socket "),
            (format!("{file}source = []"), "`source` of Unix socket "),
            (format!("{file}{}", table.replace("source", "#")), "`source` of Unix socket "),
            (format!("{file}{}", table.replace("sock\"", "sock2\"")), "`source` of Unix socket "),
        ] {
            assert!(reload(&text, lost), "the old policy stays: {text}");
        }
        assert!(!reload(&format!("policy = []\n{table}"), "reloaded"), "an empty policy that is written is one");
        assert!(!reload(&table, "`policy` is missing"), "the last file that was applied counts");
        served.running.stop();
    });
}

#[test]
fn a_lost_ingress_is_not_half_reloaded() {
    isolated(|| {
        let folder = Folder::with("");
        let (reader, writer) = std::io::pipe().unwrap();
        let served = Served::start_as(|path| {
            folder.write(&format!("policy = []\n[[ingress]]\nunix = '{}'", path.display()));
            let mut command = pingferry();
            command.args(["run", "--config"]).arg(folder.file()).stderr(writer);
            command
        });
        folder.write("policy = ['deny 192.0.2.2']\n[[ingress]]\nunix = '/other'");
        served.running.reload();
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let line = lines.find(|line| line.contains("\"level\":\"ERROR\"")).unwrap();
        assert!(line.contains("is missing, which is served now; to remove it, restart pingferry"), "{line}");
        let client = served.client();
        client.send(&echo(CLIENT, TARGET, 1, b"x"));
        assert!(client.receive().ends_with(b"x"), "the old policy stays");
        served.running.stop();
    });
}

#[test]
fn a_file_is_enough_to_run() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        let folder = Folder::with(&format!(
            "tun = 'ping0'\nnetns = '{}'\naddress = ['198.51.100.2/32', '2001:db8:1::2/128']\nroute = ['default']",
            network.netns_path()
        ));
        let running = Running::start(&network.proxy, pingferry().arg("run").env("PINGFERRY_CONFIG", folder.file()));
        assert!(ping(&network, TARGET).contains("1 received"));
        assert!(ping(&network, TARGET_6).contains("1 received"));
        running.stop();
    });
}

fn run(args: &[&str], env: &[(&str, &str)], file: &Path) -> Output {
    pingferry().arg("run").args(args).arg("--config").arg(file).envs(env.iter().copied()).output().unwrap()
}

fn table(text: &str) -> toml::Table {
    text.parse().unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn an_option_overrides_the_environment_the_file_and_the_default() {
    let folder = Folder::with(
        "tun = \"t\"\nidle_timeout = \"2s\"\nroute = [\"10.0.0.0/8\"]\npolicy = [\"deny 10.0.0.3\"]\nno_sandbox = true",
    );
    let routes = [("PINGFERRY_ROUTE", "10.0.0.0/16,default")];
    for (args, env, expected) in [
        (&[][..], &[][..], "idle_timeout = '2s'"),
        (&[], &[("PINGFERRY_IDLE_TIMEOUT", "3s")], "idle_timeout = '3s'"),
        (&["--idle-timeout", "4s"], &[("PINGFERRY_IDLE_TIMEOUT", "3s")], "idle_timeout = '4s'"),
        (&["--idle-timeout", "4s"], &[], "idle_timeout = '4s'"),
        (&[], &[], "max_flows = 262144"),
        (&["--tun", "u"], &[], "tun = 'u'"),
        (&[], &[], "route = ['10.0.0.0/8']"),
        (&[], &routes, "route = ['10.0.0.0/16', 'default']"),
        (&["--route", "::/0"], &routes, "route = ['::/0']"),
        (&[], &[], "no_sandbox = true"),
        (&[], &[("PINGFERRY_NO_SANDBOX", "0")], "no_sandbox = false"),
        (&["--no-sandbox"], &[("PINGFERRY_NO_SANDBOX", "0")], "no_sandbox = true"),
        (&["--log-format", "json"], &[("PINGFERRY_LOG_LEVEL", "debug")], "log_format = 'json'\nlog_level = 'debug'"),
        // Rules are added in the same order. Environment variables have no order: there, denials come first.
        (
            &["--allow", "10.0.0.1"],
            &[("PINGFERRY_ALLOW", "10.0.0.9")],
            "policy = ['allow 10.0.0.1/32', 'deny 10.0.0.3/32']",
        ),
        (
            &["--deny", "10.0.0.1"],
            &[("PINGFERRY_ALLOW", "10.0.0.2")],
            "policy = ['deny 10.0.0.1/32', 'allow 10.0.0.2/32', 'deny 10.0.0.3/32']",
        ),
        (
            &[],
            &[("PINGFERRY_ALLOW", "10.0.0.2"), ("PINGFERRY_DENY", "10.0.0.1")],
            "policy = ['deny 10.0.0.1/32', 'allow 10.0.0.2/32', 'deny 10.0.0.3/32']",
        ),
    ] {
        let args = [&["--print-config"], args].concat();
        let output = run(&args, env, &folder.file());
        let printed = table(&stdout(&output));
        for (key, value) in table(expected) {
            assert_eq!(printed.get(&key), Some(&value), "{args:?} {env:?}: {}", all_output(&output));
        }
    }
}

#[test]
fn the_printed_configuration_gives_itself_again() {
    let folder = Folder::with(
        "unix = [\"/tmp/a b\\\"c\"]\nworkers = 2\npolicy = [\"deny 10.0.0.0/8 from 10.1.0.0/16\"]\n\
         [[ingress]]\ntun = \"a\"\nmtu = 1400\ndomain = 7\npolicy = [\"deny 10.0.0.1\"]\n[[ingress]]\nunix = \"/b\"",
    );
    let args = ["--print-config", "--allow", "127.0.0.1,::1", "--gateway", "192.0.2.9", "--log-format", "json"];
    let printed = stdout(&run(&args, &[], &folder.file()));
    assert!(printed.contains("workers = 2\n") && printed.contains("log_format = \"json\"\n"), "{printed}");
    assert_eq!(table(&printed)["ingress"].as_array().unwrap().len(), 2, "{printed}");
    folder.write(&printed);
    let again = run(&["--print-config"], &[], &folder.file());
    assert_eq!(stdout(&again), printed, "{}", stderr(&again));
}

#[test]
fn a_check_states_in_one_line_what_is_wrong() {
    for (text, args, message) in [
        ("tun = \"a\"", &[][..], ""),
        ("[[ingress]]\nunix = \"/u\"", &[], ""),
        ("tun = \"a\"\ngateway = [\"192.0.2.1\", \"192.0.2.2\"]", &[], "are of the same family"),
        ("tun = \"a\"\nidle_timout = \"5s\"", &[], "at line 2; did you mean `idle_timeout`?"),
        ("tun = \"a\"\nnetns = \"/a\"\npid = 1", &[], "`netns` and `pid` cannot be used together"),
        ("netns = \"/a\"", &["--tun", "a", "--pid", "1"], "`netns` and `pid` cannot be used together"),
        ("unix = [\"/u\"]", &["--route", "default"], "`route` needs `tun`"),
        ("[[ingress]]\nmtu = 1400", &[], "`ingress` at line 1: an ingress needs `tun` or `unix`"),
        ("workers = 2", &[], "nothing to serve: give --tun NAME, --unix PATH, or a file with an [[ingress]] table"),
        ("tun = \"a\"", &["--max-flows", "0"], "invalid value '0' for '--max-flows <N>'"),
        ("tun = \"a\"", &["--mtu", "67"], "expected a whole number from 68 to 65535"),
        ("tun = \"a\"", &["--idle-timeout", "500000000000years"], "expected a duration from 1ms to 1year"),
        ("tun = \"a\"", &["--idle-timeout", "18446744073709551615s"], "expected a duration from 1ms to 1year"),
        ("tun = \"a\"", &["--idle-timeout", "0"], "expected a duration from 1ms to 1year"),
        ("tun = \"a\"", &["--busy-poll", "18446744073709551615s"], "expected a duration from 0s to 1s"),
        ("tun = \"a\"\nidle_timeout = \"0s\"", &[], "expected a duration from 1ms to 1year"),
        ("tun = \"a\"\nbusy_poll = \"1year\"", &[], "expected a duration from 0s to 1s"),
        ("tun = \"a\"", &["--deny", "10/8"], "`10/8` is not a prefix"),
        ("policy = [\"allow 10.0.0.0/8 from fd00::/8\"]", &[], "of different families: it never matches"),
    ] {
        let folder = Folder::with(text);
        let output = run(&[&["--check"], args].concat(), &[], &folder.file());
        let expected = if message.is_empty() { (Some(0), 0) } else { (Some(64), 1) };
        let error = stderr(&output);
        assert_eq!((output.status.code(), error.lines().count()), expected, "{text}: {}", all_output(&output));
        assert!(error.contains(message), "{text}: {error}");
    }
    for (name, duration) in [("PINGFERRY_IDLE_TIMEOUT", "0"), ("PINGFERRY_BUSY_POLL", "500000000000years")] {
        let output = run(&["--check"], &[(name, duration)], &Folder::with("tun = \"a\"").file());
        assert_eq!(output.status.code(), Some(64), "{name}");
        assert!(stderr(&output).contains("expected a duration from "), "{}", stderr(&output));
    }
    let empty = Folder::with("# nothing\n");
    let output = run(&["--check", "--tun", "a"], &[], &empty.file());
    assert_eq!(stderr(&output), format!("pingferry: {}: the file is empty: it has no key\n", empty.file().display()));
    let output = run(&["--check"], &[], Path::new("/nowhere.toml"));
    assert_eq!(stderr(&output), "pingferry: /nowhere.toml: No such file or directory (os error 2)\n");
}

#[test]
fn check_prints_the_rule_that_decides_and_exits_by_it() {
    isolated(|| {
        // The broadcast address of a network of this host.
        let host = pingferry_testnet::Host::new("host").unwrap();
        host.add_address("lo", net("192.0.2.1/24")).unwrap();
        let folder = Folder::with(
            "policy = [\"allow 10.1.0.0/16 from 192.168.0.0/16\", \"deny 10.0.0.0/8\"]\n\
             [[ingress]]\ntun = \"blue\"\npolicy = [\"allow 10.9.0.0/16\"]\n[[ingress]]\nunix = \"/s\"",
        );
        for (args, code, line) in [
            (&["192.0.2.7"][..], 0, "allowed by default: no rule matches\n"),
            (&["192.0.2.255"], 1, "denied by default: broadcast; only an allow rule within 192.0.2.255/32 allows it\n"),
            (&["10.1.0.1"], 1, "denied by rule 2 of 2: deny 10.0.0.0/8\n"),
            (
                &["10.1.0.1", "--from", "192.168.1.1"],
                0,
                "allowed by rule 1 of 2: allow 10.1.0.0/16 from 192.168.0.0/16\n",
            ),
            (&["10.2.0.1", "--allow", "10.2.0.0/16"], 0, "allowed by rule 1 of 3: allow 10.2.0.0/16\n"),
            (&["10.9.0.1", "--ingress", "blue"], 0, "allowed by rule 1 of 3: allow 10.9.0.0/16\n"),
            (&["10.9.0.1", "--ingress", "/s"], 1, "denied by rule 2 of 2: deny 10.0.0.0/8\n"),
            (&["10.9.0.1", "--ingress", "red"], 64, ""),
            (&["10.2.0.1", "--from", "fd00::1"], 64, ""),
            (&["here"], 64, ""),
        ] {
            let mut command: Command = pingferry();
            command.args(["check", "--config"]).arg(folder.file()).arg("--policy").args(args);
            let output = host.output(&mut command).unwrap();
            assert_eq!((output.status.code(), &*stdout(&output)), (Some(code), line), "{args:?}: {}", stderr(&output));
        }
    });
}
