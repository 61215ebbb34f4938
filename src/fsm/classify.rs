//! Folding what is known into the facts that decisions are made of.
//!
//! Nothing here changes anything, or decides.

use super::event::{Health, Instance, OnSilence, Role};
use super::facts::{Facts, Own, Peer, Policy, Replication, Standing};
use super::node::Node;
use super::observed::{DownReason, Running};
use super::rules;

impl Node {
    /// The facts, once there is a ledger.
    pub(super) fn facts(&self) -> Option<Facts> {
        Some(Facts {
            standing: self.standing()?,
            own: self.own_fact(),
            peer: self.peer_fact(),
            replication: self.replication_fact(),
            policy: self.policy(),
        })
    }

    pub(super) fn standing(&self) -> Option<Standing> {
        match rules::standing(&self.view()?, self.me()) {
            Standing::Alone if self.store.notes.lost_split => Some(Standing::Inactivated),
            standing => Some(standing),
        }
    }

    fn own_fact(&self) -> Own {
        if self.own.failed.is_some()
            || self.own.down_reasons.has(DownReason::DidNotStayUp)
            || !self.own.disk_bad.is_empty()
            || self.unreadable()
        {
            return Own::Failed;
        }
        let leads = self.view().is_some_and(|view| view.primary == self.me());
        if self.exchanged_under_mirror() && self.own.running == Running::Down || self.is_demoted_by_hand() {
            return Own::Failed;
        }
        let in_role = match self.own_role() {
            Role::Primary => leads,
            Role::Standby => !leads,
            Role::None => false,
        };
        let outcast = self.view().is_some_and(|view| view.is_alone(self.other()));
        if in_role && (self.eligible() || outcast) && self.own.running == Running::Up {
            Own::Healthy
        } else {
            Own::Unavailable
        }
    }

    /// The mirrored primary's data directory is another one: what was mirrored is on the standby alone now.
    pub(super) fn exchanged_under_mirror(&self) -> bool {
        self.view().is_some_and(|view| view.is_mirrored(self.me())) && !self.eligible()
    }

    /// Whether the view gives this server a role in which its data directory is not started.
    pub(super) fn cannot_run(&self) -> bool {
        matches!(self.standing(), Some(Standing::Primary | Standing::Alone)) && !self.eligible()
    }

    /// Somebody has put a `standby.signal` into the mirrored primary's data directory: it cannot serve, and its standby can.
    pub(super) fn is_demoted_by_hand(&self) -> bool {
        let primary = self.view().is_some_and(|view| view.is_mirrored(self.me()));
        primary && self.own.is_standby_dir() && matches!(self.own.running, Running::Up | Running::Down)
    }

    /// How long without a heartbeat is nothing unusual yet, ms.
    pub(super) fn patience_ms(&self) -> u64 {
        self.settings.heartbeat_interval_ms + self.settings.heartbeat_timeout_ms
    }

    pub(super) fn peer_fact(&self) -> Peer {
        let detection = self.settings.heartbeat_detection_ms;
        let Some(up_at) = self.peer.up_at() else {
            let waited = self.id.booted_at.map_or(0, |at| self.now.since(at));
            let leads = self.view().is_some_and(|view| view.primary == self.me());
            let enough = if leads { detection } else { self.settings.startup_wait_ms.max(detection) };
            // While WAL flows the other server lives, even if no heartbeat arrives.
            return if waited >= enough && !self.wal_flows() { Peer::NeverSeen } else { Peer::NotSeenYet };
        };
        let silent_ms = self.now.since(up_at);
        if self.peer.refuses_both(self.now, detection.max(1000)) && !self.wal_is_open() {
            return Peer::Refused;
        }
        if silent_ms >= detection {
            return if self.peer.shows_life(self.now, self.patience_ms()) { Peer::Alive } else { Peer::Lost };
        }
        if silent_ms > self.patience_ms() {
            return Peer::Suspect;
        }
        self.talking_peer_fact()
    }

    /// Whether anything of the other server shows that it lives. It is only reported, and decides nothing.
    pub(super) fn peer_lives(&self) -> bool {
        match self.peer_fact() {
            Peer::Healthy | Peer::Failed | Peer::HandingOver | Peer::NotPromoted | Peer::Suspect | Peer::Alive => true,
            // A connection that was cut off looks open for long; that something has arrived on it is a sign.
            Peer::NotSeenYet => self.peer.wal_at.is_some() && self.wal_flows(),
            Peer::Lost | Peer::Refused | Peer::NeverSeen => false,
        }
    }

    /// `fallback` has no third party to ask, so it also wants the WAL connection closed before it believes a refusal.
    pub(super) fn wal_is_open(&self) -> bool {
        self.settings.on_silence == OnSilence::Fallback
            && match self.own.role {
                Some(Instance::Primary { standby, .. }) => standby.is_some(),
                Some(Instance::Standby { streaming, .. }) => streaming,
                _ => false,
            }
    }

    fn talking_peer_fact(&self) -> Peer {
        let Some(heartbeat) = &self.peer.heartbeat else { return Peer::NotSeenYet };
        let standing = self.standing();
        let down = heartbeat.role == Role::None && matches!(heartbeat.instance, Health::Failed | Health::Stopped);
        if standing == Some(Standing::Standby) && heartbeat.take_over {
            let confirmed = heartbeat.shutdown_checkpoint.is_none_or(|checkpoint| self.received_past() > checkpoint);
            return if confirmed { Peer::HandingOver } else { Peer::Healthy };
        }
        let same_view = heartbeat.ledger.map(|ledger| ledger.view) == self.view();
        if standing == Some(Standing::Inactivated)
            && same_view
            && down
            && heartbeat.timeline == self.own.timeline()
            && !self.own.is_standby_dir()
        {
            return Peer::NotPromoted;
        }
        let detection = self.settings.heartbeat_detection_ms;
        let forgot = heartbeat.ledger.is_none() && standing == Some(Standing::Standby) && !self.wal_flows();
        match self.peer.ill_since {
            _ if forgot => Peer::Failed,
            None => Peer::Healthy,
            // A primary that has failed hands over by itself, much sooner.
            Some(at) if standing == Some(Standing::Standby) && self.now.since(at) < detection => Peer::Healthy,
            Some(_) => Peer::Failed,
        }
    }

    fn replication_fact(&self) -> Replication {
        if self.view().is_some_and(|view| view.is_alone(self.me())) {
            return if self.standby_is_back() { Replication::Streaming } else { Replication::Stalled };
        }
        if self.store.notes.unmirrored {
            return Replication::NamesChanged;
        }
        if self.arbiter_unnamed() {
            return Replication::ArbiterReplaced;
        }
        if self.standby_exchanged() {
            return Replication::StandbyReplaced;
        }
        if self.own_role() == Role::None || self.wal_flows() { Replication::Streaming } else { Replication::Stalled }
    }

    /// Whether WAL has gone from one instance to the other within the detection time, of which nothing is seen between two looks.
    pub(super) fn wal_flows(&self) -> bool {
        self.now.since(self.own.flow_at) < self.settings.heartbeat_detection_ms.max(self.settings.instance_detection_ms)
    }

    /// PROTOCOL R9, step 1.
    pub(super) fn standby_is_back(&self) -> bool {
        let (Some(ledger), Some(heartbeat)) = (self.store.ledger, &self.peer.heartbeat) else { return false };
        let told = heartbeat.ledger.is_some_and(|told| told.view == ledger.view && told.system == ledger.system);
        let row = self.own.standby_row().is_some_and(|row| row.streaming);
        let flows =
            self.now.since(self.own.flow_at) < (self.patience_ms() * 2).max(self.settings.instance_detection_ms);
        let contained = self.contains_peer();
        told && heartbeat.streaming && heartbeat.role == Role::Standby && row && flows && contained && !self.detached()
    }

    pub(super) fn detached(&self) -> bool {
        self.store
            .notes
            .detached
            .is_some_and(|start_id| self.peer.heartbeat.as_ref().is_none_or(|heartbeat| heartbeat.start_id == start_id))
    }

    /// A standby that was rebuilt or put back while the view stayed is not eligible: it could never take over. Renewing
    /// the view through R9 names the directory that it has now.
    fn standby_exchanged(&self) -> bool {
        let Some(view) = self.view() else { return false };
        let Some(heartbeat) = &self.peer.heartbeat else { return false };
        let other = match heartbeat.ledger {
            Some(told) => told.view == view && Some(told.data.id) != view.data[self.other().index()],
            None => heartbeat.role == Role::Standby && self.peer_cannot_consent(),
        };
        view.is_mirrored(self.me()) && other
    }

    /// The other server talks and has lost its ledger: only the arbiter can consent (PROTOCOL R8).
    pub(super) fn peer_cannot_consent(&self) -> bool {
        self.may_ask_arbiter() && self.peer.heartbeat.as_ref().is_some_and(|told| told.ledger.is_none())
    }

    /// With `heartbeat_error_action = command` the arbiter is not asked: the other server may ask its command, and not the
    /// arbiter, at the same time.
    pub(super) fn may_ask_arbiter(&self) -> bool {
        self.settings.arbiter && self.settings.on_silence != OnSilence::Command
    }

    fn arbiter_unnamed(&self) -> bool {
        let Some(view) = self.view() else { return false };
        if !self.settings.arbiter {
            return view.is_mirrored(self.me()) && view.arbiter.is_some();
        }
        let heard = self.arbiter_heard(self.patience_ms());
        self.settings.arbiter
            && view.is_mirrored(self.me())
            && heard
            && self.arbiter.best.id.is_some()
            && self.arbiter.best.id != view.arbiter
    }

    /// A half is safe only under a view that leans on no arbiter, which might still grant the right.
    fn policy(&self) -> Policy {
        let no_arbiter = self.view().is_some_and(|view| view.arbiter.is_none());
        let agreed =
            no_arbiter && self.peer.heartbeat.as_ref().is_some_and(|told| told.on_silence == self.settings.on_silence);
        match (self.settings.on_silence, self.settings.arbiter) {
            (OnSilence::Arbitration, true) => Policy::Arbiter,
            (OnSilence::Command, _) => Policy::Command,
            (OnSilence::Fallback, _) => Policy::Fallback,
            (OnSilence::Switch, false) if agreed => Policy::SwitchHalf,
            (OnSilence::Disconnect, false) if agreed => Policy::DisconnectHalf,
            (OnSilence::Arbitration | OnSilence::Message, _) => Policy::Report,
            (OnSilence::Switch | OnSilence::Disconnect, _) => Policy::Report,
        }
    }
}
