//! `tufgate cache`.

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{ConfigFile, Exit, Failure, block_on, offline::Offline, print_json, print_line};
use crate::{
    base::files::{self, FolderLock},
    cache::{self, BlobId, CacheError, Inspection, Progress, Recheck, Unobserved},
    config::Config,
};

/// Arguments of `tufgate cache`.
#[derive(Debug, Args)]
pub struct Cache {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show how many files and bytes the cache holds
    Stat(Read),
    /// Read every file again and compare it with its digest, and with what signed metadata lists
    Verify(Read),
    /// Remove what top-level signed metadata does not list, and what is damaged; the gate must not be running
    Prune(Read),
}

#[derive(Debug, Args)]
struct Read {
    #[command(flatten)]
    config: ConfigFile,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Serialize)]
struct Verification {
    good: u64,
    /// Good bytes that no top-level metadata lists: revoked, replaced, or signed by a delegated role.
    unlisted: u64,
    bad: Vec<String>,
    bytes: u64,
}

impl Cache {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        match self.command {
            Command::Stat(read) => read.stat(),
            Command::Verify(read) => read.verify(),
            Command::Prune(read) => read.prune(),
        }
    }
}

impl Read {
    fn stat(&self) -> Result<Exit, Failure> {
        let config = Config::load(&self.config.config)?;
        let usage = match inspect(&config)? {
            Some(inspection) => inspection.usage().map_err(|error| failure(&error))?,
            None => cache::Usage::default(),
        };
        let size_max = config.cache.size_max.bytes();
        // The bucket is named and not counted: that would be one request for each thousand of its objects.
        let bucket = config.cache.bucket.as_ref().map(|tier| tier.bucket.url.as_str());
        let scrub = Progress::read(&config.state.dir.join(cache::SCRUB));
        if self.json {
            print_json(&serde_json::json!({
                "files": usage.blobs, "bytes": usage.bytes, "size_max": size_max, "bucket": bucket, "scrub": scrub,
            }))?;
            return Ok(Exit::Ok);
        }
        print_line(&format!("{} file(s), {} of {} bytes", usage.blobs, usage.bytes, size_max))?;
        bucket.map_or(Ok(()), |url| print_line(&format!("bucket {url}, shared and not counted here")))?;
        print_line(&match scrub.completed {
            Some(at) => format!(
                "all read again until {at}: {} good, {} of them not listed by top-level metadata, {} bad, {} unread",
                scrub.last.good, scrub.last.unlisted, scrub.last.bad, scrub.last.unread
            ),
            None => "not all read again yet".to_owned(),
        })?;
        if let Some(begun) = scrub.begun.filter(|_| scrub.after.is_some()) {
            let pass = scrub.pass;
            print_line(&format!("reading again since {begun}: {} good, {} bad so far", pass.good, pass.bad))?;
        }
        Ok(Exit::Ok)
    }

    fn verify(&self) -> Result<Exit, Failure> {
        let config = Config::load(&self.config.config)?;
        let offline = Offline::open(&config)?;
        let listed = offline.parts().listed();
        let mut sum = Verification::default();
        let Some(inspection) = inspect(&config)? else {
            return print_line("there is no cache yet").map(|()| Exit::Ok);
        };
        for (id, _) in inspection.list().map_err(|error| failure(&error))? {
            match inspection.check(&id).map_err(|error| failure(&error))? {
                Recheck::Good(bytes) => {
                    sum.good += 1;
                    sum.bytes += bytes;
                    sum.unlisted += u64::from(!listed.lists(&id, bytes));
                }
                Recheck::Bad(why) => sum.bad.push(format!("{id}: {why}")),
                Recheck::Absent => {}
            }
        }
        let strangers = inspection.strangers().map_err(|error| failure(&error))?;
        if strangers > 0 {
            sum.bad.push(format!("{strangers} thing(s) among the files that no cache wrote"));
        }
        if self.json {
            print_json(&sum)?;
        } else {
            sum.bad.iter().try_for_each(|bad| print_line(bad))?;
            print_line(&format!(
                "{} good ({} bytes), {} of them not listed by top-level metadata, {} bad",
                sum.good,
                sum.bytes,
                sum.unlisted,
                sum.bad.len()
            ))?;
        }
        Ok(if sum.bad.is_empty() { Exit::Ok } else { Exit::Refused })
    }

    fn prune(&self) -> Result<Exit, Failure> {
        let config = Config::load(&self.config.config)?;
        if inspect(&config)?.is_none() {
            return print_line("there is no cache yet").map(|()| Exit::Ok);
        }
        let cannot = |error: files::FileError| Failure::failed(error.to_string());
        let lock = FolderLock::try_take(&config.cache.dir, files::LOCK).map_err(cannot)?;
        let Some(_lock) = lock else {
            return Err(Failure::failed(format!("a gate serves from {}: stop it first", config.cache.dir.display())));
        };
        let offline = Offline::open(&config)?;
        for repository in offline.repositories() {
            if let Err(error) = repository.current() {
                return Err(Failure::of(
                    error.fault(),
                    format!("nothing is removed while trust is not current: {error}"),
                ));
            }
        }
        let keep = offline.parts().listed();
        let cache = cache::Cache::open(&config.cache, &config.state.dir, Arc::new(Unobserved));
        let cache = cache.map_err(|error| failure(&error))?;
        let pruned = block_on(async {
            let damaged = tokio::task::block_in_place(|| cache.verify(|_, _| std::ops::ControlFlow::Continue(())));
            let damaged = damaged.map_err(|error| failure(&error))?.bad;
            let keep = move |id: &BlobId| keep.names(id);
            let unlisted = cache.prune(keep).await.map_err(|error| failure(&error))?;
            cache.save().await.map_err(|error| failure(&error))?;
            Ok((unlisted, damaged))
        })?;
        let (unlisted, damaged) = pruned;
        if self.json {
            print_json(&serde_json::json!({ "unlisted": unlisted, "damaged": damaged }))?;
        } else {
            print_line(&format!("removed {unlisted} file(s) that are not listed and {damaged} damaged"))?;
        }
        Ok(Exit::Ok)
    }
}

/// The cache as it lies there; `None` before the first `serve` has made one.
fn inspect(config: &Config) -> Result<Option<Inspection>, Failure> {
    if !config.cache.dir.join("format").exists() {
        return Ok(None);
    }
    Inspection::open(&config.cache.dir).map(Some).map_err(|error| failure(&error))
}

fn failure(error: &CacheError) -> Failure {
    Failure::of(error.fault(), error)
}
