//! A state of the model: the durable part of three members, two instances, and what the network may still deliver.
//!
//! Small on purpose. What a controller keeps in memory is not here: each step of the model ends with at most one durable
//! write, so a crash before the write is the step not taken, and a crash after it is the step taken with nothing that
//! would have followed. Ledgers are told to anybody, at any time, or never: that is loss, duplication and delay.

use mirroring_controller::fsm::rules;
use mirroring_controller::fsm::types::*;

/// The largest term that a state has room for.
pub const ROOM: usize = 13;

/// What an instance is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Run {
    /// Stopped, a primary's data directory.
    DownPrimary,
    /// Stopped, a standby's data directory.
    DownStandby,
    /// It takes writes.
    Primary,
    /// It is in recovery.
    Standby,
    /// It is in recovery, and a promotion was asked for.
    Promoting,
}

/// One server: its ledger, its data directory and its instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host {
    /// The term of its view; 0 without a ledger.
    pub term: u8,
    pub promised: u8,
    /// The data directory's name, as the ledger has it; counted upwards.
    pub data: u8,
    pub run: Run,
    /// `synchronous_standby_names` is set in the file. Only kept while it runs: each start writes it.
    pub file: bool,
    /// It is in effect.
    pub names: bool,
    /// It handed over, and the standby had its shutdown checkpoint.
    pub handed: bool,
    /// Another directory was put in its place, and the controller has not looked yet.
    pub unseen: bool,
    /// How often its directory was rebuilt or replaced.
    pub exchanged: u8,
    /// The commits in its data directory, a bit each.
    pub has: u8,
    /// How often its data went back.
    pub back: u8,
    /// The acknowledged commits that its data directory has lost, and that its durable note shows to be lost.
    pub noted: u8,
    /// Those that are newer than its note: only other members know that it had them.
    pub recalled: u8,
}

/// A proposal in the network: `Degraded(gains)` in the term that it is kept under.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// The term of the view that it leans on; 0 for no proposal.
    pub base: u8,
    pub to_arbiter: bool,
    pub gains: u8,
}

/// A view that a ledger holds or held, under its term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    pub there: bool,
    pub mirrored: bool,
    pub primary: u8,
    pub data: [u8; 2],
    pub arbiter: u8,
}

pub const NOT_SEEN: Seen = Seen { there: false, mirrored: false, primary: 0, data: [0; 2], arbiter: 0 };
pub const NOT_PROPOSED: Proposal = Proposal { base: 0, to_arbiter: false, gains: 0 };

/// The whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    pub hosts: [Host; 2],
    /// The arbiter's ledger's name (0 where there is no arbiter) and the term of its view (0 before it is told one).
    pub arbiter: u8,
    pub arbiter_term: u8,
    pub views: [Seen; ROOM + 1],
    pub proposals: [Proposal; ROOM + 1],
    /// How many commits were ever made, and which were acknowledged to a client.
    pub made: u8,
    pub acked: u8,
    /// A server has lost its ledger.
    pub lost: bool,
}

impl State {
    /// A new pair: the first server founded it, the second is a fresh copy without a ledger.
    pub fn founded(arbiter: bool) -> State {
        let host = Host {
            term: 0,
            promised: 0,
            data: 0,
            run: Run::DownStandby,
            file: false,
            names: false,
            handed: false,
            unseen: false,
            exchanged: 0,
            has: 0,
            back: 0,
            noted: 0,
            recalled: 0,
        };
        let founder = Host { term: 1, promised: 1, data: 1, run: Run::DownPrimary, ..host };
        let mut views = [NOT_SEEN; ROOM + 1];
        views[1] = Seen { there: true, mirrored: false, primary: 0, data: [1, 0], arbiter: 0 };
        State {
            hosts: [founder, host],
            arbiter: arbiter.into(),
            arbiter_term: 0,
            views,
            proposals: [NOT_PROPOSED; ROOM + 1],
            made: 0,
            acked: 0,
            lost: false,
        }
    }

    pub fn view(&self, term: u8) -> View {
        let seen = self.views[usize::from(term)];
        View {
            term: Term(term.into()),
            primary: Server::BOTH[usize::from(seen.primary)],
            mode: if seen.mirrored { Mode::Mirrored } else { Mode::Degraded },
            data: seen.data.map(|data| (data != 0).then(|| DataId(data.into()))),
            arbiter: (seen.arbiter != 0).then(|| LedgerId(seen.arbiter.into())),
            forced: false,
        }
    }

    /// A server's ledger. It must have one.
    pub fn ledger(&self, x: usize) -> Ledger {
        let host = &self.hosts[x];
        Ledger {
            system: SystemId(1),
            id: LedgerId(0),
            data: DataIdentity { id: DataId(host.data.into()), checkpoint: Lsn(0), ..DataIdentity::default() },
            view: self.view(host.term),
            promised: Term(host.promised.into()),
        }
    }

    /// The arbiter's ledger. It must have one. It promises nothing but what it accepts.
    pub fn arbiter_ledger(&self) -> Ledger {
        Ledger {
            system: SystemId(1),
            id: LedgerId(self.arbiter.into()),
            data: DataIdentity::default(),
            view: self.view(self.arbiter_term),
            promised: Term(self.arbiter_term.into()),
        }
    }

    /// Keeps a view under its term; false where that term carries another one (I4).
    pub fn keep(&mut self, view: &View) -> bool {
        let seen = Seen {
            there: true,
            mirrored: view.mode == Mode::Mirrored,
            primary: view.primary.index() as u8,
            data: view.data.map(|data| data.map_or(0, |data| data.0 as u8)),
            arbiter: view.arbiter.map_or(0, |id| id.0 as u8),
        };
        let place = &mut self.views[view.term.0 as usize];
        let alone = !place.there || *place == seen;
        *place = seen;
        alone
    }

    /// Whether the server's own ledger says that it runs alone.
    pub fn holds(&self, x: usize) -> bool {
        let host = &self.hosts[x];
        let seen = &self.views[usize::from(host.term)];
        host.term != 0 && !seen.mirrored && usize::from(seen.primary) == x
    }

    /// Whether its data directory is the one that its view names, and a look at it shows nothing else.
    pub fn is_fit(&self, x: usize) -> bool {
        let host = &self.hosts[x];
        host.term != 0 && !host.unseen && host.noted == 0 && rules::eligible(&self.ledger(x), Server::BOTH[x])
    }

    /// Whether the instance of `x` could connect to the other one.
    pub fn connects(&self, x: usize) -> bool {
        let (own, other) = (&self.hosts[x], &self.hosts[1 - x]);
        matches!(own.run, Run::Standby | Run::Promoting) && other.run == Run::Primary
    }

    /// Whether the instance of `x` streams from the other one.
    pub fn streams(&self, x: usize) -> bool {
        self.connects(x) && self.is_contained(x)
    }

    /// Whether the other server's data contains that of `x`.
    pub fn is_contained(&self, x: usize) -> bool {
        self.hosts[x].has & !self.hosts[1 - x].has == 0
    }

    /// Forgets what nothing can depend on any more. A view older than every ledger's is adopted by nobody; one that a later
    /// arbiter could be told names an earlier arbiter, so that it grants nothing under it and adopts the next as it would
    /// have without. A proposal is dead for whoever has promised its term or has gone past its base.
    pub fn tidy(&mut self) {
        let oldest = self.oldest();
        for term in 0..oldest {
            self.views[usize::from(term)] = NOT_SEEN;
        }
        for term in 1..=ROOM {
            let proposal = self.proposals[term];
            if proposal.base != 0 && !self.is_live(term as u8, proposal) {
                self.proposals[term] = NOT_PROPOSED;
            }
        }
    }

    fn oldest(&self) -> u8 {
        let servers = self.hosts[0].term.min(self.hosts[1].term);
        if self.arbiter == 0 { servers } else { servers.min(self.arbiter_term) }
    }

    fn is_live(&self, term: u8, proposal: Proposal) -> bool {
        if proposal.to_arbiter {
            let named = self.views[usize::from(proposal.base)].arbiter == self.arbiter;
            return named && term > self.arbiter_term && proposal.base >= self.arbiter_term;
        }
        let asked = &self.hosts[usize::from(1 - proposal.gains)];
        term > asked.promised && proposal.base >= asked.term
    }

    /// All of it in six words; equal exactly where the states are.
    fn words(&self) -> [u64; 6] {
        let mut words = [0_u64; 6];
        let lost = self.hosts.iter().flat_map(|host| [host.back, host.noted, host.recalled]);
        words[5] = lost.fold(0, |sum, number| sum << 4 | u64::from(number));
        for (word, host) in words.iter_mut().zip(&self.hosts) {
            let bits = [host.file, host.names, host.handed, host.unseen];
            let flags = bits.iter().fold(0, |sum, bit| sum << 1 | u64::from(*bit));
            let numbers = [host.term, host.promised, host.data, host.run as u8, host.has, host.exchanged];
            *word = numbers.iter().fold(flags, |sum, number| sum << 4 | u64::from(*number));
        }
        let rest = [self.arbiter, self.arbiter_term, self.made, self.acked];
        words[1] |= u64::from(self.lost) << 63;
        words[0] |= rest.iter().fold(0, |sum, number| sum << 4 | u64::from(*number)) << 32;
        for term in 1..=ROOM {
            let seen = self.views[term];
            let view = u64::from(seen.there)
                | u64::from(seen.mirrored) << 1
                | u64::from(seen.primary) << 2
                | u64::from(seen.data[0]) << 3
                | u64::from(seen.data[1]) << 5
                | u64::from(seen.arbiter) << 7;
            let proposal = self.proposals[term];
            let proposed =
                u64::from(proposal.base) | u64::from(proposal.to_arbiter) << 4 | u64::from(proposal.gains) << 5;
            words[2 + (term - 1) / 7] |= view << (9 * ((term - 1) % 7));
            words[if term <= 10 { 4 } else { 1 }] |=
                proposed << if term <= 10 { 6 * (term - 1) } else { 32 + 6 * (term - 11) };
        }
        words
    }

    /// A 64-bit fingerprint, never 0.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
        for word in self.words() {
            hash = (hash ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
            hash ^= hash >> 32;
            hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
            hash ^= hash >> 29;
        }
        hash.max(1)
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let view = |term: u8| {
            let seen = self.views[usize::from(term)];
            let mode = if seen.mirrored { "Mirrored" } else { "Degraded" };
            match term {
                0 => "no ledger".to_owned(),
                _ => format!("{mode}({})@{term} {:?}/{}", seen.primary, seen.data, seen.arbiter),
            }
        };
        for (x, host) in self.hosts.iter().enumerate() {
            let flags =
                [(host.file, " file"), (host.names, " names"), (host.handed, " handed"), (host.unseen, " unseen")];
            let flags: String = flags.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
            let Host { promised, data, run, has, noted, recalled, .. } = host;
            write!(f, "[{x}: {} promised {promised} data {data} {run:?}{flags} has {has:b}", view(host.term))?;
            if noted | recalled != 0 {
                write!(f, " lost {noted:b} (noted) {recalled:b} (recalled)")?;
            }
            write!(f, "] ")?;
        }
        if self.arbiter != 0 {
            write!(f, "[arbiter {}: {}] ", self.arbiter, view(self.arbiter_term))?;
        }
        write!(f, "made {} acked {:b}", self.made, self.acked)
    }
}
