//! METADATA out of a wheel, against a second reader of zip files.

use std::{
    io::{Cursor, Read as _, Write as _},
    str::FromStr as _,
    sync::OnceLock,
};

use arbitrary::Unstructured;
use flate2::read::DeflateDecoder;
use pep440_rs::Version;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::{
    approve::wheel::{METADATA_MAX, metadata},
    simple::ProjectName,
};

const PATH: &str = "demo-1.0.dist-info/METADATA";

/// An even first byte: the rest is a zip file. An odd one: the rest says which entries to write and which bytes of the
/// file to change then. What is taken as METADATA is what a plain reading of the central directory finds, and the only
/// entry of that name.
pub fn wheels(data: &[u8]) {
    let Some((form, rest)) = data.split_first() else { return };
    let wheel = if form % 2 == 0 { rest.to_vec() } else { write(&mut Unstructured::new(rest)).unwrap_or_default() };
    let (project, version) = demo();
    if let Ok(found) = metadata(Cursor::new(&wheel), project, version) {
        assert!(found.len() as u64 <= METADATA_MAX.bytes());
        let Some(listed) = central_directory(&wheel) else {
            panic!("only the product finds a central directory in {}", hex::encode(&wheel));
        };
        let of_that_name: Vec<&Listed> = listed.iter().filter(|entry| entry.name == PATH.as_bytes()).collect();
        // Other spellings of the folder are METADATA too; this reader knows one.
        if let [entry] = of_that_name.as_slice() {
            let content = entry.content(&wheel);
            assert_eq!(
                content.as_deref(),
                Some(found.as_slice()),
                "two readings of one wheel: {}",
                hex::encode(&wheel)
            );
        }
        assert!(of_that_name.len() <= 1, "METADATA was taken from one of several entries");
    }
}

fn demo() -> &'static (ProjectName, Version) {
    static DEMO: OnceLock<(ProjectName, Version)> = OnceLock::new();
    DEMO.get_or_init(|| ("demo".parse().unwrap(), Version::from_str("1.0").unwrap()))
}

fn write(input: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    const NAMES: [&str; 8] = [
        PATH,
        "demo-1.0.dist-info/RECORD",
        "demo-1.0.dist-info/metadata",
        "Demo-1.0.dist-info/METADATA",
        "other-2.0.dist-info/METADATA",
        "demo/__init__.py",
        "demo-1.0.dist-info/",
        "../x",
    ];
    const CONTENTS: [&[u8]; 4] = [
        b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n\nbody\n",
        b"Name: demo\nVersion: 1.0\nRequires-Dist: evil\n",
        b"Name: other\nVersion: 2.0\n",
        b"",
    ];
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for _ in 0..input.int_in_range(0..=4)? {
        let method = if input.arbitrary()? { CompressionMethod::Stored } else { CompressionMethod::Deflated };
        let name = *input.choose(&NAMES)?;
        let options = SimpleFileOptions::default().compression_method(method);
        // The writer refuses a second entry of one name; those come from changed bytes below.
        if writer.start_file(name, options).is_ok() {
            let _ = writer.write_all(input.choose(&CONTENTS)?);
        }
    }
    let mut bytes = writer.finish().map(Cursor::into_inner).unwrap_or_default();
    while let Ok([high, low, byte]) = input.arbitrary::<[u8; 3]>() {
        if input.is_empty() || bytes.is_empty() {
            break;
        }
        let at = usize::from(u16::from_be_bytes([high, low])) % bytes.len();
        bytes[at] = byte;
    }
    Ok(bytes)
}

/// An entry of the central directory.
struct Listed {
    name: Vec<u8>,
    method: u16,
    compressed: usize,
    header: usize,
}

impl Listed {
    fn content(&self, wheel: &[u8]) -> Option<Vec<u8>> {
        let local = wheel.get(self.header..)?;
        let behind = usize::from(u16_at(local, 26)?) + usize::from(u16_at(local, 28)?);
        let data = local.get(30 + behind..30 + behind + self.compressed)?;
        match self.method {
            0 => Some(data.to_vec()),
            8 => {
                let mut content = Vec::new();
                DeflateDecoder::new(data).take(METADATA_MAX.bytes() + 1).read_to_end(&mut content).ok()?;
                Some(content)
            }
            _ => None,
        }
    }
}

/// Reads the central directory from the last end record that leads to one; none of the 64-bit forms.
fn central_directory(wheel: &[u8]) -> Option<Vec<Listed>> {
    let ends = (0..wheel.len().saturating_sub(21)).rev().filter(|at| wheel[*at..].starts_with(b"PK\x05\x06"));
    ends.filter_map(|end| {
        let (size, offset) = (u32_at(wheel, end + 12)? as usize, u32_at(wheel, end + 16)? as usize);
        // Bytes before the first entry move everything.
        let start = end.checked_sub(size)?;
        let moved = start.checked_sub(offset)?;
        entries(wheel, start, moved)
    })
    .next()
}

fn entries(wheel: &[u8], start: usize, moved: usize) -> Option<Vec<Listed>> {
    let mut at = start;
    let mut listed = Vec::new();
    while wheel.get(at..)?.starts_with(b"PK\x01\x02") {
        let record = &wheel[at..];
        let [name, extra, comment] = [28, 30, 32].map(|field| u16_at(record, field).map(usize::from));
        let (name, behind) = (name?, extra? + comment?);
        listed.push(Listed {
            name: record.get(46..46 + name)?.to_vec(),
            method: u16_at(record, 10)?,
            compressed: u32_at(record, 20)? as usize,
            header: moved.checked_add(u32_at(record, 42)? as usize)?,
        });
        at += 46 + name + behind;
    }
    Some(listed)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
