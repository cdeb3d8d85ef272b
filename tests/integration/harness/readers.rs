//! Other clients of TUF, each with trusted metadata of its own that is kept from one reading to the next.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

#[cfg(feature = "system-tests")]
use super::peers;
use super::{folder, python::Python, upstream::Upstream};

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// python-tuf's ngclient, over HTTP.
    PythonTuf,
    /// tuf-js, over HTTP.
    #[cfg(feature = "system-tests")]
    TufJs,
    /// tough, from files. It knows no succinct roles.
    #[cfg(feature = "system-tests")]
    Tough,
    /// sigstore-tuf, from files. It knows no succinct roles.
    #[cfg(feature = "system-tests")]
    SigstoreTuf,
}

/// A repository that readers read: in folders, and served by an upstream of its own.
#[derive(Debug)]
pub struct Published {
    anchor: PathBuf,
    /// Metadata and targets, for those who read files.
    #[cfg(feature = "system-tests")]
    folders: [PathBuf; 2],
    upstream: Upstream,
    states: TempDir,
}

impl Published {
    /// A repository in TUF's own layout.
    pub fn new(anchor: PathBuf, metadata: PathBuf, targets: PathBuf) -> Self {
        let upstream = Upstream::start();
        upstream.serve_folder("/metadata/", metadata.clone());
        upstream.serve_folder("/targets/", targets.clone());
        Self {
            anchor,
            #[cfg(feature = "system-tests")]
            folders: [metadata, targets],
            upstream,
            states: folder::temporary(),
        }
    }
}

impl Reader {
    /// All that can be had in this run.
    pub const ALL: &[Self] = &[
        Self::PythonTuf,
        #[cfg(feature = "system-tests")]
        Self::TufJs,
        #[cfg(feature = "system-tests")]
        Self::Tough,
        #[cfg(feature = "system-tests")]
        Self::SigstoreTuf,
    ];

    /// Updates from the repository and downloads targets, in order; what the client says where it refuses.
    pub fn read(self, from: &Published, wanted: &[&str]) -> Result<Vec<Vec<u8>>, String> {
        let (metadata, targets) = (from.upstream.url("/metadata/"), from.upstream.url("/targets/"));
        let (metadata, targets) = match self {
            Self::PythonTuf => (metadata, targets),
            #[cfg(feature = "system-tests")]
            Self::TufJs => (metadata, targets),
            #[cfg(feature = "system-tests")]
            Self::Tough | Self::SigstoreTuf => {
                let [metadata, targets] = &from.folders;
                (text(metadata), text(targets))
            }
        };
        let (state, out) = (from.states.path().join(format!("{self:?}")), folder::temporary());
        let mut command = self.command();
        command.arg(state).arg(&from.anchor).arg(metadata).arg(targets).arg(out.path()).args(wanted);
        let ended = command.stdin(Stdio::null()).output().unwrap();
        if !ended.status.success() {
            return Err(String::from_utf8_lossy(&ended.stderr).into_owned());
        }
        Ok((0..wanted.len()).map(|index| fs::read(out.path().join(index.to_string())).unwrap()).collect())
    }

    /// Holds that the client accepts the repository and gets exactly these targets.
    #[track_caller]
    pub fn assert_reads(self, from: &Published, wanted: &[(&str, &[u8])]) {
        let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
        let read = self.read(from, &names).unwrap_or_else(|said| panic!("{self:?} refuses: {said}"));
        for ((name, bytes), read) in wanted.iter().zip(read) {
            assert!(read == *bytes, "{self:?} reads other bytes as {name}");
        }
    }

    fn command(self) -> Command {
        match self {
            Self::PythonTuf => {
                let mut python = Command::new(Python::shared().interpreter());
                python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/python/reader.py"));
                python
            }
            #[cfg(feature = "system-tests")]
            Self::TufJs => peers::node("read.cjs"),
            #[cfg(feature = "system-tests")]
            Self::Tough => peers::rust("tough-read"),
            #[cfg(feature = "system-tests")]
            Self::SigstoreTuf => peers::rust("sigstore-read"),
        }
    }
}

#[cfg(feature = "system-tests")]
fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
