//! `pingferry status`: what a running process does.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::admin::address::AdminAddress;
use crate::admin::client::AdminClient;
use crate::error::CliError;
use crate::output;

#[derive(Args, Clone)]
pub(crate) struct StatusArgs {
    /// Where the process listens: default, unix:PATH or ADDRESS:PORT [default: the socket in the runtime directory]
    #[arg(long, value_name = "ADDRESS", env = "PINGFERRY_ADMIN")]
    pub(crate) admin: Option<AdminAddress>,
    /// Print all as one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the status. The exit code is 0 if pings can cross, and 1 otherwise.
pub(crate) fn status(args: &StatusArgs) -> Result<ExitCode, CliError> {
    let status = AdminClient::new(args.admin.clone())?.json("/status")?;
    output::print(&if args.json { format!("{status}\n") } else { text(&status) })?;
    let is_ready = status.pointer("/health/ready") == Some(&Value::Bool(true));
    Ok(if is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For people: whether pings flow, for whom, how fast, and why not.
fn text(status: &Value) -> String {
    let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let string = |pointer: &str| status.pointer(pointer).and_then(Value::as_str).unwrap_or("?");
    let uptime = status.pointer("/uptime_seconds").and_then(Value::as_f64).unwrap_or(0.0);
    let ready = if status.pointer("/health/ready") == Some(&Value::Bool(true)) { "ready" } else { "NOT READY" };
    let (version, uptime) = (string("/version"), humantime::format_duration(Duration::from_secs(uptime as u64)));
    let mut text = format!("pingferry {version}: {ready}, up {uptime}\nserves: {}\n", serves(status));
    if status.get("tunnels").is_some() {
        return text + &edge(status);
    }
    // Writing to a string does not fail.
    for family in ["ipv4", "ipv6"] {
        let works = status.pointer(&format!("/health/families/{family}/works")) == Some(&Value::Bool(true));
        let why = string(&format!("/health/families/{family}/why"));
        let _ = match works {
            true => writeln!(text, "{family}: {}", rtt(status, family)),
            false => writeln!(text, "{family}: does not work: {why}"),
        };
    }
    let _ = writeln!(
        text,
        "packets {}, requests sent {}, replies returned {}, ICMP errors returned {}, unanswered {}",
        number("/stats/packets"),
        number("/stats/requests_sent"),
        number("/stats/replies_returned"),
        number("/stats/icmp_errors_returned"),
        number("/stats/unanswered"),
    );
    let _ = writeln!(text, "flows {}, sockets {}", number("/stats/flows_alive"), number("/stats/sockets_open"));
    for (what, key) in [("requests dropped", "/stats/request_drops"), ("replies dropped", "/stats/reply_drops")] {
        let _ = writeln!(text, "{what}: {}", drops(status, key));
    }
    for down in list(status, "/connections").filter(|connection| field(connection, "state") == "down") {
        let (edge, address, why) = (field(down, "edge"), field(down, "address"), field(down, "last_failure"));
        let _ = writeln!(text, "connection {} to {edge} ({address}) is down: {why}", down["index"]);
    }
    text
}

/// What is specific to an edge: its packets, and who serves each tunnel.
fn edge(status: &Value) -> String {
    let number = |name: &str| status.pointer(&format!("/stats/{name}")).and_then(Value::as_u64).unwrap_or(0);
    let mut text = format!(
        "packets {}, forwarded {}, returned {}, ICMP errors sent {}\ndropped: {}\n",
        number("packets"),
        number("forwarded"),
        number("returned"),
        number("errors_sent"),
        drops(status, "/stats/drops"),
    );
    for tunnel in list(status, "/tunnels") {
        let (id, name) = (field(tunnel, "tunnel"), field(tunnel, "name"));
        let name = if name == "?" { id.to_owned() } else { format!("{name} ({id})") };
        // Writing to a string does not fail.
        let _ = writeln!(text, "tunnel {name}: {} connections serve", tunnel["serving"]);
    }
    text
}

fn drops(status: &Value, key: &str) -> String {
    let drops = status.pointer(key).and_then(Value::as_object).into_iter().flatten();
    let drops: Vec<String> = drops.map(|(reason, count)| format!("{reason} {count}")).collect();
    if drops.is_empty() { "none".to_owned() } else { drops.join(", ") }
}

fn list<'a>(status: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    status.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn field<'a>(object: &'a Value, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or("?")
}

/// What a process serves: ingresses, the edges of a connector, or the device of an edge.
pub(crate) fn serves(status: &Value) -> String {
    if let Some(device) = status.pointer("/health/device/name").and_then(Value::as_str) {
        return format!("TUN device {device}");
    }
    if let Some(edges) = status.pointer("/health/edges").and_then(Value::as_object) {
        let edge = |(name, edge): (&String, &Value)| {
            format!("edge {name} ({} of {})", edge["registered"], edge["connections"])
        };
        return edges.iter().map(edge).collect::<Vec<_>>().join(", ");
    }
    list(status, "/health/ingresses").filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

/// The round trips of a family.
fn rtt(status: &Value, family: &str) -> String {
    let time = |quantile: &str| status.pointer(&format!("/rtt/{family}/{quantile}_seconds")).and_then(Value::as_f64);
    match (time("p50"), time("p99")) {
        (Some(p50), Some(p99)) => format!("works, round trip up to {} (median), {} (p99)", short(p50), short(p99)),
        _ => "works, no round trip yet".to_owned(),
    }
}

/// A time in seconds, for people: three digits and a unit.
pub(crate) fn short(seconds: f64) -> String {
    match seconds {
        _ if seconds < 0.001 => format!("{:.0} µs", seconds * 1e6),
        _ if seconds < 0.01 => format!("{:.2} ms", seconds * 1e3),
        _ if seconds < 0.1 => format!("{:.1} ms", seconds * 1e3),
        _ if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_text_says_what_works_and_why_the_rest_does_not() {
        let status = json!({
            "version": "1.2.3",
            "uptime_seconds": 61.5,
            "health": {
                "ready": true,
                "families": {"ipv4": {"works": true}, "ipv6": {"works": false, "why": "no IPv6"}},
                "ingresses": ["TUN device ping0"],
            },
            "rtt": {"ipv4": {"p50_seconds": 0.0004, "p99_seconds": 0.0128}},
            "stats": {"packets": 3, "requests_sent": 2, "request_drops": {"not_icmp": 1}},
        });
        let text = text(&status);
        for line in [
            "pingferry 1.2.3: ready, up 1m 1s\n",
            "serves: TUN device ping0\n",
            "ipv4: works, round trip up to 400 µs (median), 12.8 ms (p99)\n",
            "ipv6: does not work: no IPv6\n",
            "packets 3, requests sent 2, ",
            "requests dropped: not_icmp 1\nreplies dropped: none\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn a_time_has_three_digits_and_at_most_seven_characters() {
        for (seconds, text) in
            [(0.000_95, "950 µs"), (0.006_72, "6.72 ms"), (0.0128, "12.8 ms"), (0.132, "132 ms"), (9.87, "9.87 s")]
        {
            assert_eq!(short(seconds), text);
        }
    }
}
