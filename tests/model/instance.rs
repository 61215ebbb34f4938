//! What happens to instances: what the controllers do to them, what they do themselves, and what befalls them.

use crate::state::{Host, NOT_PROPOSED, Run, State};
use crate::steps::{Model, Step, Taken, Third, Without, server};
use mirroring_controller::fsm::facts::{Data, InstanceState, Standing, StartPolicy};
use mirroring_controller::fsm::reconcile::{Step as InstanceStep, next_step};
use mirroring_controller::fsm::rules;
use mirroring_controller::fsm::types::*;

impl Model {
    // ---------------------------------------------------------------------------------------------------- reconciling

    fn being(host: &Host) -> InstanceState {
        match host.run {
            Run::DownPrimary => InstanceState::DownPrimary,
            Run::DownStandby => InstanceState::DownStandby,
            Run::Primary if host.file => InstanceState::PrimaryNamed,
            Run::Primary => InstanceState::PrimaryFree,
            Run::Standby | Run::Promoting if host.file => InstanceState::StandbyNamed,
            Run::Standby | Run::Promoting => InstanceState::StandbyFree,
        }
    }

    /// What the shipped table orders for this instance. That nothing is done is always possible too.
    pub fn acts(&self, at: &State, x: usize, out: &mut Vec<Taken>) {
        let host = at.hosts[x];
        let data = if self.fit(at, x) { Data::Eligible } else { Data::Foreign };
        let standing = rules::standing(&at.ledger(x).view, server(x));
        let todo = next_step(standing, data, StartPolicy::Run, Self::being(&host));
        // R13: a standby is started only if the primary contains its WAL. Where no data goes back, that is checked below.
        let passes = self.back == 0 || at.is_contained(x);
        let looked_at = !host.unseen && (host.noted == 0 || self.without == Without::Note);
        let mut to = *at;
        let own = &mut to.hosts[x];
        let mut wrong = None;
        match todo {
            // What is started was looked at before.
            InstanceStep::StartFree | InstanceStep::StartNamed if looked_at => {
                own.file = todo == InstanceStep::StartNamed && self.without != Without::NamesFirst;
                own.run = if host.run == Run::DownPrimary { Run::Primary } else { Run::Standby };
                own.names = own.file && own.run == Run::Primary;
                own.handed = false;
            }
            InstanceStep::Free => own.file = false,
            InstanceStep::Name => own.file = true,
            InstanceStep::Promote if host.run == Run::Standby => {
                own.run = Run::Promoting;
                wrong = (!at.holds(x)).then_some("I3: an instance is promoted without the right");
            }
            InstanceStep::Stop => stop(own),
            InstanceStep::Rejoin if host.handed && looked_at && passes && self.may_follow(at, x) => {
                own.run = Run::Standby;
                own.file = true;
                own.handed = false;
                if host.has & !at.hosts[1 - x].has != 0 {
                    wrong = Some("a standby joins with commits that its primary does not have");
                }
            }
            _ => return,
        }
        self.push(out, Step::Acts(x, todo), to, wrong);
    }

    /// Without a ledger a standby runs, and nothing else is started.
    pub fn starts_without(&self, at: &State, x: usize, out: &mut Vec<Taken>) {
        if at.hosts[x].run == Run::DownStandby {
            let mut to = *at;
            to.hosts[x].run = Run::Standby;
            to.hosts[x].file = true;
            self.push(out, Step::Acts(x, InstanceStep::StartNamed), to, None);
        }
    }

    /// R10. The other server's word is its durable ledger and its running instance; it may be an old one.
    fn may_follow(&self, at: &State, x: usize) -> bool {
        let (own, other) = (&at.hosts[x], &at.hosts[1 - x]);
        let ledger = at.ledger(x);
        let told = (other.term >= own.term).then_some(&ledger.view);
        rules::may_follow(&ledger, server(x), told, other.run == Run::Primary)
    }

    /// Our own rebuild: a new name first, then a copy of the other's data; or what is left where it was interrupted, which holds
    /// nothing for sure, and is let run here all the same.
    pub fn rebuilds(&self, at: &State, x: usize, out: &mut Vec<Taken>) {
        let (own, other) = (at.hosts[x], at.hosts[1 - x]);
        let stopped = matches!(own.run, Run::DownPrimary | Run::DownStandby);
        if own.exchanged >= self.exchanges || !stopped {
            return;
        }
        if self.without == Without::OthersWord {
            // Whoever leads by the own ledger is told to be copied from: where that fails, the directory is gone.
            if rules::standing(&at.ledger(x).view, server(x)) == Standing::Inactivated {
                let mut to = *at;
                let has = if other.run == Run::Primary { other.has } else { 0 };
                rename(&mut to.hosts[x], Host { has, run: Run::DownStandby, ..own }, self.without);
                to.hosts[x].exchanged += 1;
                self.push(out, Step::Rebuilds(x), to, None);
            }
        } else if self.may_follow(at, x) {
            for has in if other.has == 0 { vec![0] } else { vec![0, other.has] } {
                let mut to = *at;
                rename(&mut to.hosts[x], Host { has, run: Run::DownStandby, ..own }, self.without);
                to.hosts[x].exchanged += 1;
                self.push(out, Step::Rebuilds(x), to, None);
            }
        }
    }

    // -------------------------------------------------------------------------------------------------------------- R9

    /// The proof, and the view that follows it. The last look and the write of the ledger are one step: whatever happens
    /// between them can happen after both as well, for it depends on no ledger of the prover's, and what the standby told
    /// of its directory is any name that it ever had.
    pub fn mirrors(&self, at: &State, x: usize, out: &mut Vec<Taken>) {
        let (own, other) = (at.hosts[x], at.hosts[1 - x]);
        if !at.holds(x) || own.run != Run::Primary || other.data == 0 || other.term == 0 {
            return;
        }
        if !own.file {
            let mut to = *at;
            to.hosts[x].file = true;
            self.push(out, Step::Acts(x, InstanceStep::Name), to, None);
            return;
        }
        let effect = own.names || self.without == Without::InEffect;
        let holds_all = at.streams(1 - x) && own.has & !other.has == 0;
        if !effect || !holds_all && self.without != Without::HoldsAll {
            return;
        }
        let ledger = at.ledger(x);
        let arbiters = if at.arbiter == 0 { 0..=0 } else { 1..=at.arbiter };
        for term in self.terms(at, x) {
            for data in 1..=other.data {
                for arbiter in arbiters.clone() {
                    let arbiter = Some(LedgerId(arbiter.into()));
                    let Some(view) =
                        rules::mirrored(&ledger, server(x), Term(term.into()), DataId(data.into()), arbiter)
                    else {
                        continue;
                    };
                    let mut to = *at;
                    let wrong = if self.without == Without::WriteFirst {
                        to.hosts[x].promised = term;
                        (!to.keep(&view)).then_some("I4: one term carries two views")
                    } else {
                        self.write(&mut to, x, &rules::entering(ledger, view))
                    };
                    self.push(out, Step::Mirrors { who: x, term }, to, wrong);
                }
            }
        }
    }

    // ------------------------------------------------------------------------------------------- what runs by itself

    pub fn runs(&self, at: &State, x: usize, out: &mut Vec<Taken>) {
        let (own, other) = (at.hosts[x], at.hosts[1 - x]);
        let mut step = |step, change: &dyn Fn(&mut State)| {
            let mut to = *at;
            change(&mut to);
            self.push(out, step, to, None);
        };
        if own.unseen {
            for run in [Run::DownPrimary, Run::DownStandby] {
                step(Step::Looks(x, run), &|to| rename(&mut to.hosts[x], Host { run, ..own }, self.without));
            }
        }
        // Its note, the other server or the arbiter shows it that its data went back (R13).
        if own.noted | own.recalled != 0 && own.term != 0 {
            step(Step::FoundBehind(x), &|to| rename(&mut to.hosts[x], own, self.without));
        }
        // A reload is heard of at any time after it, with what the file says then.
        if own.run == Run::Primary && own.file != own.names {
            step(Step::NamesTakeEffect(x), &|to| to.hosts[x].names = own.file);
        }
        if own.run == Run::Promoting {
            step(Step::Promoted(x), &|to| {
                to.hosts[x].run = Run::Primary;
                to.hosts[x].names = own.file;
            });
        }
        let missing = other.has & !own.has;
        if at.streams(x) && missing != 0 {
            step(Step::Streams(x), &|to| hold(&mut to.hosts[x], own.has | missing & missing.wrapping_neg()));
        }
        if at.connects(x) && !at.is_contained(x) && self.without == Without::Contents {
            step(Step::Streams(x), &|to| to.hosts[x].has = other.has);
        }
        if own.run == Run::Primary && at.made < self.commits {
            step(Step::Commits(x), &|to| {
                to.hosts[x].has |= 1 << at.made;
                to.made += 1;
            });
        }
        if own.run == Run::Primary {
            for commit in 0..at.made {
                let bit = 1 << commit;
                let flushed = !own.names || at.streams(1 - x) && other.has & bit != 0;
                if own.has & bit != 0 && at.acked & bit == 0 && flushed {
                    step(Step::Acknowledged(commit), &|to| to.acked |= bit);
                }
            }
        }
    }

    // ---------------------------------------------------------------------------------------------------------- faults

    /// A crash or a stop of an instance, a directory put back from a backup, an arbiter with an empty directory.
    pub fn faults(&self, at: &State, out: &mut Vec<Taken>) {
        for x in 0..2 {
            let own = at.hosts[x];
            let mut to = *at;
            if matches!(own.run, Run::DownPrimary | Run::DownStandby) {
                if self.replaced && own.exchanged < self.exchanges && own.term != 0 && !own.unseen {
                    // Until it looks, the controller takes it for the kind that it was.
                    to.hosts[x] = Host { unseen: true, exchanged: own.exchanged + 1, has: 0, ..own };
                    self.push(out, Step::DirectoryReplaced(x), to, None);
                }
            } else {
                stop(&mut to.hosts[x]);
                self.push(out, Step::Stops(x), to, None);
            }
        }
        for x in 0..2 {
            if self.loses && !at.lost && at.hosts[x].term != 0 {
                let mut to = State { lost: true, ..*at };
                to.hosts[x] = Host { term: 0, promised: 0, handed: false, unseen: false, ..at.hosts[x] };
                self.push(out, Step::LedgerLost(x), to, None);
            }
        }
        for x in 0..2 {
            self.goes_back(at, x, out);
        }
        if self.third == Third::Replaced && at.arbiter == 1 {
            let to = State { arbiter: 2, arbiter_term: 0, ..*at };
            self.push(out, Step::ArbiterReplaced, to, None);
        }
    }

    /// A directory loses its newest commits. The note of its server shows it, or the loss is newer than the note: see what
    /// [`crate`] assumes of that.
    fn goes_back(&self, at: &State, x: usize, out: &mut Vec<Taken>) {
        let (own, other) = (at.hosts[x], at.hosts[1 - x]);
        let stopped = matches!(own.run, Run::DownPrimary | Run::DownStandby);
        if own.back >= self.back || !stopped || own.unseen || own.term == 0 || other.recalled != 0 {
            return;
        }
        let mut left = own.has;
        while left != 0 {
            left &= !(1 << left.ilog2());
            let lost = own.has & !left & at.acked;
            let mut to = *at;
            to.hosts[x] = Host { has: left, back: own.back + 1, noted: own.noted | lost, ..own };
            self.push(out, Step::DataGoesBack { who: x, noted: true }, to, None);
            if lost & !other.has == 0 && self.others_recall(at, x) {
                let mut to = *at;
                to.hosts[x] = Host { has: left, back: own.back + 1, recalled: own.recalled | lost, ..own };
                for proposal in to.proposals.iter_mut().filter(|proposal| usize::from(proposal.gains) == x) {
                    *proposal = NOT_PROPOSED;
                }
                self.push(out, Step::DataGoesBack { who: x, noted: false }, to, None);
            }
        }
    }

    /// Whether members know what `x` has reported under its view: they all have that view, and the pair is mirrored.
    fn others_recall(&self, at: &State, x: usize) -> bool {
        let term = at.hosts[x].term;
        let same = at.hosts[1 - x].term == term && at.arbiter_term == term;
        self.asks_arbiter() && same && at.view(term).mode == Mode::Mirrored
    }

    // ------------------------------------------------------------------------------------------------------ invariants

    /// I1 and I2 of PROTOCOL section 8.
    pub fn wrong(&self, at: &State) -> Option<&'static str> {
        if self.third == Third::Fallback {
            return None;
        }
        // A lost ledger's own proposals outlive it; what is granted to them names a directory that is no more.
        if at.holds(0) && at.holds(1) && (!at.lost || at.is_fit(0) && at.is_fit(1)) {
            return Some("I1: both servers hold the right to run alone");
        }
        let free = |x: usize| at.hosts[x].run == Run::Primary && !at.hosts[x].names;
        if free(0) && free(1) {
            return Some("I1: both servers acknowledge commits");
        }
        for x in 0..2 {
            let lacks = at.acked & !at.hosts[x].has != 0;
            if lacks && free(x) {
                return Some("I2: a server takes commits alone and lacks an acknowledged one");
            }
            // A directory that is not the one that its view names, or was put there unseen, is never started.
            if lacks && at.holds(x) && at.is_fit(x) {
                return Some("I2: a server holds the right to run alone and lacks an acknowledged commit");
            }
        }
        None
    }
}

fn stop(host: &mut Host) {
    host.run = if host.run == Run::Primary { Run::DownPrimary } else { Run::DownStandby };
    host.file = false;
    host.names = false;
}

/// What was lost is there again.
fn hold(host: &mut Host, has: u8) {
    *host = Host { has, noted: host.noted & !has, recalled: host.recalled & !has, ..*host };
}

/// The directory gets a new name before anything else is done with it.
fn rename(host: &mut Host, to: Host, without: Without) {
    *host = Host { unseen: false, handed: false, noted: 0, recalled: 0, ..to };
    if without != Without::NewName {
        host.data += 1;
    }
}
