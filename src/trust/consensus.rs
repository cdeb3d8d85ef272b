//! Several repositories under a map: asked at once, entry by entry, and decided on.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};

use super::{
    Authorisation, Evidence, Heard, Observer, Readiness, Said, State, TrustError,
    authorisation::Signatory,
    decision::{Answer, Decision, Voice as _, decide, largest},
    evidence::quoted,
    keys::{Keys, SharedKey},
    map::Map,
};
use crate::{
    base::Fault,
    tuf::{TargetPath, TrustedSet},
    updater::{Repository, UpdaterError},
};

/// The repositories of one mount's map.
pub(super) struct Consensus {
    mount: Arc<str>,
    map: Map,
    /// All of the map, in the order of their names.
    repositories: Vec<Arc<Repository>>,
    /// For each entry of the map its repositories, as places in `repositories`.
    entries: Vec<Vec<usize>>,
    observer: Arc<dyn Observer>,
}

type Answers = Vec<Answer<Signatory, Arc<UpdaterError>>>;

impl Consensus {
    /// Joins a map with the repositories it names; the error is the first name that is none of theirs.
    pub(super) fn new(
        mount: &str,
        map: Map,
        known: &[Arc<Repository>],
        observer: Arc<dyn Observer>,
    ) -> Result<Self, String> {
        let find = |name: &String| {
            let found = known.iter().find(|repository| repository.name() == name);
            found.cloned().ok_or_else(|| name.clone())
        };
        let repositories = map.repositories().keys().map(find).collect::<Result<Vec<_>, _>>()?;
        let places: BTreeMap<&String, usize> = map.repositories().keys().zip(0..).collect();
        let of = |name: &String| places.get(name).copied().ok_or_else(|| name.clone());
        let entries =
            map.entries().iter().map(|entry| entry.repositories.iter().map(of).collect()).collect::<Result<_, _>>()?;
        Ok(Self { mount: mount.into(), map, repositories, entries, observer })
    }

    pub(super) fn map(&self) -> &Map {
        &self.map
    }

    pub(super) fn repositories(&self) -> &[Arc<Repository>] {
        &self.repositories
    }

    /// Asks entry by entry until one decides.
    pub(super) async fn judge(&self, path: &TargetPath) -> Result<Authorisation, TrustError> {
        let mut heard = Vec::new();
        for entry in self.entries_for(path) {
            let (answers, decision) = self.hear(entry, path).await;
            let evidence = self.evidence(entry, Some(path), &answers, &decision);
            self.observe(&evidence, &decision);
            match decision {
                Decision::Agreed(group) => {
                    let agreed = take(answers, &group);
                    return Authorisation::by_several(agreed, evidence.clone())
                        .ok_or_else(|| TrustError::Disagreement(Box::new(evidence)));
                }
                Decision::TooFew => heard.push(evidence),
                Decision::Disagreed => return Err(TrustError::Disagreement(Box::new(evidence))),
                Decision::KeysShared => return Err(TrustError::SharedKeys(Box::new(evidence))),
                Decision::Untold | Decision::Open => return Err(TrustError::Untold(Box::new(evidence))),
            }
            if self.map.entries().get(entry).is_some_and(|entry| entry.terminating) {
                break;
            }
        }
        let target = path.to_string();
        Err(if heard.is_empty() { TrustError::NoEntry { target } } else { TrustError::TooFew { target, heard } })
    }

    /// What the repositories say at each entry that is for the target, all of them waited for.
    pub(super) async fn testimony(&self, path: &TargetPath) -> Vec<Evidence> {
        let mut heard = Vec::new();
        for entry in self.entries_for(path) {
            let asked = self.members(entry).map(|repository| ask(repository, path));
            let answers: Answers = futures_util::future::join_all(asked).await;
            let decision = decide(self.threshold(entry), &answers);
            heard.push(self.evidence(entry, Some(path), &answers, &decision));
            let terminating = self.map.entries().get(entry).is_some_and(|entry| entry.terminating);
            if decision != Decision::TooFew || terminating {
                break;
            }
        }
        heard
    }

    /// The sets that are current, after a refresh of those that are not; it waits no longer than until every entry has
    /// enough of them. An error where no entry has.
    pub(super) async fn fresh(&self) -> Result<State, TrustError> {
        let mut sets: Vec<Option<Arc<TrustedSet>>> = vec![None; self.repositories.len()];
        let mut errors: BTreeMap<usize, Arc<UpdaterError>> = BTreeMap::new();
        let asked = self.repositories.iter().enumerate();
        let mut pending: FuturesUnordered<_> =
            asked.map(|(n, repository)| async move { (n, repository.fresh().await) }).collect();
        let mut take = |sets: &mut Vec<_>, (n, fresh): (usize, Result<Arc<TrustedSet>, UpdaterError>)| match fresh {
            Ok(set) => {
                if let Some(place) = sets.get_mut(n) {
                    *place = Some(set);
                }
            }
            Err(error) => drop(errors.insert(n, Arc::new(error))),
        };
        let enough =
            |entry: usize, sets: &[Option<Arc<TrustedSet>>]| self.current_in(entry, sets) >= self.threshold(entry);
        while !(0..self.entries.len()).all(|entry| enough(entry, &sets))
            && let Some(fresh) = pending.next().await
        {
            take(&mut sets, fresh);
        }
        while let Some(Some(fresh)) = pending.next().now_or_never() {
            take(&mut sets, fresh);
        }
        drop(pending);
        if (0..self.entries.len()).any(|entry| enough(entry, &sets)) {
            return Ok(State::Several(sets.into()));
        }
        let said = |n: &usize| match errors.get(n) {
            Some(error) => Said::Broken(Arc::clone(error)),
            None => Said::Current,
        };
        let members = self.entries.first().map(Vec::as_slice).unwrap_or_default();
        let said =
            members.iter().filter_map(|n| Some((self.repositories.get(*n)?.name().to_owned(), said(n)))).collect();
        let (target, threshold, shared) = (None, self.threshold(0), Vec::new());
        Err(TrustError::Untold(Box::new(Evidence { target, entry: 0, threshold, said, shared })))
    }

    /// The targets that top-level metadata of enough repositories of an entry lists.
    pub(super) fn listed(&self, sets: &[Option<Arc<TrustedSet>>]) -> Vec<TargetPath> {
        let lists = |n: &usize, path: &TargetPath| {
            let set = sets.get(*n).and_then(Option::as_ref);
            set.is_some_and(|set| set.targets().targets.contains_key(path.as_str()))
        };
        let enough = |entry: usize, path: &TargetPath| {
            let members = self.entries.get(entry).map(Vec::as_slice).unwrap_or_default();
            members.iter().filter(|n| lists(n, path)).count() >= self.threshold(entry)
        };
        let mut paths: Vec<TargetPath> = sets.iter().flatten().flat_map(|set| set.targets().paths()).collect();
        paths.sort_unstable();
        paths.dedup();
        paths.retain(|path| self.entries_for(path).any(|entry| enough(entry, path)));
        paths
    }

    /// Whether every entry has enough current repositories, and what is to be said of those that are not, or that share
    /// keys.
    pub(super) fn readiness(&self) -> Readiness {
        let sets: Vec<Result<Arc<TrustedSet>, UpdaterError>> =
            self.repositories.iter().map(|repository| repository.current()).collect();
        let mut remarks: Vec<String> = self
            .repositories
            .iter()
            .zip(&sets)
            .filter_map(|(repository, set)| {
                Some(format!("repository \"{}\": {}", repository.name(), set.as_ref().err()?))
            })
            .collect();
        let sets: Vec<Option<Arc<TrustedSet>>> = sets.into_iter().map(Result::ok).collect();
        let mut ready = true;
        for (n, entry) in self.map.entries().iter().enumerate() {
            let count = self.current_in(n, &sets);
            remarks.extend(self.shared_in(n, &sets).iter().map(ToString::to_string));
            if count < entry.threshold {
                ready = false;
                let (mount, names) = (&self.mount, quoted(&entry.repositories));
                let need = format!("needs {} of {names}, {count} can be counted on", entry.threshold);
                remarks.push(format!("mount \"{mount}\": entry {n} of its map {need}"));
            }
        }
        Readiness { ready, remarks }
    }

    /// Keys that repositories of an entry with a threshold above 1 share now.
    pub(super) fn shared_keys(&self) -> Vec<SharedKey> {
        let sets: Vec<_> = self.repositories.iter().map(|repository| repository.current().ok()).collect();
        (0..self.entries.len()).flat_map(|entry| self.shared_in(entry, &sets)).collect()
    }

    /// The repositories that the map asks for a target.
    pub(super) fn asked_for(&self, path: Option<&TargetPath>) -> Vec<&Arc<Repository>> {
        let Some(path) = path else { return self.repositories.iter().collect() };
        let mut places: Vec<usize> =
            self.entries_for(path).filter_map(|entry| self.entries.get(entry)).flatten().copied().collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().filter_map(|n| self.repositories.get(n)).collect()
    }

    fn entries_for(&self, path: &TargetPath) -> impl Iterator<Item = usize> {
        let entries = self.map.entries().iter().enumerate();
        entries.filter(|(_, entry)| entry.paths.iter().any(|pattern| path.matches(pattern))).map(|(n, _)| n)
    }

    fn members(&self, entry: usize) -> impl Iterator<Item = &Arc<Repository>> {
        let places = self.entries.get(entry).map(Vec::as_slice).unwrap_or_default();
        places.iter().filter_map(|n| self.repositories.get(*n))
    }

    fn threshold(&self, entry: usize) -> usize {
        self.map.entries().get(entry).map_or(usize::MAX, |entry| entry.threshold)
    }

    /// How many repositories of an entry have a set and share no key with one another.
    fn current_in(&self, entry: usize, sets: &[Option<Arc<TrustedSet>>]) -> usize {
        let keys = self.keys_in(entry, sets);
        let keys: Vec<(usize, &Keys)> = keys.iter().map(|(n, keys)| (*n, keys)).collect();
        largest(&keys, &|one, other| one.common(other).is_none()).len()
    }

    fn shared_in(&self, entry: usize, sets: &[Option<Arc<TrustedSet>>]) -> Vec<SharedKey> {
        if self.threshold(entry) < 2 {
            return Vec::new();
        }
        let name = |n: usize| self.repositories.get(n).map(|repository| repository.name()).unwrap_or_default();
        let keys = self.keys_in(entry, sets);
        pairs(&keys, |(one, ours), (other, theirs)| shared(name(*one), ours, name(*other), theirs))
    }

    fn keys_in(&self, entry: usize, sets: &[Option<Arc<TrustedSet>>]) -> Vec<(usize, Keys)> {
        let places = self.entries.get(entry).map(Vec::as_slice).unwrap_or_default();
        places.iter().filter_map(|n| Some((*n, Keys::of_set(sets.get(*n)?.as_ref()?)))).collect()
    }

    /// Asks all repositories of an entry at once, and waits no longer than until it is decided: one that hangs must not
    /// keep up what the others have settled.
    async fn hear(&self, entry: usize, path: &TargetPath) -> (Answers, Decision) {
        let threshold = self.threshold(entry);
        let asked = self.members(entry).enumerate();
        let mut pending: FuturesUnordered<_> =
            asked.map(|(n, repository)| async move { (n, ask(repository, path).await) }).collect();
        let mut answers: Answers = self.members(entry).map(|_| Answer::Unheard).collect();
        let take = |answers: &mut Answers, (n, answer)| {
            if let Some(place) = answers.get_mut(n) {
                *place = answer;
            }
        };
        while decide(threshold, &answers) == Decision::Open
            && let Some(answer) = pending.next().await
        {
            take(&mut answers, answer);
        }
        // What is known without waiting is heard too, so that a repository that says otherwise is noticed.
        while let Some(Some(answer)) = pending.next().now_or_never() {
            take(&mut answers, answer);
        }
        let decision = decide(threshold, &answers);
        (answers, decision)
    }

    fn evidence(&self, entry: usize, target: Option<&TargetPath>, answers: &Answers, decision: &Decision) -> Evidence {
        let agreed = |n: usize| matches!(decision, Decision::Agreed(group) if group.contains(&n));
        let said = |n: usize, answer: &Answer<Signatory, Arc<UpdaterError>>| match answer {
            Answer::Listed(Signatory { info, .. }) => {
                Said::Lists { length: info.length, digest: info.digests.primary().clone(), agreed: agreed(n) }
            }
            Answer::NotListed => Said::ListsNot,
            Answer::Broken(error) => Said::Broken(Arc::clone(error)),
            Answer::Unheard => Said::NotHeard,
        };
        let names = self.members(entry).map(|repository| repository.name().to_owned());
        let said = names.zip(answers.iter().enumerate()).map(|(name, (n, answer))| (name, said(n, answer))).collect();
        let listed = answers.iter().filter_map(|answer| if let Answer::Listed(by) = answer { Some(by) } else { None });
        let listed: Vec<&Signatory> = listed.collect();
        let shared = match self.threshold(entry) {
            0 | 1 => Vec::new(),
            _ => pairs(&listed, |one, other| {
                // Two that list different bytes are no threat to one another.
                let same = one.agrees(other);
                same.then(|| shared(one.repository.name(), &one.keys, other.repository.name(), &other.keys)).flatten()
            }),
        };
        Evidence { target: target.cloned(), entry, threshold: self.threshold(entry), said, shared }
    }

    fn observe(&self, evidence: &Evidence, decision: &Decision) {
        let contested = matches!(decision, Decision::Agreed(_) | Decision::Disagreed);
        for (repository, said) in &evidence.said {
            let heard = match said {
                Said::Lists { agreed: true, .. } => Heard::Agreed,
                Said::Lists { .. } if contested => Heard::Differed,
                Said::Lists { .. } => Heard::Listed,
                Said::ListsNot => Heard::NotListed,
                Said::Broken(error) if error.fault() == Fault::Refused => Heard::Refused,
                Said::Broken(_) => Heard::Unavailable,
                Said::Current | Said::NotHeard => continue,
            };
            self.observer.heard(&self.mount, repository, heard);
        }
    }
}

async fn ask(repository: &Arc<Repository>, path: &TargetPath) -> Answer<Signatory, Arc<UpdaterError>> {
    let found = match repository.lookup(path).await {
        Ok(found) => found,
        Err(error) => return Answer::Broken(Arc::new(error)),
    };
    let Some(info) = found else { return Answer::NotListed };
    match repository.current() {
        Ok(set) => {
            let keys = Keys::of_target(&set, &info);
            Answer::Listed(Signatory { repository: Arc::clone(repository), info, keys })
        }
        Err(error) => Answer::Broken(Arc::new(error)),
    }
}

/// Those of `answers` whose places are named.
fn take(answers: Answers, places: &[usize]) -> Vec<Signatory> {
    let listed = answers.into_iter().enumerate().filter(|(n, _)| places.contains(n));
    listed
        .filter_map(|(_, answer)| if let Answer::Listed(signatory) = answer { Some(signatory) } else { None })
        .collect()
}

fn shared(one: &str, ours: &Keys, other: &str, theirs: &Keys) -> Option<SharedKey> {
    let keyid = ours.common(theirs)?.clone();
    Some(SharedKey { repositories: [one.to_owned(), other.to_owned()], keyid })
}

/// What `look` finds in every two of `all`.
fn pairs<T, F>(all: &[T], look: impl Fn(&T, &T) -> Option<F>) -> Vec<F> {
    let mut found = Vec::new();
    for (n, one) in all.iter().enumerate() {
        found.extend(all.iter().skip(n + 1).filter_map(|other| look(one, other)));
    }
    found
}
