//! The options by which passphrases and PINs are given, of every command that opens a private key.

use clap::Args;

use crate::repository::{SecretFile, Secrets};

/// Files of secrets. Without them the environment is asked, then whoever sits at the terminal.
#[derive(Debug, Args)]
pub(super) struct SecretFiles {
    /// A private file (mode 0600) whose line is the passphrase of KEY (root for root.pem), or of all encrypted keys.
    /// Without it: TUFGATE_PASSPHRASE_KEY (…_ROOT), TUFGATE_PASSPHRASE, or a prompt
    #[arg(long, global = true, help_heading = "Secrets", value_name = "[KEY=]FILE")]
    passphrase_file: Vec<SecretFile>,
    /// The same for the PIN of the token of this label: TUFGATE_PIN_TOKEN, TUFGATE_PIN, or a prompt
    #[arg(long, global = true, help_heading = "Secrets", value_name = "[TOKEN=]FILE")]
    pin_file: Vec<SecretFile>,
}

impl SecretFiles {
    /// Makes them the process's own.
    pub(super) fn install(self) {
        Secrets::new(self.passphrase_file, self.pin_file).install();
    }
}
