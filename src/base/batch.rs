//! Many files that are made durable at once: one wait for the disk in place of one for each.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::files::{FileError, Mode, sync_folder};

/// From so many files on, the whole file system is synced rather than one file after the other, where that can be asked
/// for: it waits for the writes of others too.
const WHOLE_FROM: usize = 32;

/// Writes a file that must not exist yet; what it takes to be durable is left to [`sync`]. For folders that nobody reads
/// before they are whole.
pub fn write(path: &Path, bytes: &[u8], mode: Mode) -> Result<(), FileError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode.bits()).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let mut file = options.open(path).map_err(FileError::at("write", path))?;
    // The mode given at creation is subject to the umask.
    let set_mode = |file: &File| match mode {
        Mode::Private => Ok(()),
        Mode::Public => file.set_permissions(fs::Permissions::from_mode(mode.bits())),
    };
    file.write_all(bytes).and_then(|()| set_mode(&file)).map_err(FileError::at("write", path))
}

/// Makes these files, all of the file system of `folder`, and the names in `folder` durable.
pub fn sync(folder: &Path, files: &[PathBuf]) -> Result<(), FileError> {
    if files.len() < WHOLE_FROM || !sync_whole(folder)? {
        for path in files {
            let opened = OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path);
            opened.and_then(|file| file.sync_all()).map_err(FileError::at("sync", path))?;
        }
    }
    sync_folder(folder)
}

/// Syncs the file system that `folder` is on; whether that could be asked for.
#[cfg(target_os = "linux")]
fn sync_whole(folder: &Path) -> Result<bool, FileError> {
    let opened = File::open(folder).map_err(FileError::at("sync", folder))?;
    // Since Linux 5.8 it reports what could not be written, as fsync does.
    rustix::fs::syncfs(&opened).map_err(|error| FileError::at("sync", folder)(error.into()))?;
    Ok(true)
}

#[cfg(not(target_os = "linux"))]
fn sync_whole(_folder: &Path) -> Result<bool, FileError> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn few_files_and_many_are_written_with_their_modes_and_synced() {
        for count in [1, WHOLE_FROM] {
            let folder = tempfile::tempdir().unwrap();
            let paths: Vec<PathBuf> = (0..count).map(|number| folder.path().join(number.to_string())).collect();
            for path in &paths {
                write(path, b"bytes", Mode::Public).unwrap();
            }
            sync(folder.path(), &paths).unwrap();
            assert!(paths.iter().all(|path| fs::metadata(path).unwrap().mode() & 0o777 == 0o644));
            assert_eq!(fs::read(&paths[count - 1]).unwrap(), b"bytes");
        }
    }

    #[test]
    fn nothing_that_is_there_is_replaced_or_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (victim, link) = (folder.path().join("victim"), folder.path().join("link"));
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(write(&link, b"x", Mode::Private).is_err());
        fs::write(&victim, b"untouched").unwrap();
        assert!(write(&victim, b"x", Mode::Private).is_err());
        assert_eq!(fs::read(&victim).unwrap(), b"untouched");
    }

    #[test]
    fn a_file_that_is_gone_is_no_synced_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(sync(folder.path(), &[folder.path().join("gone")]).is_err());
    }
}
