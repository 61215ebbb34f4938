//! One server's side of the protocol.

use super::event::{Action, Event, Settings};
use super::report::Report;
use super::types::{Durable, Time};

/// One server's decision core.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    settings: Settings,
}

impl Node {
    /// A node that has not booted yet.
    pub fn new(settings: Settings) -> Node {
        Node { settings }
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

    /// What is told to operators.
    pub fn report(&self, now: Time) -> Report {
        unimplemented!("{now:?}")
    }
}
