//! An edge on the client, and a connector on the proxy host, with a link between them for QUIC.

use std::io;
use std::path::Path;
use std::process::Stdio;

use ipnet::Ipv4Net;
use pingferry_testnet::link;
use tempfile::TempDir;

use super::pingferry::Executable;
use super::process::Process;
use crate::testbed::{CLIENT, HOSTS, Testbed};

/// The addresses of the edge and of the connector on the link between them (RFC 5737).
const EDGE: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(203, 0, 113, 1), 24);
const CONNECTOR: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(203, 0, 113, 2), 24);

/// Both ends of a tunnel. The folder has their files.
pub(crate) struct Tunnel {
    pub(super) edge: Process,
    pub(super) connector: Process,
    _folder: TempDir,
}

impl Tunnel {
    pub(super) fn start(executable: &Executable, testbed: &Testbed) -> io::Result<Self> {
        link(&testbed.client, "wan", &[EDGE.into()], &testbed.proxy, "wan", &[CONNECTOR.into()], None)?;
        let folder = tempfile::tempdir()?;
        create_files(executable, folder.path())?;
        let file = |name: &str| folder.path().join(name);
        let hosts = HOSTS.trunc().to_string();

        let mut edge = executable.command();
        edge.args(["edge", "--log-format", "json", "--tun", "pf0", "--listen", &format!("{}:7844", EDGE.addr())]);
        edge.args(["--address", &format!("{}/32", CLIENT.addr()), "--route", &hosts]);
        edge.arg("--tunnels").arg(file("tunnels.toml"));
        edge.arg("--cert").arg(file("edge.pem")).arg("--key").arg(file("edge.key"));
        let mut connector = executable.command();
        connector.args(["connect", "--log-format", "json", "--grace-period", "0s", "--connections", "1"]);
        connector.args(["--edge", &EDGE.addr().to_string(), "--advertise", &hosts]);
        connector.arg("--ca").arg(file("ca.pem")).arg("--token-file").arg(file("token"));
        Ok(Self {
            edge: Process::spawn(&mut edge, |command| testbed.client.spawn(command))?,
            connector: Process::spawn(&mut connector, |command| testbed.proxy.spawn(command))?,
            _folder: folder,
        })
    }
}

fn create_files(executable: &Executable, folder: &Path) -> io::Result<()> {
    let mut init = executable.command();
    init.args(["edge", "init"]).arg(folder).args(["--name", &EDGE.addr().to_string()]);
    init.args(["--allow", &HOSTS.trunc().to_string()]).stdout(Stdio::null());
    let output = init.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
}
