//! The decision thread: steps the core and has its actions performed.
//!
//! It waits for nothing but its inbox: what can block is done for it by other threads, which answer by event. It alone
//! sends, and it alone shows the watcher that the controller lives.

use super::archive_link::ArchiveLink;
use super::backup_watch;
use super::calls::Calls;
use super::control::{Board, Control};
use super::health::Health;
use super::inspect::Inspector;
use super::links::{self, Bystander, Links};
use super::pace::Pace;
use super::reasons::Reasons;
use super::reload::{self, Reloader};
use super::resolver::Resolver;
use super::runner::{self, Runner};
use super::store::{self, CONTROLLER_LOCK, Lock, Store, WATCHER_LOCK};
use super::watcher::{Alive, random};
use super::{
    Inbox, boot, connection_probe, connections, db_probe, disk_probe, disk_space, full_disk_stop, high_water, now,
    peer_probe, pidfile,
};
use super::{spawn, startup_log};
use crate::config::{Config, MemberLine, STARTUP_LOG};
use crate::error::{Error, Result};
use crate::fsm::event::{
    Action, CoreMessage, Disk, Event, Job, Message, OnSilence, Reply, Request, StartedBy, TICK_MS,
};
use crate::fsm::node::Node;
use crate::fsm::types::{Member, Time};
use crate::messages::{self, Facility, Names, Output, Tell};
use crate::rebuild;
use crate::status::{self, Change, MemberName, Purpose, Snapshot};
use crossbeam_channel::{Receiver, Sender};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Names a request that a signal made; those of clients begin at 1.
const SIGNALLED: u64 = 0;

/// How long the end of the controller may take when a signal asked for it and the instance is left alone.
const SIGNALLED_LIMIT: Duration = Duration::from_secs(10);

/// How long a controller that a signal ends waits for a ledger that cannot be written, ms.
const LEAVE_MS: u64 = 10_000;

/// How long what is still to be written, and told to clients, may take at the end.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Events that are taken in before the state is published and the watcher told.
const BATCH: usize = 64;

/// The state is published at least this often, since parts of it age.
const PUBLISH_MS: u64 = 250;

/// Runs the controller until it is told to end. Returns its exit code.
///
/// # Errors
/// What keeps it from starting.
pub fn run(config: Config, by: StartedBy, start_id: u64, mut alive: Alive) -> Result<u8> {
    let run_dir = config.run_dir();
    messages::init(Output {
        facility: Facility::local(config.server.syslog_facility),
        ident: config.server.syslog_ident.clone(),
        file: Some(run_dir.join("log")),
        stderr: alive.is_foreground(),
    });
    let started = start(&config, by, start_id, &alive);
    let (mut decision, events, leftovers, _locks) = started.inspect_err(|error| {
        messages::tell(&Tell::Fatal(error.clone()));
        messages::flush(END_LIMIT);
    })?;
    alive.ready();
    decision.go_round(&events, &mut alive);
    alive.stopping();
    // No command can talk to a controller that takes no more events. Those that are connected still receive their answers.
    let [socket, pid_file] = leftovers;
    let _ = std::fs::remove_file(socket);
    drop(events);
    decision.end();
    let _ = std::fs::remove_file(pid_file);
    messages::tell(&Tell::Stopped { server: config.id });
    messages::flush(END_LIMIT);
    Ok(0)
}

/// The decision thread, its inbox, what is to be removed at the end, and what is held until then.
type Started = (Decision, Receiver<(Time, Event)>, [PathBuf; 2], Vec<Lock>);

fn start(config: &Config, by: StartedBy, start_id: u64, alive: &Alive) -> Result<Started> {
    let run_dir = config.run_dir();
    let mut locks = vec![Lock::take(&run_dir, CONTROLLER_LOCK)?];
    if alive.is_foreground() {
        locks.push(Lock::take(&run_dir, WATCHER_LOCK)?);
    }
    let after_crash = pidfile::died(&run_dir, pidfile::CONTROLLER);
    let pid_file = pidfile::write(&run_dir, pidfile::CONTROLLER)?;
    let started = start_locked(config, by, start_id, alive);
    // A start that fails is no crash, unless the controller before it died.
    if started.is_err() && !after_crash {
        let _ = std::fs::remove_file(&pid_file);
    }
    let (decision, events, socket) = started?;
    Ok((decision, events, [socket, pid_file], locks))
}

/// The decision thread, its inbox, and the socket, which is to be removed at the end.
type Serving = (Decision, Receiver<(Time, Event)>, PathBuf);

/// The rest of [`start`], with the locks held.
fn start_locked(config: &Config, by: StartedBy, start_id: u64, alive: &Alive) -> Result<Serving> {
    let run_dir = config.run_dir();
    // Where core files go.
    if let Err(cause) = std::env::set_current_dir(&config.server.core_file_path) {
        messages::tell(&Tell::Warning(Error::io("change directory to", &config.server.core_file_path, cause)));
    }
    let loaded = store::load(&run_dir)?;
    let [one, two] = &config.network.servers;
    store::check_members(&run_dir, &one.id, &two.id)?;
    tell_start(config, by, &loaded);
    if let Err(error) = config.save() {
        messages::tell(&Tell::Warning(error));
    }

    let (inbox, events) = Inbox::new();
    let control = Control::bind(&run_dir)?;
    let pace = Arc::new(Pace::default());
    let inspector = Inspector::new(config, pace.clone());
    let listener = inspector.clone();
    let archive = ArchiveLink::start(config, pace.clone())?;
    let archive_listener = archive.clone();
    let asides = move |from, aside| {
        if let Some(other) = archive_listener.hear(from, aside) {
            listener.hear(from, other);
        }
    };
    let bystander = Bystander { pace: pace.clone(), asides: Arc::new(asides) };
    let links = Links::start(link_settings(config), inbox.clone(), bystander)?;
    inspector.speak(links.voice());
    archive.speak(links.voice());
    let health = config.server.health_check_address.clone();
    let by_operator = by != StartedBy::Watcher;
    let health = health.map(|at| Health::bind(at, by_operator, &links.resolver())).transpose()?;
    let boot = boot::read(config, by, start_id, loaded.durable)?;
    let peer_name = boot.peer_name.clone();
    let view = loaded.durable.map(|durable| durable.ledger.view);
    startup_log::watch(run_dir.join(STARTUP_LOG))?;
    let store = Store::start(run_dir, loaded.durable, inbox.clone())?;
    let own_name = boot.name.clone();
    let setup = runner::Setup::new(config, &own_name);
    let (rebuilds, checkpoints) = (rebuild::Board::default(), setup.checkpoints.clone());
    let job_ended = Arc::new(Mutex::new(Instant::now()));
    let (report, ended) = (inbox.clone(), job_ended.clone());
    let runner = Runner::start(
        setup,
        rebuilds.clone(),
        Box::new(move |event| {
            let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
            *ended = Instant::now();
            report.put(event);
        }),
    )?;
    let space = disk_space::Board::default();
    let connections = connections::Board::default();
    let watched = Watched { space: space.clone(), connections: connections.clone(), job_ended };
    let probes = start_probes(config, &peer_name, &inbox, watched, &pace, links.resolver())?;

    let started = now();
    let mut node = Node::new(config.settings(random()?));
    let first = node.step(started, Event::Boot(Box::new(boot)));
    let [one, two] = &config.network.servers;
    let snapshot = Snapshot {
        now: started,
        alive: started,
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started,
        start_id,
        servers: [named(one), named(two)],
        arbiter: config.network.arbiter.as_ref().map(named),
        clients: Default::default(),
        wall_ms: store::wall_ms(),
        noted: noted(&config.run_dir()),
        report: node.report(started),
        rebuild: None,
        checkpoint: None,
        space: Vec::new(),
        ledger_error: None,
        connections: Vec::new(),
        bin_dir: Some(config.server.bin_dir.display().to_string()),
        peer_failing: Vec::new(),
        backups: None,
    };
    let backups = backup_watch::Board::default();
    let backup_watch = backup_watch::watch(archive.clone(), backups.clone())?;
    let boards = (space, connections.clone(), backups);
    let failing = connections.clone();
    let board = Board::new(snapshot, rebuilds, checkpoints, boards, inbox.clone());
    let writer = runner.password_writer();
    let connections = connection_probe::start(config, &own_name, connections, board.clone(), writer)?;
    inspector.shows(board.clone(), connections.clone(), backup_watch);
    board.inspected_by(inspector.clone());
    board.archives_by(archive.clone());
    archive.orders(board.rebuilds());
    let names = Names { ids: [one.id.clone(), two.id.clone()], me: config.me, arbiter: arbiter_id(config) };
    let silence_ms = config.server.heartbeat_interval_ms.saturating_add(config.server.heartbeat_timeout_ms);
    let reasons = Reasons::new(names.ids.clone(), names.me, silence_ms, view);
    let peer = Member::Server(config.me.other());
    let mut decision = Decision {
        node,
        links,
        store,
        high_water: high_water::Notes::start(config.run_dir())?,
        runner,
        calls: Calls::new(config, inbox.clone()),
        probes,
        connections: connections.clone(),
        failing,
        board: board.clone(),
        reasons,
        names,
        peer,
        peer_name,
        peer_address: String::new(),
        client_host: config.server.client_address.clone(),
        clients: [String::new(), String::new()],
        action: config.server.heartbeat_error_action,
        peer_action: None,
        unwritten: String::new(),
        last: started,
        published: started,
        signalled: None,
        ask_again: false,
        stuck_since: None,
        ended: false,
    };
    let (probe, runner, calls) = (decision.probes.instance.clone(), &decision.runner, &decision.calls);
    let reloader = Arc::new(Reloader::new(config, probe, runner, calls, (inspector, archive), connections));
    board.reloaded_by(reloader.clone());
    take_signals(alive, reloader, inbox, (board.clone(), config.server.db_instance.clone()))?;
    for action in first {
        decision.perform(action);
    }
    if let Some(health) = health {
        health.serve(board.clone())?;
    }
    let socket = control.serve(board)?;
    Ok((decision, events, socket))
}

fn tell_start(config: &Config, by: StartedBy, loaded: &store::Loaded) {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    messages::tell(&Tell::Started { server: config.id.clone(), version });
    for remark in &config.remarks {
        messages::tell(&Tell::Remark(remark.clone()));
    }
    if loaded.no_birth_time {
        messages::tell(&Tell::NoBirthTime { path: config.run_dir().join("ledger").display().to_string() });
    }
    let was_on = loaded.durable.is_some_and(|durable| durable.notes.failover.enabled);
    if by.ordered().is_some_and(|(_, failover)| failover.is_none()) && !was_on {
        messages::tell(&Tell::FailoverOff);
    }
}

/// The newest change in the history. It only tells why the present view was entered, so that it may be missing.
fn noted(run_dir: &Path) -> Option<Change> {
    store::history(run_dir).inspect_err(|error| messages::tell(&Tell::Warning(error.clone()))).ok()?.pop()
}

fn arbiter_id(config: &Config) -> String {
    config.network.arbiter.as_ref().map(|line| line.id.clone()).unwrap_or_default()
}

fn named(line: &MemberLine) -> MemberName {
    MemberName { id: line.id.clone(), host: line.hosts.first().cloned().unwrap_or_default() }
}

/// What the links need to know.
pub(super) fn link_settings(config: &Config) -> links::Settings {
    let server = &config.server;
    let first = |line: &MemberLine| line.addresses().into_iter().next();
    let other = config.peer();
    let other = first(other).map(|address| links::Peer {
        member: Member::Server(config.me.other()),
        id: other.id.clone(),
        address,
        hosts: other.hosts.clone(),
        from: None,
        silence_ms: server.heartbeat_interval_ms.saturating_add(server.heartbeat_timeout_ms),
        key: other.key,
    });
    let arbiter = config.network.arbiter.as_ref().and_then(|line| {
        Some(links::Peer {
            member: Member::Arbiter,
            id: line.id.clone(),
            address: first(line)?,
            hosts: line.hosts.clone(),
            from: config.own().hosts.get(1).cloned(),
            silence_ms: server.arbiter_alive_interval_ms.saturating_add(server.arbiter_alive_timeout_ms),
            key: line.key,
        })
    });
    links::Settings {
        me: Member::Server(config.me),
        id: config.id.clone(),
        listen: config.own().addresses(),
        peers: other.into_iter().chain(arbiter).collect(),
        key: *config.key.as_bytes(),
        own_key: config.own_key.clone(),
        interval_ms: server.heartbeat_interval_ms,
        timeout_ms: server.heartbeat_timeout_ms,
    }
}

/// The ways to the probes; each ends when its own is dropped.
struct Probes {
    instance: Sender<db_probe::Command>,
    peer: Sender<peer_probe::Command>,
    _disk: Sender<()>,
}

/// What the probes share with others.
struct Watched {
    space: disk_space::Board,
    connections: connections::Board,
    job_ended: Arc<Mutex<Instant>>,
}

fn start_probes(
    config: &Config,
    peer_name: &str,
    inbox: &Inbox,
    Watched { space, connections, job_ended }: Watched,
    pace: &Arc<Pace>,
    resolver: Resolver,
) -> Result<Probes> {
    let server = &config.server;
    let failed = |cause| Error::new(format!("could not start a probe: {cause}"));
    let settings = db_probe::Settings {
        target: reload::target(config),
        interval: Duration::from_millis(server.db_instance_check_interval_ms),
        timeout: Duration::from_millis(server.db_instance_check_timeout_ms),
        peer: peer_name.to_owned(),
        tablespaces: db_probe::Tablespaces::default(),
        pace: pace.clone(),
        connections,
    };
    let names = settings.tablespaces.clone();
    let disk = disk_probe::Settings {
        data: server.db_instance.clone(),
        management: config.run_dir(),
        journal: rebuild::Journal::path(&config.run_dir()),
        interval: Duration::from_millis(server.disk_check_interval_ms),
        timeout: Duration::from_millis(server.disk_check_timeout_ms),
        pace: pace.clone(),
    };
    let interval = Duration::from_millis(server.heartbeat_interval_ms);
    let timeout = Duration::from_millis(server.heartbeat_timeout_ms);
    let report = inbox.clone();
    let disk_report = disk_reporter(server.tablespace_error_is_failure, names, space, inbox);
    Ok(Probes {
        instance: db_probe::spawn(settings, reporter(inbox, job_ended)).map_err(failed)?,
        peer: peer_probe::spawn(resolver, interval, timeout, move |event| _ = report.offer(event)).map_err(failed)?,
        _disk: disk_probe::spawn(disk, disk_report).map_err(failed)?,
    })
}

/// With `tablespace_directory_error_action = message` a failed tablespace is a message, once, and no failure.
fn disk_reporter(
    tablespaces: bool,
    names: db_probe::Tablespaces,
    space: disk_space::Board,
    inbox: &Inbox,
) -> impl Fn(disk_probe::Round) + Send + 'static {
    let inbox = inbox.clone();
    let full = std::cell::RefCell::new(String::new());
    let told = std::cell::RefCell::new(Disk::Good);
    move |round| {
        let round = round.named(&names.lock().unwrap_or_else(PoisonError::into_inner));
        space.write(round.space.clone());
        if full.replace(round.full()) != round.full() {
            inbox.put(Event::DiskFull(round.full()));
        }
        if !tablespaces && *told.borrow() != round.tablespaces {
            if let Disk::Failed(which) = &round.tablespaces {
                messages::tell(&Tell::Warning(Error::new(format!("the disk of {which} has failed"))));
            }
            told.replace(round.tablespaces.clone());
        }
        inbox.offer(Event::Disk(round.fold(tablespaces)));
    }
}

/// Readings may be lost, since the next one replaces them; a death is told once. A reading that was begun before the last
/// job ended may say what was before, and is not told after the job's end; the end has the probe look again.
fn reporter(inbox: &Inbox, job_ended: Arc<Mutex<Instant>>) -> db_probe::Report {
    let inbox = inbox.clone();
    Arc::new(move |event, began| {
        if matches!(event, Event::Died { .. }) {
            inbox.put(event);
            return;
        }
        if began < *job_ended.lock().unwrap_or_else(PoisonError::into_inner) {
            return;
        }
        // A role without the run of the instance that has it would be taken for that of an older version.
        match event {
            Event::Wal(_) => _ = inbox.put(event),
            event => _ = inbox.offer(event),
        }
    })
}

/// SIGTERM and SIGINT ask for what a service manager, or a hand on the terminal, means: with `--foreground` the end of
/// controller and instance, else that of the controller alone. The second one, or a controller that does not end by
/// itself, is ended at once. SIGHUP has the configuration read again.
fn take_signals(alive: &Alive, reloader: Arc<Reloader>, inbox: Inbox, of: (Board, PathBuf)) -> Result<()> {
    let (foreground, mark) = (alive.is_foreground(), alive.mark());
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|cause| Error::new(format!("could not handle signals: {cause}")))?;
    spawn("signals", move || {
        let mut asked = false;
        for signal in signals.forever() {
            if signal == SIGHUP {
                let reloader = reloader.clone();
                let _ = spawn("reload", move || drop(reloader.reload()));
                continue;
            }
            // Also if the decision thread hangs and the service manager kills this process.
            mark.clear();
            if asked {
                messages::flush(END_LIMIT);
                std::process::exit(if foreground { 128 + signal } else { 0 });
            }
            asked = true;
            let request = Request::Stop { instance: foreground, all: false };
            let limit_ms = match foreground {
                true => reloader.remote_call_timeout_ms(),
                false => SIGNALLED_LIMIT.as_millis() as u64,
            };
            let stop = Event::Request { id: SIGNALLED, request, limit_ms };
            if !foreground {
                inbox.put(stop);
                let _ = spawn("signals-limit", || {
                    std::thread::sleep(SIGNALLED_LIMIT);
                    std::process::exit(0);
                });
                continue;
            }
            // On a thread: a second signal ends the wait.
            let (inbox, (board, data)) = (inbox.clone(), of.clone());
            let _ = spawn("stop", move || {
                full_disk_stop::run(&board, &data);
                inbox.put(stop);
            });
        }
    })?;
    Ok(())
}

// --------------------------------------------------------------------------------------------------------------- loop

struct Decision {
    node: Node,
    links: Links,
    store: Store,
    high_water: high_water::Notes,
    runner: Runner,
    calls: Calls,
    probes: Probes,
    connections: connection_probe::Handle,
    /// The connections that fail.
    failing: connections::Board,
    board: Board,
    reasons: Reasons,
    names: Names,
    /// The other server.
    peer: Member,
    /// Its `application_name`, as last told.
    peer_name: String,
    /// `host:port` of its instance, as last told.
    peer_address: String,
    /// `client_address` of this server.
    client_host: String,
    /// `host:port` of both instances for their clients, as last told.
    clients: [String; 2],
    /// `heartbeat_error_action` of this server.
    action: OnSilence,
    /// The other server's, as last told.
    peer_action: Option<OnSilence>,
    /// Why the ledger cannot be written, as last logged: each try says so.
    unwritten: String,
    /// The time last given to the core.
    last: Time,
    /// When the state was last published.
    published: Time,
    /// What a signal has asked for, and the time limit.
    signalled: Option<(Request, u64)>,
    /// It was refused because of another command, or has failed: asked again with the next tick.
    ask_again: bool,
    /// Since when the instance is down as a signal has ordered, and the ledger cannot be written.
    stuck_since: Option<Time>,
    ended: bool,
}

impl Decision {
    fn go_round(&mut self, events: &Receiver<(Time, Event)>, alive: &mut Alive) {
        let tick = Duration::from_millis(TICK_MS);
        let mut next_tick = Instant::now();
        while !self.ended {
            let first = events.recv_deadline(next_tick).ok();
            let mut news = first.is_some();
            for (at, event) in first.into_iter().chain(events.try_iter()).take(BATCH) {
                self.step(at, event);
            }
            if Instant::now() >= next_tick {
                self.step(now(), Event::Tick);
                self.repeat_signal();
                self.leave_without_ledger();
                next_tick = Instant::now() + tick;
            }
            news |= self.last.since(self.published) >= PUBLISH_MS;
            if news {
                self.published = self.last;
                let report = self.node.report(self.last);
                alive.status(|| status::in_short(&report));
                self.board.publish(self.reasons.complete(report));
            }
            self.board.hand_out(&self.node);
            self.board.alive(self.last);
            alive.beat();
        }
    }

    fn step(&mut self, at: Time, event: Event) {
        // Two threads may stamp in one order and put in in the other.
        self.last = self.last.max(at);
        self.pass_on(&event);
        self.feed(event);
    }

    fn feed(&mut self, event: Event) {
        for action in self.node.step(self.last, event) {
            let action = self.reasons.explain(action, self.last);
            self.perform(action);
        }
    }

    /// A service manager sends its signal once, and kills a controller that does not end.
    fn repeat_signal(&mut self) {
        if std::mem::take(&mut self.ask_again)
            && let Some((request, limit_ms)) = self.signalled
        {
            self.feed(Event::Request { id: SIGNALLED, request, limit_ms });
        }
    }

    /// A stop on a signal ends with a note in the ledger. If that cannot be written and the instance is down, as ordered, nothing
    /// is left to wait for: the next start finds the ledger as after a crash.
    fn leave_without_ledger(&mut self) {
        let Some((Request::Stop { instance: true, .. }, _)) = self.signalled else { return };
        let own = &self.board.snapshot().report.servers[self.names.me.index()];
        let down = own.postmaster_runs() == Some(false);
        if self.unwritten.is_empty() || !down {
            self.stuck_since = None;
        } else if self.last.since(*self.stuck_since.get_or_insert(self.last)) >= LEAVE_MS {
            let what = format!("the controller ends without a note of that in its ledger: {}", self.unwritten);
            messages::tell(&Tell::Warning(Error::new(what)));
            self.ended = true;
        }
    }

    /// What other threads are told of an event, which is none of the core's business.
    fn pass_on(&mut self, event: &Event) {
        match event {
            Event::DiskFull(full) => self.reasons.reported(self.names.me, full, self.last),
            Event::Heard(from, Message::Heartbeat(heartbeat)) if *from == self.peer => {
                self.reasons.reported(self.names.me.other(), &heartbeat.full, self.last);
                if !heartbeat.name.is_empty() && heartbeat.name != self.peer_name {
                    self.peer_name.clone_from(&heartbeat.name);
                    let _ = self.probes.instance.send(db_probe::Command::PeerName(heartbeat.name.clone()));
                }
                if self.peer_action.replace(heartbeat.on_silence) != Some(heartbeat.on_silence)
                    && heartbeat.on_silence != self.action
                {
                    let (mine, theirs) = (self.action, heartbeat.on_silence);
                    messages::tell(&Tell::ActionsDiffer { mine, peer: self.names.peer().to_owned(), theirs });
                }
                let other = self.names.me.other().index();
                if heartbeat.client_address != self.clients[other] {
                    self.clients[other].clone_from(&heartbeat.client_address);
                    self.board.publish_client(other, &heartbeat.client_address);
                }
                if heartbeat.address != self.peer_address {
                    self.peer_address.clone_from(&heartbeat.address);
                    let _ = self.probes.peer.send(peer_probe::Command::Address(heartbeat.address.clone()));
                    self.connections.address(&heartbeat.address);
                }
            }
            Event::Done(..) => self.look(),
            Event::Stored(_) if !self.unwritten.is_empty() => {
                self.unwritten.clear();
                self.board.publish_ledger_error(None);
            }
            Event::Request { id, request, limit_ms } => {
                if *id == SIGNALLED {
                    self.signalled = Some((*request, *limit_ms));
                }
                messages::tell(&Tell::Request { what: request_text(request).to_owned() });
            }
            _ => (),
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Send(to, message) => {
                let message = self.with_client_address(message);
                self.links.send(to, &message);
            }
            Action::Store(number, durable, reason) => {
                self.store.write(number, durable, reason.map_or_else(String::new, |reason| reason.to_string()));
            }
            Action::Run(id, job) => {
                if matches!(job, Job::Rebuild(_)) {
                    // It was of the data directory that is replaced.
                    connections::note(&self.failing, Purpose::Replication, None);
                }
                self.runner.run(id, job);
            }
            Action::Call(id, command) => self.calls.call(id, &command),
            Action::CallOff(id) => self.calls.call_off(id),
            Action::Nudge(id) => self.runner.nudge(id),
            Action::WatchPeer(on) => drop(self.probes.peer.send(peer_probe::Command::Watch(on))),
            Action::Look => self.look(),
            Action::CompareWal(point) => drop(self.probes.instance.send(db_probe::Command::Compare(point))),
            Action::NoteHighWater(note) => self.high_water.write(note),
            Action::Reply(SIGNALLED, Reply::Done) => (),
            Action::Reply(SIGNALLED, Reply::Refused(_)) => self.ask_again = true,
            Action::Reply(SIGNALLED, Reply::Failed(why) | Reply::TimedOut(why)) => {
                messages::tell(&Tell::Error(Error::new(why)));
                self.ask_again = true;
            }
            Action::Reply(id, reply) => self.board.reply(id, reply),
            Action::Log(CoreMessage::StoreFailed(why)) if why == self.unwritten => (),
            Action::Log(say) => {
                if let CoreMessage::StoreFailed(why) = &say {
                    self.unwritten.clone_from(why);
                    self.board.publish_ledger_error(Some(why));
                }
                match self.reasons.cause_of(&say, self.last) {
                    Some(cause) => messages::log_with_cause(&say, &self.names, &cause),
                    None => messages::log(&say, &self.names),
                }
            }
            Action::Exit => self.ended = true,
        }
    }

    /// A heartbeat says how clients reach this server, which is none of the core's business either.
    fn with_client_address(&mut self, mut message: Message) -> Message {
        if let Message::Heartbeat(heartbeat) = &mut message {
            let port = heartbeat.address.rsplit(':').next().and_then(|port| port.parse().ok());
            let address = port.map_or(String::new(), |port| boot::join(&self.client_host, port));
            if address != self.clients[self.names.me.index()] {
                self.board.publish_client(self.names.me.index(), &address);
                self.clients[self.names.me.index()].clone_from(&address);
            }
            heartbeat.client_address = address;
        }
        message
    }

    fn look(&self) {
        let _ = self.probes.instance.send(db_probe::Command::Kick);
    }

    /// Writes what is still to be written, and lets the clients' threads hand out their last answers.
    fn end(self) {
        self.calls.finish(END_LIMIT);
        self.store.finish(END_LIMIT);
        let deadline = Instant::now() + Duration::from_millis(300);
        while self.board.is_answering() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn request_text(request: &Request) -> &'static str {
    match request {
        Request::Start { .. } => "start",
        Request::Stop { .. } => "stop",
        Request::Switch => "switch",
        Request::Detach => "detach",
        Request::ForceSwitch { .. } => "switch --force",
        Request::ForceDetach { .. } => "detach --force",
        Request::AdoptData => "start --adopt-data",
        Request::Failover(true) => "enable-failover",
        Request::Failover(false) => "disable-failover",
        Request::Rebuild(_) => "rebuild",
    }
}
