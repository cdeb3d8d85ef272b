//! What the programs have in common: their command lines and how a repository lies in a folder.
//!
//! The layout is the one of TUF 1.0.34 §6.2: `root.json` (the trust anchor), `metadata/` and `targets/`.

use std::{
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What a program of this package ends with.
pub type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// What a reader is told: where it keeps its trusted metadata from run to run, the repository, where the artifacts go,
/// and which targets are wanted.
#[derive(Debug)]
pub struct Reading {
    /// The reader's own trusted metadata; the folder exists.
    pub state: PathBuf,
    /// The trust anchor.
    pub root: Vec<u8>,
    /// The repository's metadata.
    pub metadata: PathBuf,
    /// The repository's targets.
    pub targets: PathBuf,
    /// Target `n` of those wanted goes to the file `n` in here.
    pub out: PathBuf,
    /// The targets wanted, in order.
    pub wanted: Vec<String>,
}

impl Reading {
    /// From `STATE ROOT METADATA TARGETS OUT [TARGET…]`.
    pub fn from_arguments() -> Outcome<Self> {
        let mut arguments = env::args_os().skip(1).map(PathBuf::from);
        let mut next = || arguments.next().ok_or("usage: STATE ROOT METADATA TARGETS OUT [TARGET…]");
        let (state, root, metadata, targets, out) = (next()?, next()?, next()?, next()?, next()?);
        fs::create_dir_all(&state)?;
        fs::create_dir_all(&out)?;
        let wanted = arguments.map(|name| name.into_os_string().into_string()).collect::<Result<_, _>>();
        let wanted = wanted.map_err(|name| format!("{} is not UTF-8", name.display()))?;
        Ok(Self { state, root: fs::read(root)?, metadata, targets, out, wanted })
    }

    /// Lays down what was read as the `index`-th of the wanted targets.
    pub fn keep(&self, index: usize, bytes: &[u8]) -> io::Result<()> {
        fs::write(self.out.join(index.to_string()), bytes)
    }
}

/// Exit 0, or 1 with the error and its causes on stderr.
pub fn exit(outcome: Outcome) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said += &format!(": {error}");
        cause = error.source();
    }
    eprintln!("{said}");
    ExitCode::FAILURE
}

/// Every file below a folder, by its path from there with `/` between the names, in order.
pub fn files_below(folder: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = open.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match entry.file_type()?.is_dir() {
                true => open.push((entry.path(), name + "/")),
                false => found.push(name),
            }
        }
    }
    found.sort();
    Ok(found)
}
