//! What the TOML formats share: telling them apart, lines of errors, collecting pins.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    str::FromStr as _,
    sync::Arc,
};

use percent_encoding::percent_decode_str;
use serde::{Deserialize, de::DeserializeOwned};
use toml::Spanned;

use super::{Format, LeftOut, LeftOutReason, Limits, LockError, LockedFile, PackageName, Pin, Place, Version, shown};
use crate::base::{Algorithm, Digest};

/// The text of a file, without a byte order mark.
pub(super) fn text<'a>(file: &str, bytes: &'a [u8], limits: &Limits) -> Result<&'a str, LockError> {
    if bytes.len() > limits.file_max.as_usize() {
        return Err(LockError::Limit { file: file.to_owned(), limit: limits.file_max.bytes(), what: "bytes" });
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|_| LockError::Encoding { file: file.to_owned() })
}

/// The kind of a lock file, by its name, else by its content.
pub(super) fn detect(file: &str, text: &str) -> Result<Format, LockError> {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file).to_ascii_lowercase();
    match name.as_str() {
        "uv.lock" => return Ok(Format::Uv),
        "poetry.lock" => return Ok(Format::Poetry),
        "pylock.toml" => return Ok(Format::Pylock),
        _ if name.starts_with("pylock.") && name.ends_with(".toml") => return Ok(Format::Pylock),
        _ if name.ends_with(".txt") || name.ends_with(".in") => return Ok(Format::Requirements),
        _ => {}
    }
    let unknown = || LockError::UnknownFormat { file: file.to_owned() };
    match toml::from_str::<Sniffed>(text) {
        Ok(found) => found.format().ok_or_else(unknown),
        Err(_) if [".toml", ".lock", ".json"].iter().any(|ending| name.ends_with(ending)) => Err(unknown()),
        Err(_) => Ok(Format::Requirements),
    }
}

#[derive(Deserialize)]
struct Sniffed {
    #[serde(rename = "lock-version")]
    lock_version: Option<toml::Value>,
    version: Option<toml::Value>,
    package: Option<toml::Value>,
    metadata: Option<toml::Value>,
}

impl Sniffed {
    fn format(&self) -> Option<Format> {
        let poetry = |metadata: &toml::Value| metadata.get("content-hash").is_some();
        match self {
            Self { lock_version: Some(_), .. } => Some(Format::Pylock),
            Self { metadata: Some(metadata), .. } if poetry(metadata) => Some(Format::Poetry),
            Self { version: Some(toml::Value::Integer(_)), package: Some(_), .. } => Some(Format::Uv),
            _ => None,
        }
    }
}

/// Reads one of the TOML formats and gathers what it pins.
pub(super) struct Reader<'a> {
    file: Arc<str>,
    limits: &'a Limits,
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
    pins: Vec<Pin>,
    left_out: Vec<LeftOut>,
    /// Extras that are asked for, by the project as it is written.
    asked: BTreeMap<String, BTreeSet<String>>,
}

/// One file of a package, as the formats describe it.
#[derive(Default)]
pub(super) struct Entry {
    pub filename: Option<String>,
    pub url: Option<String>,
    pub size: Option<u64>,
    /// Algorithm and hexadecimal digits.
    pub hashes: Vec<(String, String)>,
}

impl Entry {
    /// Splits `sha256:<hex>`.
    pub fn hash(text: &str) -> Vec<(String, String)> {
        text.split_once(':').map(|(name, hex)| (name.to_owned(), hex.to_owned())).into_iter().collect()
    }

    fn name(&self) -> Option<String> {
        self.filename.clone().or_else(|| self.url.as_deref().and_then(last_segment))
    }
}

impl<'a> Reader<'a> {
    pub fn new(file: &str, text: &str, limits: &'a Limits) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file: file.into(), limits, lines, pins: Vec::new(), left_out: Vec::new(), asked: BTreeMap::new() }
    }

    /// Deserialises the text; errors name the line.
    pub fn parse<T: DeserializeOwned>(&self, text: &str) -> Result<T, LockError> {
        toml::from_str(text)
            .map_err(|error| LockError::Malformed { at: self.place(error.span()), what: shown(error.message()) })
    }

    pub fn place(&self, span: Option<Range<usize>>) -> Place {
        let line = span.map(|span| self.lines.partition_point(|start| *start <= span.start));
        Place { file: Arc::clone(&self.file), line }
    }

    pub fn leave_out(&mut self, name: &Spanned<String>, reason: LeftOutReason) {
        let at = self.place(Some(name.span()));
        self.left_out.push(LeftOut { what: shown(name.get_ref()), reason, at });
    }

    /// Adds a package with its files; without a version or a SHA-256 it is left out.
    pub fn package(
        &mut self,
        name: &Spanned<String>,
        version: Option<&str>,
        marker: Option<String>,
        entries: Vec<Entry>,
    ) -> Result<(), LockError> {
        let at = self.place(Some(name.span()));
        let malformed = |what: String| LockError::Malformed { at: at.clone(), what };
        let project = PackageName::new(name.get_ref().clone())
            .map_err(|_| malformed(format!("`{}` is not a project name", shown(name.get_ref()))))?;
        let Some(version) = version else {
            self.leave_out(name, LeftOutReason::NoVersion);
            return Ok(());
        };
        let version = Version::from_str(version)
            .map_err(|_| malformed(format!("`{}` is not a version, of {project}", shown(version))))?;
        if entries.len() > self.limits.files_max {
            return Err(self.limit(self.limits.files_max, "files of one package"));
        }
        let (files, others) = gather(entries).map_err(malformed)?;
        if !others.is_empty() || files.is_empty() {
            let reason =
                if others.is_empty() { LeftOutReason::NoHash } else { LeftOutReason::OtherHash(list(&others)) };
            self.leave_out(name, reason);
        }
        if files.is_empty() {
            return Ok(());
        }
        self.pins.push(Pin { project, version, files, marker, extras: Vec::new(), at });
        if self.pins.len() > self.limits.pins_max {
            return Err(self.limit(self.limits.pins_max, "packages"));
        }
        Ok(())
    }

    /// Some package asks for these extras of a project.
    pub fn ask(&mut self, project: String, extras: Vec<String>) {
        if !extras.is_empty() {
            self.asked.entry(project).or_default().extend(extras);
        }
    }

    pub fn version_error(&self, format: Format, version: String, known: &'static str) -> LockError {
        LockError::Version { file: self.file.to_string(), format, version: shown(&version), known }
    }

    pub fn finish(mut self) -> (Vec<Pin>, Vec<LeftOut>) {
        for pin in &mut self.pins {
            // The formats spell names in their normal form.
            pin.extras = self.asked.get(pin.project.as_ref()).into_iter().flatten().cloned().collect();
        }
        (self.pins, self.left_out)
    }

    fn limit(&self, limit: usize, what: &'static str) -> LockError {
        LockError::Limit { file: self.file.to_string(), limit: limit as u64, what }
    }
}

/// Names of algorithms as they stand in a sentence.
pub(super) fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", ")
}

/// The files with a SHA-256, and the algorithms of files that have other hashes only.
fn gather(entries: Vec<Entry>) -> Result<(Vec<LockedFile>, BTreeSet<String>), String> {
    let mut files: Vec<LockedFile> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut others = BTreeSet::new();
    for entry in entries {
        match entry.hashes.iter().find(|(name, _)| name == "sha256") {
            None => others.extend(entry.hashes.into_iter().map(|(name, _)| name)),
            Some((_, hex)) => {
                let sha256 = sha256(hex)?;
                if seen.insert((sha256.clone(), entry.name())) {
                    files.push(LockedFile { filename: entry.name(), url: entry.url, sha256, size: entry.size });
                }
            }
        }
    }
    Ok((files, others))
}

/// Reads a SHA-256; the error is a sentence.
pub(super) fn sha256(hex: &str) -> Result<Digest, String> {
    Digest::from_hex(Algorithm::Sha256, hex).map_err(|error| error.to_string())
}

/// The filename at the end of a URL or a path.
fn last_segment(url: &str) -> Option<String> {
    let path = url.split(['?', '#']).next()?;
    let last = path.rsplit(['/', '\\']).next().filter(|last| !last.is_empty())?;
    Some(percent_decode_str(last).decode_utf8().ok()?.into_owned())
}
