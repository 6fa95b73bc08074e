//! What is shown as rows of text.

use std::fmt::Write;

use super::entry::{CONNECTIONS, Columns, Entry, FLOWS};
use super::model::{Model, is_edge};

/// The columns of what is shown.
pub(super) fn columns(model: &Model) -> Columns {
    if model.shows_connections { CONNECTIONS } else { FLOWS }
}

/// The totals in one line.
pub(super) fn totals(model: &Model) -> String {
    if is_edge(&model.status) {
        return format!(
            "forwarded {}  returned {}  ICMP errors {}  connections {}  refused {}",
            model.number("/stats/forwarded"),
            model.number("/stats/returned"),
            model.number("/stats/errors_sent"),
            model.number("/stats/connections"),
            model.number("/stats/registrations_refused"),
        );
    }
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
    let rows: Vec<[String; 9]> = model.shown().iter().map(Entry::cells).collect();
    let widest = |column: usize, name: &str| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
            .max(name.len())
    };
    let columns = columns(model);
    let widths: Vec<usize> = columns.iter().enumerate().map(|(column, (name, _))| widest(column, name)).collect();
    let mut text = format!("{}\ndropped: {}\n", totals(model), drops(model));
    let mut line = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", padded.join("  ").trim_end());
    };
    line(&columns.map(|(name, _)| name.to_owned()));
    rows.iter().for_each(|row| line(row));
    text
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{ends_of_a_tunnel, model};
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_flow_and_the_totals() {
        let text = text(&model());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "requests 1100  replies 1097  ICMP errors 0  unanswered 2  flows 3  sockets 4");
        assert_eq!(lines[1], "dropped: unexpected_seq 9  not_icmp 5");
        assert!(lines[2].starts_with("source    destination "), "{text}");
        assert!(lines[3].contains("192.0.2.200") && lines[3].contains("10.0%   300 ms"), "{text}");
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn the_table_of_an_edge_has_a_row_for_each_connection() {
        let [edge, _] = ends_of_a_tunnel();
        let text = text(&edge);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "forwarded 5  returned 4  ICMP errors 0  connections 0  refused 0");
        assert_eq!(lines[1], "dropped: no_prefix 2");
        assert_eq!(lines[2], "peer    address         #  state    rtt      sent  recv  lost  age");
        assert_eq!(lines[3], "office  192.0.2.1:4000  3  serving  12.3 ms  5     4     1     61s");
    }
}
