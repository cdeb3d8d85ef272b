//! Wheels: tiny ones made on the spot, real ones read from a file; and source distributions.

use std::{
    fmt::Write as _,
    fs,
    io::{Cursor, Write as _},
    path::Path,
};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// A file of a project, as an index offers it.
#[derive(Clone, Debug)]
pub struct Wheel {
    /// The normalised name of its project.
    pub project: String,
    /// Its version.
    pub version: String,
    /// The name of the file.
    pub filename: String,
    /// The file.
    pub bytes: Vec<u8>,
    /// Its METADATA.
    pub metadata: String,
}

/// The lower-case hexadecimal SHA-256.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl Wheel {
    /// A pure wheel with one module that says its version.
    pub fn new(project: &str, version: &str) -> Self {
        Self::with(project, version, &[], 0, "")
    }

    /// A pure wheel that needs others.
    pub fn needing(project: &str, version: &str, requirements: &[&str]) -> Self {
        Self::with(project, version, requirements, 0, "")
    }

    /// A pure wheel that needs others, with more code in its module.
    pub fn running(project: &str, version: &str, requirements: &[&str], code: &str) -> Self {
        Self::with(project, version, requirements, 0, code)
    }

    /// A source distribution, with these files in its one folder.
    pub fn sdist(project: &str, version: &str, files: &[(&str, &str)]) -> Self {
        let stem = format!("{}-{version}", project.replace('-', "_"));
        let metadata = format!("Metadata-Version: 2.2\nName: {project}\nVersion: {version}\n");
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        for (name, content) in [("PKG-INFO", metadata.as_str())].iter().chain(files) {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, format!("{stem}/{name}"), content.as_bytes()).unwrap();
        }
        let bytes = archive.into_inner().unwrap().finish().unwrap();
        let (project, version) = (normalised(project), version.to_owned());
        Self { project, version, filename: format!("{stem}.tar.gz"), bytes, metadata }
    }

    /// A wheel of at least `size` bytes that do not compress.
    pub fn large(project: &str, version: &str, size: usize) -> Self {
        Self::with(project, version, &[], size, "")
    }

    /// A real wheel from a file.
    pub fn read(path: &Path) -> Self {
        let filename = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = fs::read(path).unwrap();
        let mut parts = filename.split('-');
        let (project, version) = (parts.next().unwrap(), parts.next().unwrap());
        let mut archive = zip::ZipArchive::new(Cursor::new(&bytes)).unwrap();
        let mut metadata = String::new();
        let name = format!("{project}-{version}.dist-info/METADATA");
        std::io::Read::read_to_string(&mut archive.by_name(&name).unwrap(), &mut metadata).unwrap();
        let (project, version) = (normalised(project), version.to_owned());
        Self { project, version, filename, metadata, bytes }
    }

    fn with(project: &str, version: &str, requirements: &[&str], payload: usize, more: &str) -> Self {
        let module = project.replace('-', "_");
        let info = format!("{module}-{version}.dist-info");
        let mut metadata = format!("Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n");
        for requirement in requirements {
            writeln!(metadata, "Requires-Dist: {requirement}").unwrap();
        }
        let code = format!("VERSION = {version:?}\n{more}");
        let mut files = vec![
            (format!("{module}/__init__.py"), code.into_bytes()),
            (format!("{info}/METADATA"), metadata.clone().into_bytes()),
            (
                format!("{info}/WHEEL"),
                b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_vec(),
            ),
        ];
        if payload > 0 {
            files.insert(1, (format!("{module}/payload.bin"), noise(payload)));
        }
        let record: String = files.iter().map(|(name, _)| format!("{name},,\n")).collect();
        files.push((format!("{info}/RECORD"), format!("{record}{info}/RECORD,,\n").into_bytes()));
        let filename = format!("{module}-{version}-py3-none-any.whl");
        Self { project: normalised(project), version: version.to_owned(), filename, bytes: zipped(&files), metadata }
    }

    /// The SHA-256 of the file.
    pub fn sha256(&self) -> String {
        sha256(&self.bytes)
    }

    /// The name of its target.
    pub fn target(&self) -> String {
        format!("{}/{}", self.project, self.filename)
    }

    /// Where it lies behind the index's file base.
    pub fn place(&self) -> String {
        format!("{}/{}", &sha256(self.filename.as_bytes())[..4], self.filename)
    }

    /// Another file under the same name: same length, one byte of the payload or of the module changed.
    pub fn with_changed_byte(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x20;
        bytes
    }
}

/// The name per PEP 503.
fn normalised(name: &str) -> String {
    name.replace(['_', '.'], "-").to_lowercase()
}

/// Stored, not compressed: what lies on a disk can be searched for a piece of it.
fn zipped(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        archive.start_file(name.as_str(), options).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// Bytes that repeat nowhere near and are the same at every run.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
