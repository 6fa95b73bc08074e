//! What packages are made of: completions, manual pages, and what the program says about itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use pingferry_testnet::require_program;
use support::*;

fn output_of(args: &[&str]) -> String {
    let output = pingferry().args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", all_output(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The subcommands that `--help` lists.
fn subcommands() -> Vec<String> {
    let help = output_of(&["--help"]);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(Into::into).collect()
}

#[test]
fn every_shell_completes_every_subcommand() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = output_of(&["completions", shell]);
        for subcommand in subcommands() {
            assert!(script.contains(&subcommand), "{shell}: {subcommand}");
        }
    }
}

#[test]
fn shells_can_parse_their_completions() {
    for (shell, check) in [("bash", &["-n"][..]), ("zsh", &["-n"]), ("fish", &["--no-execute"])] {
        if !require_program(shell) {
            continue;
        }
        let mut child = Command::new(shell).args(check).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(output_of(&["completions", shell]).as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {}", all_output(&output));
    }
}

#[test]
fn bash_completes_an_option() {
    if !require_program("bash") {
        return;
    }
    let script = output_of(&["completions", "bash"])
        + "COMP_WORDS=(pingferry run --idle); COMP_CWORD=2; _pingferry pingferry --idle run; echo ${COMPREPLY[@]}";
    let output = Command::new("bash").arg("-c").arg(script).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "--idle-timeout", "{}", all_output(&output));
}

#[test]
fn every_subcommand_has_a_page_without_faults() {
    let folder = tempfile::tempdir().unwrap();
    output_of(&["man", folder.path().to_str().unwrap()]);
    let page = |name: &str| folder.path().join(format!("{name}.1"));
    for subcommand in subcommands() {
        let text = fs::read_to_string(page(&format!("pingferry-{subcommand}"))).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{subcommand}");
    }
    assert!(!page("pingferry-man").exists());
    let text = fs::read_to_string(page("pingferry")).unwrap();
    assert!(text.contains(".SH \"EXIT STATUS\"") && text.contains(".SH FILES"), "{text}");
    if require_program("mandoc") {
        fs::read_dir(folder.path()).unwrap().for_each(|entry| lint(&entry.unwrap().path()));
    }
}

/// Fails if `mandoc` finds an error in a page: text or a request that is lost.
fn lint(page: &Path) {
    let output = Command::new("mandoc").args(["-T", "lint", "-W", "error"]).arg(page).output().unwrap();
    assert!(output.status.success(), "{}", all_output(&output));
}

#[test]
fn a_folder_that_is_missing_is_one_clear_line() {
    let output = pingferry().args(["man", "/nonexistent/folder"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("cannot write the manual to /nonexistent/folder: No such file"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn the_version_says_which_features_there_are() {
    let version = output_of(&["--version"]);
    let expected = format!("pingferry {} (", env!("CARGO_PKG_VERSION"));
    assert!(version.starts_with(&expected), "{version}");
    let features = if cfg!(feature = "tunnel") { "features: tunnel)" } else { "features: none)" };
    assert!(version.trim_end().ends_with(features), "{version}");
}
