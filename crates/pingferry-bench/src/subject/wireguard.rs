//! wireguard-go on the client and on the proxy host, which masquerades.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use pingferry_testnet::eventually;
use tempfile::TempDir;

use super::peers;
use super::process::{Process, first_line};
use crate::load::Wan;
use crate::testbed::{CLIENT, FAR_END, Testbed};

const DEVICE: &str = "wg0";
const PORT: u16 = 51820;
/// Starts wireguard-go, and configures it by its socket, which it creates in a fixed folder.
const SCRIPT: &str = "mount -t tmpfs none /run && {
    (until [ -S /run/wireguard/wg0.sock ]; do sleep 0.02; done; exec wg setconf wg0 \"$1\") &
    exec wireguard-go -f wg0
}";

/// Both ends. The folder has their configurations.
pub(crate) struct WireGuard {
    pub(super) client: Process,
    pub(super) router: Process,
    _folder: TempDir,
}

impl WireGuard {
    pub(super) fn start(testbed: &Testbed, wan: Wan) -> io::Result<Self> {
        testbed.link_ends(wan)?;
        let folder = tempfile::tempdir()?;
        let (near, far) = (Key::new(folder.path(), "near")?, Key::new(folder.path(), "far")?);
        let endpoint = SocketAddr::from((FAR_END.addr(), PORT));
        let near_file = near.configure(&far, &format!("AllowedIPs = 0.0.0.0/0\nEndpoint = {endpoint}\n"))?;
        let far_file = far.configure(&near, &format!("AllowedIPs = {}/32\n", CLIENT.addr()))?;
        let this = Self {
            client: Process::spawn(&mut command(&near_file), |command| testbed.client.spawn(command))?,
            router: Process::spawn(&mut command(&far_file), |command| testbed.proxy.spawn(command))?,
            _folder: folder,
        };
        for host in [&testbed.client, &testbed.proxy] {
            eventually("the device of wireguard-go", || {
                Ok(host.with_netlink(|netlink| netlink.index(DEVICE).and_then(|index| netlink.set_up(index))).is_ok())
            })?;
        }
        testbed.client.add_address(DEVICE, CLIENT.into())?;
        testbed.route_client(None, DEVICE)?;
        testbed.proxy.add_route(CLIENT.trunc().into(), None, DEVICE)?;
        peers::forward_and_masquerade(testbed)?;
        Ok(this)
    }
}

/// Both programs are needed.
pub(super) fn version() -> Result<String, String> {
    peers::version("wg", "wireguard-tools")?;
    peers::version("wireguard-go", "wireguard-go")
}

fn command(configuration: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT, "sh"]).arg(configuration).stdin(Stdio::null());
    command
}

/// The key of an end.
struct Key {
    private: String,
    public: String,
    file: std::path::PathBuf,
}

impl Key {
    fn new(folder: &Path, name: &str) -> io::Result<Self> {
        let private =
            first_line(Command::new("wg").arg("genkey")).ok_or_else(|| io::Error::other("wg genkey failed"))?;
        let file = folder.join(name);
        fs::write(&file, &private)?;
        let public = Command::new("wg").arg("pubkey").stdin(fs::File::open(&file)?).output()?.stdout;
        Ok(Self { private, public: String::from_utf8_lossy(&public).trim().into(), file })
    }

    /// Writes the configuration of this end, whose peer has another key.
    fn configure(&self, peer: &Self, about_peer: &str) -> io::Result<std::path::PathBuf> {
        let Self { private, file, .. } = self;
        let text = format!(
            "[Interface]\nPrivateKey = {private}\nListenPort = {PORT}\n[Peer]\nPublicKey = {}\n{about_peer}",
            peer.public
        );
        fs::write(file, text)?;
        Ok(file.clone())
    }
}
