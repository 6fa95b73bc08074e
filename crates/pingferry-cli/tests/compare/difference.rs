//! Holds two outcomes of one case against each other.

use std::collections::BTreeSet;

use super::allowed::{About, Exception, Register};
use super::cases::{Case, Expected};
use super::exchange::Outcome;
use super::fields::{Fields, fields};
use super::ip::Ip;
use super::message::pick;

/// What is wrong with the direct path: a case means nothing if a plain router does not do what it is there for.
pub fn failures_of_the_direct_path(case: &Case, outcome: &Outcome) -> Vec<String> {
    let mut found = Vec::new();
    let met = case.expected.len() == outcome.answers.len()
        && case.expected.iter().zip(&outcome.answers).all(|(expected, answer)| expected.is_met_by(answer));
    let answers: Vec<Fields> = outcome.answers.iter().map(fields).collect();
    if !met {
        found.push(format!("expected on the direct path: {:?}; came: {answers:?}", case.expected));
    }
    if answers.iter().flatten().any(|(_, value)| value == "wrong") {
        found.push(format!("wrong checksums on the direct path: {answers:?}"));
    }
    found
}

/// What differs although it must not, each as `field: direct | proxied`.
pub fn differences(case: &Case, direct: &Outcome, proxied: &Outcome, register: &mut Register) -> Vec<String> {
    let mut found = match Exception::of(case) {
        None => compare_answers(case, direct, proxied, register),
        Some(exception) => check_exception(exception, proxied),
    };
    if direct.arrived.len() != proxied.arrived.len() {
        found.push(format!("requests that arrive: {} | {}", direct.arrived.len(), proxied.arrived.len()));
    }
    for (a, b) in direct.arrived.iter().zip(&proxied.arrived) {
        found.extend(compare(About::Arrived, case, a, b, register));
    }
    for (path, outcome) in [("direct", direct), ("proxied", proxied)] {
        found.extend(outcome.oversized.iter().map(|len| format!("{path}: {len} bytes are too long for the client")));
    }
    found
}

fn compare_answers(case: &Case, direct: &Outcome, proxied: &Outcome, register: &mut Register) -> Vec<String> {
    let mut found = Vec::new();
    if direct.answers.len() != proxied.answers.len() {
        found.push(format!("answers: {} | {}", kinds(direct), kinds(proxied)));
    }
    for ((a, b), expected) in direct.answers.iter().zip(&proxied.answers).zip(&case.expected) {
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
    if proxied.answers.iter().map(|ip| ip.payload[0]).eq(*instead) {
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
    outcome.answers.iter().map(kind).collect::<Vec<_>>().join(", ")
}

fn kind(ip: &Ip) -> String {
    format!("type {} code {} from {}", ip.payload[0], ip.payload[1], ip.source)
}
