//! S3-compatible storage, through `object_store`: its signing, its XML and its keys; the connections are given.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use object_store::{
    BackoffConfig, CredentialProvider, Error as StoreError, GetOptions, MultipartUpload, ObjectStore,
    ObjectStoreExt as _, PutMode, PutOptions, PutPayload, RetryConfig, UpdateVersion,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential},
    client::HttpConnector,
    path::Path as Key,
};
use tokio::time::Instant;

use super::{BucketError, Object, Objects, Opened, Parts, Put, Settings, SettingsError, Tag, When};
use crate::base::{ByteSize, files, lock};

/// Largest file of a key.
const SECRET_MAX: ByteSize = ByteSize::kib(64);
/// How long keys out of files are used before the files are read again: what puts them there may change them.
const KEYS_FRESH: Duration = Duration::from_secs(60);
/// Longest account of what went wrong, in characters.
const WHY_MAX: usize = 300;

/// The variables of the environment that other S3 clients obey too, where the configuration names no key.
const VARIABLES: [(&str, AmazonS3ConfigKey); 8] = [
    ("AWS_ACCESS_KEY_ID", AmazonS3ConfigKey::AccessKeyId),
    ("AWS_SECRET_ACCESS_KEY", AmazonS3ConfigKey::SecretAccessKey),
    ("AWS_SESSION_TOKEN", AmazonS3ConfigKey::Token),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
];

/// Looks up a variable of the environment.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A bucket of an S3-compatible storage.
pub struct S3 {
    store: Arc<dyn ObjectStore>,
    prefix: String,
}

impl S3 {
    /// A bucket as configured. Reads the keys once; opens no connection.
    ///
    /// # Errors
    /// A setting that cannot be used, or a key that cannot be read.
    pub fn new(
        settings: &Settings,
        connector: impl HttpConnector,
        variables: Variables<'_>,
    ) -> Result<Self, SettingsError> {
        let location = settings.location()?;
        let backoff =
            BackoffConfig { init_backoff: Duration::from_millis(50), max_backoff: Duration::from_secs(1), base: 2.0 };
        let retries = usize::try_from(settings.retries).unwrap_or(usize::MAX);
        let retry = RetryConfig { backoff, max_retries: retries, retry_timeout: settings.answer_max.duration() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&location.bucket)
            .with_region(&settings.region)
            .with_virtual_hosted_style_request(settings.virtual_hosted)
            .with_allow_http(settings.allow_http)
            .with_retry(retry)
            .with_http_connector(connector);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
        }
        builder = match Keys::of(settings, variables)? {
            Some(keys) => builder.with_credentials(Arc::new(keys)),
            None => VARIABLES.iter().fold(builder, |builder, (name, key)| match variables(name) {
                Some(value) => builder.with_config(*key, value),
                None => builder,
            }),
        };
        let wrong = |error: StoreError| SettingsError { key: "url", why: shown(&error) };
        Ok(Self::over(Arc::new(builder.build().map_err(wrong)?), location.prefix))
    }

    /// Any storage that the crate knows.
    pub(super) fn over(store: Arc<dyn ObjectStore>, prefix: String) -> Self {
        Self { store, prefix }
    }

    fn key(&self, key: &str) -> Key {
        Key::from(format!("{}{key}", self.prefix))
    }
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3").field("store", &format_args!("{}", self.store)).field("prefix", &self.prefix).finish()
    }
}

impl Objects for S3 {
    fn open<'a>(&'a self, key: &'a str, unless: Option<&'a Tag>) -> BoxFuture<'a, Result<Opened, BucketError>> {
        async move {
            let options = GetOptions { if_none_match: unless.map(|tag| tag.0.clone()), ..GetOptions::default() };
            match self.store.get_opts(&self.key(key), options).await {
                Ok(found) => {
                    let (tag, length) = (found.meta.e_tag.clone().map(Tag), found.meta.size);
                    let body = found.into_stream().map(|chunk| chunk.map_err(of_store)).boxed();
                    Ok(Opened::Object(Object { tag, length, body }))
                }
                Err(StoreError::NotFound { .. }) => Ok(Opened::Absent),
                Err(StoreError::NotModified { .. }) => Ok(Opened::Unchanged),
                Err(error) => Err(of_store(error)),
            }
        }
        .boxed()
    }

    fn exists<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, BucketError>> {
        async move {
            match self.store.head(&self.key(key)).await {
                Ok(_) => Ok(true),
                Err(StoreError::NotFound { .. }) => Ok(false),
                Err(error) => Err(of_store(error)),
            }
        }
        .boxed()
    }

    fn put<'a>(&'a self, key: &'a str, bytes: Bytes, when: &'a When) -> BoxFuture<'a, Result<Put, BucketError>> {
        async move {
            let mode = match when {
                When::Absent => PutMode::Create,
                When::Still(tag) => PutMode::Update(UpdateVersion { e_tag: Some(tag.0.clone()), version: None }),
                When::Always => PutMode::Overwrite,
            };
            let options = PutOptions { mode, ..PutOptions::default() };
            match self.store.put_opts(&self.key(key), PutPayload::from(bytes), options).await {
                Ok(done) => Ok(Put::Done(done.e_tag.map(Tag))),
                Err(
                    StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } | StoreError::NotModified { .. },
                ) => Ok(Put::Lost),
                Err(error) => Err(of_store(error)),
            }
        }
        .boxed()
    }

    fn begin<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn Parts>, BucketError>> {
        async move {
            let upload = self.store.put_multipart(&self.key(key)).await.map_err(of_store)?;
            Ok(Box::new(S3Parts(upload)) as Box<dyn Parts>)
        }
        .boxed()
    }
}

struct S3Parts(Box<dyn MultipartUpload>);

impl Parts for S3Parts {
    fn part(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), BucketError>> {
        let part = self.0.put_part(PutPayload::from(bytes));
        async move { part.await.map_err(of_store) }.boxed()
    }

    fn finish(&mut self) -> BoxFuture<'_, Result<(), BucketError>> {
        async move { self.0.complete().await.map(drop).map_err(of_store) }.boxed()
    }

    fn abort(&mut self) -> BoxFuture<'_, Result<(), BucketError>> {
        async move { self.0.abort().await.map_err(of_store) }.boxed()
    }
}

fn of_store(error: StoreError) -> BucketError {
    let why = shown(&error);
    match error {
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => BucketError::Denied { why },
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } | StoreError::InvalidPath { .. } => {
            BucketError::Unusable { why }
        }
        _ => BucketError::Unavailable { why },
    }
}

/// One line, no longer than it helps.
fn shown(error: &StoreError) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    error.to_string().chars().map(printable).take(WHY_MAX).collect()
}

/// Keys that the configuration names.
struct Keys {
    id: Secret,
    secret: Secret,
    token: Option<Secret>,
    fresh: Mutex<(Instant, Arc<AwsCredential>)>,
    fresh_for: Duration,
}

/// Where one of them is.
enum Secret {
    File(&'static str, PathBuf),
    /// As the environment had it; that does not change.
    Known(String),
}

impl Keys {
    fn of(settings: &Settings, variables: Variables<'_>) -> Result<Option<Self>, SettingsError> {
        let id = secret(
            "access_key_id_file",
            "access_key_id_env",
            &settings.access_key_id_file,
            &settings.access_key_id_env,
            variables,
        )?;
        let secret_key = secret(
            "secret_access_key_file",
            "secret_access_key_env",
            &settings.secret_access_key_file,
            &settings.secret_access_key_env,
            variables,
        )?;
        let token = secret(
            "session_token_file",
            "session_token_env",
            &settings.session_token_file,
            &settings.session_token_env,
            variables,
        )?;
        let (Some(id), Some(secret)) = (id, secret_key) else { return Ok(None) };
        let first = read(&id, &secret, token.as_ref())?;
        Ok(Some(Self {
            id,
            secret,
            token,
            fresh: Mutex::new((Instant::now(), Arc::new(first))),
            fresh_for: KEYS_FRESH,
        }))
    }
}

fn read(id: &Secret, secret: &Secret, token: Option<&Secret>) -> Result<AwsCredential, SettingsError> {
    Ok(AwsCredential { key_id: id.read()?, secret_key: secret.read()?, token: token.map(Secret::read).transpose()? })
}

fn secret(
    file_key: &'static str,
    variable_key: &'static str,
    file: &Option<PathBuf>,
    variable: &Option<String>,
    variables: Variables<'_>,
) -> Result<Option<Secret>, SettingsError> {
    match (file, variable) {
        (Some(path), _) => Ok(Some(Secret::File(file_key, path.clone()))),
        (None, Some(name)) => match variables(name) {
            Some(value) => Ok(Some(Secret::Known(value))),
            None => {
                Err(SettingsError { key: variable_key, why: format!("the environment variable {name} is not set") })
            }
        },
        (None, None) => Ok(None),
    }
}

impl Secret {
    fn read(&self) -> Result<String, SettingsError> {
        match self {
            Self::Known(value) => Ok(value.clone()),
            Self::File(key, path) => read_file(key, path),
        }
    }
}

fn read_file(key: &'static str, path: &Path) -> Result<String, SettingsError> {
    let bytes = files::read_named(path, SECRET_MAX).map_err(|error| SettingsError { key, why: error.to_string() })?;
    let text =
        String::from_utf8(bytes).map_err(|_| SettingsError { key, why: format!("{} is not UTF-8", path.display()) })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

#[async_trait]
impl CredentialProvider for Keys {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut fresh = lock(&self.fresh);
        if fresh.0.elapsed() > self.fresh_for {
            match read(&self.id, &self.secret, self.token.as_ref()) {
                Ok(keys) => fresh.1 = Arc::new(keys),
                // What is being replaced may be away for a moment.
                Err(error) => {
                    tracing::warn!(%error, "the bucket's keys cannot be read again; those of before are used")
                }
            }
            fresh.0 = Instant::now();
        }
        Ok(Arc::clone(&fresh.1))
    }
}

#[cfg(test)]
mod tests {
    use object_store::client::{ClientOptions, HttpClient};

    use super::*;

    #[derive(Debug)]
    struct Nowhere;

    impl HttpConnector for Nowhere {
        fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
            Err(StoreError::NotImplemented { operation: "connect".to_owned(), implementer: "nowhere".to_owned() })
        }
    }

    fn settings(keys: &str) -> Settings {
        toml::from_str(&format!("url = 's3://b/p'\n{keys}")).unwrap()
    }

    #[test]
    fn a_key_that_is_not_there_is_an_error_that_names_what_was_configured() {
        let none = |_: &str| None;
        let of = |text: &str| Keys::of(&settings(text), &none).err().unwrap();
        let error = of("access_key_id_env = 'NO_ID'\nsecret_access_key_env = 'NO_SECRET'\n");
        assert!(error.key == "access_key_id_env" && error.why.contains("NO_ID"), "{error}");
        let error = of("access_key_id_file = 'nowhere/id'\nsecret_access_key_file = 'nowhere/secret'\n");
        assert!(error.key == "access_key_id_file" && error.why.contains("nowhere/id"), "{error}");
        let error = S3::new(&settings(""), Nowhere, &none).unwrap_err();
        assert!(error.why.contains("nowhere"), "{error}");
    }

    #[tokio::test]
    async fn keys_out_of_files_are_followed_when_they_change_and_kept_while_they_are_away() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| {
            std::fs::write(folder.path().join("id"), format!("{text}\n")).unwrap();
            std::fs::write(folder.path().join("secret"), "s").unwrap();
        };
        write("first");
        let mut settings = settings("access_key_id_file = 'id'\nsecret_access_key_file = 'secret'\n");
        settings.files().for_each(|path| *path = folder.path().join(&*path));
        let mut keys = Keys::of(&settings, &|_| None).unwrap().unwrap();
        write("second");
        assert_eq!(keys.get_credential().await.unwrap().key_id, "first");
        keys.fresh_for = Duration::ZERO;
        assert_eq!(keys.get_credential().await.unwrap().key_id, "second");
        std::fs::remove_file(folder.path().join("id")).unwrap();
        assert_eq!(keys.get_credential().await.unwrap().key_id, "second");
        assert!(!format!("{keys:?}").contains("second"));
    }
}
