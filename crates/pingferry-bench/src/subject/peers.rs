//! How the peers are started: pasta, slirp4netns, and the kernel's NAT.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use pingferry_testnet::{has_program, link};

use super::process::first_line;
use crate::testbed::{CLIENT, ROUTER, TO_RESPONDER, Testbed};

/// The client's device, which pasta and slirp4netns create.
const DEVICE: &str = "tap0";

/// pasta in the user namespace of its parent (`--netns-only` is implied by a path), as that namespace's root, the only
/// user there. The MTU is that of the other subjects.
pub(super) fn pasta(testbed: &Testbed) -> io::Result<Command> {
    let mut command = Command::new("pasta");
    command.args(["--foreground", "--config-net", "--runas", "0:0", "--mtu", "1500", "--no-netns-quit"]);
    command.args(["--ns-ifname", DEVICE, "--netns", "/proc/self/fd/0"]).stdin(testbed.client_as_stdin()?);
    Ok(command)
}

/// slirp4netns, with the MTU of the other subjects.
pub(super) fn slirp4netns(testbed: &Testbed) -> io::Result<Command> {
    let mut command = Command::new("slirp4netns");
    command.args(["--configure", "--mtu=1500", "--disable-host-loopback", "--netns-type=path"]);
    command.args(["/proc/self/fd/0", DEVICE]).stdin(testbed.client_as_stdin()?);
    Ok(command)
}

/// Makes the proxy host a router that replaces the client's source address by its own (NAT44, RFC 3022 section 2.2).
pub(super) fn masquerade(testbed: &Testbed) -> io::Result<()> {
    link(&testbed.client, "eth0", &[CLIENT.into()], &testbed.proxy, "to-client", &[ROUTER.into()], None)?;
    testbed.route_client(Some(ROUTER.addr().into()), "eth0")?;
    forward_and_masquerade(testbed)
}

/// Makes the proxy host a router whose own address is that of all packets to the responder.
pub(super) fn forward_and_masquerade(testbed: &Testbed) -> io::Result<()> {
    testbed.proxy.set_sysctl("net/ipv4/ip_forward", "1")?;
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut nft = testbed.proxy.spawn(&mut command)?;
    if let Some(mut stdin) = nft.stdin.take() {
        writeln!(
            stdin,
            "table ip nat {{ chain out {{ type nat hook postrouting priority 100; oifname {TO_RESPONDER} masquerade; }}; }}"
        )?;
    }
    let output = nft.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// The version that `program` prints, and that of its Debian package, because some programs do not know their own.
pub(super) fn version(program: &str, package: &str) -> Result<String, String> {
    if !has_program(program) {
        return Err("not installed".into());
    }
    let printed = first_line(Command::new(program).arg("--version")).unwrap_or_else(|| program.into());
    match first_line(Command::new("dpkg-query").args(["--show", "--showformat=${Version}", package])) {
        Some(version) => Ok(format!("{printed} (package {package} {version})")),
        None => Ok(printed),
    }
}
