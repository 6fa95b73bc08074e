//! Reading a configuration file. Errors name the file, the line and the key.

use std::path::{Path, PathBuf};
use std::{fs, io};

use pingferry_sys::file::open_regular_file;
use serde_path_to_error::Segment;
use toml::Table;

use super::access::AccessKeys;
use super::model::Settings;
use super::validate;
use crate::error::CliError;

/// How similar a key must be to be suggested (Jaro-Winkler; 1 is equal).
const SIMILAR: f64 = 0.8;

/// Reads and checks a file.
pub(crate) fn read(path: &Path) -> Result<(Settings, AccessKeys), CliError> {
    let wrong = |why: String| CliError::usage(format!("{}: {why}", path.display()));
    let text = open_regular_file(path).and_then(io::read_to_string).map_err(|error| wrong(error.to_string()))?;
    let settings = parse(&text).map_err(wrong)?;
    // It has parsed above.
    let table: Table = text.parse().unwrap_or_default();
    if table.is_empty() {
        return Err(wrong("the file is empty: it has no key".into()));
    }
    let keys = AccessKeys::of(&table, &settings);
    Ok((settings, keys))
}

/// The paths that must stay readable to read the file again: its own, and its target if it is a link.
pub(crate) fn readable_paths(path: &Path) -> Vec<PathBuf> {
    [Some(path.to_owned()), fs::canonicalize(path).ok()].into_iter().flatten().collect()
}

pub(super) fn parse(text: &str) -> Result<Settings, String> {
    let line_of = |error: &toml::de::Error| line(text, error.span().map_or(0, |span| span.start));
    let document =
        toml::Deserializer::parse(text).map_err(|error| format!("line {}: {}", line_of(&error), error.message()))?;
    let settings: Settings = serde_path_to_error::deserialize(document).map_err(|error| {
        let line = line_of(error.inner());
        unknown_key(error.inner().message(), line)
            .unwrap_or_else(|| format!("`{}` at line {line}: {}", key(error.path()), error.inner().message()))
    })?;
    for table in &settings.ingress {
        let wrong = |why| format!("`ingress` at line {}: {why}", line(text, table.span().start));
        validate::check_table(table.get_ref()).map_err(wrong)?;
    }
    Ok(settings)
}

/// The line of the byte at `offset`.
fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// The last key of a path that is in the file. `Spanned` adds keys of its own, which begin with `$`.
fn key(path: &serde_path_to_error::Path) -> &str {
    let mut keys = path.iter().filter_map(|segment| match segment {
        Segment::Map { key } if !key.starts_with('$') => Some(key.as_str()),
        _ => None,
    });
    keys.next_back().unwrap_or_default()
}

/// A better message than that of `serde::de::Error::unknown_field`, which lists every key.
fn unknown_key(message: &str, line: usize) -> Option<String> {
    let (key, expected) = message.strip_prefix("unknown field `")?.split_once("`, expected ")?;
    let suggestion = match key {
        "allow" | "deny" => format!("; write rules as `policy = [\"{key} DEST\"]`"),
        _ => suggestion(key, quoted(expected)).map(|key| format!("; did you mean `{key}`?")).unwrap_or_default(),
    };
    Some(format!("unknown key `{key}` at line {line}{suggestion}"))
}

/// The words between backticks.
pub(super) fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn suggestion<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let similarity = known.map(|known| (strsim::jaro_winkler(key, known), known));
    let similar = similarity.filter(|(similarity, _)| *similarity >= SIMILAR);
    similar.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}
