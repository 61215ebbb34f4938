//! Observing: what events say is folded into what is known, and that into facts.
//!
//! Nothing here decides. Silence is judged by age, never by an event of its own.

use super::event::{
    Action, ControlState, DataDir, Disk, Health, Heartbeat, Instance, Message, Names, OnInstanceSilence, OnSilence,
    PeerInstance, Role, Say, StandbyRow,
};
use super::facts::{Facts, Own, Peer, Policy, Standing, Stream};
use super::node::Node;
use super::rules;
use super::types::{DataId, DataIdentity, Ledger, LedgerId, Lsn, Member, Term, Time, Timeline};

/// How often a host must have refused before that counts as a cause.
const REFUSALS: u32 = 3;

/// How an instance has failed that is silent past the retries.
pub(super) const SILENT: &str = "does not answer";

/// Whether the instance runs, as far as jobs and notices tell; readings only add its role.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Running {
    /// Not known: the data directory has to be read.
    Unknown,
    /// No process of it is left.
    Down,
    /// The postmaster lives.
    Up,
    /// The postmaster is gone; its processes may not be.
    Dead,
}

/// What is known of the own instance and disks.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct OwnSide {
    pub data: Option<DataDir>,
    pub data_at: Time,
    pub running: Running,
    /// The last reading that told a role, since the last start.
    pub role: Option<Instance>,
    /// Last time that it answered anything.
    answered_at: Time,
    /// It was started on order and has not answered in a role since.
    pub starting: bool,
    /// How it failed, until it is started again.
    pub failed: Option<&'static str>,
    /// It does not answer, and that has been said.
    silent: bool,
    pub closed: bool,
    disk_good_at: Time,
    pub disk_bad: String,
    pub starts: Vec<Time>,
    pub left_down: bool,
    /// It died while failover was off, and is left as it is.
    pub hold: bool,
    /// It is a standby that is kept down while it is disconnected (`shutdown_detached_synchronous_standby`).
    pub halt: bool,
    pub isolated: bool,
    /// A promotion was ordered since the last start.
    pub promoting: bool,
    /// `synchronous_standby_names` is commented out in a standby's file.
    pub freed: bool,
    /// The data directory belongs to another cluster.
    pub alien: bool,
    /// An operator's start asked for a first ledger.
    pub founding: bool,
    pub data_id: Option<DataId>,
    flow_at: Time,
    /// Last time that the standby had flushed all that this server had.
    pub caught_up_at: Time,
    flushed: Lsn,
    row_flushed: Lsn,
    pub names_changed: bool,
}

impl OwnSide {
    pub fn new() -> OwnSide {
        OwnSide {
            data: None,
            data_at: Time(0),
            running: Running::Unknown,
            role: None,
            answered_at: Time(0),
            starting: false,
            failed: None,
            silent: false,
            closed: false,
            disk_good_at: Time(0),
            disk_bad: String::new(),
            starts: Vec::new(),
            left_down: false,
            hold: false,
            halt: false,
            isolated: false,
            promoting: false,
            freed: false,
            alien: false,
            founding: false,
            data_id: None,
            flow_at: Time(0),
            caught_up_at: Time(0),
            flushed: Lsn(0),
            row_flushed: Lsn(0),
            names_changed: false,
        }
    }

    pub fn boot(&mut self, now: Time) {
        self.forget(now);
        self.starting = true;
    }

    pub fn forget(&mut self, now: Time) {
        self.answered_at = now;
        self.disk_good_at = now;
        self.flow_at = now;
        self.caught_up_at = now;
    }

    /// Whether an instance started from the data directory comes up as a standby.
    pub fn is_standby_dir(&self) -> bool {
        self.data.is_some_and(|data| data.is_standby())
    }

    pub fn is_primary(&self) -> bool {
        matches!(self.role, Some(Instance::Primary { .. }))
    }

    pub fn started(&mut self, now: Time) {
        self.running = Running::Up;
        self.role = None;
        self.starting = true;
        self.failed = None;
        self.silent = false;
        self.promoting = false;
        self.answered_at = now;
        self.flow_at = now;
    }

    pub fn down(&mut self) {
        self.running = Running::Down;
        self.role = None;
        self.starting = false;
        self.promoting = false;
        self.freed = false;
        self.closed = false;
        self.silent = false;
    }

    /// Nothing runs, and the data directory cannot be read any more.
    pub fn lost_sight(&mut self) {
        if let Some(data) = self.data.as_mut() {
            data.state = ControlState::Other;
            data.running = false;
        }
    }

    pub fn timeline(&self) -> Timeline {
        match (self.running, self.role, self.data) {
            (Running::Up, Some(Instance::Primary { timeline, .. } | Instance::Standby { timeline, .. }), _) => timeline,
            (_, _, Some(data)) => data.checkpoint_timeline.max(data.min_recovery_timeline),
            (_, _, None) => Timeline(0),
        }
    }

    pub fn received(&self) -> Lsn {
        match self.role {
            Some(Instance::Standby { received, .. }) => received,
            _ => Lsn(0),
        }
    }

    /// Whether the standby streams from this primary.
    pub fn is_followed(&self) -> bool {
        self.standby_row().is_some_and(|row| row.streaming)
    }

    fn standby_row(&self) -> Option<StandbyRow> {
        match self.role {
            Some(Instance::Primary { standby, .. }) => standby,
            _ => None,
        }
    }
}

/// The newest that is known of a member's ledger; ledgers never go back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Best {
    pub id: LedgerId,
    pub promised: Term,
    pub term: Term,
}

impl Best {
    /// Takes a ledger in; false where it is older than one already seen.
    fn take(&mut self, ledger: &Ledger) -> bool {
        if self.id == ledger.id && (ledger.promised < self.promised || ledger.view.term < self.term) {
            return false;
        }
        *self = Best { id: ledger.id, promised: ledger.promised, term: ledger.view.term };
        true
    }
}

/// What is known of the other server.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct PeerSide {
    pub heartbeat: Option<Box<Heartbeat>>,
    pub heard_at: Option<Time>,
    two_way_at: Option<Time>,
    echo: u64,
    pub best: Best,
    pub refused: u32,
    refused_at: Time,
    instance_refused: u32,
    answered_at: Option<Time>,
    wal_at: Option<Time>,
    contact: u64,
    pub watching: bool,
}

impl PeerSide {
    pub fn new() -> PeerSide {
        PeerSide {
            heartbeat: None,
            heard_at: None,
            two_way_at: None,
            echo: 0,
            best: Best::default(),
            refused: 0,
            refused_at: Time(0),
            instance_refused: 0,
            answered_at: None,
            wal_at: None,
            contact: 0,
            watching: false,
        }
    }

    pub fn forget(&mut self, now: Time) {
        self.heard_at = self.heard_at.map(|_| now);
        self.two_way_at = self.two_way_at.map(|_| now);
        self.refused = 0;
        self.instance_refused = 0;
    }

    /// The last time at which both directions were known to work.
    pub fn up_at(&self) -> Option<Time> {
        Some(self.heard_at?.min(self.two_way_at?))
    }

    /// Its ledger, if both directions work and it was told within `ms`.
    pub fn fresh_ledger(&self, now: Time, ms: u64) -> Option<Ledger> {
        if now.since(self.up_at()?) >= ms { None } else { self.heartbeat.as_ref()?.ledger }
    }

    fn refuses_both(&self, now: Time, ms: u64) -> bool {
        self.refused >= REFUSALS && self.instance_refused >= REFUSALS && now.since(self.refused_at) < ms
    }

    fn shows_life(&self, now: Time, ms: u64) -> bool {
        [self.answered_at, self.wal_at].into_iter().flatten().any(|at| now.since(at) < ms)
    }
}

/// What is known of the arbiter.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct ArbiterSide {
    pub heard_at: Option<Time>,
    pub best: Best,
    pub refused: u32,
    pub seq: u64,
    /// It would consent if it were asked now.
    pub would_grant: bool,
    /// It is not heard, and that has been said.
    pub lost: bool,
}

impl ArbiterSide {
    pub fn new() -> ArbiterSide {
        ArbiterSide { heard_at: None, best: Best::default(), refused: 0, seq: 0, would_grant: false, lost: false }
    }

    pub fn forget(&mut self, now: Time) {
        self.heard_at = self.heard_at.map(|_| now);
    }
}

impl Node {
    // ------------------------------------------------------------------------------------------------------- members

    pub(super) fn heard(&mut self, from: Member, message: Message) {
        match (from, message) {
            (Member::Server(server), _) if server == self.me() => {}
            (Member::Server(_), Message::Heartbeat(heartbeat)) => self.peer_heartbeat(heartbeat),
            (Member::Server(_), Message::Propose { base, view, received, .. }) => self.proposed(base, view, received),
            (Member::Server(_), Message::Answer { ledger }) => {
                if let Some(ledger) = ledger
                    && ledger.system == self.system
                    && self.peer.best.take(&ledger)
                {
                    self.learn(&ledger, "the other server consented");
                }
            }
            (Member::Server(_), Message::Ask { id, request, limit_ms }) => self.peer_asks(id, request, limit_ms),
            (Member::Server(_), Message::Told { id, reply }) => self.peer_told(id, reply),
            (Member::Arbiter, Message::Heartbeat(heartbeat)) => {
                self.arbiter.would_grant = heartbeat.would_grant;
                self.arbiter_ledger(heartbeat.ledger, heartbeat.seq);
            }
            (Member::Arbiter, Message::Answer { ledger }) => self.arbiter_ledger(ledger, 0),
            (Member::Arbiter, Message::Propose { .. } | Message::Ask { .. } | Message::Told { .. }) => {}
        }
    }

    fn arbiter_ledger(&mut self, ledger: Option<Ledger>, seq: u64) {
        self.arbiter.heard_at = Some(self.now);
        self.arbiter.refused = 0;
        self.arbiter.seq = self.arbiter.seq.max(seq);
        let Some(ledger) = ledger.filter(|ledger| ledger.system == self.system) else { return };
        if self.arbiter.best.take(&ledger) {
            self.learn(&ledger, "the arbiter consented");
        } else if self.notes.distrusted != ledger.id {
            self.notes.distrusted = ledger.id;
            self.write("");
            self.say(Say::ArbiterWentBack { was: self.arbiter.best.promised, now: ledger.promised });
        }
    }

    /// Whether the arbiter was heard within so many milliseconds.
    pub(super) fn arbiter_heard(&self, ms: u64) -> bool {
        self.arbiter.heard_at.is_some_and(|at| self.now.since(at) < ms)
    }

    /// Whether the arbiter that answers is one whose ledger went back. It stays so however much it has been told again: what
    /// it forgot may be what nobody else here knows.
    pub(super) fn arbiter_distrusted(&self) -> bool {
        self.arbiter.best.id != LedgerId(0) && self.notes.distrusted == self.arbiter.best.id
    }

    fn peer_heartbeat(&mut self, heartbeat: Box<Heartbeat>) {
        if self.system.0 != 0 && heartbeat.system.0 != 0 && heartbeat.system != self.system {
            let other = self.other();
            self.told.other_system(&mut self.out, other, self.system, heartbeat.system);
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
        self.peer.refused = 0;
        self.peer.instance_refused = 0;
        let mine = self.told.is_mine(heartbeat.echo);
        if mine && heartbeat.echo > self.peer.echo {
            self.peer.echo = heartbeat.echo;
            self.peer.two_way_at = Some(self.now);
        }
        if !mine {
            self.told.introduce = true;
        }
        if !heartbeat.name.is_empty() {
            self.peer_name.clone_from(&heartbeat.name);
        }
        if heartbeat.failover.version > self.notes.failover.version && self.failover_asked.is_none() {
            self.take_failover(heartbeat.failover);
        }
        let ledger = heartbeat.ledger;
        self.peer.heartbeat = Some(heartbeat);
        self.set_failover_asked();
        if let Some(ledger) = ledger {
            self.see_split_end(&ledger);
            self.learn(&ledger, "told by the other server");
        }
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
                    self.died();
                }
            }
            Instance::Silent => {}
            Instance::Closed if self.own.running != Running::Up || self.work.starts_or_stops() => {}
            Instance::Closed => {
                self.alive_at(self.now);
                if !self.own.closed {
                    self.own.closed = true;
                    self.say(Say::InstanceClosed);
                }
            }
            Instance::Starting => {
                if self.own.running == Running::Down {
                    self.own.running = Running::Unknown;
                }
                if self.own.starting || self.own.promoting {
                    self.own.answered_at = self.now;
                }
            }
            Instance::Primary { .. } | Instance::Standby { .. } => self.role_reading(reading),
        }
    }

    fn alive_at(&mut self, now: Time) {
        self.own.answered_at = now;
        if self.own.failed == Some(SILENT) {
            self.own.failed = None;
        }
        if std::mem::take(&mut self.own.silent) {
            self.say(Say::InstanceWell);
        }
    }

    fn role_reading(&mut self, reading: Instance) {
        match self.own.running {
            // It was started behind the controller's back, or this reading is older than the stop: look.
            Running::Down | Running::Dead => {
                if !self.work.starts_or_stops() && self.own.running == Running::Down {
                    self.own.running = Running::Unknown;
                }
                return;
            }
            Running::Unknown => return,
            Running::Up => {}
        }
        if self.work.starts_or_stops() {
            return;
        }
        self.alive_at(self.now);
        self.own.closed = false;
        self.own.hold = false;
        self.own.starting = false;
        self.track_flow(reading);
        self.track_wal(reading);
        self.own.role = Some(reading);
    }

    /// Whether the standby flushes: it is caught up with what this server had flushed one look ago, or it moves.
    fn track_flow(&mut self, reading: Instance) {
        let Instance::Primary { flushed, names, standby, .. } = reading else { return };
        if let Some(row) = standby
            && row.streaming
            && (row.flushed >= self.own.flushed || row.flushed > self.own.row_flushed)
        {
            self.own.flow_at = self.now;
        }
        if standby.is_none_or(|row| row.flushed >= flushed) {
            self.own.caught_up_at = self.now;
        }
        self.own.row_flushed = standby.map_or(Lsn(0), |row| row.flushed);
        self.own.flushed = flushed;
        let grace = self.settings.heartbeat_interval_ms + self.settings.heartbeat_timeout_ms;
        let settled = self.told.mirrored_at.is_none_or(|at| self.now.since(at) >= grace);
        let mirrored = self.view().is_some_and(|view| view.is_mirrored(self.me()));
        if mirrored && names != Names::Peer && settled && self.own.is_primary() {
            if !self.own.names_changed {
                self.say(Say::NamesChanged);
            }
            self.own.names_changed = true;
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
        self.peer.contact = contact;
    }

    pub(super) fn died(&mut self) {
        if self.own.running != Running::Up || self.work.starts_or_stops() {
            return;
        }
        self.own.running = Running::Dead;
        self.own.role = None;
        self.own.failed = Some("dead");
        self.own.freed = false;
        self.say(Say::InstanceFailed { how: "dead" });
    }

    pub(super) fn disk(&mut self, disk: Disk) {
        match disk {
            Disk::Good => {
                self.own.disk_good_at = self.now;
                if !self.own.disk_bad.is_empty() {
                    self.own.disk_bad.clear();
                    self.say(Say::DiskWell);
                }
            }
            Disk::Failed(what) => {
                if self.now.since(self.own.disk_good_at) >= self.settings.disk_detection_ms
                    && self.own.disk_bad.is_empty()
                {
                    self.own.disk_bad.clone_from(&what);
                    self.say(Say::DiskFailed(what));
                }
            }
        }
    }

    /// The data directory was read. Names it anew where it is not the one that it was (PROTOCOL section 2).
    pub(super) fn found_data(&mut self, data: DataDir) {
        self.own.data = Some(data);
        self.own.data_at = self.now;
        if self.ledger.is_none() {
            self.system = data.system;
        }
        self.own.alien = self.system != data.system;
        if data.running {
            if self.own.running != Running::Up {
                self.own.running = Running::Up;
                self.own.role = None;
                self.own.starting = true;
                self.forget_silence();
            }
        } else if self.own.running != Running::Dead {
            self.own.down();
        }
        let Some(ledger) = self.ledger else { return };
        let known = ledger.data;
        let why = if data.fingerprint != known.fingerprint {
            "its pg_control is another file"
        } else if data.backup_label && self.eligible() {
            "a backup_label lies in it"
        } else if data.checkpoint < known.checkpoint {
            "its last checkpoint is older than the one noted"
        } else {
            if let Some(ledger) = self.ledger.as_mut() {
                ledger.data.checkpoint = data.checkpoint;
            }
            return;
        };
        let named =
            DataIdentity { id: DataId(self.random()), fingerprint: data.fingerprint, checkpoint: data.checkpoint };
        if let Some(ledger) = self.ledger.as_mut() {
            ledger.data = named;
        }
        self.notes.handed_over = Lsn(0);
        self.write("");
        self.say(Say::DataReplaced { why, data: named });
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
            self.say(Say::InstanceFailed { how: SILENT });
            if self.settings.on_instance_silence == OnInstanceSilence::Failover {
                self.own.failed = Some(SILENT);
            }
        }
        if self.own.disk_bad.is_empty() && self.now.since(self.own.disk_good_at) >= self.settings.disk_detection_ms * 2
        {
            self.own.disk_bad = "data".to_owned();
            self.say(Say::DiskFailed("data".to_owned()));
        }
    }

    /// Whether the data directory could not be read since the start, and not for long.
    pub(super) fn unreadable(&self) -> bool {
        let since_boot = self.booted_at.map_or(0, |at| self.now.since(at));
        self.own.data.is_none() && since_boot >= self.settings.disk_detection_ms * 2
    }

    pub(super) fn own_health(&self) -> Health {
        match (self.own.running, self.own.failed, self.own.role) {
            _ if self.unreadable() => Health::Failed,
            (_, Some(_), _) | (Running::Dead, _, _) => Health::Failed,
            (Running::Unknown, None, _) => Health::Unknown,
            (Running::Down, None, _) if self.own.left_down => Health::Failed,
            (Running::Down, None, _) => Health::Stopped,
            (Running::Up, None, None) if self.own.closed => Health::Well,
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

    // --------------------------------------------------------------------------------------------------------- facts

    /// The facts, once there is a ledger.
    pub(super) fn facts(&self) -> Option<Facts> {
        Some(Facts {
            standing: self.standing()?,
            own: self.own_fact(),
            peer: self.peer_fact(),
            stream: self.stream_fact(),
            policy: self.policy(),
        })
    }

    pub(super) fn standing(&self) -> Option<Standing> {
        match rules::standing(&self.view()?, self.me()) {
            Standing::Alone if self.notes.lost_split => Some(Standing::Outcast),
            standing => Some(standing),
        }
    }

    fn own_fact(&self) -> Own {
        if self.own.failed.is_some() || self.own.left_down || !self.own.disk_bad.is_empty() || self.unreadable() {
            return Own::Failed;
        }
        let leads = self.view().is_some_and(|view| view.primary == self.me());
        let mirrored = self.view().is_some_and(|view| view.is_mirrored(self.me()));
        if mirrored && !self.eligible() && self.own.running == Running::Down {
            // What was mirrored is on the standby alone now.
            return Own::Failed;
        }
        let in_role = match self.own_role() {
            Role::Primary => leads,
            Role::Standby => !leads,
            Role::None => false,
        };
        let outcast = self.view().is_some_and(|view| view.is_alone(self.other()));
        if in_role && (self.eligible() || outcast) && self.own.running == Running::Up { Own::Fit } else { Own::Unfit }
    }

    /// How long without a heartbeat is nothing unusual yet, ms.
    pub(super) fn patience_ms(&self) -> u64 {
        self.settings.heartbeat_interval_ms + self.settings.heartbeat_timeout_ms
    }

    pub(super) fn peer_fact(&self) -> Peer {
        let detection = self.settings.heartbeat_detection_ms;
        let Some(up_at) = self.peer.up_at() else {
            let waited = self.booted_at.map_or(0, |at| self.now.since(at));
            let leads = self.view().is_some_and(|view| view.primary == self.me());
            let enough = if leads { detection } else { self.settings.startup_wait_ms.max(detection) };
            return if waited >= enough { Peer::Never } else { Peer::Young };
        };
        let silent_ms = self.now.since(up_at);
        if self.peer.refuses_both(self.now, detection.max(1000)) && !self.wal_is_open() {
            return Peer::Refused;
        }
        if silent_ms >= detection {
            return if self.peer.shows_life(self.now, self.patience_ms()) { Peer::Alive } else { Peer::Lost };
        }
        if silent_ms > self.patience_ms() {
            return Peer::Quiet;
        }
        self.talking_peer_fact()
    }

    /// `fallback` has no third party to ask, so it also wants the WAL connection closed before it believes a refusal.
    fn wal_is_open(&self) -> bool {
        self.settings.on_silence == OnSilence::Fallback
            && match self.own.role {
                Some(Instance::Primary { standby, .. }) => standby.is_some(),
                Some(Instance::Standby { streaming, .. }) => streaming,
                _ => false,
            }
    }

    fn talking_peer_fact(&self) -> Peer {
        let Some(heartbeat) = &self.peer.heartbeat else { return Peer::Young };
        let standing = self.standing();
        let down = heartbeat.role == Role::None && matches!(heartbeat.instance, Health::Failed | Health::Stopped);
        if standing == Some(Standing::Standby) && heartbeat.take_over {
            let confirmed =
                heartbeat.shutdown_checkpoint == Lsn(0) || self.own.received() > heartbeat.shutdown_checkpoint;
            return if confirmed { Peer::Offers } else { Peer::Talks };
        }
        let same_view = heartbeat.ledger.map(|ledger| ledger.view) == self.view();
        if standing == Some(Standing::Outcast)
            && same_view
            && down
            && heartbeat.timeline == self.own.timeline()
            && !self.own.is_standby_dir()
        {
            return Peer::Stuck;
        }
        if heartbeat.instance == Health::Failed || !heartbeat.disk.is_empty() {
            return Peer::Ill;
        }
        Peer::Talks
    }

    fn stream_fact(&self) -> Stream {
        if self.view().is_some_and(|view| view.is_alone(self.me())) {
            return if self.standby_is_back() { Stream::Flows } else { Stream::Stalled };
        }
        if self.own.names_changed {
            return Stream::Changed;
        }
        if self.arbiter_unnamed() {
            return Stream::Unnamed;
        }
        if self.standby_exchanged() {
            return Stream::Exchanged;
        }
        let stalled = self.now.since(self.own.flow_at) >= self.settings.heartbeat_detection_ms && self.own.is_primary();
        if stalled { Stream::Stalled } else { Stream::Flows }
    }

    /// PROTOCOL R9, step 1.
    fn standby_is_back(&self) -> bool {
        let (Some(ledger), Some(heartbeat)) = (self.ledger, &self.peer.heartbeat) else { return false };
        let told = heartbeat
            .ledger
            .is_some_and(|told| told.view == ledger.view && told.data.id != DataId(0) && told.system == ledger.system);
        let row = self.own.standby_row().is_some_and(|row| row.streaming);
        let flows = self.now.since(self.own.flow_at) < self.patience_ms() * 2;
        told && heartbeat.streaming && heartbeat.role == Role::Standby && row && flows && !self.detached()
    }

    pub(super) fn detached(&self) -> bool {
        self.notes.detached != 0
            && self.peer.heartbeat.as_ref().is_none_or(|heartbeat| heartbeat.start_id == self.notes.detached)
    }

    /// A standby that was rebuilt or put back while the view stayed is not eligible: it could never take over. Renewing
    /// the view through R9 names the directory that it has now.
    fn standby_exchanged(&self) -> bool {
        let Some(view) = self.view() else { return false };
        let Some(heartbeat) = &self.peer.heartbeat else { return false };
        let other = match heartbeat.ledger {
            Some(told) => told.view == view && told.data.id != view.data[self.other().index()],
            None => heartbeat.role == Role::Standby && self.peer_cannot_consent(),
        };
        view.is_mirrored(self.me()) && other
    }

    /// The other server talks and has lost its ledger: only the arbiter can consent (PROTOCOL R8).
    pub(super) fn peer_cannot_consent(&self) -> bool {
        self.settings.arbiter && self.peer.heartbeat.as_ref().is_some_and(|told| told.ledger.is_none())
    }

    fn arbiter_unnamed(&self) -> bool {
        let Some(view) = self.view() else { return false };
        if !self.settings.arbiter {
            return view.is_mirrored(self.me()) && view.arbiter != LedgerId(0);
        }
        let heard = self.arbiter_heard(self.patience_ms());
        self.settings.arbiter
            && view.is_mirrored(self.me())
            && heard
            && self.arbiter.best.id != LedgerId(0)
            && self.arbiter.best.id != view.arbiter
    }

    /// A half is safe only under a view that leans on no arbiter, which might still grant the right.
    fn policy(&self) -> Policy {
        let no_arbiter = self.view().is_some_and(|view| view.arbiter == LedgerId(0));
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
