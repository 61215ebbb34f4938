//! A world for the cores in virtual time: what they order is done in usual times, what they send arrives unless it is cut,
//! and their probes see what is. Nothing in it is random, and nothing goes wrong by itself.

use super::assumed;
use super::instance::Postgres;
use crate::fsm::arbiter::{Arbiter, ArbiterSettings};
use crate::fsm::event::{
    Action, Boot, Contains, CoreMessage, Disk, Event, Health, Heartbeat, Job, JobId, Message, Names, Outcome,
    PeerInstance, Purpose, Request, Settings, StartedBy, TICK_MS, UserCommand,
};
use crate::fsm::node::Node;
use crate::fsm::present::{PeerPresent, Present};
use crate::fsm::types::{DataIdentity, Durable, Failover, Ledger, Lsn, Member, Notes, Server, Time, Timeline, View};
use std::collections::BTreeMap;

/// The arbiter's number; the servers are 0 and 1.
pub(super) const ARBITER: usize = 2;
/// How long a message is under way, ms.
const WAY_MS: u64 = 1;
/// How long a ledger takes to be durable, ms.
const STORE_MS: u64 = 3;
/// No detection time that a peer tells is believed beyond this, ms.
const LONGEST_MS: u64 = 86_400_000;
/// How long a command of the operator's takes, ms.
const COMMAND_MS: u64 = 500;

/// What runs on a member's host.
pub(super) enum Core {
    /// No controller.
    None,
    /// A server's.
    Node(Box<Node>),
    /// The arbiter's.
    Arbiter(Box<Arbiter>),
}

enum Item {
    Tick(usize),
    Probe(usize),
    Look(usize),
    Arrives { from: usize, to: usize, message: Box<Message> },
    Stored { m: usize, seq: u64, durable: Box<Durable> },
    JobEnds { m: usize, id: JobId },
    CommandEnds { m: usize, id: JobId, command: Box<UserCommand> },
}

/// What clients have of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Service {
    /// It takes no commits.
    None,
    /// It takes them, and they wait for the standby.
    Waits,
    /// It acknowledges them.
    Serves,
    /// The same, but it is cut off: only clients beside it reach it.
    Apart,
}

impl Service {
    /// Whether it acknowledges commits, whoever reaches it.
    pub fn acknowledges(self) -> bool {
        matches!(self, Service::Serves | Service::Apart)
    }
}

/// Something that an operator would see, and when.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub at: Time,
    pub who: Member,
    pub say: CoreMessage,
}

pub(super) struct World {
    pub now: Time,
    /// The server that the state was taken from.
    pub me: Server,
    serial: u64,
    queue: BTreeMap<(Time, u64), (u32, Item)>,
    pub cores: [Core; 3],
    /// Counts the processes of each member: what was ordered by an earlier one is not answered.
    lives: [u32; 3],
    pub settings: [Settings; 2],
    pub arbiter: bool,
    pub disks: [Option<Durable>; 3],
    pub hosts: [Postgres; 2],
    /// Names, addresses and ids of starts, for boots.
    boots: [(String, String, u64); 2],
    /// A host without power answers nothing; one with power refuses what no process listens for.
    pub power: [bool; 3],
    /// Nothing goes between these two, whatever it is.
    pub cut: [[bool; 3]; 3],
    /// No WAL goes between the servers, though all else does.
    pub wal_cut: bool,
    /// The WAL connection stands, as far as its ends can tell.
    attached: bool,
    watches: [bool; 2],
    look_is_due: [bool; 2],
    jobs: [Option<(JobId, Job)>; 2],
    pub said: Vec<Said>,
    /// What clients have had of either server since when.
    pub serves: Vec<(Time, [Service; 2])>,
    /// Some rebuild was made, whose time is a guess.
    pub rebuilt: bool,
    /// Some command of the operator's was called, which is taken to succeed.
    pub called: bool,
}

impl World {
    /// The present state: this server's core continues, the others' are started from what they last told.
    pub fn new(present: &Present) -> World {
        let me = present.settings.me;
        let other = me.other();
        let ledger = present.node.durable().map(|durable| durable.ledger);
        let row = |server: Server| &present.report.servers[server.index()];
        let at = row(me).lsn.unwrap_or(Lsn(1));
        let own = Postgres::own(&present.own, ledger.as_ref(), at, row(me).timeline.unwrap_or(Timeline(0)));
        // The last that is known of the other server, or what this server's ledger implies.
        let told = present.peer.heartbeat.clone().or_else(|| assumed::heartbeat(present, &own));
        let theirs = match &told {
            Some(told) => Postgres::told(told, row(other).role, assumed::is_standby(present, told)),
            // Nothing is known of it, and nothing of it is there.
            None => Postgres { broken: true, ..own.clone() },
        };
        let told = told.as_ref();
        let their_settings = Settings {
            me: other,
            on_silence: told.map_or(present.settings.on_silence, |told| told.on_silence),
            heartbeat_detection_ms: match told.map_or(0, |told| told.detection_ms) {
                0 => present.settings.heartbeat_detection_ms,
                ms => ms.min(LONGEST_MS),
            },
            seed: present.settings.seed ^ 0x5555_5555_5555_5555,
            ..present.settings.clone()
        };
        let own_boot = (present.name.clone(), present.address.clone(), present.start_id);
        let their_boot =
            told.map_or_else(Default::default, |told| (told.name.clone(), told.address.clone(), told.start_id));
        let mut world = World {
            now: present.now,
            me,
            serial: 0,
            queue: BTreeMap::new(),
            cores: [Core::None, Core::None, Core::None],
            lives: [0; 3],
            settings: me.in_order(present.settings.clone(), their_settings),
            arbiter: present.settings.arbiter,
            disks: [None; 3],
            hosts: me.in_order(own, theirs),
            boots: me.in_order(own_boot, their_boot),
            power: [true; 3],
            cut: [[false; 3]; 3],
            wal_cut: false,
            attached: false,
            watches: [false; 2],
            look_is_due: [false; 2],
            jobs: [None, None],
            said: Vec::new(),
            serves: Vec::new(),
            rebuilt: false,
            called: false,
        };
        world.disks[me.index()] = present.node.durable().copied();
        world.cores[me.index()] = Core::Node(Box::new(present.node.clone()));
        world.lives[me.index()] = 1;
        world.rounds(me.index());
        if let Some((id, job)) = present.job.clone() {
            world.order(me.index(), id, job);
        }
        for (id, command) in present.calls.clone() {
            world.perform(me.index(), Action::Call(id, Box::new(command)));
        }
        world.begin_peer(&present.peer, told);
        world.begin_arbiter(present);
        world
    }

    fn begin_peer(&mut self, seen: &PeerPresent, told: Option<&Heartbeat>) {
        let peer = self.me.other().index();
        if let Some(told) = told {
            let wanted = self.hosts[peer].dir.running || told.instance == Health::Failed;
            self.disks[peer] = told.ledger.map(|ledger| Durable {
                ledger,
                notes: Notes { failover: told.failover, wanted, promoted: told.promoted, ..Notes::default() },
            });
        }
        if seen.talks && told.is_some() {
            self.boot(peer, StartedBy::Watcher);
        } else if seen.refuses && seen.instance_refuses {
            self.hosts[peer].crash();
        } else if !seen.refuses && !seen.lives {
            self.power[peer] = false;
        }
    }

    fn begin_arbiter(&mut self, present: &Present) {
        let Some(told) = present.arbiter.filter(|_| self.arbiter) else {
            self.power[ARBITER] = false;
            return;
        };
        let system = present.node.durable().map(|durable| durable.ledger.system);
        self.disks[ARBITER] = match (told.view, system, told.id) {
            (Some(view), Some(system), Some(id)) => Some(Durable {
                ledger: Ledger { system, id, data: DataIdentity::default(), view, promised: told.promised },
                notes: Notes::default(),
            }),
            _ => None,
        };
        if told.heard {
            self.boot_arbiter();
        } else {
            self.power[ARBITER] = false;
        }
    }

    // ----------------------------------------------------------------------------------------------------- processes

    /// Starts a server's controller.
    pub fn boot(&mut self, m: usize, by: StartedBy) {
        self.lives[m] += 1;
        let settings = &mut self.settings[m];
        settings.seed = settings.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let (name, address, mut start_id) = self.boots[m].clone();
        if by != StartedBy::Watcher {
            start_id ^= settings.seed;
            self.boots[m].2 = start_id;
        }
        let readable = self.hosts[m].disk.is_empty();
        let boot = Boot {
            by,
            durable: self.disks[m],
            data: readable.then_some(self.hosts[m].dir),
            name,
            address,
            peer_name: self.boots[1 - m].0.clone(),
            start_id,
            high_water: None,
        };
        self.cores[m] = Core::Node(Box::new(Node::new(self.settings[m].clone())));
        self.watches[m] = false;
        self.jobs[m] = None;
        self.rounds(m);
        self.feed(m, Event::Boot(Box::new(boot)));
    }

    /// Starts the arbiter.
    pub fn boot_arbiter(&mut self) {
        self.lives[ARBITER] += 1;
        let own = &self.settings[self.me.index()];
        let settings = ArbiterSettings {
            pause_ms: own.heartbeat_timeout_ms,
            fencing: false,
            seed: own.seed.rotate_left(17) ^ u64::from(self.lives[ARBITER]),
            durable: self.disks[ARBITER],
        };
        self.cores[ARBITER] = Core::Arbiter(Box::new(Arbiter::new(settings, self.now)));
        self.rounds(ARBITER);
    }

    /// A member's controller is gone, and what it ordered is not done.
    pub fn kill(&mut self, m: usize) {
        self.cores[m] = Core::None;
        self.lives[m] += 1;
        if m != ARBITER {
            self.jobs[m] = None;
            self.watches[m] = false;
        }
    }

    pub fn node(&self, m: usize) -> Option<&Node> {
        match &self.cores[m] {
            Core::Node(node) => Some(node),
            Core::None | Core::Arbiter(_) => None,
        }
    }

    /// Whether anything is known of a server, so that its controller can be started.
    pub fn is_known(&self, m: usize) -> bool {
        self.disks[m].is_some() || !matches!(self.cores[m], Core::None)
    }

    /// Whether the controller of a server has received no heartbeat of the other server since its start.
    pub fn lacks_first_heartbeat(&self) -> bool {
        (0..2).filter_map(|m| self.node(m)).any(|node| !node.has_heard_peer())
    }

    // ---------------------------------------------------------------------------------------------------------- time

    fn after(&mut self, ms: u64, m: usize, item: Item) {
        self.serial += 1;
        self.queue.insert((self.now.plus(ms.max(1)), self.serial), (self.lives[m], item));
    }

    /// What a process does again and again begins.
    fn rounds(&mut self, m: usize) {
        self.after(TICK_MS, m, Item::Tick(m));
        self.after(1, m, Item::Probe(m));
    }

    /// Time between two looks of a member's probes, ms.
    fn probe_ms(&self, m: usize) -> u64 {
        let settings = &self.settings[if m == ARBITER { self.me.index() } else { m }];
        settings.heartbeat_interval_ms.min(settings.instance_detection_ms / 3).max(TICK_MS)
    }

    /// Continues until then.
    pub fn run_until(&mut self, until: Time) {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), (life, item)) = entry.remove_entry();
            self.now = at;
            self.happen(life, item);
            self.watch_service();
        }
        self.now = self.now.max(until);
    }

    fn happen(&mut self, life: u32, item: Item) {
        let whose = match &item {
            Item::Tick(m) | Item::Probe(m) | Item::Look(m) => *m,
            Item::Arrives { to, .. } => *to,
            Item::Stored { m, .. } | Item::JobEnds { m, .. } | Item::CommandEnds { m, .. } => *m,
        };
        // A message finds whatever process runs when it arrives.
        if life != self.lives[whose] && !matches!(item, Item::Arrives { .. }) {
            return;
        }
        match item {
            Item::Tick(m) => {
                self.feed(m, Event::Tick);
                self.after(TICK_MS, m, Item::Tick(m));
            }
            Item::Probe(m) => {
                self.probe(m);
                self.after(self.probe_ms(m), m, Item::Probe(m));
            }
            Item::Look(m) => {
                self.look_is_due[m] = false;
                self.look(m);
            }
            Item::Arrives { from, to, message } if !self.cut[from][to] && self.power[from] => {
                self.feed(to, Event::Heard(Member::ALL[from], *message));
            }
            Item::Arrives { .. } => {}
            Item::Stored { m, seq, durable } => {
                self.disks[m] = Some(*durable);
                self.feed(m, Event::Stored(seq));
            }
            Item::JobEnds { m, id } => self.job_ends(m, id),
            Item::CommandEnds { m, id, command } => self.command_ends(m, id, &command),
        }
    }

    // -------------------------------------------------------------------------------------------------------- events

    pub fn feed(&mut self, m: usize, event: Event) {
        if !self.power[m] {
            return;
        }
        let actions = match &mut self.cores[m] {
            Core::None => return,
            Core::Node(node) => node.step(self.now, event),
            Core::Arbiter(arbiter) => arbiter.step(self.now, event),
        };
        for action in actions {
            self.perform(m, action);
        }
    }

    fn perform(&mut self, m: usize, action: Action) {
        match action {
            Action::Send(to, message) => {
                let to = to.index();
                self.after(WAY_MS, to, Item::Arrives { from: m, to, message: Box::new(message) });
            }
            Action::Store(seq, durable, _) => self.after(STORE_MS, m, Item::Stored { m, seq, durable }),
            Action::Run(id, job) => self.order(m, id, job),
            Action::Call(id, command) => {
                self.called |= !matches!(command.purpose, Purpose::Hook(_));
                self.after(COMMAND_MS, m, Item::CommandEnds { m, id, command });
            }
            Action::CallOff(id) => self.feed(m, Event::CommandDone(id, Err("it was ended".to_owned()))),
            Action::Nudge(id) => {
                if self.jobs[m].take_if(|(out, _)| *out == id).is_some() {
                    self.feed(m, Event::Done(id, Outcome::Failed("it was interrupted".to_owned())));
                }
            }
            Action::WatchPeer(watches) => self.watches[m] = watches,
            Action::Look if !self.look_is_due[m] => {
                self.look_is_due[m] = true;
                self.after(WAY_MS, m, Item::Look(m));
            }
            Action::CompareWal(point) => self.feed(m, Event::WalCompared(point, Contains::Yes)),
            Action::Look | Action::NoteHighWater(_) | Action::Reply(..) => {}
            Action::Log(say) => self.said.push(Said { at: self.now, who: Member::ALL[m], say }),
            Action::Exit => self.kill(m),
        }
    }

    fn order(&mut self, m: usize, id: JobId, job: Job) {
        let ms = self.hosts[m].takes_ms(&job);
        self.after(ms, m, Item::JobEnds { m, id });
        if let Some((before, _)) = self.jobs[m].replace((id, job)) {
            self.feed(m, Event::Done(before, Outcome::Failed("it was interrupted".to_owned())));
        }
    }

    fn job_ends(&mut self, m: usize, id: JobId) {
        let Some((_, job)) = self.jobs[m].take_if(|(out, _)| *out == id) else { return };
        let flows = self.flows();
        let mut source = self.hosts[1 - m].clone();
        source.dir.running &= self.reaches(m, 1 - m);
        self.rebuilt |= matches!(job, Job::Rebuild(_));
        let ran = self.hosts[m].dir.running;
        let outcome = self.hosts[m].perform(self.now, &job, flows, &source);
        // A fast shutdown waits until the standby has the shutdown checkpoint.
        if flows && ran && matches!(job, Job::Stop { fast_ms: 1.., .. }) && self.hosts[1 - m].is_standby() {
            let (lsn, timeline) = (self.hosts[m].lsn, self.hosts[m].timeline());
            self.hosts[1 - m].receive(lsn, timeline);
        }
        self.feed(m, Event::Done(id, outcome));
    }

    /// Fencing takes the target's power away; an arbitration command finds out whether it has any.
    fn command_ends(&mut self, m: usize, id: JobId, command: &UserCommand) {
        let target = command.target.index();
        let result = match command.purpose {
            Purpose::Fencing => {
                self.power[target] = false;
                Ok(())
            }
            Purpose::Arbitration if self.power[target] => Err("the other server responds".to_owned()),
            Purpose::Arbitration | Purpose::Hook(_) => Ok(()),
        };
        self.feed(m, Event::CommandDone(id, result));
    }

    // -------------------------------------------------------------------------------------------------------- probes

    fn probe(&mut self, m: usize) {
        for other in 0..3 {
            if other != m && self.refuses(other, m) {
                self.feed(m, Event::Refused(Member::ALL[other]));
            }
        }
        if m == ARBITER {
            return;
        }
        let disk = match self.hosts[m].disk.as_str() {
            "" => Disk::Good,
            what => Disk::Failed(what.to_owned()),
        };
        self.feed(m, Event::Disk(disk));
        self.look(m);
        if self.watches[m] {
            let theirs = &self.hosts[1 - m];
            let seen = match self.reaches(m, 1 - m) {
                false => PeerInstance::Silent,
                true if theirs.dir.running && theirs.silent => PeerInstance::Silent,
                true if theirs.dir.running => PeerInstance::Answered,
                true => PeerInstance::Refused,
            };
            self.feed(m, Event::PeerInstance(seen));
        }
    }

    fn look(&mut self, m: usize) {
        let flows = self.flows();
        let ends = self.hosts[0].dir.running && self.hosts[1].dir.running;
        // What is cut, or has lost power, says nothing; a process that has ended closes its connection.
        self.attached = flows || self.attached && (ends || !self.reaches(0, 1));
        let theirs = self.hosts[1 - m].lsn;
        let attached = self.attached;
        let reading = self.hosts[m].reading(self.now, flows, attached, theirs);
        // What clients have written up to now is on the standby before anything else happens.
        if flows && self.hosts[m].is_primary() {
            let (lsn, timeline) = (self.hosts[m].lsn, self.hosts[m].timeline());
            self.hosts[1 - m].receive(lsn, timeline);
        }
        if let Some(wal) = self.hosts[m].wal(reading, theirs) {
            self.feed(m, Event::Wal(wal));
        }
        self.feed(m, Event::Instance(reading));
    }

    /// Whether packets go between two hosts.
    pub fn reaches(&self, from: usize, to: usize) -> bool {
        self.power[from] && self.power[to] && !self.cut[from][to] && !self.cut[to][from]
    }

    /// Whether the standby has what the primary writes.
    fn flows(&self) -> bool {
        let [one, two] = &self.hosts;
        let (primary, standby) = if one.is_primary() { (one, two) } else { (two, one) };
        let pair = primary.is_primary() && standby.is_standby() && standby.timeline() <= primary.timeline();
        let work = one.works(self.now) && two.works(self.now);
        pair && work && !self.wal_cut && self.reaches(0, 1)
    }

    /// Whether a host is heard to refuse a connection to its controller, and to the arbiter to its instance as well.
    fn refuses(&self, whose: usize, by: usize) -> bool {
        let instance_too = by != ARBITER || !self.hosts[whose].dir.running;
        matches!(self.cores[whose], Core::None) && self.reaches(by, whose) && instance_too
    }

    // ------------------------------------------------------------------------------------------------------- clients

    fn acknowledges(&self, m: usize) -> bool {
        self.runs_as_primary(m) && (self.hosts[m].names == Names::Unset || self.flows())
    }

    pub fn watch_service(&mut self) {
        let now = [0, 1].map(|m| match (self.acknowledges(m), self.runs_as_primary(m)) {
            (true, _) if self.is_reached(m) => Service::Serves,
            (true, _) => Service::Apart,
            (false, true) if self.is_reached(m) => Service::Waits,
            (false, _) => Service::None,
        });
        if self.serves.last().is_none_or(|(_, last)| *last != now) {
            self.serves.push((self.now, now));
        }
    }

    /// What clients have of either server now.
    pub fn service(&self) -> [Service; 2] {
        self.serves.last().map_or([Service::None; 2], |(_, last)| *last)
    }

    /// Whether clients reach a server: it is not cut off from everybody.
    pub fn is_reached(&self, m: usize) -> bool {
        self.power[m] && !(self.cut[m][1 - m] && self.cut[m][ARBITER])
    }

    /// A primary that runs and answers, though its commits may wait.
    fn runs_as_primary(&self, m: usize) -> bool {
        self.power[m] && self.hosts[m].is_primary() && self.hosts[m].works(self.now)
    }

    /// The pair's setting, by the newest that a server has.
    pub fn failover(&self) -> Failover {
        let of = |disk: &Option<Durable>| disk.map(|durable| durable.notes.failover);
        self.disks[..2].iter().filter_map(of).max_by_key(|failover| failover.version).unwrap_or_default()
    }

    /// Enables automatic switch and disconnection.
    pub fn enable_failover(&mut self) {
        self.feed(self.me.index(), Event::Request { id: 0, request: Request::Failover(true), limit_ms: 10_000 });
    }

    /// The primary of the newest view.
    pub fn primary(&self) -> usize {
        self.view().map_or(0, |view| view.primary.index())
    }

    /// The newest view that is durable anywhere.
    pub fn view(&self) -> Option<View> {
        self.disks.iter().flatten().map(|durable| durable.ledger.view).max_by_key(|view| view.term)
    }
}
