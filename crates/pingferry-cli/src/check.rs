//! `pingferry check`: whether this process can ping here, from which addresses, and what fixes what is missing.
//!
//! `probe` examines the machine, `report` holds the result, `verdict` sums it up, `fix` looks up what fixes what is missing in
//! the table of pingferry-sys, which the errors of all commands come from, and `text` formats it for people. Only `probe` needs
//! a machine: the rest is tested with invented reports.

mod decide;
mod fix;
mod probe;
mod report;
mod text;
mod verdict;

use std::process::ExitCode;

use serde::Serialize;

use crate::config::flags::FileFlag;
use crate::config::model::Settings;
use crate::error::{CliError, PERMISSION};
use crate::output;
use fix::Fix;
use report::Report;

/// Options of `pingferry check`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    question: decide::Question,
    #[command(flatten)]
    pub(crate) file: FileFlag,
}

impl CheckArgs {
    /// Overrides settings by what was given.
    pub(crate) fn apply(&self, settings: &mut Settings) {
        self.question.apply(settings);
    }
}

/// Reports on standard output. The exit code is 0 if pings cross over at least one family, 77 if a permission is missing for
/// that, and otherwise 1. With `--policy` it is 0 if the policy allows the ping, otherwise 1.
pub(crate) fn check(args: &CheckArgs, settings: &Settings) -> Result<ExitCode, CliError> {
    if let Some(destination) = args.question.destination {
        let answer = args.question.decide(destination, settings)?;
        output::print(&if args.json { pretty(&answer) } else { format!("{}\n", answer.why) })?;
        return Ok(if answer.allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let report = probe::report();
    let fixes = fix::fixes(&report);
    let written = if args.json { json(&report, &fixes) } else { text::render(&report, &fixes) };
    output::print(&written)?;
    Ok(match report.denial() {
        _ if report.works() => ExitCode::SUCCESS,
        Some(_) => ExitCode::from(PERMISSION),
        None => ExitCode::FAILURE,
    })
}

/// The report as JSON. Its keys are stable; more can be added.
fn json(report: &Report, fixes: &[Fix]) -> String {
    #[derive(Serialize)]
    struct Document<'a> {
        works: bool,
        verdict: String,
        #[serde(flatten)]
        report: &'a Report,
        fixes: &'a [Fix],
    }
    pretty(&Document { works: report.works(), verdict: verdict::verdict(report), report, fixes })
}

fn pretty(document: &impl Serialize) -> String {
    // This fails only for maps whose keys are not strings, and there is no map here.
    let mut json = serde_json::to_string_pretty(document).unwrap_or_default();
    json.push('\n');
    json
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::report::examples::{admitted, refused};
    use super::*;

    fn document(report: &Report) -> Value {
        serde_json::from_str(&json(report, &fix::fixes(report))).unwrap()
    }

    #[test]
    fn json_of_a_machine_with_nothing_missing() {
        let no_error = json!({"ok": true, "value": null, "error": null});
        let expected = json!({
            "works": true,
            "verdict": "works: this process can ping over IPv4 and IPv6",
            "ipv4": {
                "socket": no_error,
                "source": {"ok": true, "value": "192.0.2.7", "error": null},
                "has_network": true,
            },
            "ipv6": {
                "socket": no_error,
                "source": {"ok": true, "value": "2001:db8::7", "error": null},
                "has_network": true,
            },
            "permission": {
                "effective_gid": 1000,
                "supplementary_gids": [27, 1000],
                "every_gid_exists": true,
                "ping_group_range": {
                    "ok": true, "value": {"low": 0, "high": 2_147_483_647, "admits": true}, "error": null
                },
            },
            "descriptors": {"soft": 1024, "hard": null},
            "tun": {"exists": true, "open": no_error, "create": no_error},
            "user_namespaces": {
                "create": no_error,
                "max_user_namespaces": 63_000,
                "unprivileged_userns_clone": null,
                "apparmor_restrict_unprivileged_userns": null,
            },
            "exec": no_error,
            "environment": {"container": null, "unit": null},
            "fixes": [],
        });
        assert_eq!(document(&admitted()), expected);
    }

    #[test]
    fn json_has_errors_by_number_and_text_and_their_fixes() {
        let document = document(&refused());
        assert_eq!(document["works"], false);
        let error = json!({"errno": 13, "message": "open a ping socket for IPv4: Permission denied"});
        assert_eq!(document["ipv4"]["socket"], json!({"ok": false, "value": null, "error": error}));
        let fixes = document["fixes"].as_array().unwrap();
        let missing: Vec<_> = fixes.iter().map(|fix| fix["missing"].as_str().unwrap()).collect();
        assert_eq!(missing, ["ping_sockets", "tun", "user_namespaces"]);
        let first = json!({"how": "now", "command": r#"sysctl -w net.ipv4.ping_group_range="0 2147483647""#});
        assert_eq!(fixes[0]["remedies"][0], first);
    }

    #[test]
    fn one_family_is_enough_to_work() {
        let mut report = refused();
        report.ipv6.socket = Ok(());
        report.ipv6.has_network = true;
        assert!(report.works() && report.denial().is_none());
        assert!(!refused().works() && refused().denial().is_some());
    }
}
