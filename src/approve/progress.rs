//! What a person may want to see while an approval runs.

/// Is told how an approval goes on. All methods do nothing unless implemented.
pub trait Progress: Send + Sync {
    /// So many projects will be looked up in the index.
    fn looking_up(&self, _projects: usize) {}
    /// A project was looked up.
    fn looked_up(&self, _project: &str) {}
    /// So many files of a folder will be read, of so many bytes.
    fn reading(&self, _files: usize, _bytes: u64) {}
    /// So many files will be downloaded, of so many bytes where the index says it.
    fn downloading(&self, _files: usize, _bytes: u64) {}
    /// So many more bytes came, or were read.
    fn received(&self, _bytes: u64) {}
    /// A file came whole and has the digest it must have.
    fn checked(&self, _filename: &str) {}
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}
