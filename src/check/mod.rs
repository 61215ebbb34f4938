//! The doctor behind `mc_ctl check`: every prerequisite of a pair, on both servers and the arbiter.
//!
//! Two steps. [`collect`] reads what one server is like, into [`Facts`]: plain values that go to the other server as JSON,
//! so that either can judge both. [`examine`] is pure: facts in, [`Finding`]s out, in the order in which an operator should
//! mend them. Nothing is changed, and nothing waits longer than its time limit: what cannot be read is a finding too.
//!
//! A part of the facts, with how it is collected and what is found in it, is one module: [`instance`] (what PostgreSQL and its
//! files say), [`host`] (the machine, its services, clocks, programs), [`pace`] (how quickly heartbeats and probes were
//! answered). Called by `cli::check`, and by the controller for the other server.

pub mod host;
pub mod instance;
pub mod pace;

use crate::config::Config;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing need be done. Does not change the exit code.
    Notice,
    /// Something may go wrong, or a promise does not cover everything (exit code 1).
    Warning,
    /// The pair will not start, will not mirror, or would fail in a failover (exit code 2).
    Error,
}

/// A finding that there can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Stable: scripts and people search for it. Lower case, words joined by `-`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is looked at and why it matters, in a sentence; for the manual.
    pub about: &'static str,
}

/// Every finding that there can be, in the order of the manual. A test provokes each.
pub fn catalogue() -> impl Iterator<Item = &'static Entry> {
    [instance::CATALOGUE, host::CATALOGUE, pace::CATALOGUE].into_iter().flatten()
}

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// [`Entry::code`].
    pub code: &'static str,
    /// [`Entry::severity`].
    pub severity: Severity,
    /// The id of the server or arbiter it was found on; empty where it is of the pair.
    pub member: String,
    /// What was found, with the value, and the file and line where there is one.
    pub what: String,
    /// What mends it: a command, or the line to write.
    pub mend: String,
}

impl Entry {
    /// This, found on a member.
    pub fn found(&self, member: &str, what: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding {
            code: self.code,
            severity: self.severity,
            member: member.to_owned(),
            what: what.into(),
            mend: mend.into(),
        }
    }
}

/// What one server is like.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// Its id in `network.conf`.
    pub id: String,
    /// What PostgreSQL and its files say.
    pub instance: instance::Facts,
    /// The machine.
    pub host: host::Facts,
}

/// What is looked at together: what a server sees of itself, of the other, and of the arbiter.
#[derive(Clone, PartialEq, Debug)]
pub struct Seen {
    /// This server.
    pub own: Facts,
    /// The other one, or why it was not asked: its controller, or this one's, does not run, or is of an older version.
    pub peer: Result<Facts, String>,
    /// Both, and the arbiter, as this server's controller hears them; `None` where none runs.
    pub pace: Option<pace::Facts>,
}

/// Reads what this server is like, by `deadline` at the latest.
pub fn collect(config: &Config, deadline: Instant) -> Facts {
    Facts {
        id: config.id.clone(),
        instance: instance::collect(config, deadline),
        host: host::collect(config, deadline),
    }
}

/// What is wrong, the worst first.
pub fn examine(seen: &Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    instance::examine(seen, &mut found);
    host::examine(seen, &mut found);
    pace::examine(seen, &mut found);
    // stable: within a severity, as they were found
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}
