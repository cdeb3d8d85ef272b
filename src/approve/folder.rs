//! Files of a folder: which there are, which cannot be taken, and what they hash to.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{ApproveError, kept::open_regular};
use crate::{
    base::{Algorithm, ByteSize, Digest, Hasher, files::FileError},
    simple::name::shown,
};

/// The most files of a folder and what is below it.
const FILES_MAX: usize = 1_000_000;
/// How deep folders may lie in one another.
const DEPTH_MAX: usize = 32;
/// The largest file that is taken.
pub(super) const FILE_MAX: ByteSize = ByteSize::gib(8);
const BLOCK: usize = 256 << 10;

/// A regular file of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FolderFile {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its path below the folder, with `/` between segments.
    pub(super) relative: String,
    /// Its length in bytes when it was found.
    pub(super) length: u64,
}

impl FolderFile {
    /// The last segment.
    pub(super) fn filename(&self) -> &str {
        self.relative.rsplit('/').next().unwrap_or(&self.relative)
    }
}

/// What a folder has.
#[derive(Debug, Default)]
pub(super) struct Folder {
    /// Its files, by path.
    pub(super) files: Vec<FolderFile>,
    /// What cannot be taken, and why.
    pub(super) left_out: Vec<String>,
}

impl Folder {
    /// The bytes of all its files.
    pub(super) fn length(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.length))
    }
}

/// Walks a folder and what is below it. No link is followed but the folder's own path.
pub(super) fn walk(folder: &Path) -> Result<Folder, ApproveError> {
    let mut found = Folder::default();
    descend(folder, "", 0, &mut found)?;
    found.files.sort_by(|a, b| a.relative.cmp(&b.relative));
    found.left_out.sort();
    Ok(found)
}

fn descend(folder: &Path, prefix: &str, depth: usize, found: &mut Folder) -> Result<(), ApproveError> {
    let failed = || FileError::at("read", folder);
    for entry in fs::read_dir(folder).map_err(|error| ApproveError::Folder(failed()(error)))? {
        let entry = entry.map_err(|error| ApproveError::Folder(failed()(error)))?;
        let path = entry.path();
        let lossy = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let mut leave_out = |why: &str| found.left_out.push(format!("{}: {why}", shown(&lossy)));
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            leave_out("its name is not UTF-8");
            continue;
        };
        if name.chars().any(char::is_control) || name.contains('\\') {
            leave_out("its name has a control character or a backslash");
            continue;
        }
        if name.starts_with('.') {
            leave_out("it is hidden");
            continue;
        }
        let facts =
            path.symlink_metadata().map_err(|error| ApproveError::Folder(FileError::at("read", &path)(error)))?;
        let relative = format!("{prefix}{name}");
        if facts.is_dir() {
            if depth >= DEPTH_MAX {
                leave_out("it lies too deep");
                continue;
            }
            descend(&path, &format!("{relative}/"), depth + 1, found)?;
        } else if facts.is_symlink() {
            leave_out("it is a symbolic link");
        } else if !facts.is_file() {
            leave_out("it is no regular file");
        } else if facts.len() > FILE_MAX.bytes() {
            leave_out(&format!("it is larger than {FILE_MAX}"));
        } else if found.files.len() >= FILES_MAX {
            return Err(ApproveError::TooManyFiles { folder: folder.to_owned(), limit: FILES_MAX });
        } else {
            found.files.push(FolderFile { path, relative, length: facts.len() });
        }
    }
    Ok(())
}

/// The length and the SHA-256 of a file; `block` sees its bytes. A file that changes while it is read is refused.
pub(super) fn read(
    path: &Path,
    mut block: impl FnMut(&[u8]) -> Result<(), ApproveError>,
) -> Result<(u64, Digest), ApproveError> {
    let failed = |error: io::Error| ApproveError::Folder(FileError::at("read", path)(error));
    let mut file = open_regular(path).map_err(failed)?;
    let before = Facts::of(&file).map_err(failed)?;
    let mut hasher = Hasher::new([Algorithm::Sha256]);
    let mut buffer = vec![0; BLOCK];
    let mut length = 0_u64;
    loop {
        let read = file.read(&mut buffer).map_err(failed)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        length = length.saturating_add(bytes.len() as u64);
        if length > FILE_MAX.bytes() {
            break;
        }
        hasher.update(bytes);
        block(bytes)?;
    }
    if length != before.length || Facts::of(&file).map_err(failed)? != before {
        return Err(ApproveError::ChangedWhileRead { path: path.to_owned() });
    }
    let digest = hasher.finish().into_iter().next().unwrap_or_else(|| Digest::sha256(b""));
    Ok((length, digest))
}

/// What changes when a file is written.
#[derive(PartialEq, Eq)]
struct Facts {
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Facts {
    fn of(file: &File) -> io::Result<Self> {
        let facts = file.metadata()?;
        Ok(Self {
            length: facts.len(),
            modified: (facts.mtime(), facts.mtime_nsec()),
            changed: (facts.ctime(), facts.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        os::unix::{ffi::OsStrExt as _, fs::symlink, net::UnixListener},
    };

    use super::*;

    #[test]
    fn regular_files_are_found_and_what_cannot_be_taken_is_said() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("files");
        fs::create_dir_all(folder.join("below/deeper")).unwrap();
        fs::create_dir(folder.join(".git")).unwrap();
        fs::write(folder.join(".git/config"), b"secret").unwrap();
        fs::write(folder.join("below/deeper/a b"), b"1").unwrap();
        fs::write(folder.join("z"), b"2").unwrap();
        fs::write(home.path().join("outside"), b"3").unwrap();
        symlink(home.path().join("outside"), folder.join("link")).unwrap();
        symlink(home.path(), folder.join("folder-link")).unwrap();
        let _socket = UnixListener::bind(folder.join("socket")).unwrap();
        fs::write(folder.join(OsStr::from_bytes(b"\xff")), b"4").unwrap();
        fs::write(folder.join("escape\u{1b}[2J"), b"5").unwrap();
        File::create(folder.join("huge")).unwrap().set_len(FILE_MAX.bytes() + 1).unwrap();
        let found = walk(&folder).unwrap();
        let names: Vec<&str> = found.files.iter().map(|file| file.relative.as_str()).collect();
        assert_eq!(names, ["below/deeper/a b", "z"]);
        assert_eq!(found.files[0].filename(), "a b");
        let said = found.left_out.join("\n");
        for word in [
            ".git: it is hidden",
            "link: it is a symbolic link",
            "folder-link: it is a symbolic link",
            "socket: it is no regular file",
            "not UTF-8",
            "huge: it is larger than 8GiB",
            "escape?[2J: its name has a control character",
        ] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(!said.contains('\u{1b}'));
    }

    #[test]
    fn a_file_that_grows_is_cut_or_is_written_while_it_is_read_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        for change in [0_u64, 1 << 20, 7] {
            fs::write(&path, vec![1; 600 << 10]).unwrap();
            let mut done = false;
            let outcome = read(&path, |_| {
                if !std::mem::replace(&mut done, true) {
                    match change {
                        // The same length, other bytes.
                        7 => fs::write(&path, vec![2; 600 << 10]).unwrap(),
                        length => File::options().write(true).open(&path).unwrap().set_len(length).unwrap(),
                    }
                }
                Ok(())
            });
            assert!(matches!(outcome, Err(ApproveError::ChangedWhileRead { .. })), "{change}: {outcome:?}");
        }
        let (length, digest) = read(&path, |_| Ok(())).unwrap();
        assert_eq!((length, digest), (600 << 10, Digest::sha256(&vec![2; 600 << 10])));
    }
}
