//! Liveness (PROTOCOL I5): whether service can be had again once faults cease, from every state that there is.
//!
//! From a state the members that are left talk: what each has in its ledger now is told to the others, nobody fails, and
//! terms are as many as it takes. Somewhere on those steps an instance must run that can acknowledge a commit. Whether
//! its controller does take them, and in which time, is the simulator's to try.

use crate::explore::Prints;
use crate::state::{ROOM, Run, State};
use crate::steps::{Model, Step, Taken, server};
use mirroring_controller::fsm::types::*;

/// Who is left and talks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Both servers; no arbiter is heard.
    Servers,
    /// This server and the arbiter; the other host is gone.
    OneAndArbiter(usize),
}

/// What is known already of states from which service can be had.
pub struct Healing {
    model: Model,
    left: Left,
    good: Prints,
}

impl Healing {
    pub fn new(model: &Model, left: Left) -> Healing {
        Healing { model: Model { terms: ROOM as u8, ..*model }, left, good: Prints::new() }
    }

    /// Whether service is out of reach, though no human is needed for it.
    pub fn is_stuck(&mut self, at: &State) -> bool {
        let mut at = *at;
        if let Left::OneAndArbiter(x) = self.left {
            let gone = &mut at.hosts[1 - x];
            gone.run =
                if matches!(gone.run, Run::Primary | Run::DownPrimary) { Run::DownPrimary } else { Run::DownStandby };
            gone.file = false;
            gone.names = false;
        }
        !self.needs_a_human(&at) && !self.reaches_service(at)
    }

    /// Steps of healing, until a state is met from which service is known to be had.
    fn reaches_service(&mut self, first: State) -> bool {
        let mut seen = Prints::new();
        let mut open = vec![(first, usize::MAX)];
        seen.insert(first.fingerprint(), 0);
        let mut next = 0;
        let mut taken = Vec::new();
        while next < open.len() {
            let at = open[next].0;
            if self.serves(&at) || self.good.contains(at.fingerprint()) {
                let mut back = next;
                while back != usize::MAX {
                    self.good.insert(open[back].0.fingerprint(), 0);
                    back = open[back].1;
                }
                return true;
            }
            self.model.steps(&at, &mut taken);
            for Taken { step, to, .. } in taken.drain(..) {
                if self.heals(&at, step) && seen.insert(to.fingerprint(), 0) {
                    open.push((to, next));
                }
            }
            next += 1;
        }
        false
    }

    fn is_left(&self, x: usize) -> bool {
        match self.left {
            Left::Servers => true,
            Left::OneAndArbiter(one) => one == x,
        }
    }

    fn hears_arbiter(&self) -> bool {
        self.left != Left::Servers
    }

    /// An instance runs that can acknowledge: alone, or with a standby that streams.
    fn serves(&self, at: &State) -> bool {
        (0..2).any(|x| {
            let own = &at.hosts[x];
            let followed = self.is_left(1 - x) && at.streams(1 - x);
            self.is_left(x) && own.run == Run::Primary && (!own.names || followed)
        })
    }

    /// Whether somebody who is left holds this view now, and so tells it.
    fn is_told(&self, at: &State, term: u8) -> bool {
        (0..2).any(|x| self.is_left(x) && at.hosts[x].term == term) || self.hears_arbiter() && at.arbiter_term == term
    }

    fn heals(&self, at: &State, step: Step) -> bool {
        let newest = at.hosts.iter().map(|host| host.promised).max().unwrap_or(0).max(at.arbiter_term);
        let best = |x: usize| Term(newest.into()).next_for(server(x)).0 as u8;
        match step {
            Step::Adopts(x, term) | Step::Joins(x, term) => self.is_left(x) && self.is_told(at, term),
            Step::ArbiterAdopts(term) => self.hears_arbiter() && self.is_told(at, term),
            Step::Proposes { who, term, to_arbiter } => {
                self.is_left(who) && term == best(who) && to_arbiter == self.hears_arbiter()
            }
            Step::Accepts { who, .. } => self.is_left(who) && self.is_left(1 - who),
            Step::ArbiterAccepts(_) => self.hears_arbiter(),
            Step::TakesAlone(who, term) => self.is_left(who) && term == best(who),
            Step::Acts(x, _)
            | Step::Promoted(x)
            | Step::NamesTakeEffect(x)
            | Step::Looks(x, _)
            | Step::FoundBehind(x) => self.is_left(x),
            Step::Streams(_) => self.left == Left::Servers,
            Step::Mirrors { .. } | Step::Rebuilds(_) | Step::Commits(_) | Step::Acknowledged(_) => false,
            Step::Stops(_)
            | Step::DirectoryReplaced(_)
            | Step::DataGoesBack { .. }
            | Step::LedgerLost(_)
            | Step::ArbiterReplaced => false,
        }
    }

    /// The right to run alone lies, or may lie, with a server that is gone or whose instance cannot run (I5): judged by the
    /// newest view of those that are left.
    fn needs_a_human(&self, at: &State) -> bool {
        let servers = (0..2).filter(|x| self.is_left(*x)).map(|x| at.hosts[x].term);
        let arbiter = if self.hears_arbiter() { at.arbiter_term } else { 0 };
        let newest = at.view(servers.chain([arbiter]).max().unwrap_or(0));
        let named = |x: usize| newest.data[x] == Some(DataId(at.hosts[x].data.into())) && !at.hosts[x].unseen;
        match self.left {
            // Without faults of that kind no server's directory ever becomes another than the one that counts.
            Left::Servers => {
                let lost = (0..2).any(|x| newest.is_alone(server(x)) && !named(x)) || !named(0) && !named(1);
                self.model.replaced && lost
            }
            Left::OneAndArbiter(x) => {
                let unnamed = newest.mode == Mode::Mirrored && newest.arbiter != Some(LedgerId(at.arbiter.into()));
                !named(x) || arbiter == 0 || unnamed || newest.is_alone(server(1 - x))
            }
        }
    }
}
