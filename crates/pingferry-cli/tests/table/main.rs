//! What the tools that people trace routes with show through pingferry, and through a kernel router in its place.
//!
//! Each command of each tool runs on two networks with the same addresses. What it prints must be equal, line by line,
//! except for what `output` takes out (times, random numbers) and what `allowed` lists with a reason. The test prints the
//! result as a table, which `./dev table` shows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "a test has no users")]

mod allowed;
mod output;
#[path = "../support/mod.rs"]
mod support;
mod tools;

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::thread;

use pingferry_testnet::{Host, isolated};

use allowed::Register;
use support::routed::{GATEWAY, RoutedNetwork};
use support::{all_output, can_run};
use tools::{Tool, tools};

#[test]
fn tools_show_the_same_through_pingferry_as_through_a_router() {
    isolated(|| {
        if !can_run(&["ip", "nft"]) {
            return;
        }
        let [direct, proxied] = [RoutedNetwork::direct(), RoutedNetwork::new()];
        let running = proxied.run(&["--gateway", &GATEWAY.join(","), "--udp", "probes", "--tcp", "probes"]);
        // Some tools trace no route that has no gateway: to them the destination is a neighbour.
        route_by_gateway(&proxied.client);
        let _servers = [&direct, &proxied].map(|network| serve(&network.target).unwrap());
        [&direct, &proxied].into_iter().for_each(RoutedNetwork::filter);
        let folder = tempfile::tempdir().unwrap();
        let mut table = Table::default();
        for tool in tools(folder.path()) {
            table.add(&tool, &[&direct, &proxied]);
        }
        running.stop();
        table.finish();
    });
}

/// A TCP port that is open, and a UDP port that returns what it gets.
fn serve(target: &Host) -> io::Result<TcpListener> {
    let (tcp, udp) = target.run(|| io::Result::Ok((TcpListener::bind("[::]:80")?, UdpSocket::bind("[::]:53")?)))??;
    thread::spawn(move || -> io::Result<()> {
        let mut buffer = [0; 2000];
        loop {
            let (len, client) = udp.recv_from(&mut buffer)?;
            udp.send_to(&buffer[..len], client)?;
        }
    });
    Ok(tcp)
}

fn route_by_gateway(client: &Host) {
    for (family, gateway) in ["-4", "-6"].into_iter().zip(GATEWAY) {
        let args = [family, "route", "replace", "default", "via", gateway, "dev", "ping0", "onlink"];
        let output = client.output(Command::new("ip").args(args)).unwrap();
        assert!(output.status.success(), "{}", all_output(&output));
    }
}

/// The table that is printed, and what is wrong.
#[derive(Default)]
struct Table {
    rows: Vec<String>,
    reasons: Vec<&'static str>,
    failures: Vec<String>,
    register: Register,
}

impl Table {
    fn add(&mut self, tool: &Tool, networks: &[&RoutedNetwork; 2]) {
        let cells: Vec<String> = if tool.can_run() {
            [0, 1].iter().map(|family| self.compare(tool, *family, networks)).collect()
        } else {
            vec!["not run: not installed".into(); 2]
        };
        self.rows.push(format!("| `{}` | {} |", tool.name(), cells.join(" | ")));
    }

    /// Runs the tool on both networks. Returns the text of the cell.
    fn compare(&mut self, tool: &Tool, family: usize, networks: &[&RoutedNetwork; 2]) -> String {
        if let Some(reason) = tool.cannot(family) {
            return reason.into();
        }
        let (mut lines, mut notes, mut is_equal) = (0, Vec::new(), true);
        for command in tool.commands(family) {
            let [direct, proxied] = run_on_both(tool, &command, networks);
            let Ok(compared) = output::compare(&direct, &proxied) else {
                self.failures.push(format!("{command}: nothing to compare\n{direct}\n{proxied}"));
                return "**failed**".into();
            };
            lines += compared.equal;
            for difference in compared.differences {
                match self.register.reason(tool, &difference) {
                    Some(reason) => notes.push(self.note(reason)),
                    None => {
                        is_equal = false;
                        self.failures.push(format!("{command}\n    {difference}"));
                    }
                }
            }
        }
        notes.sort_unstable();
        notes.dedup();
        let notes: String = notes.iter().map(|number| format!(" [{number}]")).collect();
        if is_equal { format!("equal{notes}, {lines} facts") } else { "**differs**".into() }
    }

    /// The number of a reason below the table.
    fn note(&mut self, reason: &'static str) -> usize {
        let position = self.reasons.iter().position(|known| *known == reason);
        position.unwrap_or_else(|| {
            self.reasons.push(reason);
            self.reasons.len() - 1
        }) + 1
    }

    fn finish(mut self) {
        println!("| tool | IPv4 | IPv6 |\n|---|---|---|\n{}\n", self.rows.join("\n"));
        for (number, reason) in (1..).zip(&self.reasons) {
            println!("{number}. {reason}");
        }
        self.failures.extend(self.register.unused());
        assert!(self.failures.is_empty(), "direct | proxied\n{}", self.failures.join("\n"));
    }
}

/// Runs the command on the client of both networks at once.
fn run_on_both(tool: &Tool, command: &str, networks: &[&RoutedNetwork; 2]) -> [String; 2] {
    thread::scope(|scope| {
        let threads = networks.map(|network| scope.spawn(|| network.client.output(&mut tool.shell(command)).unwrap()));
        threads.map(|thread| all_output(&thread.join().unwrap()))
    })
}
