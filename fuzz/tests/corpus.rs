//! Replays every file of every corpus through the body of its target.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use pingferry_fuzz::{Body, TARGETS};

/// How often each file is replayed. The endpoint's hash tables use a new random key each time.
const ROUNDS: usize = 3;

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = folder.read_dir().unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

fn replay(target: &str) {
    let body: Body = TARGETS.iter().find(|(name, _)| *name == target).map(|(_, body)| *body).unwrap();
    for file in corpus(target) {
        // If the test fails, the last line names the file.
        println!("{}", file.display());
        let data = std::fs::read(&file).unwrap();
        (0..ROUNDS).for_each(|_| body(&data));
    }
}

#[test]
fn packet() {
    replay("packet");
}

#[test]
fn reassembly() {
    replay("reassembly");
}

#[test]
fn error_queue() {
    replay("error_queue");
}

#[test]
fn endpoint() {
    replay("endpoint");
}

#[test]
fn datagram() {
    replay("datagram");
}

#[test]
fn control() {
    replay("control");
}

#[test]
fn netlink() {
    replay("netlink");
}

#[test]
fn edge() {
    replay("edge");
}

#[test]
fn every_body_has_a_target_and_a_corpus() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, _) in TARGETS {
        assert!(fuzz.join("fuzz_targets").join(name).with_extension("rs").is_file(), "{name} has no target");
        corpus(name);
    }
}
