//! Compares the two outcomes of a case.

use std::collections::BTreeSet;

use super::allowed::{About, Exception, Register};
use super::cases::{Case, Expected};
use super::exchange::Outcome;
use super::fields::{Fields, fields};
use super::ip::Ip;
use super::message::pick;

/// Errors of the direct path. A case is useless if the router does not do what the case expects.
pub fn errors_of_the_direct_path(case: &Case, outcome: &Outcome) -> Vec<String> {
    let mut found = Vec::new();
    let met = case.expected.len() == outcome.responses.len()
        && case.expected.iter().zip(&outcome.responses).all(|(expected, response)| expected.is_met_by(response));
    let responses: Vec<Fields> = outcome.responses.iter().map(fields).collect();
    if !met {
        found.push(format!("expected on the direct path: {:?}; received: {responses:?}", case.expected));
    }
    let has_wrong = responses.iter().flatten().any(|(_, value)| value == "wrong");
    if has_wrong != case.name.contains("wrong checksum") {
        found.push(format!("wrong checksums on the direct path: {responses:?}"));
    }
    found
}

/// The differences that are not allowed, each as `field: direct | proxied`.
pub fn differences(case: &Case, direct: &Outcome, proxied: &Outcome, register: &mut Register) -> Vec<String> {
    let mut found = match Exception::of(case) {
        None => compare_responses(case, direct, proxied, register),
        Some(exception) => check_exception(exception, proxied),
    };
    if direct.arrived.len() != proxied.arrived.len() {
        found.push(format!("requests that arrive: {} | {}", direct.arrived.len(), proxied.arrived.len()));
    }
    for (a, b) in direct.arrived.iter().zip(&proxied.arrived) {
        found.extend(compare(About::Arrived, case, a, b, register));
    }
    for (path, outcome) in [("direct", direct), ("proxied", proxied)] {
        found.extend(outcome.oversized.iter().map(|len| format!("{path}: {len} bytes do not fit the client's link")));
    }
    found
}

fn compare_responses(case: &Case, direct: &Outcome, proxied: &Outcome, register: &mut Register) -> Vec<String> {
    let mut found = Vec::new();
    if direct.responses.len() != proxied.responses.len() {
        found.push(format!("responses: {} | {}", kinds(direct), kinds(proxied)));
    }
    for ((a, b), expected) in direct.responses.iter().zip(&proxied.responses).zip(&case.expected) {
        found.extend(compare(about(*expected), case, a, b, register));
    }
    found
}

fn about(expected: Expected) -> About {
    match expected {
        Expected::Reply => About::Reply,
        Expected::Error { from, icmp_type, code: 0, .. } if icmp_type == pick(from, [11, 3]) => About::TimeExceeded,
        Expected::Error { .. } => About::Error,
    }
}

fn check_exception(exception: &Exception, proxied: &Outcome) -> Vec<String> {
    let Exception { instead, reason, .. } = exception;
    if proxied.responses.iter().map(|ip| ip.payload[0]).eq(*instead) {
        return Vec::new();
    }
    vec![format!("expected {instead:?} because {reason}, not: {}", kinds(proxied))]
}

fn compare(about: About, case: &Case, direct: &Ip, proxied: &Ip, register: &mut Register) -> Vec<String> {
    if direct.payload[0] != proxied.payload[0] {
        return vec![format!("{about:?}: {} | {}", kind(direct), kind(proxied))];
    }
    let (direct, proxied) = (fields(direct), fields(proxied));
    let names: BTreeSet<&String> = direct.iter().chain(&proxied).map(|(name, _)| name).collect();
    let value = |fields: &Fields, name| {
        let field = fields.iter().find(|(other, _)| other == name);
        field.map_or("nothing".into(), |(_, value)| value.clone())
    };
    let mut found = Vec::new();
    for name in names {
        let (a, b) = (value(&direct, name), value(&proxied, name));
        if a != b && !register.allows(about, name, case) {
            found.push(format!("{about:?}: {name}: {a} | {b}"));
        }
    }
    found
}

fn kinds(outcome: &Outcome) -> String {
    outcome.responses.iter().map(kind).collect::<Vec<_>>().join(", ")
}

fn kind(ip: &Ip) -> String {
    format!("type {} code {} from {}", ip.payload[0], ip.payload[1], ip.source)
}
