//! The invariants of PROTOCOL section 8, looked at after every step.

use crate::faults::Fault;
use crate::legal;
use crate::world::{ARBITER, Beat, Broken, NAMES, Run, World};
use mirroring_controller::fsm::event::{Event, Health, Message, Names, OnSilence, TICK_MS};
use mirroring_controller::fsm::facts::Standing;
use mirroring_controller::fsm::types::*;

/// How long a primary that knows of a newer view may continue: an order to the runner, a fast shutdown's time limit, ms.
const OUTVOTED: u64 = 5_000;
/// How long, past the two heartbeats in which each hears that the other hears it, two primaries may continue until one is told
/// to stop, ms; and where messages, ticks and answers are late.
const SPLIT: u64 = 1_000;
const SPLIT_AT_WORST: u64 = 5_000;
/// How long the two members that are healed first may take to serve, past the standby's wait for the primary, ms.
const TWO_SERVE: u64 = 150_000;
/// How long after the healing commits may take to be acknowledged again, ms.
const COMMITS_AGAIN: u64 = 150_000;
/// How long after the healing the pair may take to be mirrored again, ms.
const MIRRORED_AGAIN: u64 = 900_000;

impl World {
    fn view(&self, m: usize) -> Option<View> {
        self.procs[m].disk.map(|d| d.ledger.view)
    }

    /// Whether this server holds the right to run alone.
    pub fn holds(&self, s: usize) -> bool {
        let server = Server::BOTH[s];
        self.view(s).is_some_and(|v| v.is_alone(server))
    }

    /// I1 and I2, what PROTOCOL sections 5 and 6 say of a primary that is none any more, and what R10 says of a rebuild.
    pub fn check(&mut self) {
        for s in [0, 1] {
            if self.hosts[s].dir.incomplete && self.hosts[s].run != Run::Down {
                self.violated(format!("R10: {} runs from an incomplete data directory", NAMES[s]));
            }
        }
        if !self.forced {
            self.check_rights();
        }
        self.check_primaries();
    }

    fn check_rights(&mut self) {
        if self.holds(0) && self.holds(1) {
            let views = (self.view(0), self.view(1));
            self.violated(format!("I1: both hold the right to run alone: {views:?}"));
        }
        for s in [0, 1] {
            let host = &self.hosts[s];
            let has_all = self.wal.contains(host.dir.pos, self.acked) && !host.dir.torn && !host.dir.hollow;
            if has_all {
                continue;
            }
            if self.holds(s) && !host.dir.exchanged && !host.dir.went_back {
                self.violated(format!("I2: {} holds the right, and lacks acknowledged commits", NAMES[s]));
            } else if host.run == Run::Primary && host.effect == Names::Unset && !host.unnamed {
                self.violated(format!("I2: {} takes commits alone, and lacks acknowledged ones", NAMES[s]));
            }
        }
    }

    /// I3: a promotion begins, or ends.
    pub fn promotion_allowed(&mut self, s: usize) {
        if !self.view(s).is_some_and(|v| v.is_alone(Server::BOTH[s])) {
            let view = self.view(s);
            self.violated(format!("I3: {} is promoted while its ledger says {view:?}", NAMES[s]));
        }
    }

    /// I4: a ledger takes another's place.
    pub fn check_ledger(&mut self, m: usize, old: &Ledger, new: &Ledger) {
        if new.view.term < old.view.term || new.promised < old.promised || new.promised < new.view.term {
            self.violated(format!("I4: {}'s ledger goes back: {old:?} -> {new:?}", NAMES[m]));
        }
    }

    /// R6: a right that was given back leaves the names set in the file, whoever starts the instance next.
    fn hands_back(&self, m: usize, old: &Ledger, new: &View) -> bool {
        let me = Server::BOTH[m];
        let gives = old.view.is_alone(me) && new.is_alone(me.other()) && Some(old.data.id) == old.view.data[m];
        gives && !self.forced && !self.hosts[m].disk_failed && self.hosts[m].run == Run::Down
    }

    /// The view after a hand-back is durable.
    pub fn check_hand_back(&mut self, m: usize, old: &Ledger, new: &View) {
        if m != ARBITER && self.hands_back(m, old, new) {
            self.reach("hand-back".to_string());
            if self.hosts[m].dir.names == Names::Unset {
                self.violated(format!("R6: {} gives the right back, and its file has no names", NAMES[m]));
            }
        }
    }

    /// A ledger is ordered to be written: a change that the model check knows of, from the one ordered before.
    pub fn check_change(&mut self, m: usize, new: &Ledger) {
        let old = self.procs[m].ordered.replace(*new);
        if m != ARBITER && old.is_some_and(|old| old.view != new.view) {
            self.check_unmirrored(m, &new.view);
        }
        if self.broken != Broken::No {
            return;
        }
        let promised = |s: usize| {
            let process = &self.procs[s];
            let ever = process.past.iter().chain(&process.disk).map(|durable| durable.ledger.promised);
            ever.max().unwrap_or_default()
        };
        let half = match self.settings.get(m).map(|settings| settings.on_silence) {
            Some(OnSilence::Switch) => Some(Standing::Standby),
            Some(OnSilence::Disconnect) => Some(Standing::Primary),
            _ => None,
        };
        let others = legal::Others { views: &self.terms, promised: [promised(0), promised(1)], half };
        let found = match m {
            ARBITER => legal::arbiter(old.as_ref(), new, &others),
            _ => legal::server(Server::BOTH[m], old.as_ref(), new, &others),
        };
        if let Err(what) = found {
            self.violated(format!("{}: {what}: {old:?} -> {new:?}", NAMES[m]));
        }
    }

    /// A primary that has seen that commits did not wait leaves its view: it gives no right to a standby that lacks them.
    fn check_unmirrored(&mut self, p: usize, new: &View) {
        let s = 1 - p;
        let consents =
            new.is_alone(Server::BOTH[s]) && !self.forced && ![s, ARBITER].iter().any(|m| self.view(*m) == Some(*new));
        let host = &mut self.hosts[p];
        let (unmirrored, noticed) = (host.unmirrored.take(), std::mem::take(&mut host.noticed));
        let Some(unmirrored) = unmirrored.filter(|_| consents && noticed) else { return };
        let kept = self.wal.contains(self.hosts[p].dir.pos, unmirrored);
        if kept && !self.wal.contains(self.hosts[s].dir.pos, unmirrored) {
            self.violated(format!(
                "I2: {} hands over, and {} lacks commits that were acknowledged while the names were off",
                NAMES[p], NAMES[s]
            ));
        }
    }

    // ------------------------------------------------------------------------------------------- what must not continue

    /// Whether this server's controller could act now, and its instance would obey.
    fn can_act(&self, s: usize) -> bool {
        let (process, host) = (&self.procs[s], &self.hosts[s]);
        let answered = !process.answer_lost;
        self.runs(s) && answered && !process.paused && !host.frozen && !host.frozen_postmaster && !host.disk_failed
    }

    /// A primary stops as soon as it learns that another view took its role; and two that meet after forced views end the
    /// split (PROTOCOL sections 5 and 6).
    fn check_primaries(&mut self) {
        for s in [0, 1] {
            // A newer view, with the right for this server, may wait for its write.
            let another = |view: View| view.primary != Server::BOTH[s];
            let knows = self.procs[s].ordered.is_none_or(|ordered| another(ordered.view));
            let disk = self.procs[s].disk;
            let outvoted = self.hosts[s].run == Run::Primary
                && self.can_act(s)
                && disk.is_some_and(|d| knows && another(d.ledger.view) || d.notes.lost_split);
            let since = self.outvoted_since[s];
            self.outvoted_since[s] = outvoted.then(|| since.unwrap_or(self.t));
            match since {
                Some(since) if outvoted && self.t > since + OUTVOTED => {
                    self.violated(format!("section 5: {} runs as a primary, and knows that it is none", NAMES[s]));
                }
                Some(since) if !outvoted => {
                    self.reach(format!("old primary stopped within {:>4} ms", (self.t - since) / 500 * 500 + 500));
                }
                _ => {}
            }
        }
        let split = self.hosts.iter().all(|host| host.run == Run::Primary)
            && [0, 1].iter().all(|s| self.can_act(*s) && self.view(*s).is_some_and(|v| v.is_alone(Server::BOTH[*s])))
            && [(0, 1), (1, 0)].iter().all(|(from, to)| self.links[*from][*to].is_well() && self.known[*from][*to])
            && ![0, 1].iter().any(|s| self.procs[*s].stops());
        let since = self.split_since;
        // Messages that were sent before all was well may still be late.
        let late = if self.calm() && since.is_some_and(|at| at >= self.calm_since()) { SPLIT } else { SPLIT_AT_WORST };
        self.split_since = split.then(|| since.unwrap_or(self.t));
        match since {
            Some(since) if split && self.t > since + self.settings[0].heartbeat_interval_ms * 2 + late => {
                self.violated("section 6: both servers talk, and both continue as primaries".to_string());
            }
            Some(since) if !split => {
                let half_intervals = (self.t - since) * 2 / self.settings[0].heartbeat_interval_ms + 1;
                self.reach(format!("split ended within {half_intervals:>3} half intervals"));
            }
            _ => {}
        }
    }

    // -------------------------------------------------------------------------------------------------- R8, the arbiter

    /// A heartbeat reaches the arbiter, or its host while no arbiter runs there.
    pub fn note_beat(&mut self, event: &Event) {
        let Event::Heard(Member::Server(from), Message::Heartbeat(told)) = event else { return };
        if !self.machines[ARBITER].up {
            return;
        }
        let from = from.index();
        let beat = &mut self.beats[from];
        if beat.seq >> 20 == told.seq >> 20 && told.seq <= beat.seq {
            return;
        }
        let failed = told.instance == Health::Failed || !told.disk.is_empty();
        let ill = failed || told.take_over || told.ledger.is_none();
        *beat = Beat { at: self.t, seq: told.seq, epoch: self.procs[from].epoch, ill };
    }

    /// The arbiter gives the right away: not to the standby, while the primary is heard and well.
    pub fn check_grant(&mut self, new: &View) {
        let Some(old) = self.view(ARBITER) else { return };
        let p = old.primary.index();
        if new.primary == old.primary {
            return self.reach("arbiter: the primary may disconnect".to_string());
        }
        self.reach("arbiter: the standby may switch".to_string());
        let beat = self.beats[p];
        let settings = &self.settings[p];
        // What a pause that is too short to be noticed, and a clock that runs fast, may take off.
        let listened = (settings.heartbeat_detection_ms - settings.heartbeat_timeout_ms - TICK_MS) * 85 / 100;
        if !beat.ill && self.alive(p, beat.epoch) && self.t - beat.at < listened {
            let ago = self.t - beat.at;
            self.violated(format!("R8: the arbiter prefers the standby, {ago} ms after it could hear {}", NAMES[p]));
        }
    }

    // ------------------------------------------------------------------------------------------------------------- I5

    /// Whether the pair is mirrored, as both ledgers say and the instances are.
    pub fn mirrored(&self) -> bool {
        let Some(view) = self.view(0) else { return false };
        let (p, s) = (view.primary.index(), view.primary.other().index());
        let named = |m: usize| self.procs[m].disk.is_some_and(|disk| Some(disk.ledger.data.id) == view.data[m]);
        let arbiter = self.procs[ARBITER].disk.map(|disk| disk.ledger.id);
        self.view(1) == Some(view)
            && (!self.arbiter || self.view(ARBITER) == Some(view) && view.arbiter == arbiter)
            && named(0)
            && named(1)
            && view.mode == Mode::Mirrored
            && self.hosts[p].run == Run::Primary
            && self.hosts[p].effect == Names::Peer
            && self.hosts[s].run == Run::Standby
            && self.sessions[s].as_ref().is_some_and(|x| x.streaming && x.broken_until.is_none())
    }

    /// `isolated_restart = off`: what a primary showed that was started after a crash, while its controller had heard no other
    /// member, is part of the history that the pair ends with. Data that an operator put back loses more, and is not looked at.
    fn check_shown(&mut self) {
        let Some(primary) = [0, 1].into_iter().find(|s| self.hosts[*s].run == Run::Primary) else { return };
        let last = self.hosts[primary].dir.pos;
        let lost = self.shown.iter().find(|(_, shown)| !self.wal.contains(last, *shown)).copied();
        if let Some((s, shown)) = lost.filter(|_| !self.forced && !self.op.was_ever_restored()) {
            let (who, lsn) = (NAMES[s], Lsn(shown.lsn));
            self.violated(format!("reads: {who} was restarted unheard and showed rows up to {lsn}, and they are lost"));
        }
    }

    /// Whether nothing more is looked for; reports what did not come in time (I5).
    pub fn finished(&mut self) -> bool {
        let Some(healed) = self.healed else {
            self.two_serve();
            return false;
        };
        let acknowledged = self.acked_at > healed + 1000;
        if acknowledged && self.served_at.is_none() {
            self.served_at = Some(self.t);
            self.reach(format!("commits again after {:>3} s", (self.t - healed) / 10_000 * 10));
        }
        if acknowledged && self.t > healed + 1000 && self.t - self.acked_at < 1000 && self.mirrored() && self.all_told()
        {
            self.reach(format!("mirrored again after {:>3} s", (self.t - healed) / 20_000 * 20));
            self.check_shown();
            return true;
        }
        if self.op.gave_up() {
            self.reach("beyond help".to_string());
            return true;
        }
        if !acknowledged && self.t > healed + COMMITS_AGAIN {
            self.violated("I5: everything is healed, and no commit is acknowledged".to_string());
        }
        if self.t > healed + MIRRORED_AGAIN && self.mirrored() && !self.all_told() {
            self.violated("hooks: post_switch_command was never called to its end".to_string());
        }
        if self.t > healed + MIRRORED_AGAIN {
            self.violated("I5: everything is healed, and the pair does not become mirrored".to_string());
        }
        false
    }

    /// Whether every new primary has told so, as far as a command for that is configured.
    fn all_told(&self) -> bool {
        self.untold == [None; 2]
    }

    /// The standby of a mirrored view, with a data directory that the view does not name, is no prefix of the primary.
    pub fn holds_what_the_primary_lacks(&self) -> bool {
        let views = [0, 1].map(|s| self.view(s));
        let Some(view) = views[0].filter(|view| views[1] == Some(*view) && view.mode == Mode::Mirrored) else {
            return false;
        };
        let (p, s) = (view.primary.index(), view.primary.other().index());
        let named = self.procs[s].disk.is_some_and(|disk| Some(disk.ledger.data.id) == view.data[s]);
        !named && !self.wal.contains(self.hosts[p].dir.pos, self.hosts[s].dir.pos)
    }

    /// Two members talk, and the third is gone: they serve, unless the right lies, or may lie, with who is gone.
    fn two_serve(&mut self) {
        let Some(two) = self.two else { return };
        let gone = self.t - two.since;
        let serves = self.acked_at > two.since + 1000;
        let limit = TWO_SERVE + self.settings[0].startup_wait_ms;
        if !serves && gone <= limit {
            return;
        }
        let who = if two.missing == ARBITER { "the two servers" } else { "a server and the arbiter" };
        match self.two_cannot_serve(two.missing) {
            _ if serves => self.reach(format!("{who} serve after {:>3} s", gone / 5_000 * 5)),
            Some(why) => self.reach(format!("{who} cannot serve: {why}")),
            None => self.violated(format!(
                "I5: {who} talk, and no commit is acknowledged while {} is gone",
                NAMES[two.missing]
            )),
        }
        if self.violation.is_none() {
            self.fault(Fault::Heal);
        }
    }

    /// Why the right is neither with the two that are left nor theirs to take, if so.
    fn two_cannot_serve(&self, missing: usize) -> Option<&'static str> {
        if missing == ARBITER {
            let contested = self.forced && self.holds_what_the_primary_lacks();
            let contested =
                contested.then_some("the standby's exchanged data holds WAL that the primary lacks (MCA01054)");
            return contested.or(self.op.gave_up().then_some("only what risks commits could help"));
        }
        let s = 1 - missing;
        let (me, gone) = (Server::BOTH[s], Server::BOTH[missing]);
        let Some(disk) = self.procs[s].disk else { return Some("it has no ledger yet") };
        let (view, notes) = (disk.ledger.view, disk.notes);
        if self.forced || self.op.was_restored(s) {
            return Some("views were forced, or its data was put back");
        }
        if view.is_alone(gone) {
            return Some("the right lies with who is gone");
        }
        if view.data[s] != Some(disk.ledger.data.id) {
            return Some("it is not eligible");
        }
        if notes.unmirrored || self.procs[ARBITER].disk.is_some_and(|disk| disk.notes.unmirrored) {
            return Some("commits may not have waited for it");
        }
        if !notes.wanted || !notes.failover.enabled || notes.detached.is_some() {
            return Some("an operator stopped it, or switched failover off");
        }
        if view.is_alone(me) {
            return None;
        }
        if self.settings[s].on_silence != OnSilence::Arbitration {
            return Some("it does not ask the arbiter");
        }
        if self.hosts[s].dir.standby_signal != (view.primary == gone) {
            return Some("its data directory does not fit its role");
        }
        let arbiter = self.procs[ARBITER].disk.map(|disk| disk.ledger);
        if arbiter.is_none_or(|known| Some(known.id) != view.arbiter) {
            return Some("its view names another arbiter");
        }
        if self.view(missing).is_some_and(|v| v.is_alone(gone) && v.term > view.term) {
            return Some("the right lies with who is gone, and nobody else knows");
        }
        None
    }
}
