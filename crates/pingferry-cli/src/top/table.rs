//! Flows as rows of text.

use std::fmt::Write;

use super::model::{Flow, Model};
use crate::status::short;

/// The columns, with their widths in 80 characters. The two addresses share what the others leave.
pub(super) const COLUMNS: [(&str, usize); 9] = [
    ("source", 15),
    ("destination", 15),
    ("ident", 5),
    ("sent", 6),
    ("loss", 6),
    ("last", 7),
    ("smooth", 7),
    ("idle", 5),
    ("error", 5),
];

/// The cells of a row.
pub(super) fn cells(flow: &Flow) -> [String; 9] {
    let time = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), short);
    let error =
        flow.last_error.as_ref().map_or_else(|| "-".to_owned(), |error| format!("{}/{}", error.icmp_type, error.code));
    [
        flow.source.to_string(),
        flow.destination.to_string(),
        flow.ident.to_string(),
        flow.sent.to_string(),
        format!("{:.1}%", flow.loss()),
        time(flow.last_rtt_seconds),
        time(flow.smoothed_rtt_seconds),
        format!("{:.0}s", flow.idle_seconds),
        error,
    ]
}

/// The totals in one line.
pub(super) fn totals(model: &Model) -> String {
    format!(
        "requests {}  replies {}  ICMP errors {}  unanswered {}  flows {}  sockets {}",
        model.number("/stats/requests_sent"),
        model.number("/stats/replies_returned"),
        model.number("/stats/icmp_errors_returned"),
        model.number("/stats/unanswered"),
        model.number("/stats/flows_alive"),
        model.number("/stats/sockets_open"),
    )
}

/// Why packets were dropped, in one line.
pub(super) fn drops(model: &Model) -> String {
    let reasons: Vec<String> = model.drop_reasons().iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    if reasons.is_empty() { "none".to_owned() } else { reasons.join("  ") }
}

/// All of it once, for `--once`. Columns are as wide as what is in them.
pub(super) fn text(model: &Model) -> String {
    let rows: Vec<[String; 9]> = model.shown().into_iter().map(cells).collect();
    let widest = |column: usize, name: &str| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
            .max(name.len())
    };
    let widths: Vec<usize> = COLUMNS.iter().enumerate().map(|(column, (name, _))| widest(column, name)).collect();
    let mut text = format!("{}\ndropped: {}\n", totals(model), drops(model));
    let mut line = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", padded.join("  ").trim_end());
    };
    line(&COLUMNS.map(|(name, _)| name.to_owned()));
    rows.iter().for_each(|row| line(row));
    text
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::model;
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_flow_and_the_totals() {
        let text = text(&model());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "requests 1100  replies 1097  ICMP errors 0  unanswered 2  flows 3  sockets 4");
        assert_eq!(lines[1], "dropped: unexpected_seq 9  not_icmp 5");
        assert!(lines[2].starts_with("source    destination "), "{text}");
        assert!(lines[3].contains("192.0.2.200") && lines[3].contains("10.0%   300.0 ms"), "{text}");
        assert_eq!(lines.len(), 6);
    }
}
