//! The simulated world: what there is, its clock and queue of things to come, and the loop that runs them.
//!
//! Members are numbered 0 and 1 (the servers, in the order of `network.conf`) and 2 (the arbiter). All randomness comes
//! from one generator, so that a seed is a run.

pub use crate::parts::*;
use crate::rng::Rng;
use crate::wal::{Pos, Wal};
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::types::*;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

/// The arbiter's number.
pub const ARBITER: usize = 2;
/// The names by which instances connect.
pub const NAMES: [&str; 3] = ["one", "two", "arbiter"];

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
    /// A restarted arbiter continues from an old ledger with the same id.
    ForgetfulArbiter,
    /// The arbiter's writes are reported durable at once; a crash loses those under way.
    ArbiterAnswersEarly,
    /// An older copy of the arbiter's ledger is put back, and nothing shows it.
    ArbiterPutBack,
    /// The arbitration and fencing commands say that the target is dead, and it is not.
    LyingScript,
    /// A restarted arbiter does not wait before it believes that a server is silent.
    ImpatientArbiter,
    /// A data directory is exchanged for an old one, and nothing shows it.
    ExchangedData,
    /// No WAL is compared, and no position remembered.
    WalNotCompared,
    /// Names are in effect, and yet commits are acknowledged without the standby.
    AcksEarly,
    /// A restarted member does not know any more that commits did not wait.
    ForgetsUnmirrored,
    /// A rebuild is reported done when little has been copied, and nothing shows it. (A copy that is only older than it should be does
    /// no harm: it streams what it lacks, and is not believed before, by R9.)
    EarlyRebuild,
    /// A crashed primary is restarted although its controller has heard no other member since.
    RestartsUnheard,
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
    /// The job under way continues.
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
    /// A command of the operator's ends.
    Script { m: usize, key: u32 },
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

/// Everything.
pub struct World {
    pub seed: u64,
    pub broken: Broken,
    pub rng: Rng,
    /// What hooks do: they take nothing from the rest.
    pub aside: Rng,
    pub t: u64,
    seq: u64,
    queue: BinaryHeap<Due>,
    pub settings: [Settings; 2],
    pub arbiter: bool,
    /// The arbiter has a fencing command.
    pub arbiter_fences: bool,
    /// Views without consent are made on purpose: I1 and I2 say nothing.
    pub forced: bool,
    pub wal: Wal,
    pub machines: [Machine; 3],
    pub hosts: [Host; 2],
    pub procs: [Process; 3],
    pub sessions: [Option<Session>; 2],
    pub links: [[Link; 3]; 3],
    /// The log network, by direction from the sender.
    pub log_cut: [bool; 2],
    /// A member's name service does not answer.
    pub names_down: [bool; 3],
    /// Whose addresses a member's process knows: those that have resolved since it began.
    pub known: [[bool; 3]; 3],
    pub acked: Pos,
    pub acks: u64,
    /// By whom rows that were not acknowledged were shown to clients after a crash, and up to where, while its controller had
    /// heard no other member.
    pub shown: Vec<(usize, Pos)>,
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
    /// The ledger of the arbiter that was there before this one.
    pub shelf: Option<Durable>,
    pub two: Option<Two>,
    /// By server.
    pub beats: [Beat; 2],
    /// Since when both servers, which hear each other, run alone.
    pub split_since: Option<u64>,
    /// By server: since when its instance runs as a primary although its ledger names the other one.
    pub outvoted_since: [Option<u64>; 2],
    /// By server: since when it has the role of the primary, and no post_switch_command has been told of that to its end.
    pub untold: [Option<u64>; 2],
    /// By server: when it last ran as a primary, when it last held the right, and when it last stood still.
    pub ran_at: [u64; 2],
    pub held_at: [u64; 2],
    pub paused_at: [u64; 2],
    /// By server: an rc script starts its instance when the host is started.
    pub rc: [bool; 2],
    pub crash_at: Option<CrashAt>,
    /// By member: ledgers written.
    pub written: [u64; 3],
    /// What the cores did so far, if that is asked for.
    pub fingerprint: Option<crate::fingerprint::Fingerprint>,
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
    pub fn new(seed: u64, arbiter: bool, broken: Broken, hooks: bool, tracing: bool) -> World {
        let mut rng = Rng::new(seed);
        let mut aside = rng.aside();
        let (mut settings, forced) = crate::setup::settings(&mut rng, arbiter, broken);
        for settings in settings.iter_mut().filter(|_| hooks) {
            let [post_switch, pre_detach, post_attach] = [800, 700, 600].map(|permille| aside.chance(permille));
            settings.hooks = Hooks { post_switch, pre_detach, post_attach };
        }
        let (wal, pos) = Wal::new();
        let hosts = crate::setup::hosts(&mut rng, pos);
        let mut new_process = || crate::setup::process(&mut rng);
        let procs = [new_process(), new_process(), new_process()];
        let arbiter_fences = arbiter && rng.chance(250);
        let commit_gap = rng.range(15, 80);
        let jinx = if rng.chance(600) { rng.pick(&[10, 50, 200]) } else { 0 };
        let restart_after = rng.range(50, 1000);
        let mut world = World {
            seed,
            broken,
            rng,
            aside,
            t: 0,
            seq: 0,
            queue: BinaryHeap::new(),
            settings,
            arbiter,
            arbiter_fences,
            forced,
            wal,
            machines: [0, 1, 2].map(|_| Machine { up: true, kernel: true, ledger: LedgerDisk::Well, fenced: None }),
            hosts,
            procs,
            sessions: [None, None],
            links: [[Link::default(); 3]; 3],
            log_cut: [false; 2],
            names_down: [false; 3],
            known: [[true; 3]; 3],
            acked: pos,
            acks: 0,
            shown: Vec::new(),
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
            shelf: None,
            two: None,
            beats: [Beat::default(); 2],
            split_since: None,
            outvoted_since: [None; 2],
            ran_at: [0; 2],
            held_at: [0; 2],
            untold: [None; 2],
            paused_at: [0; 2],
            rc: [false; 2],
            crash_at: None,
            written: [0; 3],
            fingerprint: None,
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
        if self.calm() { self.rng.range(0, usual) } else { self.rng.time(usual, rare) }
    }

    /// Lets something come in `ms` milliseconds.
    pub fn after(&mut self, ms: u64, ev: Ev) {
        self.seq += 1;
        self.queue.push(Due { at: self.t + ms, seq: self.seq, ev: Box::new(ev) });
    }

    /// Whether nothing goes wrong any more.
    pub fn calm(&self) -> bool {
        self.healed.is_some() || self.two.is_some()
    }

    /// Since when nothing goes wrong any more.
    pub fn calm_since(&self) -> u64 {
        self.two.map(|two| two.since).or(self.healed).unwrap_or(0)
    }

    /// Whether this member is the one that is not healed yet.
    pub fn is_missing(&self, m: usize) -> bool {
        self.healed.is_none() && self.two.is_some_and(|two| two.missing == m)
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
            self.note_leaders();
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
                self.feed(to, Event::Heard(Member::ALL[from], message));
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
            Ev::Script { m, key } => self.script_ends(m, key),
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
}
