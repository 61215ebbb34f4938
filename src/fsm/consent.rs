//! Proposals, consent and adoption: the rules R1 to R7 of the protocol, and what happens when two have split.

use super::cause::Cause;
use super::event::{Action, ControlState, CoreMessage, Job, Message, Role};
use super::facts::Standing;
use super::node::Node;
use super::observed::Running;
use super::reason::{Reason, Who};
use super::rules::{self, Learned};
use super::types::{Ledger, Lsn, Member, Term, Time, Timeline, View, WalPoint};
use super::work::FRESH_LOOK_MS;

/// How long a proposal that could not be answered at once is kept, ms. The proposer repeats it.
const KEEP_ASKED_MS: u64 = 2_000;

/// The proposals of both servers.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Proposals {
    /// This server's, while it has not been answered with its view.
    pub current: Option<Proposal>,
    /// The view that was proposed last, and why. The answer may arrive after the proposal was withdrawn.
    pub last: Option<(View, Reason)>,
    /// Since when the other server is asked for the right, out of the view of this term.
    pub asking: Option<(Term, Time)>,
    /// The other server's, while it could not be answered.
    pub asked: Option<Asked>,
}

/// A proposal of this server's that has not been answered with its view yet.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Proposal {
    pub view: View,
    pub to: Member,
    pub base: Term,
    pub why: Cause,
    pub sent_at: Time,
    /// The other server was fenced before it.
    pub fenced: bool,
}

/// A proposal of the other server's that could not be answered at once.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Asked {
    pub base: Ledger,
    pub view: View,
    pub received: Lsn,
    pub point: Option<WalPoint>,
    pub at: Time,
    pub why: Reason,
}

impl Node {
    // ----------------------------------------------------------------------------------------------------- proposing

    /// Proposes `Degraded(self)` to a member, or continues to propose it (PROTOCOL R1 to R4).
    pub(super) fn propose(&mut self, to: Member, why: Cause) {
        let Some(ledger) = self.store.ledger else { return };
        let in_recovery = self.own_role() == Role::Standby;
        if !self.settled() || !self.eligible() || !rules::may_propose(&ledger, self.me(), to, in_recovery) {
            return;
        }
        let boots = self.standing() == Some(Standing::Standby) && self.awaits_what_members_remember();
        if boots || self.awaits_comparison() {
            self.verify_wal_while_down();
            return;
        }
        let view = ledger.view;
        let promised = match to {
            Member::Server(_) => self.peer.best.promised,
            Member::Arbiter => self.arbiter.best.promised,
        };
        let resend_ms = self.settings.heartbeat_interval_ms.min(250);
        let now = self.now;
        if let Some(proposal) = self.proposals.current.as_mut()
            && proposal.to == to
            && proposal.base == view.term
            && proposal.view.term > promised
        {
            if now.since(proposal.sent_at) >= resend_ms {
                proposal.sent_at = now;
                let view = proposal.view;
                self.send_proposal(to, view);
            }
            return;
        }
        let term = self.next_term();
        let proposed = rules::alone(&ledger, self.me(), term, false);
        self.store.ledger = Some(rules::promising(ledger, term));
        if self.proposals.current.as_ref().is_none_or(|proposal| proposal.why != why) {
            self.say(CoreMessage::Decided {
                what: match to {
                    Member::Server(_) => "requesting the right to run alone from the other server",
                    Member::Arbiter => "requesting the right to run alone from the arbiter",
                },
                why,
            });
        }
        self.proposals.last = Some((proposed, Reason::own(self.with_peer_failure(why))));
        self.proposals.current =
            Some(Proposal { view: proposed, to, base: view.term, why, sent_at: now, fenced: false });
        self.write(None);
        self.send_proposal(to, proposed);
    }

    /// Sends it as soon as the promise is durable.
    fn send_proposal(&mut self, to: Member, view: View) {
        let Some(base) = self.store.ledger else { return };
        let received = self.received_past();
        let best = match to {
            Member::Server(_) => self.peer.best,
            Member::Arbiter => self.arbiter.best,
        };
        let why = self.proposals.last.as_ref().map_or_else(String::new, |(_, why)| why.text().to_owned());
        let known = (best.id, best.promised);
        let point = self.wal_point();
        self.hold(Action::Send(to, Message::Propose { base, view, received, point, known, why }));
    }

    /// The same without asking, as `heartbeat_error_action` or the operator's script allows.
    pub(super) fn take_alone_by_itself(&mut self, forced: bool, why: Cause) {
        if !self.awaits_comparison() {
            self.take_alone(forced, why);
        }
    }

    /// Writes `Degraded(self)` without asking: by the safe half, or by force (PROTOCOL section 6).
    pub(super) fn take_alone(&mut self, forced: bool, why: Cause) {
        if !self.settled() || !self.eligible() {
            return;
        }
        let term = self.next_term();
        if let Some(ledger) = self.store.ledger {
            self.enter(rules::alone(&ledger, self.me(), term, forced), why.into());
        }
    }

    // ---------------------------------------------------------------------------------------------------- consenting

    /// The other server proposes `view`; `position`: how far it has received WAL, and the furthest point that it contains.
    pub(super) fn proposed(&mut self, base: Ledger, view: View, position: (Lsn, Option<WalPoint>), why: &str) {
        if Some(base.system) != self.id.system {
            return;
        }
        self.peer.best.promised = self.peer.best.promised.max(view.term);
        self.learn(&base, Reason::reported(Who::OtherServer, ""));
        let at = self.proposals.asked.as_ref().filter(|asked| asked.view == view).map_or(self.now, |asked| asked.at);
        let (received, point) = position;
        let why = Reason::requested(Who::OtherServer, why);
        self.proposals.asked = Some(Asked { base, view, received, point, at, why });
    }

    /// Answers the other's proposal, once nothing is under way that the answer depends on.
    pub(super) fn answer_asked(&mut self) {
        let Some(asked) = self.proposals.asked.clone() else { return };
        if !self.settled() {
            return;
        }
        // A standby that was never asked to promote gives up nothing that a stop, or its own start, could bring back.
        let follows = self.view().is_some_and(|view| view.is_mirrored(self.other()));
        let under_way = if follows { self.work.frees() } else { self.work.busy() };
        if under_way && self.now.since(asked.at) < KEEP_ASKED_MS {
            return;
        }
        let accepted = !under_way && self.consents(&asked);
        let unread = accepted && !follows && self.must_read_data();
        if unread && self.now.since(asked.at) < KEEP_ASKED_MS {
            if self.now >= self.work.retry_at() {
                self.run(Job::Inspect);
            }
            return;
        }
        self.proposals.asked = None;
        if !accepted || unread {
            let ledger = self.store.ledger;
            self.send(self.peer_member(), Message::Answer { ledger });
            return;
        }
        // R6: any start of this instance after a hand-back finds the names set.
        if self.standing() == Some(Standing::Alone) && !self.own.named_while_down {
            self.proposals.asked = Some(asked);
            self.run(Job::Stop { fast_ms: 0, names: Some(self.id.peer_name.clone()) });
            return;
        }
        if let Some(hand_over) = self.hand_overs.current.as_ref().filter(|hand_over| hand_over.planned) {
            self.store.notes.handed_over = hand_over.checkpoint;
        }
        self.enter(asked.view, asked.why);
        let ledger = self.store.ledger;
        self.hold(Action::Send(self.peer_member(), Message::Answer { ledger }));
    }

    /// Whether a server that gives its role away must read its data directory again first. A result may arrive long after the
    /// reading, since this process was stopped or the job hung, and an operator may have started the instance meanwhile. After
    /// a crash, a directory that cannot be read does not prevent the failover.
    fn must_read_data(&self) -> bool {
        let Some(data) = self.own.data else { return false };
        let unreadable = self.work.unread || data.state == ControlState::Other;
        let crashed = self.hand_overs.current.as_ref().is_some_and(|hand_over| !hand_over.planned);
        let old = self.now.since(self.own.read_since) > FRESH_LOOK_MS;
        self.own.running == Running::Down && old && !(crashed && unreadable)
    }

    /// PROTOCOL R1, R2, R4 and R6.
    fn consents(&self, asked: &Asked) -> bool {
        let Some(ledger) = self.store.ledger else { return false };
        let own = rules::Instance {
            eligible: self.eligible(),
            stopped: self.own.running == Running::Down,
            follows: self.only_follows(),
            offered: self.offers_to(asked.received),
            unpromoted: self.shows_recovery(),
            contained: self.is_contained(),
            asker_is_behind: self.peer_is_behind(asked.base.data.id, asked.point),
        };
        rules::server_accepts(&ledger, self.me(), &asked.base.view, &asked.view, own)
    }

    /// A standby with no promotion asked for acknowledges nothing. That the names are set in its file before it is ever
    /// started as anything else is seen to at each start (R6).
    fn only_follows(&self) -> bool {
        match self.own.running {
            // It cannot be looked at; whatever was started under this view was started as a standby, with the names set.
            Running::Unknown if self.unreadable() => !self.own.promoting,
            Running::Up | Running::Dead | Running::Unknown | Running::Down => {
                self.own.is_standby_dir() && !self.own.promoting && !self.own.is_primary()
            }
        }
    }

    /// A primary gives up only while it is itself handing over.
    fn offers_to(&self, received: Lsn) -> bool {
        let Some(hand_over) = &self.hand_overs.current else { return false };
        let confirmed = hand_over.checkpoint.is_none_or(|checkpoint| received > checkpoint);
        hand_over.offering() && confirmed && self.is_as_offered(hand_over)
    }

    /// Hand-back: this server got the right but was never promoted (R4).
    fn shows_recovery(&self) -> bool {
        let Some(data) = self.own.data else { return false };
        let theirs = self.peer.heartbeat.as_ref().map_or_else(Timeline::default, |heartbeat| heartbeat.timeline);
        let in_recovery = matches!(data.state, ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery);
        data.is_standby() && in_recovery && data.checkpoint_timeline == theirs && data.min_recovery_timeline == theirs
    }

    // ------------------------------------------------------------------------------------------------------ adopting

    /// Why a view is entered that a member's answer contains: the own proposal, or a view of another proposer.
    pub(super) fn answered_why(&self, view: &View, who: Who) -> Reason {
        match self.proposals.last.as_ref().filter(|(proposed, _)| proposed == view) {
            Some((_, why)) => Reason::own(format!("{why}; {who} consented")),
            None if view.is_alone(self.me()) => Reason::own(format!("{who} consented")),
            None => Reason::reported(who, ""),
        }
    }

    /// PROTOCOL R7: adopts what is newer.
    pub(super) fn learn(&mut self, told: &Ledger, why: Reason) {
        let Some(ledger) = self.store.ledger else { return };
        if told.system != ledger.system {
            return;
        }
        match rules::learns(&ledger, self.me(), self.eligible(), &told.view) {
            Learned::Nothing => {}
            Learned::Adopt => self.enter(told.view, why),
            // Legal while the peer's view is older than this one. `split` judges whether it is fresh.
            Learned::Contest => self.split(told),
        }
    }

    /// Only the report of the other server itself that it has no right any more ends the split.
    pub(super) fn see_split_end(&mut self, told: &Ledger) {
        if self.store.notes.lost_split && Some(told.system) == self.id.system && told.view.is_alone(self.me()) {
            self.store.notes.lost_split = false;
            self.write(None);
        }
    }

    /// Two servers that meet and both hold the right have split (PROTOCOL section 6).
    fn split(&mut self, told: &Ledger) {
        let Some(ledger) = self.store.ledger else { return };
        let detection = self.settings.heartbeat_detection_ms;
        if self.peer.fresh_ledger(self.now, detection).map(|fresh| fresh.view) != Some(told.view) {
            return;
        }
        let Some(heartbeat) = &self.peer.heartbeat else { return };
        // An older view of the peer is legal. A newer one to which this server has not consented never is.
        if told.view.term < ledger.view.term && !ledger.view.forced && !told.view.forced {
            return;
        }
        let theirs = (heartbeat.timeline, heartbeat.lsn);
        // A server cannot run if its data directory is not the one that its view names. Of two that can run, the one that was
        // promoted wins, else the one with the newer view.
        let own_rank = (self.eligible(), self.was_promoted());
        let peer_rank = (rules::eligible(told, self.other()), heartbeat.promoted);
        let lost = (own_rank, ledger.view.term) < (peer_rank, told.view.term);
        let they_lost = heartbeat.role != Role::Primary && own_rank > peer_rank;
        let mine = (self.own.timeline(), self.position());
        if !std::mem::replace(&mut self.announced.split, true) {
            self.say(CoreMessage::Split { mine, theirs, stopped: lost });
        }
        if lost && !self.store.notes.lost_split {
            self.store.notes.lost_split = true;
            self.write(None);
        }
        self.renew_after_split(told, they_lost);
    }

    /// Whether this server was promoted under the present right to run alone, and its data directory can still be started.
    pub(super) fn was_promoted(&self) -> bool {
        self.store.notes.promoted && !self.own.data.is_some_and(|data| data.incomplete)
    }

    /// The one that continues renews its view above the other's term, so that the other, once it is rebuilt and so no
    /// longer eligible under its own view, adopts it.
    fn renew_after_split(&mut self, told: &Ledger, they_lost: bool) {
        let Some(ledger) = self.store.ledger else { return };
        if they_lost && told.view.term > ledger.view.term && self.settled() && !self.store.notes.lost_split {
            let term = self.next_term();
            self.enter(
                rules::alone(&ledger, self.me(), term, true),
                Reason::own("both servers ran alone, and the other server was stopped"),
            );
        }
    }

    pub(super) fn position(&self) -> Lsn {
        match self.own.role {
            Some(super::event::Instance::Primary { flushed, .. }) => flushed,
            Some(super::event::Instance::Standby { received, .. }) => received,
            _ => self.own.data.map_or_else(Lsn::default, |data| data.checkpoint),
        }
    }

    /// Whether both directions of the link to the other server have worked within `ms` milliseconds.
    pub(super) fn peer_talks(&self, ms: u64) -> bool {
        let heard = self.peer.up_at().is_some_and(|at: Time| self.now.since(at) < ms);
        heard && self.peer_fact() != super::facts::Peer::Refused
    }
}
