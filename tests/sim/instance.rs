//! The model of PostgreSQL: starting, stopping, promoting; commits that wait for the standby; a checkpointer that takes
//! the setting up late; a walreceiver that streams what is flushed and says how far it has come.

use crate::note;
use crate::wal::Pos;
use crate::world::{Broken, Ev, NAMES, Run, Session, World};
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::types::*;

/// `wal_sender_timeout` and `wal_receiver_timeout`, ms.
const WAL_TIMEOUT: u64 = 60_000;

impl World {
    // --------------------------------------------------------------------------------------------- starting and ending

    /// `pg_ctl start`, once it gets that far; `by_hand`: behind the controller's back.
    pub fn make_start(&mut self, s: usize, follow: bool, by_hand: bool) {
        let epoch = self.id();
        let ms = self.time(150, 3000) + 10;
        let up = self.machines[s].up;
        let host = &mut self.hosts[s];
        host.cold = Some(host.dir.clone());
        let startable = !host.dir.incomplete && !host.dir.missing && !host.disk_failed;
        if host.run != Run::Down || !up || !startable {
            return;
        }
        if follow {
            host.dir.standby_signal = true;
            host.dir.follows = true;
        }
        host.restarted_unheard = host.unheard && !by_hand;
        host.run = Run::Starting;
        host.epoch = epoch;
        host.life = epoch;
        host.loaded = host.dir.names;
        host.effect = host.dir.names;
        host.unnamed &= host.effect == Names::Unset;
        host.last_commit = 0;
        host.released = 0;
        host.dir.backup_label = false;
        note!(self, "{}'s instance starts", NAMES[s]);
        self.after(ms, Ev::Instance { s, epoch });
    }

    /// The next stage of starting, stopping or promoting is reached.
    pub fn instance_step(&mut self, s: usize, epoch: u32) {
        if self.hosts[s].epoch != epoch || !self.machines[s].up {
            return;
        }
        if self.hosts[s].frozen {
            self.after(100, Ev::Instance { s, epoch });
            return;
        }
        match self.hosts[s].run {
            Run::Starting if self.hosts[s].dir.standby_signal => {
                let timeline = self.wal.timeline(self.hosts[s].dir.pos);
                let host = &mut self.hosts[s];
                host.run = Run::Standby;
                host.dir.state = ControlState::InArchiveRecovery;
                host.dir.min_recovery = timeline;
                note!(self, "{}'s instance is a standby", NAMES[s]);
            }
            Run::Starting => {
                let timeline = self.wal.timeline(self.hosts[s].dir.pos);
                self.become_primary(s, timeline);
            }
            Run::Promoting => {
                let timeline = self.wal.timeline(self.hosts[s].dir.pos) + 1;
                self.promotion_allowed(s);
                self.become_primary(s, timeline);
            }
            Run::Stopping(false) => self.shutdown_checkpoint(s),
            Run::Stopping(true) => {
                let lsn = self.hosts[s].dir.pos.lsn;
                let waits =
                    self.sessions[1 - s].as_ref().is_some_and(|x| x.life == self.hosts[s].life && x.flushed < lsn);
                if waits {
                    self.after(10, Ev::Instance { s, epoch });
                } else {
                    self.instance_dies(s);
                }
            }
            Run::Down | Run::Primary | Run::Standby => {}
        }
    }

    fn become_primary(&mut self, s: usize, timeline: u32) {
        let promoted = self.hosts[s].dir.standby_signal;
        self.show_recovered(s);
        let mut pos = self.wal.fork(self.hosts[s].dir.pos, timeline);
        if promoted {
            // The end-of-recovery record; the checkpoint comes later.
            pos.lsn += 48;
        } else {
            self.hosts[s].dir.checkpoint = (self.wal.checkpoint(&mut pos), timeline);
        }
        let host = &mut self.hosts[s];
        host.dir.pos = pos;
        host.dir.min_recovery = if promoted { timeline } else { 0 };
        host.dir.standby_signal = false;
        host.dir.state = ControlState::InProduction;
        host.run = Run::Primary;
        host.last_commit = 0;
        host.released = 0;
        note!(
            self,
            "{}'s instance is a primary, timeline {timeline}, {}, names {:?}",
            NAMES[s],
            Lsn(pos.lsn),
            host.effect
        );
    }

    /// Crash recovery is over. Clients read all that was written, also rows whose commits still waited for the standby.
    fn show_recovered(&mut self, s: usize) {
        if std::mem::take(&mut self.hosts[s].restarted_unheard) {
            note!(self, "{} shows clients what it has recovered", NAMES[s]);
            self.reach("reads: restarted unheard".to_string());
            self.shown.push((s, self.hosts[s].dir.pos));
        }
    }

    /// A fast shutdown is asked for.
    pub fn fast_shutdown(&mut self, s: usize) {
        if matches!(self.hosts[s].run, Run::Down | Run::Stopping(_)) || self.hosts[s].frozen_postmaster {
            return;
        }
        if self.hosts[s].run == Run::Standby {
            self.close_session(s);
        }
        let epoch = self.id();
        let ms = self.time(150, 1500) + 5;
        let host = &mut self.hosts[s];
        let early = matches!(host.run, Run::Starting | Run::Promoting);
        host.epoch = epoch;
        host.released = host.last_commit;
        if early {
            // A shutdown in the middle of recovery leaves what a crash leaves.
            self.after(ms, Ev::Fault(crate::faults::Fault::InstanceEnds(s, epoch)));
        } else {
            self.after(ms, Ev::Instance { s, epoch });
        }
        self.hosts[s].run = Run::Stopping(false);
        note!(self, "{}'s instance shuts down", NAMES[s]);
    }

    fn shutdown_checkpoint(&mut self, s: usize) {
        let epoch = self.hosts[s].epoch;
        if self.hosts[s].dir.standby_signal {
            let checkpoint = self.wal.last_checkpoint(self.hosts[s].dir.pos);
            let dir = &mut self.hosts[s].dir;
            dir.checkpoint = checkpoint.max(dir.checkpoint);
            dir.state = ControlState::ShutDownInRecovery;
            self.instance_dies(s);
            return;
        }
        let mut pos = self.hosts[s].dir.pos;
        let at = self.wal.checkpoint(&mut pos);
        let timeline = self.wal.own_timeline(pos);
        let host = &mut self.hosts[s];
        host.dir.pos = pos;
        host.dir.checkpoint = (at, timeline);
        host.dir.min_recovery = 0;
        host.dir.state = ControlState::ShutDown;
        host.run = Run::Stopping(true);
        note!(self, "{}'s shutdown checkpoint is {}", NAMES[s], Lsn(pos.lsn));
        self.after(5, Ev::Instance { s, epoch });
    }

    /// No process of the instance is left.
    pub fn instance_dies(&mut self, s: usize) {
        if self.hosts[s].run == Run::Down {
            return;
        }
        let torn = self.hosts[s].run == Run::Promoting && self.rng.chance(200);
        let host = &mut self.hosts[s];
        host.unheard = host.dir.state == ControlState::InProduction;
        host.dir.standby_signal &= !torn;
        host.run = Run::Down;
        host.epoch = 0;
        host.life = 0;
        host.frozen = false;
        host.frozen_postmaster = false;
        host.frozen_receiver = false;
        note!(self, "{}'s instance is down", NAMES[s]);
        self.close_session(s);
        self.close_session(1 - s);
        let epoch = self.procs[s].epoch;
        let ms = match self.rng.range(0, if self.calm() { 79 } else { 99 }) {
            0..80 => Some(self.rng.range(0, 20)),
            80..95 => Some(self.rng.range(20, 1500)),
            _ => None,
        };
        if let Some(ms) = ms {
            self.after(ms, Ev::Local { m: s, epoch, event: Event::Died { signal: None } });
        }
    }

    /// `pg_promote` is asked for.
    pub fn promote(&mut self, s: usize) {
        if self.hosts[s].run != Run::Standby {
            return;
        }
        self.promotion_allowed(s);
        self.close_session(s);
        let epoch = self.id();
        let ms = self.time(200, 5000) + 50;
        self.hosts[s].run = Run::Promoting;
        self.hosts[s].epoch = epoch;
        note!(self, "{}'s instance is being promoted at {}", NAMES[s], Lsn(self.hosts[s].dir.pos.lsn));
        self.after(ms, Ev::Instance { s, epoch });
    }

    /// The postmaster survives, its backends do not: crash recovery.
    pub fn backend_crash(&mut self, s: usize) {
        if self.hosts[s].run != Run::Primary {
            return;
        }
        note!(self, "{}'s instance goes through crash recovery", NAMES[s]);
        let epoch = self.id();
        let ms = self.time(500, 4000) + 50;
        let host = &mut self.hosts[s];
        host.run = Run::Starting;
        host.epoch = epoch;
        // Also the checkpointer is a new process: it applies what is loaded.
        host.effect = host.loaded;
        self.close_session(1 - s);
        self.after(ms, Ev::Instance { s, epoch });
    }

    // ----------------------------------------------------------------------------------------------------- the setting

    /// Writes the setting to the file, and has it read.
    pub fn write_names(&mut self, s: usize, names: Names, reload: bool) {
        self.hosts[s].dir.names = names;
        note!(self, "{}: names in the file: {names:?}", NAMES[s]);
        let epoch = self.hosts[s].life;
        if reload && self.hosts[s].run != Run::Down {
            let ms = self.time(10, 300);
            self.after(ms, Ev::Reload { s, epoch });
        }
    }

    /// A DBA takes the names off a mirrored primary.
    pub fn names_by_hand(&mut self, s: usize) {
        let mirrored = self.procs[s].disk.is_some_and(|disk| disk.ledger.view.is_mirrored(Server::BOTH[s]));
        if mirrored && self.hosts[s].run == Run::Primary && self.hosts[s].effect == Names::Peer {
            self.hosts[s].unnamed = true;
            self.write_names(s, Names::Unset, true);
        }
    }

    pub fn reload(&mut self, s: usize, epoch: u32) {
        let host = &mut self.hosts[s];
        if host.life != epoch {
            return;
        }
        if host.frozen || host.frozen_postmaster {
            self.after(100, Ev::Reload { s, epoch });
            return;
        }
        host.loaded = host.dir.names;
        let ms = self.time(20, 500);
        self.after(ms, Ev::Effect { s, epoch });
    }

    pub fn effect(&mut self, s: usize, epoch: u32) {
        let host = &self.hosts[s];
        if host.life != epoch {
            return;
        }
        if host.frozen || host.stuck_checkpointer {
            self.after(100, Ev::Effect { s, epoch });
            return;
        }
        self.take_effect(s);
    }

    /// The checkpointer is at the top of its loop.
    pub fn take_effect(&mut self, s: usize) {
        let host = &mut self.hosts[s];
        if host.effect == host.loaded {
            return;
        }
        host.effect = host.loaded;
        let (effect, last) = (host.effect, host.last_commit);
        note!(self, "{}: names in effect: {effect:?}", NAMES[s]);
        self.hosts[s].unnamed &= effect == Names::Unset;
        if effect == Names::Unset && self.hosts[s].run == Run::Primary && last > self.hosts[s].released {
            self.hosts[s].released = last;
            self.acknowledge(s, last);
        }
    }

    /// A checkpoint (on a standby: a restartpoint) is done.
    pub fn checkpoint_now(&mut self, s: usize) {
        let mut pos = self.hosts[s].dir.pos;
        if self.hosts[s].run == Run::Primary {
            let at = self.wal.checkpoint(&mut pos);
            let timeline = self.wal.own_timeline(pos);
            let dir = &mut self.hosts[s].dir;
            dir.pos = pos;
            dir.checkpoint = (at, timeline);
            dir.min_recovery = 0;
        } else {
            let checkpoint = self.wal.last_checkpoint(pos);
            let dir = &mut self.hosts[s].dir;
            dir.checkpoint = checkpoint.max(dir.checkpoint);
        }
    }

    // --------------------------------------------------------------------------------------------------------- commits

    /// A client commits on this server, if it takes writes.
    pub fn commit(&mut self, s: usize) {
        let gap = self.commit_gap;
        let ms = self.rng.range(1, 2 * gap);
        self.after(ms, Ev::Commit { s });
        let host = &mut self.hosts[s];
        if host.run != Run::Primary || host.frozen || host.disk_failed {
            return;
        }
        host.dir.pos.lsn += 64;
        host.last_commit = host.dir.pos.lsn;
        let lsn = host.last_commit;
        if host.effect == Names::Unset || self.broken == Broken::AcksEarly {
            host.released = lsn;
            self.acknowledge(s, lsn);
        }
    }

    /// The clients of this server are told that everything up to here is committed.
    fn acknowledge(&mut self, s: usize, lsn: u64) {
        let pos = Pos { branch: self.hosts[s].dir.pos.branch, lsn };
        self.acks += 1;
        self.acked_at = self.t;
        if self.hosts[s].unnamed && self.hosts[s].effect == Names::Unset && !self.holds(s) {
            self.reach("acknowledged while a DBA had taken the names off".to_string());
            self.hosts[s].unmirrored = Some(pos);
            return;
        }
        if self.wal.contains(pos, self.acked) {
            self.acked = pos;
        } else if self.wal.contains(self.acked, pos) {
            // Word of what the other server holds too, and serves from, came late.
            self.reach("acknowledged late".to_string());
        } else if !self.forced && !self.hosts[s].dir.exchanged {
            self.violated(format!(
                "I2: {} acknowledges {} on a history that lacks {} acknowledged before",
                NAMES[s],
                Lsn(lsn),
                Lsn(self.acked.lsn)
            ));
        } else {
            self.acked = pos;
        }
    }

    // ----------------------------------------------------------------------------------------------------- replication

    /// The connection of the walreceiver of this server ends.
    pub fn close_session(&mut self, s: usize) {
        let Some(session) = &mut self.sessions[s] else { return };
        let silent = |m: usize| !self.machines[m].answers();
        let unseen = self.log_cut[0] || self.log_cut[1] || silent(0) || silent(1);
        if unseen && (self.hosts[1 - s].run == Run::Primary || self.hosts[s].run == Run::Standby) {
            // Nothing tells the other end: it thinks itself connected until its time limit.
            if session.broken_until.is_none() {
                session.broken_until = Some(self.t + self.rng.range(2_000, 60_000));
            }
            return;
        }
        self.sessions[s] = None;
        note!(self, "{}'s walreceiver is disconnected", NAMES[s]);
    }

    /// A walreceiver tries to connect; again later.
    pub fn connect(&mut self, s: usize) {
        let ms = self.time(300, 5000) + 20;
        self.after(ms, Ev::Connect { s });
        let p = 1 - s;
        if let Some(session) = &self.sessions[s] {
            match session.broken_until {
                Some(until) if self.t >= until || self.hosts[s].run == Run::Standby => self.sessions[s] = None,
                _ => return,
            }
        }
        let (standby, primary) = (&self.hosts[s], &self.hosts[p]);
        let can = standby.run == Run::Standby
            && standby.dir.follows
            && !standby.frozen
            && !standby.frozen_receiver
            && primary.run == Run::Primary
            && !primary.frozen
            && !primary.frozen_postmaster
            && !self.log_cut[0]
            && !self.log_cut[1];
        if !can || !self.history_allows(s) {
            return;
        }
        let (flushed, life) = (self.hosts[s].dir.pos.lsn, self.hosts[p].life);
        let id = self.id();
        let catchup_until = self.t + self.time(100, 3000);
        self.sessions[s] = Some(Session {
            id,
            life,
            flushed,
            replies: 1,
            streaming: false,
            catchup_until,
            cut_since: None,
            broken_until: None,
        });
        note!(self, "{}'s walreceiver connects at {}", NAMES[s], Lsn(flushed));
        self.after(2, Ev::Wal { s, session: id, lsn: flushed });
    }

    /// PostgreSQL compares timelines and nothing else: a WAL receiver that is ahead on the same timeline begins with the segment,
    /// overwrites its own, and what it had replayed stays. Such a standby contains nothing for sure.
    fn history_allows(&mut self, s: usize) -> bool {
        let (standby, primary) = (self.hosts[s].dir.pos, self.hosts[1 - s].dir.pos);
        if self.wal.contains(primary, standby) {
            return true;
        }
        let same = self.wal.timeline(standby) == self.wal.own_timeline(primary);
        if same {
            self.hosts[s].dir.hollow = true;
            self.hosts[s].dir.pos = self.wal.at(primary, primary.lsn);
            self.reach("a standby follows what does not contain it".to_string());
            note!(self, "{} overwrites its own WAL", NAMES[s]);
        }
        same
    }

    /// Log sent by the primary arrives at the standby, is flushed, and answered.
    pub fn wal_arrives(&mut self, s: usize, session: u32, lsn: u64) {
        let p = 1 - s;
        let Some(now) = &self.sessions[s] else { return };
        if now.id != session {
            return;
        }
        if let Some(until) = now.broken_until {
            if self.t >= until {
                self.sessions[s] = None;
                note!(self, "{}'s walreceiver is disconnected (time limit)", NAMES[s]);
            } else {
                self.after(200, Ev::Wal { s, session, lsn });
            }
            return;
        }
        if self.log_cut[0] || self.log_cut[1] {
            let t = self.t;
            let since = self.sessions[s].as_mut().map_or(t, |session| *session.cut_since.get_or_insert(t));
            if t > since + WAL_TIMEOUT {
                self.sessions[s] = None;
                note!(self, "{}'s walreceiver is disconnected (nothing came through)", NAMES[s]);
                return;
            }
        } else if let Some(session) = &mut self.sessions[s] {
            session.cut_since = None;
        }
        let held = self.hosts[s].frozen || self.hosts[s].frozen_receiver || self.hosts[s].disk_failed;
        if self.log_cut[p] || held || self.hosts[p].frozen {
            self.after(50, Ev::Wal { s, session, lsn });
            return;
        }
        if self.hosts[s].run != Run::Standby || !matches!(self.hosts[p].run, Run::Primary | Run::Stopping(_)) {
            self.sessions[s] = None;
            return;
        }
        let tip = self.hosts[p].dir.pos;
        if !self.wal.contains(tip, self.hosts[s].dir.pos) {
            self.sessions[s] = None;
            return;
        }
        let lsn = lsn.max(self.hosts[s].dir.pos.lsn);
        let at = self.wal.at(tip, lsn);
        let timeline = self.wal.timeline(at);
        let host = &mut self.hosts[s];
        host.dir.pos = at;
        host.dir.min_recovery = timeline;
        host.contacts += 1;
        if self.wal.contains(at, self.acked) {
            self.hosts[s].dir.exchanged = false;
            self.hosts[s].dir.went_back = false;
        }
        let caught_up = self.sessions[s].as_ref().is_some_and(|x| !x.streaming && self.t >= x.catchup_until);
        if caught_up && let Some(x) = &mut self.sessions[s] {
            x.streaming = true;
            note!(self, "{}'s walreceiver streams", NAMES[s]);
        }
        let slow = if self.links[p][s].slow > 0 { 200 } else { 8 };
        let (ms, back) = (self.time(slow, 150) + 1, self.time(slow, 150) + 1);
        let epoch = self.hosts[p].life;
        self.after(back, Ev::WalReply { primary: p, epoch, s, lsn });
        // What is sent is what is flushed at the primary when it is sent.
        let gap = self.rng.range(5, 60);
        self.after(ms.max(gap), Ev::Wal { s, session, lsn: tip.lsn });
    }

    /// The standby's word arrives: commits that waited for it are acknowledged.
    pub fn wal_reply(&mut self, p: usize, epoch: u32, s: usize, lsn: u64) {
        if self.hosts[p].life != epoch || self.log_cut[s] {
            return;
        }
        if self.hosts[p].frozen {
            self.after(50, Ev::WalReply { primary: p, epoch, s, lsn });
            return;
        }
        if let Some(session) = &mut self.sessions[s]
            && session.life == epoch
        {
            session.flushed = session.flushed.max(lsn);
            session.replies += 1;
        }
        let host = &mut self.hosts[p];
        let upto = lsn.min(host.last_commit);
        if host.run == Run::Primary && host.effect == Names::Peer && upto > host.released {
            host.released = upto;
            self.acknowledge(p, upto);
        }
    }

    /// The row of the standby in the primary's `pg_stat_replication`.
    pub fn standby_row(&self, p: usize) -> Option<StandbyRow> {
        let session = self.sessions[1 - p].as_ref().filter(|session| session.life == self.hosts[p].life)?;
        let sync = session.streaming && self.hosts[p].loaded == Names::Peer;
        let flushed = Lsn(session.flushed);
        Some(StandbyRow { streaming: session.streaming, sync, flushed, reply: session.replies })
    }
}
