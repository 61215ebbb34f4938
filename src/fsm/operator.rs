//! What operators ask for: one command at a time, each with a limit, each told how it ended.

use super::calls::GateResult;
use super::cause::Cause;
use super::event::{Action, CoreMessage, Instance, Job, Message, Names, Purpose, Reply, Request, Role, Transient};
use super::facts::{Peer, Replication, Standing};
use super::node::Node;
use super::node_report::Reporter;
use super::observed::{DownReason, Running};
use super::types::{Failover, Lsn, RebuildOrder, Term, Time};

/// The longest time limit of a command, ms: a week.
const NO_LIMIT_MS: u64 = 7 * 86_400_000;

/// Who is waiting for the reply.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Asker {
    /// An operator on this host, by the request's number.
    Here(u64),
    /// The other server, by its number for it.
    Peer(u64),
}

/// A command under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Op {
    asker: Asker,
    request: Request,
    stage: Stage,
    until: Time,
    limit_ms: u64,
    /// What is answered when this controller ends.
    last: Option<Reply>,
    /// What was passed on to the other server.
    passed: Option<Passed>,
}

/// A request that was passed on to the other server, and is repeated until it is answered.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Passed {
    /// Names it in the answer; unique, also after a restart.
    id: u64,
    request: Request,
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
    /// The mirrored view of whose end `pre_detach_command` was told before.
    pub announced: Option<Term>,
}

impl Op {
    /// Whether it has taken longer than `ms` milliseconds.
    fn outlasts(&self, now: Time, ms: u64) -> bool {
        self.until.since(now).saturating_add(ms) < self.limit_ms
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
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
        // Whatever number was typed, or told by a peer: a week is "no limit", and can be reckoned with.
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

    // -------------------------------------------------------------------------------------------------------- switch

    fn operate_switch(&mut self, op: &Op, late: bool) {
        match op.stage {
            Stage::Fresh if self.standing() == Some(Standing::Standby) && matches!(op.asker, Asker::Here(_)) => {
                self.pass_on_if_heard(op);
            }
            // Its standby holds what it has lost itself (PROTOCOL R13).
            Stage::Fresh if self.exchanged_under_mirror() && self.own.running == Running::Down => {
                self.begin_hand_over(false, op.limit_ms);
                self.stage(Stage::Switching);
            }
            Stage::Fresh if self.standby_learns() && !op.outlasts(self.now, self.settings.heartbeat_detection_ms) => {}
            Stage::Fresh => match self.switch_obstacle() {
                Some(why) => self.end(Reply::Refused(why)),
                None => {
                    self.begin_hand_over(true, op.limit_ms);
                    self.stage(Stage::Switching);
                }
            },
            Stage::Switching if self.switched() => self.end(Reply::Done),
            Stage::Switching if self.hand_overs.current.is_none() && self.standing() == Some(Standing::Primary) => {
                let why = &self.work.hand_over_failure;
                self.end(Reply::Failed(format!("the switch did not succeed: {why}; the primary continues to serve")));
            }
            _ if late => {
                self.call_off();
                self.end(Reply::TimedOut(self.how_things_stand()));
            }
            _ => {}
        }
    }

    /// Nothing is switched after the operator was told that time was over.
    fn call_off(&mut self) {
        if self.hand_overs.current.as_ref().is_some_and(|hand_over| hand_over.planned) {
            self.hand_over_failed("its time limit was reached");
        }
    }

    fn switched(&self) -> bool {
        let promoted = self.peer.heartbeat.as_ref().is_some_and(|told| told.role == Role::Primary);
        self.standing() == Some(Standing::Inactivated) && promoted
    }

    /// Whether the pair has just become mirrored, and the standby has not reported that yet.
    fn standby_learns(&self) -> bool {
        let reported = self.peer.heartbeat.as_ref().and_then(|reported| reported.ledger);
        let older = reported.zip(self.view()).is_some_and(|(ledger, view)| ledger.view.term < view.term);
        older && self.standing() == Some(Standing::Primary)
    }

    /// Why a planned switch is refused, if it is.
    fn switch_obstacle(&self) -> Option<String> {
        let facts = match self.facts() {
            None => return Some("this server has no view of the pair yet".to_owned()),
            Some(facts) => facts,
        };
        let told = self.peer.heartbeat.as_ref();
        let peer_ledger = told.and_then(|told| told.ledger);
        let eligible = peer_ledger.zip(self.view()).is_some_and(|(ledger, view)| {
            ledger.view == view && Some(ledger.data.id) == view.data[self.other().index()]
        });
        let row = match self.own.role {
            Some(Instance::Primary { standby: Some(row), names: Names::Peer, .. }) => row.streaming && row.sync,
            _ => false,
        };
        let detached = self.detached() || told.is_some_and(|told| told.detached);
        if facts.standing != Standing::Primary && detached {
            return Some("the standby was detached; \"mc_ctl start\" on the standby attaches it".to_owned());
        }
        if facts.standing != Standing::Primary {
            return Some("the pair is not mirrored; \"mc_ctl status\" shows the reason".to_owned());
        }
        if facts.peer != Peer::Healthy {
            return Some("the standby's controller does not respond, or reports a failure".to_owned());
        }
        if !eligible {
            return Some("the standby's data directory is not the one that the view names".to_owned());
        }
        if facts.replication != Replication::Streaming || !row || told.is_none_or(|told| told.role != Role::Standby) {
            return Some("the standby does not stream synchronously".to_owned());
        }
        if self.hand_overs.current.is_some() || self.work.busy() && self.work.starts_or_stops() {
            return Some(Transient::UnderWay.text().to_owned());
        }
        None
    }

    // -------------------------------------------------------------------------------------------------------- detach

    fn operate_detach(&mut self, op: &Op, late: bool) {
        match op.stage {
            Stage::Fresh if matches!(op.asker, Asker::Here(_)) && self.standing() == Some(Standing::Standby) => {
                self.pass_on_if_heard(op);
            }
            // The command before it is told the term of a view that is durable.
            Stage::Fresh if !self.settled() && !late => {}
            Stage::Fresh => match self.standing() {
                Some(Standing::Primary) if self.peer_talks(self.settings.heartbeat_detection_ms) => {
                    self.announce_or_detach(self.now.plus(op.limit_ms / 2));
                }
                Some(Standing::Primary) => {
                    self.end(Reply::Refused(
                        "the standby's controller does not respond, so it cannot consent".to_owned(),
                    ));
                }
                Some(Standing::Alone) => {
                    self.note_detached();
                    self.stage(Stage::Releasing);
                }
                Some(Standing::Inactivated | Standing::Standby) | None => {
                    self.end(Reply::Refused("the standby is already disconnected, or there is no view yet".to_owned()));
                }
            },
            Stage::Announcing(_) | Stage::Detaching if self.standing() == Some(Standing::Alone) => {
                self.note_detached();
                self.stage(Stage::Releasing);
            }
            Stage::Announcing(_) if self.standing() != Some(Standing::Primary) => {
                self.end(Reply::Failed(self.how_things_stand()));
            }
            Stage::Announcing(until) => self.announce_or_detach(until),
            Stage::Detaching if late => {
                self.proposals.current = None;
                self.take_back();
                self.end(Reply::TimedOut("the standby did not consent in time".to_owned()));
            }
            Stage::Detaching if !self.peer_talks(self.settings.heartbeat_detection_ms) => {
                self.proposals.current = None;
                self.take_back();
                self.end(Reply::Failed("the standby's controller no longer responds; see mc_ctl status".to_owned()));
            }
            Stage::Detaching => self.propose(self.peer_member(), Cause::OperatorDetached),
            Stage::Releasing if self.released() => {
                self.say(CoreMessage::Detached(true));
                self.end(Reply::Done);
            }
            _ if late => self.end(Reply::TimedOut(self.how_things_stand())),
            _ => {}
        }
    }

    /// Whatever becomes of the command, the operator's word stands: the standby is disconnected when it has ended, or has had
    /// half of the time.
    fn announce_or_detach(&mut self, until: Time) {
        if self.now < until && self.announces() {
            self.stage(Stage::Announcing(until));
        } else {
            self.stage(Stage::Detaching);
            self.propose(self.peer_member(), Cause::OperatorDetached);
        }
    }

    // --------------------------------------------------------------------------------------------------------- force

    /// What an operator takes upon himself: a view with no consent. He has been told what it may cost.
    fn operate_force(&mut self, op: &Op, late: bool) {
        match op.stage {
            Stage::Fresh | Stage::Fencing => match self.force_obstacle(op) {
                Some(why) => self.end(Reply::Refused(why)),
                None if late => self.end(Reply::TimedOut("the other server was not fenced in time".to_owned())),
                None if self.wants_fencing(op.request) => self.fence_then_force(op),
                None => self.force(op.request),
            },
            _ if !self.settled() => {}
            Stage::Releasing if op.request == Request::AdoptData => self.end(Reply::Done),
            Stage::Releasing if self.released() && self.own_role() == Role::Primary => self.end(Reply::Done),
            _ if late => self.end(Reply::TimedOut(self.how_things_stand())),
            _ => {}
        }
    }

    fn wants_fencing(&self, request: Request) -> bool {
        let asked = matches!(request, Request::ForceSwitch { fencing: true } | Request::ForceDetach { fencing: true });
        asked && self.settings.fencing
    }

    fn fence_then_force(&mut self, op: &Op) {
        if op.stage == Stage::Fresh {
            self.calls.forget_operators();
            self.stage(Stage::Fencing);
        }
        match self.clear(Purpose::Fencing, true, Cause::OperatorRequested) {
            GateResult::Awaited => {}
            GateResult::Given => self.force(op.request),
            GateResult::Denied(why) => {
                self.end(Reply::Failed(format!(
                    "the other server was not fenced, and nothing was changed: {why}; if it is \
                                                confirmed down and stays down, add --no-fencing"
                )));
            }
        }
    }

    fn force(&mut self, request: Request) {
        match request {
            Request::AdoptData => self.adopt_data(),
            Request::ForceSwitch { .. } => self.take_alone(true, Cause::OperatorForcedSwitch),
            _ => self.take_alone(true, Cause::OperatorForcedDetach),
        }
        self.stage(Stage::Releasing);
    }

    fn force_obstacle(&self, op: &Op) -> Option<String> {
        if matches!(op.asker, Asker::Peer(_)) {
            return Some("--force is accepted only from an operator on this server".to_owned());
        }
        if !self.settled() || self.hand_overs.current.is_some() {
            return Some(Transient::UnderWay.text().to_owned());
        }
        if op.request == Request::AdoptData {
            return self.adopt_obstacle();
        }
        let (wanted, verb) = match op.request {
            Request::ForceSwitch { .. } => (Standing::Standby, "switch"),
            _ => (Standing::Primary, "detach"),
        };
        if self.standing() != Some(wanted) {
            let place = if wanted == Standing::Standby { "standby" } else { "primary" };
            return Some(format!(
                "{verb} --force requires the {place} of a mirrored pair; {}",
                self.how_things_stand()
            ));
        }
        if !self.eligible() {
            return Some("this data directory is not the one that the view names".to_owned());
        }
        let consents = self.peer.heartbeat.as_ref().is_some_and(|told| told.ledger.is_some());
        if consents && self.peer_talks(self.patience_ms()) && self.peer_fact() == Peer::Healthy {
            return Some(format!("the other server's controller responds: use mc_ctl {verb} without --force"));
        }
        (!self.instance_allows_force()).then(|| "this server's instance is not running in its role".to_owned())
    }

    /// Whether the instance runs in its role, or the controller holds it back until a member responds. Force replaces that
    /// response.
    pub(super) fn instance_allows_force(&self) -> bool {
        let role = if self.standing() == Some(Standing::Standby) { Role::Standby } else { Role::Primary };
        let held_back = self.own.down_reasons.has(DownReason::Isolated) && self.own.running == Running::Down
            || self.awaits_member();
        held_back || self.own_role() == role
    }

    fn adopt_obstacle(&self) -> Option<String> {
        let Some(data) = self.own.data else { return Some("the data directory cannot be read".to_owned()) };
        // What is known of it is older than the last job, for example than a rebuild that has failed.
        if self.own.running == Running::Unknown {
            let unread = self.work.unread.then_some("the data directory cannot be read");
            return Some(unread.unwrap_or(Transient::UnderWay.text()).to_owned());
        }
        if Some(data.system) != self.id.system {
            return Some("the data directory belongs to another cluster than the ledger of the pair".to_owned());
        }
        if data.incomplete || self.store.notes.rebuild.is_some() {
            return Some("a rebuild of the data directory has not ended".to_owned());
        }
        if self.holds_alone() && self.eligible() && !self.store.notes.lost_split {
            return Some("this server already has the right to run alone with this data directory".to_owned());
        }
        if self.peer_talks(self.patience_ms())
            && self.peer.heartbeat.as_ref().is_some_and(|told| told.role == Role::Primary)
        {
            return Some(Reporter(self).running_rival());
        }
        None
    }

    fn holds_alone(&self) -> bool {
        self.view().is_some_and(|view| view.is_alone(self.me()))
    }

    fn note_detached(&mut self) {
        self.store.notes.detached = Some(self.peer.heartbeat.as_ref().map_or(1, |told| told.start_id));
        self.write(None);
    }

    /// Whether no commit waits any more, or none can.
    fn released(&self) -> bool {
        match self.own.role {
            Some(Instance::Primary { names, .. }) => names == Names::Unset && self.settled(),
            _ => self.own.running != Running::Up && self.settled(),
        }
    }

    // ---------------------------------------------------------------------------------------------------------- stop

    fn operate_stop(&mut self, op: &Op, instance: bool, all: bool, late: bool) {
        match op.stage {
            Stage::Fresh if !instance && !all => self.leave_now(),
            Stage::Fresh => self.begin_stop(op, all),
            Stage::Passed if late || !self.peer_talks(self.settings.heartbeat_detection_ms) => self.stop_instance(),
            Stage::Switching if self.switched() => self.stop_instance(),
            Stage::Switching if self.hand_overs.current.is_none() && self.standing() == Some(Standing::Primary) => {
                self.requests.stopping = false;
                self.end(Reply::Failed(
                    "the switch before the stop did not succeed; nothing was stopped and the primary continues"
                        .to_owned(),
                ));
            }
            Stage::Switching if late => {
                self.requests.stopping = false;
                self.call_off();
                self.end(Reply::TimedOut(self.how_things_stand()));
            }
            Stage::Stopping if !instance || self.own.running == Running::Down && !self.work.busy() => {
                if all && matches!(op.asker, Asker::Here(_)) && self.standing_leads() {
                    self.stage(Stage::StoppingPeer);
                    self.ask_peer(op);
                } else {
                    self.leave_now();
                }
            }
            Stage::Stopping if late => {
                self.requests.stopping = false;
                self.end(Reply::TimedOut("the instance has not stopped in time".to_owned()));
            }
            Stage::Stopping => self.run_stop(op),
            Stage::StoppingPeer if late || !self.peer_talks(self.settings.heartbeat_detection_ms) => {
                self.finish_stop(Reply::Failed(
                    "this server is stopped, but the other server's controller did not respond".to_owned(),
                ));
            }
            Stage::Leaving => self.end_stop(),
            _ => {}
        }
    }

    fn begin_stop(&mut self, op: &Op, all: bool) {
        self.requests.stopping = true;
        self.proposals.current = None;
        let talks = self.peer_talks(self.settings.heartbeat_detection_ms);
        let here = matches!(op.asker, Asker::Here(_));
        match self.standing() {
            Some(Standing::Standby) if all && here && talks => self.pass_on(op),
            Some(Standing::Inactivated) if all && here && talks => self.pass_on(op),
            Some(Standing::Standby) if !all && talks => {
                let mut detach = op.clone();
                detach.request = Request::Detach;
                self.pass_on(&detach);
                self.stage(Stage::Passed);
            }
            Some(Standing::Primary)
                if !all && self.store.notes.failover.enabled && self.switch_obstacle().is_none() =>
            {
                self.begin_hand_over(true, op.limit_ms);
                self.stage(Stage::Switching);
            }
            Some(_) | None => self.stop_instance(),
        }
    }

    fn standing_leads(&self) -> bool {
        self.view().is_some_and(|view| view.primary == self.me())
    }

    fn stop_instance(&mut self) {
        self.requests.stopping = true;
        self.stage(Stage::Stopping);
    }

    fn run_stop(&mut self, op: &Op) {
        self.interrupt_rebuild();
        if self.work.busy() {
            return;
        }
        match self.own.running {
            Running::Unknown if !self.work.unread => {
                if self.now >= self.work.retry_at() {
                    self.run(Job::Inspect);
                }
            }
            // The job finds the processes itself, so the data directory need not be readable.
            Running::Unknown | Running::Up | Running::Dead => {
                let left = op.until.since(self.now);
                let names = self.names_for_stop();
                self.run(Job::Stop { fast_ms: (left * 2 / 3).max(1_000), names });
            }
            Running::Down => {}
        }
    }

    /// The last of a stop: noted durably, told, and out.
    fn leave_now(&mut self) {
        self.finish_stop(Reply::Done);
    }

    fn finish_stop(&mut self, reply: Reply) {
        let Some(op) = self.requests.current.as_mut() else { return };
        op.last = Some(reply);
        self.stage(Stage::Leaving);
        self.requests.stopping = true;
        self.end_stop();
    }

    /// Out, once no hook runs any more: it has its own time limit, and the instance is what it is to be already.
    fn end_stop(&mut self) {
        let waits = |op: &Op, now| self.calls.running().is_some() && now < op.until;
        if self.requests.current.as_ref().is_some_and(|op| waits(op, self.now)) {
            return;
        }
        let Some(op) = self.requests.current.take() else { return };
        let reply = op.last.unwrap_or(Reply::Done);
        if matches!(op.request, Request::Stop { instance: true, .. }) {
            self.store.notes.wanted = false;
            self.write(None);
        }
        self.reply_when_stored(op.asker, reply);
        self.hold(Action::Exit);
    }

    // ------------------------------------------------------------------------------------------------------- helpers

    fn pass_on_if_heard(&mut self, op: &Op) {
        if self.peer_talks(self.settings.heartbeat_detection_ms) {
            self.pass_on(op);
        } else {
            self.end(Reply::Refused("the primary's controller does not respond".to_owned()));
        }
    }

    fn pass_on(&mut self, op: &Op) {
        self.ask_peer(op);
        self.stage(Stage::Passed);
    }

    fn ask_peer(&mut self, op: &Op) {
        let (Asker::Here(_), request) = (op.asker, op.request) else { return };
        let id = self.random();
        if let Some(op) = self.requests.current.as_mut() {
            op.passed = Some(Passed { id, request, sent_at: self.now });
        }
        self.send_passed();
    }

    fn send_passed(&mut self) {
        let Some((passed, until)) = self.requests.current.as_ref().and_then(|op| Some((op.passed.clone()?, op.until)))
        else {
            return;
        };
        let limit_ms = until.since(self.now) * 3 / 4;
        self.send(self.peer_member(), Message::Ask { id: passed.id, request: passed.request, limit_ms });
    }

    /// A message can be lost: the other server recognises the request that it carries out, or has carried out.
    fn repeat_passed(&mut self) {
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

    fn stage(&mut self, stage: Stage) {
        if let Some(op) = self.requests.current.as_mut() {
            op.stage = stage;
        }
    }

    fn end(&mut self, reply: Reply) {
        if let Some(op) = self.requests.current.take() {
            self.reply(op.asker, reply);
        }
    }

    fn reply_action(&mut self, asker: Asker, reply: Reply) -> Action {
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

    fn reply(&mut self, asker: Asker, reply: Reply) {
        let action = self.reply_action(asker, reply);
        self.out.push(action);
    }

    fn reply_when_stored(&mut self, asker: Asker, reply: Reply) {
        let action = self.reply_action(asker, reply);
        self.hold(action);
    }

    fn how_things_stand(&self) -> String {
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
