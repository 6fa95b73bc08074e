//! Drawing the model.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table};
use serde_json::Value;

use super::entry::Entry;
use super::model::{History, Model};
use super::table::{columns, drops, totals};
use crate::status::{serves, short};

const KEYS: &str = "q quit  s sort  r reverse  / filter  p pause  ↑↓ scroll";

/// Loss in percent, and round trips in seconds, from which on they are no longer good, and bad.
const LOSS: (f64, f64) = (0.1, 5.0);
const ROUND_TRIP: (f64, f64) = (0.05, 0.25);

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let heights = [1, 4, 1, 1, 1].map(Constraint::Length);
    let [head, lines, total, time, drop] = heights;
    let rows = Layout::vertical([head, lines, total, time, drop, Constraint::Min(3), Constraint::Length(1)]);
    let [head, lines, total, time, drop, flows, keys] = rows.areas(frame.area());
    frame.render_widget(Paragraph::new(title(model)), head);
    sparklines(frame, lines, model);
    frame.render_widget(Paragraph::new(totals(model)), total);
    frame.render_widget(Paragraph::new(round_trips(model)), time);
    let dropped =
        Line::from(vec![Span::styled("dropped ", Style::new().add_modifier(Modifier::BOLD)), drops(model).into()]);
    frame.render_widget(Paragraph::new(dropped), drop);
    table(frame, flows, model);
    frame.render_widget(Paragraph::new(footer(model)), keys);
}

fn title(model: &Model) -> Line<'static> {
    let string = |pointer: &str| model.status.pointer(pointer).and_then(Value::as_str).unwrap_or("?").to_owned();
    let uptime = model.status.pointer("/uptime_seconds").and_then(Value::as_f64).unwrap_or(0.0);
    let uptime = humantime::format_duration(Duration::from_secs(uptime as u64)).to_string();
    let is_ready = model.status.pointer("/health/ready") == Some(&Value::Bool(true));
    let (word, color) = if is_ready { ("ready", Color::Green) } else { ("NOT READY", Color::Red) };
    Line::from(vec![
        Span::styled(format!("pingferry {}  ", string("/version")), Style::new().add_modifier(Modifier::BOLD)),
        Span::styled(word, Style::new().fg(color)),
        format!("  up {uptime}  {}", serves(&model.status)).into(),
    ])
}

fn sparklines(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let areas: [Rect; 3] = Layout::horizontal([Constraint::Ratio(1, 3); 3]).areas(area);
    let parts = [
        ("requests", &model.requests, Color::Cyan),
        ("replies", &model.replies, Color::Green),
        ("drops", &model.drops, Color::Red),
    ];
    for (area, (name, history, color)) in areas.into_iter().zip(parts) {
        sparkline(frame, area, name, history, color);
    }
}

fn sparkline(frame: &mut Frame<'_>, area: Rect, name: &str, history: &History, color: Color) {
    let title = format!(" {name} {}/s ", history.newest());
    let width = usize::from(area.width.saturating_sub(2));
    let skipped = history.rates.len().saturating_sub(width);
    let rates: Vec<u64> = history.rates.iter().skip(skipped).copied().collect();
    let block = Block::new().borders(Borders::ALL).title(title);
    frame.render_widget(Sparkline::default().block(block).data(&rates).style(Style::new().fg(color)), area);
}

fn round_trips(model: &Model) -> Line<'static> {
    let family = |name: &str| {
        let time = |quantile| model.status.pointer(&format!("/rtt/{name}/{quantile}_seconds")).and_then(Value::as_f64);
        let (p50, p99) = (time("p50")?, time("p99")?);
        Some([
            Span::raw(format!("{name} round trip ≤ ")),
            round_trip(p50),
            " (median) ≤ ".into(),
            round_trip(p99),
            " (p99)  ".into(),
        ])
    };
    Line::from_iter(["ipv4", "ipv6"].into_iter().filter_map(family).flatten())
}

fn round_trip(seconds: f64) -> Span<'static> {
    Span::styled(short(seconds), Style::new().fg(color(seconds, ROUND_TRIP)))
}

/// Green, yellow from the first limit on, red from the second on.
fn color(value: f64, (fair, bad): (f64, f64)) -> Color {
    match value {
        _ if value < fair => Color::Green,
        _ if value < bad => Color::Yellow,
        _ => Color::Red,
    }
}

fn table(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let shown = model.shown();
    let rows = shown.iter().skip(model.scrolled).take(usize::from(area.height)).map(row);
    // The addresses take what is left, so that IPv6 has room in a wide terminal.
    let columns = columns(model);
    let widths = columns.iter().enumerate().map(|(column, (_, width))| match column {
        0 | 1 => Constraint::Min(*width),
        _ => Constraint::Length(*width),
    });
    let head = Row::new(columns.map(|(name, _)| name)).style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_widget(Table::new(rows, widths).header(head).column_spacing(1), area);
}

fn row(entry: &Entry<'_>) -> Row<'static> {
    let rtt = |seconds: Option<f64>| seconds.map(|seconds| color(seconds, ROUND_TRIP));
    let colors = |column: usize| match (entry, column) {
        (Entry::Flow(flow), 4) => Some(color(flow.loss(), LOSS)),
        (Entry::Flow(flow), 5) => rtt(flow.last_rtt_seconds),
        (Entry::Flow(flow), 6) => rtt(flow.smoothed_rtt_seconds),
        (Entry::Connection(connection), 3) => Some(match connection.state.as_str() {
            "serving" | "up" => Color::Green,
            "leaving" => Color::Yellow,
            _ => Color::Red,
        }),
        (Entry::Connection(connection), 4) => rtt(connection.rtt_seconds),
        _ => None,
    };
    let cell = |(column, text): (usize, String)| {
        Cell::new(text).style(colors(column).map_or(Style::new(), |color| Style::new().fg(color)))
    };
    Row::new(entry.cells().into_iter().enumerate().map(cell))
}

fn footer(model: &Model) -> Line<'static> {
    if let Some(error) = &model.error {
        return Line::styled(error.clone(), Style::new().fg(Color::Red));
    }
    if model.is_filtering {
        return Line::raw(format!("filter: {}_   Enter keeps it, Esc clears it", model.filter));
    }
    let other = match (model.has_both(), model.shows_connections) {
        (true, true) => "c flows  ",
        (true, false) => "c connections  ",
        (false, _) => "",
    };
    let by = if model.shows_connections { String::new() } else { format!("   by {}", model.column.name()) };
    let order = if model.is_reversed { ", reversed" } else { "" };
    let filter = if model.filter.is_empty() { String::new() } else { format!("  only {}", model.filter) };
    let paused = if model.is_paused { "  PAUSED" } else { "" };
    Line::raw(format!("{other}{KEYS}{by}{order}{filter}{paused}"))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::buffer::Cell;
    use ratatui::style::Color;

    use super::super::model::tests::model;
    use super::*;

    fn drawn(model: &Model, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        terminal
    }

    fn lines(terminal: &Terminal<TestBackend>) -> Vec<String> {
        let buffer = terminal.backend().buffer();
        let cells = buffer.content().chunks(usize::from(buffer.area.width));
        cells.map(|row| row.iter().map(Cell::symbol).collect()).collect()
    }

    #[test]
    fn all_of_it_fits_into_80_by_24() {
        let terminal = drawn(&model(), 80, 24);
        let lines = lines(&terminal);
        assert!(lines[0].starts_with("pingferry 1.2.3  ready  up 1h 2m 3s  TUN device ping0"), "{lines:#?}");
        assert!(lines[1].contains("requests 100/s") && lines[1].contains("drops 0/s"), "{lines:#?}");
        assert!(lines[5].contains("requests 1100  replies 1097"), "{lines:#?}");
        assert!(lines[7].contains("dropped unexpected_seq 9  not_icmp 5"), "{lines:#?}");
        assert!(lines[8].contains("destination") && lines[8].trim_end().ends_with("error"), "{lines:#?}");
        assert!(
            lines[9].contains("192.0.2.200") && lines[9].contains("10.0%") && lines[9].contains("3/1"),
            "{lines:#?}"
        );
        assert!(lines[23].contains("q quit") && lines[23].contains("by sent"), "{lines:#?}");
    }

    #[test]
    fn loss_is_red_and_no_loss_is_green() {
        let terminal = drawn(&model(), 80, 24);
        let buffer = terminal.backend().buffer();
        let color_of = |row: u16, text: &str| {
            let line = &lines(&terminal)[usize::from(row)];
            let column = line.find(text).map(|at| line[..at].chars().count()).unwrap();
            buffer[(column as u16, row)].fg
        };
        assert_eq!((color_of(9, "10.0%"), color_of(11, "0.0%")), (Color::Red, Color::Green));
    }

    #[test]
    fn a_tiny_terminal_is_no_panic() {
        for (width, height) in [(1, 1), (10, 3), (79, 5)] {
            drawn(&model(), width, height);
        }
    }
}
