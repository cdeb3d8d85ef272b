//! Updates from a repository in a folder with sigstore-tuf and saves targets: `STATE ROOT METADATA TARGETS OUT [TARGET…]`.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
};

use jiff::Timestamp;
use sigstore_tuf::{
    Error,
    cache::FileStore,
    client::Updater,
    transport::{FetchFuture, Repository},
};
use tufgate_peers::{Outcome, Reading, exit};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    exit(read().await)
}

async fn read() -> Outcome {
    let reading = Reading::from_arguments()?;
    let folders = Folders { metadata: reading.metadata.clone(), targets: reading.targets.clone() };
    let mut updater = Updater::new(folders, &reading.root)?.with_store(FileStore::new(&reading.state));
    updater.refresh(Timestamp::now()).await?;
    for (index, name) in reading.wanted.iter().enumerate() {
        reading.keep(index, &updater.get_target(name, Timestamp::now()).await?)?;
    }
    Ok(())
}

struct Folders {
    metadata: PathBuf,
    targets: PathBuf,
}

impl Repository for Folders {
    fn fetch_metadata<'a>(&'a self, name: &'a str, max_length: u64) -> FetchFuture<'a> {
        let read = read_file(&self.metadata.join(name), max_length);
        Box::pin(async move { read })
    }

    fn fetch_target<'a>(&'a self, path: &'a str, max_length: u64) -> FetchFuture<'a> {
        let read = read_file(&self.targets.join(path), max_length);
        Box::pin(async move { read })
    }
}

fn read_file(path: &Path, max_length: u64) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) if bytes.len() as u64 <= max_length => Ok(Some(bytes)),
        Ok(_) => Err(Error::transport(format!("{} is longer than {max_length}", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path.display().to_string(), error)),
    }
}
