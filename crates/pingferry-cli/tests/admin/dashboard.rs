//! The dashboard, the alert rules and the documentation name the metrics that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pingferry_testnet::{isolated, require_program};

use super::support::*;
use super::*;

fn file(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// The words that begin so.
fn words(text: &str, prefix: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    words.filter(|word| word.starts_with(prefix)).map(str::to_owned).collect()
}

/// The names of all samples, with a target, and of both ends of a tunnel.
fn samples() -> BTreeSet<String> {
    let admin = Admin::start(&["--metrics-target", "192.0.2.0/24=near"]);
    let scrapes = [vec![admin.scrape()], super::tunnel::scrapes()].concat();
    let names = scrapes.iter().flat_map(|scrape| scrape.0.keys());
    names.map(|name| name.split('{').next().unwrap().to_owned()).collect()
}

#[cfg(feature = "tunnel")]
#[test]
fn the_dashboard_and_the_alerts_use_metrics_that_there_are() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let samples = samples();
        for name in ["packaging/grafana.json", "packaging/alerts.yml"] {
            let text = file(name);
            let used: BTreeSet<String> = words(&text, "pingferry_").union(&words(&text, "process_")).cloned().collect();
            assert!(used.len() > 5, "{used:?}");
            let unknown: Vec<&String> = used.difference(&samples).collect();
            assert!(unknown.is_empty(), "{name}: {unknown:?}");
        }
        let dashboard: serde_json::Value = serde_json::from_str(&file("packaging/grafana.json")).unwrap();
        assert!(dashboard["panels"].as_array().unwrap().len() > 8);
    });
}

#[cfg(feature = "tunnel")]
#[test]
fn every_metric_is_documented_and_every_documented_one_is_there() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let base = |name: &str| {
            let parts = ["_bucket", "_sum", "_count"];
            parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name).to_owned()
        };
        let there: BTreeSet<String> = samples().iter().map(|name| base(name)).collect();
        let there: BTreeSet<String> = there.into_iter().filter(|name| name.starts_with("pingferry_")).collect();
        let documented = words(&file("docs/operating.md"), "pingferry_");
        assert_eq!(there.difference(&documented).collect::<Vec<_>>(), [""; 0], "not documented");
        assert_eq!(documented.difference(&there).collect::<Vec<_>>(), [""; 0], "documented, and not there");
    });
}

#[test]
fn every_alert_is_documented() {
    let documentation = file("docs/operating.md");
    let alerts = file("packaging/alerts.yml");
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 5);
    assert!(names.iter().all(|name| documentation.contains(&format!("`{name}`"))), "{names:?}");
}

#[test]
fn prometheus_accepts_the_alert_rules() {
    if require_program("promtool") {
        let checked =
            Command::new("promtool").args(["check", "rules"]).arg(path("packaging/alerts.yml")).output().unwrap();
        assert!(checked.status.success(), "{}", all_output(&checked));
    }
}
