//! Whether the host of a server that has fallen silent refuses connections: its controller's port and its instance's,
//! which together say that both are gone (PROTOCOL R8).
//!
//! A round dials each once, all at the same time; it has refused only if every one is refused. Nothing waits: the hub
//! hands in what came of each dial.

use crate::daemon::peer_probe::host_and_port;
use crate::daemon::resolver::Resolver;
use crate::fsm::types::Time;
use std::net::SocketAddr;

/// Time between the beginnings of two rounds, ms.
const ROUND_MS: u64 = 200;

/// A server that has been silent for this part of its detection time is probed.
const SILENT_PART: u64 = 3;

/// The probing of one server.
#[derive(Default)]
pub struct Probe {
    round: u64,
    began: Time,
    /// Dials of the present round that are out.
    out: usize,
}

/// When a server is to be probed.
pub struct Silence {
    /// It has a connection.
    pub connected: bool,
    /// For how long nothing of it has arrived, ms.
    pub silent_ms: u64,
    /// The pair's detection time, ms.
    pub detection_ms: u64,
}

impl Silence {
    /// Once the detection time is over, silence alone is enough.
    fn is_of_interest(&self) -> bool {
        self.silent_ms < self.detection_ms && (!self.connected || self.silent_ms >= self.detection_ms / SILENT_PART)
    }
}

impl Probe {
    /// Whether a round is to begin now, and its number.
    pub fn due(&mut self, silence: &Silence, now: Time) -> Option<u64> {
        if !silence.is_of_interest() || now.since(self.began) < ROUND_MS {
            return None;
        }
        self.round += 1;
        self.began = now;
        self.out = 0;
        Some(self.round)
    }

    /// So many dials of the round are out.
    pub fn dialled(&mut self, out: usize) {
        self.out = out;
    }

    /// What came of one dial of a round. True where it completes a round in which every dial was refused.
    pub fn ended(&mut self, round: u64, refused: bool) -> bool {
        if round != self.round || self.out == 0 {
            return false;
        }
        self.out = if refused { self.out - 1 } else { 0 };
        refused && self.out == 0
    }
}

/// What to dial for a server: its controller, by the way that is nearest to the arbiter, and its instance, at the same
/// host and at the one that it reports. Empty where not all of it is known, or where an address may be another host's by now:
/// a refusal would then prove nothing.
pub fn targets(addresses: &[(String, u16)], instance: &str, resolver: &Resolver) -> Vec<SocketAddr> {
    let Some((host, port)) = addresses.last() else { return Vec::new() };
    let Some((told_host, told_port)) = host_and_port(instance) else { return Vec::new() };
    let mut targets = Vec::new();
    for (host, port) in [(host.as_str(), *port), (host, told_port), (told_host, told_port)] {
        let found = resolver.addresses(host, port);
        if found.list.is_empty() || !found.recent {
            return Vec::new();
        }
        targets.extend(found.list);
    }
    targets.sort();
    targets.dedup();
    targets
}

/// A server reports where its instance is. A host that it no longer reports is forgotten, so that a server cannot fill the
/// memory with names.
pub fn note_instance(noted: &mut String, told: &str, resolver: &Resolver) {
    if noted != told {
        if let Some((host, _)) = host_and_port(noted) {
            resolver.forget(host);
        }
        told.clone_into(noted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENT: Silence = Silence { connected: false, silent_ms: 100, detection_ms: 5400 };

    #[test]
    fn a_round_refuses_only_as_a_whole() {
        let mut probe = Probe::default();
        let round = probe.due(&SILENT, Time(1000)).unwrap();
        probe.dialled(2);
        assert!(!probe.ended(round, true));
        assert!(probe.ended(round, true));
        assert!(!probe.ended(round, true), "it is over");
        assert!(probe.due(&SILENT, Time(1100)).is_none(), "not so soon");
        let round = probe.due(&SILENT, Time(1200)).unwrap();
        probe.dialled(2);
        assert!(!probe.ended(round, false));
        assert!(!probe.ended(round, true));
        let next = probe.due(&SILENT, Time(1400)).unwrap();
        probe.dialled(1);
        assert!(!probe.ended(round, true), "an answer to the round before");
        assert!(probe.ended(next, true));
    }

    #[test]
    fn only_a_silence_that_is_not_long_enough_by_itself_is_looked_into() {
        let check = |connected, silent_ms, expected| {
            let silence = Silence { connected, silent_ms, detection_ms: 5400 };
            assert_eq!(Probe::default().due(&silence, Time(10_000)).is_some(), expected, "{connected} {silent_ms}");
        };
        check(true, 0, false);
        check(true, 800, false);
        check(true, 1800, true);
        check(false, 0, true);
        check(false, 5399, true);
        check(false, 5400, false);
    }

    #[test]
    fn reported_names_do_not_pile_up() {
        let resolver = Resolver::start(["localhost".to_owned()], || ()).unwrap();
        let configured = [("localhost".to_owned(), 1)];
        let mut noted = String::new();
        for n in 0..1000 {
            note_instance(&mut noted, &format!("h{n}.invalid:5432"), &resolver);
            resolver.wait("localhost", 1, std::time::Duration::from_secs(60));
            targets(&configured, &noted, &resolver);
        }
        note_instance(&mut noted, "localhost:5432", &resolver);
        assert_eq!(targets(&configured, &noted, &resolver).len(), 2 * resolver.known("localhost").len());
        note_instance(&mut noted, "127.0.0.1:5432", &resolver);
        assert_eq!(resolver.count(), 1, "the one of the configuration");
        resolver.stop();
    }
}
