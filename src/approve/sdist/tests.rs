//! Sdists as the tools write them, and as an attacker does.

use std::{
    io::{Cursor, Write as _},
    str::FromStr as _,
};

use flate2::{Compression, write::GzEncoder};
use zip::{ZipWriter, write::SimpleFileOptions};

use super::*;

const TOP: &str = "foo_bar-1.0/";
const INFO: &[u8] =
    b"Metadata-Version: 2.2\nName: foo-bar\nVersion: 1.0\nRequires-Python: >=3.9\nRequires-Dist: a>=1\n";
const PROJECT: &[u8] = b"[build-system]\nrequires = [\"tiny>=1\", \"b\"]\nbuild-backend = \"tiny\"\n";

/// A member: type, name, content.
type Member<'a> = (u8, &'a str, &'a [u8]);

/// One header and its content, as POSIX has them.
fn blocks((kind, name, content): Member<'_>) -> Vec<u8> {
    blocks_with((kind, name, content), |_| {})
}

/// The same, with the header changed before its check sum is taken.
fn blocks_with((kind, name, content): Member<'_>, change: impl FnOnce(&mut [u8; BLOCK])) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    header.as_mut_bytes()[156] = kind;
    change(header.as_mut_bytes());
    header.set_cksum();
    let padding = content.len().next_multiple_of(BLOCK) - content.len();
    [header.as_bytes().as_slice(), content, &vec![0; padding]].concat()
}

fn tar(members: &[Member<'_>]) -> Vec<u8> {
    let mut bytes: Vec<u8> = members.iter().flat_map(|member| blocks(*member)).collect();
    bytes.extend([0; 2 * BLOCK]);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn project() -> ProjectName {
    "foo-bar".parse().unwrap()
}

fn read(bytes: &[u8]) -> Result<Contents, SdistError> {
    contents(Cursor::new(bytes), "foo_bar-1.0.tar.gz", &project(), &Version::from_str("1.0").unwrap())
}

fn read_tar(members: &[Member<'_>]) -> Result<Contents, SdistError> {
    read(&gzip(&tar(members)))
}

fn needs(pyproject: Option<&[u8]>, info: &[u8]) -> Needs {
    let contents = Contents { pyproject: pyproject.map(<[u8]>::to_vec), pkg_info: Some(info.to_vec()) };
    Needs::of_contents(&contents, &project(), &Version::from_str("1.0").unwrap())
}

fn path(name: &str) -> String {
    format!("{TOP}{name}")
}

#[test]
fn a_sound_sdist_is_read_with_folders_long_names_and_extended_headers() {
    let (pyproject, info) = (path("pyproject.toml"), path("PKG-INFO"));
    let long = path(&"d/".repeat(80));
    let record = format!("{} path={long}x\n", long.len() + 11);
    let found = read_tar(&[
        (b'g', "pax_global_header", b"20 comment=0123abcd\n"),
        (b'5', TOP, b""),
        (b'0', &info, INFO),
        (b'x', "PaxHeaders/x", record.as_bytes()),
        (b'0', "short", b"content"),
        (b'L', "././@LongLink", format!("{long}y\0").as_bytes()),
        (b'0', "short", b"content"),
        (b'0', &pyproject, PROJECT),
        // Another folder's is not the root's.
        (b'0', &path("tests/pyproject.toml"), b"other"),
    ]);
    assert_eq!(found, Ok(Contents { pyproject: Some(PROJECT.to_vec()), pkg_info: Some(INFO.to_vec()) }));
    let zipped = zip(&[(TOP, b""), (&pyproject, PROJECT), (&info, INFO), (&path("a.py"), b"")]);
    let version = Version::from_str("1.0").unwrap();
    assert_eq!(contents(Cursor::new(&zipped), "foo_bar-1.0.zip", &project(), &version), found);
}

#[test]
fn an_sdist_that_the_tar_library_writes_is_read() {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in [("PKG-INFO", INFO), ("pyproject.toml", PROJECT)] {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path(name), content).unwrap();
    }
    let found = read(&gzip(&builder.into_inner().unwrap())).unwrap();
    assert_eq!(found.pyproject.as_deref(), Some(PROJECT));
}

#[test]
fn links_and_devices_are_refused_because_they_lead_one_name_to_another() {
    for kind in *b"12346S" {
        let members = [(b'0', &*path("pyproject.toml"), PROJECT), (kind, &path("link"), b"")];
        assert!(matches!(read_tar(&members), Err(SdistError::Special(_))), "{}", char::from(kind));
    }
    // The name that a link leads to may be announced as well.
    let announced = [(b'K', "././@LongLink", b"target\0".as_slice()), (b'2', &path("link"), b"")];
    assert!(matches!(read_tar(&announced), Err(SdistError::Special(_))));
}

#[test]
fn a_wanted_file_that_stands_twice_for_some_file_system_is_refused() {
    for name in [
        "pyproject.toml",
        "PyProject.TOML",
        "pyproject.toml.",
        "pyproject.toml ",
        "pyproject.toml::$DATA",
        "pyproject.toml/x",
        "P\u{212a}G-INFO",
    ] {
        for reversed in [false, true] {
            let name = path(name);
            let (pyproject, info) = (path("pyproject.toml"), path("PKG-INFO"));
            let mut members = [(b'0', &*pyproject, PROJECT), (b'0', &*info, INFO), (b'0', &*name, b"evil".as_slice())];
            if reversed {
                members.reverse();
            }
            assert!(matches!(read_tar(&members), Err(SdistError::Twice(_))), "{name}");
        }
    }
    assert!(matches!(read_tar(&[(b'5', &path("pyproject.toml"), b"")]), Err(SdistError::Twice(_))));
    let twice = zip(&[(&path("pyproject.toml"), PROJECT), (&path("PYPROJECT.toml"), b"evil")]);
    let read = contents(Cursor::new(&twice), "foo_bar-1.0.zip", &project(), &Version::from_str("1").unwrap());
    assert!(matches!(read, Err(SdistError::Twice(_))));
}

#[test]
fn everything_is_in_one_folder_of_the_name_and_version_of_the_file() {
    for name in ["other-1.0/x", "foo_bar-2.0/x", "foo_bar/x", "x", "Foo_bar-1.0/x"] {
        let members = [(b'0', &*path("pyproject.toml"), PROJECT), (b'0', name, b"")];
        assert!(matches!(read_tar(&members), Err(SdistError::OtherFolder(_))), "{name}");
    }
    assert!(matches!(read_tar(&[(b'0', "foo_bar-1.0", b"")]), Err(SdistError::OtherFolder(_))));
    assert!(
        read_tar(&[(b'0', "Foo.Bar-1.0.0/pyproject.toml", PROJECT)]).is_ok(),
        "names and versions have a normal form"
    );
}

#[test]
fn unsafe_names_are_refused() {
    let long = path(&"x".repeat(NAME_MAX));
    let record = format!("{} path={long}\n", long.len() + 11);
    for name in
        ["../x", "/foo_bar-1.0/x", "foo_bar-1.0//x", "foo_bar-1.0/./x", "foo_bar-1.0/a\\b", "foo_bar-1.0/\u{1b}[31m"]
    {
        let SdistError::UnsafeName(shown) = read_tar(&[(b'0', name, b"")]).unwrap_err() else { panic!("{name}") };
        assert!(!shown.contains(char::is_control));
    }
    let members = [(b'x', "x", record.as_bytes()), (b'0', "x", b"")];
    assert!(matches!(read_tar(&members), Err(SdistError::UnsafeName(_))));
}

#[test]
fn headers_that_unpackers_read_differently_are_refused() {
    let evil = path("pyproject.toml");
    let hidden = |header: &mut [u8; BLOCK]| {
        // Not POSIX, so that only some take the prefix for a part of the name.
        header[257..265].copy_from_slice(b"ustar  \0");
        header[345..348].copy_from_slice(b"foo");
    };
    let wide = |header: &mut [u8; BLOCK]| header[124] = 0x80;
    let odd = |header: &mut [u8; BLOCK]| header[124..136].copy_from_slice(b"0000000000x\0");
    for (what, change) in [("prefix", hidden as fn(&mut _)), ("wide length", wide), ("odd length", odd)] {
        let bytes = [blocks_with((b'0', &path("x"), b""), change), vec![0; 1024]].concat();
        let error = read(&gzip(&bytes)).unwrap_err();
        assert!(matches!(error, SdistError::Ambiguous { .. } | SdistError::Unreadable { .. }), "{what}: {error}");
    }
    for record in [
        "12 size=512\n",
        "20 GNU.sparse.map=1\n",
        "23 hdrcharset=BINARY\nx\n",
        "99 path=x\n",
        "path=x\n",
        "5 pa\n",
        "+9 path=x\n",
        "18 linkpath=abcdef\n",
    ] {
        let members = [(b'x', "x", record.as_bytes()), (b'0', &evil, PROJECT)];
        assert!(matches!(read_tar(&members), Err(SdistError::Ambiguous { .. })), "{record}");
    }
    // A name for all that follow, two names for one, a name for nothing.
    let path_record = b"26 path=foo_bar-1.0/other\n".as_slice();
    for members in [
        vec![(b'g', "x", path_record), (b'0', &*evil, PROJECT)],
        vec![(b'x', "x", path_record), (b'L', "x", b"foo_bar-1.0/y\0"), (b'0', &evil, PROJECT)],
        vec![(b'0', &*evil, PROJECT), (b'x', "x", path_record)],
        vec![(b'5', TOP, b"content")],
        vec![(b'0', TOP, b"")],
    ] {
        assert!(matches!(read_tar(&members), Err(SdistError::Ambiguous { .. })), "{members:?}");
    }
}

#[test]
fn what_follows_the_end_for_some_readers_is_refused() {
    let (good, evil) = (tar(&[(b'0', &path("x"), b"")]), blocks((b'0', &path("pyproject.toml"), b"evil")));
    let after_one_block = [&good[..good.len() - BLOCK], &evil, &[0; 1024]].concat();
    let after_two = [good.as_slice(), &evil].concat();
    for bytes in [after_one_block, after_two] {
        assert!(matches!(read(&gzip(&bytes)), Err(SdistError::Ambiguous { .. })));
    }
    let second_member = [gzip(&good), gzip(&evil)].concat();
    assert!(matches!(read(&second_member), Err(SdistError::Ambiguous { .. })));
    let padded = [good.as_slice(), &[0; 10_240]].concat();
    assert!(read(&gzip(&padded)).is_ok(), "tar pads to whole records");
}

#[test]
fn a_bomb_is_refused_at_the_bound_and_costs_no_memory() {
    // A member of 5 GiB of zeros in some 5 MB; and a file that is wanted and too large.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let huge = blocks_with((b'0', &path("x"), b""), |header| header[124..136].copy_from_slice(b"50000000000\0"));
    encoder.write_all(&huge).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..5 << 10 {
        encoder.write_all(&zeros).unwrap();
    }
    assert_eq!(read(&encoder.finish().unwrap()), Err(SdistError::TooLarge));
    let large = vec![b' '; PYPROJECT_MAX.as_usize() + 1];
    let error = read_tar(&[(b'0', &path("pyproject.toml"), &large)]).unwrap_err();
    assert_eq!(error, SdistError::FileTooLarge { name: PYPROJECT, limit: PYPROJECT_MAX });
    let long = vec![b'x'; 70 << 10];
    assert!(matches!(read_tar(&[(b'L', "x", &long)]), Err(SdistError::Ambiguous { .. })));
}

#[test]
fn what_is_no_sdist_or_ends_early_is_an_error_not_a_panic() {
    let whole = gzip(&tar(&[(b'0', &path("pyproject.toml"), PROJECT)]));
    for bytes in [&b""[..], b"sdist", &[0x1f, 0x8b], &whole[..whole.len() / 2], &whole[..whole.len() - 4]] {
        assert!(matches!(read(bytes), Err(SdistError::Unreadable { .. })), "{bytes:?}");
    }
    let cut = tar(&[(b'0', &path("pyproject.toml"), PROJECT)]);
    assert!(matches!(read(&gzip(&cut[..BLOCK + 10])), Err(SdistError::Unreadable { .. })));
    let mut wrong = cut;
    wrong[0] ^= 1;
    assert!(matches!(read(&gzip(&wrong)), Err(SdistError::Unreadable { .. })), "the check sum of the header");
}

#[test]
fn a_link_in_a_zip_file_is_refused() {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink(path("sub"), ".", SimpleFileOptions::default()).unwrap();
    let bytes = writer.finish().unwrap().into_inner();
    let read = contents(Cursor::new(&bytes), "foo_bar-1.0.zip", &project(), &Version::from_str("1").unwrap());
    assert!(matches!(read, Err(SdistError::Special(_))), "{read:?}");
}

#[test]
fn what_a_build_needs_is_the_table_or_the_default_of_installers() {
    let build = |pyproject| needs(pyproject, INFO).build;
    assert_eq!(build(Some(PROJECT)), Some(vec!["tiny>=1".to_owned(), "b".to_owned()]));
    let default = Some(vec![DEFAULT_BUILD.to_owned()]);
    assert_eq!(build(None), default);
    assert_eq!(build(Some(b"[project]\nname = \"x\"\n")), default);
    assert_eq!(build(Some(b"[build-system]\nrequires = []\n")), Some(Vec::new()));
    let nested = format!("x = {}", "[".repeat(100_000));
    for wrong in ["[build-system]\n", "[build-system]\nrequires = \"x\"\n", "[", "\u{0}", &nested] {
        let needs = needs(Some(wrong.as_bytes()), INFO);
        let why = needs.unknown.unwrap_or_else(|| panic!("{wrong}"));
        assert!(needs.build.is_none() && why.contains("pyproject.toml") && !why.contains(char::is_control), "{why:?}");
    }
}

#[test]
fn what_runs_need_is_kept_only_where_it_is_promised() {
    let found = needs(None, INFO);
    assert_eq!((found.run, found.python.as_deref()), (Some(vec!["a>=1".to_owned()]), Some(">=3.9")));
    for info in [
        "Metadata-Version: 2.1\nName: foo-bar\nVersion: 1.0\nRequires-Dist: a\n",
        "Metadata-Version: 2.2\nName: foo-bar\nVersion: 1.0\nDynamic: Requires-Dist\nRequires-Dist: a\n",
        "Metadata-Version: 2.2\nName: other\nVersion: 1.0\nRequires-Dist: a\n",
        "Metadata-Version: 2.2\nName: foo-bar\nVersion: 2.0\nRequires-Dist: a\n",
        "no header\n",
    ] {
        assert_eq!(needs(None, info.as_bytes()).run, None, "{info}");
    }
}

#[test]
fn more_requirements_than_a_target_should_carry_are_not_kept() {
    let many = format!(
        "Metadata-Version: 2.2\nName: foo-bar\nVersion: 1.0\n{}",
        "Requires-Dist: aaaaaaaaaaaaaaaa\n".repeat(2_000)
    );
    let small = needs(None, many.as_bytes());
    assert!(small.run.is_some_and(|run| run.len() == 2_000));
    let large = many.replace("aaaaaaaaaaaaaaaa", &"a".repeat(64));
    let found = needs(None, large.as_bytes());
    assert!(found.run.is_none() && found.build.is_none() && found.unknown.is_some());
}
