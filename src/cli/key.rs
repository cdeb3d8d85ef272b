//! `tufgate key`: keys in files.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Exit, Failure, print_json, print_line};
use crate::repository::{
    RepositoryError,
    keys::{FileKey, PublicPart, Signer as _, public_path},
};

/// Arguments of `tufgate key`.
#[derive(Debug, Args)]
pub struct Key {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an ed25519 key: FILE (PKCS#8 PEM, mode 0600) and beside it the public part, FILE with `.pub.json`
    Generate(Generate),
    /// Show the public part of a key
    Show(Show),
}

#[derive(Debug, Args)]
struct Generate {
    /// The private key's file, which must not exist; by custom it ends in .pem
    file: PathBuf,
    /// Print the public part as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Show {
    /// A private key, or the public part of one
    file: PathBuf,
    /// Print the public part as JSON
    #[arg(long)]
    json: bool,
}

impl Key {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        match self.command {
            Command::Generate(Generate { file, json }) => {
                let key = FileKey::generate(&file).map_err(|error| failure(&error))?;
                eprintln!("tufgate: wrote {} and {}", file.display(), public_path(&file).display());
                print_public(key.public(), json)
            }
            Command::Show(Show { file, json }) => {
                print_public(&PublicPart::load(&file).map_err(|error| failure(&error))?, json)
            }
        }
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

fn failure(error: &RepositoryError) -> Failure {
    super::repo::repository_failure(error)
}
