//! What an sdist needs, against a second reader of tar files.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read as _, Write as _},
    str::FromStr as _,
    sync::OnceLock,
};

use arbitrary::Unstructured;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use pep440_rs::Version;

use crate::{
    approve::sdist::{Needs, contents},
    simple::ProjectName,
};

/// More than any input can make of itself is not compared.
const UNPACKED_MAX: u64 = 8 << 20;

/// By the first byte: the rest is a tar file, says which members to write and which bytes to change then, is a `.tar.gz`, or a
/// `.zip`. What is taken as `pyproject.toml` and `PKG-INFO` is what a plain reading of the blocks finds, where that finds
/// one of each name; and whatever is said is one line.
pub fn sdists(data: &[u8]) {
    let Some((form, rest)) = data.split_first() else { return };
    let (project, version) = demo();
    let (sdist, filename) = match form % 4 {
        0 => (compressed(rest), "demo-1.0.tar.gz"),
        1 => (compressed(&write(&mut Unstructured::new(rest)).unwrap_or_default()), "demo-1.0.tar.gz"),
        2 => (rest.to_vec(), "demo-1.0.tar.gz"),
        _ => (rest.to_vec(), "demo-1.0.zip"),
    };
    let needs = Needs::of(Cursor::new(&sdist), filename, project, version);
    assert!(needs.unknown.iter().all(|why| !why.contains(char::is_control)), "{needs:?}");
    let read = contents(Cursor::new(&sdist), filename, project, version);
    if let Err(error) = &read {
        assert!(!error.to_string().contains(char::is_control), "{error:?}");
    }
    let (Ok(found), true) = (read, filename.ends_with(".tar.gz")) else { return };
    let mut unpacked = Vec::new();
    GzDecoder::new(sdist.as_slice()).take(UNPACKED_MAX).read_to_end(&mut unpacked).expect("the product read it");
    if unpacked.len() as u64 == UNPACKED_MAX {
        return;
    }
    let plain = members(&unpacked).unwrap_or_else(|| panic!("only the product reads {}", hex::encode(&unpacked)));
    for (name, found) in [("pyproject.toml", found.pyproject), ("PKG-INFO", found.pkg_info)] {
        // Whatever the folder is called in other spellings.
        let of_name: Vec<&Vec<u8>> = plain
            .iter()
            .filter(|(path, _)| path.split_once('/').is_some_and(|(_, inner)| inner == name))
            .flat_map(|(_, contents)| contents)
            .collect();
        match (of_name.as_slice(), found) {
            ([], None) => {}
            ([one], Some(found)) => assert_eq!(**one, found, "two readings of {name}: {}", hex::encode(&unpacked)),
            (of_name, found) => panic!("{} of {name}, {found:?}: {}", of_name.len(), hex::encode(&unpacked)),
        }
    }
}

fn demo() -> &'static (ProjectName, Version) {
    static DEMO: OnceLock<(ProjectName, Version)> = OnceLock::new();
    DEMO.get_or_init(|| ("demo".parse().unwrap(), Version::from_str("1.0").unwrap()))
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
}

fn write(input: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    const NAMES: [&str; 9] = [
        "demo-1.0/pyproject.toml",
        "demo-1.0/PKG-INFO",
        "demo-1.0/PyProject.toml",
        "demo-1.0/",
        "demo-1.0/src/pyproject.toml",
        "Demo-1.0/pyproject.toml",
        "demo-1.0/pyproject.toml/",
        "demo-1.0",
        "../x",
    ];
    const CONTENTS: [&[u8]; 7] = [
        b"[build-system]\nrequires = ['a']\n",
        b"Metadata-Version: 2.2\nName: demo\nVersion: 1.0\nRequires-Dist: b\n",
        b"",
        b"32 path=demo-1.0/pyproject.toml\n",
        b"12 size=512\n",
        b"demo-1.0/PKG-INFO\0",
        b"20 comment=0123abcd\n",
    ];
    let mut bytes = Vec::new();
    for _ in 0..input.int_in_range(0..=5)? {
        let mut header = if input.arbitrary()? { tar::Header::new_ustar() } else { tar::Header::new_gnu() };
        let (name, content) = (*input.choose(&NAMES)?, *input.choose(&CONTENTS)?);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.as_mut_bytes()[156] = *input.choose(b"00005xgLK12\0")?;
        if input.ratio(1, 4)? {
            let at = usize::from(input.arbitrary::<u16>()?) % 512;
            header.as_mut_bytes()[at] = input.arbitrary()?;
        }
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + usize::from(input.int_in_range(0_u8..=3)?) * 512, 0);
    Ok(bytes)
}

/// The files by their names, as a reader sees them that believes every header.
fn members(tar: &[u8]) -> Option<BTreeMap<String, Vec<Vec<u8>>>> {
    let mut files: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    let (mut at, mut announced) = (0, None);
    while let Some(header) = tar.get(at..at + 512).filter(|block| block.iter().any(|byte| *byte != 0)) {
        let size = std::str::from_utf8(&header[124..136]).ok()?.trim_matches(['\0', ' ']).to_owned();
        let size = usize::from_str_radix(&size, 8).ok()?;
        let content = tar.get(at + 512..at + 512 + size);
        match header[156] {
            b'g' => {}
            b'x' => announced = pax_path(content?).or(announced),
            b'L' => announced = Some(text(content?)),
            kind => {
                let prefix = if &header[257..263] == b"ustar\0" { text(&header[345..500]) } else { String::new() };
                let own = text(&header[..100]);
                let own = if prefix.is_empty() { own } else { format!("{prefix}/{own}") };
                let name = announced.take().unwrap_or(own);
                if matches!(kind, b'0' | 0) && !name.ends_with('/') {
                    files.entry(name).or_default().push(content.unwrap_or_default().to_vec());
                }
            }
        }
        at += 512 + size.next_multiple_of(512);
    }
    Some(files)
}

fn pax_path(records: &[u8]) -> Option<String> {
    let records = String::from_utf8_lossy(records);
    records.lines().filter_map(|line| line.split_once(" path=")).map(|(_, path)| path.to_owned()).next_back()
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}
