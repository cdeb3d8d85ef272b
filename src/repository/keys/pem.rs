//! PKCS#8 in PEM, plain or under a passphrase (RFC 5958, RFC 8018 PBES2).
//!
//! Written is scrypt with AES-256-CBC, at a cost that OpenSSL reads too; read is besides PBKDF2, which `openssl pkcs8`
//! writes. Nothing of a key is quoted in an error.

use pkcs8::{
    EncryptedPrivateKeyInfo, LineEnding, PrivateKeyInfo, SecretDocument,
    pkcs5::{
        pbes2::{Kdf, Parameters},
        scrypt,
    },
};
use zeroize::Zeroizing;

const PLAIN: &str = "PRIVATE KEY";
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

/// scrypt's N = 2^14, r = 8, p = 5: as costly to guess as N = 2^17 with p = 1, in 16 MiB; OpenSSL by default refuses to
/// read what takes more than 32 MiB.
const SCRYPT_LOG_N: u8 = 14;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 5;
/// The length that scrypt's parameters carry; PBES2 takes what the cipher needs.
const SCRYPT_LENGTH: usize = 32;
/// The most memory that a key file may ask scrypt for, in bytes.
const SCRYPT_MEMORY_MAX: u64 = 1 << 30;
const SCRYPT_P_MAX: u16 = 16;
/// The most iterations that a key file may ask PBKDF2 for: some seconds.
const PBKDF2_ITERATIONS_MAX: u32 = 10_000_000;

/// What a PEM text holds.
pub(super) enum Envelope {
    /// A PKCS#8 key in DER.
    Plain(SecretDocument),
    /// One that a passphrase opens.
    Encrypted(SecretDocument),
}

/// Reads a PEM text as far as that needs no passphrase; else what is wrong with it.
pub(super) fn read(text: &str) -> Result<Envelope, &'static str> {
    let text = text.trim_start();
    if ["-----BEGIN EC PRIVATE", "-----BEGIN RSA PRIVATE"].iter().any(|label| text.starts_with(label)) {
        return Err("not PKCS#8; `openssl pkcs8 -topk8 -in OLD -out NEW` makes it so");
    }
    match SecretDocument::from_pem(text) {
        Ok((PLAIN, key)) => Ok(Envelope::Plain(key)),
        Ok((ENCRYPTED, key)) => {
            check_cost(&parse(&key)?)?;
            Ok(Envelope::Encrypted(key))
        }
        _ => Err("not a private key in PKCS#8 PEM"),
    }
}

/// The PKCS#8 key in an encrypted one; `None` where the passphrase is another.
pub(super) fn decrypt(encrypted: &SecretDocument, passphrase: &str) -> Option<SecretDocument> {
    let key = parse(encrypted).ok()?.decrypt(passphrase).ok()?;
    // One wrong passphrase in 256 leaves what looks padded, but is no key.
    PrivateKeyInfo::try_from(key.as_bytes()).is_ok().then_some(key)
}

/// A PKCS#8 key as PEM text.
pub(super) fn write(key: &SecretDocument) -> Result<Zeroizing<String>, pkcs8::Error> {
    Ok(key.to_pem(PLAIN, LineEnding::LF)?)
}

/// A PKCS#8 key as PEM text under a passphrase. `salt` and `iv` are random.
pub(super) fn write_encrypted(
    key: &SecretDocument,
    passphrase: &str,
    (salt, iv): &([u8; 16], [u8; 16]),
) -> Result<Zeroizing<String>, pkcs8::Error> {
    let cost = scrypt::Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P, SCRYPT_LENGTH)
        .map_err(|_| pkcs8::Error::ParametersMalformed)?;
    let scheme = Parameters::scrypt_aes256cbc(cost, salt, iv)?;
    let encrypted = PrivateKeyInfo::try_from(key.as_bytes())?.encrypt_with_params(scheme, passphrase)?;
    Ok(encrypted.to_pem(ENCRYPTED, LineEnding::LF)?)
}

fn parse(encrypted: &SecretDocument) -> Result<EncryptedPrivateKeyInfo<'_>, &'static str> {
    EncryptedPrivateKeyInfo::try_from(encrypted.as_bytes())
        .map_err(|_| "encrypted in a way that is not read; `openssl pkcs8 -topk8 -v2 aes256` makes one that is")
}

fn check_cost(key: &EncryptedPrivateKeyInfo<'_>) -> Result<(), &'static str> {
    let Some(scheme) = key.encryption_algorithm.pbes2() else {
        return Err("encrypted with PBES1, which is broken; `openssl pkcs8 -topk8 -v2 aes256` makes it PBES2");
    };
    let affordable = match &scheme.kdf {
        Kdf::Pbkdf2(cost) => cost.iteration_count <= PBKDF2_ITERATIONS_MAX,
        Kdf::Scrypt(cost) => {
            let block = 128_u64.saturating_mul(cost.block_size.into());
            block.saturating_mul(cost.cost_parameter) <= SCRYPT_MEMORY_MAX && cost.parallelization <= SCRYPT_P_MAX
        }
        _ => true,
    };
    if affordable { Ok(()) } else { Err("its passphrase is derived at a cost that no sane key asks for") }
}
