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
        let expected =
            format!("pingferry: {}: a configuration must be a regular file, and this is none\n", path.display());
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
