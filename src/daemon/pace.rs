//! What the controller keeps for `mc_ctl check`: how regularly heartbeats arrive, how quickly its probes are answered, and
//! why a member cannot be reached.
//!
//! Written by the threads that see it, a few instructions each time and no allocation; read when somebody asks. Decides
//! nothing, and the core does not know of it. What is shown is of the last one to two days, so that a bad hour long ago is
//! forgotten.

use super::{lock, now};
use crate::check::histogram::Histogram;
use crate::check::pace::{Facts, Heard};
use crate::fsm::types::Member;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// How long is counted into one histogram, ms; the one before is kept beside it.
const PERIOD_MS: u64 = 24 * 60 * 60 * 1000;

/// How long a refused caller is told of, ms.
const REFUSED_MS: u64 = 10 * 60 * 1000;

/// Durations of the present period and of the one before.
#[derive(Default, Debug)]
pub struct Kept(Mutex<Periods>);

#[derive(Default, Debug)]
struct Periods {
    number: u64,
    present: Histogram,
    before: Histogram,
}

impl Kept {
    /// Notes how long something took.
    pub fn add(&self, took: Duration) {
        self.add_at(now().0, u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    }

    fn add_at(&self, at: u64, ms: u64) {
        self.at(at).present.add(ms);
    }

    fn at(&self, at: u64) -> MutexGuard<'_, Periods> {
        let mut kept = lock(&self.0);
        let number = at / PERIOD_MS;
        if number != kept.number {
            let passed = std::mem::take(&mut kept.present);
            kept.before = if number == kept.number + 1 { passed } else { Histogram::default() };
            kept.number = number;
        }
        kept
    }

    fn read(&self, at: u64) -> Histogram {
        let kept = self.at(at);
        let mut all = kept.before.clone();
        all.merge(&kept.present);
        all
    }
}

/// What is kept of another member.
#[derive(Default, Debug)]
struct Line {
    /// The times between two heartbeats on one connection.
    gaps: Kept,
    /// When the last one came, ms; 0 for never.
    heard: AtomicU64,
    /// Connections on which one came, each as a duration of 0.
    connections: Kept,
    /// The minor version that it told when it dialled.
    minor: AtomicU16,
    /// Why it cannot be dialled; empty where it can.
    down: Mutex<String>,
}

impl Line {
    fn read(&self, at: u64) -> Heard {
        let heard = self.heard.load(Ordering::Relaxed);
        Heard {
            silent_ms: (heard > 0).then(|| at.saturating_sub(heard)),
            connections: u32::try_from(self.connections.read(at).count()).unwrap_or(u32::MAX),
            gaps: self.gaps.read(at),
            unreached: lock(&self.down).clone(),
        }
    }
}

/// What is kept.
#[derive(Default, Debug)]
pub struct Pace {
    peer: Line,
    arbiter: Line,
    /// How long the instance took to answer through the session that stays open.
    pub instance: Kept,
    /// How long it took to open a fresh session and to answer through that.
    pub session: Kept,
    /// How long a disk took to write, sync and read back.
    pub disk: Kept,
    /// The last caller that was refused: when, and why.
    refused: Mutex<Option<(u64, IpAddr, String)>>,
}

impl Pace {
    fn line(&self, member: Member) -> &Line {
        match member {
            Member::Server(_) => &self.peer,
            Member::Arbiter => &self.arbiter,
        }
    }

    /// A heartbeat has come, so many ms after the last one on the same connection.
    pub fn beat(&self, from: Member, gap_ms: Option<u64>) {
        let (line, at) = (self.line(from), now().0);
        line.heard.store(at, Ordering::Relaxed);
        match gap_ms {
            Some(gap_ms) => line.gaps.add_at(at, gap_ms),
            None => line.connections.add_at(at, 0),
        }
    }

    /// A member has dialled and told its minor version.
    pub fn greeted(&self, from: Member, minor: u16) {
        self.line(from).minor.store(minor, Ordering::Relaxed);
    }

    /// The minor version that a member told when it dialled; `None` where it has not.
    pub fn minor(&self, of: Member) -> Option<u16> {
        let line = self.line(of);
        // A version that tells none is as old as can be.
        (line.heard.load(Ordering::Relaxed) > 0).then(|| line.minor.load(Ordering::Relaxed))
    }

    /// A connection to a member is there.
    pub fn reached(&self, member: Member) {
        lock(&self.line(member).down).clear();
    }

    /// A member cannot be dialled, or the connection has ended.
    pub fn unreached(&self, member: Member, why: &str) {
        why.clone_into(&mut lock(&self.line(member).down));
    }

    /// A caller was not let in.
    pub fn refused(&self, from: IpAddr, why: &str) {
        *lock(&self.refused) = Some((now().0, from, why.to_owned()));
    }

    /// A member has authenticated itself from this address: what was wrong with it is corrected.
    pub fn accepted(&self, from: IpAddr) {
        lock(&self.refused).take_if(|(_, refused, _)| *refused == from);
    }

    /// What has been measured; the rest of [`Facts`] is filled in by who knows it.
    pub fn read(&self, arbiter: bool) -> Facts {
        let at = now().0;
        let refused = lock(&self.refused).clone();
        Facts {
            peer: self.peer.read(at),
            arbiter: arbiter.then(|| self.arbiter.read(at)),
            instance: self.instance.read(at),
            session: self.session.read(at),
            disk: self.disk.read(at),
            refused: refused
                .filter(|(when, ..)| at.saturating_sub(*when) < REFUSED_MS)
                .map(|(_, from, why)| format!("{from}: {why}")),
            ..Facts::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::types::Server;

    #[test]
    fn a_bad_hour_is_forgotten_after_two_days_at_most() {
        let kept = Kept::default();
        kept.add_at(5, 9000);
        kept.add_at(PERIOD_MS, 1);
        assert_eq!((kept.read(PERIOD_MS + 1).longest_ms(), kept.read(PERIOD_MS + 1).count()), (9000, 2));
        assert_eq!(kept.read(2 * PERIOD_MS).longest_ms(), 1);
        assert_eq!(kept.read(9 * PERIOD_MS).count(), 0);
    }

    #[test]
    fn what_is_noted_of_members_is_told() {
        let pace = Pace::default();
        let peer = Member::Server(Server::Second);
        assert_eq!(pace.minor(peer), None);
        pace.greeted(peer, 2);
        pace.beat(peer, None);
        pace.beat(peer, Some(800));
        pace.unreached(peer, "so");
        pace.refused(IpAddr::from([192, 0, 2, 7]), "no key");
        let told = pace.read(false);
        assert_eq!((told.peer.connections, told.peer.gaps.count(), pace.minor(peer)), (1, 1, Some(2)));
        assert_eq!((told.peer.unreached.as_str(), told.refused.as_deref()), ("so", Some("192.0.2.7: no key")));
        assert!(told.peer.silent_ms.is_some_and(|ms| ms < 60_000) && told.arbiter.is_none());
        pace.accepted(IpAddr::from([192, 0, 2, 8]));
        assert!(pace.read(false).refused.is_some());
        pace.accepted(IpAddr::from([192, 0, 2, 7]));
        assert_eq!(pace.read(false).refused, None);
        pace.reached(peer);
        assert_eq!(pace.read(true).peer.unreached, "");
        assert_eq!(pace.read(true).arbiter.map(|arbiter| arbiter.silent_ms), Some(None));
    }
}
