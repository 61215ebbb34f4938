//! The loop: waits on every socket at once, and steps the cores. What callers do is in `callers.rs`.
//!
//! Nothing in it blocks. Heartbeats are taken in before proposals are judged, so that after a pause nobody is called
//! silent whose words only waited to be read.

mod callers;

use super::cluster::Cluster;
use super::connection::Connection;
use super::control::{Answer, Call, Snapshot};
use super::fencing::Fencing;
use super::ledgers::{self, Found, Ledgers};
use super::probe::{self, Probe, Silence};
use super::slots::Slots;
use super::{News, Notifier};
use crate::config::arbiter::ArbiterConfig;
use crate::daemon::resolver::Resolver;
use crate::daemon::watcher::Alive;
use crate::daemon::{disk_space, listening, now, sockets};
use crate::error::{Error, Result};
use crate::fsm::event::{Action, CoreMessage, Event, Message, TICK_MS};
use crate::fsm::types::{Member, Server, SystemId, Time};
use crate::messages::{self, Tell};
use crate::status::{Level, Space};
use crossbeam_channel::{Receiver, Sender};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// How long an accepted connection may take to say who it is, ms.
const HANDSHAKE_LIMIT_MS: u64 = 2000;

/// Keys that are tried for callers from addresses of no cluster, in a second.
const KEYS_PER_SECOND: usize = 20_000;

/// How long handshakes may take of a round, ms: a thousand servers that come back at once hold up neither the heartbeats
/// of those who are there nor a command. They are by far the dearest thing that is done here.
const HANDSHAKES_MS: u64 = 20;

/// A connection on which nothing arrives is closed after the detection time, at least this, ms.
const SILENCE_LIMIT_MS: u64 = 2000;

/// The same where no server of the pair has told its detection time yet, ms.
const UNTOLD_LIMIT_MS: u64 = 10_000;

/// Events taken from the kernel at a time.
const BATCH: usize = 1024;

/// From so many clusters on, a round waits for [`GATHERING`] before it looks: most of what a round costs is the same for
/// one heartbeat and for ten.
const MANY: usize = 100;
const GATHERING: Duration = Duration::from_millis(4);

/// Full batches that are taken in before time is let go by: silence is judged by what has arrived, not by what was read.
const MAX_FULL_BATCHES: u32 = 16;

/// Longest dial of a probe, ms.
const DIAL_LIMIT_MS: u64 = 1000;

/// What the loop waits on.
enum Source {
    Listener(TcpListener),
    /// News from other threads.
    Wake,
    Connection(Box<Connection>),
    /// A dial of a probe.
    Dial(Dial),
}

struct Dial {
    socket: OwnedFd,
    address: SocketAddr,
    cluster: usize,
    server: Server,
    round: u64,
    since: Time,
}

/// The arbiter's loop and all that it holds.
pub struct Hub {
    epoll: OwnedFd,
    sources: Slots<Source>,
    notifier: Notifier,
    news: Receiver<News>,
    clusters: Vec<Cluster>,
    /// Those whose files are not as they must be, and why.
    refused: Vec<(String, String)>,
    probes: Vec<[Probe; 2]>,
    /// The clusters whose servers have an address.
    by_address: HashMap<IpAddr, Vec<usize>>,
    resolver: Resolver,
    ledgers: Ledgers,
    space: disk_space::Board,
    /// Ledgers found at the start that no cluster has taken yet.
    found: HashMap<SystemId, Found>,
    fencing: Option<Fencing>,
    /// Removals under way, and who waits for them.
    forgetting: HashMap<SystemId, Sender<Answer>>,
    /// Tokens of what has a time limit: strangers and dials.
    limited: HashSet<u64>,
    strangers: usize,
    /// The same of each address of a cluster's server.
    waiting: HashMap<IpAddr, usize>,
    /// When handshakes have taken enough of the present round; after one, the others wait for the next round.
    handshakes_until: Time,
    shook_hands: bool,
    /// Some wait.
    crowded: bool,
    /// Keys that may be tried for unknown callers now.
    keys_left: usize,
    /// When a stranger was last reported.
    reported: Option<Time>,
    /// When a caller was that does not prove its key.
    reported_keys: Option<Time>,
    /// Proposals that wait until everything that has arrived was taken in.
    proposals: Vec<(usize, Server, Message)>,
    control_clients: Arc<AtomicUsize>,
    began: Time,
    ended: bool,
}

impl Hub {
    /// Reads the ledgers, binds the listening addresses and starts the threads.
    ///
    /// # Errors
    /// An address that cannot be bound, for a reason that waiting does not remove; the run-time directory cannot be read; no thread can be started.
    pub fn start(
        config: &ArbiterConfig,
        notifier: Notifier,
        news: Receiver<News>,
        control_clients: Arc<AtomicUsize>,
    ) -> Result<Hub> {
        let began = now();
        raise_file_limit();
        let run_dir = config.run_dir();
        let found = ledgers::scan(&run_dir)?;
        let fencing = config.fencing_command.clone().map(|command| Fencing {
            command,
            limit: Duration::from_millis(config.fencing_command_timeout_ms),
            out: Arc::default(),
        });
        let clusters: Result<Vec<Cluster>> =
            config.clusters.iter().map(|cluster| Cluster::new(cluster, fencing.is_some(), began)).collect();
        let clusters = clusters?;
        let hosts = clusters.iter().flat_map(|cluster| &cluster.servers).flat_map(|server| &server.addresses);
        let hosts: Vec<String> = hosts.chain(&config.listen).map(|(host, _)| host.clone()).collect();
        let own = notifier.clone();
        let resolver = Resolver::start(hosts, move || own.tell(News::Resolved))?;
        let failed = |cause| Error::new(format!("could not make an epoll descriptor: {cause}"));
        let space = disk_space::Board::default();
        disk_space::watch(run_dir.clone(), space.clone())?;
        let mut hub = Hub {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?,
            sources: Slots::new(),
            resolver,
            ledgers: Ledgers::start(&run_dir, &found, &notifier)?,
            space: space.clone(),
            notifier,
            news,
            probes: clusters.iter().map(|_| Default::default()).collect(),
            clusters,
            refused: config.refused.iter().map(|(name, why)| (name.clone(), why.to_string())).collect(),
            by_address: HashMap::new(),
            found,
            fencing,
            forgetting: HashMap::new(),
            limited: HashSet::new(),
            strangers: 0,
            waiting: HashMap::new(),
            handshakes_until: began,
            shook_hands: false,
            crowded: false,
            keys_left: KEYS_PER_SECOND,
            reported: None,
            reported_keys: None,
            proposals: Vec::new(),
            control_clients,
            began,
            ended: false,
        };
        hub.claim(began)?;
        hub.map_addresses();
        let own = hub.notifier.clone();
        let take: listening::Take = Arc::new(move |listener| own.tell(News::Listening(listener)));
        for (host, port) in &config.listen {
            listening::open(&hub.resolver, host, *port, true, &take).map_err(|error| {
                error.hint(
                    "It must be an address of this host with a free port: see my_address and port in arbitration.conf, and the \
                     arbiter's line in network.conf.",
                )
            })?;
        }
        hub.add(Source::Wake, epoll::EventFlags::IN)?;
        Ok(hub)
    }

    fn listen(&mut self, listener: TcpListener) -> Result<()> {
        listener.set_nonblocking(true).map_err(|cause| Error::new(format!("could not listen: {cause}")))?;
        // The standard library's backlog is short for a thousand clusters that dial at once.
        let _ = rustix::net::listen(&listener, 4096);
        self.add(Source::Listener(listener), epoll::EventFlags::IN).map(drop)
    }

    /// Gives each ledger that was found to the cluster whose name was noted with it.
    fn claim(&mut self, at: Time) -> Result<()> {
        for index in 0..self.clusters.len() {
            let name = &self.clusters[index].name;
            let of_it = |found: &Found| found.cluster.as_ref() == Some(name);
            let mut own: Vec<SystemId> =
                self.found.iter().filter(|(_, found)| of_it(found)).map(|(system, _)| *system).collect();
            // Of several (an older pair of the same name) a server's word decides.
            if let (Some(system), true) = (own.pop(), own.is_empty()) {
                self.take_ledger(index, system, at)?;
            }
        }
        Ok(())
    }

    fn take_ledger(&mut self, index: usize, system: SystemId, at: Time) -> Result<()> {
        let Some(found) = self.found.remove(&system) else { return Ok(()) };
        let cluster = &mut self.clusters[index];
        cluster.adopt(system, &found, at)?;
        if let Err(why) = &cluster.core {
            messages::tell(&Tell::ClusterNotServed { cluster: cluster.title(), why: why.clone() });
        }
        Ok(())
    }

    /// Whose servers have which addresses.
    fn map_addresses(&mut self) {
        self.by_address.clear();
        for (index, cluster) in self.clusters.iter().enumerate() {
            for (host, _) in cluster.servers.iter().flat_map(|server| &server.addresses) {
                for address in self.resolver.known(host) {
                    let of_it = self.by_address.entry(address).or_default();
                    if of_it.last() != Some(&index) {
                        of_it.push(index);
                    }
                }
            }
        }
    }

    fn add(&mut self, source: Source, flags: epoll::EventFlags) -> Result<u64> {
        let data = epoll::EventData::new_u64(self.sources.next());
        let added = match &source {
            Source::Listener(listener) => epoll::add(&self.epoll, listener, data, flags),
            Source::Wake => epoll::add(&self.epoll, &*self.notifier.wake, data, flags),
            Source::Connection(connection) => epoll::add(&self.epoll, connection.stream(), data, flags),
            Source::Dial(dial) => epoll::add(&self.epoll, &dial.socket, data, flags),
        };
        added.map_err(|cause| Error::new(format!("could not watch a socket: {cause}")))?;
        Ok(self.sources.insert(source))
    }

    // ---------------------------------------------------------------------------------------------------------- loop

    /// Goes round until it is told to end.
    pub fn go_round(&mut self, alive: &mut Alive) {
        let mut events = Vec::with_capacity(BATCH);
        let mut next_tick = now().plus(TICK_MS);
        let mut full_batches = 0;
        while !self.ended {
            if self.clusters.len() >= MANY {
                std::thread::sleep(GATHERING);
            }
            let wait = next_tick.since(now());
            let wait = Timespec { tv_sec: 0, tv_nsec: (wait.min(TICK_MS) * 1_000_000) as i64 };
            events.clear();
            let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&wait));
            self.handshakes_until = now().plus(HANDSHAKES_MS);
            (self.shook_hands, self.crowded) = (false, false);
            for event in &events {
                let event: &epoll::Event = event;
                self.ready(event.data.u64());
            }
            alive.beat();
            // With a full batch there may be more to take in first.
            full_batches = if events.len() == BATCH { full_batches + 1 } else { 0 };
            if (1..=MAX_FULL_BATCHES).contains(&full_batches) {
                continue;
            }
            for (cluster, server, proposal) in std::mem::take(&mut self.proposals) {
                self.step(cluster, now(), Event::Heard(Member::Server(server), proposal));
            }
            let at = now();
            if at >= next_tick {
                self.tick(at);
                next_tick = at.plus(TICK_MS);
            }
        }
    }

    fn ready(&mut self, token: u64) {
        match self.sources.get(token) {
            Some(Source::Listener(_)) => self.accept(token),
            Some(Source::Wake) => {
                let _ = rustix::io::read(&*self.notifier.wake, &mut [0; 8]);
                while let Ok(news) = self.news.try_recv() {
                    self.take_news(news);
                }
            }
            Some(Source::Connection(_)) => {
                if let Err(error) = self.talk(token) {
                    self.hang_up(token, &error);
                }
            }
            Some(Source::Dial(_)) => self.dialled(token),
            None => (),
        }
    }

    fn tick(&mut self, at: Time) {
        self.keys_left = (self.keys_left + KEYS_PER_SECOND * TICK_MS as usize / 1000).min(KEYS_PER_SECOND);
        // Who waits for us is not late.
        if !self.crowded {
            self.end_what_is_late(at);
        }
        for index in 0..self.clusters.len() {
            self.step(index, at, Event::Tick);
            for server in Server::BOTH {
                self.watch(index, server, at);
            }
        }
    }

    fn end_what_is_late(&mut self, at: Time) {
        let mut late = Vec::new();
        for token in &self.limited {
            match self.sources.get(*token) {
                Some(Source::Connection(connection)) if at.since(connection.since) < HANDSHAKE_LIMIT_MS => (),
                Some(Source::Dial(dial)) if at.since(dial.since) < DIAL_LIMIT_MS => (),
                _ => late.push(*token),
            }
        }
        for token in late {
            self.limited.remove(&token);
            match self.sources.get(token) {
                Some(Source::Connection(_)) => self.hang_up(token, &Error::new("it did not identify itself in time")),
                Some(Source::Dial(dial)) => {
                    let (cluster, server, round) = (dial.cluster, dial.server, dial.round);
                    self.sources.remove(token);
                    self.probed(cluster, server, round, false);
                }
                _ => (),
            }
        }
    }

    /// Gives up a connection on which nothing arrives, and probes a server that has fallen silent.
    fn watch(&mut self, index: usize, server: Server, at: Time) {
        let cluster = &self.clusters[index];
        let seen = &cluster.servers[server.index()];
        let Some(heard) = seen.heard else { return };
        let (connection, silent_ms, detection_ms) = (seen.connection, at.since(heard), cluster.detection_ms());
        if let Some(token) = connection
            && silent_ms >= if detection_ms == 0 { UNTOLD_LIMIT_MS } else { detection_ms.max(SILENCE_LIMIT_MS) }
        {
            self.hang_up(token, &Error::new("no heartbeat received"));
        }
        let silence = Silence { connected: connection.is_some(), silent_ms, detection_ms };
        let Some(round) = self.probes[index][server.index()].due(&silence, at) else { return };
        let seen = &self.clusters[index].servers[server.index()];
        let targets = probe::targets(&seen.addresses, &seen.instance, &self.resolver);
        self.probes[index][server.index()].dialled(targets.len());
        for address in targets {
            let refused = match sockets::begin(address, None) {
                Ok(socket) => {
                    let dial = Dial { socket, address, cluster: index, server, round, since: at };
                    match self.add(Source::Dial(dial), epoll::EventFlags::OUT) {
                        Ok(token) => {
                            self.limited.insert(token);
                            continue;
                        }
                        Err(_) => false,
                    }
                }
                Err(cause) => cause == Errno::CONNREFUSED,
            };
            self.probed(index, server, round, refused);
        }
    }

    fn dialled(&mut self, token: u64) {
        self.limited.remove(&token);
        if let Some(Source::Dial(Dial { socket, address, cluster, server, round, .. })) = self.sources.remove(token) {
            let refused = sockets::outcome(socket, address).err() == Some(Errno::CONNREFUSED);
            self.probed(cluster, server, round, refused);
        }
    }

    fn probed(&mut self, cluster: usize, server: Server, round: u64, refused: bool) {
        if self.probes[cluster][server.index()].ended(round, refused) {
            self.step(cluster, now(), Event::Refused(Member::Server(server)));
        }
    }

    // --------------------------------------------------------------------------------------------------------- cores

    fn step(&mut self, index: usize, at: Time, event: Event) {
        let cluster = &mut self.clusters[index];
        let Ok(core) = &mut cluster.core else { return };
        if matches!(event, Event::Stored(_)) {
            cluster.unwritten.clear();
        }
        for action in core.step(at, event) {
            self.perform(index, action);
        }
    }

    fn perform(&mut self, index: usize, action: Action) {
        let cluster = &mut self.clusters[index];
        match action {
            Action::Send(Member::Server(server), message) => {
                let message = with_disk(message, &self.space.read(), &cluster.unwritten);
                self.send(index, server, &message);
            }
            Action::Store(number, durable, reason) => {
                let system = durable.ledger.system;
                if cluster.system.is_none() {
                    cluster.system = Some(system);
                    messages::tell(&Tell::ClusterLearned { cluster: cluster.title(), system: system.0 });
                }
                let reason = reason.map_or_else(String::new, |reason| reason.to_string());
                self.ledgers.write(index, &cluster.name, number, durable, reason);
            }
            Action::Call(id, command) => {
                if let Some(fencing) = &self.fencing {
                    fencing.call(index, cluster, id, &command, &self.notifier);
                }
            }
            Action::Log(CoreMessage::Paused { .. }) if index > 0 => (),
            // It is tried each second.
            Action::Log(CoreMessage::StoreFailed(why)) if why == cluster.unwritten => (),
            Action::Log(say) => {
                if let CoreMessage::StoreFailed(why) = &say {
                    cluster.unwritten.clone_from(why);
                }
                messages::log_for(&cluster.title(), &say, &cluster.names)
            }
            other => log::error!("operation {other:?} is not supported"),
        }
    }

    // ---------------------------------------------------------------------------------------------------------- news

    fn take_news(&mut self, news: News) {
        match news {
            News::Of(cluster, event) => self.step(cluster, now(), *event),
            News::Called(cluster, generation, id, result) => {
                if self.clusters[cluster].generation == generation {
                    self.step(cluster, now(), Event::CommandDone(id, result));
                }
            }
            News::Removed(system, outcome) => self.removed(system, outcome),
            News::Resolved => self.map_addresses(),
            News::Listening(listener) => {
                if let Err(error) = self.listen(listener) {
                    messages::tell(&Tell::Warning(error));
                }
            }
            News::Call(Call::Status, answer) => {
                let _ = answer.send(Answer::Status(Box::new(self.snapshot())));
            }
            News::Call(Call::Stop, answer) => {
                let _ = answer.send(Answer::Done);
                self.ended = true;
            }
            News::Call(Call::Forget(system), answer) => self.forget(SystemId(system), answer),
            News::Stop => self.ended = true,
        }
    }

    /// Refused while one of the cluster's servers is connected. A server of another cluster does not count.
    fn forget(&mut self, system: SystemId, answer: Sender<Answer>) {
        let holder = self.clusters.iter().position(|cluster| cluster.system == Some(system));
        if let Some(index) = holder {
            let cluster = &self.clusters[index];
            let is_other = |server| cluster.core.as_ref().is_ok_and(|core| core.other_system(server).is_some());
            let connected = Server::BOTH
                .into_iter()
                .find(|server| cluster.servers[server.index()].connection.is_some() && !is_other(*server));
            if let Some(server) = connected {
                let id = cluster.names.id(server);
                let what = format!("server \"{id}\" of system identifier {} is connected", system.0);
                let _ = answer.send(Answer::Refused(what));
                return;
            }
            // What the core knows is gone with the ledger, and it must not be written again.
            self.clusters[index].core = Err(Error::new("its ledger is being removed"));
        }
        self.forgetting.insert(system, answer);
        self.ledgers.remove(system);
    }

    fn removed(&mut self, system: SystemId, outcome: Result<bool>) {
        let at = now();
        let removed = outcome.as_ref().is_ok_and(|removed| *removed);
        self.found.remove(&system);
        for index in 0..self.clusters.len() {
            let cluster = &mut self.clusters[index];
            // Also those that were not served because another one had this system identifier.
            let waits = cluster.core.is_err() && (cluster.system.is_none() || cluster.system == Some(system));
            if !waits {
                continue;
            }
            let begun = match &outcome {
                Ok(_) => cluster.begin(None, at),
                Err(error) => Err(error.clone()),
            };
            if let Err(error) = begun {
                self.give_up(index, error);
            }
        }
        if removed {
            messages::tell(&Tell::ClusterForgotten { system: system.0 });
        }
        if let Some(answer) = self.forgetting.remove(&system) {
            let _ = answer.send(match outcome {
                Ok(true) => Answer::Done,
                Ok(false) => Answer::Refused(format!("there is no ledger of system identifier {}", system.0)),
                Err(error) => Answer::Failed(error.to_string()),
            });
        }
    }

    fn snapshot(&self) -> Snapshot {
        let mut others: Vec<u64> = self.found.keys().map(|system| system.0).collect();
        others.sort_unstable();
        Snapshot {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: now().since(self.began),
            clusters: self.clusters.iter().map(Cluster::status).collect(),
            refused: self.refused.clone(),
            others,
            space: self.space.read(),
        }
    }

    /// How many commands are being served.
    pub fn clients(&self) -> Arc<AtomicUsize> {
        self.control_clients.clone()
    }

    /// Closes every connection and writes what is still to be written, at most for `limit`.
    pub fn end(self, limit: Duration) {
        drop(self.sources);
        self.ledgers.finish(limit);
    }
}

/// A heartbeat reports the file system of the directory, and a ledger that cannot be written, which is none of the core's
/// business.
fn with_disk(mut message: Message, space: &[Space], unwritten: &str) -> Message {
    if let (Message::Heartbeat(heartbeat), Some(space)) = (&mut message, space.first()) {
        if space.state == Level::Full {
            heartbeat.full = space.directory.to_string();
        }
        if space.state != Level::Normal {
            heartbeat.space = space.sentence();
        }
        if !unwritten.is_empty() {
            unwritten.clone_into(&mut heartbeat.failure);
        } else if space.blocks_ledger() {
            heartbeat.failure = "the file system is full, and the reserve is used up".to_owned();
        }
    }
    message
}

/// A connection takes a descriptor, and the usual soft limit is 1024.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
