//! What can happen in a state: every step that a member may take, and every fault.
//!
//! The conditions are the shipped ones: [`rules`] for who may write what into a ledger, [`act`] for what is done to an
//! instance. This file only says what a step makes of the state. A rule is knocked out here, by not asking it or by
//! telling it something else; the core has no switch for it.

use crate::state::{Host, NOT_PROPOSED, Proposal, Run, State};
use mirroring_controller::fsm::facts::Standing;
use mirroring_controller::fsm::reconcile::Step as InstanceStep;
use mirroring_controller::fsm::rules::{self, Learned};
use mirroring_controller::fsm::types::*;

/// What is explored: the bounds, the kind of pair, and the rule that is left out.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The highest term.
    pub terms: u8,
    /// How many commits are made.
    pub commits: u8,
    /// How often each server's data directory is rebuilt, or another one put in its place.
    pub exchanges: u8,
    /// Whether others are put in its place, so that not only our own rebuild exchanges it.
    pub replaced: bool,
    /// How often each server's data goes back.
    pub back: u8,
    /// Whether a server loses its ledger, once.
    pub loses: bool,
    pub third: Third,
    pub without: Without,
}

/// Who else is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Third {
    /// An arbiter.
    Arbiter,
    /// An arbiter that is replaced once by one with an empty directory.
    Replaced,
    /// Nobody; a standby may switch on silence.
    SwitchHalf,
    /// Nobody; a primary may disconnect on silence.
    DisconnectHalf,
    /// Nobody; both act alone on silence, by force. Only ledgers are looked at: commits may be lost.
    Fallback,
}

/// The rule that is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Without {
    Nothing,
    /// R1: a proposer does not write what it promises.
    Promising,
    /// R1: what was promised is not looked at when consenting.
    Promised,
    /// R1: a server proposes with any term.
    Parity,
    /// R2: the sender's view is taken for the own one.
    Comparing,
    /// R3: a server also proposes that the other one gains the right.
    OwnGain,
    /// R4: any data directory will do.
    Eligibility,
    /// R4: a server gives the right back though it was promoted.
    Unpromoted,
    /// R4: a hand-back is also asked of the arbiter, which takes it.
    HandBackToPeer,
    /// R5: a proposal is acted on without the answer.
    Consent,
    /// R6: a server consents while its instance may acknowledge.
    StopFirst,
    /// R6: the standby is told of `Mirrored` before the primary has written it.
    WriteFirst,
    /// R6: an instance is started without the names.
    NamesFirst,
    /// R7: only a right that is gained is adopted.
    Adopting,
    /// R8: a view that names another arbiter will do.
    NamedArbiter,
    /// R9: `Mirrored` without the standby's holding everything.
    HoldsAll,
    /// R9: `Mirrored` before the names are in effect.
    InEffect,
    /// Section 2: a lost ledger begins anew with any view of the other's, not only with its right to run alone.
    Beginning,
    /// R10: a directory keeps its name when it is rebuilt or replaced.
    NewName,
    /// R10: a directory is rebuilt because the own ledger, or the arbiter, says that the other server leads.
    OthersWord,
    /// R13: an instance is started without a look at the durable note.
    Note,
    /// R13: a standby connects to a primary that does not contain its WAL, which overwrites it.
    Contents,
    /// R13: a standby consents to a primary that does not contain its WAL.
    Contained,
    /// R13: a server does not compare what the other one reports with what that one has reported before.
    PeersMemory,
    /// R13: the arbiter does not.
    ArbitersMemory,
}

/// One step, for traces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Adopts(usize, u8),
    Joins(usize, u8),
    Proposes { who: usize, term: u8, to_arbiter: bool },
    Accepts { who: usize, term: u8, clean: bool },
    TakesAlone(usize, u8),
    Mirrors { who: usize, term: u8 },
    Acts(usize, InstanceStep),
    Promoted(usize),
    NamesTakeEffect(usize),
    Looks(usize, Run),
    Rebuilds(usize),
    ArbiterAdopts(u8),
    ArbiterAccepts(u8),
    Streams(usize),
    Commits(usize),
    Acknowledged(u8),
    Stops(usize),
    DirectoryReplaced(usize),
    DataGoesBack { who: usize, noted: bool },
    FoundBehind(usize),
    LedgerLost(usize),
    ArbiterReplaced,
}

/// A step taken: what it was, what it led to, and what was wrong with it in itself.
pub struct Taken {
    pub step: Step,
    pub to: State,
    pub wrong: Option<&'static str>,
}

pub fn server(x: usize) -> Server {
    Server::BOTH[x]
}

impl Model {
    pub fn asks_arbiter(&self) -> bool {
        matches!(self.third, Third::Arbiter | Third::Replaced)
    }

    pub fn begin(&self) -> State {
        State::founded(self.asks_arbiter())
    }

    /// Every step out of a state.
    pub fn steps(&self, at: &State, out: &mut Vec<Taken>) {
        for x in 0..2 {
            self.learns(at, x, out);
            if at.hosts[x].term == 0 {
                self.starts_without(at, x, out);
            } else {
                self.proposes(at, x, out);
                self.takes_alone(at, x, out);
                self.mirrors(at, x, out);
                self.acts(at, x, out);
                self.rebuilds(at, x, out);
            }
            self.runs(at, x, out);
        }
        self.accepted(at, out);
        if at.arbiter != 0 {
            self.arbiter_learns(at, out);
        }
        self.faults(at, out);
    }

    pub fn push(&self, out: &mut Vec<Taken>, step: Step, mut to: State, wrong: Option<&'static str>) {
        // Where one of these rules is left out, or a ledger is, more stays alive than what is forgotten as dead.
        let rules = [Without::Promised, Without::Comparing, Without::NamedArbiter, Without::HandBackToPeer];
        if !rules.contains(&self.without) && !self.loses {
            to.tidy();
        }
        out.push(Taken { step, to, wrong });
    }

    /// Writes a server's ledger, and what goes with a change of the view.
    pub fn write(&self, to: &mut State, x: usize, ledger: &Ledger) -> Option<&'static str> {
        let before = to.hosts[x];
        let alone = to.keep(&ledger.view);
        let host = &mut to.hosts[x];
        host.term = ledger.view.term.0 as u8;
        host.promised = ledger.promised.0 as u8;
        host.handed &= ledger.view.mode == Mode::Degraded;
        if host.term < before.term || host.promised < before.promised || host.promised < host.term {
            return Some("I4: a ledger goes back");
        }
        (!alone).then_some("I4: one term carries two views")
    }

    pub fn fit(&self, at: &State, x: usize) -> bool {
        self.without == Without::Eligibility || rules::eligible(&at.ledger(x), server(x))
    }

    // ------------------------------------------------------------------------------------------------------ adopting

    /// Any view that a ledger ever held may be told to anybody, at any time.
    fn learns(&self, at: &State, x: usize, out: &mut Vec<Taken>) {
        for term in at.hosts[x].term + 1..=self.terms {
            if !at.views[usize::from(term)].there {
                continue;
            }
            let told = at.view(term);
            let mut to = *at;
            if at.hosts[x].term == 0 {
                let is_standby = matches!(at.hosts[x].run, Run::DownStandby | Run::Standby | Run::Promoting);
                let begins = rules::begins_standby(server(x), &told) || self.without == Without::Beginning;
                // What the other one says now: the echo in its heartbeats shows that it was said after this start.
                if is_standby && begins && at.hosts[1 - x].term == term {
                    to.hosts[x] = Host { term, promised: term, data: at.hosts[x].data + 1, ..to.hosts[x] };
                    self.push(out, Step::Joins(x, term), to, None);
                }
                continue;
            }
            if self.without == Without::Adopting && !told.is_alone(server(x)) {
                continue;
            }
            let ledger = at.ledger(x);
            if rules::learns(&ledger, server(x), self.fit(at, x), &told) == Learned::Adopt {
                let wrong = self.write(&mut to, x, &rules::entering(ledger, told));
                self.push(out, Step::Adopts(x, term), to, wrong);
            }
        }
    }

    fn arbiter_learns(&self, at: &State, out: &mut Vec<Taken>) {
        for term in at.arbiter_term + 1..=self.terms {
            if at.views[usize::from(term)].there
                && (at.arbiter_term == 0 || rules::arbiter_adopts(&at.arbiter_ledger(), &at.view(term)))
            {
                let to = State { arbiter_term: term, ..*at };
                self.push(out, Step::ArbiterAdopts(term), to, None);
            }
        }
    }

    // ----------------------------------------------------------------------------------------------------- proposing

    /// The terms that a server may choose: the smallest of its own above its promise, and above any that it may have heard
    /// others promise.
    pub fn terms(&self, at: &State, x: usize) -> impl Iterator<Item = u8> + use<> {
        let own = Term(at.hosts[x].promised.into());
        let others = at.hosts[1 - x].promised.max(at.arbiter_term);
        let (limit, parity) = (self.terms, self.without != Without::Parity);
        let mut last = 0;
        (0..=others).filter_map(move |heard| {
            let next = if parity {
                rules::next_term(server(x), &[own, Term(heard.into())])
            } else {
                Term(own.0.max(heard.into()) + 1)
            };
            let next = next.0 as u8;
            (next <= limit && std::mem::replace(&mut last, next) != next).then_some(next)
        })
    }

    fn proposes(&self, at: &State, x: usize, out: &mut Vec<Taken>) {
        let ledger = at.ledger(x);
        let in_recovery = at.hosts[x].run == Run::Standby;
        if !self.fit(at, x) {
            return;
        }
        for to_arbiter in [false, true] {
            let member = if to_arbiter { Member::Arbiter } else { Member::Server(server(1 - x)) };
            let outcast = self.without == Without::HandBackToPeer && ledger.view.is_alone(server(1 - x));
            if to_arbiter && at.arbiter == 0 || !outcast && !rules::may_propose(&ledger, server(x), member, in_recovery)
            {
                continue;
            }
            for term in self.terms(at, x) {
                let mut to = *at;
                let promised = rules::promising(ledger, Term(term.into())).promised.0 as u8;
                to.hosts[x].promised =
                    if self.without == Without::Promising { ledger.promised.0 as u8 } else { promised };
                if self.without == Without::Consent {
                    let view = rules::alone(&ledger, server(x), Term(term.into()), false);
                    let wrong = self.write(&mut to, x, &rules::entering(ledger, view));
                    self.push(out, Step::Proposes { who: x, term, to_arbiter }, to, wrong);
                    continue;
                }
                for gains in [x, 1 - x] {
                    if gains == x || to_arbiter && self.without == Without::OwnGain {
                        to.proposals[usize::from(term)] =
                            Proposal { base: at.hosts[x].term, to_arbiter, gains: gains as u8 };
                        self.push(out, Step::Proposes { who: x, term, to_arbiter }, to, None);
                    }
                }
            }
        }
    }

    fn takes_alone(&self, at: &State, x: usize, out: &mut Vec<Taken>) {
        let ledger = at.ledger(x);
        let may = match (self.third, rules::standing(&ledger.view, server(x))) {
            (Third::SwitchHalf | Third::Fallback, Standing::Standby) => at.hosts[x].run == Run::Standby,
            (Third::DisconnectHalf | Third::Fallback, Standing::Primary) => at.hosts[x].run == Run::Primary,
            _ => false,
        };
        if !may || !self.fit(at, x) {
            return;
        }
        for term in self.terms(at, x) {
            let mut to = *at;
            let view = rules::alone(&ledger, server(x), Term(term.into()), false);
            let wrong = self.write(&mut to, x, &rules::entering(ledger, view));
            self.push(out, Step::TakesAlone(x, term), to, wrong);
        }
    }

    // ---------------------------------------------------------------------------------------------------- consenting

    /// Every proposal in the network, to whom it was sent.
    fn accepted(&self, at: &State, out: &mut Vec<Taken>) {
        for term in 1..=self.terms {
            let proposal = at.proposals[usize::from(term)];
            if proposal.base == 0 {
                continue;
            }
            let from = server(usize::from(proposal.gains));
            let base = at.view(proposal.base);
            let view = View { term: Term(term.into()), primary: from, mode: Mode::Degraded, ..base };
            if proposal.to_arbiter {
                self.arbiter_accepts(at, from, &base, &view, out);
            } else {
                self.server_accepts(at, from.other().index(), &base, &view, out);
            }
        }
    }

    /// Where terms are nobody's own, they are told to the rules with the parity that those look for, in the same order.
    fn respell(&self, asked: Ledger, view: View) -> (Ledger, View) {
        if !matches!(self.without, Without::Parity | Without::OwnGain) {
            return (asked, view);
        }
        let own = u64::from(view.primary == Server::First);
        let promised = Term(asked.promised.0 * 2 + 1);
        (Ledger { promised, ..asked }, View { term: Term(view.term.0 * 2 + own), ..view })
    }

    fn server_accepts(&self, at: &State, x: usize, base: &View, view: &View, out: &mut Vec<Taken>) {
        let (host, other) = (at.hosts[x], at.hosts[1 - x]);
        if host.term == 0 {
            return;
        }
        let ledger = at.ledger(x);
        let stopped = matches!(host.run, Run::DownPrimary | Run::DownStandby);
        let own = rules::Instance {
            eligible: self.fit(at, x),
            stopped: stopped || self.without == Without::StopFirst,
            follows: host.run == Run::Standby || self.without == Without::StopFirst,
            // An offer is only made of a stopped instance, lives in memory, and may be made at any time.
            offered: stopped || self.without == Without::StopFirst,
            unpromoted: matches!(host.run, Run::DownStandby | Run::Standby | Run::Promoting)
                || self.without == Without::Unpromoted,
            contained: other.run != Run::Primary || at.is_contained(x) || self.without == Without::Contained,
            // A standby may have forgotten what a running primary has reported: it compares its data with the primary's.
            asker_is_behind: other.recalled != 0
                && !(rules::standing(&ledger.view, server(x)) == Standing::Standby && other.run == Run::Primary)
                && self.without != Without::PeersMemory,
        };
        let mut asked = ledger;
        match self.without {
            Without::Promised => asked.promised = asked.view.term,
            Without::Comparing => asked.view = *base,
            _ => {}
        }
        let (asked, spelt) = self.respell(asked, *view);
        if !rules::server_accepts(&asked, server(x), base, &spelt, own) {
            return;
        }
        for clean in [false, true] {
            // Planned: the other one has received all that this one had written when it was stopped.
            let confirmed = host.run == Run::DownPrimary && host.has & !at.hosts[1 - x].has == 0;
            if clean && !(confirmed && ledger.view.is_mirrored(server(x))) {
                continue;
            }
            let mut to = *at;
            let wrong = self.write(&mut to, x, &rules::entering(ledger, *view));
            to.hosts[x].handed |= clean;
            to.proposals[view.term.0 as usize] = NOT_PROPOSED;
            self.push(out, Step::Accepts { who: x, term: view.term.0 as u8, clean }, to, wrong);
        }
    }

    /// The arbiter judges silence by the clock, so that it may be wrong at any time: to the model it always may consent.
    fn arbiter_accepts(&self, at: &State, from: Server, base: &View, view: &View, out: &mut Vec<Taken>) {
        if at.arbiter_term == 0 {
            return;
        }
        let ledger = at.arbiter_ledger();
        let mut asked = ledger;
        match self.without {
            Without::Comparing => asked.view = *base,
            Without::NamedArbiter => asked.id = asked.view.arbiter.unwrap_or_default(),
            Without::HandBackToPeer if base == &ledger.view => asked.view.mode = Mode::Mirrored,
            _ => {}
        }
        let base = if self.without == Without::HandBackToPeer { &asked.view } else { base };
        let (asked, spelt) = self.respell(asked, *view);
        let behind = at.hosts[from.index()].recalled != 0 && self.without != Without::ArbitersMemory;
        if rules::arbiter_accepts(&asked, from, base, &spelt, behind, |_| true) {
            let mut to = *at;
            let entered = rules::entering(ledger, *view);
            let back = entered.view.term < ledger.view.term;
            let alone = to.keep(&entered.view);
            to.arbiter_term = entered.view.term.0 as u8;
            to.proposals[view.term.0 as usize] = NOT_PROPOSED;
            let wrong = if back { Some("I4: the arbiter's ledger goes back") } else { None };
            let wrong = wrong.or((!alone).then_some("I4: one term carries two views"));
            self.push(out, Step::ArbiterAccepts(view.term.0 as u8), to, wrong);
        }
    }
}
