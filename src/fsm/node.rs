//! One server's side of the protocol: the state, and the order in which one event is worked through.
//!
//! `step` folds the event into what is known ([`super::observe`]), answers members ([`super::consent`]), pursues what
//! the decision table orders ([`super::pursue`]), serves operators ([`super::operator`]), and reconciles the instance with
//! the ledger ([`super::work`]). [`super::heartbeat`] composes heartbeats, and [`super::node_report`] the report.

use super::consent::Proposals;
use super::event::{Action, Boot, CoreMessage, Event, Message, Settings, StartedBy, TICK_MS};
use super::hand_over::HandOvers;
use super::observed::{ArbiterSide, DownReason, OwnSide, PeerSide};
use super::operator::Requests;
use super::reason::{Reason, Who};
use super::rules;
use super::store::LedgerStore;
use super::types::{DataId, Durable, Failover, Ledger, LedgerId, Member, Server, SystemId, Term, Time, View};
use super::work::Work;

/// The least number of terms that a server skips after it has lost its ledger (the number that it skips is random), and when
/// an operator adopts its data directory.
const SKIPPED_TERMS: u64 = 1_000;

/// One server's decision core.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    pub(super) settings: Settings,
    pub(super) now: Time,
    pub(super) out: Vec<Action>,
    pub(super) id: Identity,
    pub(super) store: LedgerStore,
    // what is known of the three
    pub(super) own: OwnSide,
    pub(super) peer: PeerSide,
    pub(super) arbiter: ArbiterSide,
    pub(super) wal: super::wal::WalSide,
    // what is in progress
    pub(super) work: Work,
    pub(super) calls: super::calls::Calls,
    pub(super) hand_overs: HandOvers,
    pub(super) proposals: Proposals,
    pub(super) requests: Requests,
    // what was announced
    pub(super) announced: super::heartbeat::Announced,
}

/// Who this server is, in this run of its controller.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Identity {
    /// The cluster that it belongs to, as soon as that is known.
    pub system: Option<SystemId>,
    /// Its `application_name`.
    pub name: String,
    /// `host:port` under which the other instance reaches this one.
    pub address: String,
    /// The other server's `application_name`.
    pub peer_name: String,
    /// Names the operator's start.
    pub start_id: u64,
    /// When the controller was started; `None` before the first event.
    pub booted_at: Option<Time>,
    /// How many random numbers were drawn.
    drawn: u64,
}

impl Node {
    /// A node that has not booted yet.
    pub fn new(settings: Settings) -> Node {
        Node {
            own: OwnSide::default(),
            peer: PeerSide::default(),
            arbiter: ArbiterSide::default(),
            wal: super::wal::WalSide::default(),
            work: Work::default(),
            calls: super::calls::Calls::new(settings.seed),
            announced: super::heartbeat::Announced::default(),
            settings,
            now: Time::default(),
            out: Vec::new(),
            id: Identity::default(),
            store: LedgerStore::default(),
            hand_overs: HandOvers::default(),
            proposals: Proposals::default(),
            requests: Requests::default(),
        }
    }

    /// Folds one event in and returns what is to be done, in order.
    pub fn step(&mut self, now: Time, event: Event) -> Vec<Action> {
        self.notice_pause(now);
        self.now = now;
        match event {
            Event::Boot(boot) => self.boot(*boot),
            _ if self.id.booted_at.is_none() => {}
            Event::Tick => {}
            Event::Heard(from, message) => self.heard(from, message),
            Event::Refused(member) => self.refused(member),
            Event::PeerInstance(seen) => self.peer_instance(seen),
            Event::Instance(reading) => self.reading(reading),
            Event::Wal(reading) => self.wal_reading(reading),
            Event::WalCompared(point, found) => self.wal_compared(point, found),
            Event::Died { signal } => self.died(signal),
            Event::Weakened(found) => self.weakened(found),
            Event::Disk(disk) => self.disk(disk),
            Event::DiskFull(full) => self.own.disk_full = full,
            Event::Stored(seq) => self.stored(seq),
            Event::StoreFailed(seq, why) => self.store_failed(seq, why),
            Event::Done(id, outcome) => self.done(id, outcome),
            Event::CommandDone(id, result) => self.command_done(id, result),
            Event::Request { id, request, limit_ms } => self.request(id, request, limit_ms),
        }
        if self.id.booted_at.is_some() {
            self.think();
        }
        std::mem::take(&mut self.out)
    }

    /// What is known to be durable.
    pub fn durable(&self) -> Option<&Durable> {
        self.store.durable.as_ref()
    }

    /// The order of precedence in one step. The first of these that starts a job leaves none for those after it, except for a stop.
    fn think(&mut self) {
        self.rewrite();
        self.verify_wal();
        self.answer_asked();
        self.join();
        self.pursue();
        self.drive_hand_over();
        self.operate();
        self.call_hooks();
        self.reconcile();
        self.keep_in_touch();
    }

    fn boot(&mut self, boot: Boot) {
        self.id.booted_at = Some(self.now);
        self.id.name = boot.name;
        self.id.address = boot.address;
        self.id.peer_name = boot.peer_name;
        self.id.start_id = boot.start_id;
        self.announced.start_at(self.settings.seed);
        self.store.durable = boot.durable;
        if let Some(durable) = boot.durable {
            self.store.ledger = Some(durable.ledger);
            self.store.notes = durable.notes;
            self.drop_unconfigured_hooks();
            self.id.system = Some(durable.ledger.system);
        }
        match boot.by {
            StartedBy::Watcher => self.id.start_id = self.store.notes.start_id.unwrap_or(boot.start_id),
            StartedBy::Operator { .. } | StartedBy::Rebuild => self.store.notes.start_id = None,
        }
        self.own.for_rebuild = boot.by == StartedBy::Rebuild;
        if let Some((instance, failover)) = boot.by.ordered() {
            self.own.founding = !self.own.for_rebuild;
            self.requests.failover = failover;
            // Off unless asked for; but where the other server's controller runs, its setting is the pair's.
            if failover.is_none() {
                self.store.notes.failover = Failover::default();
            }
            self.store.notes.wanted |= instance;
        }
        self.own.boot(self.now);
        self.wal.boot(boot.high_water, self.store.ledger.map(|ledger| ledger.data.id));
        if let Some(data) = boot.data {
            self.found_data(data, self.now);
            self.store.notes.wanted |= data.running;
            // It may have been stopped because it was cut off. That is not known before a member responds.
            let primary = self.view().is_some_and(|view| view.is_mirrored(self.me()));
            self.own
                .down_reasons
                .set(DownReason::Isolated, self.settings.isolated_primary_stops && primary && !data.running);
        }
        self.set_failover_asked();
        if let Some(durable) = self.store.durable
            && durable.notes != self.store.notes
        {
            self.write(None);
        }
    }

    /// PROTOCOL R12: a pause of this process is not a failure of the others.
    fn notice_pause(&mut self, now: Time) {
        let Some(booted_at) = self.id.booted_at else { return };
        let slept = now.since(self.now.max(booted_at));
        if slept > TICK_MS + self.settings.heartbeat_timeout_ms {
            self.own.forget(now);
            self.peer.forget(now);
            self.arbiter.forget(now);
            self.calls.forget();
            self.say(CoreMessage::Paused { ms: slept });
        }
    }

    // ------------------------------------------------------------------------------------------------------- helpers

    pub(super) fn me(&self) -> Server {
        self.settings.me
    }

    pub(super) fn other(&self) -> Server {
        self.settings.me.other()
    }

    pub(super) fn peer_member(&self) -> Member {
        Member::Server(self.other())
    }

    pub(super) fn view(&self) -> Option<View> {
        self.store.ledger.map(|ledger| ledger.view)
    }

    /// Whether the newest ledger is durable.
    pub(super) fn settled(&self) -> bool {
        self.store.is_settled()
    }

    /// Whether the data directory is the one that the view names.
    pub(super) fn eligible(&self) -> bool {
        self.store.ledger.is_some_and(|ledger| rules::eligible(&ledger, self.me()) && !self.own.alien)
    }

    pub(super) fn random(&mut self) -> u64 {
        self.id.drawn += 1;
        super::types::draw(self.settings.seed, self.id.drawn)
    }

    pub(super) fn say(&mut self, say: CoreMessage) {
        self.out.push(Action::Log(say));
    }

    pub(super) fn send(&mut self, to: Member, message: Message) {
        self.out.push(Action::Send(to, message));
    }

    /// The smallest own term above all promises that this server has received (PROTOCOL R1).
    pub(super) fn next_term(&self) -> Term {
        let own = self.store.ledger.map_or_else(Term::default, |ledger| ledger.promised);
        rules::next_term(self.me(), &[own, self.peer.best.promised, self.arbiter.best.promised])
    }

    // ------------------------------------------------------------------------------------------------------- storing

    /// Writes the newest ledger and notes; `why`: the view changed. Actions that depend on it are given to [`Node::hold`]
    /// afterwards.
    pub(super) fn write(&mut self, why: Option<Reason>) {
        self.store.write(self.now, why, &mut self.out);
    }

    /// Enters a view: writes it, and reports it.
    pub(super) fn enter(&mut self, view: View, why: Reason) {
        let from = self.view();
        let Some(ledger) = self.store.ledger else { return };
        self.store.ledger = Some(rules::entering(ledger, view));
        self.proposals.current = None;
        self.own.down_reasons.end(DownReason::DidNotStayUp);
        self.own.confirmed = None;
        self.store.notes.unmirrored &= view.is_alone(self.settings.me.other());
        self.store.notes.went_back = None;
        self.store.notes.replaces_right =
            rules::replaces_right(from.as_ref(), self.store.notes.replaces_right, &view) && view.primary == self.me();
        self.announced.split &= view.is_alone(self.settings.me);
        if view.primary != self.settings.me && !self.own.is_standby_dir() {
            // Down for good, or until it rejoins: no failure any more.
            self.own.failed = None;
            self.announced.restart = None;
        }
        if !view.is_alone(self.settings.me) {
            self.store.notes.promoted = false;
            self.store.notes.lost_split = false;
        } else if self.own.is_standby_dir() {
            self.store.notes.promoted = true;
        }
        let other = self.settings.me.other().index();
        if from.is_some_and(|from| from.data[other] != view.data[other]) {
            // The other server has another data directory than the one that received the shutdown checkpoint.
            self.store.notes.handed_over = None;
        }
        if view.is_mirrored(self.settings.me) || view.is_mirrored(self.settings.me.other()) {
            self.store.notes.detached = None;
            self.store.notes.handed_over = None;
            self.announced.mirrored_at = Some(self.now);
        }
        if !view.is_alone(self.settings.me.other()) {
            // It was of the last disconnection.
            self.own.down_reasons.end(DownReason::Disconnected);
        }
        let disconnected =
            from.is_some_and(|from| from.is_mirrored(view.primary)) && view.is_alone(self.settings.me.other());
        if disconnected && self.settings.stop_detached_standby && self.own.is_standby_dir() {
            self.own.down_reasons.begin(DownReason::Disconnected);
        }
        self.schedule_hooks(from, view);
        // What commits waited for was the view before.
        self.announced.waits_since = None;
        self.announced.reason = Some(why.clone());
        self.announced.since = Some(self.now);
        self.write(Some(why.clone()));
        self.say(CoreMessage::View { from, to: view, why });
    }

    /// Performs an action once everything written so far is durable.
    pub(super) fn hold(&mut self, action: Action) {
        self.store.hold(action, &mut self.out);
    }

    fn stored(&mut self, seq: u64) {
        for mut action in self.store.stored(seq) {
            // Heartbeats may have reported more meanwhile, and the receiver compares.
            if let Action::Send(_, Message::Propose { point, .. }) = &mut action {
                *point = self.wal_point();
            }
            self.out.push(action);
        }
    }

    fn store_failed(&mut self, seq: u64, why: String) {
        if self.store.failed(seq, self.now) {
            self.say(CoreMessage::StoreFailed(why));
        }
    }

    /// A write that failed may or may not be found after a restart, so nothing that was held is released until the same
    /// content is durable.
    fn rewrite(&mut self) {
        if self.store.must_be_rewritten(self.now) {
            self.write(None);
        }
    }

    // ------------------------------------------------------------------------------------------- the first ledger

    /// Makes the first ledger where that is allowed (PROTOCOL section 2).
    fn join(&mut self) {
        if self.store.ledger.is_some() || self.own.data.is_none() {
            return;
        }
        if self.own.is_standby_dir() {
            self.join_as_standby();
        } else {
            self.found_pair();
        }
    }

    /// A standby's ledger begins with a `Degraded(other)` that the other server itself reports.
    fn join_as_standby(&mut self) {
        let Some(told) = self.peer.fresh_ledger(self.now, self.settings.heartbeat_detection_ms) else { return };
        if Some(told.system) != self.id.system || !rules::begins_standby(self.me(), &told.view) {
            return;
        }
        let why = self.peer.heartbeat.as_ref().map_or("", |heartbeat| &heartbeat.why);
        let why = Reason::reported(Who::OtherServer, why);
        // If the view names a data directory of this server, this server has had a ledger, and has lost it. That ledger may have
        // held a newer view, which no other member has seen. No term is used twice.
        let lost = told.view.data[self.me().index()].is_some();
        let skipped = if lost { SKIPPED_TERMS + (self.random() & 0xffff) } else { 0 };
        self.make_ledger(told.view, Term(told.view.term.0 + skipped), why);
    }

    /// The first ledger of a new pair: on the primary, by an operator's start, and only if no other member has one.
    fn found_pair(&mut self) {
        let Some(data) = self.own.data else { return };
        // A pair is never founded beside a server of another cluster: its operator has to rebuild one of the two. Nor under an
        // arbiter that records another cluster.
        let rival = self.peer.foreign.or(self.arbiter.foreign).is_some();
        if !self.own.founding || data.mark.is_some() || self.own.alien || rival {
            return;
        }
        let detection = self.settings.heartbeat_detection_ms;
        let waited = self.id.booted_at.is_some_and(|at| self.now.since(at) >= detection);
        let peer_has_none = match &self.peer.heartbeat {
            Some(heartbeat) => {
                // Whoever knows no data directory founds nothing.
                let founds_none = heartbeat.role == super::event::Role::Standby || heartbeat.system.is_none();
                heartbeat.ledger.is_none() && (self.me() == Server::First || founds_none)
            }
            None => self.peer.refused > 0 || waited,
        };
        let arbiter_has_none = !self.settings.arbiter
            || self.arbiter.best.id.is_none()
                && (self.arbiter.heard_at.is_some() || self.arbiter.refused > 0 || waited);
        if !peer_has_none || !arbiter_has_none {
            return;
        }
        let mut view = View {
            term: Term::default().next_for(self.me()),
            primary: self.me(),
            mode: super::types::Mode::Degraded,
            data: [None; 2],
            arbiter: None,
            forced: false,
        };
        let id = DataId(self.random());
        view.data[self.me().index()] = Some(id);
        self.own.data_id = Some(id);
        self.make_ledger(view, view.term, Reason::own("the first start of a new pair"));
    }

    /// `start --adopt-data`: a forced `Degraded(self)` that names the present data directory (PROTOCOL section 6).
    pub(super) fn adopt_data(&mut self) {
        let lost_split = std::mem::take(&mut self.store.notes.lost_split);
        self.store.notes.overwritten = false;
        self.store.notes.detached = None;
        self.store.notes.handed_over = None;
        self.store.notes.wanted = true;
        self.work.rebuilds = super::rebuild::Rebuilds::default();
        self.store.notes.labelled = self.own.data.is_some_and(|data| data.backup_label);
        // The other server may write `Mirrored` at this moment, under a term that this server does not know. The operator's
        // view has a term above it, so that the other server adopts it. A lost ledger may have known any term. The new one
        // begins above all that a history can have reached, and at a random place, so that what the other server has is not
        // taken for newer, nor for the same.
        let term = match self.store.ledger {
            Some(_) => Term(self.next_term().0.saturating_add(SKIPPED_TERMS)),
            None => Term((1 << 40) + (self.random() & 0xffff_ffff)).max(self.next_term()).next_for(self.me()),
        };
        let mut view = View {
            term,
            primary: self.me(),
            mode: super::types::Mode::Degraded,
            data: self.view().map_or([None; 2], |view| view.data),
            arbiter: self.view().and_then(|view| view.arbiter),
            forced: true,
        };
        if lost_split {
            // The primary of its view does not change, but the other server has served in between.
            self.schedule_adoption_hook(term);
        }
        // Whatever it has contained under its old name, the operator takes it as it is.
        let id = DataId(self.random());
        view.data[self.me().index()] = Some(id);
        self.wal.directory_replaced();
        let why = Reason::own("an operator adopted the data directory");
        if let Some(ledger) = self.store.ledger.as_mut() {
            ledger.data.id = id;
            self.write(None);
            self.enter(view, why);
        } else {
            self.own.data_id = Some(id);
            self.schedule_adoption_hook(term);
            self.make_ledger(view, term, why);
        }
    }

    fn make_ledger(&mut self, view: View, promised: Term, why: Reason) {
        let (Some(data), Some(system)) = (self.own.data, self.id.system) else { return };
        let id = LedgerId(self.random());
        let data_id = self.own.data_id.take().unwrap_or_else(|| DataId(self.random()));
        self.store.ledger = Some(Ledger { system, id, data: data.identity(data_id), view, promised });
        self.announced.reason = Some(why.clone());
        self.announced.since = Some(self.now);
        self.set_failover_asked();
        self.write(Some(why.clone()));
        self.say(CoreMessage::View { from: None, to: view, why });
    }
}
