//! `pingferry top`: a live view of a running process.
//!
//! It reads `/status` and `/flows` of the [admin server](crate::admin) once a second. An edge has connections instead of flows,
//! and a connector both. [`model`] is what it knows, [`entry`] a row of the table, and [`view`] draws both.

mod entry;
mod model;
mod table;
mod view;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::Value;

use self::entry::Flow;
use self::model::{Model, is_edge};
use crate::admin::address::AdminAddress;
use crate::admin::client::AdminClient;
use crate::error::CliError;
use crate::output;

/// How often the view is renewed.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many pages of flows are read at a time. Each has the flows of up to a thousand places of the table.
const PAGES: usize = 20;

#[derive(Args, Clone)]
pub(crate) struct TopArgs {
    /// Where the process listens: default, unix:PATH or ADDRESS:PORT [default: the socket in the runtime directory]
    #[arg(long, value_name = "ADDRESS", env = "PINGFERRY_ADMIN")]
    admin: Option<AdminAddress>,
    /// Print the totals and the flows once, as text
    #[arg(long)]
    once: bool,
}

pub(crate) fn top(args: &TopArgs) -> Result<ExitCode, CliError> {
    let client = AdminClient::new(args.admin.clone())?;
    let mut model = Model::default();
    // Without an answer there is nothing to show, and the terminal stays as it is.
    let (status, flows) = read(&client)?;
    model.update(status, flows, Instant::now());
    if args.once {
        output::print(&table::text(&model))?;
    } else {
        let shown = ratatui::try_init().map_err(|error| CliError::runtime(format!("cannot draw: {error}")));
        let ended = shown.and_then(|terminal| show(terminal, &client, &mut model));
        ratatui::restore();
        ended?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The status, and as many flows as are read at a time.
fn read(client: &AdminClient) -> Result<(Value, Vec<Flow>), CliError> {
    let status = client.json("/status")?;
    let (mut flows, mut path) = (Vec::new(), "/flows".to_owned());
    if is_edge(&status) {
        return Ok((status, flows));
    }
    for _ in 0..PAGES {
        let mut page = client.json(&path)?;
        let part = page.get_mut("flows").map(Value::take).unwrap_or_default();
        let part: Vec<Flow> = serde_json::from_value(part).map_err(|error| CliError::runtime(error.to_string()))?;
        flows.extend(part);
        match page.get("next").and_then(Value::as_str) {
            Some(next) => path = format!("/flows?cursor={next}"),
            None => break,
        }
    }
    Ok((status, flows))
}

/// Draws until a key ends it.
fn show(mut terminal: DefaultTerminal, client: &AdminClient, model: &mut Model) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::runtime(format!("cannot draw: {error}"));
    let mut next = Instant::now() + INTERVAL;
    loop {
        terminal.draw(|frame| view::draw(frame, model)).map_err(failed)?;
        if event::poll(next.saturating_duration_since(Instant::now())).map_err(failed)? {
            if let Event::Key(key) = event::read().map_err(failed)?
                && key.kind == KeyEventKind::Press
            {
                let interrupts = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
                if interrupts || model.press(key.code).is_break() {
                    return Ok(());
                }
            }
        } else {
            next = Instant::now() + INTERVAL;
            if !model.is_paused {
                match read(client) {
                    Ok((status, flows)) => model.update(status, flows, Instant::now()),
                    Err(error) => model.error = Some(error.to_string()),
                }
            }
        }
    }
}
