//! Answers that were given, with what they rest on: the same request is answered again without asking anew.
//!
//! **Nothing is decided here.** An answer is given again only where deciding anew would come to the same: the very
//! trusted set in which it was decided is live and, judged now, current, and no role that was asked has expired
//! ([`Standing`], decisions 4 and 15); the index would give the same hint without being asked; the client sends the very
//! headers. In all other cases the request goes the whole way, through [`Gate::handle`](super::Gate::handle).

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use jiff::Timestamp;

use super::{
    answer::Decision,
    body::{self, Body},
    pages::{Page, Variant},
};
use crate::{cache::Expected, delivery::Delivery, front::coding::Coding, telemetry::metrics::Meter, trust::Standing};

/// Request targets of which answers are kept; when there are more, all are forgotten.
const TARGETS_MAX: usize = 4096;
/// The longest request target of which an answer is kept, in bytes.
const TARGET_BYTES_MAX: usize = 1024;
/// Forms of one page, each by the headers that asked for it; the oldest goes.
const FORMS_MAX: usize = 8;
/// One of so many requests goes the whole way, so that the caches on that way see what is in use.
const WHOLE_WAY_EVERY: u32 = 256;

/// The answers that are kept.
#[derive(Default)]
pub struct Recall(RwLock<HashMap<Box<str>, Arc<Kept>>>);

/// What is kept of the answers to one request target.
pub(super) struct Kept {
    /// The mount's name.
    pub(super) mount: Arc<str>,
    /// Label of metrics.
    pub(super) route: &'static str,
    pub(super) meter: Meter,
    ground: Ground,
    answer: KeptAnswer,
    given: AtomicU32,
}

/// What an answer rests on.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) standing: Standing,
    /// When everything else that it was made from is still so.
    pub(super) within: RangeInclusive<Timestamp>,
}

enum KeptAnswer {
    Page(Vec<Form>),
    File(Box<KeptFile>),
}

/// A page as the sender of certain headers gets it. The page itself is kept elsewhere, for as long as there is room.
#[derive(Clone)]
pub(super) struct Form {
    asked: [Option<HeaderValue>; 2],
    page: Weak<Page>,
    coding: Coding,
    headers: HeaderMap,
}

/// A file that is signed, and small enough for memory.
pub(super) struct KeptFile {
    pub(super) delivery: Delivery,
    pub(super) expected: Expected,
    pub(super) headers: HeaderMap,
    pub(super) decision: Decision,
}

/// An answer that is given again.
pub(super) struct Recalled {
    pub(super) response: Response<Body>,
    /// Whether it is a 304.
    pub(super) unchanged: bool,
}

/// The headers by which pages differ (`Vary`).
const VARY: [HeaderName; 2] = [header::ACCEPT, header::ACCEPT_ENCODING];
/// With one of these a file is not answered as a whole.
const CONDITIONS: [HeaderName; 3] = [header::RANGE, header::IF_RANGE, header::IF_NONE_MATCH];

impl Recall {
    /// What is kept for a request target.
    pub(super) fn look(&self, target: &str) -> Option<Arc<Kept>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(target).cloned()
    }

    /// Keeps a page that was answered, beside its other forms if those rest on the same.
    pub(super) fn keep_page(&self, target: &str, mount: &Arc<str>, meter: Meter, ground: Ground, form: Form) {
        let mut forms = match self.look(target).as_deref() {
            Some(Kept { answer: KeptAnswer::Page(forms), ground: before, .. }) if before.is_same(&ground) => {
                forms.iter().filter(|other| other.asked != form.asked).cloned().collect()
            }
            _ => Vec::new(),
        };
        forms.truncate(FORMS_MAX - 1);
        forms.insert(0, form);
        self.keep(target, Kept::new(mount, "page", meter, ground, KeptAnswer::Page(forms)));
    }

    /// Keeps a file that was answered whole out of memory.
    pub(super) fn keep_file(
        &self,
        target: &str,
        mount: &Arc<str>,
        route: &'static str,
        meter: Meter,
        ground: Ground,
        file: KeptFile,
    ) {
        self.keep(target, Kept::new(mount, route, meter, ground, KeptAnswer::File(Box::new(file))));
    }

    fn keep(&self, target: &str, kept: Kept) {
        if target.len() > TARGET_BYTES_MAX {
            return;
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= TARGETS_MAX && !all.contains_key(target) {
            all.clear();
        }
        all.insert(target.into(), Arc::new(kept));
    }
}

impl Kept {
    fn new(mount: &Arc<str>, route: &'static str, meter: Meter, ground: Ground, answer: KeptAnswer) -> Self {
        Self { mount: Arc::clone(mount), route, meter, ground, answer, given: AtomicU32::new(0) }
    }

    /// The answer to a `GET` with these headers, if it is still the same.
    pub(super) fn recall(&self, asked: &HeaderMap) -> Option<Recalled> {
        if self.given.fetch_add(1, Ordering::Relaxed) % WHOLE_WAY_EVERY == WHOLE_WAY_EVERY - 1 {
            return None;
        }
        if !self.ground.holds() {
            return None;
        }
        match &self.answer {
            KeptAnswer::Page(forms) => forms.iter().find(|form| form.is_asked(asked))?.recall(asked),
            KeptAnswer::File(file) if CONDITIONS.iter().all(|name| !asked.contains_key(name)) => {
                file.recall(&self.mount)
            }
            KeptAnswer::File(_) => None,
        }
    }

    /// What goes to the audit log; a page that is answered has none.
    pub(super) fn decision(&self) -> Option<&Decision> {
        match &self.answer {
            KeptAnswer::Page(_) => None,
            KeptAnswer::File(file) => Some(&file.decision),
        }
    }
}

impl Ground {
    fn holds(&self) -> bool {
        self.standing.holds().is_some_and(|now| self.within.contains(&now))
    }

    fn is_same(&self, other: &Self) -> bool {
        self.within == other.within && self.standing.is_same(&other.standing)
    }
}

impl Form {
    /// `variant` is the one of `page` that these headers ask for. `None` where they are too many to be told by.
    pub(super) fn new(asked: &HeaderMap, page: &Arc<Page>, variant: &Variant, headers: HeaderMap) -> Option<Self> {
        let asked = VARY.map(|name| {
            let mut lines = asked.get_all(name).iter();
            (lines.next().cloned(), lines.next().is_some())
        });
        let [(accept, false), (encoding, false)] = asked else { return None };
        Some(Self { asked: [accept, encoding], page: Arc::downgrade(page), coding: variant.coding, headers })
    }

    fn is_asked(&self, asked: &HeaderMap) -> bool {
        VARY.iter().zip(&self.asked).all(|(name, value)| {
            let mut lines = asked.get_all(name).iter();
            lines.next() == value.as_ref() && lines.next().is_none()
        })
    }

    fn recall(&self, asked: &HeaderMap) -> Option<Recalled> {
        let page = self.page.upgrade()?;
        let (response, unchanged) = page.variant(self.coding)?.response(asked, self.headers.clone());
        Some(Recalled { response, unchanged })
    }
}

impl KeptFile {
    fn recall(&self, mount: &str) -> Option<Recalled> {
        let blob = self.delivery.at_once(mount, &self.expected)?;
        let mut response = Response::new(body::full(blob.bytes()?.clone()));
        *response.headers_mut() = self.headers.clone();
        Some(Recalled { response, unchanged: false })
    }
}
