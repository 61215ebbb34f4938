//! Observing: events are folded into what is known ([`super::observed`]).
//!
//! Nothing here decides. Silence is judged by age, never by an event of its own.

use super::core_message::Witness;
use super::event::{
    Action, CoreMessage, DataDir, Disk, Health, Heartbeat, Instance, Message, Names, OnInstanceSilence, PeerInstance,
    Role,
};
use super::facts::{Peer, Standing};
use super::node::Node;
use super::observed::{DownReason, Failure, Running};
use super::reason::{Reason, Who};
use super::report::ArbiterDisk;
use super::types::{DataId, Ledger, Lsn, Member, SystemId, Time, View};

/// How long nothing may arrive on the WAL connection of an idle pair, ms: the default of `wal_receiver_timeout`, at half of
/// which a primary sends something in any case.
const IDLE_STREAM_MS: u64 = 60_000;

/// The system identifiers of two clusters, if both are known and differ.
fn two_clusters(mine: Option<SystemId>, theirs: Option<SystemId>) -> Option<(SystemId, SystemId)> {
    mine.zip(theirs).filter(|(mine, theirs)| mine != theirs)
}

impl Node {
    // ------------------------------------------------------------------------------------------------------- members

    pub(super) fn heard(&mut self, from: Member, message: Message) {
        match (from, message) {
            (Member::Server(server), _) if server == self.me() => {}
            (Member::Server(_), Message::Heartbeat(heartbeat)) => self.peer_heartbeat(heartbeat),
            (Member::Server(_), Message::Propose { base, view, received, point, why, .. }) => {
                self.proposed(base, view, (received, point), &why);
            }
            (Member::Server(_), Message::Answer { ledger }) => {
                if let Some(ledger) = ledger
                    && Some(ledger.system) == self.id.system
                    && self.peer.best.take(&ledger)
                {
                    let why = self.answered_why(&ledger.view, Who::OtherServer);
                    self.learn(&ledger, why);
                }
            }
            (Member::Server(_), Message::Ask { id, request, limit_ms }) => self.peer_asks(id, request, limit_ms),
            (Member::Server(_), Message::Told { id, reply }) => self.peer_told(id, reply),
            (Member::Arbiter, Message::Heartbeat(heartbeat)) => {
                if let Some((mine, theirs)) = two_clusters(self.id.system, heartbeat.system) {
                    if self.arbiter.foreign.replace(theirs) != Some(theirs) {
                        self.say(CoreMessage::ArbiterOfOtherSystem { mine, theirs });
                    }
                    return;
                }
                self.arbiter.foreign = None;
                self.arbiter.would_grant = heartbeat.would_grant;
                let (full, space, failure) = (&heartbeat.full, &heartbeat.space, &heartbeat.failure);
                self.arbiter.disk = ArbiterDisk { full: full.clone(), space: space.clone(), failure: failure.clone() };
                self.reminded(heartbeat.wal.remembered, Witness::Arbiter);
                self.arbiter_ledger(heartbeat.ledger, heartbeat.seq, &heartbeat.why);
            }
            (Member::Arbiter, Message::Answer { ledger }) => {
                self.log_answer(ledger.map(|ledger| ledger.view));
                self.arbiter_ledger(ledger, 0, "");
            }
            (Member::Arbiter, Message::Propose { .. } | Message::Ask { .. } | Message::Told { .. }) => {}
        }
    }

    /// The arbiter has answered a proposal: where it did not consent, the operator should know whom to ask why.
    fn log_answer(&mut self, view: Option<View>) {
        let Some(own) = self.view() else { return };
        let refused = view.is_some_and(|view| view.term <= own.term) && self.proposals.current.is_some();
        if refused && self.announced.not_consented != Some(own.term) {
            self.announced.not_consented = Some(own.term);
            self.say(CoreMessage::NotConsented);
        }
    }

    fn arbiter_ledger(&mut self, ledger: Option<Ledger>, seq: u64, why: &str) {
        self.arbiter.heard_at = Some(self.now);
        self.own.unheard = false;
        self.arbiter.refused = 0;
        self.arbiter.seq = self.arbiter.seq.max(seq);
        let Some(ledger) = ledger.filter(|ledger| Some(ledger.system) == self.id.system) else { return };
        if self.arbiter.best.take(&ledger) {
            self.arbiter.view = Some(ledger.view);
            self.log_split_elsewhere(&ledger);
            let why = if why.is_empty() {
                self.answered_why(&ledger.view, Who::Arbiter)
            } else {
                Reason::reported(Who::Arbiter, why)
            };
            self.learn(&ledger, why);
        }
    }

    /// A report of the arbiter ends no split. Only the operator can, and must know of it even if the servers do not communicate.
    fn log_split_elsewhere(&mut self, told: &Ledger) {
        let Some(view) = self.view() else { return };
        let contested = view.is_alone(self.me()) && told.view.is_alone(self.other()) && told.view.term > view.term;
        let known = self.store.notes.lost_split || self.announced.split_elsewhere == Some(told.view.term);
        if contested && self.eligible() && !known {
            self.announced.split_elsewhere = Some(told.view.term);
            self.say(CoreMessage::SplitElsewhere { mine: view, theirs: told.view });
        }
    }

    /// Whether a message of the arbiter has arrived within so many milliseconds.
    pub(super) fn arbiter_heard(&self, ms: u64) -> bool {
        self.arbiter.heard_at.is_some_and(|at| self.now.since(at) < ms)
    }

    /// Without a ledger, a server belongs to the cluster of its data directory. Where the other server holds the ledger of another
    /// cluster, and where a rebuild is to replace the directory, it belongs to none, as with an empty directory.
    pub(super) fn choose_system(&mut self) {
        let Some(data) = self.own.data else { return };
        if self.store.ledger.is_none() {
            let replaced = match self.peer.recorded {
                Some(system) => system != data.system,
                None => self.own.for_rebuild,
            };
            self.id.system = (!replaced).then_some(data.system);
        }
        self.own.alien = self.id.system != Some(data.system);
    }

    fn peer_heartbeat(&mut self, heartbeat: Box<Heartbeat>) {
        let theirs = heartbeat.system;
        self.peer.recorded = heartbeat.ledger.and(theirs);
        self.choose_system();
        let mine =
            self.own.data.filter(|_| self.store.ledger.is_none()).map_or(self.id.system, |data| Some(data.system));
        let foreign = two_clusters(mine, theirs);
        self.peer.foreign = foreign.map(|(_, theirs)| theirs);
        if let Some((mine, theirs)) = foreign.filter(|_| !self.own.for_rebuild) {
            let other = self.other();
            self.announced.other_system(&mut self.out, other, mine, theirs);
        }
        if two_clusters(self.id.system, theirs).is_some() {
            return;
        }
        let newer = match &self.peer.heartbeat {
            Some(last) if last.seq >> 20 == heartbeat.seq >> 20 => heartbeat.seq > last.seq,
            _ => true,
        };
        let stale = heartbeat.ledger.is_some_and(|ledger| !self.peer.best.take(&ledger));
        if !newer || stale {
            return;
        }
        self.peer.heard_at = Some(self.now);
        self.own.unheard = false;
        self.peer.refused = 0;
        self.peer.instance_refused = 0;
        let mine = self.announced.is_mine(heartbeat.echo);
        let fresh = mine && heartbeat.echo > self.peer.echo;
        if fresh {
            self.peer.echo = heartbeat.echo;
            self.peer.two_way_at = Some(self.now);
        }
        // Two that have split must not wait for the next interval to be sure of it.
        let claims = |told: &Heartbeat| told.ledger.is_some_and(|ledger| ledger.view.is_alone(self.other()));
        let contested = self.view().is_some_and(|view| view.is_alone(self.me())) && claims(&heartbeat);
        if !mine || !fresh && contested {
            self.announced.introduce = true;
        }
        if !heartbeat.name.is_empty() {
            self.id.peer_name.clone_from(&heartbeat.name);
        }
        if heartbeat.failover.version > self.store.notes.failover.version && self.requests.failover.is_none() {
            self.take_failover(heartbeat.failover);
        }
        // Without a ledger an instance is not started again by itself.
        let lost = heartbeat.ledger.is_none() && heartbeat.role == Role::None;
        let ill = heartbeat.instance == Health::Failed || !heartbeat.disk.is_empty() || lost;
        self.peer.ill_since = ill.then(|| self.peer.ill_since.unwrap_or(self.now));
        let ledger = heartbeat.ledger;
        let same_view = ledger.map(|ledger| ledger.view) == self.view();
        if heartbeat.unmirrored && same_view && !self.store.notes.unmirrored {
            self.note_unmirrored();
        }
        self.peer.heartbeat = Some(heartbeat.clone());
        self.set_failover_asked();
        if let Some(ledger) = ledger {
            self.see_split_end(&ledger);
            self.learn(&ledger, Reason::reported(Who::OtherServer, &heartbeat.why));
        }
        self.learn_wal(&heartbeat);
    }

    pub(super) fn refused(&mut self, member: Member) {
        match member {
            Member::Server(_) => {
                self.peer.refused += 1;
                self.peer.refused_at = self.now;
            }
            Member::Arbiter => self.arbiter.refused += 1,
        }
    }

    pub(super) fn peer_instance(&mut self, seen: PeerInstance) {
        match seen {
            PeerInstance::Answered => {
                self.peer.answered_at = Some(self.now);
                self.peer.instance_refused = 0;
            }
            PeerInstance::Refused => {
                self.peer.instance_refused += 1;
                // whether the WAL connection has closed too should not wait for the next interval
                if self.wal_is_open() {
                    self.out.push(Action::Look);
                }
            }
            PeerInstance::Silent => {}
        }
    }

    // ----------------------------------------------------------------------------------------------------------- own

    pub(super) fn reading(&mut self, reading: Instance) {
        match reading {
            Instance::Down => {
                if self.own.running == Running::Up && !self.work.starts_or_stops() {
                    self.died(None);
                }
            }
            Instance::Silent => {}
            Instance::Closed if self.work.starts_or_stops() => {}
            // It was started behind the controller's back: look.
            Instance::Closed if self.own.running == Running::Down => self.own.running = Running::Unknown,
            // The data directory, which was a primary's, cannot be read, but the instance runs without the right to.
            Instance::Closed
                if self.own.running == Running::Unknown && self.work.unread && self.is_inactivated_primary() =>
            {
                self.own.running = Running::Up;
                self.alive_at(self.now);
            }
            Instance::Closed if self.own.running != Running::Up => {}
            Instance::Closed => {
                self.alive_at(self.now);
                if !self.own.closed {
                    self.own.closed = true;
                    self.say(CoreMessage::InstanceClosed);
                }
            }
            Instance::Starting => {
                if self.own.running == Running::Down && !self.work.starts_or_stops() {
                    self.own.running = Running::Unknown;
                }
                if (self.own.starting && !self.recovers_for_long()) || self.own.promoting {
                    self.own.answered_at = self.now;
                }
            }
            Instance::Primary { .. } | Instance::Standby { .. } => self.role_reading(reading),
        }
    }

    /// A mirrored primary that was started and is still in crash recovery after its detection time counts as silent from then
    /// on (PROTOCOL section 4), where the standby could serve meanwhile and has not just refused.
    fn recovers_for_long(&self) -> bool {
        let standby = self.peer.heartbeat.as_ref().is_some_and(|told| told.role == Role::Standby);
        self.store.notes.failover.enabled
            && self.standing() == Some(Standing::Primary)
            && self.now.since(self.own.starting_at) >= self.settings.instance_detection_ms
            && self.now >= self.hand_overs.not_before
            && standby
            && self.peer_fact() == Peer::Healthy
    }

    /// The mirrored primary does not come up, and has had time to hand over: the other members may count that as a failure.
    fn recovers_in_vain(&self) -> bool {
        let ms = self.now.since(self.own.starting_at);
        self.own.starting
            && self.view().is_some_and(|view| view.is_mirrored(self.me()))
            && ms >= self.settings.instance_detection_ms * 3
    }

    fn alive_at(&mut self, now: Time) {
        self.own.answered_at = now;
        self.announced.restart = None;
        if self.own.failed == Some(Failure::Silent) {
            self.own.failed = None;
        }
        if std::mem::take(&mut self.own.silent) {
            self.say(CoreMessage::InstanceWell);
        }
    }

    fn role_reading(&mut self, reading: Instance) {
        // It has run since it was last seen down: the next crash is another one.
        self.own.crashed &= !matches!(reading, Instance::Primary { .. });
        // The names were changed in that run of the instance, even if the run has ended.
        if !self.looks_may_be_older() && matches!(reading, Instance::Primary { names: Names::Unset | Names::Other, .. })
        {
            self.found_names_changed();
        }
        match self.own.running {
            // It was started behind the controller's back, or this reading is older than the stop: look.
            Running::Down | Running::Dead => {
                if !self.work.starts_or_stops() && self.own.running == Running::Down {
                    self.own.running = Running::Unknown;
                }
                return;
            }
            // The data directory cannot be read, but the instance runs as a primary without the right to.
            Running::Unknown if self.lacks_data_directory() && self.is_usurper(reading) => {
                self.own.running = Running::Up;
            }
            Running::Unknown => return,
            Running::Up => {}
        }
        if self.work.starts_or_stops() {
            return;
        }
        self.alive_at(self.now);
        self.own.closed = false;
        self.own.down_reasons.end(DownReason::FailoverDisabled);
        if std::mem::take(&mut self.own.starting) {
            self.own.serving_at = self.now;
        }
        self.track_flow(reading);
        self.track_wal(reading);
        self.wal_role_reading(reading);
        self.own.role = Some(reading);
        self.forget_failed_rebuild();
    }

    /// Whether the data directory was a primary's when it was last read, and the view has another primary. A directory that could
    /// never be read shows no role. Its instance may be the synchronous standby, which must not be stopped on a suspicion. It is
    /// judged as soon as the directory can be read or the instance accepts the controller's connection. Until then this server counts
    /// as failed, and takes no right.
    fn is_inactivated_primary(&self) -> bool {
        self.other_is_primary() && self.own.data.is_some_and(|data| !data.is_standby())
    }

    /// Whether this is a primary where the view has another one.
    fn is_usurper(&self, reading: Instance) -> bool {
        self.other_is_primary() && matches!(reading, Instance::Primary { .. })
    }

    /// Whether the view has the other server as the primary.
    fn other_is_primary(&self) -> bool {
        matches!(self.standing(), Some(Standing::Inactivated | Standing::Standby))
    }

    /// Whether the standby flushes: it is caught up with what this server had flushed one look ago, or it moves.
    fn track_flow(&mut self, reading: Instance) {
        if let Instance::Standby { received, .. } = reading
            && self.primary_flushed().is_some_and(|flushed| received >= flushed)
        {
            self.own.caught_up_at = self.now;
        }
        let Instance::Primary { flushed, standby, .. } = reading else { return };
        if let Some(row) = standby
            && row.streaming
            && (row.flushed >= self.own.flushed || row.flushed > self.own.row_flushed)
        {
            self.own.flow_at = self.now;
        }
        if standby.is_none_or(|row| row.flushed >= flushed) {
            self.own.caught_up_at = self.now;
        }
        self.own.row_flushed = standby.map_or_else(Lsn::default, |row| row.flushed);
        let confirmed = Some(self.own.row_flushed).filter(|flushed| *flushed > Lsn::default());
        self.own.confirmed = self.own.confirmed.max(confirmed);
        self.own.flushed = flushed;
    }

    /// Whether a look at the instance may be older than the mirrored view, so that it does not show its names yet.
    pub(super) fn looks_may_be_older(&self) -> bool {
        let grace = self.settings.heartbeat_interval_ms + self.settings.heartbeat_timeout_ms;
        self.announced.mirrored_at.is_some_and(|at| self.now.since(at) < grace)
    }

    /// The names are not the peer's name. On the mirrored primary, a person or a program other than the controller has changed them.
    fn found_names_changed(&mut self) {
        let mirrored = self.view().is_some_and(|view| view.is_mirrored(self.me()));
        if mirrored && !self.store.notes.unmirrored {
            self.say(CoreMessage::NamesChanged);
            self.note_unmirrored();
        }
    }

    /// Notes durably that commits may not have waited under the present view.
    fn note_unmirrored(&mut self) {
        self.store.notes.unmirrored = true;
        self.write(None);
        if self.hand_overs.current.as_ref().is_some_and(|hand_over| !hand_over.planned) {
            self.hand_over_failed("commits may not have waited for the standby");
        }
    }

    /// Another sign of the other's life: something has arrived on the WAL connection since the last look.
    fn track_wal(&mut self, reading: Instance) {
        let contact = match reading {
            Instance::Primary { standby: Some(row), .. } if row.streaming => row.reply,
            Instance::Standby { streaming: true, contact, .. } => contact,
            _ => return,
        };
        if self.peer.contact != 0 && contact != self.peer.contact {
            self.peer.wal_at = Some(self.now);
        }
        if contact != self.peer.contact {
            self.peer.contact = contact;
            self.peer.contact_at = self.now;
        }
        let is_standby = matches!(reading, Instance::Standby { .. });
        if is_standby && self.now.since(self.peer.contact_at) < IDLE_STREAM_MS {
            self.own.flow_at = self.now;
        }
    }

    pub(super) fn died(&mut self, signal: Option<u8>) {
        // It was started behind the controller's back, and no look has found it: its data directory is read again.
        let read_before = self.now.since(self.own.data_at) >= super::work::FRESH_LOOK_MS;
        if self.own.running == Running::Down && read_before && !self.work.starts_or_stops() {
            self.own.may_have_run = true;
            self.own.running = Running::Unknown;
        }
        if self.own.running != Running::Up || self.work.starts_or_stops() {
            return;
        }
        self.own.running = Running::Dead;
        self.own.role = None;
        self.own.failed = Some(Failure::Dead);
        self.own.signal = signal;
        self.own.freed = false;
        self.say(CoreMessage::InstanceFailed { how: "its postmaster has ended" });
    }

    pub(super) fn weakened(&mut self, found: Vec<String>) {
        if self.own.weakened != found {
            self.own.weakened.clone_from(&found);
            self.say(CoreMessage::Weakened(found));
        }
    }

    pub(super) fn disk(&mut self, disk: Disk) {
        match disk {
            Disk::Good => {
                self.own.disk_good_at = self.now;
                if !self.own.disk_bad.is_empty() {
                    self.own.disk_bad.clear();
                    self.say(CoreMessage::DiskWell);
                }
            }
            Disk::Failed(what) => {
                if self.now.since(self.own.disk_good_at) >= self.settings.disk_detection_ms
                    && self.own.disk_bad.is_empty()
                {
                    self.own.disk_bad.clone_from(&what);
                    self.say(CoreMessage::DiskFailed(what));
                }
            }
        }
    }

    /// A job that began at `since` has read the data directory. Gives the directory a new name where it is not the one that it was
    /// (PROTOCOL section 2).
    pub(super) fn found_data(&mut self, data: DataDir, since: Time) {
        if let Some(replaced) = self.read_data(data, since) {
            self.say(replaced);
        }
    }

    /// The same. Returns the message if the directory is not the one that it was.
    pub(super) fn read_data(&mut self, data: DataDir, since: Time) -> Option<CoreMessage> {
        self.own.data = Some(data);
        self.own.data_at = self.now;
        self.own.read_since = since;
        self.own.note_crash(&data);
        self.choose_system();
        if data.running {
            self.own.named_while_down = false;
            if self.own.running != Running::Up {
                if self.own.running != Running::Dead {
                    // Somebody else has started it: whatever kept it down before is over.
                    self.own.failed = None;
                    self.own.down_reasons.end(DownReason::DidNotStayUp);
                }
                self.own.running = Running::Up;
                self.own.role = None;
                self.own.starting = true;
                self.own.starting_at = self.now;
                self.forget_silence();
            }
            // The instance runs and no operator has ordered a stop: it is to continue and to serve.
            if !self.requests.stopping && !self.store.notes.wanted {
                self.store.notes.wanted = true;
                self.write(None);
            }
        } else if self.own.running != Running::Dead {
            self.own.down();
        }
        let ledger = self.store.ledger?;
        let known = ledger.data;
        let older = data.checkpoint < known.checkpoint;
        let why = if !data.has_fingerprint(&known) {
            "its pg_control is another file"
        } else if data.backup_label && self.eligible() && !self.store.notes.labelled {
            "it contains a backup_label"
        } else if older {
            "its last checkpoint is older than the recorded one"
        } else {
            if let Some(ledger) = self.store.ledger.as_mut() {
                ledger.data = data.confirmed_identity(&known);
            }
            self.store.notes.labelled &= data.backup_label;
            if data.unnamed && self.eligible() {
                self.found_names_changed();
            }
            return None;
        };
        let named = data.identity(DataId(self.random()));
        let unmirrored = data.unnamed && self.eligible();
        // What a mirrored view leans on is missing here, and must be on the other server (R13).
        if older && self.eligible() && self.wal.known().is_some() {
            self.store.notes.went_back = self.wal.known();
        }
        if let Some(ledger) = self.store.ledger.as_mut() {
            ledger.data = named;
        }
        // Only a new base backup ends this. A plain copy may be a copy of the directory whose WAL was overwritten.
        self.store.notes.overwritten &= data.has_fingerprint(&known) || !data.backup_label;
        self.store.notes.handed_over = None;
        self.store.notes.labelled = false;
        self.wal.directory_replaced();
        self.write(None);
        if unmirrored {
            // The former directory may have served with these names, and have commits that did not wait.
            self.found_names_changed();
        }
        Some(CoreMessage::DataReplaced { why, data: named })
    }

    fn forget_silence(&mut self) {
        self.own.answered_at = self.now;
        self.own.flow_at = self.now;
    }

    /// Judges silence by age. Called once per step, before facts are made.
    pub(super) fn judge(&mut self) {
        let silent = self.now.since(self.own.answered_at) >= self.settings.instance_detection_ms;
        if silent
            && self.own.running == Running::Up
            && self.own.failed.is_none()
            && !self.own.silent
            && !self.work.starts_or_stops()
            && self.settings.on_instance_silence != OnInstanceSilence::None
        {
            self.own.silent = true;
            self.say(CoreMessage::InstanceFailed { how: "it does not respond" });
            if self.settings.on_instance_silence == OnInstanceSilence::Failover {
                self.own.failed = Some(Failure::Silent);
            }
        }
        if self.own.disk_bad.is_empty() && self.now.since(self.own.disk_good_at) >= self.settings.disk_detection_ms * 2
        {
            self.own.disk_bad = "data".to_owned();
            self.say(CoreMessage::DiskFailed("data".to_owned()));
        }
    }

    /// Whether the data directory could not be read since the start, and not for long.
    pub(super) fn unreadable(&self) -> bool {
        let since_boot = self.id.booted_at.map_or(0, |at| self.now.since(at));
        self.own.data.is_none() && since_boot >= self.settings.disk_detection_ms * 2
    }

    /// Whether the data directory cannot be read, or was not whole when an interrupted rebuild was resumed.
    fn lacks_data_directory(&self) -> bool {
        self.unreadable() || self.work.unread || self.own.data.is_none() && self.store.notes.rebuild.is_some()
    }

    pub(super) fn own_health(&self) -> Health {
        match (self.own.running, self.own.failed, self.own.role) {
            _ if self.unreadable() => Health::Failed,
            (_, Some(_), _) | (Running::Dead, _, _) => Health::Failed,
            (Running::Down, None, _) if self.exchanged_under_mirror() => Health::Failed,
            _ if self.is_demoted_by_hand() => Health::Failed,
            (Running::Unknown, None, _) => Health::Unknown,
            (Running::Down, None, _) if self.own.down_reasons.has(DownReason::DidNotStayUp) => Health::Failed,
            (Running::Down, None, _) => Health::Stopped,
            (Running::Up, None, None) if self.own.closed => Health::Well,
            (Running::Up, None, None) if self.recovers_in_vain() => Health::Failed,
            (Running::Up, None, None) => Health::Starting,
            (Running::Up, None, Some(_)) => Health::Well,
        }
    }

    pub(super) fn own_role(&self) -> Role {
        match (self.own.running, self.own.role) {
            (Running::Up, Some(Instance::Primary { .. })) => Role::Primary,
            (Running::Up, Some(Instance::Standby { .. })) => Role::Standby,
            _ => Role::None,
        }
    }
}
