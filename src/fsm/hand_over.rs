//! The hand-over: the primary stops its instance and offers its role to the standby, after a crash or for a planned switch.

use super::event::{Action, ControlState, CoreMessage, DataDir, Heartbeat, Instance, Job, Role};
use super::facts::Peer;
use super::node::Node;
use super::observed::Running;
use super::types::{Lsn, Time};

/// The primary gives its role away: a crash, or a planned switch.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct HandOver {
    pub planned: bool,
    phase: Phase,
    began: Time,
    since: Time,
    limit_ms: u64,
    /// The position that the standby must have received past: of a planned one the shutdown checkpoint, else the last position
    /// that the standby has confirmed, as far as one is known.
    pub checkpoint: Option<Lsn>,
    /// The newest heartbeat that was sent before the confirmation began.
    sent: u64,
    /// What the standby must have flushed before the instance is stopped, as soon as it is read.
    confirms: Option<Lsn>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Phase {
    Checkpoint,
    /// The standby must show that it answers and has the checkpoint.
    Confirm,
    Stop,
    Offer,
}

/// The hand-over that is under way, and when the next one may begin by itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct HandOvers {
    pub current: Option<HandOver>,
    pub not_before: Time,
}

impl HandOver {
    pub fn new(planned: bool, now: Time, limit_ms: u64) -> HandOver {
        let phase = if planned { Phase::Checkpoint } else { Phase::Stop };
        HandOver { planned, phase, began: now, since: now, limit_ms, checkpoint: None, sent: 0, confirms: None }
    }

    /// Whether the checkpoint before a planned switch is under way.
    pub fn checkpointing(&self) -> bool {
        self.phase == Phase::Checkpoint
    }

    pub fn confirming(&self) -> bool {
        self.phase == Phase::Confirm
    }

    pub fn offering(&self) -> bool {
        self.phase == Phase::Offer
    }

    /// How long it is offered, ms: of a planned one's limit so much that the old state is back before the limit is over.
    fn offer_ms(&self, detection_ms: u64) -> u64 {
        let left = self.limit_ms.saturating_sub(self.since.since(self.began));
        if self.planned { (left * 2 / 3).clamp(1_000, 10_000) } else { detection_ms }
    }

    /// How long a planned fast shutdown may take, ms.
    fn fast_ms(&self) -> u64 {
        if self.planned { (self.limit_ms / 3).clamp(1_000, 10_000) } else { 0 }
    }
}

impl Node {
    fn hand_over_goes_on(&mut self, from: Phase) {
        if let Some(hand_over) = self.hand_overs.current.as_mut()
            && hand_over.phase == from
        {
            hand_over.phase = Phase::Stop;
        }
    }

    /// Drives a hand-over; called once per step.
    pub(super) fn drive_hand_over(&mut self) {
        let Some(hand_over) = self.hand_overs.current.clone() else { return };
        if !self.view().is_some_and(|view| view.is_mirrored(self.me())) {
            self.hand_overs.current = None;
            return;
        }
        let offer_ms = hand_over.offer_ms(self.settings.heartbeat_detection_ms);
        match hand_over.phase {
            Phase::Checkpoint if self.own.failed.is_some() => self.hand_over_goes_on(Phase::Checkpoint),
            Phase::Checkpoint if self.now.since(hand_over.began) >= hand_over.limit_ms / 2 => {
                self.hand_over_failed("the checkpoint before it did not end in time");
            }
            Phase::Checkpoint if !matches!(self.peer_fact(), Peer::Healthy | Peer::Suspect) => {
                self.hand_over_failed("the standby has failed meanwhile");
            }
            Phase::Checkpoint if !self.work.busy() => self.run(Job::Checkpoint),
            Phase::Checkpoint => {}
            Phase::Confirm if self.own.failed.is_some() => self.hand_over_goes_on(Phase::Confirm),
            Phase::Confirm => match self.unconfirmed(&hand_over) {
                None => self.hand_over_goes_on(Phase::Confirm),
                Some(why) if self.now.since(hand_over.since) >= self.confirm_ms() => self.hand_over_failed(why),
                Some(_) => {}
            },
            Phase::Stop if self.own.running == Running::Down => self.offer(),
            Phase::Stop if !self.work.busy() && self.work.may_stop(self.now) => {
                let names = self.names_for_stop();
                self.run(Job::Stop { fast_ms: hand_over.fast_ms(), names });
            }
            Phase::Stop => {}
            // not where it is unknown: a reading from before the stop may come late, and is looked into
            Phase::Offer if self.own.running == Running::Up => {
                self.hand_over_failed("the instance runs again");
            }
            Phase::Offer if !self.is_as_offered(&hand_over) => {
                self.hand_over_failed("the instance has run since it was stopped");
            }
            Phase::Offer if self.peer_fact() == Peer::Failed && self.proposals.asked.is_none() => {
                self.hand_over_failed("the standby's instance or disk has failed");
            }
            Phase::Offer if self.lacks_what_it_confirmed(&hand_over) && self.proposals.asked.is_none() => {
                self.hand_over_failed("the standby lacks WAL that it had confirmed");
            }
            Phase::Offer if self.now.since(hand_over.since) >= offer_ms && self.proposals.asked.is_none() => {
                self.hand_over_failed("the standby did not take over in time");
            }
            Phase::Offer => {}
        }
    }

    pub(super) fn confirm_standby(&mut self) {
        let (now, sent) = (self.now, self.announced.sent());
        let Some(hand_over) = self.hand_overs.current.as_mut().filter(|it| it.phase == Phase::Checkpoint) else {
            return;
        };
        (hand_over.phase, hand_over.since, hand_over.sent) = (Phase::Confirm, now, sent);
        self.announced.introduce = true;
        self.out.push(Action::Look);
    }

    /// How long the standby may take to show that it can take over, ms.
    fn confirm_ms(&self) -> u64 {
        self.settings.heartbeat_detection_ms.max(self.settings.instance_detection_ms)
    }

    /// What the standby has not shown yet since the checkpoint before a planned switch ended.
    fn unconfirmed(&mut self, hand_over: &HandOver) -> Option<&'static str> {
        let since = hand_over.since;
        if let Some(Instance::Primary { flushed, .. }) = self.own.role
            && hand_over.confirms.is_none()
            && self.own.answered_at > since
            && let Some(hand_over) = self.hand_overs.current.as_mut()
        {
            hand_over.confirms = Some(flushed);
        }
        let told = self.peer.heartbeat.as_ref()?;
        if self.peer.echo <= hand_over.sent || !self.peer.is_of_now(told) {
            return Some("the standby's controller does not respond");
        }
        let since_ms = self.peer.heard_at.map_or(0, |at| at.since(since));
        if told.answered_ms >= since_ms || told.role != Role::Standby {
            return Some("the standby's instance does not respond");
        }
        let flushed = self.own.standby_row().map_or(told.lsn, |row| row.flushed.max(told.lsn));
        if hand_over.confirms.is_none_or(|confirms| flushed < confirms) {
            return Some("the standby has not confirmed the WAL up to the checkpoint");
        }
        None
    }

    fn offer(&mut self) {
        let now = self.now;
        let data = self.own.data;
        let Some(hand_over) = self.hand_overs.current.as_mut() else { return };
        if hand_over.planned && data.is_none_or(|data| data.state != ControlState::ShutDown) {
            self.hand_over_failed("the instance did not shut down cleanly in time");
            return;
        }
        if !hand_over.planned && self.store.notes.unmirrored {
            self.hand_over_failed("commits may not have waited for the standby");
            return;
        }
        hand_over.phase = Phase::Offer;
        hand_over.since = now;
        let lost = self.store.notes.went_back.map(|had| had.lsn);
        hand_over.checkpoint = match data.filter(|_| hand_over.planned) {
            Some(data) => Some(data.checkpoint),
            // What was confirmed must be there, up to its last byte, and so must what this data directory has lost (R13).
            None => self.own.confirmed.max(lost).map(|lsn| Lsn(lsn.0.saturating_sub(1))),
        };
    }

    /// Whether the data directory still ends with the shutdown checkpoint that a planned hand-over offers.
    pub(super) fn is_as_offered(&self, hand_over: &HandOver) -> bool {
        let shut_down =
            |data: DataDir| data.state == ControlState::ShutDown && Some(data.checkpoint) == hand_over.checkpoint;
        !hand_over.planned || self.own.data.is_some_and(shut_down)
    }

    /// Whether the standby has reported, since the offer, that it lacks what it had confirmed and receives nothing any more.
    fn lacks_what_it_confirmed(&self, hand_over: &HandOver) -> bool {
        let reported_at = hand_over.since.plus(self.patience_ms());
        let reported = self.peer.heard_at.is_some_and(|at| at >= reported_at);
        let lacks = |told: &Heartbeat| {
            told.role == Role::Standby
                && !told.streaming
                && hand_over.checkpoint.is_some_and(|checkpoint| told.lsn <= checkpoint)
        };
        !hand_over.planned && reported && self.peer.heartbeat.as_deref().is_some_and(lacks)
    }

    pub(super) fn hand_over_failed(&mut self, why: &str) {
        if let Some(id) = self.work.checkpointing() {
            self.out.push(Action::Nudge(id));
        }
        // What was offered and not taken up is not offered again at once. Anything else leaves the table free to decide.
        if self.hand_overs.current.take().is_some_and(|hand_over| hand_over.offering()) {
            self.hand_overs.not_before = self.now.plus(self.settings.heartbeat_detection_ms * 10);
            self.own.failed = None;
        }
        self.work.hand_over_failure = why.to_owned();
        self.say(CoreMessage::HandOverFailed(why.to_owned()));
    }
}
