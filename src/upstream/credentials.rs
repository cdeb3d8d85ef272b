//! Secrets, and where they may go.

use std::{fmt, path::Path};

use http::HeaderValue;
use url::{Host, Url};

use super::{CredentialSettings, Environment, Settings, UpstreamError};
use crate::base::{ByteSize, files};

/// Largest file of a secret.
const SECRET_MAX: ByteSize = ByteSize::kib(64);

/// All secrets of the configuration, read once.
pub(super) struct Credentials(Vec<Credential>);

struct Credential {
    scope: Url,
    authorization: HeaderValue,
}

impl Credentials {
    pub(super) fn read(settings: &Settings, environment: &Environment) -> Result<Self, UpstreamError> {
        settings.credentials.iter().map(|credential| read(credential, environment)).collect::<Result<_, _>>().map(Self)
    }

    /// The `Authorization` for a URL: that of the longest scope it lies in, judged anew at every hop of a redirect.
    pub(super) fn authorization(&self, url: &Url) -> Option<HeaderValue> {
        let matching = self.0.iter().filter(|credential| is_within(&credential.scope, url));
        matching.max_by_key(|credential| credential.scope.path().len()).map(|found| found.authorization.clone())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|credential| credential.scope.as_str())).finish()
    }
}

/// `Basic` authentication from the user and password that a URL carries.
pub(super) fn of_userinfo(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    basic(&decode(url.username()), &decode(url.password().unwrap_or_default()))
}

fn read(settings: &CredentialSettings, environment: &Environment) -> Result<Credential, UpstreamError> {
    let wrong = |why: &str| UpstreamError::Setting {
        key: "credentials",
        why: format!("{}: {why}", super::ShownUrl::from(&settings.url)),
    };
    let plain = settings.url.scheme() == "http" && !is_loopback(&settings.url);
    if plain || !matches!(settings.url.scheme(), "http" | "https") {
        return Err(wrong("a secret is sent over https only, or to this machine"));
    }
    let password = secret("password_file", settings.password_file.as_deref(), settings.password_env.as_deref());
    let token = secret("token_file", settings.token_file.as_deref(), settings.token_env.as_deref());
    let authorization = match (&settings.username, password, token) {
        (Some(username), Some(password), None) => basic(username, &password.read(environment)?),
        (None, None, Some(token)) => HeaderValue::from_str(&format!("Bearer {}", token.read(environment)?)).ok(),
        _ => {
            return Err(wrong(
                "give `username` with one of `password_file` and `password_env`, or one of `token_file` and `token_env`",
            ));
        }
    };
    let mut authorization = authorization.ok_or_else(|| wrong("the secret has characters that no header may carry"))?;
    authorization.set_sensitive(true);
    Ok(Credential { scope: settings.url.clone(), authorization })
}

enum Secret<'a> {
    File(&'static str, &'a Path),
    Variable(&'a str),
    Both(&'static str),
}

fn secret<'a>(key: &'static str, file: Option<&'a Path>, variable: Option<&'a str>) -> Option<Secret<'a>> {
    match (file, variable) {
        (Some(path), None) => Some(Secret::File(key, path)),
        (None, Some(name)) => Some(Secret::Variable(name)),
        (Some(_), Some(_)) => Some(Secret::Both(key)),
        (None, None) => None,
    }
}

impl Secret<'_> {
    fn read(&self, environment: &Environment) -> Result<String, UpstreamError> {
        match *self {
            Self::File(key, path) => {
                let wrong = |why: String| UpstreamError::SettingFile { key, path: path.to_owned(), why };
                let bytes = files::read_named(path, SECRET_MAX).map_err(|error| wrong(error.source.to_string()))?;
                let text = String::from_utf8(bytes).map_err(|_| wrong("not UTF-8".to_owned()))?;
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            Self::Variable(name) => environment.get(name).map(str::to_owned).ok_or_else(|| UpstreamError::Setting {
                key: "credentials",
                why: format!("the environment variable {name} is not set"),
            }),
            Self::Both(key) => {
                Err(UpstreamError::Setting { key, why: "a file and an environment variable are both given".to_owned() })
            }
        }
    }
}

fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    use base64ct::{Base64 as Alphabet, Encoding as _};
    if username.contains(':') {
        return None;
    }
    let encoded = Alphabet::encode_string(format!("{username}:{password}").as_bytes());
    let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn is_within(scope: &Url, url: &Url) -> bool {
    if scope.origin() != url.origin() {
        return false;
    }
    let prefix: Vec<&str> = scope.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let segments: Vec<&str> = url.path().split('/').skip(1).collect();
    // A server that decodes `..%2F` would leave the prefix; such a URL gets no secret.
    segments.starts_with(&prefix) && !segments.iter().any(|segment| climbs(segment))
}

fn climbs(segment: &str) -> bool {
    let decoded = percent_encoding::percent_decode_str(segment).decode_utf8_lossy();
    decoded.contains(['/', '\\']) || decoded == ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(url: &str) -> CredentialSettings {
        CredentialSettings {
            url: Url::parse(url).unwrap(),
            username: None,
            password_file: None,
            password_env: None,
            token_file: None,
            token_env: Some("TOKEN".to_owned()),
        }
    }

    fn credentials(all: Vec<CredentialSettings>) -> Result<Credentials, UpstreamError> {
        let settings = Settings { credentials: all, ..Settings::default() };
        Credentials::read(&settings, &Environment::new([("TOKEN", "t0k"), ("PASSWORD", "pass")]))
    }

    #[test]
    fn a_secret_goes_to_its_origin_and_path_by_whole_segments_only() {
        let found = credentials(vec![token("https://h.example/private/")]).unwrap();
        let sent = |url: &str| found.authorization(&Url::parse(url).unwrap()).is_some();
        assert!(sent("https://h.example/private/x") && sent("https://h.example/private"));
        for elsewhere in [
            "https://h.example/private2/x",
            "https://h.example/",
            "https://h.example/private/../x",
            "https://h.example/private/..%2Fx",
            "https://h.example/private/%2e%2e/x",
            "http://h.example/private/x",
            "https://h.example:8443/private/x",
            "https://h.example.evil/private/x",
        ] {
            assert!(!sent(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn basic_authentication_is_spelled_as_the_standard_says() {
        let settings = CredentialSettings {
            username: Some("user".to_owned()),
            password_env: Some("PASSWORD".to_owned()),
            token_env: None,
            ..token("http://127.0.0.1:8080/")
        };
        let found = credentials(vec![settings]).unwrap();
        let value = found.authorization(&Url::parse("http://127.0.0.1:8080/x").unwrap()).unwrap();
        assert_eq!(value.to_str().unwrap(), "Basic dXNlcjpwYXNz");
        assert!(value.is_sensitive());
    }

    #[test]
    fn a_secret_for_plain_http_elsewhere_or_without_a_source_is_a_configuration_error() {
        assert!(credentials(vec![token("http://h.example/")]).is_err());
        let unset = CredentialSettings { token_env: Some("OTHER".to_owned()), ..token("https://h.example/") };
        assert!(credentials(vec![unset]).unwrap_err().to_string().contains("OTHER"));
        assert!(credentials(vec![CredentialSettings { token_env: None, ..token("https://h.example/") }]).is_err());
    }
}
