//! `tufgate fetch`.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{ConfigFile, Exit, Failure, block_on, offline::Offline};
use crate::{
    cache::Blob,
    config::Config,
    delivery::{self, Body, Want},
    server::{Mount, MountFront},
    trust::Authorisation,
    tuf::TargetPath,
};

/// Bytes read from a file at once.
const CHUNK: usize = 1 << 20;

/// Arguments of `tufgate fetch`.
#[derive(Debug, Args)]
pub struct Fetch {
    #[command(flatten)]
    config: ConfigFile,
    /// The mount's name
    mount: String,
    /// The target's path in the TUF repository
    target: String,
    /// Where to write it; left out, standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Fetch {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let config = Config::load(&self.config.config)?;
        block_on(self.fetch(&config))
    }

    async fn fetch(&self, config: &Config) -> Result<Exit, Failure> {
        let offline = Offline::open(config)?;
        let mount = offline.mount(&self.mount)?;
        let path = TargetPath::new(&self.target).map_err(|error| Failure::usage(error.to_string()))?;
        Offline::refresh(mount).await;
        let obtain = mount.obtain();
        let signed = obtain.trust.authorise(&self.target, &[path]).await;
        let signed = signed.map_err(|error| Failure::of(error.fault(), format!("{}: {error}", self.target)))?;
        let sources = sources(mount, &signed).await;
        let request = delivery::Request::of(&obtain.mount, &signed.info, sources, obtain.allowed.clone());
        let want = Want { range: delivery::Range::Other, ..Want::default() };
        let delivered = offline.parts().delivery().obtain(&request, want).await;
        match delivered.map_err(|error| Failure::of(error.fault(), error))?.body {
            Body::Verified(blob) => self.write(&blob).await?,
            Body::Early(_) => return Err(Failure::failed("the whole was asked for, and a beginning came")),
        }
        Ok(Exit::Ok)
    }

    /// The file appears whole or not at all.
    async fn write(&self, blob: &Blob) -> Result<(), Failure> {
        let Some(output) = &self.output else {
            return copy(blob, &mut std::io::stdout().lock()).await;
        };
        let cannot = |error: std::io::Error| Failure::failed(format!("cannot write {}: {error}", output.display()));
        let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Readable as any file the user makes: the umask is applied to this.
        let mode = std::fs::Permissions::from_mode(0o666);
        let made = tempfile::Builder::new().prefix(".tmp-").permissions(mode).tempfile_in(folder);
        let mut file = made.map_err(|error| cannot(error.kind().into()))?;
        copy(blob, &mut file).await?;
        let file = file.persist(output).map_err(|error| cannot(error.error))?;
        file.sync_all().map_err(cannot)
    }
}

async fn copy(blob: &Blob, to: &mut impl std::io::Write) -> Result<(), Failure> {
    let mut offset = 0;
    while offset < blob.len() {
        let bytes = blob.read(offset, CHUNK).await.map_err(|error| Failure::of(error.fault(), error))?;
        if bytes.is_empty() {
            return Err(Failure::failed("the file ended before its length"));
        }
        to.write_all(&bytes).map_err(|error| Failure::failed(format!("cannot write: {error}")))?;
        offset += bytes.len() as u64;
    }
    to.flush().map_err(|error| Failure::failed(format!("cannot write: {error}")))
}

/// Where the mount's files are. The path behind a file base is only known to pages: the index is asked for the link of
/// a pypi file.
async fn sources(mount: &Mount, signed: &Authorisation) -> Vec<url::Url> {
    match &mount.front {
        MountFront::Pypi(pypi) => pypi.sources_of_target(signed).await,
        MountFront::Tree(tree) => tree.sources_of_target(signed),
    }
}
