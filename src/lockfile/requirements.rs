//! `requirements.txt` with hashes, as pip reads it.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use super::{
    Include, LeftOut, LeftOutReason, Limits, LockError, LockedFile, Pin, Place, Requirement, Version,
    document::{self, list, sha256},
    shown, without_userinfo,
};
use crate::base::Digest;

pub(super) fn read(
    file: &str,
    text: &str,
    limits: &Limits,
    include: Option<&mut Include<'_>>,
) -> Result<(Vec<Pin>, Vec<LeftOut>), LockError> {
    let mut reader = Reader { limits, include, pins: Vec::new(), left_out: Vec::new(), seen: HashSet::new() };
    reader.seen.insert(file.to_owned());
    // A list in place of recursion: a chain of includes costs no stack.
    let mut waiting = reader.file(file, text)?;
    waiting.reverse();
    while let Some(included) = waiting.pop() {
        if !reader.seen.insert(included.name.clone()) {
            continue;
        }
        if reader.seen.len() > limits.includes_max {
            let limit = limits.includes_max as u64;
            return Err(LockError::Limit { file: file.to_owned(), limit, what: "included files" });
        }
        let text = document::text(&included.name, &included.bytes, limits)?;
        let further = reader.file(&included.name, text)?;
        waiting.extend(further.into_iter().rev());
    }
    Ok((reader.pins, reader.left_out))
}

struct Reader<'a, 'i, 'f> {
    limits: &'a Limits,
    include: Option<&'i mut Include<'f>>,
    pins: Vec<Pin>,
    left_out: Vec<LeftOut>,
    seen: HashSet<String>,
}

impl Reader<'_, '_, '_> {
    /// Reads one file; returns what it includes.
    fn file(&mut self, file: &str, text: &str) -> Result<Vec<super::Included>, LockError> {
        let name: Arc<str> = file.into();
        let mut included = Vec::new();
        for (line, logical) in LogicalLines::new(text) {
            let at = Place { file: Arc::clone(&name), line: Some(line) };
            if logical.len() > self.limits.line_max.as_usize() {
                let limit = self.limits.line_max.bytes();
                return Err(LockError::Limit { file: file.to_owned(), limit, what: "bytes in one line" });
            }
            let line = Line::parse(&logical).map_err(|what| LockError::Malformed { at: at.clone(), what })?;
            self.line(line, at, &mut included)?;
            if self.pins.len() > self.limits.pins_max {
                let limit = self.limits.pins_max as u64;
                return Err(LockError::Limit { file: file.to_owned(), limit, what: "pins" });
            }
        }
        Ok(included)
    }

    fn line(&mut self, line: Line, at: Place, included: &mut Vec<super::Included>) -> Result<(), LockError> {
        match line {
            Line::Nothing => {}
            Line::LeftOut(what, reason) => self.left_out.push(LeftOut { what, reason, at }),
            Line::Pin(pin) if pin.files.len() > self.limits.files_max => {
                let limit = self.limits.files_max as u64;
                return Err(LockError::Limit { file: at.file.to_string(), limit, what: "hashes of one pin" });
            }
            Line::Pin(pin) => {
                let ParsedPin { requirement, version, files, marker } = *pin;
                self.pins.push(Pin {
                    project: requirement.name,
                    version,
                    files: files.into_iter().map(locked).collect(),
                    marker,
                    extras: requirement.extras.iter().map(ToString::to_string).collect(),
                    at,
                });
            }
            Line::Include(path) => match &mut self.include {
                None => {
                    let what = format!("-r {}", shown(&path));
                    self.left_out.push(LeftOut { what, reason: LeftOutReason::Include, at });
                }
                Some(include) => included.push(include(&at.file, &path).map_err(|why| LockError::Include {
                    at,
                    included: shown(&path),
                    why,
                })?),
            },
        }
        Ok(())
    }
}

fn locked(sha256: Digest) -> LockedFile {
    LockedFile { filename: None, url: None, sha256, size: None }
}

/// Lines with continuations joined and comments removed, each with the number of its first physical line.
struct LogicalLines<'a> {
    lines: std::iter::Enumerate<std::str::Lines<'a>>,
}

impl<'a> LogicalLines<'a> {
    fn new(text: &'a str) -> Self {
        Self { lines: text.lines().enumerate() }
    }
}

impl Iterator for LogicalLines<'_> {
    type Item = (usize, String);

    fn next(&mut self) -> Option<(usize, String)> {
        let (first, mut line) = self.lines.next()?;
        let mut joined = String::new();
        loop {
            // As in pip: a comment line ends a continuation, even one that ends with a backslash itself.
            let comment = line.trim_start().starts_with('#');
            match line.strip_suffix('\\').filter(|_| !comment) {
                Some(part) => joined.push_str(part),
                None => {
                    if comment {
                        joined.push(' ');
                    }
                    joined.push_str(line);
                    break;
                }
            }
            match self.lines.next() {
                Some((_, next)) => line = next,
                None => break,
            }
        }
        Some((first + 1, without_comment(&joined).trim().to_owned()))
    }
}

/// A `#` starts a comment at the start of a line or after white space.
fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if c == '#' && before.is_whitespace() {
            return line.get(..at).unwrap_or_default();
        }
        before = c;
    }
    line
}

enum Line {
    Nothing,
    Include(String),
    LeftOut(String, LeftOutReason),
    Pin(Box<ParsedPin>),
}

struct ParsedPin {
    requirement: Requirement,
    version: Version,
    files: Vec<Digest>,
    marker: Option<String>,
}

/// Options that stand alone and take no value.
const FLAGS: [&str; 4] = ["--no-index", "--pre", "--prefer-binary", "--require-hashes"];
/// Options with a value that choose nothing to install.
const SETTINGS: [&str; 9] = [
    "--no-binary",
    "--only-binary",
    "--trusted-host",
    "--use-feature",
    "--global-option",
    "--install-option",
    "--config-settings",
    "--config-setting",
    "-C",
];
/// Options that name another place to install from.
const PLACES: [&str; 6] = ["-i", "--index-url", "--pypi-url", "--extra-index-url", "-f", "--find-links"];

impl Line {
    fn parse(line: &str) -> Result<Self, String> {
        if line.is_empty() {
            return Ok(Self::Nothing);
        }
        if line.contains("${") {
            return Err("environment variables (`${...}`) are not expanded in lock files".to_owned());
        }
        let (requirement, options) = line.split_at(options_at(line).unwrap_or(line.len()));
        let (requirement, options) = (requirement.trim(), words(options)?);
        if requirement.is_empty() { Self::option(&options) } else { Self::requirement(requirement, &options) }
    }

    /// A line of options alone.
    fn option(words: &[String]) -> Result<Self, String> {
        let mut options = Options(words);
        let mut found = Self::Nothing;
        while let Some((name, value)) = options.next_option() {
            let mut value =
                || value.clone().or_else(|| options.value()).ok_or_else(|| format!("`{name}` lacks a value"));
            found = match name.as_str() {
                "-r" | "--requirement" => return Ok(Self::Include(value()?)),
                "-c" | "--constraint" => Self::LeftOut(shown(&value()?), LeftOutReason::Constraint),
                "-e" | "--editable" => {
                    let what = value()?;
                    let reason = if is_vcs(&what) { LeftOutReason::Vcs } else { LeftOutReason::Path };
                    Self::LeftOut(shown(&what), reason)
                }
                known if FLAGS.contains(&known) => found,
                known if SETTINGS.contains(&known) => {
                    value()?;
                    found
                }
                known if PLACES.contains(&known) => {
                    let what = format!("{known} {}", without_userinfo(&value()?));
                    Self::LeftOut(shown(&what), LeftOutReason::IndexOption)
                }
                _ => return Err(format!("unknown option `{}`", shown(&name))),
            };
        }
        Ok(found)
    }

    fn requirement(text: &str, options: &[String]) -> Result<Self, String> {
        let (files, others) = hashes(options)?;
        if let Some(reason) = elsewhere(text) {
            return Ok(Self::LeftOut(shown(&without_userinfo(text)), reason));
        }
        // The marker is only kept: nothing is decided by it here.
        let (requirement, marker) = match text.split_once(';') {
            Some((requirement, marker)) => (requirement.trim(), Some(marker.trim().to_owned())),
            None => (text, None),
        };
        let parsed = Requirement::parse_without_marker(requirement)
            .map_err(|why| format!("`{}` is not a requirement: {}", shown(requirement), shown(&why)))?;
        let Some(version) = parsed.exact() else {
            return Ok(Self::LeftOut(shown(requirement), LeftOutReason::NotPinned));
        };
        match (files.is_empty(), others.is_empty()) {
            (true, true) => Ok(Self::LeftOut(shown(requirement), LeftOutReason::NoHash)),
            (true, false) => Ok(Self::LeftOut(shown(requirement), LeftOutReason::OtherHash(list(&others)))),
            (false, _) => Ok(Self::Pin(Box::new(ParsedPin { version, requirement: parsed, files, marker }))),
        }
    }
}

/// Whether a requirement comes from elsewhere than an index.
fn elsewhere(text: &str) -> Option<LeftOutReason> {
    let without_marker = text.split(" ;").next().unwrap_or(text).trim();
    if is_vcs(without_marker) {
        return Some(LeftOutReason::Vcs);
    }
    let target = without_marker.split_once('@').map(|(_, target)| target.trim());
    if without_marker.contains("://") || target.is_some_and(|target| target.starts_with("file:")) {
        return Some(LeftOutReason::Url);
    }
    let ending = [".whl", ".tar.gz", ".zip", ".tar.bz2"].iter().any(|ending| without_marker.ends_with(ending));
    let path = without_marker.starts_with(['.', '/', '\\', '~']) || (ending && !without_marker.contains("=="));
    (path || target.is_some()).then_some(LeftOutReason::Path)
}

fn is_vcs(text: &str) -> bool {
    ["git+", "hg+", "svn+", "bzr+"].iter().any(|scheme| {
        text.match_indices(scheme).any(|(at, _)| {
            let before = text.get(..at).and_then(|head| head.chars().next_back());
            before.is_none_or(|c| c == '@' || c.is_whitespace())
        })
    })
}

/// The SHA-256 digests of the `--hash` options without repetition, and the other algorithms that were named.
fn hashes(words: &[String]) -> Result<(Vec<Digest>, BTreeSet<String>), String> {
    let mut options = Options(words);
    let (mut files, mut seen, mut others) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    while let Some((name, value)) = options.next_option() {
        let known = name == "--hash" || SETTINGS.contains(&name.as_str());
        if !known {
            return Err(format!("unknown option `{}` after a requirement", shown(&name)));
        }
        let value = value.or_else(|| options.value()).ok_or_else(|| format!("`{name}` lacks a value"))?;
        if name != "--hash" {
            continue;
        }
        match value.split_once(':') {
            Some(("sha256", hex)) => {
                let digest = sha256(hex)?;
                if seen.insert(digest.clone()) {
                    files.push(digest);
                }
            }
            Some((other, _)) if !other.is_empty() => {
                others.insert(other.to_owned());
            }
            _ => return Err(format!("`{}` is not a hash: write sha256:<hexadecimal digits>", shown(&value))),
        }
    }
    Ok((files, others))
}

/// Walks over options and their values.
struct Options<'a>(&'a [String]);

impl Options<'_> {
    /// The next option, and its value where that is joined to it (`--name=value`, `-rvalue`).
    fn next_option(&mut self) -> Option<(String, Option<String>)> {
        let (word, rest) = self.0.split_first()?;
        self.0 = rest;
        if word.starts_with("--") {
            return Some(match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word.clone(), None),
            });
        }
        match word.char_indices().nth(2) {
            Some((at, _)) if word.starts_with('-') => {
                let (name, value) = word.split_at(at);
                Some((name.to_owned(), Some(value.strip_prefix('=').unwrap_or(value).to_owned())))
            }
            _ => Some((word.clone(), None)),
        }
    }

    /// The word that follows, as a value.
    fn value(&mut self) -> Option<String> {
        let (word, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(word.clone())
    }
}

/// Splits at white space outside of quotes, as a shell does.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quotation mark is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

/// Where the options of a line begin: at the first word with a leading `-`.
fn options_at(line: &str) -> Option<usize> {
    let mut before = ' ';
    line.char_indices().find_map(|(at, c)| {
        let begins = c == '-' && before.is_whitespace();
        before = c;
        begins.then_some(at)
    })
}
