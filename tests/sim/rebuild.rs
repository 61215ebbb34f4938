//! The rebuild, as the runner does it: planned, guarded, then followed, rewound or copied, each step a place at which
//! everything can end. A guarded directory is started by nobody; one that is half overwritten only a base backup heals.

use crate::faults::Fault;
use crate::note;
use crate::world::*;
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::types::*;

/// How a data directory becomes the other server's copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// It has not diverged: it is only told whom to follow.
    Follow,
    /// `pg_rewind`.
    Rewind,
    /// `pg_basebackup`.
    BaseBackup,
}

/// For how long a core may believe what was true of the other server, ms.
const KNOWN: u64 = 10_000;
/// How late the latest message comes before all is healed, ms.
const LATEST: u64 = 41_000;

// The steps after planning.
const GUARD: u8 = 1;
const CHECKPOINT: u8 = 2;
const BEGIN: u8 = 3;
const COPY: u8 = 4;
const ASIDE: u8 = 5;
const SWAP: u8 = 6;
const END: u8 = 7;

impl World {
    // ------------------------------------------------------------------------------------------------- what is checked

    /// When each server ran as a primary last, and when it held the right last: its controller notices a death late.
    pub fn note_leaders(&mut self) {
        for s in [0, 1] {
            let shuts_down = matches!(self.hosts[s].run, Run::Stopping(_)) && !self.hosts[s].dir.standby_signal;
            if self.hosts[s].run == Run::Primary || shuts_down {
                self.ran_at[s] = self.t;
            }
            if self.holds(s) {
                self.held_at[s] = self.t;
            }
            if self.procs[s].paused || self.hosts[s].frozen {
                self.paused_at[s] = self.t;
            }
        }
    }

    /// PROTOCOL R10: a rebuild is only begun while the other server itself says that it runs as a primary with the right; and
    /// nobody is ever told to start what is incomplete.
    pub fn check_order(&mut self, s: usize, job: &Job) {
        let p = 1 - s;
        match job {
            Job::Start { .. } if self.hosts[s].dir.incomplete => {
                self.violated(format!("R10: {} is to start an incomplete data directory", NAMES[s]));
            }
            Job::Rebuild(what) => {
                let address = format!("{}:5432", NAMES[p]);
                if what.source != address || what.names != NAMES[p] || what.system != SystemId(7) {
                    self.violated(format!("contract: {} orders {what:?}", NAMES[s]));
                }
                let late = if self.calm() && self.t > self.calm_since() + LATEST { KNOWN } else { LATEST };
                let known = [self.ran_at[p], self.held_at[p]].iter().all(|at| *at != 0 && self.t <= at + late);
                let paused = [0, 1].into_iter().any(|m| self.t < self.paused_at[m] + KNOWN);
                // What has become of its instance is not known where the answer of a job is lost.
                if !paused && !self.procs[p].answer_lost && !known {
                    self.violated(format!(
                        "R10: {} is rebuilt, and {} is no primary with the right",
                        NAMES[s], NAMES[p]
                    ));
                }
                self.check_source(s);
                if !self.calm() && self.rng.chance(300) {
                    let ms = self.rng.range(0, 8_000);
                    self.after(ms, Ev::Fault(Fault::PlainStart(s)));
                }
            }
            _ => {}
        }
    }

    /// Nobody takes the right away from the source, so that both go by the same view from the order to the end; or the source
    /// had just proven the directory as it was called before, and may have lost it again. And the copy that is given up is not
    /// the last one.
    fn check_source(&mut self, s: usize) {
        let p = 1 - s;
        let ledger = |m: usize| self.procs[m].disk.map(|durable| durable.ledger);
        let (Some(own), Some(theirs), false) = (ledger(s), ledger(p), self.forced) else { return };
        let proven = theirs.view.is_mirrored(Server::BOTH[p]) && theirs.view.data[s] != Some(own.data.id);
        let other = Server::BOTH[p];
        let still =
            own.view.is_alone(other) && own.view.term < theirs.view.term && theirs.view.data[s] != Some(own.data.id);
        if !proven && (!self.holds(p) || own.view != theirs.view && !still) {
            let views = (own.view, theirs.view);
            self.violated(format!("R10: {} is rebuilt from {}, and the views are {views:?}", NAMES[s], NAMES[p]));
        }
        if !self.wal.contains(self.hosts[p].dir.pos, self.acked)
            && !self.hosts[p].dir.exchanged
            && !self.hosts[p].dir.went_back
        {
            self.violated(format!("R10: {} is rebuilt from {}, which lacks what was acknowledged", NAMES[s], NAMES[p]));
        }
    }

    // --------------------------------------------------------------------------------------------------------- the job

    fn source_answers(&self, s: usize) -> bool {
        let host = &self.hosts[1 - s];
        let cut = self.log_cut[0] || self.log_cut[1] || !self.machines[1 - s].up;
        host.run == Run::Primary && !host.frozen && !host.frozen_postmaster && !cut
    }

    /// Does the next step of a rebuild.
    pub fn rebuild_steps(&mut self, s: usize, stage: u8, what: &Rebuild) {
        if self.hosts[s].disk_failed {
            return self.rebuild_fails(s, "could not write file: Input/output error");
        }
        if stage > 0 {
            self.jinx_rebuild(s);
        }
        let way = self.procs[s].job.as_ref().and_then(|running| running.way);
        match (stage, way) {
            (0, _) => self.plan_rebuild(s, what),
            (GUARD, Some(way)) => self.guard(s, way),
            (CHECKPOINT, _) if self.source_left(s) => self.rebuild_fails(s, "the source has ended"),
            (CHECKPOINT, _) if !self.source_answers(s) || self.hosts[1 - s].stuck_checkpointer => {
                self.wait_for_source(s, CHECKPOINT);
            }
            (CHECKPOINT, _) => {
                self.checkpoint_now(1 - s);
                self.go_on(s, BEGIN, 50, 500);
            }
            (BEGIN, Some(way)) => self.begin_copy(s, way, what),
            (COPY, _) if self.source_left(s) => self.rebuild_fails(s, "server closed the connection unexpectedly"),
            (COPY, _) if !self.source_answers(s) => self.wait_for_source(s, COPY),
            (COPY, Some(way)) => self.copy(s, way, what),
            (ASIDE, _) => {
                self.hosts[s].dir.missing = true;
                self.go_on(s, SWAP, 10, 300);
            }
            (SWAP, _) => {
                if let Some(staged) = self.hosts[s].staged.take() {
                    self.hosts[s].dir = staged;
                }
                self.go_on(s, END, 30, 300);
            }
            _ => self.end_rebuild(s, what),
        }
    }

    /// A step of a rebuild is met by a fault.
    fn jinx_rebuild(&mut self, s: usize) {
        if self.jinx == 0 || self.calm() || !self.rng.chance(self.jinx / 2) {
            return;
        }
        let ms = self.rng.range(200, 8_000);
        let fault = match self.rng.range(0, 9) {
            0..4 => Fault::KillController(s),
            4 | 5 => Fault::Crash(s, self.rng.chance(500), ms),
            6 => Fault::KillInstance(1 - s),
            7 => Fault::Crash(1 - s, self.rng.chance(500), ms),
            8 => Fault::Ask(s, Request::Stop { instance: true, all: false }),
            _ => Fault::PlainStart(s),
        };
        let ms = self.rng.range(0, 300);
        self.after(ms, Ev::Fault(fault));
    }

    fn plan_rebuild(&mut self, s: usize, what: &Rebuild) {
        let host = &mut self.hosts[s];
        if host.run != Run::Down {
            return self.fail_job(s, "another server might be running");
        }
        if !host.dir.incomplete && !host.dir.missing {
            host.journal = Journal::None;
        }
        if host.journal == Journal::Swapping && host.staged.is_some() {
            let stage = if host.dir.missing { SWAP } else { ASIDE };
            return self.go_on(s, stage, 10, 300);
        }
        host.staged = None;
        let source = &self.hosts[1 - s];
        if !self.source_answers(s) || source.full {
            return self.rebuild_fails(s, "could not connect to the other server's instance");
        }
        let life = source.life;
        let Some(way) = self.way(s, what.order.method) else {
            return self.rebuild_fails(s, "pg_rewind cannot be used");
        };
        if !self.calm() && self.rng.chance(30) {
            return self.rebuild_fails(s, "not enough room");
        }
        self.reach(format!("rebuild: {way:?}"));
        if let Some(running) = &mut self.procs[s].job {
            running.way = Some(way);
            running.mark = u64::from(life);
        }
        self.go_on(s, GUARD, 50, 1_000);
    }

    /// What could be done, and of that what is: by the world's truth, and by chance where both would do.
    fn way(&mut self, s: usize, method: Method) -> Option<Way> {
        let (own, source) = (&self.hosts[s].dir, &self.hosts[1 - s].dir);
        let whole =
            !own.torn && !own.missing && !own.incomplete || self.hosts[s].journal == Journal::Copying && !own.torn;
        let older = self.wal.own_timeline(own.pos) < self.wal.own_timeline(source.pos);
        let was_standby = own.standby_signal || own.state == ControlState::ShutDownInRecovery;
        let follows = whole && self.wal.contains(source.pos, own.pos) && (older || was_standby);
        let rewinds = whole && older && self.rng.chance(800);
        match method {
            Method::BaseBackup => Some(Way::BaseBackup),
            _ if follows && self.rng.chance(800) => Some(Way::Follow),
            _ if rewinds => Some(Way::Rewind),
            Method::Auto => Some(Way::BaseBackup),
            Method::Rewind => None,
        }
    }

    /// Nothing can be started from it from here on.
    fn guard(&mut self, s: usize, way: Way) {
        let host = &mut self.hosts[s];
        if host.run != Run::Down {
            return self.fail_job(s, "the instance was started meanwhile");
        }
        host.dir.incomplete = true;
        host.journal = Journal::Copying;
        note!(self, "{}'s data directory is guarded for a rebuild ({way:?})", NAMES[s]);
        self.go_on(s, if way == Way::Follow { END } else { CHECKPOINT }, 30, 500);
    }

    fn begin_copy(&mut self, s: usize, way: Way, what: &Rebuild) {
        let delete = way == Way::BaseBackup && what.order.old_data == OldData::Delete;
        let ms = match way {
            Way::BaseBackup => self.time(8_000, 60_000),
            _ => self.time(2_000, 10_000),
        };
        let until = self.t + ms;
        let host = &mut self.hosts[s];
        host.dir.torn |= delete || way == Way::Rewind;
        if way == Way::Rewind {
            host.journal = Journal::Rewinding;
        }
        if let Some(running) = &mut self.procs[s].job {
            running.deadline = until;
        }
        self.go_on(s, COPY, 100, 500);
    }

    fn copy(&mut self, s: usize, way: Way, what: &Rebuild) {
        let early = self.broken == Broken::EarlyRebuild;
        let until = self.procs[s].job.as_ref().map_or(0, |running| running.deadline);
        if self.t < until && !early {
            let left = until - self.t;
            return self.go_on(s, COPY, left.min(500), 1_000);
        }
        self.check_source(s);
        let mut copy = self.copied(s, what);
        copy.hollow = early;
        let host = &mut self.hosts[s];
        if way == Way::Rewind {
            // In place, and so the same file; nobody else can tell it from a whole one until the guard is gone.
            copy.fingerprint = host.dir.fingerprint;
            copy.torn = true;
            copy.state = ControlState::InArchiveRecovery;
            copy.min_recovery = self.wal.timeline(copy.pos);
            host.dir = copy;
            self.go_on(s, END, 50, 500);
        } else {
            host.staged = Some(copy);
            host.journal = Journal::Swapping;
            let next = if host.dir.missing { SWAP } else { ASIDE };
            self.go_on(s, next, 30, 500);
        }
    }

    /// The source as it is now, made a standby's, and guarded.
    fn copied(&mut self, s: usize, what: &Rebuild) -> Dir {
        let fingerprint = self.rng.next() | 1;
        let names = self.names_of(s, &what.names);
        Dir {
            fingerprint,
            standby_signal: true,
            backup_label: true,
            state: ControlState::InProduction,
            min_recovery: 0,
            follows: true,
            names,
            line: NAMES[1 - s],
            exchanged: false,
            went_back: false,
            incomplete: true,
            torn: false,
            missing: false,
            ..self.hosts[1 - s].dir.clone()
        }
    }

    fn end_rebuild(&mut self, s: usize, what: &Rebuild) {
        let names = self.names_of(s, &what.names);
        let host = &mut self.hosts[s];
        host.dir.standby_signal = true;
        host.dir.follows = true;
        host.dir.names = names;
        host.dir.incomplete = false;
        host.dir.torn = false;
        host.journal = Journal::None;
        note!(self, "{} is rebuilt, {}", NAMES[s], Lsn(self.hosts[s].dir.pos.lsn));
        self.op.rebuilt(s);
        let data = self.data_dir(s);
        self.finish(s, Outcome::Rebuilt { data, address: format!("{}:5432", NAMES[s]) });
    }

    /// The postmaster from which it is copied has come to its end.
    fn source_left(&self, s: usize) -> bool {
        let life = self.procs[s].job.as_ref().map_or(0, |running| running.mark);
        u64::from(self.hosts[1 - s].life) != life || self.hosts[1 - s].run != Run::Primary
    }

    /// Nothing comes from the source: for some time that is waited out.
    fn wait_for_source(&mut self, s: usize, stage: u8) {
        if self.rng.chance(50) {
            self.rebuild_fails(s, "no answer from the other server's instance");
        } else {
            self.go_on(s, stage, 500, 1_000);
        }
    }

    fn rebuild_fails(&mut self, s: usize, why: &str) {
        self.undo_rebuild(s);
        self.reach("rebuild: failed".to_string());
        self.fail_job(s, why);
    }

    /// What was only guarded is as it was before.
    fn undo_rebuild(&mut self, s: usize) {
        let host = &mut self.hosts[s];
        if host.journal == Journal::Copying && !host.dir.torn && !host.disk_failed {
            host.dir.incomplete = false;
            host.journal = Journal::None;
        }
    }

    // ---------------------------------------------------------------------------------------------------- its other ends

    /// A job that was under way is cancelled.
    pub fn cancel_rebuild(&mut self, s: usize, running: &crate::jobs::Running) {
        if matches!(running.job, Job::Rebuild(_)) && running.stage > 0 {
            note!(self, "{}'s rebuild is cancelled", NAMES[s]);
            self.undo_rebuild(s);
        }
    }

    /// `Job::Abandon`.
    pub fn abandon_rebuild(&mut self, s: usize) {
        self.undo_rebuild(s);
        match self.readable(s) {
            Some(data) => self.finish(s, Outcome::Data(data)),
            None => self.fail_job(s, "could not open file \"global/pg_control\""),
        }
    }

    /// `pg_ctl start`, by an rc script or by an operator, with no regard to the controller. Whoever has put another directory
    /// in its place starts it at his own peril (PROTOCOL section 2: only the controller starts the instance), as does whoever
    /// starts a primary before there is a pair.
    pub fn plain_start(&mut self, s: usize) {
        let host = &self.hosts[s];
        if self.procs[s].disk.is_none() && !host.dir.standby_signal
            || self.op.was_restored(s)
            || host.dir.exchanged
            || self.op.is_rebuilding(s)
            || host.run != Run::Down
        {
            return;
        }
        if host.dir.incomplete || host.dir.missing {
            self.reach("plain start: refused by the guard".to_string());
            return;
        }
        self.make_start(s, false, true);
        let what = if self.hosts[s].dir.standby_signal { "a standby" } else { "a primary" };
        self.reach(format!("plain start: {what}"));
    }
}
