//! An edge and connectors, as an operator starts them.

use std::io::BufRead;
use std::process::{Command, Output, Stdio};

use pingferry_testnet::link;
use tempfile::TempDir;

use super::routed::{RoutedNetwork, TARGET};
use super::{Running, net, pingferry, stderr};

/// The addresses of the TUN device and of the hosts between which the tunnel runs.
pub const TUN: [&str; 2] = ["198.51.100.2", "2001:db8:1::2"];
pub const EDGE: &str = "203.0.113.1";
pub const ROUTES: [&str; 2] = ["192.0.2.0/24", "2001:db8::/32"];

/// The host of the edge, where people ping, is connected only to X, where a connector runs.
pub struct Tunnel {
    pub network: RoutedNetwork,
    pub folder: TempDir,
}

impl Tunnel {
    pub fn new() -> Self {
        let network = RoutedNetwork::new();
        let wan = |address| [net(address)];
        link(&network.client, "wan", &wan("203.0.113.1/24"), &network.x, "wan", &wan("203.0.113.2/24"), None).unwrap();
        let tunnel = Self { network, folder: tempfile::tempdir().unwrap() };
        let mut init = pingferry();
        init.args(["edge", "init"]).arg(tunnel.folder.path()).args(["--name", EDGE]);
        ROUTES.iter().for_each(|route| _ = init.args(["--allow", route]));
        let output = init.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        tunnel
    }

    pub fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub fn edge(&self) -> Running {
        self.edge_with(&[])
    }

    pub fn edge_with(&self, more: &[&str]) -> Running {
        self.edge_at("203.0.113.1:7844", more)
    }

    pub fn edge_at(&self, listen: &str, more: &[&str]) -> Running {
        Running::start(&self.network.client, self.edge_command(listen).args(more))
    }

    pub fn edge_command(&self, listen: &str) -> Command {
        let mut command = pingferry();
        command.args(["edge", "--listen", listen, "--tun", "pf0"]);
        for address in TUN {
            command.args(["--address", &format!("{address}/{}", if address.contains(':') { 128 } else { 32 })]);
        }
        ROUTES.iter().for_each(|route| _ = command.args(["--route", route]));
        command.args(["--tunnels", &self.file("tunnels.toml"), "--cert", &self.file("edge.pem")]);
        command.args(["--key", &self.file("edge.key")]).stderr(Stdio::piped());
        command
    }

    pub fn connector(&self, more: &[&str]) -> Running {
        Running::start(&self.network.x, self.connect(&["--edge", EDGE, "--token-file", &self.file("token")]).args(more))
    }

    /// A connector that serves everything, without an edge and a token.
    pub fn connect(&self, more: &[&str]) -> Command {
        let mut command = pingferry();
        command.args(["connect", "--ca", &self.file("ca.pem")]).args(more);
        ROUTES.iter().for_each(|route| _ = command.args(["--advertise", route]));
        command
    }

    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        self.network.client.output(Command::new(program).args(args).env("LC_ALL", "C")).unwrap()
    }

    /// Waits until a ping is answered: connectors register and advertise by themselves.
    pub fn wait(&self) {
        let answered = || Ok(self.run("ping", &["-c1", "-W1", TARGET[0]]).status.success());
        pingferry_testnet::eventually("an answer", answered).unwrap();
    }
}

impl Tunnel {
    /// The files of another tunnel.
    pub fn other_token() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut init = pingferry();
        init.args(["edge", "init"]).arg(folder.path()).args(["--name", "edge.example", "--allow", "10.0.0.0/8"]);
        assert!(init.output().unwrap().status.success());
        folder
    }
}

/// The log of an edge up to a line that contains `text`.
pub fn log_until(log: &mut impl BufRead, text: &str) -> String {
    let mut read = String::new();
    while !read.lines().last().is_some_and(|line| line.contains(text)) {
        assert_ne!(log.read_line(&mut read).unwrap(), 0, "{read}");
    }
    read
}
