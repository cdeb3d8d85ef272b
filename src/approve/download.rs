//! Files brought here, hashed while they come, and judged by the digest that was locked or listed.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
};

use tempfile::NamedTempFile;
use url::Url;

use super::{
    ApproveError, Progress,
    candidates::{Place, Wanted},
    folder,
    kept::Kept,
    sdist::Needs,
    wheel,
};
use crate::{
    base::{Algorithm, ByteSize, ChunkDigests, ChunkHasher, Digest, Hasher},
    upstream::{Client, DocumentRequest, FileRequest, Origins, UpstreamError},
};

/// How often a transfer that breaks off is taken up again.
const RESUMPTIONS_MAX: usize = 5;
/// The largest file that is downloaded where no lock file says how long it is: an index can claim any length, and the
/// disk would be full before the digest is known to be wrong. Wheels of some GiB exist.
const FILE_MAX: ByteSize = ByteSize::gib(8);
/// Bytes that are read of a file at a time.
const BLOCK: usize = 256 << 10;
/// The largest file from an index that does not say how long its files are; such a one is read into memory.
const UNSIZED_MAX: ByteSize = ByteSize::mib(512);
const UNSIZED_DEADLINE: std::time::Duration = std::time::Duration::from_secs(600);

/// A file that has the digest it must have, and is kept under that.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) length: u64,
    pub(super) sha256: Digest,
    /// The digests of its chunks, where they are wanted and it is large enough to have some.
    pub(super) chunks: Option<ChunkDigests>,
    /// METADATA, where it is a wheel.
    pub(super) metadata: Option<Vec<u8>>,
    /// What it needs, where it is an sdist.
    pub(super) needs: Option<Needs>,
}

/// Refuses a file that is longer than the lock file says or, where none does, than [`FILE_MAX`].
pub(super) fn check_size(wanted: &Wanted) -> Result<(), ApproveError> {
    let limit = wanted.locked_size.map_or(FILE_MAX, ByteSize);
    match wanted.size {
        Some(found) if found > limit.bytes() => {
            Err(ApproveError::TooLarge { filename: wanted.file.filename.clone(), found, limit })
        }
        _ => Ok(()),
    }
}

/// Brings a file here and checks it: from where it was brought before, from its folder, or from the index. `chunks` is
/// hashed along, where chunks are wanted.
pub(super) async fn bring(
    client: &Client,
    wanted: &Wanted,
    kept: &Kept,
    chunks: Option<ChunkHasher>,
    progress: &dyn Progress,
) -> Result<Checked, ApproveError> {
    let filename = &wanted.file.filename;
    if let Some(checked) = find_again(wanted, kept, chunks.clone(), progress)? {
        return Ok(checked);
    }
    let temporary = |source| ApproveError::Temporary { filename: filename.clone(), source };
    let mut incoming = Incoming { content: kept.create().map_err(temporary)?, hashing: Hashing::new(chunks) };
    match (&wanted.place, wanted.size) {
        (Place::Folder(path), _) => drop(folder::read(path, |bytes| {
            progress.received(bytes.len() as u64);
            incoming.add(bytes, filename)
        })?),
        (Place::Index(url), Some(size)) => stream(client, wanted, (url, size), &mut incoming, progress).await?,
        (Place::Index(url), None) => whole(client, wanted, url, &mut incoming, progress).await?,
    }
    let Incoming { mut content, hashing } = incoming;
    let checked = hashing.finish(wanted, content.as_file_mut())?;
    kept.keep(content, &checked.sha256).map_err(temporary)?;
    progress.checked(filename);
    Ok(checked)
}

/// A file that an approval which was cut off has brought here. What is there under the digest and is not that file is
/// forgotten.
fn find_again(
    wanted: &Wanted,
    kept: &Kept,
    chunks: Option<ChunkHasher>,
    progress: &dyn Progress,
) -> Result<Option<Checked>, ApproveError> {
    let Some(sha256) = &wanted.sha256 else { return Ok(None) };
    let filename = &wanted.file.filename;
    let temporary = |source| ApproveError::Temporary { filename: filename.clone(), source };
    let Some(mut file) = kept.find(sha256).map_err(temporary)? else { return Ok(None) };
    let mut hashing = Hashing::new(chunks);
    let mut buffer = vec![0; BLOCK];
    loop {
        let read = file.read(&mut buffer).map_err(temporary)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        hashing.add(bytes);
        if hashing.length > wanted.size.unwrap_or(u64::MAX) {
            break;
        }
    }
    match hashing.finish(wanted, &mut file) {
        Ok(checked) => {
            progress.received(checked.length);
            progress.checked(filename);
            Ok(Some(checked))
        }
        Err(ApproveError::WrongBytes { .. }) => {
            kept.forget(sha256)?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What is computed of bytes while they come.
struct Hashing {
    hasher: Hasher,
    chunks: Option<ChunkHasher>,
    /// What `chunks` begins anew with.
    fresh: Option<ChunkHasher>,
    length: u64,
}

impl Hashing {
    fn new(chunks: Option<ChunkHasher>) -> Self {
        Self { hasher: Hasher::new([Algorithm::Sha256]), chunks: chunks.clone(), fresh: chunks, length: 0 }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        if let Some(chunks) = &mut self.chunks {
            chunks.update(bytes);
        }
        self.length = self.length.saturating_add(bytes.len() as u64);
    }

    /// Holds the digest against the one that is wanted, and takes METADATA out of `content`, which was hashed.
    fn finish(self, wanted: &Wanted, content: &mut File) -> Result<Checked, ApproveError> {
        let Wanted { project, version, file: listed, .. } = wanted;
        let found = self.hasher.finish().into_iter().next().unwrap_or_else(|| Digest::sha256(b""));
        if let Some(expected) = wanted.sha256.as_ref().filter(|expected| **expected != found) {
            return Err(ApproveError::WrongBytes {
                filename: listed.filename.clone(),
                found,
                words: wanted.digest_words(),
                expected: expected.clone(),
            });
        }
        let metadata = listed.filename.ends_with(".whl").then(|| wheel::metadata(&mut *content, project, version));
        let metadata =
            metadata.transpose().map_err(|why| ApproveError::Wheel { filename: listed.filename.clone(), why })?;
        let needs = metadata.is_none().then(|| Needs::of(&mut *content, &listed.filename, project, version));
        // Too few of them, or too many: such a file has none.
        let chunks = self.chunks.and_then(|chunks| chunks.finish().ok());
        Ok(Checked { length: self.length, sha256: found, chunks, metadata, needs })
    }
}

struct Incoming {
    content: NamedTempFile,
    hashing: Hashing,
}

impl Incoming {
    fn add(&mut self, bytes: &[u8], filename: &str) -> Result<(), ApproveError> {
        self.content
            .write_all(bytes)
            .map_err(|source| ApproveError::Temporary { filename: filename.to_owned(), source })?;
        self.hashing.add(bytes);
        Ok(())
    }

    fn restart(&mut self, filename: &str) -> Result<(), ApproveError> {
        self.hashing = Hashing::new(self.hashing.fresh.take());
        let file = self.content.as_file_mut();
        let emptied = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)).map(drop));
        emptied.map_err(|source| ApproveError::Temporary { filename: filename.to_owned(), source })
    }
}

async fn stream(
    client: &Client,
    wanted: &Wanted,
    (url, size): (&Url, u64),
    incoming: &mut Incoming,
    progress: &dyn Progress,
) -> Result<(), ApproveError> {
    let mut etag: Option<String> = None;
    let mut resumptions = 0;
    loop {
        match attempt(client, wanted, (url, size), incoming, &mut etag, progress).await {
            Err(ApproveError::Upstream(error)) if error.is_transient() && resumptions < RESUMPTIONS_MAX => {
                resumptions += 1;
                tracing::debug!(%error, filename = wanted.file.filename, "taken up again");
            }
            Err(ApproveError::Upstream(UpstreamError::WrongLength { actual, .. })) => {
                let filename = wanted.file.filename.clone();
                return Err(ApproveError::WrongLength { filename, found: actual, expected: size });
            }
            done => return done,
        }
    }
}

async fn attempt(
    client: &Client,
    wanted: &Wanted,
    (url, size): (&Url, u64),
    incoming: &mut Incoming,
    etag: &mut Option<String>,
    progress: &dyn Progress,
) -> Result<(), ApproveError> {
    let filename = &wanted.file.filename;
    if incoming.hashing.length == size && size > 0 {
        return Ok(());
    }
    let allowed = Origins::of([url]);
    let request =
        FileRequest { from: incoming.hashing.length, etag: etag.as_deref(), ..FileRequest::new(url, &allowed, size) };
    let mut body = client.open(&request).await?;
    if body.starts_at != incoming.hashing.length {
        incoming.restart(filename)?;
    }
    etag.clone_from(&body.etag);
    while let Some(bytes) = body.chunk().await? {
        incoming.add(&bytes, filename)?;
        progress.received(bytes.len() as u64);
    }
    Ok(())
}

async fn whole(
    client: &Client,
    wanted: &Wanted,
    url: &Url,
    incoming: &mut Incoming,
    progress: &dyn Progress,
) -> Result<(), ApproveError> {
    let allowed = Origins::of([url]);
    let request =
        DocumentRequest { limit: UNSIZED_MAX, deadline: UNSIZED_DEADLINE, ..DocumentRequest::new(url, &allowed) };
    let document = client.document(&request).await?;
    progress.received(document.body.len() as u64);
    incoming.add(&document.body, &wanted.file.filename)
}
