//! The text of `pingferry --version`: version, commit and features.
//!
//! The commit is `PINGFERRY_COMMIT`, or what cargo wrote into the package, or what git says. None of them is required. A
//! debug build does not ask git, so that a commit alone causes no new build.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// How many digits of a commit are shown.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-env-changed=PINGFERRY_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let given = env::var("PINGFERRY_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit =
        given.or_else(packaged).or_else(checked_out).map_or_else(String::new, |commit| format!("commit {commit}, "));
    let features = if env::var_os("CARGO_FEATURE_TUNNEL").is_some() { "tunnel" } else { "none" };
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    println!("cargo::rustc-env=PINGFERRY_VERSION={version} ({commit}features: {features})");
}

/// The commit of a package that `cargo package` made.
fn packaged() -> Option<String> {
    let info = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let hash = info.split_once("\"sha1\": \"")?.1;
    hash.get(..DIGITS).map(Into::into)
}

/// The commit of this repository, and whether files differ from it.
fn checked_out() -> Option<String> {
    if env::var("PROFILE").as_deref() != Ok("release") {
        return None;
    }
    // Sources without a repository of their own may lie in that of somebody else.
    if !Path::new("../../.git").exists() {
        return None;
    }
    // The first changes with each commit, the second with the files that are built.
    println!("cargo::rerun-if-changed={}", git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    println!("cargo::rerun-if-changed=..");
    git(&["describe", "--always", "--exclude=*", "--dirty=-modified", &format!("--abbrev={DIGITS}")])
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().into())
}
