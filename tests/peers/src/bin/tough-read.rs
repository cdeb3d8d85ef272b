//! Updates from a repository in a folder with tough and saves targets: `STATE ROOT METADATA TARGETS OUT [TARGET…]`.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
};

use futures::stream;
use tough::{
    Bytes, IntoVec, RepositoryLoader, TargetName, Transport, TransportError, TransportErrorKind, TransportStream,
    async_trait,
};
use tufgate_peers::{Outcome, Reading, exit};
use url::Url;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    exit(read().await)
}

async fn read() -> Outcome {
    let reading = Reading::from_arguments()?;
    let transport = Folders { metadata: reading.metadata.clone(), targets: reading.targets.clone() };
    let (metadata, targets) = (Url::parse("folder:/metadata/")?, Url::parse("folder:/targets/")?);
    let loader = RepositoryLoader::new(&reading.root, metadata, targets).transport(transport);
    let repository = loader.datastore(&reading.state).load().await?;
    for (index, name) in reading.wanted.iter().enumerate() {
        let found = repository.read_target(&TargetName::new(name)?).await?;
        let bytes = found.ok_or_else(|| format!("{name} is not a target"))?.into_vec().await?;
        reading.keep(index, &bytes)?;
    }
    Ok(())
}

/// Files of two folders. tough's own transport takes the path of a `file:` URL as it stands, so that a folder with a space
/// in its name is not found.
#[derive(Clone, Debug)]
struct Folders {
    metadata: PathBuf,
    targets: PathBuf,
}

#[async_trait]
impl Transport for Folders {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let bytes = fs::read(self.place(&url)?).map_err(|error| {
            let kind = match error.kind() {
                ErrorKind::NotFound => TransportErrorKind::FileNotFound,
                _ => TransportErrorKind::Other,
            };
            TransportError::new_with_cause(kind, &url, error)
        })?;
        Ok(Box::pin(stream::iter([Ok(Bytes::from(bytes))])))
    }
}

impl Folders {
    fn place(&self, url: &Url) -> Result<PathBuf, TransportError> {
        let path = url.path();
        match (path.strip_prefix("/metadata/"), path.strip_prefix("/targets/")) {
            (Some(name), _) => Ok(self.metadata.join(name)),
            (_, Some(name)) => Ok(specified(&self.targets, name)),
            _ => Err(TransportError::new(TransportErrorKind::UnsupportedUrlScheme, url)),
        }
    }
}

/// tough asks for `DIGEST.folder/name` where TUF 1.0.34 §5.7.3 lays a consistent target down as `folder/DIGEST.name`.
fn specified(targets: &Path, asked: &str) -> PathBuf {
    let moved = || {
        let (digest, path) = asked.split_once('.').filter(|(digest, _)| digest.len() == 64)?;
        let (folder, name) = path.rsplit_once('/')?;
        Some(targets.join(folder).join(format!("{digest}.{name}")))
    };
    moved().unwrap_or_else(|| targets.join(asked))
}
