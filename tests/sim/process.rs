//! Controller processes: their cores are stepped here, what these order is handed on, and their ledgers are written.

use crate::note;
use crate::world::*;
use mirroring_controller::fsm::arbiter::{Arbiter, ArbiterSettings};
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::node::Node;
use mirroring_controller::fsm::reason::{Source, Who};
use mirroring_controller::fsm::types::*;

/// Why the arbiter's view changes where it has given a right away; what it was told is another reason.
const GRANT: Source = Source::Requested(Who::ThatServer);

impl World {
    pub fn tick(&mut self, m: usize, epoch: u32) {
        if !self.alive(m, epoch) {
            return;
        }
        if self.procs[m].paused {
            self.procs[m].ticking = false;
            return;
        }
        let late = if self.rng.chance(5) { self.rng.range(0, 300) } else { 0 };
        let gap = TICK_MS * 1000 / self.procs[m].clock.permille.max(1);
        self.after(gap.clamp(1, TICK_MS) + late, Ev::Tick { m, epoch });
        self.feed(m, Event::Tick);
    }

    /// Gives an event to a process, if it runs, and performs what it orders.
    pub fn feed(&mut self, m: usize, event: Event) {
        if self.procs[m].paused {
            if self.procs[m].held.len() < 200 || matches!(event, Event::Request { .. }) {
                self.procs[m].held.push(event);
            }
            return;
        }
        if m == ARBITER {
            self.note_beat(&event);
        } else if matches!(event, Event::Heard(..)) && self.runs(m) {
            self.hosts[m].unheard = false;
        }
        if !self.runs(m) {
            return;
        }
        self.trace_event(m, &event);
        if let Event::Done(_, Outcome::Stopped(Some(data))) = &event {
            self.hosts[m].noticed |= data.unnamed;
        }
        let now = self.procs[m].clock.now(self.t);
        let actions = match &mut self.procs[m].core {
            Core::None => return,
            Core::Node(node) => node.step(now, event),
            Core::Arbiter(arbiter) => arbiter.step(now, event),
        };
        let epoch = self.procs[m].epoch;
        for action in actions {
            // An `Exit`, or a violation of the contract, ends it.
            if self.procs[m].epoch == epoch {
                self.act(m, action);
            }
        }
    }

    fn act(&mut self, m: usize, action: Action) {
        self.trace_action(m, &action);
        self.fingerprint_action(m, &action);
        self.jinx(m, &action);
        let epoch = self.procs[m].epoch;
        match action {
            Action::Send(to, message) => self.send(m, to.index(), message),
            Action::Store(n, durable, why) => {
                self.procs[m].orders_unmirrored = durable.notes.unmirrored;
                if let Some(why) = &why {
                    let alone = if durable.ledger.view.mode == Mode::Degraded { "alone" } else { "mirrored" };
                    let consents = ["the arbiter consented", "the other server consented"];
                    let whole = why.to_string();
                    let short = consents.into_iter().find(|consent| whole.ends_with(consent)).unwrap_or(&whole);
                    self.reach(format!("view: {alone}: {short}"));
                }
                if m == ARBITER && why.is_some_and(|why| why.source() == GRANT) {
                    self.check_grant(&durable.ledger.view);
                }
                self.check_change(m, &durable.ledger);
                self.procs[m].writes.push_back((n, *durable));
                if self.answers_early(m) {
                    let event = Event::Stored(n);
                    self.after(0, Ev::Local { m, epoch, event });
                }
                if !self.procs[m].writing {
                    self.write_next(m);
                }
            }
            Action::Run(id, job) => {
                self.reach(format!("job: {}", crate::jobs::name(&job)));
                self.start_job(m, id, job);
            }
            Action::Call(id, command) => self.call(m, id, *command),
            Action::CallOff(id) => self.call_off(m, id),
            Action::Nudge(id) => self.nudge(m, id),
            Action::WatchPeer(on) => {
                let was = self.procs[m].watch;
                self.procs[m].watch = on;
                if on && !was {
                    self.after(10, Ev::ProbePeer { m, epoch });
                }
            }
            Action::Look => self.look(m),
            Action::CompareWal(point) => self.compare_wal(m, point),
            // A kill may come before it is written.
            Action::NoteHighWater(note) if self.rng.chance(900) => self.procs[m].high_water = Some(note),
            Action::NoteHighWater(_) => {}
            Action::Reply(id, reply) => self.replied(m, id, reply),
            Action::Log(say) => {
                let text = format!("{say:?}");
                self.reach(format!("say: {}", text.split([' ', '(']).next().unwrap_or_default()));
                if matches!(say, CoreMessage::NamesChanged) {
                    self.hosts[m].noticed = true;
                }
                self.op.told(m, &say);
            }
            Action::Exit => {
                self.end_process(m);
                self.procs[m].exited = true;
                let ms = self.rng.range(500, 30_000);
                let instance = self.rng.chance(850);
                let failover = self.rng.pick(&[None, Some(true)]);
                self.after(ms, Ev::StartProcess { m, by: StartedBy::Operator { instance, failover } });
            }
        }
    }

    pub fn reach(&mut self, what: String) {
        *self.reached.entry(what).or_default() += 1;
    }

    /// Starts a process, if it does not run and its host is up.
    pub fn start_process(&mut self, m: usize, by: StartedBy) {
        if self.runs(m)
            || !self.machines[m].up
            || self.op.is_rebuilding(m)
            || (by == StartedBy::Watcher && self.procs[m].exited)
        {
            return;
        }
        // Until there is a ledger, it is still the operator's start that founds the pair.
        let by = match by {
            // `mc_ctl start` refuses to start what is not there; `mc_ctl rebuild` starts the controller alone.
            StartedBy::Operator { failover, .. } if m != ARBITER && self.hosts[m].dir.missing => {
                StartedBy::Operator { instance: false, failover }
            }
            StartedBy::Watcher if m != ARBITER && self.procs[m].disk.is_none() && self.data_dir(m).mark.is_none() => {
                StartedBy::Operator { instance: true, failover: Some(true) }
            }
            by => by,
        };
        if self.broken == Broken::ForgetsUnmirrored
            && let Some(disk) = self.procs[m].disk.as_mut()
        {
            disk.notes.unmirrored = false;
        }
        let epoch = self.id();
        let seed = self.rng.next();
        self.known[m] = [!self.names_down[m]; 3];
        let process = &mut self.procs[m];
        process.epoch = epoch;
        process.writing = false;
        process.writes.clear();
        process.ordered = process.disk.map(|durable| durable.ledger);
        process.exited = false;
        process.watch = false;
        process.paused = false;
        process.held.clear();
        process.job = None;
        process.answered = None;
        process.answer_lost = false;
        process.ticking = true;
        if by != StartedBy::Watcher || process.start_id == 0 {
            process.start_id = seed.rotate_left(17) | 1;
        }
        note!(self, "{} starts ({by:?})", NAMES[m]);
        let process = &mut self.procs[m];
        let now = process.clock.now(self.t);
        if m == ARBITER {
            let pause_ms = self.settings[0].heartbeat_timeout_ms;
            let (pause_ms, now) = match self.broken {
                Broken::ImpatientArbiter => (u64::MAX / 2, Time(0)),
                _ => (pause_ms, now),
            };
            let settings = ArbiterSettings { pause_ms, fencing: self.arbiter_fences, seed, durable: process.disk };
            process.core = Core::Arbiter(Box::new(Arbiter::new(settings, now)));
        } else {
            process.core = Core::Node(Box::new(Node::new(Settings { seed, ..self.settings[m].clone() })));
            let data = self.readable(m);
            let process = &self.procs[m];
            let boot = Boot {
                by,
                durable: process.disk,
                data,
                name: NAMES[m].to_string(),
                address: format!("{}:5432", NAMES[m]),
                start_id: process.start_id,
                high_water: process.high_water.filter(|_| !self.hides_wal()),
                peer_name: self.hosts[m].dir.line.to_string(),
            };
            self.feed(m, Event::Boot(Box::new(boot)));
            for (ms, ev) in [
                (self.rng.range(1, 50), Ev::ProbeInstance { m, epoch }),
                (self.rng.range(1, 200), Ev::ProbeDisk { m, epoch }),
            ] {
                self.after(ms, ev);
            }
        }
        let ms = self.rng.range(1, 50);
        self.after(ms, Ev::Tick { m, epoch });
        self.after(ms + 20, Ev::Knock { m, epoch });
    }

    /// A process is gone, at once. What its runner did continues or not; a write under way has happened or not.
    pub fn end_process(&mut self, m: usize) {
        if !self.runs(m) {
            return;
        }
        self.procs[m].core = Core::None;
        self.procs[m].epoch = 0;
        self.procs[m].paused = false;
        self.procs[m].held.clear();
        if self.procs[m].job.is_some() {
            self.abandon_job(m);
        }
        self.abandon_script(m);
        let process = &self.procs[m];
        let noted = process.disk.is_some_and(|durable| durable.notes.unmirrored);
        if m != ARBITER && (!process.writes.is_empty() || process.orders_unmirrored && !noted) {
            // The files show it to the next controller.
            self.hosts[m].noticed = self.hosts[m].dir.names == Names::Unset && self.hosts[m].noticed;
        }
        if let Some((_, durable)) = self.procs[m].writes.pop_front()
            && !self.answers_early(m)
            && self.rng.chance(500)
        {
            self.durable_now(m, durable);
        }
        self.procs[m].writes.clear();
        let forgets = match self.broken {
            Broken::ForgetsWrite => self.rng.chance(500),
            Broken::ForgetfulArbiter => m == ARBITER,
            _ => false,
        };
        if forgets && self.procs[m].past.len() > 1 {
            let process = &mut self.procs[m];
            let keep = if self.broken == Broken::ForgetfulArbiter { 1 } else { process.past.len() - 1 };
            process.past.truncate(keep);
            process.disk = process.past.last().copied();
            note!(self, "{}'s ledger falls back", NAMES[m]);
        }
    }

    fn write_next(&mut self, m: usize) {
        if self.procs[m].writes.is_empty() {
            return;
        }
        self.procs[m].writing = true;
        let slow = self.machines[m].ledger == LedgerDisk::Slow;
        let early = m == ARBITER && self.broken == Broken::ArbiterAnswersEarly;
        let ms = if slow || early { self.rng.range(500, 5000) } else { self.time(8, 200) };
        let epoch = self.procs[m].epoch;
        self.after(ms, Ev::Written { m, epoch });
    }

    /// Whether writes are reported durable before they are.
    fn answers_early(&self, m: usize) -> bool {
        self.broken == Broken::AnswersEarly || m == ARBITER && self.broken == Broken::ArbiterAnswersEarly
    }

    pub fn written(&mut self, m: usize, epoch: u32) {
        if !self.alive(m, epoch) {
            return;
        }
        self.procs[m].writing = false;
        if self.write_fails(m, epoch) {
            return;
        }
        let end = self.ends_at_write(m);
        if end == Some(false) {
            // It comes to its end before the rename; what else was ordered is not begun.
            self.procs[m].writes.clear();
            return self.fault_at_write(m);
        }
        let Some((n, durable)) = self.procs[m].writes.pop_front() else { return };
        self.durable_now(m, durable);
        if end == Some(true) {
            self.procs[m].writes.clear();
            return self.fault_at_write(m);
        }
        if !self.answers_early(m) {
            if self.rng.chance(30) {
                let ms = self.rng.range(1, 300);
                self.after(ms, Ev::Local { m, epoch, event: Event::Stored(n) });
            } else {
                self.feed(m, Event::Stored(n));
            }
        }
        if self.alive(m, epoch) && !self.procs[m].writing {
            self.write_next(m);
        }
    }

    /// The disk does not take the write under way: an error, or nothing yet.
    fn write_fails(&mut self, m: usize, epoch: u32) -> bool {
        let error = match self.machines[m].ledger {
            LedgerDisk::Well | LedgerDisk::Slow => return false,
            LedgerDisk::Dead => self.rng.chance(100) && self.broken == Broken::No,
            LedgerDisk::Fails => true,
        };
        if !error {
            self.procs[m].writing = true;
            self.after(500, Ev::Written { m, epoch });
            return true;
        }
        let Some((n, durable)) = self.procs[m].writes.pop_front() else { return true };
        if self.rng.chance(500) {
            self.durable_now(m, durable);
        }
        if !self.answers_early(m) {
            self.feed(m, Event::StoreFailed(n, "No space left on device".to_string()));
        }
        if self.alive(m, epoch) && !self.procs[m].writing {
            self.write_next(m);
        }
        true
    }

    /// Whether the process comes to its end at this write: before it is durable (false), or right after (true).
    fn ends_at_write(&mut self, m: usize) -> Option<bool> {
        self.written[m] += 1;
        if let Some(at) = self.crash_at
            && (at.m, at.write) == (m, self.written[m])
        {
            return Some(at.durable);
        }
        if self.jinx == 0 || self.calm() || !self.rng.chance(self.jinx / 2) {
            return None;
        }
        Some(self.rng.chance(500))
    }

    fn fault_at_write(&mut self, m: usize) {
        note!(self, "-- {} is killed at a write", NAMES[m]);
        self.end_process(m);
        let ms = self.restart_after;
        self.after(ms, Ev::StartProcess { m, by: StartedBy::Watcher });
    }

    /// The ledger file has this content now.
    fn durable_now(&mut self, m: usize, durable: Durable) {
        if let Some(old) = self.procs[m].disk {
            self.check_ledger(m, &old.ledger, &durable.ledger);
            self.check_hand_back(m, &old.ledger, &durable.ledger.view);
            self.note_role(m, &old.ledger.view, &durable.ledger.view);
        }
        let (term, view) = (durable.ledger.view.term.0, durable.ledger.view);
        match self.terms.get(&term) {
            Some(known) if *known != view => {
                let known = *known;
                self.violated(format!("I4: term {term} carries two views: {known:?} and, on {}, {view:?}", NAMES[m]));
            }
            Some(_) => {}
            None => {
                self.terms.insert(term, view);
            }
        }
        if self.procs[m].disk != Some(durable) {
            self.procs[m].past.push(durable);
        }
        self.procs[m].disk = Some(durable);
    }
}
