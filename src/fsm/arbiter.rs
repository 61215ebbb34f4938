//! The third member's side of the protocol, for one cluster.

use super::event::{Action, Event};
use super::types::{Durable, Time};

/// What an arbiter is set to, for one cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ArbiterSettings {
    /// Longest pause of its own loop that is not taken for a pause, ms.
    pub pause_ms: u64,
    /// Random; new for every process.
    pub seed: u64,
    /// What its ledger file held.
    pub durable: Option<Durable>,
}

/// The arbiter's core for one cluster. Of the events it takes [`Event::Tick`], [`Event::Heard`], [`Event::Refused`],
/// [`Event::Stored`] and [`Event::StoreFailed`]; of the actions it returns [`Action::Send`], [`Action::Store`] and
/// [`Action::Say`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Arbiter {
    settings: ArbiterSettings,
}

impl Arbiter {
    /// An arbiter that starts at `now`.
    pub fn new(settings: ArbiterSettings, now: Time) -> Arbiter {
        let _ = now;
        Arbiter { settings }
    }

    /// Folds one event in and returns what is to be done, in order.
    pub fn step(&mut self, now: Time, event: Event) -> Vec<Action> {
        let _ = (now, event, &self.settings);
        Vec::new()
    }

    /// What is known to be durable.
    pub fn durable(&self) -> Option<&Durable> {
        None
    }
}
