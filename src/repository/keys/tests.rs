//! Keys in files, and the folder of keys.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
};

#[cfg(feature = "system-tests")]
use std::process::Command;

use zeroize::Zeroizing;

use super::{
    secrets::tests::{of_environment, of_files, of_typist, secret_file},
    *,
};
use crate::{
    base::files::{self, Mode},
    tuf::PublicKey,
};

fn generated() -> (tempfile::TempDir, PathBuf, FileKey) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.pem");
    let key = FileKey::generate(&path).unwrap();
    (folder, path, key)
}

#[test]
fn the_key_id_is_the_one_securesystemslib_computes() {
    // Computed with securesystemslib 1.6.0: SSlibKey of 32 bytes 0x00..0x1f.
    let mut raw = [0_u8; 32];
    for (byte, value) in raw.iter_mut().zip(0_u8..) {
        *byte = value;
    }
    let part = PublicPart::ed25519(&raw).unwrap();
    assert_eq!(part.keyid, "b5b3929e2eb1cd5fb401e8d8dd00a903bfac256d06eae9cc38a51d344e14583f");
}

#[test]
fn a_generated_key_is_0600_and_reads_back_as_itself() {
    let (_folder, path, key) = generated();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let loaded = FileKey::load(&path).unwrap();
    assert_eq!(loaded.public(), key.public());
    assert_eq!(loaded.sign(b"message").unwrap(), key.sign(b"message").unwrap());
    assert_eq!(PublicPart::load(&public_path(&path)).unwrap(), *key.public());
    assert_eq!(format!("{key:?}"), format!("FileKey {{ keyid: {:?}, .. }}", key.public().keyid));
}

#[test]
fn a_key_that_others_may_read_is_refused_with_the_way_out() {
    let (_folder, path, _) = generated();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = FileKey::load(&path).unwrap_err();
    assert!(matches!(error, RepositoryError::LooseKey { .. }));
    assert!(error.to_string().contains("0640") && error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn a_symbolic_link_to_a_key_is_refused() {
    let (folder, path, _) = generated();
    let link = folder.path().join("link.pem");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(FileKey::load(&link).unwrap_err(), RepositoryError::LooseKey { .. }));
}

#[test]
fn generate_never_overwrites_a_key_nor_its_public_part() {
    let (_folder, path, key) = generated();
    assert!(matches!(FileKey::generate(&path).unwrap_err(), RepositoryError::KeyExists { .. }));
    fs::remove_file(&path).unwrap();
    assert!(matches!(FileKey::generate(&path).unwrap_err(), RepositoryError::KeyExists { .. }));
    assert_eq!(PublicPart::load(&public_path(&path)).unwrap(), *key.public());
    assert!(!path.exists());
}

#[test]
fn what_is_no_key_is_refused_without_quoting_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    files::write_new(&path, b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", Mode::Private)
        .unwrap();
    let error = FileKey::load(&path).unwrap_err();
    assert!(matches!(error, RepositoryError::BadKey { .. }));
    assert!(!error.to_string().contains("c2VjcmV0"));
}

#[test]
fn a_public_part_whose_id_is_not_its_own_is_refused() {
    let (_folder, path, key) = generated();
    let forged = PublicPart { keyid: "00".repeat(32), ..key.public().clone() };
    fs::write(public_path(&path), serde_json::to_vec(&forged).unwrap()).unwrap();
    assert!(matches!(PublicPart::load(&public_path(&path)).unwrap_err(), RepositoryError::BadKey { .. }));
}

#[test]
fn a_folder_of_keys_opens_only_the_private_keys_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let online = FileKey::generate(&folder.path().join("online.pem")).unwrap();
    let root = folder.path().join("root.pem");
    FileKey::generate(&root).unwrap();
    // A root key that cannot be opened does not disturb the online role.
    fs::set_permissions(&root, fs::Permissions::from_mode(0o644)).unwrap();
    let signers = KeyFolder::new(folder.path().to_owned()).signers(&[online.public().key_id().unwrap()]).unwrap();
    assert_eq!(signers.len(), 1);
    assert_eq!(signers[0].public(), online.public());
}

/// Whether what a key signs verifies with its public part, and nothing else does.
#[track_caller]
fn assert_signs(key: &dyn Signer) {
    let public = PublicKey::from_schema(&key.public().to_schema()).unwrap();
    let signature = key.sign(b"message").unwrap();
    assert!(public.verify(&signature, b"message") && !public.verify(&signature, b"another"));
}

/// `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`, put under `correct horse` with `openssl pkcs8 -topk8
/// -v2 aes256` (OpenSSL 3.0), and its `openssl pkey -pubout`.
const BY_OPENSSL: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjmbuj6pzty7wICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEB1QNE7nadUJSz1LXrZQLKEEgZCS
PiWwlplO+T+Ax/4HZDGY4j5gfTyXjCMSv0iBcpjcwvlEQKeK8rWtzeJta7xu6zFu
XQM2s/aKDvU60knzOvJPHIBjy0ouEk+Lxwaq3pCK/SLepJlbA3RkFE+jKIWB7YfB
3kvr16C1was8cZwgkqgQkfAppbLU7PNVMEEEmuOROH49+pPCIRfvli3+nekSl3E=
-----END ENCRYPTED PRIVATE KEY-----
";
const PUBLIC_BY_OPENSSL: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEjHW058aQ//V96rDwCqaz0cb+1/h4
bWrfjBu2mvapLV1fy5Ed21TbDGSko64faP666LpHdyNlrq+MfCXGZpQb8w==
-----END PUBLIC KEY-----
";

#[test]
fn an_encrypted_key_of_openssl_opens_and_has_the_public_part_that_openssl_shows() {
    let folder = tempfile::tempdir().unwrap();
    let path = secret_file(folder.path(), "p256.pem", BY_OPENSSL);
    let secrets = of_environment(|name| (name == "TUFGATE_PASSPHRASE").then(|| "correct horse".into()));
    let key = FileKey::load_with(&path, &secrets).unwrap();
    assert_eq!(key.public().keyval.public, PUBLIC_BY_OPENSSL);
    assert_signs(&key);
    let wrong = of_environment(|_| Some("correct hearse".into()));
    assert!(matches!(FileKey::load_with(&path, &wrong), Err(RepositoryError::WrongPassphrase { .. })));
}

#[test]
fn a_key_whose_passphrase_costs_without_measure_is_refused_before_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let passphrase = of_environment(|name| (name == "TUFGATE_PASSPHRASE").then(|| "correct horse".into()));
    let path = folder.path().join("root.pem");
    FileKey::generate_encrypted(&path, &passphrase).unwrap();
    let text = fs::read(&path).unwrap();
    let (label, mut der) = pem_rfc7468::decode_vec(&text).unwrap();
    // scrypt's N = 2^14, r = 8 and p = 5 as INTEGERs.
    let cost = [0x02, 0x02, 0x40, 0x00, 0x02, 0x01, 0x08, 0x02, 0x01, 0x05];
    let at = der.windows(cost.len()).position(|bytes| bytes == cost).unwrap();
    der[at + cost.len() - 1] = 0x7F;
    let text = pem_rfc7468::encode_string(label, pem_rfc7468::LineEnding::LF, &der).unwrap();
    fs::write(&path, text).unwrap();
    let error = FileKey::load_with(&path, &passphrase).unwrap_err();
    assert!(matches!(&error, RepositoryError::BadKey { why, .. } if why.contains("cost")), "{error}");
}

/// OpenSSL with these arguments, in a folder; keys that it writes are made private.
#[cfg(feature = "system-tests")]
#[track_caller]
fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").current_dir(folder).args(arguments).output().expect("openssl is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    for entry in fs::read_dir(folder).unwrap() {
        fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[cfg(feature = "system-tests")]
fn public_by_openssl(folder: &Path, key: &str) -> String {
    let arguments = ["pkey", "-in", key, "-pubout", "-passin", "pass:correct horse"];
    let output = Command::new("openssl").current_dir(folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "{key}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_encrypted_key_opens_with_its_passphrase_alone_and_its_file_is_0600() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.pem");
    let passphrase = secret_file(folder.path(), "passphrase", "correct horse\n");
    let right = of_files(&[&passphrase.display().to_string()]);
    let key = FileKey::generate_encrypted(&path, &right).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{text}");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let opened = FileKey::load_with(&path, &right).unwrap();
    assert_eq!(opened.sign(b"message").unwrap(), key.sign(b"message").unwrap());
    let wrong = of_environment(|name| (name == "TUFGATE_PASSPHRASE_ROOT").then(|| "incorrect horse".into()));
    let error = FileKey::load_with(&path, &wrong).unwrap_err();
    assert!(matches!(error, RepositoryError::WrongPassphrase { .. }));
    let said = error.to_string();
    assert!(said.contains("TUFGATE_PASSPHRASE_ROOT") && !said.contains("incorrect horse"), "{said}");
    let nothing = FileKey::load_with(&path, &of_files(&[])).unwrap_err();
    assert!(matches!(nothing, RepositoryError::NoSecret { .. }));
    // Its public part needs no passphrase.
    assert_eq!(PublicPart::load(&public_path(&path)).unwrap(), *key.public());
}

#[test]
fn a_passphrase_is_changed_and_taken_away_and_the_key_stays_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.pem");
    let key = FileKey::generate(&path).unwrap();
    let first = of_environment(|name| (name == "TUFGATE_PASSPHRASE").then(|| "first".into()));
    let second = of_environment(|name| (name == "TUFGATE_PASSPHRASE").then(|| "second".into()));
    FileKey::encrypt(&path, &of_files(&[]), &first).unwrap();
    FileKey::encrypt(&path, &first, &second).unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(FileKey::encrypt(&path, &first, &second), Err(RepositoryError::WrongPassphrase { .. })));
    assert!(matches!(FileKey::decrypt(&path, &first), Err(RepositoryError::WrongPassphrase { .. })));
    assert_eq!(fs::read(&path).unwrap(), before, "a command that failed changed the key");
    FileKey::decrypt(&path, &second).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let plain = FileKey::load_with(&path, &of_files(&[])).unwrap();
    assert_eq!(plain.sign(b"message").unwrap(), key.sign(b"message").unwrap());
}

#[test]
fn a_passphrase_that_is_typed_wrong_three_times_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.pem");
    let right = of_typist(|_| Ok(Zeroizing::new("typed".to_owned())));
    FileKey::generate_encrypted(&path, &right).unwrap();
    FileKey::load_with(&path, &right).unwrap();
    let wrong = of_typist(|_| Ok(Zeroizing::new("tpyed".to_owned())));
    assert!(matches!(FileKey::load_with(&path, &wrong), Err(RepositoryError::WrongPassphrase { .. })));
}

#[cfg(feature = "system-tests")]
#[test]
fn keys_that_openssl_wrote_sign_and_have_the_public_part_that_openssl_shows() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = of_environment(|name| (name == "TUFGATE_PASSPHRASE").then(|| "correct horse".into()));
    for (name, algorithm) in [
        ("ed25519", &["ED25519"][..]),
        ("p256", &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        ("p384", &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("rsa", &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ] {
        let plain = format!("{name}.pem");
        openssl(folder.path(), &[&["genpkey", "-out", &plain, "-algorithm"], algorithm].concat());
        let key = FileKey::load_with(&folder.path().join(&plain), &secrets).unwrap();
        assert_signs(&key);
        for (form, how) in [("pbkdf2", &["-v2", "aes256"][..]), ("scrypt", &["-scrypt"])] {
            let encrypted = format!("{name}-{form}.pem");
            let convert = ["pkcs8", "-topk8", "-in", &plain, "-out", &encrypted, "-passout", "pass:correct horse"];
            openssl(folder.path(), &[&convert, how].concat());
            let opened = FileKey::load_with(&folder.path().join(&encrypted), &secrets).unwrap();
            assert_eq!(opened.public(), key.public(), "{encrypted}");
            assert_signs(&opened);
        }
        if name != "ed25519" {
            assert_eq!(key.public().keyval.public, public_by_openssl(folder.path(), &plain));
        }
    }
}

#[cfg(feature = "system-tests")]
#[test]
fn a_key_that_was_encrypted_here_opens_with_openssl() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = of_environment(|name| (name == "TUFGATE_PASSPHRASE").then(|| "correct horse".into()));
    let key = FileKey::generate_encrypted(&folder.path().join("root.pem"), &secrets).unwrap();
    let (_, der) = pem_rfc7468::decode_vec(public_by_openssl(folder.path(), "root.pem").as_bytes()).unwrap();
    assert_eq!(hex::encode(&der[der.len() - 32..]), key.public().keyval.public);
}

#[cfg(feature = "system-tests")]
#[test]
fn old_forms_of_keys_are_refused_with_the_command_that_converts_them() {
    let folder = tempfile::tempdir().unwrap();
    openssl(folder.path(), &["ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out", "sec1.pem"]);
    let error = FileKey::load(&folder.path().join("sec1.pem")).unwrap_err();
    assert!(matches!(error, RepositoryError::BadKey { .. }) && error.to_string().contains("openssl pkcs8"), "{error}");
}

#[test]
fn a_token_file_that_others_may_write_is_refused_for_it_names_a_library_to_load() {
    let (folder, _, key) = generated();
    let path = folder.path().join("hsm.token.json");
    let file = TokenFile { uri: "pkcs11:object=root".to_owned(), public: key.public().clone() };
    fs::write(&path, serde_json::to_vec(&file).unwrap()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(PublicPart::load(&path).unwrap(), *key.public());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(PublicPart::load(&path).unwrap_err(), RepositoryError::LooseKey { .. }));
}
