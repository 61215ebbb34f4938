//! Heartbeats: what a node reports to the other members, and what it has announced last.

use super::cause::Cause;
use super::decide::Decision;
use super::event::{Action, CoreMessage, Health, Heartbeat, Instance, Message, Role};
use super::facts::{Peer, Standing};
use super::node::Node;
use super::observed::{DownReason, Failure};
use super::reason::{Reason, clean};
use super::types::{Failover, Ledger, Lsn, Member, Server, SystemId, Time, View};

/// What was reported last, so that changes are reported at once and repeats are not.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Announced {
    first_seq: u64,
    seq: u64,
    beat_at: Option<Time>,
    beat: Option<Beat>,
    pub introduce: bool,
    pub decision: Option<(Decision, bool)>,
    /// The reason to report when the failed instance is started again.
    pub restart: Option<Cause>,
    pub peer: Option<Peer>,
    pub reason: Option<Reason>,
    pub since: Option<Time>,
    pub mirrored_at: Option<Time>,
    pub split: bool,
    /// The term of the peer's view that the arbiter reported.
    pub split_elsewhere: Option<super::types::Term>,
    pub inactivated: bool,
    pub rebuild_needed: Option<View>,
    pub refused: Option<Cause>,
    pub will_not_start: bool,
    /// The term of the view out of which the arbiter did not consent.
    pub not_consented: Option<super::types::Term>,
    /// Since when a proposal is out.
    pub proposing: Option<Time>,
    /// Since when a crashed primary is held back (`isolated_restart`).
    pub awaits_since: Option<Time>,
    pub awaits_said: bool,
    /// Whether this server has reported that it will ask the arbiter.
    pub asks_later_said: bool,
    pub waits_since: Option<Time>,
    pub waits_said: Option<Time>,
    pub failover_set: bool,
    other_system: Option<SystemId>,
}

/// What is sent at once when it changes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Beat {
    ledger: Option<Ledger>,
    role: Role,
    instance: Health,
    disk: String,
    streaming: bool,
    /// Outer: it is offered. Inner: what must have been received, if anything.
    take_over: Option<Option<Lsn>>,
    unmirrored: bool,
    failover: Failover,
}

impl Announced {
    /// Heartbeats are counted from a random number on, so that an echo shows which run of a controller it answers.
    pub fn start_at(&mut self, seed: u64) {
        self.first_seq = (seed >> 24).max(1) << 20;
        self.seq = self.first_seq;
    }

    /// The number of the newest heartbeat.
    pub fn sent(&self) -> u64 {
        self.seq
    }

    pub fn is_mine(&self, echo: u64) -> bool {
        echo > self.first_seq && echo <= self.seq
    }

    pub fn other_system(&mut self, out: &mut Vec<Action>, server: Server, mine: SystemId, theirs: SystemId) {
        if self.other_system != Some(theirs) {
            self.other_system = Some(theirs);
            out.push(Action::Log(CoreMessage::OtherSystem { server, mine, theirs }));
        }
    }
}

/// The time between two looks at an instance while a planned switch is prepared, ms.
const CONFIRM_MS: u64 = 100;

impl Node {
    // ---------------------------------------------------------------------------------------------------- heartbeats

    /// Sends heartbeats: each interval, and at once when something has changed.
    pub(super) fn keep_in_touch(&mut self) {
        let beat = Beat {
            ledger: self.store.durable.map(|durable| durable.ledger),
            role: self.own_role(),
            instance: self.own_health(),
            disk: self.own.disk_bad.clone(),
            streaming: self.streams(),
            take_over: self.offered_checkpoint(),
            unmirrored: self.own_unmirrored(),
            failover: self.store.notes.failover,
        };
        if self.is_stuck_writing() {
            return;
        }
        let due = self.announced.beat_at.is_none_or(|at| self.now.since(at) >= self.settings.heartbeat_interval_ms);
        let changed = self.announced.beat.as_ref() != Some(&beat);
        let confirms = self.confirms_switch();
        if self.awaits_checkpoint() || confirms && self.now.since(self.own.answered_at) >= CONFIRM_MS {
            self.out.push(Action::Look);
        }
        let due = due || confirms && self.announced.beat_at.is_none_or(|at| self.own.answered_at > at);
        if !due && !changed && !self.announced.introduce {
            return;
        }
        self.announced.beat_at = Some(self.now);
        self.announced.introduce = false;
        self.announced.beat = Some(beat.clone());
        self.announced.seq += 1;
        let heartbeat = self.heartbeat(beat);
        if self.settings.arbiter {
            let mut to_arbiter = heartbeat.clone();
            to_arbiter.echo = self.arbiter.seq;
            self.send(Member::Arbiter, Message::Heartbeat(Box::new(to_arbiter)));
        }
        self.send(self.peer_member(), Message::Heartbeat(Box::new(heartbeat)));
    }

    /// A member whose ledger cannot be written can neither consent nor act. It falls silent, which is always safe, so that
    /// the others do what silence allows. A server that durably holds the right to run alone continues to send: its silence
    /// would allow only `fallback` and commands of the operator, which lead to a split, and a split ends only if the servers
    /// communicate.
    fn is_stuck_writing(&self) -> bool {
        let durable = self.store.durable.map(|durable| durable.ledger.view);
        let alone = [self.view(), durable].iter().all(|view| view.is_some_and(|view| view.is_alone(self.me())));
        let hangs =
            self.store.writing_since().is_some_and(|at| self.now.since(at) >= self.settings.heartbeat_detection_ms);
        hangs && !alone
    }

    /// A planned switch waits until this standby reports that it has received the shutdown checkpoint: look now.
    fn awaits_checkpoint(&self) -> bool {
        self.standing() == Some(Standing::Standby)
            && self.peer.heartbeat.as_ref().is_some_and(|told| told.take_over)
            && self.peer_fact() == Peer::Healthy
    }

    /// A planned switch is being prepared: this server shows that its instance answers, or has confirmed.
    fn confirms_switch(&self) -> bool {
        let asked = self.peer.heartbeat.as_ref().is_some_and(|told| told.confirm);
        let asks = self.hand_overs.current.as_ref().is_some_and(super::hand_over::HandOver::confirming);
        asks || asked && self.standing() == Some(Standing::Standby) && self.peer_fact() == Peer::Healthy
    }

    fn heartbeat(&self, beat: Beat) -> Heartbeat {
        Heartbeat {
            seq: self.announced.seq,
            echo: self.peer.heartbeat.as_ref().map_or(0, |told| told.seq),
            start_id: self.id.start_id,
            system: self.id.system,
            ledger: beat.ledger,
            role: beat.role,
            instance: beat.instance,
            disk: beat.disk,
            failure: self.own_failure().or_else(|| self.planned_switch()).unwrap_or_default(),
            full: self.own.disk_full.clone(),
            space: String::new(),
            streaming: beat.streaming,
            timeline: self.own.timeline(),
            lsn: self.position(),
            replayed: match self.own.role {
                Some(Instance::Standby { replayed, .. }) => replayed,
                _ => Lsn::default(),
            },
            wal: self.wal_report(),
            take_over: beat.take_over.is_some(),
            confirm: self.hand_overs.current.as_ref().is_some_and(super::hand_over::HandOver::confirming),
            answered_ms: self.now.since(self.own.answered_at),
            shutdown_checkpoint: beat.take_over.flatten(),
            unmirrored: beat.unmirrored,
            rebuilds: self.store.durable.is_some_and(|durable| durable.notes.rebuild.is_some()),
            detached: self.detached(),
            proving: self.work.proves_since().is_some_and(|at| self.now.since(at) > self.patience_ms()),
            failover: beat.failover,
            on_silence: self.settings.on_silence,
            detection_ms: self.settings.heartbeat_detection_ms,
            promoted: self.was_promoted(),
            arbiter: (self.arbiter.best.id, self.arbiter.best.promised),
            name: self.id.name.clone(),
            address: self.id.address.clone(),
            client_address: String::new(),
            would_grant: false,
            why: self.announced.reason.as_ref().map_or_else(String::new, Reason::sent),
        }
    }

    /// How this server's instance, data directory or disk has failed. The cases are those of [`super::facts::Own::Failed`].
    fn own_failure(&self) -> Option<String> {
        let name = &self.id.name;
        let clean = self.own.data.is_some_and(|data| !data.running) && !self.own.crashed;
        let failure = if self.own.failed == Some(Failure::Silent) {
            format!("the instance of {name} did not respond")
        } else if self.own.failed.is_some() && clean {
            format!("the instance of {name} was shut down by another program")
        } else if self.own.failed.is_some() {
            match self.own.signal {
                Some(signal) => format!("the postmaster of {name} was terminated by signal {signal}"),
                None => format!("the postmaster of {name} ended unexpectedly"),
            }
        } else if self.own.down_reasons.has(DownReason::DidNotStayUp) {
            format!("the instance of {name} did not stay up")
        } else if !self.own.disk_bad.is_empty() {
            format!("a disk of {name} failed: {}", self.own.disk_bad)
        } else if self.unreadable() {
            format!("the data directory of {name} cannot be read")
        } else if self.exchanged_under_mirror() {
            format!("the data directory of {name} was replaced")
        } else if self.is_demoted_by_hand() {
            format!("{name} has a standby.signal although it is the primary")
        } else {
            return None;
        };
        Some(failure)
    }

    /// Why the primary hands over although nothing has failed.
    fn planned_switch(&self) -> Option<String> {
        let planned = self.hand_overs.current.as_ref().is_some_and(|hand_over| hand_over.planned);
        planned.then(|| "an operator requested the switch".to_owned())
    }

    /// The reason, with what the other server reports as its cause.
    pub(super) fn with_peer_failure(&self, why: Cause) -> String {
        let failed = matches!(self.peer_fact(), Peer::Failed | Peer::HandingOver);
        let failure = self.peer.heartbeat.as_ref().filter(|_| failed).map(|told| clean(&told.failure));
        match failure.as_deref() {
            None | Some("") => why.text().to_owned(),
            Some(failure) => format!("{why} ({failure})"),
        }
    }

    /// Whether this server, as the mirrored primary, knows of commits that may not have waited.
    fn own_unmirrored(&self) -> bool {
        self.store.notes.unmirrored && self.standing() == Some(Standing::Primary)
    }

    pub(super) fn streams(&self) -> bool {
        matches!(self.own.role, Some(Instance::Standby { streaming: true, .. }))
    }
}
