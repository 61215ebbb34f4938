//! The ledger of a server: the newest, what is durable of it, and what waits for a write.

use super::event::Action;
use super::reason::Reason;
use super::types::{Durable, Ledger, Notes, Time};

/// How long after a failed write it is tried again, ms.
const REWRITE_MS: u64 = 1_000;

/// The newest ledger and notes, and the writes that are out.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct LedgerStore {
    /// The newest ledger, which need not be durable yet.
    pub ledger: Option<Ledger>,
    /// The newest notes.
    pub notes: Notes,
    /// What is known to be durable.
    pub durable: Option<Durable>,
    /// The number of the last write.
    ordered: u64,
    /// The number of the last write that is durable.
    stored: u64,
    failed_at: Option<Time>,
    writing_since: Option<Time>,
    /// Actions that wait for a write.
    held: Vec<(u64, Action)>,
}

impl LedgerStore {
    /// Whether the newest ledger is durable.
    pub fn is_settled(&self) -> bool {
        self.ordered == self.stored
    }

    /// Since when something is being written that is not durable yet.
    pub fn writing_since(&self) -> Option<Time> {
        self.writing_since
    }

    /// Writes the newest ledger and notes, if there is a ledger.
    pub fn write(&mut self, now: Time, why: Option<Reason>, out: &mut Vec<Action>) {
        let Some(ledger) = self.ledger else { return };
        self.ordered += 1;
        self.failed_at = None;
        self.writing_since.get_or_insert(now);
        let durable = Durable { ledger, notes: self.notes };
        out.push(Action::Store(self.ordered, Box::new(durable), why));
    }

    /// Performs an action once everything written so far is durable.
    pub fn hold(&mut self, action: Action, out: &mut Vec<Action>) {
        if self.is_settled() { out.push(action) } else { self.held.push((self.ordered, action)) }
    }

    /// The write of this number is durable. Returns the actions that waited for it.
    pub fn stored(&mut self, number: u64) -> Vec<Action> {
        if number <= self.stored || number > self.ordered {
            return Vec::new();
        }
        self.stored = number;
        if self.is_settled() {
            self.writing_since = None;
            self.durable = self.ledger.map(|ledger| Durable { ledger, notes: self.notes });
        }
        let (ready, held) = std::mem::take(&mut self.held).into_iter().partition(|(needs, _)| *needs <= number);
        self.held = held;
        Vec::into_iter(ready).map(|(_, action)| action).collect()
    }

    /// The write of this number has failed. False if it is not the newest one.
    pub fn failed(&mut self, number: u64, now: Time) -> bool {
        let newest = number == self.ordered && !self.is_settled();
        if newest {
            self.failed_at = Some(now);
        }
        newest
    }

    /// Whether a failed write is to be tried again now.
    pub fn must_be_rewritten(&self, now: Time) -> bool {
        self.failed_at.is_some_and(|at| now.since(at) >= REWRITE_MS)
    }
}
