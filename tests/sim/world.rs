//! The simulated world: what there is, its clock and queue of things to come, and the loop that runs them.
//!
//! Members are numbered 0 and 1 (the servers, in the order of `network.conf`) and 2 (the arbiter). All randomness comes
//! from one generator, so that a seed is a run.

use crate::rng::Rng;
use crate::wal::{Pos, Wal};
use mirroring_controller::fsm::arbiter::{Arbiter, ArbiterSettings};
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::node::Node;
use mirroring_controller::fsm::types::*;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

/// The arbiter's number.
pub const ARBITER: usize = 2;
/// The names by which instances connect.
pub const NAMES: [&str; 3] = ["one", "two", "arbiter"];

/// The member with this number.
pub fn member(m: usize) -> Member {
    match m {
        0 => Member::Server(Server::First),
        1 => Member::Server(Server::Second),
        _ => Member::Arbiter,
    }
}

/// The number of this member.
pub fn number(m: Member) -> usize {
    match m {
        Member::Server(s) => s.index(),
        Member::Arbiter => ARBITER,
    }
}

/// In which way the world does not keep its promises to the core. The core is always the real one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// It keeps them all.
    No,
    /// A crash brings an older ledger back although its successor was reported durable.
    ForgetsWrite,
    /// Writes are reported durable at once; a crash loses those under way.
    AnswersEarly,
    /// The proof of R9 succeeds without one.
    LyingProof,
    /// A restarted arbiter goes on from an old ledger with the same id.
    ForgetfulArbiter,
    /// A data directory is exchanged for an old one, and nothing shows it.
    ExchangedData,
    /// Names are in effect, and yet commits are acknowledged without the standby.
    AcksEarly,
}

/// What can come.
#[derive(Clone, Debug)]
pub enum Ev {
    /// The regular tick of a process.
    Tick { m: usize, epoch: u32 },
    /// A message arrives at a host.
    Arrive { from: usize, to: usize, message: Message },
    /// Something local reaches a process.
    Local { m: usize, epoch: u32, event: Event },
    /// The write under way of a process ends.
    Written { m: usize, epoch: u32 },
    /// The job under way goes on.
    Job { s: usize, key: u32 },
    /// The postmaster reaches the next stage of starting, stopping or promoting.
    Instance { s: usize, epoch: u32 },
    /// The postmaster reads its configuration.
    Reload { s: usize, epoch: u32 },
    /// The checkpointer takes the setting up.
    Effect { s: usize, epoch: u32 },
    /// Log reaches the standby.
    Wal { s: usize, session: u32, lsn: u64 },
    /// The standby's word reaches the primary.
    WalReply { primary: usize, epoch: u32, s: usize, lsn: u64 },
    /// A walreceiver tries to connect.
    Connect { s: usize },
    /// A client commits.
    Commit { s: usize },
    /// A look at the instance begins.
    ProbeInstance { m: usize, epoch: u32 },
    /// A look at the disks begins.
    ProbeDisk { m: usize, epoch: u32 },
    /// A look at the other's instance begins.
    ProbePeer { m: usize, epoch: u32 },
    /// A process tries to connect to another's.
    Knock { m: usize, epoch: u32 },
    /// A fault begins, or ends.
    Fault(crate::faults::Fault),
    /// A process is started.
    StartProcess { m: usize, by: StartedBy },
    /// The operator looks and acts.
    Operator,
}

/// An entry of the queue; small, since the queue moves it about.
struct Due {
    at: u64,
    seq: u64,
    ev: Box<Ev>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.seq) == (other.at, other.seq)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}

/// What a process runs.
pub enum Core {
    /// It does not run.
    None,
    /// A server's.
    Node(Box<Node>),
    /// The arbiter's.
    Arbiter(Box<Arbiter>),
}

/// A controller process, and its management directory's content.
pub struct Process {
    pub core: Core,
    pub epoch: u32,
    pub start_id: u64,
    /// The ledger file's content.
    pub disk: Option<Durable>,
    /// The contents before (for the broken worlds).
    pub past: Vec<Durable>,
    /// Writes ordered, the first one under way.
    pub writes: VecDeque<(u64, Durable)>,
    pub writing: bool,
    pub job: Option<crate::jobs::Running>,
    pub answered: Option<(JobId, Outcome)>,
    pub answer_lost: bool,
    /// No answer comes before this time.
    pub answer_at: u64,
    /// No reading of the instance comes before this time.
    pub reading_at: u64,
    pub paused: bool,
    pub held: Vec<Event>,
    pub watch: bool,
    pub exited: bool,
    pub clock: Clock,
    pub ticking: bool,
}

/// A member's `CLOCK_BOOTTIME`.
#[derive(Clone, Copy)]
pub struct Clock {
    pub base: u64,
    pub since: u64,
    pub permille: u64,
}

impl Clock {
    pub fn now(&self, t: u64) -> Time {
        Time(self.base + (t - self.since) * self.permille / 1000)
    }
}

/// What a data directory holds.
#[derive(Clone, Debug)]
pub struct Dir {
    pub fingerprint: u64,
    pub checkpoint: (u64, u32),
    pub min_recovery: u32,
    pub state: ControlState,
    pub standby_signal: bool,
    pub backup_label: bool,
    pub mark: LedgerId,
    /// `synchronous_standby_names` in the file.
    pub names: Names,
    /// The name in that line, commented out or not.
    pub line: &'static str,
    /// `primary_conninfo` points to the other server.
    pub follows: bool,
    pub pos: Pos,
    /// Put back from a copy that lacks acknowledged commits, by the operator.
    pub exchanged: bool,
}

/// What an instance does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Run {
    Down,
    Starting,
    Primary,
    Standby,
    Promoting,
    /// A fast shutdown; true: the shutdown checkpoint is written and waits for the standby.
    Stopping(bool),
}

/// A host with its instance.
pub struct Host {
    pub up: bool,
    /// Its kernel answers (refuses) while no process does.
    pub kernel: bool,
    pub dir: Dir,
    pub backup: Option<Dir>,
    pub run: Run,
    pub epoch: u32,
    /// Names this postmaster; 0: none.
    pub life: u32,
    pub loaded: Names,
    pub effect: Names,
    pub last_commit: u64,
    pub released: u64,
    pub frozen: bool,
    pub frozen_postmaster: bool,
    pub frozen_receiver: bool,
    pub stuck_checkpointer: bool,
    pub full: bool,
    pub disk_failed: bool,
    pub ledger_disk_slow: bool,
    pub ledger_disk_dead: bool,
    pub contacts: u64,
}

/// A walreceiver's connection, of the server by whose number it is filed.
pub struct Session {
    pub id: u32,
    /// Of the primary's postmaster.
    pub life: u32,
    pub flushed: u64,
    pub replies: u64,
    pub streaming: bool,
    pub catchup_until: u64,
    /// Both ends have not noticed yet that it is broken, until then.
    pub broken_until: Option<u64>,
}

/// How a direction of the network behaves.
#[derive(Clone, Copy, Default)]
pub struct Link {
    pub cut: bool,
    pub loss: u64,
    pub repeat: u64,
    pub slow: u64,
}

/// What was broken, and how.
#[derive(Clone, Debug)]
pub struct Violation {
    pub what: String,
}

/// Everything.
pub struct World {
    pub broken: Broken,
    pub rng: Rng,
    pub t: u64,
    seq: u64,
    queue: BinaryHeap<Due>,
    pub settings: [Settings; 2],
    pub arbiter: bool,
    /// Views without consent are made on purpose: I1 and I2 say nothing.
    pub forced: bool,
    pub wal: Wal,
    pub hosts: [Host; 2],
    pub procs: [Process; 3],
    pub sessions: [Option<Session>; 2],
    pub links: [[Link; 3]; 3],
    /// The log network, by direction from the sender.
    pub log_cut: [bool; 2],
    pub acked: Pos,
    pub acks: u64,
    pub acked_at: u64,
    pub terms: HashMap<u64, View>,
    pub healed: Option<u64>,
    /// When a commit was acknowledged after the healing.
    pub served_at: Option<u64>,
    pub commit_gap: u64,
    /// In how many of a thousand cases a step that matters is met by a fault.
    pub jinx: u64,
    pub restart_after: u64,
    pub violation: Option<Violation>,
    pub tracing: bool,
    pub trace: Vec<String>,
    pub op: crate::operator::Operator,
    pub steps: u64,
    /// How often what the core can do was done.
    pub reached: BTreeMap<String, u64>,
    /// What each core saw last, for the transcript.
    pub seen: Vec<(usize, std::mem::Discriminant<Event>, String)>,
    ids: u32,
}

/// Adds a line to the transcript, where one is kept.
#[macro_export]
macro_rules! note {
    ($world:expr, $($arg:tt)*) => {
        if $world.tracing { let line = format!($($arg)*); $world.write_line(line); }
    };
}

impl World {
    /// A world with these promises, made by a seed.
    pub fn new(seed: u64, broken: Broken, tracing: bool) -> World {
        let mut rng = Rng::new(seed);
        let arbiter = match broken {
            Broken::ForgetfulArbiter => true,
            _ => rng.chance(500),
        };
        let (settings, forced) = crate::setup::settings(&mut rng, arbiter, broken);
        let (wal, pos) = Wal::new();
        let hosts = crate::setup::hosts(&mut rng, pos);
        let mut new_process = || crate::setup::process(&mut rng);
        let procs = [new_process(), new_process(), new_process()];
        let commit_gap = rng.range(10, 60);
        let jinx = if rng.chance(600) { rng.pick(&[10, 50, 200]) } else { 0 };
        let restart_after = rng.range(50, 1000);
        let mut world = World {
            broken,
            rng,
            t: 0,
            seq: 0,
            queue: BinaryHeap::new(),
            settings,
            arbiter,
            forced,
            wal,
            hosts,
            procs,
            sessions: [None, None],
            links: [[Link::default(); 3]; 3],
            log_cut: [false; 2],
            acked: pos,
            acks: 0,
            acked_at: 0,
            terms: HashMap::new(),
            healed: None,
            served_at: None,
            commit_gap,
            jinx,
            restart_after,
            violation: None,
            tracing,
            trace: Vec::new(),
            op: crate::operator::Operator::default(),
            steps: 0,
            reached: BTreeMap::new(),
            seen: Vec::new(),
            ids: 0,
        };
        crate::setup::begin(&mut world);
        world
    }

    /// A number that no other has.
    pub fn id(&mut self) -> u32 {
        self.ids += 1;
        self.ids
    }

    /// Mostly a short time up to `usual`; before the healing sometimes a long one up to `rare`.
    pub fn time(&mut self, usual: u64, rare: u64) -> u64 {
        if self.healed.is_some() { self.rng.range(0, usual) } else { self.rng.time(usual, rare) }
    }

    /// Lets something come in `ms` milliseconds.
    pub fn after(&mut self, ms: u64, ev: Ev) {
        self.seq += 1;
        self.queue.push(Due { at: self.t + ms, seq: self.seq, ev: Box::new(ev) });
    }

    /// Adds a line to the transcript.
    pub fn write_line(&mut self, line: String) {
        self.trace.push(format!("{:>7}.{:03}  {line}", self.t / 1000, self.t % 1000));
    }

    /// An invariant does not hold.
    pub fn violated(&mut self, what: String) {
        if self.violation.is_none() {
            note!(self, "VIOLATION {what}");
            self.violation = Some(Violation { what });
        }
    }

    /// Runs until the end of the run or the first violation.
    pub fn run(&mut self) {
        while self.violation.is_none() {
            let Some(due) = self.queue.pop() else { break };
            self.t = due.at;
            self.steps += 1;
            self.perform(*due.ev);
            self.check();
            if self.finished() {
                break;
            }
        }
    }

    fn perform(&mut self, ev: Ev) {
        match ev {
            Ev::Tick { m, epoch } => self.tick(m, epoch),
            Ev::Arrive { from, to, message } => {
                if self.links[from][to].cut {
                    return;
                }
                self.feed(to, Event::Heard(member(from), message));
            }
            Ev::Local { m, epoch, event } => {
                if self.alive(m, epoch) {
                    self.feed(m, event);
                }
            }
            Ev::Written { m, epoch } => self.written(m, epoch),
            Ev::Job { s, key } => self.job_step(s, key),
            Ev::Instance { s, epoch } => self.instance_step(s, epoch),
            Ev::Reload { s, epoch } => self.reload(s, epoch),
            Ev::Effect { s, epoch } => self.effect(s, epoch),
            Ev::Wal { s, session, lsn } => self.wal_arrives(s, session, lsn),
            Ev::WalReply { primary, epoch, s, lsn } => self.wal_reply(primary, epoch, s, lsn),
            Ev::Connect { s } => self.connect(s),
            Ev::Commit { s } => self.commit(s),
            Ev::ProbeInstance { m, epoch } => self.probe_instance(m, epoch),
            Ev::ProbeDisk { m, epoch } => self.probe_disk(m, epoch),
            Ev::ProbePeer { m, epoch } => self.probe_peer(m, epoch),
            Ev::Knock { m, epoch } => self.knock(m, epoch),
            Ev::Fault(fault) => self.fault(fault),
            Ev::StartProcess { m, by } => self.start_process(m, by),
            Ev::Operator => self.operate(),
        }
    }

    /// Whether this incarnation of a process still runs.
    pub fn alive(&self, m: usize, epoch: u32) -> bool {
        self.procs[m].epoch == epoch && self.runs(m)
    }

    /// Whether the process runs.
    pub fn runs(&self, m: usize) -> bool {
        !matches!(self.procs[m].core, Core::None)
    }

    /// Whether the host of a member is up.
    pub fn host_up(&self, m: usize) -> bool {
        m == ARBITER || self.hosts[m].up
    }

    fn tick(&mut self, m: usize, epoch: u32) {
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
        if !self.runs(m) {
            return;
        }
        if self.procs[m].paused {
            if self.procs[m].held.len() < 200 {
                self.procs[m].held.push(event);
            }
            return;
        }
        self.trace_event(m, &event);
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
        self.jinx(m, &action);
        let epoch = self.procs[m].epoch;
        match action {
            Action::Send(to, message) => self.send(m, number(to), message),
            Action::Store(n, durable, why) => {
                if !why.is_empty() {
                    let alone = if durable.ledger.view.mode == Mode::Degraded { "alone" } else { "mirrored" };
                    self.reach(format!("view: {alone}: {why}"));
                }
                self.procs[m].writes.push_back((n, *durable));
                if self.broken == Broken::AnswersEarly {
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
            Action::Nudge(id) => self.nudge(m, id),
            Action::WatchPeer(on) => {
                let was = self.procs[m].watch;
                self.procs[m].watch = on;
                if on && !was {
                    self.after(10, Ev::ProbePeer { m, epoch });
                }
            }
            Action::Look => self.look(m),
            Action::Reply(id, reply) => self.replied(m, id, reply),
            Action::Say(say) => {
                let text = format!("{say:?}");
                self.reach(format!("say: {}", text.split([' ', '(']).next().unwrap_or_default()));
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

    // ------------------------------------------------------------------------------------------- processes and ledgers

    pub fn reach(&mut self, what: String) {
        *self.reached.entry(what).or_default() += 1;
    }

    /// Starts a process, if it does not run and its host is up.
    pub fn start_process(&mut self, m: usize, by: StartedBy) {
        if self.runs(m)
            || !self.host_up(m)
            || self.op.is_rebuilding(m)
            || (by == StartedBy::Watcher && self.procs[m].exited)
        {
            return;
        }
        let epoch = self.id();
        let seed = self.rng.next();
        let process = &mut self.procs[m];
        process.epoch = epoch;
        process.writing = false;
        process.writes.clear();
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
            let settings = ArbiterSettings { pause_ms, seed, durable: process.disk };
            process.core = Core::Arbiter(Box::new(Arbiter::new(settings, now)));
        } else {
            process.core = Core::Node(Box::new(Node::new(Settings { seed, ..self.settings[m].clone() })));
            let data = (!self.hosts[m].disk_failed).then(|| self.data_dir(m));
            let process = &self.procs[m];
            let boot = Boot {
                by,
                durable: process.disk,
                data,
                name: NAMES[m].to_string(),
                address: format!("{}:5432", NAMES[m]),
                start_id: process.start_id,
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

    /// A process is gone, at once. What its runner did goes on or not; a write under way has happened or not.
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
        if let Some((_, durable)) = self.procs[m].writes.pop_front()
            && self.broken != Broken::AnswersEarly
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
        let slow = m != ARBITER && self.hosts[m].ledger_disk_slow;
        let ms = if slow { self.rng.range(500, 5000) } else { self.time(8, 200) };
        let epoch = self.procs[m].epoch;
        self.after(ms, Ev::Written { m, epoch });
    }

    fn written(&mut self, m: usize, epoch: u32) {
        if !self.alive(m, epoch) {
            return;
        }
        self.procs[m].writing = false;
        if m != ARBITER && self.hosts[m].ledger_disk_dead {
            if self.rng.chance(100) && self.broken == Broken::No {
                let (n, durable) = self.procs[m].writes.pop_front().expect("a write is under way");
                if self.rng.chance(500) {
                    self.durable_now(m, durable);
                }
                self.feed(m, Event::StoreFailed(n, "No space left on device".to_string()));
                if self.alive(m, epoch) && !self.procs[m].writing {
                    self.write_next(m);
                }
            } else {
                self.procs[m].writing = true;
                self.after(500, Ev::Written { m, epoch });
            }
            return;
        }
        let Some((n, durable)) = self.procs[m].writes.pop_front() else { return };
        self.durable_now(m, durable);
        if self.broken != Broken::AnswersEarly {
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

    /// The ledger file has this content now.
    fn durable_now(&mut self, m: usize, durable: Durable) {
        if let Some(old) = self.procs[m].disk {
            self.check_ledger(m, &old.ledger, &durable.ledger);
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
