//! The doctor behind `mc_ctl check`: every prerequisite of a pair, on both servers and the arbiter.
//!
//! Two steps. [`collect`] reads what one server is like, into [`Facts`]: plain values that go to the other server as JSON,
//! so that either can judge both. [`examine`] is pure: facts in, [`Finding`]s out, in the order in which an operator should
//! fix them. Nothing is changed, and nothing waits longer than its time limit: what cannot be read is a finding too.
//!
//! A part of the facts, with how it is collected and what is found in it, is one module: [`general`] (the configuration
//! itself, and what could not be looked at), [`instance`] (what PostgreSQL and its
//! files say), [`connections`] (passwords that are rejected, rebuilds that failed), [`host`] (the machine, its services,
//! clocks, programs), [`backups`], [`pace`] (how quickly heartbeats and probes were
//! answered), [`pair`] (not mirrored, instances that do not run). Called by `cli::check`, and by the controller for the other server.

pub mod backups;
pub mod connections;
pub mod general;
pub mod histogram;
pub mod host;
pub mod instance;
pub mod pace;
pub mod pair;
pub mod remedies;

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
    [
        general::CATALOGUE,
        instance::CATALOGUE,
        connections::CATALOGUE,
        host::CATALOGUE,
        backups::CATALOGUE,
        pace::CATALOGUE,
        pair::CATALOGUE,
    ]
    .into_iter()
    .flatten()
}

/// One thing that was found. As JSON its fields are stable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// [`Entry::code`].
    pub code: &'static str,
    /// [`Entry::severity`].
    pub severity: Severity,
    /// The id of the server or arbiter it was found on; empty where it is of the pair.
    pub member: String,
    /// What was found, with the value; without the file and line.
    pub what: String,
    /// The file in which it was found.
    pub file: Option<String>,
    /// The line there, from 1.
    pub line: Option<u32>,
    /// What fixes it: a command, or the line to write.
    pub fix: String,
}

impl Entry {
    const fn notice(code: &'static str, about: &'static str) -> Entry {
        Entry { code, severity: Severity::Notice, about }
    }

    const fn warning(code: &'static str, about: &'static str) -> Entry {
        Entry { code, severity: Severity::Warning, about }
    }

    const fn error(code: &'static str, about: &'static str) -> Entry {
        Entry { code, severity: Severity::Error, about }
    }

    /// This, found on a member.
    pub fn found(&self, member: &str, what: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding {
            code: self.code,
            severity: self.severity,
            member: member.to_owned(),
            what: what.into(),
            file: None,
            line: None,
            fix: fix.into(),
        }
    }
}

impl Finding {
    /// The same, found in this file; line 0 is none.
    pub fn at(mut self, file: impl Into<String>, line: u32) -> Finding {
        self.file = Some(file.into()).filter(|file| !file.is_empty());
        self.line = self.file.as_ref().and(Some(line).filter(|line| *line > 0));
        self
    }

    /// `ERROR wal-level nd1: wal_level is "minimal" (/data/postgresql.conf:12) -> set it to "replica"`, in lines of at most this
    /// many characters unless a word is longer. What is to be done begins a line of its own if one line is too short for both.
    pub fn text(&self, columns: usize) -> String {
        let member = if self.member.is_empty() { String::new() } else { format!(" {}", self.member) };
        let place = match (&self.file, self.line) {
            (Some(file), Some(line)) => format!(" ({file}:{line})"),
            (Some(file), None) => format!(" ({file})"),
            _ => String::new(),
        };
        let printable = |text: String| text.replace(|c: char| c.is_control(), " ");
        let what = printable(format!("{} {}{member}: {}{place}", self.severity.word(), self.code, self.what));
        let fix = printable(format!("-> {}", self.fix));
        let mut text = String::new();
        if self.fix.is_empty() {
            wrap(&what, columns, &mut text);
        } else if what.chars().count() + 1 + fix.chars().count() <= columns {
            text = format!("{what} {fix}");
        } else {
            wrap(&what, columns, &mut text);
            text.push_str(INDENT);
            wrap(&fix, columns, &mut text);
        }
        text
    }
}

/// What a line begins with that continues a finding.
const INDENT: &str = "\n    ";

/// Adds the words, in lines of at most `columns` characters.
fn wrap(text: &str, columns: usize, out: &mut String) {
    let mut used = out.chars().rev().take_while(|char| *char != '\n').count();
    for (i, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if i > 0 && used + 1 + length > columns {
            out.push_str(INDENT);
            used = INDENT.len() - 1;
        } else if i > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += length;
    }
}

/// The findings as they are listed: a notice that is of both servers is listed once, under the name of both.
pub fn listed(findings: &[Finding]) -> Vec<Finding> {
    let mut listed: Vec<Finding> = Vec::new();
    for finding in findings {
        let same = |of: &&mut Finding| {
            let same =
                (of.code, &of.what, &of.fix, of.line) == (finding.code, &finding.what, &finding.fix, finding.line);
            same && of.severity == Severity::Notice && of.file.is_some() == finding.file.is_some()
        };
        match listed.iter_mut().find(same) {
            Some(of) => {
                of.member = format!("{}, {}", of.member, finding.member);
                of.file = of.file.take().zip(finding.file.as_ref()).map(|(of, file)| match of == *file {
                    true => of,
                    false => format!("{of}, {file}"),
                });
            }
            None => listed.push(finding.clone()),
        }
    }
    listed
}

impl Severity {
    /// As it is printed.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Notice => "NOTICE",
            Severity::Warning => "WARNING",
            Severity::Error => "ERROR",
        }
    }
}

/// What one server is like. Sent to the other one: it holds no password and no key.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Its id in `network.conf`.
    pub id: String,
    /// What PostgreSQL and its files say.
    pub instance: instance::Facts,
    /// The machine.
    pub host: host::Facts,
    /// Its backups.
    pub backups: backups::Facts,
    /// What its controller has measured; `None` where none runs.
    pub pace: Option<pace::Facts>,
    /// Its controller has run before and does not run now; what prevents a start, as far as that is known. Only of the server
    /// on which the check runs.
    pub stopped: Option<String>,
}

/// What is looked at together: what a server sees of itself, of the other, and of the arbiter.
#[derive(Clone, PartialEq, Debug)]
pub struct Seen {
    /// This server.
    pub own: Facts,
    /// The other one, or why it was not asked: its controller, or this one's, does not run, or is of an older version.
    pub peer: Result<Facts, String>,
    /// The other one's id in `network.conf`.
    pub peer_id: String,
    /// How the other one's clock goes, where it answered.
    pub clock: Option<Clock>,
    /// The arbiter, where `network.conf` has one and this server's controller was asked.
    pub arbiter: Option<Arbiter>,
}

/// The arbiter, as it answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arbiter {
    /// Its id in `network.conf`.
    pub id: String,
    /// Version of `mc_arb`, or why it did not tell: it is not reached, or of an older version.
    pub version: Result<String, String>,
}

/// How another member's clock goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Clock {
    /// How far it is ahead of this host's, ms; negative where it is behind.
    pub ahead_ms: i64,
    /// How wrong that may be, ms: half of the round trip.
    pub within_ms: u64,
}

impl Clock {
    /// What is known when a question was sent and its answer came at these times of this host's clock, and `theirs` is the other
    /// one's in between; all in ms since the epoch.
    pub fn between(sent: u64, theirs: u64, came: u64) -> Clock {
        let within_ms = came.saturating_sub(sent) / 2;
        let middle = sent.saturating_add(within_ms);
        Clock { ahead_ms: i64::try_from(i128::from(theirs) - i128::from(middle)).unwrap_or(i64::MAX), within_ms }
    }
}

impl Seen {
    /// The servers that were looked at, this one first.
    pub fn servers(&self) -> impl Iterator<Item = &Facts> {
        std::iter::once(&self.own).chain(self.peer.as_ref().ok())
    }

    /// Both, where both were looked at.
    pub fn both(&self) -> Option<[&Facts; 2]> {
        self.peer.as_ref().ok().map(|peer| [&self.own, peer])
    }

    /// Each server that was looked at, with the other one, where that was.
    pub fn each(&self) -> impl Iterator<Item = (&Facts, Option<&Facts>)> {
        let own = (&self.own, self.peer.as_ref().ok());
        std::iter::once(own).chain(self.peer.as_ref().ok().map(|peer| (peer, Some(&self.own))))
    }
}

/// Reads what this server is like, by `deadline` at the latest.
pub fn collect(config: &Config, deadline: Instant) -> Facts {
    Facts {
        id: config.id.clone(),
        instance: instance::collect(config, deadline),
        host: host::collect(config, deadline),
        backups: backups::collect(config, deadline),
        pace: None,
        stopped: None,
    }
}

/// What is wrong, the worst first.
pub fn examine(seen: &Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    general::examine(seen, &mut found);
    instance::examine(seen, &mut found);
    connections::examine(seen, &mut found);
    host::examine(seen, &mut found);
    backups::examine(seen, &mut found);
    pace::examine(seen, &mut found);
    pair::examine(seen, &mut found);
    // stable: within a severity, as they were found
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks() {
        let check = |sent, theirs, came, ahead_ms, within_ms| {
            assert_eq!(Clock::between(sent, theirs, came), Clock { ahead_ms, within_ms });
        };
        check(1000, 1010, 1020, 0, 10);
        check(1000, 9000, 1000, 8000, 0);
        check(9000, 1000, 9200, -8100, 100);
        // A clock that was set back between the two.
        check(1000, 1000, 900, 0, 0);
        check(0, u64::MAX, 0, i64::MAX, 0);
    }

    #[test]
    fn codes_are_single_and_lower_case() {
        let mut codes: Vec<&str> = catalogue().map(|entry| entry.code).collect();
        assert!(
            codes.iter().all(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'))
        );
        codes.sort_unstable();
        assert!(codes.windows(2).all(|pair| pair[0] != pair[1]), "{codes:?}");
    }
}
