//! Connections between the members.
//!
//! A server sends on the connections that it dials and receives from the other server on those that it accepts, so each
//! direction between the two is a TCP connection of its own, and a direction that is cut does not hide behind the other.
//! The arbiter answers on the connection that the server dials (`daemon::arbiter` is its end), so a server never accepts
//! one from it. One thread for each peer dials and sends; one for each listening address accepts; one for each accepted
//! connection receives. A member whose key `network.conf` lists must prove it; a member whose `network.conf` does not list
//! the keys yet, and which has one, answers to either handshake, and proves its own to a peer that has proved one. Host
//! names are resolved by [`Resolver`], so a dial never waits for a name service once an address is known. Nothing is decided here: what is heard, and what the other's kernel refuses, goes to the inbox.

use super::noise::{Identity, NotProved, Reader, Refusal, Writer, has_hung_up};
use super::pace::Pace;
use super::resolver::Resolver;
use super::{Inbox, listening, lock, now, sockets, spawn};
use crate::config::{PrivateKey, PublicKey};
use crate::error::{Error, Result};
use crate::fsm::event::{Event, Message};
use crate::fsm::types::{Member, Time};
use crate::messages::{self, Tell};
use crate::pg::bounded::{self, Cancel};
use crate::wire::{self, Aside, Hello};
use crossbeam_channel::{Receiver, Sender};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::Shutdown;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Connections that may wait to be authenticated at a time: from the members' addresses, and from all others. Connections
/// from other addresses cannot keep a member out.
const MAX_CALLERS: usize = 16;

/// How long an accepted connection may take to authenticate itself.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(2);

/// Messages that may wait for a connection; a message that finds no room is dropped.
const QUEUE_LENGTH: usize = 64;

/// The longest pause after a refused connection.
const REFUSED_PAUSE_MS: u64 = 100;

/// After so many failures of other kinds in a row the pauses grow from that to the heartbeat interval.
const SHORT_PAUSES: u32 = 20;

/// Strangers are reported at most this often.
const REPORT_INTERVAL_MS: u64 = 60_000;

/// How long the end of the links waits until what is queued has been sent.
const LAST_MESSAGES: Duration = Duration::from_millis(300);

/// Another member, as in `network.conf`.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Which.
    pub member: Member,
    /// Its identifier.
    pub id: String,
    /// Host and port of its controller.
    pub address: (String, u16),
    /// All hosts of its line: it may dial from the address of any.
    pub hosts: Vec<String>,
    /// This host's own name or address to dial from; `None`: whichever the kernel chooses.
    pub from: Option<String>,
    /// How long it may be silent before the connection with it is given up, ms.
    pub silence_ms: u64,
    /// The key that it must prove.
    pub key: Option<PublicKey>,
}

/// What links need to know.
#[derive(Clone)]
pub struct Settings {
    /// This member.
    pub me: Member,
    /// Its identifier.
    pub id: String,
    /// Hosts and ports to listen on. An address that is not there yet is tried again until it is. A port in use ends the
    /// start if it is the first one's.
    pub listen: Vec<(String, u16)>,
    /// The others.
    pub peers: Vec<Peer>,
    /// The pre-shared key.
    pub key: [u8; 32],
    /// This member's private key, where it has one.
    pub own_key: Option<PrivateKey>,
    /// `heartbeat_interval`, ms.
    pub interval_ms: u64,
    /// `heartbeat_timeout`, ms: the limit of a dial and of a write.
    pub timeout_ms: u64,
}

impl Settings {
    fn identity(&self) -> Identity<'_> {
        Identity { shared: &self.key, own: self.own_key.as_ref() }
    }
}

/// Who is told of what is none of the decision thread's business. It must not block.
#[derive(Clone)]
pub struct Bystander {
    /// How regularly heartbeats arrive.
    pub pace: Arc<Pace>,
    /// What other members say beside the protocol.
    pub asides: Arc<dyn Fn(Member, Aside) + Send + Sync>,
}

impl Default for Bystander {
    /// Nobody.
    fn default() -> Bystander {
        Bystander { pace: Arc::default(), asides: Arc::new(|_, _| ()) }
    }
}

/// Says things to other members beside the protocol.
#[derive(Clone)]
pub struct Voice {
    outgoing: Vec<Outgoing>,
}

impl Voice {
    /// Sends it if it can be sent; never waits. It goes unheard where the queue is full or the member is unknown.
    pub fn say(&self, to: Member, aside: &Aside) {
        let Some(outgoing) = self.outgoing.iter().find(|outgoing| outgoing.member == to) else { return };
        match aside.encode() {
            Ok(body) => outgoing.put(Queued { heartbeat: false, body }),
            Err(error) => messages::tell(&Tell::Warning(error)),
        }
    }
}

/// The running links. Dropping it closes every connection and ends the threads.
pub struct Links {
    shared: Arc<Shared>,
    outgoing: Vec<Outgoing>,
    /// Disconnected when no sending thread runs any more.
    ended: Receiver<()>,
}

struct Shared {
    settings: Settings,
    inbox: Inbox,
    bystander: Bystander,
    stop: AtomicBool,
    resolver: Resolver,
    /// Connections that are not authenticated yet, from the members' addresses and from others.
    waiting: [AtomicUsize; 2],
    /// The addresses from which members last authenticated themselves.
    proven: Mutex<HashMap<Member, IpAddr>>,
    /// When strangers were last reported, and callers that do not prove their keys.
    reported: [AtomicU64; 2],
    /// The keys that peers without one in `network.conf` have proved, in the order of `settings.peers`. A peer that lists
    /// this member's key demands a proof, which can be made only to a known key.
    proved: Vec<Mutex<Option<PublicKey>>>,
    /// When each peer was last heard, in the order of `settings.peers`.
    heard: Vec<AtomicU64>,
    listeners: Mutex<Vec<Arc<TcpListener>>>,
    /// The one authenticated connection from each peer, numbered.
    incoming: Mutex<HashMap<Member, (u64, TcpStream)>>,
    accepted: AtomicU64,
}

#[derive(Clone)]
struct Outgoing {
    member: Member,
    queue: Sender<Queued>,
    wake: Arc<OwnedFd>,
}

impl Outgoing {
    fn put(&self, queued: Queued) {
        if self.queue.try_send(queued).is_ok() {
            wake(&self.wake);
        }
    }
}

struct Queued {
    heartbeat: bool,
    body: Vec<u8>,
}

/// Why a member cannot be reached.
pub struct Unreached {
    /// It took as long as it may.
    pub timed_out: bool,
    /// In words.
    pub why: Error,
}

/// Dials a member once, shakes hands and closes the connection: whether it could be talked to. Blocks, at most for
/// `limit`. For a server that has no running links.
pub fn reach(settings: &Settings, member: Member, limit: Duration) -> std::result::Result<(), Unreached> {
    let Some(peer) = settings.peers.iter().find(|peer| peer.member == member).cloned() else { return Ok(()) };
    let (host, port) = peer.address.clone();
    let settings = settings.clone();
    let what = format!("reach {host}:{port}");
    let begin = Instant::now();
    let dialled = bounded::call(&what, limit, &Cancel::never(), move || {
        let resolved = |host: &str, port| {
            let found = (host, port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            found.map_err(|cause| Error::new(format!("could not resolve host \"{host}\": {cause}")))
        };
        let (host, port) = &peer.address;
        let from = peer.from.as_deref().map(|own| resolved(own, 0)).transpose()?;
        Ok(dial(&settings, &peer, &resolved(host, *port)?, from.as_deref(), peer.key, limit).map(drop))
    });
    let unreached = |timed_out, why| Err(Unreached { timed_out, why });
    match dialled {
        Ok(Ok(())) => Ok(()),
        Ok(Err(DialError::Refused)) => unreached(false, Error::new(format!("{host}:{port} refuses connections"))),
        Ok(Err(DialError::Silent)) => unreached(true, Error::new(format!("no answer from {host}:{port}"))),
        Ok(Err(DialError::Other(why))) | Err(why) => unreached(begin.elapsed() >= limit, why),
    }
}

impl Links {
    /// Binds the listening addresses and starts the threads.
    ///
    /// # Errors
    /// The first address cannot be bound, for a reason that waiting does not remove.
    pub fn start(settings: Settings, inbox: Inbox, bystander: Bystander) -> Result<Links> {
        let hosts = settings.peers.iter().flat_map(|peer| peer.hosts.iter().chain([&peer.address.0]).chain(&peer.from));
        let hosts: Vec<String> = hosts.chain(settings.listen.iter().map(|(host, _)| host)).cloned().collect();
        let resolver = Resolver::start(hosts, || ())?;
        let shared = Arc::new(Shared {
            heard: settings.peers.iter().map(|_| AtomicU64::new(0)).collect(),
            proved: settings.peers.iter().map(|_| Mutex::default()).collect(),
            settings,
            inbox,
            bystander,
            stop: AtomicBool::new(false),
            listeners: Mutex::default(),
            resolver,
            waiting: Default::default(),
            proven: Mutex::default(),
            reported: Default::default(),
            incoming: Mutex::default(),
            accepted: AtomicU64::new(0),
        });
        let mut outgoing = Vec::new();
        let (sends, ended) = crossbeam_channel::bounded::<()>(0);
        for (index, peer) in shared.settings.peers.iter().enumerate() {
            let (queue, queued) = crossbeam_channel::bounded(QUEUE_LENGTH);
            let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|cause| Error::new(format!("could not create an eventfd: {cause}")))?;
            let wake = Arc::new(wake);
            let mut dialler = Dialler {
                shared: shared.clone(),
                index,
                queued,
                wake: wake.clone(),
                said: String::new(),
                said_at: 0,
                heard_on_link: false,
                last_beat: None,
                by_proved_key: false,
            };
            let sends = sends.clone();
            spawn("link-out", move || {
                dialler.run();
                drop(sends);
            })?;
            outgoing.push(Outgoing { member: peer.member, queue, wake });
        }
        let links = Links { shared, outgoing, ended };
        let shared = links.shared.clone();
        let take: listening::Take = Arc::new(move |listener| {
            if let Err(error) = serve(&shared, listener) {
                messages::tell(&Tell::Warning(error));
            }
        });
        let shared = &links.shared;
        for (place, (host, port)) in shared.settings.listen.iter().enumerate() {
            listening::open(&shared.resolver, host, *port, place == 0, &take)?;
        }
        Ok(links)
    }

    /// Sends a message if it can be sent; never waits. Dropped where the queue is full or the member is unknown.
    pub fn send(&self, to: Member, message: &Message) {
        let Some(outgoing) = self.outgoing.iter().find(|outgoing| outgoing.member == to) else { return };
        match wire::encode(message) {
            Ok(body) => outgoing.put(Queued { heartbeat: matches!(message, Message::Heartbeat(_)), body }),
            Err(error) => messages::tell(&Tell::Warning(error)),
        }
    }

    /// The names of the members' hosts.
    pub fn resolver(&self) -> Resolver {
        self.shared.resolver.clone()
    }

    /// A way to say things beside the protocol, for another thread.
    pub fn voice(&self) -> Voice {
        Voice { outgoing: self.outgoing.clone() }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.resolver.stop();
        for listener in lock(&self.shared.listeners).iter() {
            let _ = rustix::net::shutdown(listener, Shutdown::Both);
        }
        for (_, stream) in lock(&self.shared.incoming).values() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        for outgoing in &self.outgoing {
            wake(&outgoing.wake);
        }
        // The process may end as soon as this returns, and the last message may be an answer that the other server waits for.
        let _ = self.ended.recv_timeout(LAST_MESSAGES);
    }
}

fn wake(eventfd: &OwnedFd) {
    let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
}

// ------------------------------------------------------------------------------------------------------------ sending

/// One peer's sending thread.
struct Dialler {
    shared: Arc<Shared>,
    index: usize,
    queued: Receiver<Queued>,
    wake: Arc<OwnedFd>,
    /// What was last logged, so that only a change is.
    said: String,
    /// When, ms.
    said_at: u64,
    /// The arbiter has answered on the present connection.
    heard_on_link: bool,
    /// When its last heartbeat came on it, ms.
    last_beat: Option<u64>,
    /// The next dial is to the key that the peer has proved; by turns, where `network.conf` lists none.
    by_proved_key: bool,
}

enum DialError {
    /// The kernel of the host refused, on every address that the name has.
    Refused,
    /// It took as long as it may.
    Silent,
    Other(Error),
}

impl Dialler {
    fn run(&mut self) {
        let settings = &self.shared.settings;
        let peer = settings.peers[self.index].clone();
        let pause = Duration::from_millis(settings.interval_ms.min(REFUSED_PAUSE_MS));
        let long_pause = Duration::from_millis(settings.interval_ms);
        let mut failures = 0;
        while !self.stopped() {
            match self.dial(&peer) {
                Ok(writer) => {
                    // An arbiter that does not serve this pair shakes hands, and then hangs up without a word.
                    let answers = peer.member == Member::Arbiter;
                    if !answers {
                        self.up(&peer);
                    }
                    (self.heard_on_link, self.last_beat) = (false, None);
                    let (address, opened) = (writer.stream().peer_addr(), now().0);
                    let why = self.serve(writer);
                    if let (Ok(address), true) = (address, !answers || self.heard_on_link) {
                        let heard = self.shared.heard[self.index].load(Ordering::SeqCst);
                        self.shared.resolver.confirm(address.ip(), Time(heard.max(opened)));
                    }
                    if !answers || self.heard_on_link {
                        failures = 0;
                    }
                    match (self.stopped(), answers && !self.heard_on_link) {
                        (true, _) => (),
                        (false, false) => self.say_down(&peer, why.message),
                        (false, true) => {
                            let hint = "run \"mc_arb status\" on its host to see whether it serves this pair; a new standby is \
                                        served after its rebuild";
                            log::debug!("{}", why.message);
                            self.say_down(&peer, format!("it closes the connection without an answer; {hint}"));
                            failures += 1;
                            std::thread::sleep(if failures > SHORT_PAUSES { long_pause } else { pause });
                        }
                    }
                }
                Err(DialError::Refused) => {
                    self.shared.inbox.offer(Event::Refused(peer.member));
                    self.say_down(&peer, format!("{}:{} refuses connections", peer.address.0, peer.address.1));
                    std::thread::sleep(pause);
                }
                Err(DialError::Silent) => {
                    self.say_down(&peer, format!("no answer from {}:{}", peer.address.0, peer.address.1));
                }
                Err(DialError::Other(error)) => {
                    self.say_down(&peer, error.to_string());
                    self.by_proved_key = !self.by_proved_key;
                    // A controller that was just killed in the middle of it is soon there again; a wrong key stays.
                    failures += 1;
                    std::thread::sleep(if failures > SHORT_PAUSES { long_pause } else { pause });
                }
            }
        }
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    fn up(&mut self, peer: &Peer) {
        self.said.clear();
        self.shared.bystander.pace.reached(peer.member);
        messages::tell(&Tell::LinkUp { peer: peer.id.clone() });
    }

    fn say_down(&mut self, peer: &Peer, why: String) {
        self.shared.bystander.pace.unreached(peer.member, &why);
        // A host that is away is told of in several ways, by turns.
        let (at, again) = (now().0, !self.said.is_empty());
        if self.said != why && (!again || at.saturating_sub(self.said_at) >= REPORT_INTERVAL_MS) {
            messages::tell(&Tell::LinkDown { peer: peer.id.clone(), why: why.clone() });
            (self.said, self.said_at) = (why, at);
        }
    }

    fn dial(&self, peer: &Peer) -> std::result::Result<Writer, DialError> {
        let settings = &self.shared.settings;
        let limit = Duration::from_millis(settings.timeout_ms.max(1));
        let known = |host: &str, port| {
            let found = self.shared.resolver.wait(host, port, limit);
            let why = found.failure.as_deref().unwrap_or("the name service has not responded yet");
            match found.list.is_empty() {
                true => Err(DialError::Other(Error::new(format!("could not resolve host \"{host}\": {why}")))),
                false => Ok(found),
            }
        };
        let (host, port) = &peer.address;
        let to = known(host, *port)?;
        let from = peer.from.as_deref().map(|own| known(own, 0)).transpose()?;
        let proved = || lock(&self.shared.proved[self.index]).filter(|_| self.by_proved_key);
        let key = peer.key.or_else(proved);
        match dial(settings, peer, &to.list, from.as_ref().map(|from| &*from.list), key, limit) {
            // Another host may have the address by now.
            Err(DialError::Refused) if !to.recent => Err(DialError::Other(Error::new(format!(
                "{host}:{port} refuses connections at an address that the name service has not confirmed for long"
            )))),
            dialled => dialled,
        }
    }

    /// Sends what comes until the connection ends, and takes the arbiter's answers; says why it ended. A connection whose
    /// peer has not been heard for longer than a heartbeat may take is given up: after a cut, a new one is there sooner
    /// than TCP sends again.
    fn serve(&mut self, mut writer: Writer) -> Error {
        let shared = self.shared.clone();
        let peer = &shared.settings.peers[self.index];
        let limit = peer.silence_ms;
        let opened = now().0;
        let mut backlog: Vec<Queued> = self.queued.try_iter().collect();
        // Only the last of the heartbeats that waited for the connection says anything.
        let last = backlog.iter().rposition(|queued| queued.heartbeat);
        let mut position = 0..;
        backlog.retain(|queued| position.next() == last || !queued.heartbeat);
        loop {
            // What was queued before the stop is sent.
            let stopped = self.stopped();
            for queued in backlog.drain(..).chain(self.queued.try_iter()) {
                if let Err(error) = writer.send(&queued.body) {
                    return error;
                }
            }
            if stopped {
                return Error::new("stopped");
            }
            let heard = self.shared.heard[self.index].load(Ordering::SeqCst).max(opened);
            let left = (heard + limit).saturating_sub(now().0);
            if left == 0 {
                return Error::new("no heartbeat received");
            }
            let wait = Timespec { tv_sec: (left / 1000) as i64, tv_nsec: (left % 1000 * 1_000_000) as i64 };
            let mut fds = [
                PollFd::new(&*self.wake, PollFlags::IN),
                PollFd::new(writer.stream(), PollFlags::IN | PollFlags::RDHUP),
            ];
            let _ = poll(&mut fds, Some(&wait));
            let (woken, readable) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            match readable {
                true if peer.member == Member::Arbiter => {
                    if let Err(error) = self.hear(&mut writer, peer) {
                        return error;
                    }
                }
                // The other server says nothing here after the handshake: whatever is there to read is its end.
                true => return Error::new("the member closed it"),
                false => (),
            }
            if woken {
                let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
            }
        }
    }

    /// Takes in what the arbiter answers.
    fn hear(&mut self, writer: &mut Writer, peer: &Peer) -> Result<()> {
        for body in writer.take()? {
            if !self.heard_on_link {
                self.heard_on_link = true;
                self.up(peer);
            }
            self.shared.heard[self.index].store(now().0, Ordering::SeqCst);
            hear(&self.shared, peer, &body, &mut self.last_beat);
        }
        Ok(())
    }
}

/// Dials the addresses one after the other; `from`: this host's own addresses, where it is to dial from one of them. `key` is
/// the one that the peer must prove.
fn dial(
    settings: &Settings,
    peer: &Peer,
    addresses: &[SocketAddr],
    from: Option<&[SocketAddr]>,
    key: Option<PublicKey>,
    limit: Duration,
) -> std::result::Result<Writer, DialError> {
    let mut failure = None;
    for address in addresses {
        match connect(*address, peer, from, limit) {
            Ok(stream) => {
                let hello =
                    Hello { version: wire::MINOR, member: settings.me, id: settings.id.clone(), to: peer.id.clone() };
                return Writer::dial(stream, settings.identity(), key.as_ref(), &hello, limit)
                    .map_err(DialError::Other);
            }
            // One address that does not refuse is enough not to call the host refusing.
            Err(DialError::Refused) => failure = failure.or(Some(DialError::Refused)),
            Err(other) => failure = Some(other),
        }
    }
    let host = &peer.address.0;
    Err(failure.unwrap_or_else(|| DialError::Other(Error::new(format!("host \"{host}\" has no address")))))
}

fn connect(
    address: SocketAddr,
    peer: &Peer,
    from: Option<&[SocketAddr]>,
    limit: Duration,
) -> std::result::Result<TcpStream, DialError> {
    let other = |cause: &dyn std::fmt::Display| DialError::Other(Error::new(format!("{address}: {cause}")));
    let from = from.map(|own| own_address(own, address)).transpose().map_err(DialError::Other)?;
    let stream = sockets::dial(address, from, limit).map_err(|cause| match cause {
        rustix::io::Errno::CONNREFUSED => DialError::Refused,
        rustix::io::Errno::TIMEDOUT => DialError::Silent,
        cause => other(&cause),
    })?;
    stream.set_nodelay(true).map_err(|cause| other(&cause))?;
    stream.set_write_timeout(Some(limit)).map_err(|cause| other(&cause))?;
    let unacknowledged_ms = u32::try_from(peer.silence_ms).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(&stream, unacknowledged_ms).map_err(|cause| other(&cause))?;
    Ok(stream)
}

/// The address of this host that is of the same family as the one to dial.
fn own_address(own: &[SocketAddr], to: SocketAddr) -> Result<IpAddr> {
    let found = own.iter().find(|own| own.is_ipv4() == to.is_ipv4());
    found.map(|own| own.ip()).ok_or_else(|| {
        Error::new(format!("this server's second host has no address of the same kind as {}", to.ip()))
            .hint("use IPv4 addresses for both hosts, or IPv6 addresses for both")
    })
}

// ---------------------------------------------------------------------------------------------------------- receiving

/// Accepts what dials a listening address, on a thread of its own.
fn serve(shared: &Arc<Shared>, listener: TcpListener) -> Result<()> {
    let listener = Arc::new(listener);
    let (shared, accepts) = (shared.clone(), listener.clone());
    lock(&shared.listeners).push(listener);
    spawn("link-listen", move || accept(&shared, &accepts)).map(drop)
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    while !shared.stop.load(Ordering::SeqCst) {
        let Ok((stream, address)) = listener.accept() else {
            // Out of file descriptors, most likely.
            std::thread::sleep(Duration::from_millis(REFUSED_PAUSE_MS));
            continue;
        };
        let kind = usize::from(!is_of_member(shared, address.ip()));
        if shared.waiting[kind].fetch_add(1, Ordering::SeqCst) >= MAX_CALLERS {
            shared.waiting[kind].fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let receiver = shared.clone();
        if spawn("link-in", move || receive(&receiver, stream, address, kind)).is_err() {
            shared.waiting[kind].fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Whether an address is that of a member's host, or one from which a member has authenticated itself.
fn is_of_member(shared: &Shared, address: IpAddr) -> bool {
    let mut hosts = shared.settings.peers.iter().flat_map(|peer| peer.hosts.iter().chain([&peer.address.0]));
    hosts.any(|host| shared.resolver.is_of(host, address))
        || lock(&shared.proven).values().any(|proven| *proven == address.to_canonical())
}

/// Authenticates one connection, and takes its messages until it ends or the same member opens another. `kind`: its place
/// in `waiting`.
fn receive(shared: &Shared, stream: TcpStream, address: SocketAddr, kind: usize) {
    let _ = stream.set_nodelay(true);
    let _ = stream.set_write_timeout(Some(HANDSHAKE_LIMIT));
    let known = authenticate(shared, stream);
    shared.waiting[kind].fetch_sub(1, Ordering::SeqCst);
    let (clone, mut reader, index) = match known {
        Ok(known) => known,
        Err(Refusal::Other(error)) => return report_stranger(shared, address, &error),
        Err(Refusal::NotProved(what)) => return report_not_proved(shared, address, what),
    };
    let peer = &shared.settings.peers[index];
    let member = peer.member;
    lock(&shared.proven).insert(member, address.ip().to_canonical());
    shared.bystander.pace.accepted(address.ip());
    let mut last_beat = None;
    let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
    if let Some((_, old)) = lock(&shared.incoming).insert(member, (number, clone)) {
        let _ = old.shutdown(std::net::Shutdown::Both);
    }
    loop {
        shared.heard[index].store(now().0, Ordering::SeqCst);
        if shared.stop.load(Ordering::SeqCst) {
            break;
        }
        let Ok(body) = reader.receive() else { break };
        if !hear(shared, peer, &body, &mut last_beat) {
            break;
        }
    }
    let mut incoming = lock(&shared.incoming);
    if incoming.get(&member).is_some_and(|(current, _)| *current == number) {
        incoming.remove(&member);
    }
}

/// A handle to close the connection with, the end to receive on, and the peer by its place in `peers`.
fn authenticate(shared: &Shared, stream: TcpStream) -> std::result::Result<(TcpStream, Reader, usize), Refusal> {
    let clone = stream.try_clone().map_err(|cause| Error::new(format!("could not keep a connection: {cause}")))?;
    let listed: Vec<PublicKey> = servers(&shared.settings).filter_map(|peer| peer.key).collect();
    let (reader, hello) = Reader::accept(stream, shared.settings.identity(), &listed, HANDSHAKE_LIMIT)?;
    let index = recognise(shared, &hello)?;
    let listed = shared.settings.peers[index].key;
    if listed.is_none() {
        *lock(&shared.proved[index]) = reader.caller();
    } else if listed != reader.caller() {
        return Err(Refusal::NotProved(NotProved::OtherKey));
    }
    Ok((clone, reader, index))
}

/// The peers that dial: an arbiter does not.
fn servers(settings: &Settings) -> impl Iterator<Item = &Peer> {
    settings.peers.iter().filter(|peer| peer.member != Member::Arbiter)
}

/// Takes in what a member says: a message is the decision thread's, an aside the bystander's. False once the decision thread
/// is gone. `last_beat`: when the last heartbeat came on this connection; what lies between two connections is no pace.
fn hear(shared: &Shared, peer: &Peer, body: &[u8], last_beat: &mut Option<u64>) -> bool {
    match wire::decode(body) {
        Ok(message) => {
            if matches!(message, Message::Heartbeat(_)) {
                let at = now().0;
                shared.bystander.pace.beat(peer.member, last_beat.replace(at).map(|last| at.saturating_sub(last)));
            }
            shared.inbox.offer(Event::Heard(peer.member, message))
        }
        Err(error) => {
            match Aside::decode(body) {
                Ok(aside) => (shared.bystander.asides)(peer.member, aside),
                Err(_) => log::debug!("from \"{}\": {error}", peer.id),
            }
            true
        }
    }
}

/// The peer that says hello, by its place in `peers`.
fn recognise(shared: &Shared, hello: &Hello) -> Result<usize> {
    let settings = &shared.settings;
    let found = settings.peers.iter().position(|peer| peer.id == hello.id);
    match found {
        Some(_) if hello.member == Member::Arbiter => Err(Error::new(format!(
            "arbiter \"{}\" has connected, although only servers connect to an arbiter",
            hello.id
        ))
        .hint("the version of its mc_arb is not compatible")),
        Some(index) if settings.peers[index].member == hello.member && hello.to == settings.id => {
            shared.bystander.pace.greeted(hello.member, hello.version);
            Ok(index)
        }
        _ => Err(Error::new(format!(
            "member \"{}\" tried to reach \"{}\", and its network.conf is not the same as here",
            hello.id, hello.to
        ))
        .hint("network.conf must be the same on all members, its lines in the same order")),
    }
}

fn report_stranger(shared: &Shared, address: SocketAddr, error: &Error) {
    if has_hung_up(error) {
        log::debug!("connection from {address}: {}", error.message);
        return;
    }
    shared.bystander.pace.refused(address.ip(), &error.message);
    if is_due(&shared.reported[0]) {
        let why =
            if error.hint.is_empty() { error.message.clone() } else { format!("{}; {}", error.message, error.hint) };
        messages::tell(&Tell::LinkRefused { from: address.to_string(), why });
    }
}

/// A caller that holds `mc.key` and not the key of a server. Reported apart from strangers, which must not hide it.
fn report_not_proved(shared: &Shared, address: SocketAddr, what: NotProved) {
    let why = what.text();
    shared.bystander.pace.refused(address.ip(), why);
    if is_due(&shared.reported[1]) {
        let members: Vec<String> = servers(&shared.settings).map(|peer| format!("\"{}\"", peer.id)).collect();
        messages::tell(&Tell::KeyNotProved { from: address.to_string(), members: members.join(" or "), why });
    }
}

/// Whether it is time for a report; the time is noted.
fn is_due(reported: &AtomicU64) -> bool {
    let (at, last) = (now().0, reported.load(Ordering::SeqCst));
    let due = last == 0 || at.saturating_sub(last) >= REPORT_INTERVAL_MS;
    if due {
        reported.store(at, Ordering::SeqCst);
    }
    due
}
