//! What can go wrong with the repository we write.

use std::path::PathBuf;

use jiff::Timestamp;

use super::keys::SecretKind;
use crate::base::{Fault, files::FileError};

/// An error of the signer's side. Each says in one sentence what happened and what the way out is.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The file system said no.
    #[error(transparent)]
    File(#[from] FileError),
    /// Something the repository needs of this machine failed: randomness, a worker thread.
    #[error("cannot {action}: {source}")]
    Machine {
        /// What was tried, as a verb.
        action: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A private key, or a file that opens one, that others may read or replace.
    #[error("{what} {path} {why}; make it a file of yours alone with `chmod 600 {path}`, or use a new one")]
    LooseKey {
        /// What it is: `private key`.
        what: String,
        /// The key file.
        path: PathBuf,
        /// What is loose: `is readable by others (mode 0644)`.
        why: String,
    },
    /// A file that should be a key is none.
    #[error("{path} is not a usable key: {why}")]
    BadKey {
        /// The key file.
        path: PathBuf,
        /// What stands there instead.
        why: String,
    },
    /// A passphrase that does not open a key.
    #[error(
        "the passphrase from {from} does not open private key {path}; give the right one with --passphrase-file FILE or \
         {variable}", variable = SecretKind::Passphrase.variable()
    )]
    WrongPassphrase {
        /// The key file.
        path: PathBuf,
        /// Where it came from.
        from: String,
    },
    /// A passphrase or a PIN is needed, none was given, and there is nobody to ask.
    #[error(
        "the {kind} of {key} is needed and standard input is no terminal; give {option} FILE, or set {variable} or \
         {common}", option = kind.option(), common = kind.variable()
    )]
    NoSecret {
        /// What is needed.
        kind: SecretKind,
        /// The key as sentences name it.
        key: String,
        /// The variable that holds it for this key alone.
        variable: String,
    },
    /// A passphrase or a PIN that cannot be one.
    #[error("the {kind} from {from} cannot be used: {why}")]
    BadSecret {
        /// What was wanted.
        kind: SecretKind,
        /// Where it came from.
        from: String,
        /// What is wrong with it, and the way out.
        why: &'static str,
    },
    /// A key on a token, and a program that knows none.
    #[error("{path} is a key on a token, and this tufgate is built without the feature `pkcs11`; use one that has it")]
    NoTokens {
        /// The token file.
        path: PathBuf,
    },
    /// A key on a token that cannot be found or used.
    #[error("key {key}: {why}")]
    Token {
        /// Its URI.
        key: String,
        /// What is wrong, and the way out.
        why: String,
    },
    /// There is a file already where a key was to be generated.
    #[error("{path} exists already; keys are never overwritten, name another file")]
    KeyExists {
        /// The file that stands there.
        path: PathBuf,
    },
    /// The folder is no repository.
    #[error("{dir} is not a tufgate repository; create one with `tufgate repo init {dir}`")]
    NotARepository {
        /// The folder as it was named.
        dir: PathBuf,
    },
    /// A name of whoever works here that cannot be written down.
    #[error("--by takes a name of one line and at most {max} characters; leave it empty to be written down nowhere")]
    AuthorName {
        /// The longest, in characters.
        max: usize,
    },
    /// There is no publication yet to build on.
    #[error(
        "{dir} has no first publication yet; `tufgate repo status {dir}` says who has to sign it, and \
         `tufgate repo publish {dir}` makes it"
    )]
    Unfounded {
        /// The folder.
        dir: PathBuf,
    },
    /// `init` in a folder that is a repository already.
    #[error("{dir} is a tufgate repository already; use it, or name another folder")]
    AlreadyARepository {
        /// The folder as it was named.
        dir: PathBuf,
    },
    /// `init` in a folder that holds something else under a name we need.
    #[error("{path} is in the way of a new repository; name another folder")]
    InTheWay {
        /// What stands there.
        path: PathBuf,
    },
    /// The folder was written by a newer tufgate.
    #[error("{dir} has format {found}, this tufgate knows formats up to {known}; use a newer tufgate")]
    NewerFormat {
        /// The folder.
        dir: PathBuf,
        /// Format found.
        found: u64,
        /// The newest known here.
        known: u64,
    },
    /// Another process holds the lock.
    #[error("another tufgate command is working on {dir}; wait for it to end, then run this one again")]
    Busy {
        /// The folder.
        dir: PathBuf,
    },
    /// Another process keeps the timestamps of this folder fresh.
    #[error("another `tufgate repo serve-timestamps` works on {dir}; one is enough, end that one first")]
    ServedAlready {
        /// The folder.
        dir: PathBuf,
    },
    /// A file of the repository does not read.
    #[error("{path} is damaged: {why}; restore it from a copy")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The record of a publication that was not begun here: nothing of it is written.
    #[error(
        "{path} records no publication that was begun here: {why}; nothing of it was published, remove it to go on"
    )]
    ForeignRecord {
        /// The record.
        path: PathBuf,
        /// What gives it away.
        why: String,
    },
    /// A staged role has what nobody who is shown the change would see.
    #[error(
        "{path}: {why}; nothing of it is signed: find out who wrote it, take the file away and stage the change anew"
    )]
    NotStagedByUs {
        /// The file of the role.
        path: PathBuf,
        /// What it has.
        why: String,
    },
    /// What is published does not verify from the repository's own anchor.
    #[error("the publication in {dir} does not verify: {why}; restore {dir} from a copy")]
    Unverified {
        /// The published folder.
        dir: PathBuf,
        /// The reason that verification gave.
        why: String,
    },
    /// What was about to be published does not verify, so it was not.
    #[error("refused to publish what would not verify: {why}")]
    WouldNotVerify {
        /// The reason that verification gave.
        why: String,
    },
    /// Too few signatures of a role: staged ones, and those that the keys at hand make.
    #[error(
        "role {role} needs {threshold} signature(s) of its keys{by} and has {have}{dropped}; missing are those of key id(s) \
         {missing}: let them sign with `tufgate repo sign`, or put such a private key into {keys}"
    )]
    BelowThreshold {
        /// The role that would be signed.
        role: String,
        /// Whose keys, where there are several sets: ` in version 1`.
        by: Box<str>,
        /// Signatures needed.
        threshold: u64,
        /// Valid signatures, staged or made here.
        have: u64,
        /// Where it had others: ` (others were dropped, since …)`.
        dropped: Box<str>,
        /// The key ids of the role that have not signed.
        missing: String,
        /// The folder where private keys were looked for.
        keys: PathBuf,
    },
    /// A number of bins that a hash does not number.
    #[error("{bins} bins are impossible; name a power of two from 2 to {max}")]
    Bins {
        /// What was asked for.
        bins: u32,
        /// The most.
        max: u32,
    },
    /// A name that a delegated role cannot have.
    #[error("a role cannot be named `{name}`: {why}")]
    RoleName {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A delegation to a role that there is.
    #[error(
        "there is a role {name} already; change its keys and threshold with `tufgate repo rotate`, or choose another name"
    )]
    RoleExists {
        /// Its name.
        name: String,
    },
    /// A delegation that cannot be.
    #[error("cannot delegate: {why}")]
    Delegation {
        /// What stands in the way.
        why: &'static str,
    },
    /// A role that the repository does not have.
    #[error("there is no role {role} here; `tufgate repo status` lists them")]
    UnknownRole {
        /// Its name.
        role: String,
    },
    /// A key that is of no role that is to be signed.
    #[error("key {keyid} may sign nothing of what is staged; the roles wait for {wanted}")]
    KeyNotInRole {
        /// Its id.
        keyid: String,
        /// The key ids whose signatures are missing.
        wanted: String,
    },
    /// A key id that names no key of the role, or several.
    #[error("`{keyid}` names {found} keys of role {role}; give the whole id as `tufgate repo status` shows it")]
    NoSuchKey {
        /// The id or its beginning.
        keyid: String,
        /// How many keys it names.
        found: usize,
        /// The role.
        role: String,
    },
    /// What is staged is not what somebody saw and means to sign.
    #[error(
        "change {seen} was to be signed, and what is staged now is change {found}; nothing was signed, look at it with \
         `tufgate repo diff`"
    )]
    OtherChange {
        /// The digest that was given.
        seen: String,
        /// That of what is staged.
        found: String,
    },
    /// Nothing is staged that could be signed.
    #[error("nothing is staged and nothing is due: there is nothing to sign")]
    NothingToSign,
    /// A staged root that cannot be one.
    #[error("staged role {role} has {keys} key(s) and threshold {threshold}: it could never be signed")]
    ImpossibleThreshold {
        /// The role.
        role: String,
        /// Keys it lists.
        keys: usize,
        /// Signatures it asks for.
        threshold: u64,
    },
    /// A length of time that a role cannot have.
    #[error("role {role} cannot live {lifetime}: allowed are one second to 100 years")]
    Lifetime {
        /// The role.
        role: &'static str,
        /// What was asked for.
        lifetime: crate::base::Span,
    },
    /// Old versions that would be removed while readers may still be led to them.
    #[error(
        "old versions cannot be kept for {keep} only: a cache may hand out a timestamp for {timestamp}; keep them that \
         long at least"
    )]
    Keep {
        /// What was asked for.
        keep: crate::base::Span,
        /// How long a timestamp lives.
        timestamp: crate::base::Span,
    },
    /// A role has expired that this command cannot renew.
    #[error(
        "role {role} expired {expires}, by this machine's clock, which says {now:.0}; renew it with `tufgate repo publish` where \
         its private key is, or set the clock"
    )]
    Expired {
        /// The role.
        role: &'static str,
        /// When.
        expires: Timestamp,
        /// What the clock says.
        now: Timestamp,
    },
    /// The clock stands before what is published was signed.
    #[error(
        "this machine's clock says {now:.0}, and what is published was signed about {signed}: set the clock; or, if it is \
         right and the one that signed was ahead, sign anew with `tufgate repo publish --refresh --clock-is-right`"
    )]
    ClockBehind {
        /// What the clock says.
        now: Timestamp,
        /// When what is published was signed, as its expiries say.
        signed: Timestamp,
    },
    /// A target path that cannot lie in the published folder.
    #[error("target path `{path}` cannot be stored: {why}")]
    TargetPath {
        /// The path, cut to 200 characters.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something could not be written as canonical JSON.
    #[error("cannot encode {what}: {why}")]
    Encode {
        /// What was to be written.
        what: &'static str,
        /// What the encoder said.
        why: String,
    },
}

impl RepositoryError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unverified { .. }
            | Self::WouldNotVerify { .. }
            | Self::OtherChange { .. }
            | Self::NotStagedByUs { .. } => Fault::Refused,
            _ => Fault::Local,
        }
    }

    /// Whether the command line or what it names was wrong (exit code 2) rather than the machine.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::NotARepository { .. }
                | Self::Unfounded { .. }
                | Self::AuthorName { .. }
                | Self::AlreadyARepository { .. }
                | Self::InTheWay { .. }
                | Self::NewerFormat { .. }
                | Self::KeyExists { .. }
                | Self::BadKey { .. }
                | Self::LooseKey { .. }
                | Self::WrongPassphrase { .. }
                | Self::NoSecret { .. }
                | Self::BadSecret { .. }
                | Self::NoTokens { .. }
                | Self::ImpossibleThreshold { .. }
                | Self::Lifetime { .. }
                | Self::Keep { .. }
                | Self::TargetPath { .. }
                | Self::Bins { .. }
                | Self::RoleName { .. }
                | Self::RoleExists { .. }
                | Self::Delegation { .. }
                | Self::UnknownRole { .. }
                | Self::KeyNotInRole { .. }
                | Self::NoSuchKey { .. }
                | Self::NothingToSign
        )
    }

    pub(crate) fn machine(action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Machine { action, source }
    }

    pub(crate) fn damaged(path: impl Into<PathBuf>, why: impl ToString) -> Self {
        Self::Damaged { path: path.into(), why: why.to_string() }
    }
}
