//! Updates from a repository in a folder with tough and saves targets: `STATE ROOT METADATA TARGETS OUT [TARGET…]`.

use std::process::ExitCode;

use tough::{
    FilesystemTransport, IntoVec, RepositoryLoader, TargetName, Transport, TransportError, TransportStream, async_trait,
};
use tufgate_peers::{Outcome, Reading, exit};
use url::Url;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    exit(read().await)
}

async fn read() -> Outcome {
    let reading = Reading::from_arguments()?;
    let folder =
        |path: &std::path::Path| Url::from_directory_path(path.canonicalize()?).map_err(|()| "no folder URL".into());
    let (metadata, targets): (Outcome<Url>, Outcome<Url>) = (folder(&reading.metadata), folder(&reading.targets));
    let (metadata, targets) = (metadata?, targets?);
    let transport = SpecifiedLayout { targets: targets.clone() };
    let loader = RepositoryLoader::new(&reading.root, metadata, targets).transport(transport);
    let repository = loader.datastore(&reading.state).load().await?;
    for (index, name) in reading.wanted.iter().enumerate() {
        let found = repository.read_target(&TargetName::new(name)?).await?;
        let bytes = found.ok_or_else(|| format!("{name} is not a target"))?.into_vec().await?;
        reading.keep(index, &bytes)?;
    }
    Ok(())
}

/// tough asks for `DIGEST.folder/name` where TUF 1.0.34 §5.7.3 lays a consistent target down as `folder/DIGEST.name`.
#[derive(Clone, Debug)]
struct SpecifiedLayout {
    targets: Url,
}

#[async_trait]
impl Transport for SpecifiedLayout {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        FilesystemTransport.fetch(self.specified(&url).unwrap_or(url)).await
    }
}

impl SpecifiedLayout {
    fn specified(&self, url: &Url) -> Option<Url> {
        let path = url.as_str().strip_prefix(self.targets.as_str())?;
        let (digest, name) = path.split_once('.').filter(|(digest, _)| digest.len() == 64)?;
        let (folder, name) = name.rsplit_once('/')?;
        self.targets.join(&format!("{folder}/{digest}.{name}")).ok()
    }
}
