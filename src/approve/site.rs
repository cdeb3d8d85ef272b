//! A repository that is open to be edited, and what it takes to bring files into it.

use std::collections::BTreeSet;

use url::Url;

use super::{
    ApproveError, ApproveRequest, FileBases, Planned, Progress,
    candidates::{Place, Wanted},
    closure::Extras,
    download::check_size,
    kept::Kept,
    pip_config::Source,
    request::{fetch, index_of, is_trusted},
    stage::Stage,
};
use crate::{
    base::{ChunkHasher, Digest},
    repository::{ApprovalRules, Change, Editor, IndexRecord},
};

/// Where files are taken to. Nothing of it lasts unless it is saved.
pub(super) struct Site<'a> {
    pub(super) request: &'a ApproveRequest,
    pub(super) editor: Editor,
    /// Those of the repository, and of this approval.
    pub(super) rules: ApprovalRules,
    pub(super) bases: FileBases,
    pub(super) chunks: Option<ChunkHasher>,
    pub(super) progress: &'a dyn Progress,
    /// What was brought here, and the digests of all that is to be.
    kept: Option<Kept>,
    digests: BTreeSet<String>,
}

/// What was taken.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// What is known of each file.
    pub(super) files: Vec<Planned>,
    /// Their target paths, in the order in which they were staged.
    pub(super) approved: Vec<String>,
    /// Wheels whose METADATA is staged too.
    pub(super) metadata: usize,
    /// Bytes that were downloaded or copied, and hashed.
    pub(super) downloaded: u64,
}

impl<'a> Site<'a> {
    pub(super) fn new(
        request: &'a ApproveRequest,
        editor: Editor,
        rules: ApprovalRules,
        chunks: Option<ChunkHasher>,
        progress: &'a dyn Progress,
    ) -> Self {
        let bases = FileBases::read(editor.settings().index.as_ref().map_or(&[], |record| &record.file_bases));
        Self { request, editor, rules, bases, chunks, progress, kept: None, digests: BTreeSet::new() }
    }

    /// The index, where none was asked yet.
    pub(super) async fn index(&self) -> Result<(Url, Source), ApproveError> {
        index_of(self.request, &self.editor).await
    }

    /// Makes the bases those of these files too, and gives what they were; `seen` is where pages say that files are.
    /// Refuses files that are too large: before the first, so that nothing is downloaded in vain.
    pub(super) fn cover(&mut self, new: &[Wanted], seen: &[Url]) -> Result<FileBases, ApproveError> {
        let before = self.bases.clone();
        self.bases.cover(new.iter().filter_map(url), seen);
        new.iter().filter(|wanted| !is_trusted(self.request, wanted)).try_for_each(check_size)?;
        Ok(before)
    }

    /// Brings files here, checks and stages them.
    pub(super) async fn take(
        &mut self,
        new: Vec<Wanted>,
        before: &FileBases,
        extras: &Extras,
    ) -> Result<Taken, ApproveError> {
        let mut taken = Taken { files: new.iter().map(Planned::of).collect::<Result<_, _>>()?, ..Taken::default() };
        self.digests.extend(new.iter().filter_map(|wanted| wanted.sha256.as_ref()).map(Digest::to_hex));
        if !new.iter().all(|wanted| is_trusted(self.request, wanted)) {
            self.kept = Some(Kept::open(self.editor.layout(), &self.digests)?);
        }
        let (request, kept) = (self.request, self.kept.as_ref());
        let brought = fetch(request, new, kept, self.chunks.clone(), self.progress).await?;
        let now = request.clock.now();
        let mut stage = Stage::new(&mut self.editor, &self.bases, kept, now, request.store, extras);
        stage.rebase(before)?;
        for ((wanted, checked), planned) in brought.into_iter().zip(&mut taken.files) {
            if let Some(checked) = &checked {
                taken.downloaded = taken.downloaded.saturating_add(checked.length);
                planned.size = Some(checked.length);
                planned.sha256 = Some(checked.sha256.to_hex());
            }
            stage.add(&wanted, checked)?;
        }
        (taken.approved, taken.metadata) = stage.finish()?;
        Ok(taken)
    }

    /// Makes it last.
    pub(super) fn save(mut self, index: Option<IndexRecord>) -> Result<Change, ApproveError> {
        self.editor.settings_mut().index = index;
        let change = self.editor.save()?;
        if let Some(kept) = self.kept {
            kept.clear()?;
        }
        Ok(change)
    }
}

fn url(wanted: &Wanted) -> Option<&Url> {
    match &wanted.place {
        Place::Index(url) => Some(url),
        Place::Folder(_) => None,
    }
}
