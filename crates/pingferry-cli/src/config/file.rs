//! Reading a configuration file, with errors that say the line and the key.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};
use pingferry::Rule;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{POLICY, is_list, is_number, is_switch, settings};
use crate::error::CliError;

/// How alike a key must be to be suggested (Jaro-Winkler; 1 is equal).
const ALIKE: f64 = 0.8;

/// What a configuration file says.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) rules: Vec<Rule>,
    settings: Vec<Setting>,
}

/// A key and what it is on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    key: String,
    args: Vec<String>,
}

impl File {
    /// Reads and checks a file.
    pub(crate) fn read(path: &Path) -> Result<Self, CliError> {
        let refused = |why: String| CliError::usage(format!("{}: {why}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
        Self::parse(path, &text).map_err(refused)
    }

    /// What must be readable to read the file again: its path, and where that leads if it is a link.
    pub(crate) fn ways(&self) -> Vec<PathBuf> {
        [Some(self.path.clone()), fs::canonicalize(&self.path).ok()].into_iter().flatten().collect()
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let table = DeTable::parse(text).map_err(|error| {
            let line = line(text, error.span().map_or(0, |span| span.start));
            format!("line {line}: {}", error.message())
        })?;
        let options = settings();
        let mut file = Self { path: path.to_owned(), rules: Vec::new(), settings: Vec::new() };
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let (name, line) = (key.get_ref().as_ref(), line(text, key.span().start));
            let wrong = |why: String| format!("`{name}` at line {line}: {why}");
            match options.iter().find(|option| option.get_id() == name) {
                Some(option) => file.settings.push(setting(option, value.get_ref()).map_err(wrong)?),
                None if name == POLICY => file.rules = rules(text, value.get_ref()).map_err(wrong)?,
                None => return Err(unknown(name, line, &options)),
            }
        }
        Ok(file)
    }

    /// The settings that `is_open` says yes to, as options of the command line.
    pub(super) fn args(&self, is_open: impl Fn(&str) -> bool) -> impl Iterator<Item = OsString> {
        let settings = self.settings.iter().filter(move |setting| is_open(&setting.key));
        settings.flat_map(|setting| &setting.args).map(OsString::from)
    }

    /// The keys whose settings are not the same in `other`.
    pub(super) fn differences<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let only = |a: &'a Self, b: &'a Self| a.settings.iter().filter(|setting| !b.settings.contains(setting));
        let mut keys: Vec<&str> = only(self, other).chain(only(other, self)).map(|setting| &*setting.key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// The line of the byte at `offset`.
fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn unknown(name: &str, line: usize, options: &[Arg]) -> String {
    let keys = options.iter().map(|option| option.get_id().as_str()).chain([POLICY]);
    let alike = keys.map(|key| (strsim::jaro_winkler(name, key), key)).filter(|(alike, _)| *alike >= ALIKE);
    let suggestion = match name {
        "allow" | "deny" => format!("; rules stand in `{POLICY} = [\"{name} DEST\"]`"),
        _ => match alike.max_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((_, key)) => format!("; did you mean `{key}`?"),
            None => String::new(),
        },
    };
    format!("unknown key `{name}` at line {line}{suggestion}")
}

fn setting(option: &Arg, value: &DeValue<'_>) -> Result<Setting, String> {
    let name = option.get_long().unwrap_or_default();
    let with_value = |value| format!("--{name}={value}");
    let args = match value {
        DeValue::Boolean(on) if is_switch(option) => on.then(|| format!("--{name}")).into_iter().collect(),
        DeValue::Array(items) if is_list(option) => {
            items.iter().map(|item| item_of_list(option, item.get_ref()).map(with_value)).collect::<Result<_, _>>()?
        }
        value if is_switch(option) => return Err(expected("true or false", value)),
        value if is_list(option) => return Err(expected("a list of strings", value)),
        value => vec![with_value(scalar(option, value)?)],
    };
    Ok(Setting { key: option.get_id().to_string(), args })
}

fn item_of_list(option: &Arg, value: &DeValue<'_>) -> Result<String, String> {
    let text = scalar(option, value)?;
    match option.get_value_delimiter() {
        Some(delimiter) if text.contains(delimiter) => Err(format!("`{text}` must not contain `{delimiter}`")),
        _ => Ok(text),
    }
}

fn scalar(option: &Arg, value: &DeValue<'_>) -> Result<String, String> {
    let text = match value {
        DeValue::Integer(number) if is_number(option) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_err(|error| error.to_string())?.to_string()
        }
        DeValue::String(text) if !is_number(option) => text.to_string(),
        value if is_number(option) => return Err(expected("a whole number", value)),
        value => return Err(expected("a string", value)),
    };
    check(option.get_value_parser(), &text).map_err(|why| format!("`{text}` {why}"))?;
    Ok(text)
}

fn expected(what: &str, found: &DeValue<'_>) -> String {
    format!("expected {what}, found {}", found.type_str())
}

/// Whether an option takes this value, apart from all other options.
fn check(parser: &ValueParser, text: &str) -> Result<(), String> {
    let command = Command::new("").no_binary_name(true).disable_help_flag(true);
    let option = Arg::new("it").long("it").value_parser(parser.clone());
    let Err(error) = command.arg(option).try_get_matches_from([format!("--it={text}")]) else { return Ok(()) };
    match (error.kind(), error.get(ContextKind::ValidValue)) {
        (ErrorKind::InvalidValue, Some(ContextValue::Strings(valid))) if !valid.is_empty() => {
            Err(format!("is not one of {}", valid.join(", ")))
        }
        _ => Err(match std::error::Error::source(&error) {
            Some(why) => format!("is not valid: {why}"),
            None => "is not valid".into(),
        }),
    }
}

fn rules(text: &str, value: &DeValue<'_>) -> Result<Vec<Rule>, String> {
    let DeValue::Array(items) = value else { return Err(expected("a list of rules", value)) };
    let rule = |item: &Spanned<DeValue<'_>>| {
        let DeValue::String(rule) = item.get_ref() else { return Err(expected("a rule", item.get_ref())) };
        let wrong = |why| format!("`{rule}` at line {}: {why}", line(text, item.span().start));
        rule.parse().map_err(wrong)
    };
    items.iter().map(rule).collect()
}
