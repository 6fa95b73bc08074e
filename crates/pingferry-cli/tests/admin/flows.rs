use std::collections::BTreeSet;

use pingferry_testnet::{isolated, require_root};
use serde_json::Value;

use super::support::*;
use super::*;

/// All flows, page by page.
fn flows(admin: &Admin) -> Vec<Value> {
    let (mut flows, mut path) = (Vec::new(), "/flows".to_owned());
    loop {
        let page = admin.get(&path).json();
        flows.extend(page["flows"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => path = format!("/flows?cursor={next}"),
            None => return flows,
        }
    }
}

#[test]
fn a_flow_tells_who_pings_whom_and_how_well() {
    isolated(|| {
        let admin = Admin::start(&[]);
        let client = admin.client();
        ping(&client, CLIENT, TARGET, 4711);
        let flows = flows(&admin);
        let [flow] = &*flows else { panic!("{flows:?}") };
        assert_eq!((&flow["source"], &flow["destination"]), (&CLIENT.into(), &TARGET.into()));
        assert_eq!(
            (&flow["ident"], &flow["sent"], &flow["received"], &flow["lost"]),
            (&4711.into(), &1.into(), &1.into(), &0.into())
        );
        assert_eq!(flow["socket_ident"], forgery::ping_ident(&admin.served.network));
        let rtt = flow["last_rtt_seconds"].as_f64().unwrap();
        assert!(rtt > 0.0 && rtt < 10.0 && flow["last_error"].is_null(), "{flow}");
    });
}

#[test]
fn pages_have_each_of_many_flows_of_all_workers_once() {
    isolated(|| {
        let admin = Admin::start(&["--workers", "2"]);
        // Each connection is a domain of its own, of one of the workers.
        let clients = [admin.client(), admin.client(), admin.client()];
        for client in &clients {
            for ident in 0..1500 {
                client.send(&echo(CLIENT, TARGET, ident, b""));
                client.receive();
            }
        }
        let flows = flows(&admin);
        let distinct: BTreeSet<String> =
            flows.iter().map(|flow| format!("{} {}", flow["path"], flow["ident"])).collect();
        assert_eq!(flows.len(), 4500);
        assert!(distinct.len() >= 1500, "{}", distinct.len());
    });
}

#[test]
fn health_says_which_family_works_and_what_is_served() {
    isolated(|| {
        let admin = Admin::start(&[]);
        assert_eq!((admin.get("/livez").status, admin.get("/livez").json()["alive"].as_bool()), (200, Some(true)));
        let ready = admin.get("/readyz");
        let json = ready.json();
        assert_eq!((ready.status, &json["families"]["ipv4"]["works"]), (200, &true.into()));
        assert!(json["ingresses"][0].as_str().unwrap().starts_with("Unix socket "), "{json}");
    });
}

/// As root of the machine: in a user namespace only group 0 exists, and the range cannot exclude it.
#[test]
fn it_is_not_ready_when_no_group_may_open_ping_sockets_any_more() {
    if !require_root() {
        return;
    }
    let admin = Admin::start(&[]);
    admin.served.network.proxy.set_sysctl("net/ipv4/ping_group_range", "1 0").unwrap();
    let ready = admin.get("/readyz");
    assert_eq!((ready.status, ready.json()["ready"].as_bool()), (503, Some(false)));
    assert!(ready.json()["families"]["ipv4"]["why"].as_str().unwrap().contains("Permission denied"));
    assert_eq!(admin.get("/livez").status, 200);
}

#[test]
fn a_suspended_process_answers_again_when_it_goes_on() {
    isolated(|| {
        let admin = Admin::start(&[]);
        admin.served.running.pause();
        admin.served.running.resume();
        assert_eq!(admin.get("/livez").status, 200);
    });
}

#[test]
fn status_prints_what_the_process_does() {
    isolated(|| {
        let admin = Admin::start(&[]);
        ping(&admin.client(), CLIENT, TARGET, 1);
        let status = |more: &[&str]| {
            let mut command = pingferry_that_ends();
            command.args(["status", "--admin"]).arg(format!("unix:{}", admin.address.display())).args(more);
            command.output().unwrap()
        };
        let text = status(&[]);
        assert!(text.status.success(), "{}", all_output(&text));
        assert!(stdout(&text).contains("packets 1, requests sent 1, replies returned 1,"), "{}", stdout(&text));
        let json: Value = serde_json::from_str(&stdout(&status(&["--json"]))).unwrap();
        assert_eq!((&json["stats"]["packets"], &json["health"]["ready"]), (&1.into(), &true.into()));
        admin.served.running.signal(rustix::process::Signal::TERM);
    });
}

#[test]
fn status_without_a_process_says_what_to_do() {
    let output = pingferry_that_ends().args(["status", "--admin", "unix:/nonexistent/admin.sock"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("pingferry run needs --admin"), "{}", stderr(&output));
}

#[test]
fn the_default_socket_is_in_the_runtime_directory() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let served = Served::start_as(|socket| {
            let mut command = pingferry();
            command.args(["run", "--unix"]).arg(socket).arg("--admin").env("RUNTIME_DIRECTORY", folder.path());
            command
        });
        assert!(folder.path().join("admin.sock").exists());
        let status = pingferry_that_ends().arg("status").env("RUNTIME_DIRECTORY", folder.path()).output().unwrap();
        assert!(status.status.success(), "{}", all_output(&status));
        served.running.stop();
    });
}
