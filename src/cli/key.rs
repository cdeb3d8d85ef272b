//! `tufgate key`: keys in files and on tokens.

use std::{io::IsTerminal as _, path::PathBuf};

use clap::{Args, Subcommand};

use super::{Exit, Failure, print_json, print_line, secrets::SecretFiles};
#[cfg(feature = "pkcs11")]
use crate::repository::keys::TokenKey;
use crate::repository::{
    RepositoryError, SecretFile, Secrets,
    keys::{FileKey, PublicPart, Signer as _, public_path},
};

/// Arguments of `tufgate key`.
#[derive(Debug, Args)]
pub struct Key {
    #[command(flatten)]
    secrets: SecretFiles,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an ed25519 key: FILE (PKCS#8 PEM, mode 0600) and beside it the public part, FILE with `.pub.json`
    Generate(Generate),
    /// Show the public part of a key
    Show(Show),
    /// Put a private key under a passphrase, or under another one
    Encrypt(Encrypt),
    /// Take the passphrase off a private key
    Decrypt(Decrypt),
    /// Find a key on a PKCS#11 token, and write the file by which repositories know it
    #[cfg(feature = "pkcs11")]
    Token(Token),
}

#[derive(Debug, Args)]
struct Generate {
    /// The private key's file, which must not exist; by custom it ends in .pem
    file: PathBuf,
    /// Encrypt it under a passphrase
    #[arg(long)]
    encrypt: bool,
    /// Print the public part as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Encrypt {
    /// The private key's file, replaced at once
    file: PathBuf,
    /// A private file whose line is the new passphrase; without it whoever sits at the terminal is asked
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<SecretFile>,
}

#[derive(Debug, Args)]
struct Decrypt {
    /// The private key's file, replaced at once
    file: PathBuf,
}

#[cfg(feature = "pkcs11")]
#[derive(Debug, Args)]
struct Token {
    /// Which key: `pkcs11:token=LABEL;object=LABEL?module-path=FILE` (RFC 7512); without a module-path the library is the
    /// one that TUFGATE_PKCS11_MODULE names
    uri: String,
    /// The file to write, NAME.token.json; it holds the URI and the public part
    file: PathBuf,
    /// Print the public part as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Show {
    /// A private key, the public part of one, or the file of a key on a token
    file: PathBuf,
    /// Print the public part as JSON
    #[arg(long)]
    json: bool,
}

impl Key {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        self.secrets.install();
        match self.command {
            Command::Generate(command) => command.run(),
            Command::Show(Show { file, json }) => print_public(&PublicPart::load(&file).map_err(failure)?, json),
            Command::Encrypt(command) => command.run(),
            #[cfg(feature = "pkcs11")]
            Command::Token(Token { uri, file, json }) => {
                let key = TokenKey::register(&uri, &file, Secrets::of_process()).map_err(failure)?;
                eprintln!("tufgate: wrote {}", file.display());
                print_public(&key.public, json)
            }
            Command::Decrypt(Decrypt { file }) => {
                FileKey::decrypt(&file, Secrets::of_process()).map_err(failure)?;
                eprintln!("tufgate: {} needs no passphrase any more", file.display());
                Ok(Exit::Ok)
            }
        }
    }
}

impl Generate {
    fn run(self) -> Result<Exit, Failure> {
        let Self { file, encrypt, json } = self;
        let key =
            if encrypt { FileKey::generate_encrypted(&file, Secrets::of_process()) } else { FileKey::generate(&file) };
        let key = key.map_err(failure)?;
        eprintln!("tufgate: wrote {} and {}", file.display(), public_path(&file).display());
        print_public(key.public(), json)
    }
}

impl Encrypt {
    fn run(self) -> Result<Exit, Failure> {
        if self.new_passphrase_file.is_none() && !std::io::stdin().is_terminal() {
            let way_out = "give the new passphrase with --new-passphrase-file FILE, or run this at a terminal";
            return Err(Failure::usage(way_out.to_owned()));
        }
        let new = Secrets::for_change(self.new_passphrase_file);
        FileKey::encrypt(&self.file, Secrets::of_process(), &new).map_err(failure)?;
        eprintln!("tufgate: {} is encrypted under the new passphrase", self.file.display());
        Ok(Exit::Ok)
    }
}

fn print_public(key: &PublicPart, json: bool) -> Result<Exit, Failure> {
    if json {
        print_json(key)?;
    } else {
        print_line(&format!("keyid   {}\nscheme  {}\npublic  {}", key.keyid, key.scheme, key.keyval.public))?;
    }
    Ok(Exit::Ok)
}

fn failure(error: RepositoryError) -> Failure {
    super::repo::repository_failure(&error)
}
