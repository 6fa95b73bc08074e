//! Probers that operators run beside pingferry see through it what they see on the direct path.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use pingferry_testnet::{eventually, isolated};

use super::scrape::Scrape;
use super::support::*;

/// The metrics of a probe of blackbox_exporter, which runs on `host`.
fn probe(host: &pingferry_testnet::Host, target: &str) -> Scrape {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("blackbox.yml");
    std::fs::write(&config, "modules: {icmp: {prober: icmp, timeout: 5s, icmp: {preferred_ip_protocol: ip4}}}\n")
        .unwrap();
    let mut command = Command::new("prometheus-blackbox-exporter");
    command.arg(format!("--config.file={}", config.display())).arg("--web.listen-address=127.0.0.1:9115");
    let mut exporter = host.spawn(command.stdout(Stdio::null()).stderr(Stdio::null())).unwrap();
    let url = format!("http://127.0.0.1:9115/probe?module=icmp&target={target}");
    let mut body = String::new();
    let fetched = eventually("an answer of the exporter", || {
        let output = host.output(Command::new("curl").args(["-sf", &url]))?;
        body = stdout(&output);
        Ok(output.status.success())
    });
    exporter.kill().unwrap();
    exporter.wait().unwrap();
    fetched.unwrap();
    Scrape::parse(&body)
}

#[test]
fn blackbox_exporter_sees_one_more_hop_and_no_loss() {
    isolated(|| {
        if !can_run(&["prometheus-blackbox-exporter", "curl", "ip"]) {
            return;
        }
        let network = Network::new();
        for host in [&network.client, &network.proxy] {
            host.output(Command::new("ip").args(["link", "set", "lo", "up"])).unwrap();
        }
        let direct = probe(&network.proxy, TARGET);
        let running = network.run(&[]);
        let crossing = probe(&network.client, TARGET);
        assert_eq!((direct.0["probe_success"], crossing.0["probe_success"]), (1.0, 1.0));
        let hops = |scrape: &Scrape| scrape.0["probe_icmp_reply_hop_limit"];
        assert_eq!(hops(&crossing), hops(&direct) - 1.0);
        running.stop();
    });
}

/// smokeping's FPing probe reads what `fping -C` prints.
#[test]
fn smokepings_fping_sees_the_loss_of_the_direct_path() {
    isolated(|| {
        if !can_run(&["fping"]) {
            return;
        }
        let network = Network::new();
        let running = network.run(&[]);
        // The second address is nobody's.
        let args = ["-C", "5", "-q", "-B1", "-r1", "-i10", "-p", "50", "-t", "400", TARGET, "192.0.2.77"];
        let lines = |host: &pingferry_testnet::Host| -> Vec<Vec<bool>> {
            let output = host.output(Command::new("fping").args(args)).unwrap();
            let lines = BufReader::new(&*output.stderr).lines().map(Result::unwrap).filter(|line| line.contains(" : "));
            lines.map(|line| line.split(" : ").nth(1).unwrap().split(' ').map(|time| time == "-").collect()).collect()
        };
        let (direct, crossing) = (lines(&network.proxy), lines(&network.client));
        assert_eq!(direct, [[false; 5], [true; 5]]);
        assert_eq!(crossing, direct);
        running.stop();
    });
}
