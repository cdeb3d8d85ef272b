//! What the trusted set says of a target, through delegated roles that are fetched when they are needed.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use url::Url;

use super::{
    Repository, UpdaterError,
    store::{version_of, version_of_targets},
};
use crate::{
    base::{ByteSize, Fault},
    tuf::{
        DelegatedTargets, MetaRequest, RoleKey, RoleName, RoleRequest, Step, TargetInfo, TargetPath, TrustedSet,
        TufError, Version,
    },
    upstream::{FileRequest, UpstreamError},
};

/// How often a target that broke off is resumed.
const RESUMES_MAX: u32 = 3;

impl Repository {
    /// What signed metadata says of a target; `None` when it is authentically not listed.
    ///
    /// Waits for a refresh where trust is not current: for the one under way, or for a new one, but not sooner than
    /// `demand_pause` after the last.
    ///
    /// # Errors
    /// Those of [`Repository::current`], and those of a delegated role that is visited and is missing, bad or expired:
    /// that ends the search, it is never passed over.
    pub async fn lookup(self: &Arc<Self>, path: &TargetPath) -> Result<Option<TargetInfo>, UpdaterError> {
        let set = self.fresh().await?;
        let error = match self.search(&set, path).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        // The repository may have moved on under our set, and the role's file with it: look once more if so.
        if !self.refresh_on_demand().await {
            return Err(error);
        }
        let newer = self.current()?;
        if newer.timestamp().bytes() == set.timestamp().bytes() {
            return Err(error);
        }
        self.search(&newer, path).await
    }

    /// The live set, after a refresh where it is not current, or where none was tried yet since the start.
    ///
    /// # Errors
    /// Those of [`Repository::current`].
    pub async fn fresh(self: &Arc<Self>) -> Result<Arc<TrustedSet>, UpdaterError> {
        if self.condition().last_attempt.is_none() {
            // Stored metadata may be long rolled over; but an upstream that is down must not take us with it.
            let _ = tokio::time::timeout(self.settings.first_refresh_wait.duration(), self.refresh()).await;
        }
        match self.current() {
            Ok(set) => Ok(set),
            Err(error) if self.refresh_on_demand().await => self.current().map_err(|newer| match newer.fault() {
                Fault::Refused => newer,
                _ => error,
            }),
            Err(error) => Err(error),
        }
    }

    /// Where a target lies in TUF's own layout behind `targets_url` (§5.7.3).
    ///
    /// # Errors
    /// A missing `targets_url`; a path that leaves the folder.
    pub fn target_url(&self, set: &TrustedSet, target: &TargetInfo) -> Result<Url, UpdaterError> {
        let missing = |why: &str| UpdaterError::Setting {
            repository: self.settings.name.clone(),
            key: "targets_url",
            why: why.to_owned(),
        };
        let base = self.targets.as_ref().ok_or_else(|| missing("it is needed for the targets of this repository"))?;
        let path = set.target_url_path(target).map_err(|source| self.tuf(source))?;
        // Appended, not resolved: a path that begins with `//` would else name a host.
        let mut url = base.clone();
        url.set_query(None);
        url.set_fragment(None);
        Url::parse(&format!("{url}{path}")).map_err(|error| missing(&error.to_string()))
    }

    /// A small target, such as a signed listing, fetched from `targets_url` and verified.
    ///
    /// # Errors
    /// [`UpdaterError::TargetTooLarge`] over `limit`; [`UpdaterError::Target`] for other bytes than the signed ones.
    pub async fn target_document(&self, target: &TargetInfo, limit: ByteSize) -> Result<Bytes, UpdaterError> {
        let (repository, path) = (self.settings.name.clone(), target.path.to_string());
        if target.length > limit.bytes() {
            return Err(UpdaterError::TargetTooLarge { repository, path, limit });
        }
        let set = self.current()?;
        let url = self.target_url(&set, target)?;
        let bytes = self.read_target(&url, target.length).await.map_err(|error| self.upstream(error))?;
        target.digests.check(&bytes).map_err(|mismatch| {
            self.observer.verification_failed(&repository, "hash");
            UpdaterError::Target { repository, path, detail: mismatch.to_string() }
        })?;
        Ok(bytes)
    }

    /// A metadata file byte for byte, by its name in the repository, for gates that read from this one. `None` for a
    /// name that is none of the current state.
    ///
    /// The reader verifies it from its own anchor; a delegated role is checked against the snapshot alone here.
    ///
    /// # Errors
    /// Those of [`Repository::current`] and of a delegated role that has to be fetched.
    pub async fn metadata_file(self: &Arc<Self>, name: &str) -> Result<Option<Bytes>, UpdaterError> {
        let set = self.fresh().await?;
        let Some((version, role)) = parse_file_name(name) else { return Ok(None) };
        let known = [
            (set.timestamp().name(), set.timestamp().version(), set.timestamp().shared_bytes()),
            (set.snapshot().name(), set.snapshot().version(), set.snapshot().shared_bytes()),
            (set.targets().name(), set.targets().version(), set.targets().shared_bytes()),
        ];
        if role == RoleName::root() {
            return Ok(version.filter(|version| *version <= set.root().version()).and_then(|v| self.stored_root(v)));
        }
        if let Some((_, current, bytes)) = known.into_iter().find(|(name, ..)| **name == role) {
            let versioned = set.consistent_snapshot() && role != RoleName::timestamp();
            return Ok((version == versioned.then_some(current)).then_some(bytes));
        }
        self.delegated_file(&set, &role, version).await
    }

    async fn delegated_file(
        &self,
        set: &TrustedSet,
        role: &RoleName,
        version: Option<Version>,
    ) -> Result<Option<Bytes>, UpdaterError> {
        let Ok(Some(meta)) = set.snapshot().role(role) else { return Ok(None) };
        if version != set.consistent_snapshot().then_some(meta.version) {
            return Ok(None);
        }
        let digests = match meta.hashes.as_ref().map(|hashes| hashes.digests()).transpose() {
            Ok(digests) => digests,
            Err(_) => return Ok(None),
        };
        let file_name = match version {
            Some(version) => role.versioned_file_name(version),
            None => role.file_name(),
        };
        let limit = meta.length.map_or(self.settings.targets_size_max, ByteSize).min(self.settings.targets_size_max);
        let (role, version, length) = (role.clone(), meta.version, meta.length);
        let request = MetaRequest { role, version, file_name, limit, length, digests };
        let listed_version = |bytes: &[u8]| version_of(bytes) == Some(version.get());
        if let Some(bytes) = self.store.role(&request.role)
            && request.check_bytes(&bytes).is_ok()
            && listed_version(&bytes)
        {
            return Ok(Some(bytes.into()));
        }
        self.first_accepted(&request, |bytes| request.check_bytes(&bytes).map(|()| Some(bytes))).await
    }

    fn stored_root(&self, version: Version) -> Option<Bytes> {
        self.store.root(version).map(Bytes::from)
    }

    async fn search(self: &Arc<Self>, set: &TrustedSet, path: &TargetPath) -> Result<Option<TargetInfo>, UpdaterError> {
        if let Some(answer) = self.answers.get(path).filter(|answer| answer.stands_in(set, self.clock.now())) {
            return Ok(answer.target().cloned());
        }
        let mut walk = set.walk(path);
        let mut roles: HashMap<RoleKey, Arc<DelegatedTargets>> = HashMap::new();
        let target = loop {
            match walk.step(&roles, self.clock.now()).map_err(|source| self.refuse(source))? {
                Step::Found(target) => break Some(target),
                Step::NotListed => break None,
                Step::Need(request) => {
                    let role = self.delegated(*request).await?;
                    roles.insert(role.key().clone(), role);
                }
            }
        };
        if let Some(answer) = walk.answer() {
            self.answers.insert(path.clone(), Arc::new(answer));
        }
        Ok(target)
    }

    /// A delegated role: from memory, from disk, else fetched once for all who need it.
    async fn delegated(self: &Arc<Self>, request: RoleRequest) -> Result<Arc<DelegatedTargets>, UpdaterError> {
        if let Some(role) = self.roles.get(request.key()).await {
            return Ok(role);
        }
        let (repository, key) = (Arc::clone(self), request.key().clone());
        let work = || async move { repository.load_role(&request).await };
        let interrupted = || Err(UpdaterError::Interrupted { repository: self.settings.name.clone() });
        self.role_fetches.join(key, work).await.unwrap_or_else(interrupted)
    }

    async fn load_role(&self, request: &RoleRequest) -> Result<Arc<DelegatedTargets>, UpdaterError> {
        let now = self.clock.now();
        let role = match self.stored_role(request, now) {
            Some(role) => role,
            None => {
                let role = self.first_accepted(&request.file, |bytes| request.accept(bytes, now)).await?;
                self.keep_role(&request.file.role, role.targets().shared_bytes()).await;
                role
            }
        };
        self.roles.insert(request.key().clone(), Arc::clone(&role)).await;
        Ok(role)
    }

    /// The role as it is stored, if that is what is asked for. One of another version is out of date, anything else that
    /// is refused is damaged.
    fn stored_role(&self, request: &RoleRequest, now: Timestamp) -> Option<Arc<DelegatedTargets>> {
        let stored = Bytes::from(self.store.role(&request.file.role)?);
        let version = version_of_targets(&stored);
        if version.is_some_and(|version| version != request.file.version.get()) {
            return None;
        }
        match request.accept(stored.clone(), now) {
            Ok(role) => return Some(role),
            Err(TufError::Expired { .. }) => {}
            Err(error) => self.store.found_role(&request.file.role, format!("{error}; fetched again")),
        }
        None
    }

    /// Refreshes unless that was done a moment ago. Whether it was done.
    async fn refresh_on_demand(self: &Arc<Self>) -> bool {
        let pause = self.settings.demand_pause.duration();
        let due = self.condition().last_attempt.is_none_or(|last| last.elapsed() >= pause);
        if !due {
            return false;
        }
        // Whatever it ends with, `current` knows.
        let _ = tokio::time::timeout(self.settings.first_refresh_wait.duration(), self.refresh()).await;
        true
    }

    async fn read_target(&self, url: &Url, length: u64) -> Result<Bytes, UpstreamError> {
        let mut bytes = BytesMut::new();
        let mut etag = None;
        for resumes in 0.. {
            let from = bytes.len() as u64;
            let request = FileRequest { from, etag: etag.as_deref(), ..FileRequest::new(url, &self.origins, length) };
            let mut body = self.client.open(&request).await?;
            if body.starts_at != from {
                bytes.clear();
            }
            let error = loop {
                match body.chunk().await {
                    Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                    Ok(None) => return Ok(bytes.freeze()),
                    Err(error) => break error,
                }
            };
            if !error.is_transient() || resumes >= RESUMES_MAX {
                return Err(error);
            }
            etag = body.etag.take();
        }
        Ok(bytes.freeze())
    }
}

/// `[N.]<quoted role>.json`. A role whose own name begins with digits and a dot is read as versioned, which its file
/// then is in every repository with consistent snapshots.
fn parse_file_name(name: &str) -> Option<(Option<Version>, RoleName)> {
    let stem = name.strip_suffix(".json")?;
    let (version, quoted) = match stem.split_once('.') {
        Some((digits, rest)) if digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty() => {
            (Some(Version::new(digits.parse().ok()?).ok()?), rest)
        }
        _ => (None, stem),
    };
    let role = percent_encoding::percent_decode_str(quoted).decode_utf8().ok()?;
    Some((version, RoleName::new(&role).ok()?))
}
