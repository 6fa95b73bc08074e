//! Which parts of what the tools print are compared.

use serde_json::Value;

/// What two outputs have in common, and where they differ.
pub struct Compared {
    /// The number of lines, or fields, that are equal.
    pub equal: usize,
    /// Each as `direct | proxied`.
    pub differences: Vec<String>,
}

/// Compares what a tool printed on the direct path with what it printed on the other. It is an error if it printed nothing
/// about a route.
pub fn compare(direct: &str, proxied: &str) -> Result<Compared, ()> {
    let [direct, proxied] = [direct, proxied].map(facts);
    let mut compared = Compared { equal: 0, differences: Vec::new() };
    for index in 0..direct.len().max(proxied.len()) {
        let [a, b] = [&direct, &proxied].map(|facts| facts.get(index).map_or("nothing", String::as_str));
        if a == b {
            compared.equal += 1;
        } else {
            compared.differences.push(format!("{a} | {b}"));
        }
    }
    if direct.is_empty() { Err(()) } else { Ok(compared) }
}

/// The lines of a text, or the fields of JSON, that do not depend on time or on random numbers.
fn facts(output: &str) -> Vec<String> {
    let mut facts = Vec::new();
    // dublin-traceroute may send its first probe before it captures.
    let lost = output.lines().position(|line| line.starts_with("1 ") && output.contains("dublin"));
    for (_, line) in output.lines().enumerate().filter(|(index, _)| Some(*index) != lost) {
        match serde_json::from_str(line) {
            Ok(value @ Value::Object(_)) if value["type"] == "trace" => flatten("", &value, &mut facts),
            Ok(Value::Object(_)) => {}
            _ => facts.extend(Some(fact(line)).filter(|fact| !fact.is_empty())),
        }
    }
    facts
}

/// Keys of scamper whose values are times or chosen at random.
const VARIABLE_KEYS: [&str; 7] = ["start", "tx", "rtt", "sport", "icmp_sum", "reply_ipid", "probe_count"];

fn flatten(name: &str, value: &Value, facts: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields.iter().filter(|(key, _)| !VARIABLE_KEYS.contains(&key.as_str())) {
                flatten(&format!("{name} {key}"), value, facts);
            }
        }
        Value::Array(items) => {
            for (index, item) in (1..).zip(items) {
                flatten(&format!("{name} {index}"), item, facts);
            }
        }
        plain => facts.push(format!("{name} {plain}").trim_start().to_owned()),
    }
}

/// Lines about the run of the tool itself.
const VARIABLE_LINES: [&str; 7] = ["Start", "Nmap done", "Saved", "You can", "WARNING", "capability", "Selected"];

fn fact(line: &str) -> String {
    if VARIABLE_LINES.iter().any(|start| line.trim_start().starts_with(start)) {
        return String::new();
    }
    // dublin-traceroute shows the identification of the response.
    let mut is_ident = false;
    let is_fact = |word: &&str| {
        let is_variable = is_time(word) || is_ident;
        is_ident = *word == "ID:";
        !is_variable
    };
    line.split([' ', '\t', ',']).filter(|word| !word.is_empty()).filter(is_fact).collect::<Vec<_>>().join(" ")
}

/// Whether it is a number with a fraction, or a unit.
fn is_time(word: &str) -> bool {
    let number = word.trim_start_matches('(').trim_end_matches(['m', 's']);
    word == "ms" || (number.contains('.') && number.parse::<f64>().is_ok())
}
