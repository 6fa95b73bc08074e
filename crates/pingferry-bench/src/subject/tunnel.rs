//! An edge on the client, and a connector on the proxy host.

use std::io;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;

use super::pingferry::Executable;
use super::process::Process;
use crate::load::Wan;
use crate::testbed::{CLIENT, HOSTS, NEAR_END, Testbed};

/// Both ends of a tunnel. The folder has their files.
pub(crate) struct Tunnel {
    pub(super) edge: Process,
    pub(super) connector: Process,
    _folder: TempDir,
}

impl Tunnel {
    pub(super) fn start(executable: &Executable, testbed: &Testbed, wan: Wan) -> io::Result<Self> {
        testbed.link_ends(wan)?;
        let folder = tempfile::tempdir()?;
        create_files(executable, folder.path())?;
        let file = |name: &str| folder.path().join(name);
        let hosts = HOSTS.trunc().to_string();

        let mut edge = executable.command();
        edge.args(["edge", "--log-format", "json", "--tun", "pf0", "--listen", &format!("{}:7844", NEAR_END.addr())]);
        edge.args(["--address", &format!("{}/32", CLIENT.addr()), "--route", &hosts]);
        edge.arg("--tunnels").arg(file("tunnels.toml"));
        edge.arg("--cert").arg(file("edge.pem")).arg("--key").arg(file("edge.key"));
        let mut connector = executable.command();
        connector.args(["connect", "--log-format", "json", "--grace-period", "0s", "--connections", "1"]);
        connector.args(["--edge", &NEAR_END.addr().to_string(), "--advertise", &hosts]);
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
    init.args(["edge", "init"]).arg(folder).args(["--name", &NEAR_END.addr().to_string()]);
    init.args(["--allow", &HOSTS.trunc().to_string()]).stdout(Stdio::null());
    let output = init.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
}
