//! Folders of a test: where they lie, what is in them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A fresh folder below the build's own folder for tests, or below `TUFGATE_TEST_DIR`; removed when dropped.
pub fn temporary() -> TempDir {
    let base = env::var_os("TUFGATE_TEST_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    tempfile::Builder::new().prefix("t").tempdir_in(base).unwrap()
}

/// Every regular file below `root`, in order; none if there is no such folder.
pub fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// Copies a folder whole.
pub fn copy(from: &Path, to: &Path) {
    for file in files_below(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, &target).unwrap();
    }
}

/// Asks until `found` answers, at most `limit`; the sentence says what never came.
pub fn eventually<T>(what: &str, limit: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(start.elapsed() < limit, "after {limit:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(15));
    }
}
