//! The runner: the jobs that a core orders, done on the model of PostgreSQL with the steps of the real one, each of them
//! a place at which everything can end.

use crate::note;
use crate::rng::Rng;
use crate::world::{Ev, NAMES, Run, World};
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::types::*;

/// A job under way.
pub struct Running {
    pub id: JobId,
    pub job: Job,
    pub key: u32,
    pub stage: u8,
    pub deadline: u64,
    /// Position read in the proof, the time at which a fast shutdown becomes an immediate one, or the source's postmaster.
    pub mark: u64,
    /// How a rebuild goes, once that is known.
    pub way: Option<crate::rebuild::Way>,
    before: Option<DataDir>,
}

/// The job in a word.
pub fn name(job: &Job) -> &'static str {
    match job {
        Job::Inspect => "Inspect",
        Job::CompareWal(_) => "Compare WAL",
        Job::Mark(_) => "Mark",
        Job::Start { names: None, .. } => "Start alone",
        Job::Start { follow: Some(_), .. } => "Start as the other's standby",
        Job::Start { .. } => "Start with names",
        Job::Stop { fast_ms: 0, .. } => "Stop at once",
        Job::Stop { .. } => "Stop fast",
        Job::NamesOn(_) => "NamesOn",
        Job::NamesOff => "NamesOff",
        Job::Promote => "Promote",
        Job::Prove(_) => "Prove",
        Job::Checkpoint => "Checkpoint",
        Job::Rebuild(_) => "Rebuild",
        Job::Abandon => "Abandon",
    }
}

impl World {
    /// What can be read of a server's data directory.
    pub fn readable(&self, s: usize) -> Option<DataDir> {
        (!self.hosts[s].disk_failed && !self.hosts[s].dir.missing).then(|| self.data_dir(s))
    }

    /// What lies in a server's data directory.
    pub fn data_dir(&self, s: usize) -> DataDir {
        let host = &self.hosts[s];
        let dir = &host.dir;
        DataDir {
            system: SystemId(7),
            fingerprint: dir.fingerprint,
            inode_print: 0,
            checkpoint: Lsn(dir.checkpoint.0),
            checkpoint_timeline: Timeline(dir.checkpoint.1),
            min_recovery_timeline: Timeline(dir.min_recovery),
            state: if matches!(host.run, Run::Starting) { ControlState::Other } else { dir.state },
            standby_signal: dir.standby_signal,
            backup_label: dir.backup_label,
            mark: dir.mark,
            incomplete: dir.incomplete,
            unnamed: dir.names == Names::Unset,
            running: host.run != Run::Down,
        }
    }

    /// Which setting it is to set this name.
    pub fn names_of(&mut self, s: usize, name: &str) -> Names {
        self.hosts[s].dir.line = NAMES.into_iter().find(|known| *known == name).unwrap_or(NAMES[2]);
        if name == NAMES[1 - s] { Names::Peer } else { Names::Other }
    }

    /// Begins a job, as `Action::Run` orders it.
    pub fn start_job(&mut self, s: usize, id: JobId, job: Job) {
        if let Some(old) = self.procs[s].job.take() {
            if !matches!(job, Job::Stop { .. }) {
                self.violated(format!("contract: {} orders {job:?} while {:?} is out", NAMES[s], old.job));
                return;
            }
            self.cancel_rebuild(s, &old);
            self.tell(s, old.id, Outcome::Failed("cancelled".to_string()), 0);
        } else if self.procs[s].answer_lost
            && let Some((last, outcome)) = self.procs[s].answered.clone()
        {
            self.tell(s, last, outcome, 0);
        }
        self.procs[s].answer_lost = false;
        self.check_order(s, &job);
        let key = self.id();
        let limit = match &job {
            Job::Stop { fast_ms, .. } => fast_ms + 20_000,
            _ => self.rng.range(5_000, 30_000),
        };
        let deadline = self.t + limit;
        self.procs[s].job = Some(Running { id, job, key, stage: 0, deadline, mark: 0, way: None, before: None });
        let ms = self.time(10, 1000);
        self.after(ms, Ev::Job { s, key });
    }

    /// `Action::Nudge`: what can be cancelled is, and the answer comes (again).
    pub fn nudge(&mut self, s: usize, id: JobId) {
        if let Some(running) = &self.procs[s].job
            && running.id == id
        {
            if matches!(running.job, Job::Stop { .. }) {
                return;
            }
            let fail = matches!(running.job, Job::Prove(_));
            if let Some(running) = self.procs[s].job.take() {
                self.cancel_rebuild(s, &running);
            }
            if fail {
                self.write_names(s, Names::Unset, true);
            }
            self.answer_of(s, id, Outcome::Failed("cancelled by a nudge".to_string()), fail);
        } else if let Some((last, outcome)) = self.procs[s].answered.clone()
            && last == id
        {
            self.answer(s, id, outcome);
        }
    }

    /// The controller is gone while a job was out: what is a single step of the system's is done or not.
    pub fn abandon_job(&mut self, s: usize) {
        let Some(running) = self.procs[s].job.take() else { return };
        if !self.machines[s].up || self.rng.chance(500) {
            return;
        }
        match (&running.job, running.stage) {
            (Job::Start { names, follow }, 0) => {
                let (names, follow) = (names.clone(), follow.is_some());
                let names = names.map_or(Names::Unset, |n| self.names_of(s, &n));
                self.hosts[s].dir.names = names;
                if self.rng.chance(500) {
                    self.make_start(s, follow, false);
                }
            }
            (Job::Stop { names, .. }, 0) => {
                if let Some(name) = names.clone() {
                    self.hosts[s].dir.names = self.names_of(s, &name);
                }
                self.fast_shutdown(s);
            }
            (Job::NamesOn(name), 0) | (Job::Prove(name), 0) => {
                let names = self.names_of(s, &name.clone());
                let reload = self.rng.chance(500);
                self.write_names(s, names, reload);
            }
            (Job::NamesOff, 0) => {
                let reload = self.rng.chance(500);
                self.write_names(s, Names::Unset, reload);
            }
            (Job::Promote, 0) => self.promote(s),
            _ => {}
        }
    }

    /// Sends the answer of a job: soon, late, or not until a nudge.
    fn answer(&mut self, s: usize, id: JobId, outcome: Outcome) {
        self.answer_of(s, id, outcome, false);
    }

    /// That of a rebuild or of a proof, which have no limit, need not be asked for again, and so is never lost.
    fn answer_of(&mut self, s: usize, id: JobId, outcome: Outcome, nudged_never: bool) {
        let again = self.procs[s].answered.as_ref().is_some_and(|(last, _)| *last == id);
        self.procs[s].answered = Some((id, outcome.clone()));
        self.procs[s].answer_lost = !again && !nudged_never && !self.calm() && self.rng.chance(10);
        if self.procs[s].answer_lost {
            note!(self, "{}: the answer of job {} is lost", NAMES[s], id.0);
            return;
        }
        let late = if !self.calm() && self.rng.chance(50) { self.rng.range(1, 1000) } else { 0 };
        self.tell(s, id, outcome, late);
    }

    /// Answers come in order.
    fn tell(&mut self, s: usize, id: JobId, outcome: Outcome, late: u64) {
        let at = (self.t + late).max(self.procs[s].answer_at);
        self.procs[s].answer_at = at;
        let epoch = self.procs[s].epoch;
        self.after(at - self.t, Ev::Local { m: s, epoch, event: Event::Done(id, outcome) });
    }

    pub fn finish(&mut self, s: usize, outcome: Outcome) {
        if let Some(running) = self.procs[s].job.take() {
            self.answer_of(s, running.id, outcome, matches!(running.job, Job::Rebuild(_) | Job::Prove(_)));
        }
    }

    pub fn fail_job(&mut self, s: usize, why: &str) {
        self.finish(s, Outcome::Failed(why.to_string()));
    }

    /// Goes to the next stage after about so long.
    pub fn go_on(&mut self, s: usize, stage: u8, usual: u64, rare: u64) {
        let ms = self.time(usual, rare) + 1;
        if let Some(running) = &mut self.procs[s].job {
            running.stage = stage;
            let key = running.key;
            self.after(ms, Ev::Job { s, key });
        }
    }

    /// Does the next step of the job under way.
    pub fn job_step(&mut self, s: usize, key: u32) {
        let Some(running) = &self.procs[s].job else { return };
        if running.key != key {
            return;
        }
        if self.procs[s].paused {
            self.after(100, Ev::Job { s, key });
            return;
        }
        let (job, stage, late, mark) = (running.job.clone(), running.stage, self.t >= running.deadline, running.mark);
        match job {
            Job::Inspect => match self.readable(s).filter(|_| !self.is_torn(s)) {
                Some(data) => self.finish(s, Outcome::Data(data)),
                None => self.fail_job(s, "could not open file \"global/pg_control\""),
            },
            Job::CompareWal(asked) => {
                if self.readable(s).is_none() || self.rng.chance(5) {
                    return self.fail_job(s, "could not read the WAL: Input/output error");
                }
                let pos = self.hosts[s].dir.pos;
                let tells = asked.find_end && !self.hides_wal() && self.rng.chance(950);
                let end = tells.then(|| self.wal.point(pos, pos.lsn));
                let (own, peer) = (self.contains(s, asked.own), self.contains(s, asked.peer));
                self.finish(s, Outcome::Wal(WalFound { own, peer, end }));
            }
            Job::Mark(id) => {
                if self.readable(s).is_none() {
                    return self.fail_job(s, "could not write the mark: Input/output error");
                }
                self.hosts[s].dir.mark = Some(id);
                let data = self.data_dir(s);
                self.finish(s, Outcome::Data(data));
            }
            Job::Start { names, follow } => self.start_steps(s, stage, late, names, follow.is_some()),
            Job::Stop { fast_ms, names } => self.stop_steps(s, stage, mark, fast_ms, names),
            Job::NamesOn(name) => {
                let names = self.names_of(s, &name);
                self.names_steps(s, stage, late, names);
            }
            Job::NamesOff => self.names_steps(s, stage, late, Names::Unset),
            Job::Promote => self.promote_steps(s, stage, late),
            Job::Prove(name) => self.prove_steps(s, stage, late, mark, &name),
            Job::Checkpoint => self.checkpoint_steps(s, late),
            Job::Rebuild(what) => self.rebuild_steps(s, stage, &what),
            Job::Abandon => self.abandon_rebuild(s),
        }
    }

    /// Whether `pg_control` is torn wherever it is read, for a while: of one period of 20 s in eight. No number is drawn for it.
    fn is_torn(&self, s: usize) -> bool {
        let period = self.t / 20_000 * 2 + s as u64;
        !self.calm() && Rng::new(self.seed ^ period << 48).chance(125)
    }

    fn start_steps(&mut self, s: usize, stage: u8, late: bool, names: Option<String>, follow: bool) {
        match stage {
            0 => {
                if self.readable(s).is_none() {
                    return self.fail_job(s, "could not write postgresql.conf");
                }
                self.hosts[s].dir.names = names.map_or(Names::Unset, |n| self.names_of(s, &n));
                self.go_on(s, 1, 10, 300);
            }
            1 => {
                if self.hosts[s].run != Run::Down {
                    return self.fail_job(s, "another server might be running");
                }
                if self.rng.chance(20) {
                    return self.fail_job(s, "could not start server");
                }
                let before = self.data_dir(s);
                self.make_start(s, follow, false);
                if let Some(running) = &mut self.procs[s].job {
                    running.before = Some(DataDir { standby_signal: before.standby_signal || follow, ..before });
                }
                self.go_on(s, 2, 60, 1500);
            }
            _ => {
                let before = self.procs[s].job.as_ref().and_then(|r| r.before);
                if self.hosts[s].run == Run::Down || late {
                    self.fail_job(s, "could not start server");
                } else if let Some(before) = before {
                    self.finish(s, Outcome::Started(before));
                }
            }
        }
    }

    fn stop_steps(&mut self, s: usize, stage: u8, mark: u64, fast_ms: u64, names: Option<String>) {
        match stage {
            0 => {
                if fast_ms > 0 {
                    self.fast_shutdown(s);
                }
                if let Some(running) = &mut self.procs[s].job {
                    running.mark = self.t + fast_ms;
                }
                self.go_on(s, 1, 10, 40);
            }
            1 => {
                if self.hosts[s].run == Run::Down {
                    self.finish_stop(s, names);
                } else if self.t >= mark {
                    self.go_on(s, 2, 40, 1000);
                } else {
                    self.go_on(s, 1, 20, 50);
                }
            }
            _ => {
                if self.hosts[s].disk_failed && self.rng.chance(300) {
                    return self.fail_job(s, "process 4711 does not end (state D)");
                }
                self.instance_dies(s);
                self.finish_stop(s, names);
            }
        }
    }

    /// The instance is down, so the names are written and the directory is read.
    fn finish_stop(&mut self, s: usize, names: Option<String>) {
        let unnamed = names.is_some() && self.hosts[s].dir.names == Names::Unset;
        let data = self.readable(s).map(|data| DataDir { unnamed: data.unnamed || unnamed, ..data });
        if let Some(name) = names
            && data.is_some()
        {
            self.hosts[s].dir.names = self.names_of(s, &name);
        }
        self.finish(s, Outcome::Stopped(data));
    }

    fn names_steps(&mut self, s: usize, stage: u8, late: bool, names: Names) {
        if stage == 0 {
            if self.hosts[s].disk_failed || self.rng.chance(5) {
                return self.fail_job(s, "could not write postgresql.conf: Input/output error");
            }
            self.write_names(s, names, true);
            return self.go_on(s, 1, 30, 300);
        }
        let host = &self.hosts[s];
        let answers = !host.frozen && !host.frozen_postmaster && matches!(host.run, Run::Primary | Run::Standby);
        let shown = answers && host.loaded == names;
        let free = names != Names::Unset || host.run == Run::Standby || host.released >= host.last_commit;
        if shown && free && (names != Names::Unset || host.run == Run::Standby || host.effect == Names::Unset) {
            self.finish(s, Outcome::Applied);
        } else if late || host.run == Run::Down {
            self.fail_job(s, "synchronous_standby_names did not take effect");
        } else {
            self.go_on(s, 1, 20, 60);
        }
    }

    fn promote_steps(&mut self, s: usize, stage: u8, late: bool) {
        if stage == 0 {
            if self.hosts[s].run != Run::Standby || self.hosts[s].frozen_postmaster || self.rng.chance(5) {
                return self.fail_job(s, "server is not in standby mode");
            }
            self.promote(s);
            return self.go_on(s, 1, 30, 100);
        }
        match self.hosts[s].run {
            Run::Primary => {
                let timeline = Timeline(self.wal.own_timeline(self.hosts[s].dir.pos));
                self.finish(s, Outcome::Promoted(timeline));
            }
            Run::Promoting | Run::Standby if !late => self.go_on(s, 1, 20, 60),
            _ => self.fail_job(s, "server did not promote in time"),
        }
    }

    fn prove_steps(&mut self, s: usize, stage: u8, late: bool, mark: u64, name: &str) {
        if self.broken == crate::world::Broken::LyingProof && stage == 1 {
            let tip = self.hosts[s].dir.pos.lsn;
            return self.finish(s, Outcome::Proved(Lsn(tip)));
        }
        let names = self.names_of(s, name);
        let host = &self.hosts[s];
        let serves = host.run == Run::Primary && !host.frozen && !host.frozen_postmaster;
        let row = self.standby_row(s);
        let gave_up = late || host.run != Run::Primary || (stage == 0 && !row.is_some_and(|r| r.streaming));
        if gave_up || self.rng.chance(10) {
            if stage > 0 && !self.hosts[s].disk_failed {
                self.write_names(s, Names::Unset, true);
            }
            return self.fail_job(s, "the standby did not become synchronous");
        }
        match stage {
            0 => {
                if self.hosts[s].disk_failed {
                    return self.fail_job(s, "could not write postgresql.conf: Input/output error");
                }
                self.write_names(s, names, true);
                self.go_on(s, 1, 30, 300);
            }
            1 => {
                let shown = serves && self.hosts[s].loaded == names;
                self.go_on(s, if shown { 2 } else { 1 }, 30, 500);
            }
            2 | 3 => {
                if serves && !self.hosts[s].stuck_checkpointer {
                    // The first one may have slipped in just below the top of the checkpointer's loop.
                    if stage == 3 || self.rng.chance(500) {
                        self.take_effect(s);
                    }
                    self.checkpoint_now(s);
                    self.go_on(s, stage + 1, 30, 1500);
                } else {
                    self.go_on(s, stage, 100, 200);
                }
            }
            4 => {
                let tip = self.hosts[s].dir.pos.lsn;
                if let Some(running) = &mut self.procs[s].job {
                    running.mark = tip;
                }
                self.go_on(s, 5, 20, 60);
            }
            _ => match row {
                Some(row) if serves && row.streaming && row.sync && row.flushed.0 >= mark => {
                    self.finish(s, Outcome::Proved(Lsn(mark)));
                }
                _ => self.go_on(s, 5, 20, 60),
            },
        }
    }

    fn checkpoint_steps(&mut self, s: usize, late: bool) {
        let host = &self.hosts[s];
        let serves = matches!(host.run, Run::Primary | Run::Standby) && !host.frozen && !host.frozen_postmaster;
        if late || host.run == Run::Down {
            self.fail_job(s, "CHECKPOINT did not return");
        } else if serves && !host.stuck_checkpointer {
            if host.run == Run::Primary {
                self.take_effect(s);
            }
            self.checkpoint_now(s);
            self.finish(s, Outcome::Applied);
        } else {
            self.go_on(s, 0, 100, 300);
        }
    }
}
