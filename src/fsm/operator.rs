//! What operators request: one command at a time, each with a limit and a reply.

use super::event::{Action, CoreMessage, Message, Reply, Request, Transient};
use super::facts::Standing;
use super::node::Node;
use super::observed::{DownReason, Running};
use super::types::{Failover, Lsn, RebuildOrder, Term, Time};

/// The longest time limit of a command, ms: a week.
const NO_LIMIT_MS: u64 = 7 * 86_400_000;

/// Who is waiting for the reply.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Asker {
    /// An operator on this host, by the request's number.
    Here(u64),
    /// The other server, by its number for it.
    Peer(u64),
}

/// A command under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Op {
    pub asker: Asker,
    pub request: Request,
    pub stage: Stage,
    pub until: Time,
    pub limit_ms: u64,
    /// What is answered when this controller ends.
    pub last: Option<Reply>,
    /// What was passed on to the other server.
    pub passed: Option<Passed>,
}

/// A request that was passed on to the other server, and is repeated until it is answered.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Passed {
    /// Names it in the answer; unique, also after a restart.
    id: u64,
    pub request: Request,
    sent_at: Time,
}

/// How many answers to the other server's requests are kept for a request that is repeated.
const ANSWERS: usize = 8;

/// The time after which a request that was passed on is repeated, ms.
const REPEAT_MS: u64 = 1_000;

/// What operators have asked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Requests {
    /// The command under way.
    pub current: Option<Op>,
    /// What the other server's last requests were answered with.
    pub answers: Vec<(u64, Reply)>,
    /// The controller is being stopped.
    pub stopping: bool,
    /// The start's `-f` or `-F`, until the other server has received it.
    pub failover: Option<bool>,
    /// The mirrored view whose end was reported to `pre_detach_command` in advance.
    pub announced: Option<Term>,
}

impl Op {
    /// Whether it has taken longer than `ms` milliseconds.
    pub fn outlasts(&self, now: Time, ms: u64) -> bool {
        self.until.since(now).saturating_add(ms) < self.limit_ms
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Stage {
    /// Nothing done yet.
    Fresh,
    /// Passed on to the other server, which has not answered.
    Passed,
    /// A planned hand-over is under way.
    Switching,
    /// `pre_detach_command` is awaited, until then at the longest.
    Announcing(Time),
    /// The other server's consent to a disconnection is awaited.
    Detaching,
    /// The other server is being fenced, before force.
    Fencing,
    /// Commits are being released.
    Releasing,
    /// The instance is being stopped.
    Stopping,
    /// The instance is stopped; the other server is asked to stop too.
    StoppingPeer,
    /// All is done, but for a hook that runs.
    Leaving,
}

const BUSY: &str = "mc_ctl command is being executed";

impl Node {
    pub(super) fn request(&mut self, id: u64, request: Request, limit_ms: u64) {
        self.begin(Asker::Here(id), request, limit_ms);
    }

    pub(super) fn peer_asks(&mut self, id: u64, request: Request, limit_ms: u64) {
        match self.requests.answers.iter().find(|(known, _)| *known == id) {
            // The answer was lost: the request is not carried out a second time.
            Some((_, reply)) => {
                let reply = reply.clone();
                self.hold(Action::Send(self.peer_member(), Message::Told { id, reply }));
            }
            None => self.begin(Asker::Peer(id), request, limit_ms),
        }
    }

    fn begin(&mut self, asker: Asker, request: Request, limit_ms: u64) {
        if let Request::Failover(enabled) = request {
            self.set_failover(enabled);
            self.reply_when_stored(asker, Reply::Done);
            return;
        }
        if self.requests.current.as_ref().is_some_and(|op| op.asker == asker) {
            return;
        }
        if let Request::Start { failover } = request
            && !self.requests.stopping
        {
            self.start_asked(failover);
            self.reply_when_stored(asker, Reply::Done);
            return;
        }
        if self.requests.current.is_some() || self.requests.stopping {
            let starts = matches!(request, Request::Start { .. } | Request::AdoptData);
            let why = if self.requests.stopping && starts { Transient::Stopping.text() } else { BUSY };
            self.reply(asker, Reply::Refused(why.to_owned()));
            return;
        }
        if let Request::Rebuild(order) = request {
            self.rebuild_asked(asker, order);
            return;
        }
        if request == Request::AdoptData {
            self.claim_data();
        }
        // An operator or a peer may send any number. A week means "no limit", and does not overflow.
        let limit_ms = limit_ms.min(NO_LIMIT_MS);
        let until = self.now.plus(limit_ms);
        self.requests.current =
            Some(Op { asker, request, stage: Stage::Fresh, until, limit_ms, last: None, passed: None });
    }

    fn rebuild_asked(&mut self, asker: Asker, order: RebuildOrder) {
        let here = matches!(asker, Asker::Here(_));
        let elsewhere = || Some("a rebuild is accepted only from an operator on this server".to_owned());
        match if here { self.rebuild_obstacle() } else { elsewhere() } {
            Some(why) => self.reply(asker, Reply::Refused(why)),
            None => {
                self.order_rebuild(order);
                self.reply_when_stored(asker, Reply::Done);
            }
        }
    }

    fn start_asked(&mut self, failover: Option<bool>) {
        self.store.notes.wanted = true;
        self.own.revive();
        self.announced.restart = None;
        self.own.founding = self.store.ledger.is_none();
        self.claim_data();
        self.renew_start_id();
        if self.own.running == Running::Down {
            self.own.running = Running::Unknown;
        }
        if let Some(enabled) = failover {
            self.set_failover(enabled);
        }
        self.write(None);
    }

    /// From now on the operator's order counts as this server's last start: it ends a detach.
    pub(super) fn renew_start_id(&mut self) {
        self.id.start_id = self.random();
        self.store.notes.start_id = Some(self.id.start_id);
    }

    /// An operator wants the data directory as it is, not replaced by a rebuild.
    fn claim_data(&mut self) {
        self.own.for_rebuild = false;
        self.choose_system();
    }

    /// Whether a command under way leads, and the decision table has to wait.
    pub(super) fn op_leads(&self) -> bool {
        self.requests.current.as_ref().is_some_and(|op| matches!(op.stage, Stage::Detaching | Stage::Fencing))
    }

    pub(super) fn operate(&mut self) {
        self.repeat_passed();
        let Some(op) = self.requests.current.clone() else { return };
        let late = self.now >= op.until;
        match op.request {
            Request::Switch => self.operate_switch(&op, late),
            Request::Detach => self.operate_detach(&op, late),
            Request::ForceSwitch { .. } | Request::ForceDetach { .. } | Request::AdoptData => {
                self.operate_force(&op, late)
            }
            Request::Stop { instance, all } => self.operate_stop(&op, instance, all, late),
            Request::Start { .. } | Request::Failover(_) | Request::Rebuild(_) => self.requests.current = None,
        }
    }

    // ------------------------------------------------------------------------------------------------------- helpers

    pub(super) fn pass_on_if_heard(&mut self, op: &Op) {
        if self.peer_talks(self.settings.heartbeat_detection_ms) {
            self.pass_on(op);
        } else {
            self.end(Reply::Refused("the primary's controller does not respond".to_owned()));
        }
    }

    pub(super) fn pass_on(&mut self, op: &Op) {
        self.ask_peer(op);
        self.stage(Stage::Passed);
    }

    pub(super) fn ask_peer(&mut self, op: &Op) {
        let (Asker::Here(_), request) = (op.asker, op.request) else { return };
        let id = self.random();
        if let Some(op) = self.requests.current.as_mut() {
            op.passed = Some(Passed { id, request, sent_at: self.now });
        }
        self.send_passed();
    }

    pub(super) fn send_passed(&mut self) {
        let Some((passed, until)) = self.requests.current.as_ref().and_then(|op| Some((op.passed.clone()?, op.until)))
        else {
            return;
        };
        let limit_ms = until.since(self.now) * 3 / 4;
        self.send(self.peer_member(), Message::Ask { id: passed.id, request: passed.request, limit_ms });
    }

    /// A message can be lost: the other server recognises the request that it carries out, or has carried out.
    pub(super) fn repeat_passed(&mut self) {
        let now = self.now;
        let Some(op) =
            self.requests.current.as_mut().filter(|op| matches!(op.stage, Stage::Passed | Stage::StoppingPeer))
        else {
            return;
        };
        if let Some(passed) = op.passed.as_mut().filter(|passed| now.since(passed.sent_at) >= REPEAT_MS) {
            passed.sent_at = now;
            self.send_passed();
        }
    }

    /// The other server has answered what was passed on.
    pub(super) fn peer_told(&mut self, id: u64, reply: Reply) {
        let Some(op) = self.requests.current.clone() else { return };
        if op.passed.as_ref().is_none_or(|passed| passed.id != id) {
            return;
        }
        match (op.request, op.stage) {
            (Request::Switch | Request::Detach, Stage::Passed) => self.end(reply),
            (Request::Stop { .. }, Stage::Passed) => self.stop_instance(),
            (Request::Stop { .. }, Stage::StoppingPeer) => self.finish_stop(reply),
            _ => {}
        }
    }

    pub(super) fn stage(&mut self, stage: Stage) {
        if let Some(op) = self.requests.current.as_mut() {
            op.stage = stage;
        }
    }

    pub(super) fn end(&mut self, reply: Reply) {
        if let Some(op) = self.requests.current.take() {
            self.reply(op.asker, reply);
        }
    }

    pub(super) fn reply_action(&mut self, asker: Asker, reply: Reply) -> Action {
        match asker {
            Asker::Here(id) => Action::Reply(id, reply),
            Asker::Peer(id) => {
                if self.requests.answers.len() >= ANSWERS {
                    self.requests.answers.remove(0);
                }
                self.requests.answers.push((id, reply.clone()));
                Action::Send(self.peer_member(), Message::Told { id, reply })
            }
        }
    }

    pub(super) fn reply(&mut self, asker: Asker, reply: Reply) {
        let action = self.reply_action(asker, reply);
        self.out.push(action);
    }

    pub(super) fn reply_when_stored(&mut self, asker: Asker, reply: Reply) {
        let action = self.reply_action(asker, reply);
        self.hold(action);
    }

    pub(super) fn how_things_stand(&self) -> String {
        match self.standing() {
            Some(Standing::Primary) => "still mirrored, and this server is the primary".to_owned(),
            Some(Standing::Standby) => "still mirrored, and the other server is the primary".to_owned(),
            Some(Standing::Alone) => "this server has the right to run alone; see mc_ctl status".to_owned(),
            Some(Standing::Inactivated) => "the other server has the right to run alone; see mc_ctl status".to_owned(),
            None => "no view of the pair".to_owned(),
        }
    }

    // ------------------------------------------------------------------------------------------------------ failover

    /// The start's `-f`, `-F` or neither takes effect here at once, and wins over what the other server had before.
    pub(super) fn set_failover_asked(&mut self) {
        let Some(enabled) = self.requests.failover else { return };
        let heard = self.peer.heartbeat.as_ref().map(|told| told.failover);
        if self.store.ledger.is_none() || heard.is_none() && self.announced.failover_set {
            return;
        }
        self.announced.failover_set = true;
        if heard.is_some() {
            self.requests.failover = None;
        }
        if self.store.notes.failover.enabled != enabled || heard.is_some_and(|heard| heard.enabled != enabled) {
            self.set_failover(enabled);
        }
    }

    fn set_failover(&mut self, enabled: bool) {
        let heard = self.peer.heartbeat.as_ref().map_or(0, |told| told.failover.version);
        let next = Term(self.store.notes.failover.version.max(heard)).next_for(self.me());
        self.take_failover(Failover { version: next.0, enabled });
    }

    pub(super) fn take_failover(&mut self, failover: Failover) {
        if failover.enabled != self.store.notes.failover.enabled {
            self.say(CoreMessage::FailoverSet(failover.enabled));
        }
        if failover.enabled {
            self.own.down_reasons.end(DownReason::FailoverDisabled);
        }
        self.store.notes.failover = failover;
        self.write(None);
    }

    /// What the standby must have received past, while this server offers to hand over.
    pub(super) fn offered_checkpoint(&self) -> Option<Option<Lsn>> {
        self.hand_overs.current.as_ref().filter(|hand_over| hand_over.offering()).map(|hand_over| hand_over.checkpoint)
    }
}
