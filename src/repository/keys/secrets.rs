//! Where the passphrases of key files and the PINs of tokens come from: a private file, the environment, a terminal.
//!
//! For the key `root` (its file's name up to the first dot) they are looked for in this order: the file given for
//! `root`, the variable `TUFGATE_PASSPHRASE_ROOT`, the file given for all keys, `TUFGATE_PASSPHRASE`; else whoever sits
//! at the terminal is asked, once for each key. PINs likewise, with `PIN` for `PASSPHRASE`. What is read is wiped when
//! dropped.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Mutex, OnceLock, PoisonError},
};

use zeroize::Zeroizing;

use super::{super::RepositoryError, private};
use crate::base::ByteSize;

/// The largest passphrase file that is read.
const SECRET_FILE_MAX: ByteSize = ByteSize::kib(4);
/// How often a terminal is asked again for a passphrase that was wrong. A PIN is asked for once: tokens lock.
pub(super) const TRIES_MAX: usize = 3;

/// What kind of secret is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretKind {
    /// The passphrase of an encrypted key file.
    Passphrase,
    /// The user PIN of a token.
    Pin,
}

impl SecretKind {
    /// The variable that holds one for all keys.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Passphrase => "TUFGATE_PASSPHRASE",
            Self::Pin => "TUFGATE_PIN",
        }
    }

    /// The option that names a file of one.
    pub fn option(self) -> &'static str {
        match self {
            Self::Passphrase => "--passphrase-file",
            Self::Pin => "--pin-file",
        }
    }

    /// The variable that holds the one of a key: upper case, with `_` for what is neither letter nor digit.
    pub fn variable_of(self, name: &str) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        format!("{}_{}", self.variable(), name.chars().map(plain).collect::<String>())
    }
}

impl fmt::Display for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passphrase => "passphrase",
            Self::Pin => "PIN",
        })
    }
}

/// A file that holds a secret: of one key (`root=FILE`) or of all (`FILE`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    key: Option<String>,
    path: PathBuf,
}

impl FromStr for SecretFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, path) = match text.split_once('=') {
            Some((key, path)) if !key.contains('/') => (Some(key.to_owned()), path),
            _ => (None, text),
        };
        if path.is_empty() || key.as_ref().is_some_and(String::is_empty) {
            return Err("wanted is FILE or KEY=FILE, as in root=/run/secrets/root".to_owned());
        }
        Ok(Self { key, path: path.into() })
    }
}

/// The key whose secret is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) kind: SecretKind,
    /// What the key is called in options and variables.
    pub(super) name: &'a str,
    /// The key as sentences name it.
    pub(super) key: &'a str,
}

impl Wanted<'_> {
    /// The error where there is nobody to ask.
    fn missing(&self) -> RepositoryError {
        RepositoryError::NoSecret {
            kind: self.kind,
            key: self.key.to_owned(),
            variable: self.kind.variable_of(self.name),
        }
    }
}

/// A passphrase or PIN, and where it came from. Never printed.
#[derive(Clone)]
pub(super) struct Secret {
    text: Zeroizing<String>,
    /// `file /run/secrets/root`, `TUFGATE_PASSPHRASE`, `the terminal`.
    pub(super) from: String,
    /// Whether a person typed it, and could type it again.
    pub(super) typed: bool,
}

impl Secret {
    pub(super) fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("from", &self.from).finish_non_exhaustive()
    }
}

/// Who can be asked for a secret: given the prompt, what was typed.
type Ask = fn(&str) -> std::io::Result<Zeroizing<String>>;

/// The sources of passphrases and PINs.
pub struct Secrets {
    files: BTreeMap<SecretKind, Vec<SecretFile>>,
    environment: fn(&str) -> Option<OsString>,
    /// `None` where there is nobody to ask.
    ask: Option<Ask>,
    /// What was typed and found right, by kind and key.
    remembered: Mutex<BTreeMap<(SecretKind, String), Secret>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("files", &self.files).finish_non_exhaustive()
    }
}

static OF_PROCESS: OnceLock<Secrets> = OnceLock::new();

impl Secrets {
    /// Files, the process's environment, and the terminal where standard input is one.
    pub fn new(passphrases: Vec<SecretFile>, pins: Vec<SecretFile>) -> Self {
        Self {
            files: BTreeMap::from([(SecretKind::Passphrase, passphrases), (SecretKind::Pin, pins)]),
            environment: |name| std::env::var_os(name),
            ask: std::io::stdin().is_terminal().then_some(ask_terminal),
            remembered: Mutex::default(),
        }
    }

    /// For a new passphrase in place of an old one: a file, or the terminal. The environment holds the old one.
    pub fn for_change(file: Option<SecretFile>) -> Self {
        Self { environment: |_| None, ..Self::new(file.into_iter().collect(), Vec::new()) }
    }

    /// Makes these the process's own, once, before a key is opened. One for the process, as the log is: keys are opened
    /// deep inside a publication, which has no use for passphrases, and who typed one is not to be asked again.
    pub fn install(self) {
        let _ = OF_PROCESS.set(self);
    }

    /// The process's own; without [`Secrets::install`] the environment and the terminal.
    pub fn of_process() -> &'static Self {
        OF_PROCESS.get_or_init(|| Self::new(Vec::new(), Vec::new()))
    }

    /// A variable of the environment that is no secret.
    #[cfg(feature = "pkcs11")]
    pub(super) fn variable(&self, name: &str) -> Option<OsString> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }

    /// The secret of a key that exists.
    pub(super) fn find(&self, wanted: &Wanted<'_>) -> Result<Secret, RepositoryError> {
        if let Some(secret) = self.lock().get(&(wanted.kind, wanted.name.to_owned())) {
            return Ok(secret.clone());
        }
        if let Some(secret) = self.given(wanted)? {
            return Ok(secret);
        }
        let ask = self.ask.ok_or_else(|| wanted.missing())?;
        typed(ask, &format!("{} of {}: ", capital(wanted.kind), wanted.key))
    }

    /// The secret of a key that is to be made: whoever types it types it twice.
    pub(super) fn choose(&self, wanted: &Wanted<'_>) -> Result<Secret, RepositoryError> {
        let chosen = match self.given(wanted)? {
            Some(secret) => secret,
            None => {
                let ask = self.ask.ok_or_else(|| wanted.missing())?;
                let first = typed(ask, &format!("New {} of {}: ", wanted.kind, wanted.key))?;
                if typed(ask, "The same again: ")?.text != first.text {
                    let why = "the two that were typed differ; run the command again";
                    return Err(RepositoryError::BadSecret { kind: wanted.kind, from: first.from, why });
                }
                first
            }
        };
        if chosen.text.is_empty() {
            let why = "it is empty; choose a long one";
            return Err(RepositoryError::BadSecret { kind: wanted.kind, from: chosen.from, why });
        }
        Ok(chosen)
    }

    /// Remembers what was typed, once it has proved right, so that nobody is asked twice.
    pub(super) fn remember(&self, wanted: &Wanted<'_>, secret: &Secret) {
        if secret.typed {
            self.lock().insert((wanted.kind, wanted.name.to_owned()), secret.clone());
        }
    }

    fn given(&self, wanted: &Wanted<'_>) -> Result<Option<Secret>, RepositoryError> {
        for key in [Some(wanted.name), None] {
            let mut files = self.files.get(&wanted.kind).into_iter().flatten();
            if let Some(file) = files.find(|file| file.key.as_deref() == key) {
                return from_file(wanted.kind, &file.path).map(Some);
            }
            let variable = match key {
                Some(name) => wanted.kind.variable_of(name),
                None => wanted.kind.variable().to_owned(),
            };
            if let Some(value) = (self.environment)(&variable).filter(|value| !value.is_empty()) {
                let text = value.into_string().map_err(|_| RepositoryError::BadSecret {
                    kind: wanted.kind,
                    from: variable.clone(),
                    why: "it is not UTF-8",
                })?;
                return Ok(Some(Secret { text: Zeroizing::new(text), from: variable, typed: false }));
            }
        }
        Ok(None)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(SecretKind, String), Secret>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first line of a private file, without its end.
pub(super) fn from_file(kind: SecretKind, path: &Path) -> Result<Secret, RepositoryError> {
    let from = format!("file {}", path.display());
    let bytes = private::read(path, &format!("{kind} file"), SECRET_FILE_MAX)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| RepositoryError::BadSecret {
        kind,
        from: from.clone(),
        why: "it is not UTF-8",
    })?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.contains('\n') {
        let why = "it has more than one line; give each secret a file of its own";
        return Err(RepositoryError::BadSecret { kind, from, why });
    }
    Ok(Secret { text: Zeroizing::new(line.to_owned()), from, typed: false })
}

fn typed(ask: Ask, prompt: &str) -> Result<Secret, RepositoryError> {
    let text = ask(prompt).map_err(RepositoryError::machine("read from the terminal"))?;
    Ok(Secret { text, from: "the terminal".to_owned(), typed: true })
}

fn ask_terminal(prompt: &str) -> std::io::Result<Zeroizing<String>> {
    rpassword::prompt_password(prompt).map(Zeroizing::new)
}

fn capital(kind: SecretKind) -> &'static str {
    match kind {
        SecretKind::Passphrase => "Passphrase",
        SecretKind::Pin => "PIN",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    /// Secrets out of these files alone.
    pub(crate) fn of_files(files: &[&str]) -> Secrets {
        let files = files.iter().map(|file| file.parse().unwrap()).collect();
        Secrets { environment: |_| None, ask: None, ..Secrets::new(files, Vec::new()) }
    }

    /// Secrets out of variables alone.
    pub(crate) fn of_environment(environment: fn(&str) -> Option<OsString>) -> Secrets {
        Secrets { environment, ask: None, ..Secrets::new(Vec::new(), Vec::new()) }
    }

    /// Secrets that somebody types.
    pub(crate) fn of_typist(ask: Ask) -> Secrets {
        Secrets { environment: |_| None, ask: Some(ask), ..Secrets::new(Vec::new(), Vec::new()) }
    }

    pub(crate) fn secret_file(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn passphrase_of(name: &str) -> Wanted<'_> {
        Wanted { kind: SecretKind::Passphrase, name, key: "the key" }
    }

    #[test]
    fn what_is_given_for_one_key_goes_before_what_is_given_for_all() {
        let folder = tempfile::tempdir().unwrap();
        let all = secret_file(folder.path(), "all", "for all\n");
        let one = secret_file(folder.path(), "one", "for root\r\n");
        let secrets = of_files(&[&all.display().to_string(), &format!("root={}", one.display())]);
        let found = |name| secrets.find(&passphrase_of(name)).unwrap().expose().to_owned();
        assert_eq!((found("root").as_str(), found("online").as_str()), ("for root", "for all"));
        let secrets = of_environment(|name| match name {
            "TUFGATE_PASSPHRASE_ROOT_2" => Some("for root-2".into()),
            "TUFGATE_PASSPHRASE" => Some("for all".into()),
            _ => None,
        });
        let found = |name| secrets.find(&passphrase_of(name)).unwrap().expose().to_owned();
        assert_eq!((found("root-2").as_str(), found("online").as_str()), ("for root-2", "for all"));
    }

    #[test]
    fn a_passphrase_file_that_others_may_read_is_refused_with_the_command_that_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = secret_file(folder.path(), "passphrase", "secret");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = of_files(&[&path.display().to_string()]).find(&passphrase_of("root")).unwrap_err();
        assert!(matches!(error, RepositoryError::LooseKey { .. }));
        let said = error.to_string();
        assert!(said.contains("passphrase file") && said.contains(&format!("chmod 600 {}", path.display())), "{said}");
    }

    #[test]
    fn without_a_passphrase_and_a_terminal_the_ways_to_give_one_are_named() {
        let error = of_files(&[]).find(&passphrase_of("root")).unwrap_err();
        assert!(matches!(error, RepositoryError::NoSecret { .. }));
        let said = error.to_string();
        for way in ["--passphrase-file", "TUFGATE_PASSPHRASE_ROOT", "terminal"] {
            assert!(said.contains(way), "{way}: {said}");
        }
    }

    #[test]
    fn a_file_of_two_lines_is_no_passphrase() {
        let folder = tempfile::tempdir().unwrap();
        let path = secret_file(folder.path(), "passphrases", "first\nsecond\n");
        let error = of_files(&[&path.display().to_string()]).find(&passphrase_of("root")).unwrap_err();
        assert!(matches!(error, RepositoryError::BadSecret { .. }));
        assert!(!error.to_string().contains("second"));
    }

    #[test]
    fn what_is_typed_is_asked_for_once_and_never_shown() {
        let secrets = of_typist(|_| Ok(Zeroizing::new("typed".to_owned())));
        let secret = secrets.find(&passphrase_of("root")).unwrap();
        secrets.remember(&passphrase_of("root"), &secret);
        let silent = Secrets { ask: None, ..secrets };
        assert_eq!(silent.find(&passphrase_of("root")).unwrap().expose(), "typed");
        assert!(matches!(silent.find(&passphrase_of("online")).unwrap_err(), RepositoryError::NoSecret { .. }));
        assert!(!format!("{secret:?} {silent:?}").contains("typed\""));
    }

    #[test]
    fn a_new_passphrase_that_is_empty_or_typed_differently_is_refused() {
        let empty = of_typist(|_| Ok(Zeroizing::default()));
        assert!(matches!(empty.choose(&passphrase_of("root")).unwrap_err(), RepositoryError::BadSecret { .. }));
        let unsure = of_typist(|prompt| Ok(Zeroizing::new(prompt.to_owned())));
        assert!(matches!(unsure.choose(&passphrase_of("root")).unwrap_err(), RepositoryError::BadSecret { .. }));
    }
}
