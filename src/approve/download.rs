//! Files brought here, hashed while they come, and judged by the digest that was locked.

use std::{
    fs::File,
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
};

use super::{ApproveError, Progress, candidates::Wanted, wheel};
use crate::{
    base::{Algorithm, ByteSize, ChunkDigests, ChunkHasher, Digest, Hasher},
    upstream::{Client, DocumentRequest, FileRequest, Origins, UpstreamError},
};

/// How often a transfer that breaks off is taken up again.
const RESUMPTIONS_MAX: usize = 5;
/// The largest file that is downloaded where no lock file says how long it is: an index can claim any length, and the
/// disk would be full before the digest is known to be wrong. Wheels of some GiB exist.
const FILE_MAX: ByteSize = ByteSize::gib(8);
/// The largest file from an index that does not say how long its files are; such a one is read into memory.
const UNSIZED_MAX: ByteSize = ByteSize::mib(512);
const UNSIZED_DEADLINE: std::time::Duration = std::time::Duration::from_secs(600);

/// A file that has the locked digest.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) length: u64,
    /// Its bytes; a file without a name, gone when dropped.
    pub(super) content: File,
    /// The digests of its chunks, where they are wanted and it is large enough to have some.
    pub(super) chunks: Option<ChunkDigests>,
    /// METADATA, where it is a wheel.
    pub(super) metadata: Option<Vec<u8>>,
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

/// Downloads a file into `folder` and checks it; `chunks` is hashed along, where chunks are wanted.
pub(super) async fn download(
    client: &Client,
    wanted: &Wanted,
    folder: &Path,
    chunks: Option<ChunkHasher>,
    progress: &dyn Progress,
) -> Result<Checked, ApproveError> {
    let filename = &wanted.file.filename;
    let temporary = |source| ApproveError::Temporary { filename: filename.clone(), source };
    let content = tempfile::tempfile_in(folder).map_err(temporary)?;
    let mut incoming = Incoming {
        content,
        hasher: Hasher::new([Algorithm::Sha256]),
        chunks: chunks.clone(),
        fresh: chunks,
        length: 0,
    };
    match wanted.size {
        Some(size) => stream(client, wanted, size, &mut incoming, progress).await?,
        None => whole(client, wanted, &mut incoming, progress).await?,
    }
    let Incoming { mut content, hasher, chunks, length, .. } = incoming;
    check_digest(wanted, hasher)?;
    let metadata = match filename.ends_with(".whl") {
        true => Some(
            wheel::metadata(&mut content, &wanted.project, &wanted.version)
                .map_err(|why| ApproveError::Wheel { filename: filename.clone(), why })?,
        ),
        false => None,
    };
    content.seek(SeekFrom::Start(0)).map_err(temporary)?;
    progress.checked(filename);
    // Too few of them, or too many: such a file has none.
    let chunks = chunks.and_then(|chunks| chunks.finish().ok());
    Ok(Checked { length, content, chunks, metadata })
}

struct Incoming {
    content: File,
    hasher: Hasher,
    chunks: Option<ChunkHasher>,
    /// What `chunks` begins anew with.
    fresh: Option<ChunkHasher>,
    length: u64,
}

impl Incoming {
    fn add(&mut self, bytes: &[u8], filename: &str) -> Result<(), ApproveError> {
        self.content
            .write_all(bytes)
            .map_err(|source| ApproveError::Temporary { filename: filename.to_owned(), source })?;
        self.hasher.update(bytes);
        if let Some(chunks) = &mut self.chunks {
            chunks.update(bytes);
        }
        self.length = self.length.saturating_add(bytes.len() as u64);
        Ok(())
    }

    fn restart(&mut self, filename: &str) -> Result<(), ApproveError> {
        self.hasher = Hasher::new([Algorithm::Sha256]);
        self.chunks.clone_from(&self.fresh);
        self.length = 0;
        let emptied = self.content.set_len(0).and_then(|()| self.content.seek(SeekFrom::Start(0)).map(drop));
        emptied.map_err(|source| ApproveError::Temporary { filename: filename.to_owned(), source })
    }
}

async fn stream(
    client: &Client,
    wanted: &Wanted,
    size: u64,
    incoming: &mut Incoming,
    progress: &dyn Progress,
) -> Result<(), ApproveError> {
    let mut etag: Option<String> = None;
    let mut resumptions = 0;
    loop {
        match attempt(client, wanted, size, incoming, &mut etag, progress).await {
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
    size: u64,
    incoming: &mut Incoming,
    etag: &mut Option<String>,
    progress: &dyn Progress,
) -> Result<(), ApproveError> {
    let filename = &wanted.file.filename;
    if incoming.length == size && size > 0 {
        return Ok(());
    }
    let allowed = Origins::of([&wanted.url]);
    let request =
        FileRequest { from: incoming.length, etag: etag.as_deref(), ..FileRequest::new(&wanted.url, &allowed, size) };
    let mut body = client.open(&request).await?;
    if body.starts_at != incoming.length {
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
    incoming: &mut Incoming,
    progress: &dyn Progress,
) -> Result<(), ApproveError> {
    let allowed = Origins::of([&wanted.url]);
    let request = DocumentRequest {
        limit: UNSIZED_MAX,
        deadline: UNSIZED_DEADLINE,
        ..DocumentRequest::new(&wanted.url, &allowed)
    };
    let document = client.document(&request).await?;
    progress.received(document.body.len() as u64);
    incoming.add(&document.body, &wanted.file.filename)
}

fn check_digest(wanted: &Wanted, hasher: Hasher) -> Result<(), ApproveError> {
    match hasher.finish().into_iter().next() {
        Some(found) if found == wanted.sha256 => Ok(()),
        found => Err(ApproveError::WrongBytes {
            filename: wanted.file.filename.clone(),
            found: found.unwrap_or_else(|| Digest::sha256(b"")),
            locked: wanted.sha256.clone(),
        }),
    }
}
