//! Pursuing: what the decision table orders is started or continued.

use super::calls::GateResult;
use super::cause::Cause;
use super::consent::Proposal;
use super::decide::{Decision, Intent, Needs, decide};
use super::event::{Aim, CoreMessage, Health, Job, Purpose, UserCommand};
use super::facts::{Facts, Peer, Replication, Standing};
use super::hand_over::HandOver;
use super::node::Node;
use super::node_report::Reporter;
use super::observed::DownReason;
use super::reason::Reason;
use super::rules;
use super::types::{Lsn, Member};

/// The longest wait between two attempts to prove a standby (R9), ms.
const LONGEST_PROOF_WAIT_MS: u64 = 300_000;
/// How long an idle standby is taken to follow without a reply, ms: twice the default of wal_receiver_status_interval.
const REPLIES_MS: u64 = 20_000;

impl Node {
    pub(super) fn pursue(&mut self) {
        if self.is_demoted_by_hand() {
            self.refuse(Cause::DemotedByHand);
        }
        self.announced.proposing =
            self.proposals.current.as_ref().map(|_| self.announced.proposing.unwrap_or(self.now));
        self.judge();
        self.watch_peer();
        let Some(facts) = self.facts() else { return };
        self.report_none_holds_all();
        self.log_peer(facts);
        self.log_arbiter();
        self.isolate(facts);
        self.log_waiting_for_member();
        self.log_asking_later();
        if self.requests.stopping || self.hand_overs.current.is_some() || self.op_leads() {
            return;
        }
        let decision = decide(facts);
        let allowed = decision.needs == Needs::Nothing || self.store.notes.failover.enabled;
        if self.announced.decision != Some((decision, allowed)) {
            self.announced.decision = Some((decision, allowed));
            self.log_decision(decision, allowed);
        }
        if allowed {
            self.carry_out(decision);
        } else {
            self.proposals.current = None;
            let down = self.own.running != super::observed::Running::Up;
            if down && matches!(decision.intent, Intent::Restart | Intent::HandOver) {
                self.own.down_reasons.begin(DownReason::FailoverDisabled);
            }
        }
        if decision.intent == Intent::Wait || facts.standing == Standing::Primary {
            self.log_commits_wait();
        }
    }

    fn carry_out(&mut self, decision: Decision) {
        let Decision { intent, why, .. } = decision;
        if !matches!(intent, Intent::AskPeer | Intent::AskArbiter) {
            self.proposals.current = None;
        }
        if intent != Intent::AskPeer {
            self.proposals.asking = None;
        }
        match intent {
            Intent::Rest | Intent::Wait => {}
            Intent::HandOver if self.now >= self.hand_overs.not_before => self.begin_hand_over(false, 0),
            Intent::HandOver | Intent::Restart => self.restart(),
            Intent::AskPeer if self.standing() == Some(Standing::Primary) && self.peer_cannot_consent() => {
                self.ask_arbiter(false, why);
            }
            Intent::AskPeer => self.ask_peer_for_the_right(why),
            Intent::AskArbiter => self.ask_arbiter(self.settings.fencing && !self.peer_talks(self.patience_ms()), why),
            Intent::AskCommand => self.ask_command(why),
            Intent::ActByHalf => self.take_alone_by_itself(false, why),
            Intent::ActByForce => self.take_alone_by_itself(true, why),
            Intent::Mirror => self.prove(),
        }
    }

    /// Proposes to the other server. One that talks and does not consent within the detection time is held up by something:
    /// the arbiter is asked then, by turns, for a primary that could serve.
    fn ask_peer_for_the_right(&mut self, why: Cause) {
        let detection = self.settings.heartbeat_detection_ms.max(1);
        let term = self.view().map(|view| view.term);
        let since = match self.proposals.asking {
            Some((asked, since)) if Some(asked) == term => since,
            _ => self.now,
        };
        self.proposals.asking = term.map(|term| (term, since));
        let in_vain = self.now.since(since) / detection % 2 == 1;
        if in_vain && self.may_ask_arbiter() && self.standing() == Some(Standing::Primary) {
            self.ask_arbiter(false, why);
        } else {
            self.propose(self.peer_member(), why);
        }
    }

    /// Proposes to the arbiter. The other server is fenced first only where the arbiter would consent: a cut between the two
    /// servers alone is no reason to take down a primary that serves.
    fn ask_arbiter(&mut self, fencing: bool, why: Cause) {
        // A server that lacks commits must not fence the other server.
        if fencing && self.awaits_comparison() {
            return;
        }
        let term = self.view().map(|view| view.term);
        let asked = |proposal: &Proposal| proposal.fenced && Some(proposal.base) == term;
        // What was asked after a fencing is asked until it is answered, even where the fenced server shows life.
        let cleared = !fencing
            || self.proposals.current.as_ref().is_some_and(asked)
            || self.arbiter_consents() && self.clear(Purpose::Fencing, false, why) == GateResult::Given;
        if cleared {
            self.propose(Member::Arbiter, why);
            self.proposals.current.iter_mut().for_each(|proposal| proposal.fenced |= fencing);
        } else {
            self.proposals.current = None;
        }
    }

    /// Whether the arbiter has just reported that it would grant the right.
    fn arbiter_consents(&self) -> bool {
        self.arbiter.would_grant && self.arbiter_heard(self.patience_ms())
    }

    /// `heartbeat_error_action = command`: the operator's script reports that the other server is dead, and fencing ensures that.
    fn ask_command(&mut self, why: Cause) {
        if self.awaits_comparison() {
            return;
        }
        let dead = self.clear(Purpose::Arbitration, false, why) == GateResult::Given;
        if dead && (!self.settings.fencing || self.clear(Purpose::Fencing, false, why) == GateResult::Given) {
            self.take_alone_by_itself(true, why);
        }
    }

    /// Calls a command of the operator's, or returns its result.
    pub(super) fn clear(&mut self, purpose: Purpose, by_operator: bool, why: Cause) -> GateResult {
        let aim = if self.standing() == Some(Standing::Primary) { Aim::Detach } else { Aim::Switch };
        let term = self.view().map_or_else(super::types::Term::default, |view| view.term);
        let command =
            UserCommand { purpose, by_operator, aim, target: self.other(), term, reason: why.text().to_owned() };
        let retry_ms = self.settings.heartbeat_detection_ms * 10;
        let seen_at = self.peer.seen_at();
        self.calls.clear(self.now, command, seen_at, retry_ms, &mut self.out)
    }

    /// Lets the instance be started again; a silent one is stopped first.
    fn restart(&mut self) {
        if self.own.failed == Some(super::observed::Failure::Silent) && self.own.running == super::observed::Running::Up
        {
            if !self.work.busy() {
                let names = self.names_for_stop();
                self.run(Job::Stop { fast_ms: 0, names });
            }
            return;
        }
        // As long as it counts as failed, the standby can take over as soon as it responds.
        if self.own.running == super::observed::Running::Dead || self.awaits_member() {
            return;
        }
        self.own.failed = None;
    }

    pub(super) fn begin_hand_over(&mut self, planned: bool, limit_ms: u64) {
        self.proposals.current = None;
        self.hand_overs.current = Some(HandOver::new(planned, self.now, limit_ms));
    }

    // -------------------------------------------------------------------------------------------------- R9, the proof

    fn prove(&mut self) {
        let told = self.peer.heartbeat.as_ref();
        let Some((start, data)) = told.and_then(|told| Some((told.start_id, told.ledger?.data.id))) else { return };
        // What failed with another standby, or before an operator repaired this one, is no reason to wait.
        if self.work.proof_of != Some((start, data)) {
            self.work.proof_of = Some((start, data));
            self.work.proof_wait_ms = 0;
            self.work.next_proof = self.now;
        }
        // A view must not lean on a directory that is about to be replaced.
        let rebuilds = told.is_some_and(|told| told.rebuilds);
        if !self.settled() || self.work.busy() || self.now < self.work.next_proof || rebuilds {
            return;
        }
        self.work.proving = Some(data);
        self.run(Job::Prove(self.id.peer_name.clone()));
    }

    /// PROTOCOL R9, after the last step: the own ledger first, and only then the standby.
    pub(super) fn proved(&mut self, position: Lsn) {
        let (Some(data), Some(ledger)) = (self.work.proving.take(), self.store.ledger) else { return };
        self.own.named();
        self.own.followed(position);
        let heard = self.arbiter.best.id.or(ledger.view.arbiter);
        let arbiter = heard.filter(|_| self.settings.arbiter);
        let Some(mirrored) = rules::mirrored(&ledger, self.me(), self.next_term(), data, arbiter) else { return };
        if !self.settled() {
            return;
        }
        self.work.proof_wait_ms = 0;
        self.enter(mirrored, Reason::own("the standby is synchronous and has all committed transactions"));
        self.own.confirmed = Some(position);
        self.say(CoreMessage::Mirrored);
        self.out.push(super::event::Action::Look);
    }

    pub(super) fn proof_failed(&mut self) {
        self.work.proving = None;
        let wait = self.work.proof_wait_ms;
        let least = self.settings.heartbeat_detection_ms;
        self.work.proof_wait_ms = if wait == 0 { least } else { (wait * 2).min(LONGEST_PROOF_WAIT_MS) };
        self.work.next_proof = self.now.plus(self.work.proof_wait_ms);
    }

    // ------------------------------------------------------------------------------------------------------- watching

    /// While heartbeats are missed, the other's instance is looked at.
    fn watch_peer(&mut self) {
        let missed = self.peer.up_at().is_some_and(|at| self.now.since(at) > self.patience_ms());
        let watch = missed || self.peer.refused > 0 && self.peer.heard_at.is_some();
        if watch != self.peer.watching {
            self.peer.watching = watch;
            self.out.push(super::event::Action::WatchPeer(watch));
        }
    }

    /// `isolated_primary_action = stop`.
    fn isolate(&mut self, facts: Facts) {
        let limit = self.settings.heartbeat_detection_ms * 2;
        let since = |at: Option<super::types::Time>| self.now.since(at.or(self.id.booted_at).unwrap_or(self.now));
        // A standby that was promoted can leave its row in pg_stat_replication behind.
        let replies = self.peer.wal_at.is_some_and(|at| self.now.since(at) < REPLIES_MS);
        if self.own.is_followed() && replies && facts.replication == Replication::Streaming {
            self.peer.followed_at = self.peer.answered_at.max(self.peer.wal_at);
        }
        let peer_at = self.peer.heard_at.max(self.peer.followed_at);
        let alone = since(peer_at) >= limit && since(self.arbiter.heard_at) >= limit;
        if self.own.down_reasons.has(DownReason::Isolated) {
            let heard = self.peer.heard_at.is_some() || self.arbiter.heard_at.is_some();
            self.own.down_reasons.set(DownReason::Isolated, (alone || !heard) && facts.standing == Standing::Primary);
        } else if self.settings.isolated_primary_stops
            && alone
            && facts.standing == Standing::Primary
            && self.own.is_primary()
            && !self.work.busy()
        {
            self.own.down_reasons.begin(DownReason::Isolated);
            self.say(CoreMessage::Isolated);
            let names = self.names_for_stop();
            self.run(Job::Stop { fast_ms: 2000, names });
        }
    }

    // -------------------------------------------------------------------------------------------------------- telling

    fn log_peer(&mut self, facts: Facts) {
        let before = self.announced.peer;
        self.announced.peer = Some(facts.peer);
        if before == Some(facts.peer) {
            return;
        }
        let was_lost = matches!(before, Some(Peer::Lost | Peer::Refused));
        let mirrored = matches!(facts.standing, Standing::Primary | Standing::Standby);
        // A server that was stopped on an operator's order is not expected to respond.
        let stopped = self.peer.heartbeat.as_ref().is_some_and(|told| told.instance == Health::Stopped);
        match facts.peer {
            Peer::Alive if mirrored => self.say(CoreMessage::PeerAlive),
            Peer::Lost | Peer::Refused if was_lost || stopped && facts.standing == Standing::Alone => {}
            Peer::Lost | Peer::Refused => {
                let decision = decide(facts);
                let allowed = decision.needs == Needs::Nothing || self.store.notes.failover.enabled;
                self.say(CoreMessage::HeartbeatLost {
                    done: match decision.intent {
                        _ if !allowed => "nothing, failover is disabled",
                        // It is reported when it is started.
                        Intent::Restart => "nothing, this server's instance has failed",
                        intent => done(intent),
                    },
                });
            }
            Peer::Healthy | Peer::Failed | Peer::HandingOver | Peer::NotPromoted => {
                if matches!(before, Some(Peer::Alive | Peer::Lost | Peer::Refused)) {
                    self.say(CoreMessage::HeartbeatBack);
                }
            }
            Peer::Alive | Peer::Suspect | Peer::NotSeenYet | Peer::NeverSeen => {}
        }
    }

    /// A crashed primary is held back until a member responds. That is reported once it takes longer than a heartbeat.
    fn log_waiting_for_member(&mut self) {
        if !self.awaits_member() || !self.store.notes.wanted || self.own.down_reasons.has(DownReason::Isolated) {
            self.announced.awaits_since = None;
            self.announced.awaits_said = false;
            return;
        }
        let since = *self.announced.awaits_since.get_or_insert(self.now);
        if !self.announced.awaits_said && self.now.since(since) >= self.patience_ms() {
            self.announced.awaits_said = true;
            self.say(CoreMessage::AwaitsMember);
        }
    }

    /// A standby without a primary after its start reports once in how many seconds it asks the arbiter.
    fn log_asking_later(&mut self) {
        let Some(seconds) = Reporter(self).asks_arbiter_in().filter(|_| !self.announced.asks_later_said) else {
            return;
        };
        self.announced.asks_later_said = true;
        self.say(CoreMessage::AsksArbiterLater { seconds });
    }

    /// The arbiter's silence changes nothing, but an operator should know that no third member could consent.
    fn log_arbiter(&mut self) {
        if !self.settings.arbiter {
            return;
        }
        let since = self.arbiter.heard_at.or(self.id.booted_at).unwrap_or(self.now);
        let lost = self.now.since(since) >= self.settings.heartbeat_detection_ms;
        if lost != self.arbiter.lost {
            self.arbiter.lost = lost;
            self.say(if lost { CoreMessage::ArbiterLost } else { CoreMessage::ArbiterBack });
        }
    }

    fn log_decision(&mut self, decision: Decision, allowed: bool) {
        let Decision { intent, why, .. } = decision;
        let hands_over = self.now >= self.hand_overs.not_before;
        match (intent, allowed) {
            (Intent::Rest | Intent::Mirror | Intent::Wait, _) => {}
            (Intent::Restart, true) => self.announced.restart = Some(why),
            (Intent::HandOver, true) if !hands_over => self.announced.restart = Some(why),
            (Intent::Restart, false) if self.own.down_reasons.has(DownReason::DidNotStayUp) || self.cannot_run() => {}
            (_, false) => self.say(CoreMessage::WouldHave { what: done(intent), why }),
            (Intent::AskPeer | Intent::AskArbiter | Intent::AskCommand, true) => {}
            (_, true) => self.say(CoreMessage::Decided { what: done(intent), why }),
        }
        if matches!(why, Cause::StandbyStalled | Cause::StandbyAliveStalled) {
            self.say(CoreMessage::StandbyStalled);
        }
    }

    /// PROTOCOL R11: a lone primary whose commits wait reports each minute what an operator can run.
    fn log_commits_wait(&mut self) {
        // Where the standby flushes, some commit waits at every look, but none for long.
        let waits = matches!(self.own.role, Some(super::event::Instance::Primary { waiting: true, .. }));
        if !waits || self.wal_flows() {
            self.announced.waits_since = None;
            return;
        }
        let since = *self.announced.waits_since.get_or_insert(self.now);
        let due = self.announced.waits_said.is_none_or(|at| self.now.since(at) >= 60_000);
        if due && self.now.since(since) >= self.settings.heartbeat_detection_ms * 2 {
            self.announced.waits_said = Some(self.now);
            self.say(CoreMessage::CommitsWait);
        }
    }
}

/// An intent as it is reported.
fn done(intent: Intent) -> &'static str {
    match intent {
        Intent::Rest => "nothing",
        Intent::HandOver => "stopping the instance and requesting the standby to take over",
        Intent::Restart => "starting the instance again",
        Intent::AskPeer => "requesting the right to run alone from the other server",
        Intent::AskArbiter => "requesting the right to run alone from the arbiter",
        Intent::AskCommand => "running the arbitration command",
        Intent::ActByHalf => "acting alone as heartbeat_error_action allows",
        Intent::ActByForce => "acting alone without consent (fallback)",
        Intent::Mirror => "verifying the standby",
        Intent::Wait => "nothing, an operator must decide",
    }
}
