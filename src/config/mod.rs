//! The configuration file: read, checked as a whole, and explained when it is wrong.
//!
//! Each part owns its settings; here they are put together. An unknown key is an error that names the key and the
//! nearest known one, because a misspelt limit that is ignored is a limit that is not there.

mod diagnose;
mod mounts;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::Spanned;

pub use mounts::{FrontSettings, MountSettings};

use crate::{
    admin,
    base::{
        ByteSize, Fault,
        files::{self, FileError},
    },
    cache, delivery, server,
    telemetry::{audit, logging},
    trust::{self, map::Map},
    updater, upstream,
};

/// The largest configuration file.
const FILE_MAX: ByteSize = ByteSize::mib(1);

/// What lies in the state folder beside the folders of the repositories.
const STATE_FILES: [&str; 3] = [files::LOCK, cache::RECORD, cache::SCRUB];

/// `[state]`: trust that outlives the process. It lies apart from the cache, so that deleting the cache resets nothing.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSettings {
    /// The folder; made with mode 0700 where it is missing.
    pub dir: PathBuf,
    /// A bucket in which gates share their rollback floors.
    #[serde(default)]
    pub shared: Option<updater::SharedFloorSettings>,
}

/// A configuration that was read and checked. All paths are absolute or relative to the working directory.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`
    pub server: server::Settings,
    /// `[admin]`
    pub admin: Option<admin::Settings>,
    /// `[cache]`
    pub cache: cache::Settings,
    /// `[state]`
    pub state: StateSettings,
    /// `[log]`
    pub log: logging::Settings,
    /// `[audit]`
    pub audit: audit::Settings,
    /// `[upstream]`
    pub upstream: upstream::Settings,
    /// `[delivery]`
    pub delivery: delivery::Settings,
    /// `[[repository]]`
    pub repositories: Vec<updater::Settings>,
    /// `[[mount]]`, the longest path first: the order in which a request is matched.
    pub mounts: Vec<MountSettings>,
    /// What is allowed but probably not meant.
    pub warnings: Vec<String>,
}

/// What the command line or the environment puts in place of the file's values.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// In place of `server.listen`.
    pub listen: Option<SocketAddr>,
    /// In place of `admin.listen`.
    pub admin_listen: Option<SocketAddr>,
    /// In place of `log.level`.
    pub log_level: Option<String>,
}

/// The file as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    server: server::Settings,
    admin: Option<admin::Settings>,
    cache: cache::Settings,
    state: StateSettings,
    #[serde(default)]
    log: logging::Settings,
    #[serde(default)]
    audit: audit::Settings,
    #[serde(default)]
    upstream: upstream::Settings,
    #[serde(default)]
    delivery: delivery::Settings,
    #[serde(default)]
    repository: Vec<updater::Settings>,
    #[serde(default)]
    mount: Vec<Spanned<toml::Table>>,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not TOML, or a key that is unknown, missing or of the wrong kind.
    #[error("{path}:{line}: {what}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, naming the key.
        what: String,
    },
    /// A value that cannot be.
    #[error("{path}: {key}: {why}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, as `server.listen`.
        key: String,
        /// Why not.
        why: String,
    },
}

impl ConfigError {
    /// Always this machine's own.
    pub fn fault(&self) -> Fault {
        Fault::Local
    }
}

impl Config {
    /// Reads and checks the file; makes nothing and reaches nobody.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with(path, &Overrides::default())
    }

    /// Like [`Config::load`], with values that win over the file's.
    pub fn load_with(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let bytes = files::read_named(path, FILE_MAX)?;
        let text = String::from_utf8(bytes).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: 1,
            what: format!("not UTF-8 ({})", error.utf8_error()),
        })?;
        Self::parse(path, &text, overrides)
    }

    /// Checks the text of a configuration file that lies, or will lie, at `path`.
    pub fn parse(path: &Path, text: &str, overrides: &Overrides) -> Result<Self, ConfigError> {
        let base = path.parent().unwrap_or(Path::new(""));
        let document: Document = toml::from_str(text).map_err(|error| diagnose::syntax(path, text, &error))?;
        let mounts = document
            .mount
            .iter()
            .map(|mount| mounts::read(mount.get_ref(), base).map_err(|error| error.locate(path, text, mount.span())))
            .collect::<Result<Vec<_>, _>>()?;
        let mut config = Self {
            server: document.server,
            admin: document.admin,
            cache: document.cache,
            state: document.state,
            log: document.log,
            audit: document.audit,
            upstream: document.upstream,
            delivery: document.delivery,
            repositories: document.repository,
            mounts,
            warnings: Vec::new(),
        };
        config.resolve(base);
        config.apply(overrides);
        config.check().map_err(|(key, why)| ConfigError::Value { path: path.to_owned(), key, why })?;
        config.mounts.sort_by_key(|mount| std::cmp::Reverse(mount.path.depth()));
        config.warnings = config.doubts();
        Ok(config)
    }

    /// Relative paths are relative to the configuration file, wherever the process was started.
    fn resolve(&mut self, base: &Path) {
        let place = |path: &mut PathBuf| *path = base.join(&*path);
        place(&mut self.cache.dir);
        place(&mut self.state.dir);
        self.audit.file.iter_mut().for_each(place);
        self.upstream.ca_file.iter_mut().for_each(place);
        self.cache.bucket.iter_mut().flat_map(|tier| tier.bucket.files()).for_each(place);
        self.state.shared.iter_mut().flat_map(|shared| shared.bucket.files()).for_each(place);
        for credential in &mut self.upstream.credentials {
            credential.password_file.iter_mut().chain(&mut credential.token_file).for_each(place);
        }
        self.repositories.iter_mut().filter_map(|repository| repository.root.as_mut()).for_each(place);
        for tls in self.server.tls.iter_mut() {
            place(&mut tls.cert);
            place(&mut tls.key);
        }
    }

    fn apply(&mut self, overrides: &Overrides) {
        if let Some(listen) = overrides.listen {
            self.server.listen = listen;
        }
        if let Some(listen) = overrides.admin_listen {
            self.admin.get_or_insert(admin::Settings { listen, public_url: None }).listen = listen;
        }
        if let Some(level) = &overrides.log_level {
            self.log.level.clone_from(level);
        }
    }

    fn check(&self) -> Result<(), (String, String)> {
        let wrong = |key: &str, why: String| Err((key.to_owned(), why));
        if !is_loopback(self.server.listen) && self.server.tls.is_none() && !self.server.plaintext {
            return wrong(
                "server.listen",
                format!(
                    "{} is not loopback: set server.tls, or server.plaintext = true where something in front speaks TLS",
                    self.server.listen
                ),
            );
        }
        if self.admin.as_ref().is_some_and(|admin| admin.listen == self.server.listen && admin.listen.port() != 0) {
            return wrong("admin.listen", "must differ from server.listen".to_owned());
        }
        if self.state.dir.starts_with(&self.cache.dir) {
            return wrong(
                "state.dir",
                "must not be cache.dir, nor within it: deleting a cache must never reset trust".to_owned(),
            );
        }
        if let Some(tier) = &self.cache.bucket
            && let Err(error) = tier.check()
        {
            return wrong(&format!("cache.bucket.{}", error.key), error.why);
        }
        if let Some(shared) = &self.state.shared
            && let Err(error) = shared.bucket.check()
        {
            return wrong(&format!("state.shared.{}", error.key), error.why);
        }
        if let Err(error) = logging::check(&self.log) {
            return wrong("log.level", error.to_string());
        }
        self.check_repositories()?;
        self.check_mounts()
    }

    fn check_repositories(&self) -> Result<(), (String, String)> {
        if self.repositories.is_empty() {
            return Err(("repository".to_owned(), "at least one [[repository]] is needed".to_owned()));
        }
        let mut names = BTreeSet::new();
        for repository in &self.repositories {
            let key = format!("repository `{}`", repository.name);
            check_name(&repository.name).map_err(|why| (format!("{key}: name"), why))?;
            if STATE_FILES.contains(&repository.name.as_str()) {
                return Err((
                    format!("{key}: name"),
                    "is the name of one of tufgate's own files in state.dir".to_owned(),
                ));
            }
            if !names.insert(repository.name.as_str()) {
                return Err((key, "the name is used twice".to_owned()));
            }
            if let Err(error) = repository.check() {
                return Err((key, error.to_string()));
            }
            if let Some(root) = &repository.root
                && let Err(error) = files::read_named(root, ByteSize::mib(1))
            {
                return Err((format!("{key}: root"), error.to_string()));
            }
        }
        Ok(())
    }

    fn check_mounts(&self) -> Result<(), (String, String)> {
        if self.mounts.is_empty() {
            return Err(("mount".to_owned(), "at least one [[mount]] is needed".to_owned()));
        }
        let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
        for mount in &self.mounts {
            let key = format!("mount `{}`", mount.name);
            check_name(&mount.name).map_err(|why| (format!("{key}: name"), why))?;
            if !names.insert(mount.name.as_str()) {
                return Err((key, "the name is used twice".to_owned()));
            }
            if !paths.insert(&mount.path) {
                return Err((format!("{key}: path"), format!("`{}` is used by two mounts", mount.path)));
            }
            let known: Vec<&str> = self.repositories.iter().map(|repository| repository.name.as_str()).collect();
            if let Some(unknown) = mount.trust.repositories().into_iter().find(|name| !known.contains(name)) {
                let why = format!("there is no [[repository]] named `{unknown}` (known: {})", known.join(", "));
                return Err(match &mount.trust {
                    trust::Settings::Repository(_) => (format!("{key}: repository"), why),
                    trust::Settings::Map { path, .. } => {
                        (format!("{key}: map"), format!("{}: repositories.{unknown}: {why}", path.display()))
                    }
                });
            }
            if let Some(map) = mount.trust.map() {
                self.check_keys(map).map_err(|why| (format!("{key}: map"), why))?;
            }
        }
        Ok(())
    }

    /// A threshold over repositories that one key can speak for is none. Roots that are fetched are judged when they are
    /// there.
    fn check_keys(&self, map: &Map) -> Result<(), String> {
        let mut roots: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        for repository in &self.repositories {
            if map.repositories().contains_key(&repository.name)
                && let Some(root) = &repository.root
                && let Ok(bytes) = files::read_named(root, repository.root_size_max)
            {
                roots.insert(&repository.name, bytes);
            }
        }
        for (n, entry) in map.entries().iter().enumerate().filter(|(_, entry)| entry.threshold > 1) {
            let members: Vec<_> =
                entry.repositories.iter().filter_map(|name| roots.get_key_value(name.as_str())).collect();
            for (place, (one, ours)) in members.iter().enumerate() {
                let others = members.iter().skip(place + 1);
                if let Some(shared) =
                    others.filter_map(|(other, theirs)| trust::shared_by_roots((one, ours), (other, theirs))).next()
                {
                    return Err(format!(
                        "mapping[{n}].repositories: {shared}: who holds it speaks for both, and a threshold of {} \
                         does not mean {} repositories",
                        entry.threshold, entry.threshold
                    ));
                }
            }
        }
        Ok(())
    }

    fn doubts(&self) -> Vec<String> {
        let mut doubts = self.doubts_of_mounts();
        self.mounts.iter().for_each(|mount| self.doubts_of_map(mount, &mut doubts));
        if self.admin.as_ref().is_some_and(|admin| admin.public_url.is_some() && !is_loopback(admin.listen)) {
            let doubt = "admin.public_url is of no use while admin.listen is not loopback: /why does not answer there";
            doubts.push(doubt.to_owned());
        }
        doubts
    }

    /// Two mounts that name targets alike in one repository authorise each other's files.
    fn doubts_of_mounts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        for (n, one) in self.mounts.iter().enumerate() {
            for other in self.mounts.iter().skip(n + 1) {
                let theirs = other.trust.repositories();
                let shared = one.trust.repositories().into_iter().find(|name| theirs.contains(name));
                if let Some(shared) = shared.filter(|_| mounts::share_names(&one.front, &other.front)) {
                    doubts.push(format!(
                        "mounts `{}` and `{}` share repository `{shared}` and call targets alike (target_path): a file \
                         signed for one is authorised in the other",
                        one.name, other.name
                    ));
                }
            }
        }
        doubts
    }
}

impl Config {
    /// What a map says that is probably not meant, by itself and for the mount that has it.
    fn doubts_of_map(&self, mount: &MountSettings, doubts: &mut Vec<String>) {
        let trust::Settings::Map { path, map } = &mount.trust else { return };
        let named = |doubt: String| format!("mount `{}`: map: {}: {doubt}", mount.name, path.display());
        let configured = |name: &str| {
            let found = self.repositories.iter().find(|repository| repository.name == name);
            found.map(|repository| repository.metadata_url.clone()).unwrap_or_default()
        };
        doubts.extend(map.doubts(&configured).into_iter().map(named));
        for (key, glob) in mount.target_globs().unwrap_or_default() {
            if !map.reaches(&glob) {
                doubts.push(named(format!("no pattern reaches the mount's {key}, `{glob}`: `*` does not cross `/`")));
            }
        }
    }
}

/// Whether nobody but this machine can reach the address.
pub fn is_loopback(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    }
}

/// Names stand in URLs, labels and folders.
fn check_name(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts && name.len() <= 64 && name.chars().all(good) {
        return Ok(());
    }
    Err(format!("`{name}` must be 1 to 64 letters, digits, `-`, `_` or `.`, and start with a letter or digit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = include_str!("../../config/tufgate.toml");
    const MINIMAL: &str = include_str!("../../config/minimal.toml");

    /// A folder with a root in it, and the text with that root's path.
    fn placed(text: &str) -> (tempfile::TempDir, PathBuf, String) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("root.json"), "{}").unwrap();
        let map = r#"{"repositories": {"approved": []}, "mapping": [
            {"paths": ["*/*"], "repositories": ["approved"], "terminating": true, "threshold": 1}]}"#;
        std::fs::write(folder.path().join("map.json"), map).unwrap();
        let path = folder.path().join("tufgate.toml");
        (folder, path, text.replace("/etc/tufgate/", ""))
    }

    fn read(text: &str) -> Result<Config, ConfigError> {
        let (_folder, path, text) = placed(text);
        Config::parse(&path, &text, &Overrides::default())
    }

    fn error(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn the_example_files_can_be_used_as_they_are() {
        assert_eq!(read(MINIMAL).unwrap().mounts.len(), 1);
        let config = read(FULL).unwrap();
        assert_eq!(config.mounts[0].name, "debian", "the longest path comes first");
        assert_eq!(config.warnings, [""; 0]);
    }

    #[test]
    fn every_commented_key_of_the_full_file_is_a_key_with_a_good_value() {
        let uncommented: String = FULL
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest,
                _ => line,
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        let (_folder, path, text) = placed(&uncommented);
        let document: Document = toml::from_str(&text).unwrap();
        assert!(document.cache.bucket.is_some());
        let parsed = Config::parse(&path, &text, &Overrides::default());
        if cfg!(feature = "s3") {
            parsed.unwrap();
        } else {
            let error = parsed.unwrap_err().to_string();
            assert!(error.contains("cache.bucket.url: this tufgate was built without the feature `s3`"), "{error}");
        }
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_line_its_table_and_the_nearest_known_one() {
        let text = MINIMAL.replacen("listen =", "lisen =", 1);
        assert!(error(&text).contains("tufgate.toml:3: unknown key `lisen` in [server]; did you mean `listen`?"));
        let text = MINIMAL.replace("listing_path", "listing_paht");
        let error = error(&text);
        assert!(error.contains("unknown key `listing_paht` in [[mount]]; did you mean `listing_path`?"), "{error}");
        assert!(error.contains(":29: "), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_names_its_key() {
        let error = error(&MINIMAL.replace("\"127.0.0.1:8080\"", "\"nowhere\""));
        assert!(error.contains("listen: ") && error.contains("in [server]"), "{error}");
        let error = self::error(&MINIMAL.replace("front = \"pypi\"", "front = \"pypi\"\nunsigned = \"maybe\""));
        assert!(error.contains(":26: unsigned: unknown variant `maybe`"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused_by_key() {
        for (from, to, expected) in [
            ("127.0.0.1:8080", "0.0.0.0:8080", "server.listen: 0.0.0.0:8080 is not loopback"),
            ("repository = \"approved\"", "repository = \"aproved\"", "no [[repository]] named `aproved`"),
            ("front = \"pypi\"", "front = \"apt\"", "`apt` is not a front of this build"),
            ("name = \"approved\"", "name = \"../etc\"", "`../etc` must be"),
            ("name = \"approved\"", "name = \"lock\"", "tufgate's own files"),
            ("dir = \"state\"", "dir = \"cache\"", "state.dir: must not be cache.dir"),
            ("dir = \"state\"", "dir = \"cache/state\"", "state.dir: must not be cache.dir"),
            ("root = \"root.json\"", "root = \"missing.json\"", "missing.json"),
            ("front = \"pypi\"", "front = \"pypi\"\nmap = \"map.json\"", "map: stands in place of `repository`"),
            ("repository = \"approved\"", "map = \"none.json\"", "none.json"),
            ("repository = \"approved\"", "", "repository: is missing"),
            ("front = \"pypi\"", "front = \"pypi\"\npath = \"/-/tuf\"", "reserved"),
        ] {
            let error = error(&MINIMAL.replace(from, to));
            assert!(error.contains(expected), "{to}: {error}");
        }
    }

    #[test]
    fn two_mounts_that_would_authorise_each_others_files_are_warned_of() {
        let (head, mount) = MINIMAL.split_once("[[mount]]").unwrap();
        let second = mount.replace("name = \"pypi\"", "name = \"other\"\npath = \"/other\"");
        let config = read(&format!("{head}[[mount]]{mount}[[mount]]{second}")).unwrap();
        assert_eq!(config.warnings.len(), 1);
        let same = mount.replace("name = \"pypi\"", "name = \"other\"");
        let error = error(&format!("{head}[[mount]]{mount}[[mount]]{same}"));
        assert!(error.contains("path: `/` is used by two mounts"), "{error}");
    }

    #[test]
    fn a_map_stands_in_place_of_a_repository_and_lies_beside_the_file() {
        let (folder, path, text) = placed(MINIMAL);
        let text = text.replace("repository = \"approved\"", "map = \"map.json\"");
        let map = |name: &str| {
            let entry = format!(
                "{{\"paths\": [\"*/*\"], \"repositories\": [{name:?}], \"terminating\": true, \"threshold\": 1}}"
            );
            std::fs::write(
                folder.path().join("map.json"),
                format!("{{\"repositories\": {{{name:?}: []}}, \"mapping\": [{entry}]}}"),
            )
            .unwrap();
            Config::parse(&path, &text, &Overrides::default()).map_err(|error| error.to_string())
        };
        let config = map("approved").unwrap();
        assert_eq!(config.mounts[0].trust.repositories(), ["approved"]);
        let [warning] = config.warnings.as_slice() else { panic!("{:?}", config.warnings) };
        assert!(warning.contains("no pattern reaches the mount's listing_path, `simple/*/index.json`"), "{warning}");
        let error = map("other").unwrap_err();
        assert!(error.contains("mount `pypi`: map: ") && error.contains("repositories.other: there is no"), "{error}");
    }

    #[test]
    fn a_link_that_nobody_could_open_is_warned_of() {
        let admin = |listen| format!("[admin]\nlisten = \"{listen}:9090\"\npublic_url = \"https://admin.example/\"\n");
        let (before, after) = MINIMAL.split_once("[cache]").unwrap();
        let before = before.split_once("[admin]").map_or(before, |(before, _)| before);
        let read = |listen| read(&format!("{before}{}[cache]{after}", admin(listen))).unwrap().warnings.len();
        assert_eq!((read("127.0.0.1"), read("10.0.0.1")), (0, 1));
    }

    #[test]
    fn paths_are_relative_to_the_file_and_overrides_win() {
        let (folder, path, text) = placed(MINIMAL);
        let listen: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let overrides = Overrides { listen: Some(listen), admin_listen: Some(listen), log_level: None };
        assert!(Config::parse(&path, &text, &overrides).unwrap_err().to_string().contains("admin.listen"));
        let overrides = Overrides { listen: Some(listen), ..Overrides::default() };
        let config = Config::parse(&path, &text, &overrides).unwrap();
        assert_eq!((config.server.listen, config.state.dir), (listen, folder.path().join("state")));
    }
}
