//! The operator: asks for things while faults continue, and after the healing does what only a human can do.

use crate::note;
use crate::world::*;
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::types::*;

/// What the operator knows and is about to do.
#[derive(Default)]
pub struct Operator {
    asked: u64,
    /// Requests without an answer: number, whom, which process, until when.
    open: Vec<(u64, usize, u32, u64)>,
    /// Servers that told that they need a rebuild, or do not start.
    needs_rebuild: [bool; 2],
    left_down: [bool; 2],
    /// A rebuild is on the way: the controller is being ended, then the copy is made.
    rebuilding: [bool; 2],
    /// It is made by hand, without the controller.
    by_hand: bool,
    /// When one was asked for, and the request.
    rebuild_asked: [u64; 2],
    restarting: [bool; 2],
    restored: [bool; 2],
    /// One was put back in this run.
    ever_restored: bool,
    beyond_help: bool,
    enabled_at: u64,
    adopted_at: u64,
}

/// What an operator may ask of a rebuild.
pub fn random_order(rng: &mut crate::rng::Rng) -> RebuildOrder {
    let method = rng.pick(&[Method::Auto, Method::Auto, Method::Rewind, Method::BaseBackup]);
    RebuildOrder { method, old_data: rng.pick(&[OldData::Keep, OldData::Keep, OldData::Delete]) }
}

impl Operator {
    /// A controller says something.
    pub fn told(&mut self, m: usize, say: &CoreMessage) {
        if m < 2 && matches!(say, CoreMessage::LeftDown | CoreMessage::WillNotStart(_)) {
            self.left_down[m] = true;
        }
        let loser = matches!(say, CoreMessage::Split { stopped: true, .. });
        let needs = matches!(
            say,
            CoreMessage::RebuildNeeded
                | CoreMessage::Inactivated { .. }
                | CoreMessage::NotEligible(_)
                | CoreMessage::NotContained { .. }
        );
        if m < 2 && (loser || needs) {
            self.needs_rebuild[m] = true;
        }
    }

    /// A data directory was put back.
    pub fn restored(&mut self, s: usize) {
        self.restored[s] = true;
        self.ever_restored = true;
    }

    /// Whether a data directory was put back in this run.
    pub fn was_ever_restored(&self) -> bool {
        self.ever_restored
    }

    /// Its controller has made the data directory the other server's copy.
    pub fn rebuilt(&mut self, s: usize) {
        self.restored[s] = false;
        self.needs_rebuild[s] = false;
    }

    /// Whether rebuilds are made by hand in this run.
    pub fn works_by_hand(&mut self, by_hand: bool) {
        self.by_hand = by_hand;
    }

    /// Whether the data directory was put back, and not rebuilt since.
    pub fn was_restored(&self, s: usize) -> bool {
        self.restored[s]
    }

    /// Nobody else starts what is being rebuilt.
    pub fn is_rebuilding(&self, m: usize) -> bool {
        m < 2 && self.rebuilding[m]
    }

    /// Only what risks acknowledged commits could help now.
    pub fn gave_up(&self) -> bool {
        self.beyond_help
    }
}

impl World {
    /// An operator's request.
    pub fn ask(&mut self, s: usize, request: Request) {
        self.op.asked += 1;
        let id = self.op.asked;
        if !self.runs(s) {
            return;
        }
        let limit_ms = self.rng.pick(&[5_000, 20_000, 60_000]);
        self.op.open.push((id, s, self.procs[s].epoch, self.t + limit_ms));
        self.feed(s, Event::Request { id, request, limit_ms });
    }

    /// A controller answers a request.
    pub fn replied(&mut self, m: usize, id: u64, _reply: Reply) {
        let before = self.op.open.len();
        self.op.open.retain(|(known, ..)| *known != id);
        if self.op.open.len() == before {
            self.violated(format!("contract: {} answers request {id}, which is not open", NAMES[m]));
        }
    }

    /// No command hangs: every request is answered within its limit, while the process lives.
    fn answered_in_time(&mut self) {
        let now = self.t;
        let gone: Vec<u64> =
            self.op.open.iter().filter(|(_, m, epoch, _)| !self.alive(*m, *epoch)).map(|(id, ..)| *id).collect();
        self.op.open.retain(|(id, ..)| !gone.contains(id));
        if let Some((id, m, ..)) = self.op.open.iter().find(|(.., until)| now > until + 30_000) {
            let text = format!("contract: {} does not answer request {id}", NAMES[*m]);
            self.violated(text);
        }
    }

    /// After the healing, once a second: start what was stopped, rebuild what needs it, enable what was disabled.
    pub fn operate(&mut self) {
        self.after(1000, Ev::Operator);
        self.answered_in_time();
        for m in 0..3 {
            let known = (m < 2 || self.arbiter) && !self.is_missing(m);
            let idle = !self.runs(m) && known && (m == ARBITER || !self.op.rebuilding[m]);
            if idle {
                let by = StartedBy::Operator { instance: true, failover: None };
                self.start_process(m, by);
            }
        }
        if self.t > self.op.enabled_at + 20_000 {
            self.op.enabled_at = self.t;
            for s in [0, 1] {
                if !self.is_missing(s) && self.procs[s].disk.is_some_and(|d| !d.notes.failover.enabled) {
                    self.ask(s, Request::Failover(true));
                }
            }
        }
        for s in [0, 1] {
            if !self.is_missing(s) {
                self.look_after(s);
            }
        }
        self.adopt();
        self.beyond_help();
    }

    /// Where views were forced, neither server may be left that can serve: one of them is told to, with what it has.
    fn adopt(&mut self) {
        let known = |s: usize| self.procs[s].disk.is_some();
        let serves = [0, 1].into_iter().any(|s| self.hosts[s].run == Run::Primary && known(s));
        let serves = serves && !self.holds_what_the_primary_lacks();
        if !self.forced || serves || self.t < self.calm_since().max(self.op.adopted_at) + 40_000 {
            return;
        }
        self.op.adopted_at = self.t;
        let leads = |s: usize| self.view_of(s).is_some_and(|v| v.is_alone(Server::BOTH[s]));
        let runs = |s: usize| self.hosts[s].run == Run::Primary;
        let order = if (runs(1), leads(1)) > (runs(0), leads(0)) { [1, 0] } else { [0, 1] };
        // A directory whose rebuild has begun and not ended is refused.
        let whole = |s: usize| !self.hosts[s].dir.incomplete && !self.hosts[s].dir.missing;
        if let Some(s) = order.into_iter().find(|s| self.runs(*s) && !self.is_missing(*s) && whole(*s)) {
            self.ask(s, Request::AdoptData);
        }
    }

    fn view_of(&self, m: usize) -> Option<View> {
        self.procs[m].disk.map(|d| d.ledger.view)
    }

    fn look_after(&mut self, s: usize) {
        let p = 1 - s;
        // PROTOCOL R10: the other itself says that it runs as a primary under its own ledger.
        let other = Server::BOTH[p];
        let other_serves = self.hosts[p].run == Run::Primary
            && self.view_of(p).is_some_and(|v| v.is_alone(other))
            && !self.is_missing(p);
        if self.op.rebuilding[s] {
            if self.runs(s) {
                return;
            }
            self.op.rebuilding[s] = false;
            self.instance_dies(s);
            if other_serves {
                self.rebuild(s);
            }
            return;
        }
        let primary_view = self.view_of(s).is_none_or(|v| v.primary == other) || self.forced;
        let dead_end = self.hosts[s].run == Run::Down && !self.hosts[s].dir.standby_signal
            || self.hosts[s].run == Run::Standby && !self.wal.contains(self.hosts[p].dir.pos, self.hosts[s].dir.pos);
        let dead_end = dead_end
            || self.hosts[s].dir.incomplete
            || self.hosts[s].dir.missing
            || self.procs[s].disk.is_some_and(|disk| disk.notes.overwritten || disk.notes.lost_split)
            || self.hosts[s].run == Run::Down && self.op.needs_rebuild[s]
            || self.hosts[s].run == Run::Primary && self.procs[s].disk.is_none();
        if !self.op.by_hand {
            if other_serves && primary_view && dead_end && self.runs(s) {
                self.ask_for_rebuild(s);
            }
        } else if other_serves && primary_view && dead_end && self.t > self.calm_since() + 15_000 {
            note!(self, "-- the operator ends {} for a rebuild", NAMES[s]);
            self.op.rebuilding[s] = true;
            self.op.needs_rebuild[s] = false;
            self.end_process(s);
            self.procs[s].exited = true;
            return;
        }
        let detached = self.procs[p].disk.is_some_and(|d| d.notes.detached.is_some() && d.ledger.view.is_alone(other));
        let start = self.runs(s) && (self.op.left_down[s] || detached) && !self.op.restarting[s];
        let unwanted = self.runs(s) && self.procs[s].disk.is_some_and(|d| !d.notes.wanted);
        // `shutdown_detached_synchronous_standby` leaves it to the operator to bring the standby back.
        let kept_down = self.runs(s) && self.settings[s].stop_detached_standby && self.rng.chance(50);
        let there = !self.hosts[s].dir.missing && !self.hosts[s].dir.incomplete;
        let never_begun = self.runs(s) && self.procs[s].disk.is_none() && there && self.rng.chance(50);
        if never_begun {
            note!(self, "-- the operator starts {} anew, since the pair never began", NAMES[s]);
            self.end_process(s);
            self.start_process(s, StartedBy::Operator { instance: true, failover: Some(true) });
            return;
        }
        if (start || unwanted || kept_down) && self.hosts[s].run == Run::Down {
            self.op.left_down[s] = false;
            self.ask(s, Request::Start { failover: None });
        }
        // A restart would interrupt what the operator has asked for.
        if detached && there && self.rng.chance(100) {
            note!(self, "-- the operator restarts {}, which was detached", NAMES[s]);
            self.end_process(s);
            self.start_process(s, StartedBy::Operator { instance: true, failover: None });
        }
    }

    /// `mc_ctl rebuild`, where none continues, and where the server does not do it by itself.
    fn ask_for_rebuild(&mut self, s: usize) {
        let notes = self.procs[s].disk.map(|durable| durable.notes);
        let patience = if self.settings[s].rebuild_auto { 120_000 } else { 15_000 };
        let since = self.calm_since().max(self.op.rebuild_asked[s]);
        if self.t > since + patience && notes.is_none_or(|notes| notes.rebuild.is_none()) {
            self.check_by_itself(s);
            let again = self.op.rebuild_asked[s] > self.calm_since();
            self.op.rebuild_asked[s] = self.t;
            let order = random_order(&mut self.rng);
            let order = if again { RebuildOrder::default() } else { order };
            note!(self, "-- the operator asks {} for a rebuild: {order:?}", NAMES[s]);
            self.ask(s, Request::Rebuild(order));
        }
    }

    /// `rebuild_action = auto`: what has lost its role is rebuilt by itself, once for each view, but for the loser of a split.
    fn check_by_itself(&mut self, s: usize) {
        let Some(Durable { ledger, notes }) = self.procs[s].disk else { return };
        let lost = self.hosts[s].run == Run::Down && !self.hosts[s].dir.standby_signal && !self.hosts[s].dir.missing;
        let same = self.view_of(1 - s) == Some(ledger.view) && ledger.view.is_alone(Server::BOTH[1 - s]);
        let healed = self.healed.is_some_and(|at| self.t > at + 100_000);
        let tried = notes.rebuild_tried == Some(ledger.view.term) || !notes.wanted || notes.lost_split;
        if self.settings[s].rebuild_auto && lost && same && !tried && healed {
            self.violated(format!("I5: {} does not rebuild by itself what has lost its role", NAMES[s]));
        }
    }

    /// `pg_basebackup` from the other server.
    fn rebuild(&mut self, s: usize) {
        let p = 1 - s;
        note!(self, "-- {} is rebuilt", NAMES[s]);
        self.checkpoint_now(p);
        let source = self.hosts[p].dir.clone();
        let fingerprint = self.rng.next() | 1;
        let timeline = self.wal.timeline(source.pos);
        self.hosts[s].dir = Dir {
            fingerprint,
            standby_signal: true,
            backup_label: true,
            state: ControlState::InProduction,
            min_recovery: timeline,
            follows: true,
            names: if source.names == Names::Peer { Names::Other } else { source.names },
            exchanged: false,
            went_back: false,
            ..source
        };
        self.hosts[s].journal = Journal::None;
        self.op.restored[s] = false;
        self.start_process(s, StartedBy::Operator { instance: true, failover: None });
    }

    /// Whether commits that did not wait may exist only in a primary's former data directory: the present one is not started,
    /// and the standby, which may lack them, is not promoted. Which data is kept is an operator's choice (MCA01056).
    fn cannot_hand_over(&self, s: usize) -> bool {
        let me = Server::BOTH[s];
        self.procs[s].disk.is_some_and(|Durable { ledger, notes }| {
            let named = ledger.view.data[s] == Some(ledger.data.id);
            ledger.view.is_mirrored(me) && notes.unmirrored && !named && self.hosts[s].run != Run::Primary
        })
    }

    /// Whether only a step without a safety argument could help: the right lies, or may lie, with a data directory that
    /// was put back.
    fn beyond_help(&mut self) {
        let views = [self.view_of(0), self.view_of(1)];
        for s in [0, 1] {
            let may_hold = views[s].is_none_or(|v| v.primary.index() == s);
            let named = |v: &View| self.procs[1 - s].disk.is_some_and(|d| Some(d.ledger.data.id) == v.data[1 - s]);
            let other_can = views[s].is_some_and(|v| v.mode == Mode::Mirrored && named(&v)) && !self.op.restored[1 - s];
            if self.op.restored[s] && may_hold && !other_can && self.hosts[s].run != Run::Primary {
                let waited = self.t > self.calm_since() + 60_000;
                self.op.beyond_help |= waited;
            }
            // The ledger of the primary is lost: an operator decides by --adopt-data.
            let lost = self.procs[s].disk.is_none() && self.hosts[s].dir.mark.is_some();
            let primary = views[1 - s].is_some_and(|view| view.primary == Server::BOTH[s]);
            self.op.beyond_help |= lost && primary && self.t > self.calm_since() + 600_000;
            self.op.beyond_help |= self.cannot_hand_over(s) && self.t > self.calm_since() + 60_000;
        }
    }
}
