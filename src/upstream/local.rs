//! `file:` URLs: a repository that lies on this machine.

use std::{io, path::PathBuf};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
};
use url::Url;

use super::{Document, DocumentRequest, FileRequest, Origins, UpstreamError};
use crate::base::files::{self, FileError};

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

/// Reads a document from the file system.
pub(super) async fn document(request: &DocumentRequest<'_>) -> Result<Document, UpstreamError> {
    let path = path_of(request.url, request.allowed)?;
    let limit = request.limit;
    let reading = tokio::task::spawn_blocking(move || files::read_named(&path, limit));
    let bytes = match reading.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) if error.source.kind() == io::ErrorKind::FileTooLarge => {
            return Err(UpstreamError::TooLarge { url: request.url.into(), limit });
        }
        Ok(Err(error)) => return Err(of_file(request.url, error)),
        Err(error) => return Err(UpstreamError::Transfer { url: request.url.into(), why: error.to_string() }),
    };
    let url = request.url.clone();
    Ok(Document { status: StatusCode::OK, headers: HeaderMap::new(), body: bytes.into(), url })
}

/// A file that is being read.
pub(super) struct LocalFile {
    file: File,
    path: PathBuf,
}

impl LocalFile {
    pub(super) async fn open(request: &FileRequest<'_>) -> Result<Self, UpstreamError> {
        let path = path_of(request.url, request.allowed)?;
        let fail = |source| of_file(request.url, FileError { action: "read", path: path.clone(), source });
        // Opening a named pipe would wait for ever: look first. A race here can only hurt who made it.
        let found = tokio::fs::metadata(&path).await.map_err(fail)?;
        if !found.is_file() {
            return Err(fail(io::Error::other("not a regular file")));
        }
        if found.len() != request.expected_len {
            return Err(UpstreamError::WrongLength {
                url: request.url.into(),
                expected: request.expected_len,
                actual: found.len(),
            });
        }
        let mut file = File::open(&path).await.map_err(fail)?;
        file.seek(io::SeekFrom::Start(request.from)).await.map_err(fail)?;
        Ok(Self { file, path })
    }

    pub(super) async fn chunk(&mut self, url: &Url) -> Result<Option<Bytes>, UpstreamError> {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        let read = self.file.read_buf(&mut buffer).await;
        let read =
            read.map_err(|source| of_file(url, FileError { action: "read", path: self.path.clone(), source }))?;
        Ok((read > 0).then(|| buffer.freeze()))
    }
}

fn path_of(url: &Url, allowed: &Origins) -> Result<PathBuf, UpstreamError> {
    let not_allowed = || UpstreamError::NotAllowed { url: url.into(), allowed: allowed.to_string() };
    if !allowed.allow(url) {
        return Err(not_allowed());
    }
    url.to_file_path().map_err(|()| not_allowed())
}

fn of_file(url: &Url, error: FileError) -> UpstreamError {
    match error.source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            UpstreamError::NotFound { url: url.into(), status: StatusCode::NOT_FOUND }
        }
        _ => UpstreamError::File(error),
    }
}
