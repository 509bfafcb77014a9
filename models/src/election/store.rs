//! The lease, and the requests on their way to it.

use controllers_core::election::{Record, Stored};

use super::Mutant;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Ask {
    Read,
    Create(Record),
    Update { record: Record, version: String },
}

/// How it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Read(Option<Stored>),
    Written(Stored),
    /// What was to be written, which isn't.
    Refused(Record),
}

/// A request on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Request {
    pub(super) ask: Ask,
    /// The answer, once it was carried out.
    pub(super) answer: Option<Answer>,
    /// Whether somebody still waits for it.
    pub(super) awaited: bool,
    /// Who asked.
    pub(super) author: String,
}

/// What must never be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Broken {
    /// The lease was renewed or released by another than its holder.
    pub(super) another: bool,
    /// A new holder didn't count, or the same one did.
    pub(super) miscounted: bool,
    /// A write of one that led arrived while another might act.
    pub(super) arrived: bool,
}

/// What is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Store {
    pub(super) lease: Option<Stored>,
    /// As it was before its last change.
    pub(super) before: Option<Stored>,
    pub(super) broken: Broken,
}

impl Store {
    /// Who holds the lease; empty for nobody.
    pub(super) fn holder(&self) -> &str {
        self.lease.as_ref().map_or("", |stored| &stored.record.holder)
    }

    /// Carries a request out.
    pub(super) fn answer(&mut self, request: &Request, mutant: Option<Mutant>) -> Answer {
        let (record, expected) = match &request.ask {
            Ask::Read => return Answer::Read(self.lease.clone()),
            Ask::Create(record) => (record, None),
            Ask::Update { record, version } => (record, Some(version)),
        };
        let is_blind = mutant == Some(Mutant::NoCompare) && expected.is_some();
        if !is_blind && self.lease.as_ref().map(|stored| &stored.version) != expected {
            return Answer::Refused(record.clone());
        }
        self.judge(record, &request.author);
        Answer::Written(self.write(record))
    }

    fn write(&mut self, record: &Record) -> Stored {
        let version = self.lease.as_ref().map_or(0, |stored| stored.version.parse::<u32>().unwrap_or(0)) + 1;
        let stored = Stored { record: record.clone(), version: version.to_string() };
        self.before = self.lease.replace(stored.clone());
        stored
    }

    fn judge(&mut self, new: &Record, author: &str) {
        let Some(Stored { record: old, .. }) = &self.lease else { return };
        let is_takeover = new.transitions != old.transitions;
        self.broken.another |= !is_takeover && old.holder != author;
        let counts = !new.holder.is_empty() && new.holder != old.holder;
        self.broken.miscounted |= new.transitions - old.transitions != i32::from(counts);
    }
}
