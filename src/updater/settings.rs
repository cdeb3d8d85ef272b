//! A `[[repository]]` table of the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer};
use url::Url;

use super::UpdaterError;
use crate::{
    base::{ByteSize, Digest, Span},
    tuf::Limits,
};

/// One TUF repository that is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Its name in this configuration: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// File of the root that trust begins with.
    #[serde(default)]
    pub root: Option<PathBuf>,
    /// SHA-256 of `1.root.json`, which is fetched then; in place of `root`.
    #[serde(default)]
    pub root_sha256: Option<Digest>,
    /// Base URL of metadata; a list names mirrors of the same repository.
    #[serde(deserialize_with = "one_or_many")]
    pub metadata_url: Vec<Url>,
    /// Base URL of targets in TUF's own layout.
    #[serde(default)]
    pub targets_url: Option<Url>,
    /// How often metadata is refreshed, give or take a tenth.
    #[serde(default = "defaults::refresh_every")]
    pub refresh_every: Span,
    /// Longest time since the last successful refresh before everything is refused.
    #[serde(default)]
    pub refresh_stale_max: Option<Span>,
    /// Longest time that one version of timestamp, snapshot or targets is trusted after it was first seen, however
    /// far its own expiry is.
    #[serde(default)]
    pub expiry_max: Option<Span>,
    /// Lowest root version that is trusted.
    #[serde(default)]
    pub root_version_min: Option<u64>,
    /// Whether 403 for `N+1.root.json` means, like 404, that there is no newer root (some object stores).
    #[serde(default)]
    pub not_found_status_403: bool,
    /// What to do after a refresh was refused, while the trusted metadata has not expired yet.
    #[serde(default)]
    pub refused_refresh: RefusedRefresh,
    /// Most bytes of a root.
    #[serde(default = "defaults::root_size_max")]
    pub root_size_max: ByteSize,
    /// Most bytes of a timestamp.
    #[serde(default = "defaults::timestamp_size_max")]
    pub timestamp_size_max: ByteSize,
    /// Most bytes of a snapshot.
    #[serde(default = "defaults::snapshot_size_max")]
    pub snapshot_size_max: ByteSize,
    /// Most bytes of a targets role, top-level or delegated.
    #[serde(default = "defaults::targets_size_max")]
    pub targets_size_max: ByteSize,
    /// Most memory for delegated roles, in bytes of their files.
    #[serde(default = "defaults::roles_memory_max")]
    pub roles_memory_max: ByteSize,
    /// Most memory for what look-ups said, in bytes.
    #[serde(default = "defaults::answers_memory_max")]
    pub answers_memory_max: ByteSize,
    /// Longest time for one metadata file, repetitions included.
    #[serde(default = "defaults::metadata_deadline")]
    pub metadata_deadline: Span,
    /// How long one mirror is waited for while another one has answered, or could be asked.
    #[serde(default = "defaults::mirror_wait")]
    pub mirror_wait: Span,
    /// Longest time for one refresh as a whole, as far as mirrors are waited for.
    #[serde(default = "defaults::refresh_deadline")]
    pub refresh_deadline: Span,
    /// How far the clock may stand behind a moment that is past for certain, before everything is refused. To begin
    /// anew after the clock was wrong, remove the file `progress` from the repository's state.
    #[serde(default = "defaults::clock_tolerance")]
    pub clock_tolerance: Span,
    /// How long the first look-ups after a start wait for the first refresh, before stored metadata answers.
    #[serde(default = "defaults::first_refresh_wait")]
    pub first_refresh_wait: Span,
    /// Shortest time between refreshes that look-ups ask for while metadata is not current.
    #[serde(default = "defaults::demand_pause")]
    pub demand_pause: Span,
}

/// What a refused refresh does to trusted metadata that has not expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefusedRefresh {
    /// Everything is refused, with the reason, until a refresh succeeds: what the specification's client does.
    #[default]
    Refuse,
    /// It goes on serving until it expires.
    Keep,
}

mod defaults {
    use crate::base::{ByteSize, Span};

    pub(super) fn refresh_every() -> Span {
        Span::mins(5)
    }
    pub(super) fn root_size_max() -> ByteSize {
        ByteSize::kib(512)
    }
    pub(super) fn timestamp_size_max() -> ByteSize {
        ByteSize::kib(16)
    }
    pub(super) fn snapshot_size_max() -> ByteSize {
        ByteSize::mib(8)
    }
    pub(super) fn targets_size_max() -> ByteSize {
        ByteSize::mib(32)
    }
    pub(super) fn roles_memory_max() -> ByteSize {
        ByteSize::mib(16)
    }
    pub(super) fn answers_memory_max() -> ByteSize {
        ByteSize::mib(8)
    }
    pub(super) fn metadata_deadline() -> Span {
        Span::secs(60)
    }
    pub(super) fn mirror_wait() -> Span {
        Span::secs(3)
    }
    pub(super) fn refresh_deadline() -> Span {
        Span::mins(5)
    }
    pub(super) fn clock_tolerance() -> Span {
        Span::mins(5)
    }
    pub(super) fn first_refresh_wait() -> Span {
        Span::secs(5)
    }
    pub(super) fn demand_pause() -> Span {
        Span::secs(3)
    }
}

impl Settings {
    /// Settings with the given name, anchor file and metadata URL, everything else by default.
    pub fn new(name: &str, root: PathBuf, metadata_url: Url) -> Self {
        Self {
            name: name.to_owned(),
            root: Some(root),
            root_sha256: None,
            metadata_url: vec![metadata_url],
            targets_url: None,
            refresh_every: defaults::refresh_every(),
            refresh_stale_max: None,
            expiry_max: None,
            root_version_min: None,
            not_found_status_403: false,
            refused_refresh: RefusedRefresh::default(),
            root_size_max: defaults::root_size_max(),
            timestamp_size_max: defaults::timestamp_size_max(),
            snapshot_size_max: defaults::snapshot_size_max(),
            targets_size_max: defaults::targets_size_max(),
            roles_memory_max: defaults::roles_memory_max(),
            answers_memory_max: defaults::answers_memory_max(),
            metadata_deadline: defaults::metadata_deadline(),
            mirror_wait: defaults::mirror_wait(),
            refresh_deadline: defaults::refresh_deadline(),
            clock_tolerance: defaults::clock_tolerance(),
            first_refresh_wait: defaults::first_refresh_wait(),
            demand_pause: defaults::demand_pause(),
        }
    }

    /// Checks what the types do not say. The error names the key.
    pub fn check(&self) -> Result<(), UpdaterError> {
        let wrong = |key, why: &str| UpdaterError::Setting { repository: self.name.clone(), key, why: why.to_owned() };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || self.name.len() > 100 || !self.name.chars().all(plain) || self.name.starts_with('.')
        {
            return Err(wrong("name", "use letters, digits, `-`, `_` and `.`, at most 100, no `.` in front"));
        }
        if self.root.is_some() == self.root_sha256.is_some() {
            return Err(wrong("root", "give exactly one of `root` and `root_sha256`"));
        }
        if self.root_sha256.as_ref().is_some_and(|digest| digest.algorithm() != crate::base::Algorithm::Sha256) {
            return Err(wrong("root_sha256", "it is not a SHA-256"));
        }
        if self.metadata_url.is_empty() {
            return Err(wrong("metadata_url", "give at least one URL"));
        }
        if !self.metadata_url.iter().all(is_readable) {
            return Err(wrong("metadata_url", "http, https and file URLs can be read"));
        }
        if !self.targets_url.iter().all(is_readable) {
            return Err(wrong("targets_url", "http, https and file URLs can be read"));
        }
        if self.refresh_every.duration().is_zero() {
            return Err(wrong("refresh_every", "must be longer than 0s"));
        }
        Ok(())
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            root: self.root_size_max,
            timestamp: self.timestamp_size_max,
            snapshot: self.snapshot_size_max,
            targets: self.targets_size_max,
            ..Limits::default()
        }
    }
}

/// `base` as a folder: with a slash at its end, so that names are joined below it.
pub(super) fn folder(base: &Url) -> Url {
    let mut base = base.clone();
    if !base.path().ends_with('/') {
        let path = format!("{}/", base.path());
        base.set_path(&path);
    }
    base
}

fn is_readable(url: &Url) -> bool {
    match url.scheme() {
        "http" | "https" => url.has_host(),
        "file" => url.to_file_path().is_ok(),
        _ => false,
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Url>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a URL or a list of URLs")]
    enum OneOrMany {
        One(Url),
        Many(Vec<Url>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(url) => vec![url],
        OneOrMany::Many(urls) => urls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_or_a_list_of_them_is_read_and_an_unknown_key_is_an_error() {
        let one: Settings =
            toml::from_str("name = 'a'\nroot = 'r.json'\nmetadata_url = 'https://a.example/m'\n").unwrap();
        assert_eq!(one.metadata_url.len(), 1);
        one.check().unwrap();
        let two: Settings =
            toml::from_str("name = 'a'\nroot = 'r'\nmetadata_url = ['https://a.example/', 'file:///srv/m/']\n")
                .unwrap();
        assert_eq!(two.metadata_url.len(), 2);
        two.check().unwrap();
        let typo = toml::from_str::<Settings>("name = 'a'\nroot = 'r'\nmetadata_url = 'https://a/'\nrefresh = '5m'\n");
        assert!(typo.unwrap_err().to_string().contains("refresh"));
    }

    #[test]
    fn a_name_that_is_no_file_name_and_a_double_anchor_are_errors_that_name_the_key() {
        let good = Settings::new("a", "r.json".into(), Url::parse("https://a.example/").unwrap());
        for name in ["", "..", "a/b", ".a", "a b"] {
            let error = Settings { name: name.to_owned(), ..good.clone() }.check().unwrap_err();
            assert!(error.to_string().contains("name"), "{error}");
        }
        let both = Settings { root_sha256: Some(Digest::sha256(b"")), ..good };
        assert!(both.check().unwrap_err().to_string().contains("root_sha256"));
    }
}
