//! No file that a user names is waited for: what is no regular file is refused at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, pipe};
use std::os::unix::net::UnixListener;
use std::path::Path;

use pingferry_testnet::isolated;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use support::*;

fn make_fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
}

/// Opening a FIFO waits for its writer, and reading it for the end.
#[test]
fn a_configuration_is_a_regular_file() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let fifo = folder.path().join("fifo");
    make_fifo(&fifo);
    for path in [&*fifo, folder.path(), "/dev/zero".as_ref()] {
        let output = pingferry_that_ends().args(["run", "--check", "--config"]).arg(path).output()?;
        let expected = format!("pingferry: {}: it must be a regular file\n", path.display());
        assert_eq!((output.status.code(), stderr(&output)), (Some(64), expected));
    }
    Ok(())
}

/// Opening a FIFO waits for its reader, and so would each packet.
#[test]
fn a_capture_is_a_regular_file() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let (fifo, socket) = (folder.path().join("fifo"), folder.path().join("socket"));
    make_fifo(&fifo);
    let _listener = UnixListener::bind(&socket)?;
    let check = |path: &Path| {
        let output = pingferry_that_ends().args(["run", "--unix", "/nowhere/s", "--pcap"]).arg(path).output()?;
        let expected = format!("pingferry: {}: a capture must be a regular file, and this is none\n", path.display());
        assert_eq!((output.status.code(), stderr(&output)), (Some(64), expected));
        io::Result::Ok(())
    };
    check(&fifo)?;
    check(&socket)?;
    check("/dev/null".as_ref())?;
    // With a reader, it opens at once.
    let _reader = OpenOptions::new().read(true).write(true).open(&fifo)?;
    check(&fifo)
}

#[test]
fn a_namespace_is_not_waited_for() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let fifo = folder.path().join("fifo");
    make_fifo(&fifo);
    let output = pingferry_that_ends().args(["run", "--tun", "ping0", "--netns"]).arg(&fifo).output()?;
    assert_eq!(output.status.code(), Some(1), "{}", all_output(&output));
    assert!(stderr(&output).contains("Invalid argument"), "{}", all_output(&output));
    Ok(())
}

#[test]
fn a_configuration_that_became_a_fifo_does_not_deafen_it() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pingferry.toml");
        fs::write(&file, "policy = []").unwrap();
        let (reader, writer) = pipe().unwrap();
        let served = Served::start_as(|socket| {
            let mut command = pingferry();
            command.args(["run", "--config"]).arg(&file).arg("--unix").arg(socket).stderr(writer);
            command
        });
        fs::remove_file(&file).unwrap();
        make_fifo(&file);
        served.running.reload();
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("must be a regular file") && line.contains("was not changed")));
        served.running.stop();
    });
}

/// The files of both ends of a tunnel, each in turn a FIFO.
#[cfg(feature = "tunnel")]
#[test]
fn no_file_of_a_tunnel_is_waited_for() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut init = pingferry_that_ends();
    init.args(["edge", "init"]).arg(folder.path()).args(["--name", "edge.example", "--allow", "10.0.0.0/8"]);
    assert!(init.output()?.status.success());
    let fifo = folder.path().join("fifo");
    make_fifo(&fifo);
    let edge = ["edge", "--tun", "pf0", "--tunnels", "tunnels.toml", "--cert", "edge.pem", "--key", "edge.key"];
    let connect =
        ["connect", "--edge", "192.0.2.1", "--advertise", "10.0.0.0/8", "--ca", "ca.pem", "--token-file", "token"];
    let credentials = [&connect[..7], &["--credentials-file", "token"]].concat();
    for (command, file) in [
        (&edge[..], "tunnels.toml"),
        (&edge, "edge.pem"),
        (&edge, "edge.key"),
        (&connect, "ca.pem"),
        (&connect, "token"),
        (&credentials, "token"),
    ] {
        let args = command.iter().map(|arg| if *arg == file { "fifo" } else { arg });
        let output = pingferry_that_ends().current_dir(folder.path()).args(args).output()?;
        assert!(stderr(&output).contains("fifo: it must be a regular file"), "{file}: {}", all_output(&output));
        assert!(matches!(output.status.code(), Some(1 | 64)), "{file}: {}", all_output(&output));
    }
    // The credential of systemd has a fixed name.
    let credentials = tempfile::tempdir()?;
    make_fifo(&credentials.path().join("token"));
    let output = pingferry_that_ends().args(&connect[..5]).env("CREDENTIALS_DIRECTORY", credentials.path()).output()?;
    assert!(stderr(&output).contains("token: it must be a regular file"), "{}", all_output(&output));
    Ok(())
}
