//! The world of a story: two hosts, perhaps an arbiter, and what lies between them. Nothing in it is random.

use crate::instance::{Postgres, Wire};
use crate::words::{self, NAMES};
use mirroring_controller::fsm::arbiter::{Arbiter, ArbiterSettings};
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::node::Node;
use mirroring_controller::fsm::types::{Durable, HighWater, Member, Method, Mode, OldData, Time};
use std::collections::VecDeque;
use std::fmt::Write;

/// The arbiter's number; the servers are 0 and 1.
pub const ARBITER: usize = 2;
/// Time between two looks at instances, hosts and disks, ms.
const LOOK_MS: u64 = 200;

/// What a process runs.
#[derive(Default)]
pub enum Core {
    #[default]
    None,
    Node(Box<Node>),
    Arbiter(Box<Arbiter>),
}

/// A member's controller, and what is on its disk.
#[derive(Default)]
pub struct Process {
    pub core: Core,
    starts: u64,
    start_id: u64,
    pub disk: Option<Durable>,
    /// How far its WAL was noted to go.
    pub high_water: Option<HighWater>,
    /// The disk as it was once, to be put back.
    pub snapshot: Option<Durable>,
    pub writes: VecDeque<(u64, Durable)>,
    pub hold_stores: bool,
    pub job: Option<(JobId, Job)>,
    /// Of a job that was performed, and not yet reported.
    pub result: Option<(JobId, Outcome)>,
    /// The operator's command that runs.
    pub call: Option<JobId>,
    /// The hook that runs.
    pub hook: Option<JobId>,
    pub hold_jobs: bool,
    /// The rebuild that is out overwrites the data directory.
    tears: bool,
    watches: bool,
    look: bool,
    /// Stopped (SIGSTOP): events wait.
    pub paused: bool,
    inbox: Vec<Event>,
}

/// One direction between two members.
#[derive(Default)]
pub struct Link {
    /// Messages of these kinds are lost.
    pub lose: Vec<String>,
    pub cut: bool,
    pub hold: bool,
    pub queue: Vec<Message>,
    last_proposal: Option<Message>,
    /// What was printed last: repeats are not.
    printed: String,
}

/// Everything.
pub struct World {
    now: Time,
    /// The time that is printed as zero.
    pub began: Time,
    pub settings: [Settings; 2],
    pub procs: [Process; 3],
    pub hosts: [Postgres; 2],
    /// A host without power answers nothing; one with power refuses what no process listens for.
    pub power: [bool; 3],
    pub links: [[Link; 3]; 3],
    pub wal_cut: bool,
    /// The arbiter has a fencing command.
    pub arbiter_fences: bool,
    /// How many requests operators have made.
    pub requests: u64,
    pub out: String,
}

impl World {
    /// Two hosts that were never started under a controller: nd1 with a primary's data directory, nd2 with its copy.
    pub fn new(settings: [Settings; 2]) -> World {
        World {
            now: Time(1_000_000),
            began: Time(1_000_000),
            settings,
            procs: Default::default(),
            hosts: [Postgres::new(1, false), Postgres::new(2, true)],
            power: [true; 3],
            links: Default::default(),
            wal_cut: false,
            arbiter_fences: false,
            requests: 0,
            out: String::new(),
        }
    }

    /// A line of the transcript.
    pub fn line(&mut self, m: usize, text: &str) {
        let ms = self.now.since(self.began);
        writeln!(self.out, "{:>6}.{:02} {} {text}", ms / 1000, ms % 1000 / 10, NAMES[m]).expect("writing to a string");
    }

    pub fn node(&self, m: usize) -> Option<&Node> {
        match &self.procs[m].core {
            Core::Node(node) => Some(node),
            Core::None | Core::Arbiter(_) => None,
        }
    }

    pub fn time(&self) -> Time {
        self.now
    }

    pub fn status(&mut self, m: usize) {
        let text = match &self.procs[m].core {
            Core::Node(node) => words::report(&node.report(self.now)),
            Core::Arbiter(arbiter) => arbiter.durable().map_or("status: no record".to_owned(), words::record),
            Core::None => "status: no controller".to_owned(),
        };
        self.line(m, &text);
    }

    pub fn advice(&mut self, m: usize) {
        for advice in self.node(m).map_or_else(Vec::new, |node| node.report(self.now).advice) {
            self.line(m, &format!("advises: {advice}"));
        }
    }

    pub fn names(&mut self, m: usize) {
        let names = self.hosts[m].names;
        self.line(m, &format!("file sets names: {names:?}"));
    }

    pub fn lag(&mut self, m: usize) {
        let Some(report) = self.node(m).map(|node| node.report(self.now)) else { return };
        self.line(m, &format!("lag: {:?} bytes, {:?} ms", report.lag_bytes, report.lag_ms));
    }

    // ----------------------------------------------------------------------------------------------------- processes

    /// A random number as far as the core can tell, but the same in each telling.
    fn seed(&mut self, m: usize) -> u64 {
        self.procs[m].starts += 1;
        (self.procs[m].starts * 10 + m as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Starts a server's controller.
    pub fn start(&mut self, m: usize, by: StartedBy) {
        let seed = self.seed(m);
        if by != StartedBy::Watcher {
            self.procs[m].start_id = seed;
        }
        self.settings[m].seed = seed;
        let boot = Boot {
            by,
            durable: self.procs[m].disk,
            data: (!self.hosts[m].missing).then_some(self.hosts[m].dir),
            name: NAMES[m].to_owned(),
            address: format!("{}:5432", NAMES[m]),
            peer_name: NAMES[1 - m].to_owned(),
            start_id: self.procs[m].start_id,
            high_water: self.procs[m].high_water,
        };
        self.procs[m].core = Core::Node(Box::new(Node::new(self.settings[m].clone())));
        self.feed(m, Event::Boot(Box::new(boot)));
    }

    /// Starts the arbiter.
    pub fn start_arbiter(&mut self) {
        let seed = self.seed(ARBITER);
        let durable = self.procs[ARBITER].disk;
        let pause_ms = self.settings[0].heartbeat_timeout_ms;
        let settings = ArbiterSettings { pause_ms, fencing: self.arbiter_fences, seed, durable };
        self.procs[ARBITER].core = Core::Arbiter(Box::new(Arbiter::new(settings, self.now)));
    }

    /// SIGKILL: what was not written is lost, what was ordered and not done is not done.
    pub fn kill(&mut self, m: usize) {
        if self.procs[m].tears && self.hosts[m].dir.incomplete {
            self.hosts[m].guard(true);
        }
        let Process { starts, start_id, disk, snapshot, hold_jobs, hold_stores, .. } =
            std::mem::take(&mut self.procs[m]);
        self.procs[m] = Process { starts, start_id, disk, snapshot, hold_jobs, hold_stores, ..Process::default() };
    }

    // ---------------------------------------------------------------------------------------------------------- time

    /// One step of 50 ms: what was sent arrives, what was ordered is done, and everybody looks around.
    pub fn step(&mut self) {
        self.now = self.now.plus(TICK_MS);
        for from in 0..3 {
            for to in 0..3 {
                if !self.links[from][to].hold {
                    for message in std::mem::take(&mut self.links[from][to].queue) {
                        self.feed(to, Event::Heard(Member::ALL[from], message));
                    }
                }
            }
        }
        for m in 0..2 {
            if !self.procs[m].hold_jobs && !self.procs[m].paused {
                self.do_job(m);
            }
        }
        for m in 0..3 {
            self.look(m);
            self.feed(m, Event::Tick);
        }
    }

    pub fn wire(&self, m: usize) -> Wire {
        let (mine, theirs) = (&self.hosts[m], &self.hosts[1 - m]);
        let pair = mine.is_primary() && theirs.is_standby() || mine.is_standby() && theirs.is_primary();
        let (primary, standby) = if mine.is_primary() { (mine, theirs) } else { (theirs, mine) };
        let streams = pair
            && !self.wal_cut
            && !primary.silent
            && standby.timeline() <= primary.timeline()
            && primary.lsn >= standby.lsn;
        Wire { streams, lsn: theirs.lsn, timeline: theirs.timeline(), fork: theirs.fork }
    }

    /// Performs the job that is out, and reports its result.
    pub fn do_job(&mut self, m: usize) {
        if self.procs[m].result.is_none() {
            self.perform_job(m);
        }
        if let Some((id, outcome)) = self.procs[m].result.take() {
            self.feed(m, Event::Done(id, outcome));
        }
    }

    /// Performs the job that is out. Its result is kept.
    pub fn perform_job(&mut self, m: usize) {
        let Some((id, job)) = self.procs[m].job.take() else { return };
        let wire = self.wire(m);
        let source = if self.wal_cut { Postgres::new(0, true) } else { self.hosts[1 - m].clone() };
        let outcome = match &job {
            Job::Rebuild(what) => self.hosts[m].rebuild(what, &source),
            _ => self.hosts[m].perform(&job, wire),
        };
        // a fast shutdown waits until the standby has the shutdown checkpoint
        if wire.streams && matches!(job, Job::Stop { fast_ms: 1.., .. }) && self.hosts[1 - m].is_standby() {
            let last = Wire { lsn: self.hosts[m].lsn, timeline: self.hosts[m].timeline(), ..wire };
            self.hosts[1 - m].receive(last);
        }
        self.procs[m].result = Some((id, outcome));
    }

    /// What the probes of a member see.
    fn look(&mut self, m: usize) {
        let due = self.now.0.is_multiple_of(LOOK_MS);
        if due {
            for other in 0..3 {
                if other != m && self.refuses(other, m) {
                    self.feed(m, Event::Refused(Member::ALL[other]));
                }
            }
        }
        if m == ARBITER {
            return;
        }
        if due {
            let disk = self.hosts[m].disk.clone();
            self.feed(m, Event::Disk(disk));
        }
        if due || std::mem::take(&mut self.procs[m].look) {
            let wire = self.wire(m);
            let reading = self.hosts[m].reading(wire);
            // what the primary sees confirmed, the standby has
            if wire.streams && self.hosts[m].is_primary() {
                let last = Wire { lsn: self.hosts[m].lsn, timeline: self.hosts[m].timeline(), ..wire };
                self.hosts[1 - m].receive(last);
            }
            if let Some(wal) = self.hosts[m].wal(reading, wire) {
                self.feed(m, Event::Wal(wal));
            }
            self.feed(m, Event::Instance(reading));
        }
        if due && self.procs[m].watches {
            let theirs = &self.hosts[1 - m];
            let seen = match (self.wal_cut || !self.power[1 - m], theirs.dir.running) {
                (true, _) => PeerInstance::Silent,
                (false, true) if theirs.silent => PeerInstance::Silent,
                (false, true) => PeerInstance::Answered,
                (false, false) => PeerInstance::Refused,
            };
            self.feed(m, Event::PeerInstance(seen));
        }
    }

    /// Whether a host is heard to refuse a connection to its controller, and to the arbiter to its instance as well.
    fn refuses(&self, whose: usize, by: usize) -> bool {
        let dead = matches!(self.procs[whose].core, Core::None);
        let reached = self.power[whose] && !self.links[by][whose].cut && !self.links[whose][by].cut;
        let instance_too = by != ARBITER || !self.hosts[whose].dir.running;
        let there = whose != ARBITER || self.settings[0].arbiter;
        dead && reached && instance_too && there
    }

    // -------------------------------------------------------------------------------------------------------- events

    /// Gives an event to a member and performs what it orders.
    pub fn feed(&mut self, m: usize, event: Event) {
        if self.procs[m].paused {
            if !matches!(event, Event::Tick) {
                self.procs[m].inbox.push(event);
            }
            return;
        }
        let actions = match &mut self.procs[m].core {
            Core::None => return,
            Core::Node(node) => node.step(self.now, event),
            Core::Arbiter(arbiter) => arbiter.step(self.now, event),
        };
        // A comparison is answered after everything that is ordered with it.
        let (last, first): (Vec<_>, Vec<_>) = actions.into_iter().partition(|it| matches!(it, Action::CompareWal(_)));
        for action in first.into_iter().chain(last) {
            self.perform(m, action);
        }
        while !self.procs[m].hold_stores && !self.procs[m].writes.is_empty() {
            self.stored(m);
        }
    }

    /// SIGCONT: time has gone by, and what came meanwhile is worked through.
    pub fn resume(&mut self, m: usize) {
        self.procs[m].paused = false;
        for event in std::mem::take(&mut self.procs[m].inbox) {
            self.feed(m, event);
        }
    }

    /// The oldest write under way becomes durable.
    pub fn stored(&mut self, m: usize) {
        if let Some((seq, durable)) = self.procs[m].writes.pop_front() {
            self.procs[m].disk = Some(durable);
            self.feed(m, Event::Stored(seq));
        }
    }

    fn perform(&mut self, m: usize, action: Action) {
        match action {
            Action::Send(to, message) => self.send(m, to.index(), message),
            Action::Store(seq, durable, _) => {
                if self.procs[m].hold_stores {
                    let Durable { ledger, .. } = *durable;
                    let (view, promised) = (words::view(ledger.view), ledger.promised);
                    self.line(m, &format!("writes {view}, promised {promised}"));
                }
                self.procs[m].writes.push_back((seq, *durable));
            }
            Action::Run(id, job) => self.order(m, id, job),
            Action::Call(id, command) => match command.purpose {
                Purpose::Hook(_) => self.procs[m].hook = Some(id),
                Purpose::Fencing | Purpose::Arbitration => self.procs[m].call = Some(id),
            },
            Action::CallOff(id) => {
                self.line(m, "ends the hook that runs");
                if self.procs[m].hook.take_if(|hook| *hook == id).is_some() {
                    self.feed(m, Event::CommandDone(id, Err("it was killed".to_owned())));
                }
            }
            Action::Nudge(id) => {
                self.line(m, "nudges the runner");
                if let Some((_, Job::Rebuild(_))) = self.procs[m].job.take_if(|(out, _)| *out == id) {
                    self.fail_rebuild(m, id, "it was interrupted");
                }
            }
            Action::WatchPeer(watches) => self.procs[m].watches = watches,
            Action::Look => self.procs[m].look = true,
            Action::CompareWal(point) => {
                let found = self.hosts[m].contains(Some(point));
                self.feed(m, Event::WalCompared(point, found));
            }
            Action::NoteHighWater(note) => self.procs[m].high_water = Some(note),
            Action::Reply(_, reply) => self.line(m, &words::reply(&reply)),
            Action::Log(say) => self.line(m, &words::say(&say)),
            Action::Exit => {
                self.line(m, "exits");
                self.kill(m);
            }
        }
    }

    /// A job is ordered. Only the durable right to run alone promotes or releases commits (PROTOCOL R5, R6, I3).
    fn order(&mut self, m: usize, id: JobId, job: Job) {
        if !matches!(job, Job::Inspect | Job::CompareWal(_)) || self.procs[m].hold_jobs {
            self.line(m, &format!("runs {}", words::job(&job)));
        }
        if matches!(job, Job::Promote | Job::NamesOff | Job::Start { names: None, .. }) {
            let view = self.procs[m].disk.map(|durable| durable.ledger.view);
            let right = view.is_some_and(|view| view.mode == Mode::Degraded && view.primary.index() == m);
            assert!(right, "{} has no durable right for {job:?}\n{}", NAMES[m], self.out);
        }
        if let Job::Rebuild(what) = &job {
            let torn = what.order.method != Method::BaseBackup || what.order.old_data == OldData::Delete;
            self.hosts[m].guard(false);
            self.procs[m].tears = torn;
        }
        if let Some((before, _)) = self.procs[m].job.replace((id, job)) {
            self.feed(m, Event::Done(before, Outcome::Failed("it was interrupted".to_owned())));
        }
    }

    /// A rebuild ends without success: what was only guarded is as it was.
    pub fn fail_rebuild(&mut self, m: usize, id: JobId, why: &str) {
        let host = &mut self.hosts[m];
        host.dir.incomplete &= host.torn;
        self.feed(m, Event::Done(id, Outcome::Failed(why.to_owned())));
    }

    // -------------------------------------------------------------------------------------------------------- links

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let link = &mut self.links[from][to];
        let lost = link.cut || link.lose.iter().any(|kind| kind == words::kind(&message));
        let text = words::message(&message);
        if let Some(text) = text {
            let mark = if lost { " (lost)" } else { "" };
            let text = format!("-> {}: {text}{mark}", NAMES[to]);
            if link.printed != text {
                link.printed.clone_from(&text);
                self.line(from, &text);
            }
        }
        let link = &mut self.links[from][to];
        if matches!(message, Message::Propose { .. }) {
            link.last_proposal = Some(message.clone());
        }
        if !lost {
            link.queue.push(message);
        }
    }

    /// The last proposal arrives once more.
    pub fn repeat(&mut self, from: usize, to: usize) -> Result<(), String> {
        let message = self.links[from][to].last_proposal.clone().ok_or("nothing was proposed")?;
        self.links[to][from].printed.clear();
        self.feed(to, Event::Heard(Member::ALL[from], message));
        Ok(())
    }

    // ------------------------------------------------------------------------------------------------------- the hosts

    /// The instance's postmaster dies, of a signal that the kernel reports or does not.
    pub fn crash(&mut self, m: usize, signal: Option<u8>) {
        self.hosts[m].crash();
        self.feed(m, Event::Died { signal });
    }

    /// Somebody does to the instance what only the controller should.
    pub fn meddle(&mut self, m: usize, job: &Job) {
        let wire = self.wire(m);
        if let Outcome::Failed(why) = self.hosts[m].perform(job, wire) {
            self.line(m, &format!("pg_ctl: {why}"));
        }
        if !self.hosts[m].dir.running {
            self.feed(m, Event::Died { signal: None });
        }
    }

    /// The data directory is another one: a copy of the other server's where `copied`, else one put back from a backup.
    pub fn replace_data(&mut self, m: usize, copied: bool) {
        let fingerprint = self.hosts[m].dir.fingerprint + 10;
        if copied {
            let theirs = self.hosts[1 - m].clone();
            self.hosts[m].dir = DataDir { standby_signal: true, backup_label: true, running: false, ..theirs.dir };
            self.hosts[m].dir.min_recovery_timeline = theirs.timeline();
            self.hosts[m].dir.state = ControlState::InArchiveRecovery;
            self.hosts[m].lsn = theirs.lsn;
        }
        self.hosts[m].dir.fingerprint = fingerprint;
    }
}
