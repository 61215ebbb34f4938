//! Positions never go back (PROTOCOL R13): what each server's WAL is known to contain, and what follows if it does not.
//!
//! Each server reports the furthest point that its data directory contains. Under `Mirrored` the standby's WAL is a prefix of
//! the primary's, so a primary that does not contain its standby's point has lost data, as has a server that does not contain
//! what it has reported itself. PostgreSQL compares neither: a WAL receiver overwrites its own segment from the begin. So the
//! comparison comes before an instance is started, and once more in each run of the primary's instance.

use super::cause::Cause;
use super::core_message::Witness;
use super::event::{
    Action, CompareWal, Contains, CoreMessage, Health, Heartbeat, Instance, Job, Role, Verdict, WalFound, WalReading,
    WalReport,
};
use super::facts::Standing;
use super::node::Node;
use super::observed::Running;
use super::types::{DataId, DataIdentity, HighWater, Lsn, Time, WalPoint};

/// The shortest time between two durable notes of the furthest point, ms.
const NOTE_MS: u64 = 10_000;
/// How long after a comparison an instance may be started, ms.
const FRESH_MS: u64 = 10_000;
/// How long after an order to compare a running instance the order is repeated, ms.
const REPEAT_MS: u64 = 1_000;

/// What is known of both servers' WAL.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct WalSide {
    /// Names the run of the own instance as a primary, if it runs as one.
    incarnation: Option<u64>,
    /// The furthest point that the data directory is known to contain.
    point: Option<WalPoint>,
    /// A point that it must contain, and how that is known; not compared yet.
    must: Option<(WalPoint, Witness)>,
    /// When the directory of an instance that is down was compared last, and the other server's point then.
    compared: Option<(Time, Option<WalPoint>)>,
    /// The end of the WAL was looked for since the instance was last seen to run.
    end_found: bool,
    /// The comparison with a running instance that is out.
    comparing: Option<(WalPoint, Time)>,
    /// As a standby that runs: the point that was not found once. The WAL receiver may have written the segment while it was read.
    not_found: Option<WalPoint>,
    /// As the primary: the verdict on the standby's WAL.
    verdict: Option<Verdict>,
    /// As the standby: the run of the primary's instance, and the own point before anything came from it.
    met: Option<(u64, Option<WalPoint>)>,
    /// As the standby: the own point when the primary last reported the run that [`WalSide::met`] names. What was received since
    /// may have come from another run, and may have overwritten what was there.
    anchor: Option<WalPoint>,
    /// The primary has been silent since.
    lapsed: bool,
    /// The furthest point that the other server has reported.
    peer: Option<HighWater>,
    /// The last durable note, and when it was ordered in the present run of the instance.
    noted: Option<HighWater>,
    noted_at: Option<Time>,
    /// How far the instance had received WAL when it was compared again, since it was less than before.
    rechecked: Option<Lsn>,
    /// The run of the primary's instance for which [`CoreMessage::NotContained`] was last reported.
    said_not_contained: Option<u64>,
    /// The point of the other server, as last reported, with which neither server holds everything.
    said_none: Option<Option<WalPoint>>,
}

impl WalSide {
    /// What was noted durably for this data directory must be in it.
    pub fn boot(&mut self, noted: Option<HighWater>, data: Option<DataId>) {
        self.noted = noted;
        if let Some(noted) = noted.filter(|noted| Some(noted.data) == data) {
            self.must = Some((noted.point, Witness::Own));
        }
    }

    /// The instance does not run any more, or another run of it begins.
    pub fn instance_ended(&mut self) {
        self.incarnation = None;
        self.comparing = None;
        self.not_found = None;
        self.verdict = None;
        self.noted_at = None;
        self.end_found = false;
        self.rechecked = None;
        self.compared = None;
    }

    /// The furthest point that the data directory has contained, or must contain.
    pub fn known(&self) -> Option<WalPoint> {
        WalPoint::further(self.point, self.must.map(|(point, _)| point))
    }

    /// Whether it was reported that neither server holds everything.
    pub fn none_holds_all(&self) -> bool {
        self.said_none.is_some()
    }

    /// The data directory is another one.
    pub fn directory_replaced(&mut self) {
        self.instance_ended();
        self.point = None;
        self.must = None;
        self.anchor = None;
        self.lapsed = false;
        self.met = self.met.map(|(incarnation, _)| (incarnation, None));
    }
}

/// Whether an instance of unknown role may run as a primary. One that rejects its controller is well.
fn may_run(instance: Health) -> bool {
    matches!(instance, Health::Unknown | Health::Starting | Health::Well)
}

impl Node {
    // ------------------------------------------------------------------------------------------------------- the own

    /// The instance was looked at.
    pub(super) fn wal_reading(&mut self, reading: WalReading) {
        if self.own.running != Running::Up || self.work.starts_or_stops() {
            return;
        }
        if reading.incarnation != self.wal.incarnation {
            self.wal.incarnation = reading.incarnation;
            self.wal.verdict = None;
            self.wal.comparing = None;
        }
        let in_role = match self.standing() {
            _ if reading.incarnation.is_none() => self.own.is_standby_dir(),
            // What the standby has not confirmed may be lost in a switch, and nothing was acknowledged from it.
            Some(Standing::Primary) => self.eligible() && reading.confirmed,
            Some(Standing::Alone) => self.eligible(),
            Some(Standing::Standby | Standing::Inactivated) | None => false,
        };
        // What must be there is compared first: a restored directory continues from an earlier position.
        if in_role && self.wal.must.is_none() && self.store.ledger.is_some() {
            self.contains(reading.point);
        }
    }

    /// A standby reports less than its data directory is known to contain: what lies on its disk decides, since a record that
    /// was not whole is received again after a restart.
    pub(super) fn wal_role_reading(&mut self, reading: Instance) {
        let Instance::Standby { received, timeline, .. } = reading else { return };
        let less = self.wal.point.filter(|point| point.timeline == timeline && point.lsn > received);
        if let Some(point) = less.filter(|_| self.wal.rechecked != Some(received) && self.wal.must.is_none()) {
            self.wal.rechecked = Some(received);
            self.wal.must = Some((point, Witness::Own));
        }
    }

    /// The data directory contains this point.
    fn contains(&mut self, point: Option<WalPoint>) {
        self.wal.point = WalPoint::further(self.wal.point, point);
        if self.own.running != Running::Up
            && let Some((_, before)) = self.wal.met.as_mut()
        {
            *before = self.wal.point;
        } else if let Some((_, before @ None)) = self.wal.met.as_mut() {
            *before = self.wal.point;
        }
        self.note_high_water();
    }

    /// Notes the furthest point: with the first advance in each run of the instance, then now and then.
    fn note_high_water(&mut self) {
        let (Some(point), Some(ledger)) = (self.wal.point, self.store.ledger) else { return };
        let due = self.wal.noted_at.is_none_or(|at| self.now.since(at) >= NOTE_MS);
        let seen = HighWater { data: ledger.data.id, point };
        let mut raised = self.wal.noted;
        HighWater::raise(&mut raised, seen);
        // The note of a data directory that was renamed is replaced once the new name is durable.
        if due && self.settled() && raised != self.wal.noted && self.wal.must.is_none() {
            self.wal.noted = raised;
            self.wal.noted_at = Some(self.now);
            self.out.push(Action::NoteHighWater(seen));
        }
    }

    /// A member has reported that the data directory must contain this point.
    fn must_contain(&mut self, point: WalPoint, witness: Witness) {
        if self.wal.known().is_none_or(|known| point.is_past(&known)) {
            self.wal.must = Some((point, witness));
        }
    }

    /// A member has reported what it remembers of this server.
    pub(super) fn reminded(&mut self, remembered: Option<HighWater>, witness: Witness) {
        let Some(ledger) = self.store.ledger else { return };
        if let Some(remembered) = remembered.filter(|remembered| remembered.data == ledger.data.id) {
            self.must_contain(remembered.point, witness);
        }
    }

    /// A standby that has just booted does not propose before it has received what the arbiter remembers of it, if the arbiter can
    /// be reached: its own note may be older (R13 a).
    pub(super) fn awaits_what_members_remember(&self) -> bool {
        self.lacks_arbiter_heartbeat()
    }

    /// Whether a comparison is due of what this server's WAL must contain, or of the standby's WAL with that of this primary. It is
    /// answered within a look, and this server takes no right before.
    pub(super) fn awaits_comparison(&mut self) -> bool {
        self.verify_anchor();
        self.wal.must.is_some() || self.standing() == Some(Standing::Primary) && self.unjudged().is_some()
    }

    /// A standby that has received WAL since the primary last reported its run compares what it had before with what it has, if the
    /// primary was silent meanwhile.
    fn verify_anchor(&mut self) {
        let receives = self.own.running == Running::Up && self.own.is_standby_dir();
        if receives && self.wal.lapsed && self.wal.must.is_none() && self.wal.point != self.wal.anchor {
            self.wal.must = self.wal.anchor.map(|point| (point, Witness::Own));
        }
    }

    /// Compares what must be there with the running instance. Called once per step.
    pub(super) fn verify_wal(&mut self) {
        // Before the detection time has passed, so that a switch does not wait for it.
        self.wal.lapsed |= !self.peer_talks(self.settings.heartbeat_interval_ms * 2);
        self.verify_anchor();
        let runs = self.own.running == Running::Up && self.own.role.is_some() && !self.work.starts_or_stops();
        if let Some((point, _)) = self.wal.must.filter(|_| runs) {
            self.compare_running(point);
        } else if let Some(point) = self.unjudged().filter(|_| runs) {
            self.compare_running(point);
        }
    }

    /// Compares what must be there while the instance is down, for a right that is not asked for before.
    pub(super) fn verify_wal_while_down(&mut self) {
        let idle = self.own.running == Running::Down && !self.work.busy() && self.now >= self.work.retry_at();
        if let Some((point, _)) = self.wal.must.filter(|_| idle) {
            self.run(Job::CompareWal(CompareWal { own: Some(point), peer: None, find_end: false }));
        }
    }

    fn compare_running(&mut self, point: WalPoint) {
        let out = |(other, at): (WalPoint, Time)| other == point && self.now.since(at) < REPEAT_MS;
        if !self.wal.comparing.is_some_and(out) {
            self.wal.comparing = Some((point, self.now));
            self.out.push(Action::CompareWal(point));
        }
    }

    /// The running instance was compared with a point.
    pub(super) fn wal_compared(&mut self, point: WalPoint, found: Contains) {
        if self.wal.comparing.is_none_or(|(wanted, _)| wanted != point) || self.own.running != Running::Up {
            return;
        }
        self.wal.comparing = None;
        if self.wal.must.is_some_and(|(must, _)| must == point) {
            let missed = Some(point).filter(|_| found == Contains::No && self.own.is_standby_dir());
            if missed.is_some() && std::mem::replace(&mut self.wal.not_found, missed) != missed {
                // Asked again before that counts.
                self.wal.comparing = Some((point, self.now));
                return;
            }
            self.wal.not_found = None;
            self.own_compared(found, None);
        } else if self.unjudged() == Some(point) && self.wal.incarnation.is_some() {
            self.judge_peer(point, found);
        }
    }

    fn own_compared(&mut self, found: Contains, end: Option<WalPoint>) {
        let Some((must, witness)) = self.wal.must else { return };
        if found == Contains::No {
            // A running standby that contained the point was not restored: something else has written its WAL.
            let contained = [self.wal.point, self.wal.anchor].contains(&Some(must));
            self.store.notes.overwritten |= contained && self.own.running == Running::Up && self.own.is_standby_dir();
            self.went_back(must, witness, end);
        } else {
            self.wal.must = None;
            self.contains(Some(must));
            if self.wal.anchor.is_none_or(|anchor| anchor == must) {
                self.wal.anchor = self.wal.point;
            }
        }
    }

    /// This data directory lacks what it must contain: it is not the one that any view leans on (PROTOCOL R13 b).
    fn went_back(&mut self, had: WalPoint, witness: Witness, end: Option<WalPoint>) {
        let has = end.map_or(self.position(), |end| end.lsn);
        let id = DataId(self.random());
        let Some(ledger) = self.store.ledger.as_mut() else { return };
        ledger.data = DataIdentity { id, ..ledger.data };
        let data = ledger.data;
        self.store.notes.handed_over = None;
        self.store.notes.went_back = Some(had);
        let incarnation = self.wal.incarnation;
        self.wal.directory_replaced();
        self.wal.incarnation = incarnation;
        self.write(None);
        self.say(CoreMessage::WentBack { witness, had, has, data });
    }

    // ---------------------------------------------------------------------------------------------------- before a start

    /// Whether the instance may be started as far as its WAL is concerned; orders what is needed to find out.
    /// `follows`: it comes up as a standby.
    pub(super) fn wal_allows_start(&mut self, follows: bool) -> bool {
        if self.store.ledger.is_none() {
            return true;
        }
        if !follows && self.awaits_first_heartbeat() || follows && self.awaits_arbiter() {
            return false;
        }
        let peer = if follows { None } else { self.mirrored_peer_point() };
        let fresh = self.wal.compared.filter(|(at, _)| self.now.since(*at) < FRESH_MS);
        let find_end = follows && !self.wal.end_found;
        let enough = fresh.is_some_and(|(_, compared)| peer.is_none() || compared == peer);
        if !enough || find_end || self.wal.must.is_some() {
            let own = self.wal.must.map(|(point, _)| point).or(self.wal.point);
            self.run(Job::CompareWal(CompareWal { own, peer, find_end }));
            return false;
        }
        !follows || !self.awaits_peer_role() && (!self.primary_answers() || self.is_contained())
    }

    /// Whether the other server may run a primary that it has not reported yet. Such a primary would accept this server's WAL
    /// receiver before the WAL is compared. A standby of a mirrored pair that has just booted waits for the first heartbeat, unless
    /// the other host refuses the connection.
    fn awaits_peer_role(&self) -> bool {
        match &self.peer.heartbeat {
            None => self.standing() == Some(Standing::Standby) && self.has_just_booted() && self.peer.refused == 0,
            Some(told) => told.role == Role::None && may_run(told.instance) && self.peer_responds(),
        }
    }

    /// Whether the other server's instance rejects its controller, so that the role is not known.
    pub(super) fn peer_is_closed(&self) -> bool {
        let told = self.peer.heartbeat.as_ref();
        let closed = told.is_some_and(|told| told.role == Role::None && told.instance == Health::Well);
        self.own.running == Running::Down && closed && self.peer_responds()
    }

    /// Whether this server booted within the detection time.
    fn has_just_booted(&self) -> bool {
        self.id.booted_at.is_some_and(|at| self.now.since(at) < self.settings.heartbeat_detection_ms)
    }

    /// Whether heartbeats of the other server arrive. Just after the boot, the other server need not have received one of this server.
    fn peer_responds(&self) -> bool {
        let patience = self.patience_ms();
        let heard = self.peer.heard_at.is_some_and(|at| self.now.since(at) < patience);
        self.peer_talks(patience) || heard && self.has_just_booted()
    }

    /// A standby of a mirrored pair that has just booted waits for what the arbiter remembers of it, if the arbiter can be reached:
    /// where the WAL ends is found only while the instance is down, and a WAL receiver would change it.
    fn awaits_arbiter(&self) -> bool {
        let refused = self.arbiter.refused != 0;
        self.standing() == Some(Standing::Standby) && !refused && self.lacks_arbiter_heartbeat()
    }

    /// Whether this server has booted within the detection time, and has not received a heartbeat of the arbiter yet.
    fn lacks_arbiter_heartbeat(&self) -> bool {
        self.settings.arbiter && self.arbiter.heard_at.is_none() && self.has_just_booted()
    }

    /// A mirrored primary that has just booted waits for its standby's first heartbeat, if the standby can be reached.
    fn awaits_first_heartbeat(&self) -> bool {
        if !self.view().is_some_and(|view| view.is_mirrored(self.me())) {
            return false;
        }
        match &self.peer.heartbeat {
            None => self.has_just_booted() && self.peer.refused == 0,
            Some(told) => {
                let waited = self.id.booted_at.map_or(0, |at| self.now.since(at));
                told.wal.pending && self.peer_talks(self.patience_ms()) && waited < self.settings.startup_wait_ms
            }
        }
    }

    /// The point of the standby on whose data directory the mirrored view leans.
    fn mirrored_peer_point(&self) -> Option<WalPoint> {
        let view = self.view().filter(|view| view.is_mirrored(self.me()))?;
        let told = self.peer.heartbeat.as_ref().filter(|told| told.role != Role::Primary)?;
        let leans = told.ledger.is_some_and(|ledger| Some(ledger.data.id) == view.data[self.other().index()]);
        told.wal.point.filter(|_| leans)
    }

    /// The directory of an instance that is down was compared.
    pub(super) fn wal_found(&mut self, asked: CompareWal, found: WalFound) {
        if self.own.running != Running::Down {
            return;
        }
        self.wal.compared = Some((self.now, asked.peer));
        self.wal.end_found |= asked.find_end;
        self.announced.introduce |= asked.find_end;
        match (self.wal.must, asked.own) {
            (Some((must, _)), Some(own)) if must == own => self.own_compared(found.own, found.end),
            (None, Some(own)) if found.own == Contains::No => self.went_back(own, Witness::Own, found.end),
            _ => {}
        }
        if let (Some(peer), Contains::No) = (asked.peer, found.peer)
            && self.eligible()
            && self.mirrored_peer_point() == Some(peer)
        {
            self.went_back(peer, Witness::Peer, found.end);
        }
        if self.own.is_standby_dir() {
            self.contains(found.end);
        }
    }

    // ------------------------------------------------------------------------------------------------------ the primary

    /// The standby's point on which no verdict was given in this run of the instance, or on which one is asked for.
    fn unjudged(&self) -> Option<WalPoint> {
        let told = self.peer.heartbeat.as_ref().filter(|told| told.role != Role::Primary)?;
        let point = told.wal.point?;
        let judged = self.wal.verdict.is_some_and(|verdict| {
            Some(verdict.incarnation) == self.wal.incarnation && (verdict.point == point || !told.wal.verify)
        });
        (self.own.is_primary() && self.wal.incarnation.is_some() && !judged).then_some(point)
    }

    fn judge_peer(&mut self, point: WalPoint, found: Contains) {
        let contained = found != Contains::No;
        let leans = self.mirrored_peer_point() == Some(point);
        let Some(incarnation) = self.wal.incarnation else { return };
        self.wal.verdict = Some(Verdict { incarnation, point, contained });
        self.announced.introduce = true;
        if !contained && leans && self.eligible() {
            self.went_back(point, Witness::Peer, None);
        }
    }

    /// Whether the standby's WAL was found in that of the present run of the own instance. A standby of an older version reports
    /// none.
    pub(super) fn contains_peer(&self) -> bool {
        let compares = self.peer.heartbeat.as_ref().is_some_and(|told| told.wal.compares);
        !compares || self.wal.verdict.is_some_and(|it| Some(it.incarnation) == self.wal.incarnation && it.contained)
    }

    // ------------------------------------------------------------------------------------------------------ the standby

    /// The other server's heartbeat: what it has, and what it remembers.
    pub(super) fn learn_wal(&mut self, told: &Heartbeat) {
        if let (Some(ledger), Some(point)) = (told.ledger, told.wal.point) {
            if self.wal.peer.is_some_and(|known| known.data != ledger.data.id) {
                self.wal.verdict = None;
            }
            HighWater::raise(&mut self.wal.peer, HighWater { data: ledger.data.id, point });
        }
        self.reminded(told.wal.remembered, Witness::Peer);
        let before = self.wal.met.map(|(incarnation, _)| incarnation);
        let run = told.wal.incarnation.filter(|_| told.role == Role::Primary);
        if let Some(run) = run.filter(|run| before != Some(*run)) {
            self.wal.met = Some((run, self.wal.point));
            self.wal.lapsed = true;
            self.announced.introduce = true;
            // A WAL receiver that has connected to this run before it was compared may have overwritten what was there.
            if self.own.running == Running::Up && self.own.is_standby_dir() && self.wal.must.is_none() {
                self.wal.must = self.wal.anchor.or(self.wal.point).map(|point| (point, Witness::Own));
            }
        } else if run.is_some() && self.wal.must.is_none() {
            (self.wal.anchor, self.wal.lapsed) = (self.wal.point, false);
        } else if told.role == Role::None && may_run(told.instance) {
            // A run that is not reported may send WAL.
            self.wal.lapsed = true;
        }
        let mirrored = self.view().is_some_and(|view| view.is_mirrored(self.other()))
            && told.ledger.map(|ledger| ledger.view) == self.view();
        // What the mirrored primary reports is what its standby has confirmed.
        if let Some(point) = told.wal.point.filter(|_| mirrored && self.eligible() && !self.streams()) {
            self.must_contain(point, Witness::Peer);
        }
        let Some(mine) = self.wal.point.filter(|_| self.is_refuted()) else { return };
        if std::mem::replace(&mut self.wal.said_not_contained, told.wal.incarnation) != told.wal.incarnation {
            self.say(CoreMessage::NotContained { mine });
        }
        if self.streams() && !self.store.notes.overwritten {
            self.store.notes.overwritten = true;
            self.went_back(mine, Witness::Peer, None);
        }
    }

    /// Whether the other server responds, and runs its instance as a primary.
    fn primary_answers(&self) -> bool {
        self.peer_responds() && self.peer.heartbeat.as_ref().is_some_and(|told| told.role == Role::Primary)
    }

    /// The verdict of the primary's present run on what this server had before anything came from that run; `None` while
    /// there is none. A primary of an older version gives none, and none is asked of it. Others name the run that they compare.
    fn verdict(&self) -> Option<bool> {
        let Some(told) = self.peer.heartbeat.as_ref().filter(|told| told.role == Role::Primary) else {
            return Some(true);
        };
        let Some((incarnation, before)) = self.wal.met.filter(|(met, _)| Some(*met) == told.wal.incarnation) else {
            return (!told.wal.compares).then_some(true);
        };
        let Some(before) = before else { return self.wal.must.is_none().then_some(true) };
        let verdict = told.wal.verdict.filter(|verdict| verdict.incarnation == incarnation)?;
        if verdict.contained {
            (!before.is_past(&verdict.point)).then_some(true)
        } else {
            (verdict.point == before).then_some(false)
        }
    }

    /// Whether the primary's present run contains this standby's WAL.
    pub(super) fn is_contained(&self) -> bool {
        self.verdict() == Some(true)
    }

    /// Whether the primary's present run does not contain this standby's WAL: it cannot follow that primary.
    pub(super) fn is_refuted(&self) -> bool {
        self.verdict() == Some(false)
    }

    // ---------------------------------------------------------------------------------------------------------- telling

    /// What the heartbeat reports.
    pub(super) fn wal_report(&self) -> WalReport {
        let standby = self.own.is_standby_dir() && self.own.running == Running::Down;
        WalReport {
            compares: true,
            incarnation: self.wal.incarnation.filter(|_| self.own_role() == Role::Primary),
            // Its WAL agrees with the primary's, but its data files do not.
            point: self.wal.point.filter(|_| !self.store.notes.overwritten),
            pending: standby && !self.is_held() && !self.wal.end_found && self.store.ledger.is_some(),
            verdict: self.wal.verdict,
            verify: self.own_role() != Role::Primary && self.verdict().is_none(),
            remembered: self.wal.peer,
        }
    }

    /// What a proposal reports about the proposer's WAL.
    pub(super) fn wal_point(&self) -> Option<WalPoint> {
        self.wal.point
    }

    /// Whether the other server, with this data directory, reports less than it has reported before (R13 a).
    pub(super) fn peer_is_behind(&self, data: DataId, point: Option<WalPoint>) -> bool {
        HighWater::is_missed(self.wal.peer, data, point)
    }

    /// Whether both servers' WAL is known to agree, as far as this server knows.
    pub(super) fn wal_agrees(&self) -> bool {
        // What is only compared again, since a member has reported more, does not change what is known.
        let compared = self.wal.must.is_none() || self.wal.point.is_some();
        match self.standing() {
            Some(Standing::Primary) => self.contains_peer() && compared,
            Some(Standing::Standby) => self.is_contained() && compared,
            Some(Standing::Alone | Standing::Inactivated) | None => true,
        }
    }

    /// As far as this standby has received WAL, counting what lies on its disk of a record that is not complete.
    pub(super) fn received_past(&self) -> Lsn {
        let point = self.wal.point.filter(|point| point.timeline == self.own.timeline());
        match self.own.role {
            Some(Instance::Standby { received, .. }) => point.map_or(received, |point| received.max(point.lsn)),
            _ => Lsn::default(),
        }
    }

    /// A mirrored primary whose data went back, and whose standby does not hold everything either: only an operator can
    /// choose (PROTOCOL R13 d).
    pub(super) fn report_none_holds_all(&mut self) {
        let Some(had) = self.store.notes.went_back else { return };
        let mirrored = self.view().is_some_and(|view| view.is_mirrored(self.me()));
        let Some(told) = self.peer.heartbeat.as_ref().filter(|_| self.peer_talks(self.patience_ms())) else { return };
        if !mirrored || told.wal.pending {
            return;
        }
        let leans = told.ledger.zip(self.view()).is_some_and(|(ledger, view)| {
            ledger.view == view && Some(ledger.data.id) == view.data[self.other().index()]
        });
        let theirs = told.wal.point;
        let holds = leans && theirs.is_some_and(|point| !had.is_past(&point));
        if !holds && self.wal.said_none != Some(theirs) && (theirs.is_some() || !leans) {
            self.wal.said_none = Some(theirs);
            self.say(CoreMessage::NoneHoldsAll { had, theirs });
        }
    }

    /// A mirrored primary that is not started, since its data directory was exchanged, and does not hand over either, since
    /// commits may not have waited for the standby. The former directory may still exist, so only an operator can choose.
    pub(super) fn cannot_hand_over(&self) -> bool {
        let mirrored = self.view().is_some_and(|view| view.is_mirrored(self.me()));
        mirrored && self.store.notes.unmirrored && self.own.data.is_some() && !self.eligible()
    }

    pub(super) fn refuse_to_hand_over(&mut self) {
        if self.announced.refused != Some(Cause::DirectoryExchanged) {
            self.announced.refused = Some(Cause::DirectoryExchanged);
            self.say(CoreMessage::CannotHandOver);
        }
    }
}
