//! The health endpoint (`health_check_address`): what load balancers and monitoring ask over HTTP/1.1.
//!
//! One thread, read-only, answered from the board like `mc_ctl status`, so that nothing that comes in here reaches or delays
//! the decision thread. Everything is bounded: connections (the oldest makes room for a new one, so that idle ones lock
//! nobody out), the size of a request, the time for it. Each connection serves one request and is closed. No
//! authentication, no TLS: what it tells is the operator's to place. It decides nothing; what the paths mean is
//! `status::health`.

use super::boot::join;
use super::control::Board;
use super::http::{Method, Request, Response, parse};
use super::listening::{Missing, NAME_LIMIT};
use super::resolver::Resolver;
use super::spawn;
use crate::config::ListenAddress;
use crate::error::Result;
use crate::messages::{self, Tell};
use crate::status::health::{Question, answer};
use crate::status::{Snapshot, Status};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Connections at a time.
const MAX_CONNECTIONS: usize = 64;

/// Connections that are accepted before those that there are get their turn.
const MAX_ACCEPTED: usize = 16;

/// The longest request line with its header, in bytes.
const MAX_HEAD: usize = 8 << 10;

/// Bytes behind the header (a body, or another request) that are read and thrown away.
const MAX_REST: usize = 64 << 10;

/// How long a connection may take from its beginning until its answer is with the kernel.
const LIMIT: Duration = Duration::from_secs(5);

/// How long the other side may take to close after it has been answered.
const LINGER: Duration = Duration::from_secs(1);

/// What the board shows is taken from it this often at most, however many ask.
const FRESH: Duration = Duration::from_millis(50);

/// The pause after an accept that failed, and between two attempts to listen.
const PAUSE: Duration = Duration::from_millis(100);
const LISTEN_PAUSE: Duration = Duration::from_secs(3);

/// The endpoint, not served yet.
pub struct Health {
    address: ListenAddress,
    /// `None`: to be tried again.
    listeners: Option<Vec<TcpListener>>,
    resolver: Resolver,
}

impl Health {
    /// Listens. An address that is not there yet is reported, and tried again. Another reason, such as a port in use, is an
    /// error with `must`; else (a controller that its watcher starts again has more important things to do) it is the same.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn bind(address: ListenAddress, must: bool, resolver: &Resolver) -> Result<Health> {
        resolver.wait(&address.host, address.port, NAME_LIMIT);
        let listeners = match listen(&address, resolver) {
            Ok(listeners) => Some(listeners),
            Err(missing) if must && !missing.late => return Err(missing.why),
            Err(missing) => {
                messages::tell(&Tell::NotListening { why: missing.why });
                None
            }
        };
        Ok(Health { address, listeners, resolver: resolver.clone() })
    }

    /// Serves on a thread of its own, as long as the process lives.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn serve(self, board: Board) -> Result<()> {
        spawn("health", move || {
            let listeners = self.listeners.unwrap_or_else(|| listen_later(&self.address, &self.resolver));
            Server { listeners, connections: Vec::new(), seen: None, board }.run();
        })?;
        Ok(())
    }
}

/// On each address of the name that this host has.
fn listen(at: &ListenAddress, resolver: &Resolver) -> std::result::Result<Vec<TcpListener>, Missing> {
    let failed = |what: String| at.error(format!("health_check_address: {what}"));
    let found = resolver.addresses(&at.host, at.port);
    let mut listeners = Vec::new();
    let unresolved = found.failure.unwrap_or_else(|| "the name service has not responded yet".to_owned());
    let why = failed(format!("could not resolve host \"{}\": {unresolved}", at.host));
    let mut missing = Missing { why: why.hint("Specify an address of this host."), late: true };
    for address in found.list {
        match TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener)) {
            Ok(listener) => listeners.push(listener),
            Err(cause) => {
                let late = cause.kind() == ErrorKind::AddrNotAvailable;
                let hint = match cause.kind() {
                    ErrorKind::AddrNotAvailable => {
                        "It must be an address of this host, or 0.0.0.0 or [::] for all of them."
                    }
                    ErrorKind::AddrInUse => {
                        "Another program, or this controller itself, listens there; choose another port."
                    }
                    ErrorKind::PermissionDenied => "Ports below 1024 are reserved for root; choose a higher port.",
                    _ => "Specify an address of this host, and a free port.",
                };
                missing = Missing { why: failed(format!("could not listen on {address}: {cause}")).hint(hint), late };
                if !late {
                    return Err(missing);
                }
            }
        }
    }
    if listeners.is_empty() { Err(missing) } else { Ok(listeners) }
}

fn listen_later(address: &ListenAddress, resolver: &Resolver) -> Vec<TcpListener> {
    loop {
        std::thread::sleep(LISTEN_PAUSE);
        if let Ok(listeners) = listen(address, resolver) {
            messages::tell(&Tell::Listening { at: join(&address.host, address.port) });
            return listeners;
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------- loop

struct Server {
    listeners: Vec<TcpListener>,
    /// In the order in which they came.
    connections: Vec<Connection>,
    /// What the board showed, and when.
    seen: Option<(Instant, Snapshot)>,
    board: Board,
}

struct Connection {
    stream: TcpStream,
    /// When its time is over.
    deadline: Instant,
    state: State,
}

enum State {
    /// Of the request there is this much.
    Reading(Vec<u8>),
    /// The answer, and how much of it is written.
    Writing(Vec<u8>, usize),
    /// Answered: what still comes, at most so many bytes, is thrown away, since closing upon it would take the answer back.
    Closing(usize),
}

/// Whether a connection continues.
enum Step {
    Waits,
    Over,
}

impl Server {
    fn run(mut self) {
        loop {
            let (accepts, ready) = self.wait();
            for (index, listener) in accepts.into_iter().enumerate() {
                if listener {
                    self.accept(index);
                }
            }
            // Those that have just come may have said something already.
            let known = ready.len();
            let now = Instant::now();
            for (index, mut connection) in std::mem::take(&mut self.connections).into_iter().enumerate() {
                let turn = index >= known || ready[index];
                let over = connection.deadline <= now || turn && matches!(self.serve(&mut connection), Step::Over);
                if !over {
                    self.connections.push(connection);
                }
            }
            while self.connections.len() > MAX_CONNECTIONS {
                self.connections.remove(0);
            }
        }
    }

    /// Waits until something can be done, or somebody's time is over. Which listeners and which connections are ready.
    fn wait(&self) -> (Vec<bool>, Vec<bool>) {
        let connections = self.connections.iter().map(|connection| {
            let wanted = match connection.state {
                State::Writing(..) => PollFlags::OUT,
                State::Reading(_) | State::Closing(_) => PollFlags::IN,
            };
            PollFd::new(&connection.stream, wanted)
        });
        let listeners = self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN));
        let mut fds: Vec<PollFd<'_>> = listeners.chain(connections).collect();
        let next = self.connections.iter().map(|connection| connection.deadline).min();
        let limit = next.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        if poll(&mut fds, limit.as_ref()).is_err() {
            std::thread::sleep(PAUSE);
        }
        let mut ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let of_connections = ready.split_off(self.listeners.len());
        (ready, of_connections)
    }

    fn accept(&mut self, index: usize) {
        for _ in 0..MAX_ACCEPTED {
            match self.listeners[index].accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                    let deadline = Instant::now() + LIMIT;
                    self.connections.push(Connection { stream, deadline, state: State::Reading(Vec::new()) });
                }
                Ok(_) => (),
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => return,
                // Gone before it was accepted; or out of file descriptors, which takes a while to end.
                Err(cause) if cause.kind() == ErrorKind::ConnectionAborted => (),
                Err(_) => return std::thread::sleep(PAUSE),
            }
        }
    }

    /// Continues with a connection as far as that does not wait.
    fn serve(&mut self, connection: &mut Connection) -> Step {
        loop {
            match &mut connection.state {
                State::Reading(head) => {
                    let mut bytes = [0; 2048];
                    match connection.stream.read(&mut bytes) {
                        Ok(0) => return Step::Over,
                        Ok(length) => head.extend_from_slice(&bytes[..length]),
                        Err(cause) if is_pause(&cause) => return Step::Waits,
                        Err(_) => return Step::Over,
                    }
                    let request = match parse(head) {
                        None if head.len() >= MAX_HEAD => Err(format!("the header is longer than {MAX_HEAD} bytes")),
                        None => continue,
                        Some(request) => request,
                    };
                    connection.state = State::Writing(self.respond(request), 0);
                }
                State::Writing(bytes, done) => match connection.stream.write(&bytes[*done..]) {
                    Ok(length) if *done + length < bytes.len() => *done += length,
                    Ok(_) => {
                        if connection.stream.shutdown(Shutdown::Write).is_err() {
                            return Step::Over;
                        }
                        connection.deadline = connection.deadline.min(Instant::now() + LINGER);
                        connection.state = State::Closing(MAX_REST);
                    }
                    Err(cause) if is_pause(&cause) => return Step::Waits,
                    Err(_) => return Step::Over,
                },
                State::Closing(left) => {
                    let mut rest = [0; 4096];
                    match connection.stream.read(&mut rest) {
                        Ok(length) if length > 0 && length < *left => *left -= length,
                        Err(cause) if is_pause(&cause) => return Step::Waits,
                        _ => return Step::Over,
                    }
                }
            }
        }
    }

    fn respond(&mut self, request: std::result::Result<Request, String>) -> Vec<u8> {
        match request {
            Ok(Request { method, path }) => {
                let response = match (What::of(&path), method) {
                    (None, _) => Response::text(404, "available: /primary, /standby, /healthy, /status, /metrics"),
                    (Some(_), Method::Other) => Response::text(405, "allowed: GET, HEAD and OPTIONS"),
                    (Some(what), _) => what.answer(self.look()),
                };
                response.bytes(method == Method::Head)
            }
            Err(why) => Response::text(400, why).bytes(false),
        }
    }

    fn look(&mut self) -> &Snapshot {
        let now = Instant::now();
        let stale = self.seen.as_ref().is_none_or(|(at, _)| now.duration_since(*at) >= FRESH);
        if stale {
            self.seen = None;
        }
        &self.seen.get_or_insert_with(|| (now, self.board.snapshot())).1
    }
}

fn is_pause(cause: &std::io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

// -------------------------------------------------------------------------------------------------------------- answers

/// What there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Question(Question),
    Status,
    Metrics,
}

impl What {
    fn of(path: &str) -> Option<What> {
        match path {
            "/primary" => Some(What::Question(Question::Primary)),
            "/standby" => Some(What::Question(Question::Standby)),
            "/healthy" => Some(What::Question(Question::Healthy)),
            "/status" => Some(What::Status),
            "/metrics" => Some(What::Metrics),
            _ => None,
        }
    }

    /// Status and metrics are told of a stuck decision thread too: they say how old they are.
    fn answer(self, snapshot: &Snapshot) -> Response {
        match self {
            What::Question(question) => match answer(snapshot, question) {
                Ok(yes) => Response::text(200, yes),
                Err(no) => Response::text(503, no),
            },
            What::Status => {
                Response { status: 200, content_type: "application/json", body: Status::new(snapshot).json() }
            }
            What::Metrics => Response {
                status: 200,
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                body: Status::new(snapshot).prometheus(),
            },
        }
    }
}
