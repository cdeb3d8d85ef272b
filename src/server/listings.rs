//! Signed listings: the target that makes a project's page independent of any index (decision 1).

use std::sync::Arc;

use moka::sync::Cache;

use super::{answer::Denial, files::Obtain, problem::Level};
use crate::{
    base::{Digest, Digests, Fault},
    simple::{Listing, ListingError, ProjectName},
    trust::Authorisation,
    tuf::TargetPath,
};

/// The largest signed listing, in bytes.
const LISTING_MAX: u64 = 32 << 20;
/// Memory for parsed listings of one mount, estimated in bytes.
const MEMORY_MAX: u64 = 32 << 20;
/// What one file of a listing takes in memory, roughly.
const FILE_WEIGHT: u32 = 512;

/// The signed listings of one mount, parsed once for each digest: signed bytes never change their meaning.
pub(super) struct Listings(Cache<ProjectName, (Digest, Arc<Listing>)>);

/// A listing and the target that it is.
#[derive(Clone, Debug)]
pub(super) struct SignedListing {
    pub(super) listing: Arc<Listing>,
    pub(super) signed: Authorisation,
}

impl Listings {
    pub(super) fn new() -> Self {
        let weigh = |_: &ProjectName, (_, listing): &(Digest, Arc<Listing>)| {
            let files = u32::try_from(listing.files().len()).unwrap_or(u32::MAX);
            files.saturating_add(1).saturating_mul(FILE_WEIGHT)
        };
        Self(Cache::builder().max_capacity(MEMORY_MAX).weigher(weigh).build())
    }

    /// The project's listing under `path`; `None` where authentic metadata lists none. It is a target like any other:
    /// fetched, verified, cached.
    pub(super) async fn get(
        &self,
        obtain: &Obtain,
        project: &ProjectName,
        path: &TargetPath,
    ) -> Result<Option<SignedListing>, Denial> {
        let denied = |fault, reason, sentence| Denial {
            target: Some(path.to_string()),
            ..Denial::new(Level::Page, fault, reason, path.as_str(), sentence)
        };
        let signed = obtain.trust.look_up(path).await;
        let signed = signed.map_err(|error| denied(error.fault(), error.reason(), error.to_string()))?;
        let Some(signed) = signed else { return Ok(None) };
        let digest = signed.info.digests.primary().clone();
        if let Some((_, listing)) = self.0.get(project).filter(|(known, _)| *known == digest) {
            return Ok(Some(SignedListing { listing, signed }));
        }
        let length = signed.info.length;
        if length > LISTING_MAX {
            return Err(denied(Fault::Refused, "too_large", format!("signed listing has {length} bytes")));
        }
        let bytes = obtain.whole(&signed).await;
        let bytes = bytes.map_err(|error| denied(error.fault(), error.reason(), error.to_string()))?;
        let unreadable = |error: ListingError| denied(error.fault(), "listing", error.to_string());
        let owner = project.clone();
        // Off the threads that answer requests: a large one takes a while.
        let parsed = tokio::task::spawn_blocking(move || Listing::parse(&bytes, &owner)).await;
        let ended = |_| denied(Fault::Local, "ended", "the signed listing was not read to its end".to_owned());
        let listing = Arc::new(parsed.map_err(ended)?.map_err(unreadable)?);
        self.0.insert(project.clone(), (digest, Arc::clone(&listing)));
        Ok(Some(SignedListing { listing, signed }))
    }

    /// The listing that was signed last, whether or not it is now: good for names alone.
    pub(super) fn kept(&self, project: &ProjectName) -> Option<Arc<Listing>> {
        self.0.get(project).map(|(_, listing)| listing)
    }
}

impl SignedListing {
    /// What the listing signs of a file: `listing = "authorises"`.
    pub(super) fn authorise_file(&self, filename: &str, path: &TargetPath) -> Option<Authorisation> {
        let file = self.listing.file(filename)?;
        Some(self.signed.of_listed(path.clone(), file.size, file.digests.clone()))
    }

    /// What the listing signs of a file's metadata (decision 3).
    pub(super) fn authorise_metadata(&self, filename: &str, path: &TargetPath) -> Option<Authorisation> {
        let metadata = self.listing.file(filename)?.core_metadata.as_ref()?;
        Some(self.signed.of_listed(path.clone(), metadata.size?, Digests::new([metadata.sha256.clone()])?))
    }
}
