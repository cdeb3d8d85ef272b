//! Which index is asked: the one that is named, else the repository's own, else pip's: that of its environment, of its
//! configuration, or what the installed pip prints as its default.
//!
//! The one adapter to pip. It reads what pip's commands print and nothing of pip's insides, so that it holds for pips
//! of many years. No index is written into this program.

use std::{ffi::OsString, path::PathBuf, process::Stdio, time::Duration};

use tokio::{io::AsyncReadExt as _, process::Command, time};
use url::Url;

/// How long one question to pip may take; a first start on a cold disk takes seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The most that is read of an answer, in bytes.
const ANSWER_MAX: u64 = 1 << 20;
/// Wide enough that pip does not wrap a URL in its help text.
const COLUMNS: &str = "20000";
const OPTION: &str = "--index-url";

/// Where the index's URL came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Named by the caller.
    Flag,
    /// What the repository has approved from before.
    Recorded,
    /// `PIP_INDEX_URL`.
    Environment,
    /// pip's configuration files.
    Configuration,
    /// What the installed pip prints as its default.
    PipDefault,
}

impl Source {
    /// In words, for a sentence `index ... (from ...)`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flag => "the command line",
            Self::Recorded => "the repository's own record",
            Self::Environment => "PIP_INDEX_URL",
            Self::Configuration => "pip's configuration",
            Self::PipDefault => "the installed pip's default",
        }
    }
}

/// Why no index was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipConfigError {
    /// No pip that answers.
    #[error("found no pip that says which index to use ({why}); name it with --index-url")]
    NoPip {
        /// What went wrong with the last one that was tried.
        why: String,
    },
    /// What stands there is no URL of an index.
    #[error("`{text}` (from {origin}) is not an http, https or file URL of an index; name one with --index-url")]
    BadUrl {
        /// The text without what could be a password, cut.
        text: String,
        /// Where it was found.
        origin: &'static str,
    },
}

/// How pip is asked.
#[derive(Clone, Debug)]
pub struct Pip {
    /// Command lines that may be a pip, tried in turn.
    commands: Vec<Vec<OsString>>,
    /// The value of `PIP_INDEX_URL`.
    environment: Option<String>,
}

impl Pip {
    /// The pip of this environment: that of an active virtual environment, of `python3`, of `python`, or `pip` itself.
    pub fn from_environment() -> Self {
        let mut commands = Vec::new();
        if let Some(environment) = std::env::var_os("VIRTUAL_ENV") {
            let python = PathBuf::from(environment).join("bin/python");
            let python = std::path::absolute(&python).unwrap_or(python);
            commands.push(vec![python.into_os_string(), "-m".into(), "pip".into()]);
        }
        for python in ["python3", "python"] {
            commands.push([python, "-m", "pip"].map(OsString::from).to_vec());
        }
        for pip in ["pip3", "pip"] {
            commands.push(vec![pip.into()]);
        }
        Self { commands, environment: std::env::var("PIP_INDEX_URL").ok() }
    }

    /// A certain pip, without the variable of this process's environment.
    pub fn command(command: Vec<OsString>) -> Self {
        Self { commands: vec![command], environment: None }
    }

    /// The index to use: `flag` first, then the one that the repository has `recorded`, with the user that pip has for
    /// it, then the environment, then pip's configuration, then pip's default. The URL always ends in `/`.
    pub async fn index_url(&self, flag: Option<&str>, recorded: Option<&str>) -> Result<(Url, Source), PipConfigError> {
        if let Some(text) = flag {
            return Ok((index_url(text, Source::Flag)?, Source::Flag));
        }
        if let Some(text) = recorded {
            let recorded = index_url(text, Source::Recorded)?;
            let of_pip = self.configured().await.filter(|of_pip| without_user(of_pip) == recorded);
            return Ok((of_pip.unwrap_or(recorded), Source::Recorded));
        }
        if let Some(text) = self.in_environment() {
            return Ok((index_url(text, Source::Environment)?, Source::Environment));
        }
        let mut last = "none is installed".to_owned();
        for command in &self.commands {
            match ask_pip(command).await {
                Ok((text, source)) => return Ok((index_url(&text, source)?, source)),
                Err(why) => last = why,
            }
        }
        Err(PipConfigError::NoPip { why: last })
    }

    fn in_environment(&self) -> Option<&str> {
        self.environment.as_deref().map(str::trim).filter(|text| !text.is_empty())
    }

    /// The index that pip is configured with, if it is: its URL may have a user and a password.
    async fn configured(&self) -> Option<Url> {
        if let Some(text) = self.in_environment() {
            return index_url(text, Source::Environment).ok();
        }
        for command in &self.commands {
            if let Ok(listing) = answer(command, &["config", "list"], &[]).await {
                return index_url(&configured_index(&listing)?, Source::Configuration).ok();
            }
        }
        None
    }
}

fn without_user(url: &Url) -> Url {
    let mut url = url.clone();
    // Both fail only for URLs that cannot have a user.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

async fn ask_pip(command: &[OsString]) -> Result<(String, Source), String> {
    let configured = answer(command, &["config", "list"], &[]).await?;
    if let Some(url) = configured_index(&configured) {
        return Ok((url, Source::Configuration));
    }
    // With its configuration switched off, what the help text names is the default.
    let bare = [("PIP_CONFIG_FILE", "/dev/null"), ("COLUMNS", COLUMNS)];
    let help = answer(command, &["--isolated", "install", "--help"], &bare).await?;
    match default_index(&help) {
        Some(url) => Ok((url, Source::PipDefault)),
        None => Err("its help text names no default index".to_owned()),
    }
}

/// What pip prints on standard output; bounded in time and size.
async fn answer(command: &[OsString], arguments: &[&str], variables: &[(&str, &str)]) -> Result<String, String> {
    let (program, first) = command.split_first().ok_or("no command")?;
    let shown = program.to_string_lossy().into_owned();
    let mut child = Command::new(program)
        .args(first)
        .args(arguments)
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PIP_NO_INPUT", "1")
        .env("NO_COLOR", "1")
        // `python -m` looks for modules in the working folder first: never in one that a stranger may have filled.
        .current_dir("/")
        .envs(configuration_file())
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{shown}: {error}"))?;
    let stdout = child.stdout.take().ok_or("no output")?;
    let mut text = Vec::new();
    let ask = async {
        let mut stdout = stdout.take(ANSWER_MAX);
        stdout.read_to_end(&mut text).await?;
        drop(stdout);
        child.wait().await
    };
    let status = time::timeout(ANSWER_TIMEOUT, ask)
        .await
        .map_err(|_| format!("{shown} did not answer within {} s", ANSWER_TIMEOUT.as_secs()))?
        .map_err(|error| format!("{shown}: {error}"))?;
    if !status.success() {
        return Err(format!("{shown} answered with {status}"));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A relative `PIP_CONFIG_FILE` means this process's working folder, not the one that pip is started in.
fn configuration_file() -> Option<(&'static str, OsString)> {
    let name = "PIP_CONFIG_FILE";
    let path = std::path::absolute(std::env::var_os(name)?).ok()?;
    Some((name, path.into_os_string()))
}

/// `install.index-url` before `global.index-url`, as `pip install` has it. pip prints a line per key with the value in
/// effect, in Python's quotes.
fn configured_index(listing: &str) -> Option<String> {
    ["install.index-url", "global.index-url"].into_iter().find_map(|wanted| {
        listing
            .lines()
            .filter_map(|line| line.split_once('='))
            .filter(|(key, _)| key.trim().replace('_', "-") == wanted)
            .map(|(_, value)| unquote(value.trim()))
            .rfind(|value| !value.is_empty())
    })
}

fn unquote(value: &str) -> String {
    let inner = ['\'', '"'].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    inner.unwrap_or(value).to_owned()
}

/// The URL in `-i, --index-url <url>  Base URL of the Python Package Index (default URL).`
fn default_index(help: &str) -> Option<String> {
    let from = help.find(OPTION)?;
    let option = help.get(from..)?;
    // The option's own text ends where the next option's begins.
    let end = option.get(OPTION.len()..)?.find(" --").map_or(option.len(), |end| end + OPTION.len());
    let text = option.get(..end)?;
    let default = text.get(text.find("(default")? + "(default".len()..)?;
    let url = default.split(')').next()?.trim_start_matches(':').trim();
    (!url.is_empty() && !url.contains(char::is_whitespace)).then(|| url.to_owned())
}

fn index_url(text: &str, source: Source) -> Result<Url, PipConfigError> {
    let bad = |text: &str| PipConfigError::BadUrl { text: without_userinfo(text), origin: source.as_str() };
    let mut url = Url::parse(text.trim()).map_err(|_| bad(text))?;
    if !matches!(url.scheme(), "http" | "https" | "file") || url.cannot_be_a_base() {
        return Err(bad(text));
    }
    url.set_query(None);
    url.set_fragment(None);
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

/// Cut before the last `@`, so that no password is shown.
fn without_userinfo(text: &str) -> String {
    let tail = text.rsplit_once('@').map_or(text, |(_, tail)| tail);
    tail.chars().take(120).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    /// A stand-in for pip: a shell script.
    fn pip(folder: &tempfile::TempDir, script: &str) -> Vec<OsString> {
        let path = folder.path().join("pip");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        vec![path.into_os_string()]
    }

    const HELP: &str = r"  -i, --index-url <url>       Base URL of the Python Package Index (default https://index.example/simple). This should point to
                              a repository compliant with PEP 503.
  --extra-index-url <url>     Extra URLs (default https://extra.example/).";

    #[tokio::test]
    async fn the_flag_wins_then_the_environment_then_the_configuration_then_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "case \"$*\" in 'config list') echo \"global.index-url='https://conf.example/simple'\";; *) cat <<'X'\n{HELP}\nX\n;; esac"
        );
        let mut asked = Pip::command(pip(&folder, &script));
        asked.environment = Some("https://env.example/simple".to_owned());
        let (url, source) = asked.index_url(Some("https://flag.example/simple"), None).await.unwrap();
        assert_eq!((url.as_str(), source), ("https://flag.example/simple/", Source::Flag));
        let (url, source) = asked.index_url(None, None).await.unwrap();
        assert_eq!((url.as_str(), source), ("https://env.example/simple/", Source::Environment));
        asked.environment = None;
        let (url, source) = asked.index_url(None, None).await.unwrap();
        assert_eq!((url.as_str(), source), ("https://conf.example/simple/", Source::Configuration));
        let bare = format!("case \"$*\" in 'config list') ;; *) cat <<'X'\n{HELP}\nX\n;; esac");
        let (url, source) = Pip::command(pip(&folder, &bare)).index_url(None, None).await.unwrap();
        assert_eq!((url.as_str(), source), ("https://index.example/simple/", Source::PipDefault));
    }

    #[tokio::test]
    async fn the_repositorys_own_index_wins_over_pips_and_has_pips_password_where_pips_is_the_same() {
        let mut asked = Pip::command(vec!["/nonexistent/pip".into()]);
        let recorded = Some("https://index.example/simple/");
        for (of_pip, used) in [
            (None, "https://index.example/simple/"),
            (Some("https://u:p@index.example/simple"), "https://u:p@index.example/simple/"),
            (Some("https://u:p@index.example/other"), "https://index.example/simple/"),
            (Some("http://u:p@index.example/simple"), "https://index.example/simple/"),
            (Some("https://u:p@evil.example/simple"), "https://index.example/simple/"),
        ] {
            asked.environment = of_pip.map(str::to_owned);
            let (url, source) = asked.index_url(None, recorded).await.unwrap();
            assert_eq!((url.as_str(), source), (used, Source::Recorded), "{of_pip:?}");
        }
        let (url, source) = asked.index_url(Some("https://flag.example/"), recorded).await.unwrap();
        assert_eq!((url.as_str(), source), ("https://flag.example/", Source::Flag));
        let folder = tempfile::tempdir().unwrap();
        let asked = Pip::command(pip(&folder, "echo \"global.index-url='https://u:p@index.example/simple/'\""));
        let (url, _) = asked.index_url(None, recorded).await.unwrap();
        assert_eq!(url.as_str(), "https://u:p@index.example/simple/");
    }

    #[test]
    fn the_install_section_wins_over_the_global_one() {
        let listing =
            "global.cert='/x'\nglobal.index-url='https://a.example/'\ninstall.index-url='https://b.example/'\n";
        assert_eq!(configured_index(listing).unwrap(), "https://b.example/");
        assert_eq!(configured_index("global.extra-index-url='https://a.example/'\n"), None);
    }

    #[test]
    fn the_default_is_never_taken_from_another_option() {
        assert_eq!(default_index(HELP).unwrap(), "https://index.example/simple");
        let without =
            "  -i, --index-url <url>   Base URL.\n  --extra-index-url <url>  (default https://extra.example/)";
        assert_eq!(default_index(without), None);
        assert_eq!(default_index(""), None);
    }

    #[tokio::test]
    async fn without_pip_one_sentence_asks_for_the_flag() {
        let error = Pip::command(vec!["/nonexistent/pip".into()]).index_url(None, None).await.unwrap_err();
        assert!(matches!(error, PipConfigError::NoPip { .. }));
        assert!(error.to_string().ends_with("name it with --index-url"), "{error}");
    }

    #[tokio::test]
    async fn a_url_that_is_none_is_refused_without_its_password() {
        let asked = Pip::command(Vec::new());
        for text in ["ftp://u:secret@host/", "index", "data:x", ""] {
            let error = asked.index_url(Some(text), None).await.unwrap_err();
            assert!(matches!(error, PipConfigError::BadUrl { .. }), "{text}");
            assert!(!error.to_string().contains("secret"));
        }
    }
}
