//! Where a bucket is and how long it is waited for: `[cache.bucket]` and `[state.shared]`.

use std::path::PathBuf;

use serde::{Deserialize, de::DeserializeOwned};
use url::Url;

use crate::base::{ByteSize, Span};

/// A bucket.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `s3://bucket/prefix`: everything is put below the prefix.
    pub url: Url,
    /// Where the storage listens, where it is not the provider's own for the region: `https://s3.example`.
    #[serde(default)]
    pub endpoint: Option<Url>,
    /// The region that requests are signed for.
    #[serde(default = "defaults::region")]
    pub region: String,
    /// Whether the endpoint may be plain http.
    #[serde(default)]
    pub allow_http: bool,
    /// Whether the bucket's name is a part of the host (`bucket.s3.example`) and not of the path.
    #[serde(default)]
    pub virtual_hosted: bool,
    /// File that holds the access key's id.
    #[serde(default)]
    pub access_key_id_file: Option<PathBuf>,
    /// Environment variable that holds it.
    #[serde(default)]
    pub access_key_id_env: Option<String>,
    /// File that holds the secret access key.
    #[serde(default)]
    pub secret_access_key_file: Option<PathBuf>,
    /// Environment variable that holds it.
    #[serde(default)]
    pub secret_access_key_env: Option<String>,
    /// File that holds a session token, for keys that end.
    #[serde(default)]
    pub session_token_file: Option<PathBuf>,
    /// Environment variable that holds it.
    #[serde(default)]
    pub session_token_env: Option<String>,
    /// Longest time for an answer to begin, and for silence in one.
    #[serde(default = "defaults::answer_max")]
    pub answer_max: Span,
    /// Fewest bytes per second of an object, as a whole.
    #[serde(default = "defaults::rate_min")]
    pub rate_min: ByteSize,
    /// How often a request is repeated, within the same time.
    #[serde(default = "defaults::retries")]
    pub retries: u32,
    /// So many failures in a row, and the bucket is left alone.
    #[serde(default = "defaults::failures_max")]
    pub failures_max: u32,
    /// How long, the first time; doubled each time.
    #[serde(default = "defaults::rest")]
    pub rest: Span,
    /// How long at most.
    #[serde(default = "defaults::rest_max")]
    pub rest_max: Span,
}

mod defaults {
    use crate::base::{ByteSize, Span};

    pub(super) fn region() -> String {
        "us-east-1".to_owned()
    }
    pub(super) fn answer_max() -> Span {
        Span::secs(2)
    }
    pub(super) fn rate_min() -> ByteSize {
        ByteSize::mib(1)
    }
    pub(super) fn retries() -> u32 {
        2
    }
    pub(super) fn failures_max() -> u32 {
        3
    }
    pub(super) fn rest() -> Span {
        Span::secs(10)
    }
    pub(super) fn rest_max() -> Span {
        Span::mins(5)
    }
}

/// `[cache.bucket]`: the bucket as a second tier of the cache.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct TierSettings {
    /// The bucket.
    pub bucket: Settings,
    /// Files that wait to be put into it; more are not put.
    pub uploads_max: usize,
    /// Files that are put at once.
    pub uploads_at_once: usize,
    /// Bytes of a part of a large file, and of what is put in one piece; so many are in memory for each upload.
    pub part_size: ByteSize,
}

#[derive(Deserialize)]
#[serde(default)]
struct Uploads {
    uploads_max: usize,
    uploads_at_once: usize,
    part_size: ByteSize,
}

impl Default for Uploads {
    fn default() -> Self {
        Self { uploads_max: 256, uploads_at_once: 2, part_size: ByteSize::mib(8) }
    }
}

impl TryFrom<toml::Table> for TierSettings {
    type Error = toml::de::Error;

    fn try_from(mut table: toml::Table) -> Result<Self, toml::de::Error> {
        let uploads: Uploads = split_off(&mut table, &["uploads_max", "uploads_at_once", "part_size"])?;
        let Uploads { uploads_max, uploads_at_once, part_size } = uploads;
        Ok(Self { bucket: table.try_into()?, uploads_max, uploads_at_once, part_size })
    }
}

/// Takes some keys out of a table and reads them: what stays is a bucket's, which knows what it does not know.
pub fn split_off<T: DeserializeOwned>(table: &mut toml::Table, keys: &[&str]) -> Result<T, toml::de::Error> {
    let own: toml::Table = keys.iter().filter_map(|key| table.remove_entry(*key)).collect();
    own.try_into()
}

/// A setting that does not make sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct SettingsError {
    /// The key.
    pub key: &'static str,
    /// What is wrong with it.
    pub why: String,
}

/// Where in which bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The bucket's name.
    pub bucket: String,
    /// What all keys begin with; empty, or with a slash at its end.
    pub prefix: String,
}

impl Settings {
    /// A bucket with everything by default.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            endpoint: None,
            region: defaults::region(),
            allow_http: false,
            virtual_hosted: false,
            access_key_id_file: None,
            access_key_id_env: None,
            secret_access_key_file: None,
            secret_access_key_env: None,
            session_token_file: None,
            session_token_env: None,
            answer_max: defaults::answer_max(),
            rate_min: defaults::rate_min(),
            retries: defaults::retries(),
            failures_max: defaults::failures_max(),
            rest: defaults::rest(),
            rest_max: defaults::rest_max(),
        }
    }

    /// The files that it names, to be placed beside the configuration.
    pub fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.access_key_id_file, &mut self.secret_access_key_file, &mut self.session_token_file]
            .into_iter()
            .flatten()
    }

    /// Checks what the types do not say. The error names the key.
    pub fn check(&self) -> Result<(), SettingsError> {
        let wrong = |key, why: &str| Err(SettingsError { key, why: why.to_owned() });
        if !cfg!(feature = "s3") {
            return wrong("url", "this tufgate was built without the feature `s3`, and cannot use a bucket");
        }
        self.location()?;
        if let Some(endpoint) = &self.endpoint {
            match endpoint.scheme() {
                "https" => {}
                "http" if self.allow_http => {}
                "http" => return wrong("endpoint", "is plain http: set `allow_http = true` where that is meant"),
                _ => return wrong("endpoint", "is an https URL"),
            }
            if !endpoint.username().is_empty() || endpoint.password().is_some() {
                return wrong("endpoint", "carries a user: keys are read from files or the environment alone");
            }
        }
        for (key, span) in [("answer_max", self.answer_max), ("rest", self.rest)] {
            if span.duration().is_zero() {
                return wrong(key, "must be longer than 0s");
            }
        }
        self.check_keys()
    }

    fn check_keys(&self) -> Result<(), SettingsError> {
        let wrong = |key, why: &str| Err(SettingsError { key, why: why.to_owned() });
        let given = |file: &Option<PathBuf>, variable: &Option<String>| {
            usize::from(file.is_some()) + usize::from(variable.is_some())
        };
        let id = given(&self.access_key_id_file, &self.access_key_id_env);
        let secret = given(&self.secret_access_key_file, &self.secret_access_key_env);
        let token = given(&self.session_token_file, &self.session_token_env);
        for (key, count) in
            [("access_key_id_file", id), ("secret_access_key_file", secret), ("session_token_file", token)]
        {
            if count > 1 {
                return wrong(key, "a file and an environment variable are both given");
            }
        }
        match (id, secret, token) {
            (1, 0, _) => wrong("secret_access_key_file", "is missing: an access key has an id and a secret"),
            (0, 1, _) => wrong("access_key_id_file", "is missing: an access key has an id and a secret"),
            (0, 0, 1) => wrong("session_token_file", "is of no use without an access key"),
            _ => Ok(()),
        }
    }

    /// The bucket and the prefix in it.
    pub fn location(&self) -> Result<Location, SettingsError> {
        let wrong = |why: &str| SettingsError { key: "url", why: why.to_owned() };
        if self.url.scheme() != "s3" {
            return Err(wrong("is `s3://bucket` or `s3://bucket/prefix`"));
        }
        if self.url.query().is_some() || !self.url.username().is_empty() || self.url.port().is_some() {
            return Err(wrong("is `s3://bucket/prefix` and nothing else; where the storage listens is `endpoint`"));
        }
        let bucket = self.url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("names no bucket"))?;
        let path = self.url.path().trim_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if !path.chars().all(plain) || path.split('/').any(|part| matches!(part, "." | "..")) || path.contains("//") {
            return Err(wrong("has a prefix of other characters than letters, digits, `-`, `_`, `.` and `/`"));
        }
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        Ok(Location { bucket: bucket.to_owned(), prefix })
    }
}

impl TierSettings {
    /// Like [`Settings::check`].
    pub fn check(&self) -> Result<(), SettingsError> {
        self.bucket.check()?;
        let wrong = |key, why: &str| Err(SettingsError { key, why: why.to_owned() });
        if self.uploads_at_once == 0 || self.uploads_max == 0 {
            return wrong("uploads_max", "must be at least 1, and so must `uploads_at_once`");
        }
        if self.part_size < ByteSize::mib(5) || self.part_size > ByteSize::gib(1) {
            return wrong("part_size", "must be between 5MiB and 1GiB, as S3 has it");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TierSettings, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    fn location(url: &str) -> Result<Location, SettingsError> {
        Settings::new(Url::parse(url).unwrap()).location()
    }

    #[test]
    fn the_keys_of_the_bucket_and_of_the_uploads_stand_in_one_table_and_others_are_errors() {
        let read_whole = read("url = 's3://b/p'\nuploads_max = 7\nanswer_max = '1s'\n").unwrap();
        assert_eq!((read_whole.uploads_max, read_whole.bucket.answer_max), (7, Span::secs(1)));
        assert!(read("url = 's3://b'\nuplods_max = 7\n").unwrap_err().contains("unknown field `uplods_max`"));
        assert!(read("url = 's3://b'\nsecret_access_key = 'x'\n").unwrap_err().contains("`secret_access_key`"));
        assert!(read("uploads_max = 7\n").unwrap_err().contains("url"));
    }

    #[test]
    fn a_url_names_a_bucket_and_a_prefix_and_nothing_else() {
        let found = location("s3://files/a/b/").unwrap();
        assert_eq!((found.bucket.as_str(), found.prefix.as_str()), ("files", "a/b/"));
        assert_eq!(location("s3://files").unwrap().prefix, "");
        for wrong in [
            "https://files/a",
            "s3://files/a?b",
            "s3://u@files/a",
            "s3://files:9000/a",
            "s3://files/a%2Fb",
            "s3://files/a//b",
        ] {
            assert_eq!(location(wrong).unwrap_err().key, "url", "{wrong}");
        }
    }

    #[cfg(feature = "s3")]
    #[test]
    fn what_cannot_be_is_refused_by_key() {
        let whole = "url = 's3://b/p'\nendpoint = 'https://s3.example'\n";
        read(whole).unwrap().check().unwrap();
        for (more, key) in [
            ("access_key_id_env = 'A'", "secret_access_key_file"),
            ("secret_access_key_env = 'A'", "access_key_id_file"),
            ("access_key_id_env = 'A'\naccess_key_id_file = 'a'\nsecret_access_key_env = 'B'", "access_key_id_file"),
            ("session_token_env = 'A'", "session_token_file"),
            ("answer_max = '0s'", "answer_max"),
            ("part_size = '1MiB'", "part_size"),
            ("uploads_at_once = 0", "uploads_max"),
        ] {
            assert_eq!(read(&format!("{whole}{more}\n")).unwrap().check().unwrap_err().key, key, "{more}");
        }
        let plain = read("url = 's3://b/p'\nendpoint = 'http://s3.example'\n").unwrap().check().unwrap_err();
        assert!(plain.key == "endpoint" && plain.why.contains("allow_http"), "{plain}");
        let user = read("url = 's3://b/p'\nendpoint = 'https://u:p@s3.example'\n").unwrap().check().unwrap_err();
        assert_eq!(user.key, "endpoint");
    }

    #[cfg(not(feature = "s3"))]
    #[test]
    fn a_build_that_cannot_use_a_bucket_says_so() {
        let error = read("url = 's3://b/p'\n").unwrap().check().unwrap_err();
        assert!(error.key == "url" && error.why.contains("feature `s3`"), "{error}");
    }
}
