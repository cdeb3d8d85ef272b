//! The files that are served: two projects' pages, wheels, and a signed repository of 16,384 bins that lists them.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use tufgate::{
    base::{ByteSize, ChunkHasher, Digest, Digests},
    simple::{Listing, ProjectName},
    tuf::{Chunks, TargetPath, schema::TargetFile},
};
use tufgate_benches::{BinRepository, Shape};

use crate::Outcome;

/// What pip and uv prefer.
pub const ACCEPT: &str = "application/vnd.pypi.simple.v1+json";
/// A page of some thirty files.
pub const SMALL_PAGE: &str = "/simple/few/";
/// A page of thousands.
pub const LARGE_PAGE: &str = "/simple/many/";
/// Wheels that a herd is sent for.
pub const HERDS: usize = 3;

/// Sizes of wheels in bytes.
const WHEELS: [(&str, u64); 3] = [("small", 97_000), ("medium", 35_000_000), ("large", 500_000_000)];
const MEDIUM: u64 = 35_000_000;

/// A folder that an origin serves.
pub struct Site {
    folder: PathBuf,
}

impl Site {
    /// Makes all files under `folder`.
    pub fn make(folder: &Path, cold: usize) -> Outcome<Self> {
        let site = Self { folder: folder.to_owned() };
        fs::create_dir_all(site.www().join("packages/slow"))?;
        let mut targets = Vec::new();
        for (name, files) in [("few", 20), ("many", 3450)] {
            targets.push(site.make_project(name, files)?);
        }
        for (name, size) in WHEELS {
            targets.push(site.make_wheel("", name, size)?);
        }
        for round in 0..cold {
            targets.push(site.make_wheel("", &site.cold(round), MEDIUM)?);
        }
        for round in 0..HERDS {
            let (path, mut file) = site.make_wheel("slow/", &format!("slow{round}"), MEDIUM)?;
            sign_chunks(&mut file, &fs::read(site.www().join(site.slow(round).trim_start_matches('/')))?)?;
            targets.push((path, file));
        }
        BinRepository::make_with(&site.repository(), Shape::default(), &targets)?;
        fs::rename(site.repository().join("metadata"), site.www().join("metadata"))?;
        Ok(site)
    }

    /// Where everything lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the origin serves.
    pub fn www(&self) -> PathBuf {
        self.folder.join("www")
    }

    /// Where trust begins.
    pub fn root(&self) -> PathBuf {
        self.repository().join("root.json")
    }

    /// The wheel that is fetched cold in a round.
    pub fn cold(&self, round: usize) -> String {
        format!("cold{round}")
    }

    /// The path of a wheel that the origin sends slowly.
    pub fn slow(&self, round: usize) -> String {
        format!("/packages/slow/slow{round}-1.0-py3-none-any.whl")
    }

    fn repository(&self) -> PathBuf {
        self.folder.join("repository")
    }

    /// A page at the origin, and a signed listing of the same files.
    fn make_project(&self, name: &str, files: usize) -> Outcome<(TargetPath, TargetFile)> {
        let project = ProjectName::parse(name)?;
        let entries: Vec<serde_json::Value> = (0..files).map(|number| entry(name, number)).collect();
        let listing = serde_json::json!({"meta": {"api-version": "1.4"}, "name": name, "files": entries});
        let listing = Listing::parse(&serde_json::to_vec(&listing)?, &project)?;
        let page = listing.to_page(|file| format!("../../packages/{}", file.path)).to_json();
        let folder = self.www().join("simple").join(name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("index.json"), &page)?;
        let signed = listing.to_json();
        let digest = Digest::sha256(&signed);
        let folder = self.www().join("targets/simple").join(name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{}.index.json", digest.to_hex())), &signed)?;
        let digests = Digests::new([digest]).ok_or("no digest")?;
        Ok((TargetPath::new(&format!("simple/{name}/index.json"))?, TargetFile::new(signed.len() as u64, &digests)))
    }

    /// A file that no compression makes smaller.
    fn make_wheel(&self, folder: &str, name: &str, size: u64) -> Outcome<(TargetPath, TargetFile)> {
        let filename = format!("{name}-1.0-py3-none-any.whl");
        let mut file = BufWriter::new(File::create(self.www().join("packages").join(folder).join(&filename))?);
        let mut hasher = digests_of_nothing()?.hasher();
        let mut noise =
            Noise(Digest::sha256(name.as_bytes()).as_bytes().first_chunk().copied().map_or(1, u64::from_be_bytes) | 1);
        let mut left = size;
        while left > 0 {
            let chunk = noise.chunk();
            let part = chunk.get(..usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len())).unwrap_or_default();
            file.write_all(part)?;
            hasher.update(part);
            left -= part.len() as u64;
        }
        file.flush()?;
        let digests = Digests::new(hasher.finish()).ok_or("no digest")?;
        Ok((TargetPath::new(&format!("{name}/{filename}"))?, TargetFile::new(size, &digests)))
    }
}

/// The path of a wheel behind any of the servers.
pub fn wheel_path(name: &str) -> String {
    format!("/packages/{name}-1.0-py3-none-any.whl")
}

/// A million files in a cache folder. There is no record of them: a gate that ran before would have left one, and saved
/// the look at each.
pub fn million(cache: &Path) -> Outcome {
    for number in 0..1_000_000_u64 {
        let hex = Digest::sha256(&number.to_be_bytes()).to_hex();
        let folder = cache.join("blobs/sha256").join(hex.get(..2).unwrap_or_default());
        if number < 4096 {
            fs::create_dir_all(&folder)?;
        }
        fs::write(folder.join(&hex), b"x")?;
    }
    Ok(())
}

/// Adds digests of its pieces, so that each may leave once it is verified.
fn sign_chunks(file: &mut TargetFile, content: &[u8]) -> Outcome {
    let mut hasher = ChunkHasher::new(ByteSize::kib(256))?;
    hasher.update(content);
    let mut custom = serde_json::json!({});
    Chunks::add_to_custom(&mut custom, &hasher.finish()?);
    file.custom = Some(custom);
    Ok(())
}

fn digests_of_nothing() -> Outcome<Digests> {
    Ok(Digests::new([Digest::sha256(b"")]).ok_or("no digest")?)
}

/// An entry of a listing as indexes have them today.
fn entry(project: &str, number: usize) -> serde_json::Value {
    let filename = format!("{project}-1.{number}-cp312-cp312-manylinux_2_17_x86_64.whl");
    let hex = Digest::sha256(filename.as_bytes()).to_hex();
    let (a, b, rest) = (&hex[..2], &hex[2..4], &hex[4..]);
    serde_json::json!({
        "filename": filename,
        "url": format!("{a}/{b}/{rest}/{filename}"),
        "hashes": {"sha256": hex},
        "size": 1_000_000 + number,
        "requires-python": ">=3.9",
        "upload-time": "2026-01-02T03:04:05.678901Z",
        "core-metadata": false,
    })
}

/// xorshift64*: fast, and nothing compresses it.
struct Noise(u64);

impl Noise {
    fn chunk(&mut self) -> Vec<u8> {
        let mut chunk = Vec::with_capacity(1 << 20);
        while chunk.len() < 1 << 20 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            chunk.extend_from_slice(&self.0.wrapping_mul(0x2545_F491_4F6C_DD1D).to_be_bytes());
        }
        chunk
    }
}
