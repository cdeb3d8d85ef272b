//! Signed listings: the target that makes a project's page independent of any index (decision 1).

use std::sync::Arc;

use moka::sync::Cache;

use super::{Trust, TrustError};
use crate::{
    base::{ByteSize, Digest},
    simple::{ListedFile, Listing, ProjectName},
    tuf::{TargetInfo, TargetPath},
};

/// The largest signed listing.
const LISTING_MAX: ByteSize = ByteSize::mib(32);
/// Memory for parsed listings of one mount, estimated in bytes.
const MEMORY_MAX: u64 = 32 << 20;
/// What one file of a listing takes in memory, roughly.
const FILE_WEIGHT: u32 = 512;

/// The signed listings of one mount.
pub struct Listings {
    /// With `{project}` in it.
    template: String,
    /// Parsed once for each digest: signed bytes never change their meaning.
    parsed: Cache<Digest, Arc<Listing>>,
}

/// A listing and the metadata that signs it.
#[derive(Clone, Debug)]
pub struct SignedListing {
    /// The files.
    pub listing: Arc<Listing>,
    /// The target that it is.
    pub info: TargetInfo,
}

impl Listings {
    /// Listings under `template`, such as `simple/{project}/index.json`.
    pub fn new(template: &str) -> Self {
        let weigh = |_: &Digest, listing: &Arc<Listing>| {
            u32::try_from(listing.files().len()).unwrap_or(u32::MAX).saturating_mul(FILE_WEIGHT).saturating_add(FILE_WEIGHT)
        };
        let parsed = Cache::builder().max_capacity(MEMORY_MAX).weigher(weigh).build();
        Self { template: template.to_owned(), parsed }
    }

    /// The template, as configured.
    pub fn template(&self) -> &str {
        &self.template
    }

    /// The project's listing; `None` where authentic metadata lists none.
    pub async fn get(&self, trust: &Trust, project: &ProjectName) -> Result<Option<SignedListing>, TrustError> {
        let Ok(path) = TargetPath::new(&self.template.replace("{project}", project.as_str())) else {
            return Ok(None);
        };
        let Some(info) = trust.look_up(&path).await? else { return Ok(None) };
        let digest = info.digests.primary().clone();
        if let Some(listing) = self.parsed.get(&digest) {
            return Ok(Some(SignedListing { listing, info }));
        }
        let bytes = trust.repository().target_document(&info, LISTING_MAX).await?;
        let listing = Listing::parse(&bytes, project).map_err(|error| TrustError::Listing {
            target: path,
            repository: trust.repository().name().to_owned(),
            why: error.to_string(),
        })?;
        let listing = Arc::new(listing);
        self.parsed.insert(digest, Arc::clone(&listing));
        Ok(Some(SignedListing { listing, info }))
    }
}

impl SignedListing {
    /// What the listing signs of one of its files, as a target: `listing = "authorises"`.
    pub fn authorise(&self, file: &ListedFile, path: TargetPath) -> TargetInfo {
        TargetInfo {
            path,
            length: file.size,
            digests: file.digests.clone(),
            custom: None,
            chain: self.info.chain.clone(),
        }
    }
}
