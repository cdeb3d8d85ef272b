//! Errors that name the key, the line, and the nearest known key.

use std::{ops::Range, path::Path};

use super::ConfigError;

/// Two names this alike are taken for a misspelling (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.75;

/// Turns what the TOML reader says of the whole file into one sentence with a place.
pub(super) fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map(|span| span.start);
    let key = key_at(text, offset).map(str::to_owned);
    sentence(path, text, error.message(), key.as_deref(), offset)
}

/// The same for a table that was read apart: the reader knows the key, and its line is looked for within `span`.
pub(super) fn in_table(
    path: &Path,
    text: &str,
    error: &toml::de::Error,
    key: &str,
    span: &Range<usize>,
) -> ConfigError {
    let key = unknown_field(error.message()).map_or(key, |(unknown, _)| unknown);
    let first = key.split(['.', '[']).next().unwrap_or(key);
    let offset = line_of_key(text, span, first).unwrap_or(span.start);
    let key = (!matches!(key, "" | ".")).then_some(key);
    sentence(path, text, error.message(), key, Some(offset))
}

fn sentence(path: &Path, text: &str, message: &str, key: Option<&str>, offset: Option<usize>) -> ConfigError {
    let section = section(text, offset);
    let what = match unknown_field(message) {
        Some((key, known)) => format!("unknown key `{key}`{section}{}", suggestion(key, &known)),
        None => {
            let key = key.map(|key| format!("{key}: ")).unwrap_or_default();
            format!("{key}{}{section}", message.trim().replace('\n', " "))
        }
    };
    ConfigError::Syntax { path: path.to_owned(), line: line_number(text, offset.unwrap_or(0)), what }
}

/// Serde's sentence for an unknown key, taken apart: the key and the known ones.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.trim().strip_prefix("unknown field `")?;
    let (key, known) = rest.split_once('`')?;
    let known = known.split('`').skip(1).step_by(2).collect();
    Some((key, known))
}

fn suggestion(key: &str, known: &[&str]) -> String {
    let best = known
        .iter()
        .map(|known| (strsim::jaro_winkler(key, known), known))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    match best {
        Some((_, known)) => format!("; did you mean `{known}`?"),
        None => format!("; known are {}", known.join(", ")),
    }
}

/// The key whose value stands at an offset.
fn key_at(text: &str, offset: Option<usize>) -> Option<&str> {
    let offset = offset?;
    let start = text.get(..offset)?.rfind('\n').map_or(0, |newline| newline + 1);
    let key = text.get(start..)?.lines().next()?.split_once('=')?.0.trim();
    (!key.is_empty() && !key.starts_with(['[', '#'])).then_some(key)
}

/// The header above an offset, such as ` in [server]`.
fn section(text: &str, offset: Option<usize>) -> String {
    let Some((before, after)) = offset.and_then(|offset| text.split_at_checked(offset)) else { return String::new() };
    // What is wrong with a header is not in the section above it.
    if before.lines().next_back().is_some_and(|line| line.trim_start().starts_with('[')) && !before.ends_with('\n')
        || after.starts_with('[')
    {
        return String::new();
    }
    let header = before.lines().rev().map(str::trim).find(|line| line.starts_with('[') && line.ends_with(']'));
    header.map(|header| format!(" in {header}")).unwrap_or_default()
}

fn line_of_key(text: &str, within: &Range<usize>, key: &str) -> Option<usize> {
    let mut offset = within.start;
    // The span of a table of an array is its header; its keys follow until the next header.
    for line in text.get(within.start..)?.split_inclusive('\n') {
        if offset > within.start && line.starts_with("[[") {
            return None;
        }
        let start = line.trim_start();
        let rest = start.strip_prefix(key).map(str::trim_start);
        if rest.is_some_and(|rest| rest.starts_with('=') || rest.starts_with('.')) {
            return Some(offset + (line.len() - start.len()));
        }
        offset += line.len();
    }
    None
}

fn line_number(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}
