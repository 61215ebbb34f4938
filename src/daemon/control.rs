//! The control socket: how `mc_ctl` talks to the controller of this host.
//!
//! `DIR/ID/control.sock`, mode 0600: one JSON line a request, one JSON line an answer. The status is served from the
//! snapshot that the decision thread publishes, so that neither a busy decision thread nor anything that it waits for
//! delays it. This module decides nothing.

use super::archive_link::{ArchiveLink, Rebuilds};
use super::inspect::{Checked, Inspector};
use super::reload::{Reloaded, Reloader};
use super::store::wall_ms;
use super::{Inbox, backup_watch, checkpoint, connections, disk_space, lock, now, spawn};
use crate::config::InEffect;
use crate::error::{Error, Result};
use crate::fsm::event::{CoreMessage, Event, Reply, Request};
use crate::fsm::node::Node;
use crate::fsm::present::Present;
use crate::fsm::report::Report;
use crate::fsm::types::{Member, RebuildOrder, Time};
use crate::messages;
use crate::rebuild;
use crate::status::{self, BackupStatus, ConnectionFailure, Snapshot};
use crate::what_if::{self, Fault, MOST_FAULTS, Prediction};
use crate::wire::{Archived, Part};
use crossbeam_channel::Sender;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

const SOCKET: &str = "control.sock";

/// Clients that are served at a time.
const MAX_CLIENTS: usize = 16;

/// The longest request, in bytes.
const MAX_CALL: u64 = 4096;

/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 1024 * 1024;

/// How long a client may be silent before it is sent away.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

/// How long the decision thread may take to hand out a copy of its state.
const COPY_LIMIT: Duration = Duration::from_secs(3);

/// How much longer than the client asked the core may take to answer.
const GRACE: Duration = Duration::from_secs(1);

/// How long after a command began, and how often, the command checks whether the ledger can be written.
const LEDGER_LOOK: Duration = Duration::from_secs(1);

/// What `mc_ctl` asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Call {
    /// Whether the controller runs.
    Ping,
    /// What it knows.
    Status,
    /// The configuration that it uses.
    Configuration,
    /// Reads the files again.
    Reload,
    /// What it has measured, and what the other members are like (`mc_ctl check`).
    Check {
        /// How long the asker waits for the answer, ms.
        limit_ms: u64,
    },
    /// A part of what the other server has archived.
    Archived {
        /// What.
        what: Archived,
        /// From which byte on.
        offset: u64,
    },
    /// Something that changes something.
    Request {
        /// What.
        request: Request,
        /// How long the asker waits for the answer, ms.
        limit_ms: u64,
    },
    /// What would happen if these failed, one after the other; with `each`, and then any one of the others.
    WhatIf {
        /// What fails.
        faults: Vec<Fault>,
        /// Every fault there is follows, each in a prediction of its own.
        each: bool,
    },
}

/// What the controller answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Call::Ping`].
    Pong {
        /// Process id of the controller.
        pid: u32,
        /// Names the operator's start; a controller that its watcher restarted has the same one.
        start_id: u64,
    },
    /// To [`Call::Status`].
    Status(Box<Snapshot>),
    /// To [`Call::Configuration`].
    Configuration(Box<InEffect>),
    /// To [`Call::Reload`].
    Reloaded(Reloaded),
    /// To [`Call::Reload`]: nothing has changed, because of this.
    NotReloaded {
        /// As in [`Error`].
        message: String,
        /// As in [`Error`].
        hint: String,
    },
    /// To [`Call::Check`].
    Checked(Box<Checked>),
    /// To [`Call::Archived`]: the part, or why there is none.
    Archived(std::result::Result<Part, String>),
    /// To [`Call::Request`].
    Reply(Reply),
    /// To [`Call::WhatIf`].
    WhatIf(Vec<Prediction>),
    /// There are too many clients.
    Busy(String),
    /// The request was not understood.
    Bad(String),
}

/// Why a call has no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallError {
    /// No controller runs (exit code 3).
    NotRunning,
    /// It did not answer in time (exit code 5).
    TimedOut,
    /// Anything else: no permission, a broken connection.
    Failed(Error),
}

// ------------------------------------------------------------------------------------------------------------- client

/// Asks the controller whose run-time directory (`DIR/ID`) is `run_dir` and waits at most `limit` for the answer.
///
/// # Errors
/// See [`CallError`].
pub fn call(run_dir: &Path, call: &Call, limit: Duration) -> std::result::Result<Answer, CallError> {
    exchange(run_dir, call, limit)
}

/// One line of JSON there, and one back: the arbiter's control socket is of the same kind.
///
/// # Errors
/// See [`CallError`].
pub(super) fn exchange<A: DeserializeOwned>(
    run_dir: &Path,
    call: &impl Serialize,
    limit: Duration,
) -> std::result::Result<A, CallError> {
    let deadline = Instant::now() + limit;
    let mut stream = connect(run_dir)?;
    let path = run_dir.join(SOCKET);
    let failed = |cause: std::io::Error| match cause.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => CallError::TimedOut,
        _ => CallError::Failed(Error::io("communicate with the controller at", &path, cause)),
    };
    let mut line = serde_json::to_vec(call).map_err(|cause| CallError::Failed(Error::io("encode", &path, cause)))?;
    line.push(b'\n');
    stream.set_write_timeout(Some(limit.max(Duration::from_millis(1)))).map_err(failed)?;
    match stream.write_all(&line) {
        // A controller that is busy answers and closes before it reads.
        Err(cause) if cause.kind() == ErrorKind::BrokenPipe => (),
        written => written.map_err(failed)?,
    }
    let mut answer = Vec::new();
    while answer.last() != Some(&b'\n') {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(CallError::TimedOut);
        }
        stream.set_read_timeout(Some(left)).map_err(failed)?;
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(0) => return Err(failed(ErrorKind::UnexpectedEof.into())),
            Ok(length) => answer.extend_from_slice(&chunk[..length]),
            Err(cause) if cause.kind() == ErrorKind::Interrupted => (),
            Err(cause) => return Err(failed(cause)),
        }
        if answer.len() as u64 > MAX_ANSWER {
            return Err(failed(ErrorKind::InvalidData.into()));
        }
    }
    serde_json::from_slice(&answer).map_err(|cause| {
        CallError::Failed(
            Error::io("understand the response of the controller at", &path, cause).hint(
                "its version may differ; restart it with \"mc_ctl stop --mc-only\" and \"mc_ctl start --mc-only\"",
            ),
        )
    })
}

/// Connects without ever waiting: a stopped controller whose backlog is full must not hang a command.
fn connect(run_dir: &Path) -> std::result::Result<UnixStream, CallError> {
    let path = run_dir.join(SOCKET);
    let failed = |cause: rustix::io::Errno| match cause {
        rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOTDIR => CallError::NotRunning,
        rustix::io::Errno::AGAIN => CallError::TimedOut,
        cause => CallError::Failed(Error::io("connect to the controller at", &path, cause)),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
    let (short, _directory) = short_path(run_dir).map_err(failed)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(&short).map_err(failed)?).map_err(failed)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false).map_err(|cause| CallError::Failed(Error::io("use socket", &path, cause)))?;
    Ok(stream)
}

/// The socket's path, short enough for an address (107 bytes): where it is too long, by way of an open descriptor of
/// the directory, which must be kept as long as the path is used.
fn short_path(run_dir: &Path) -> rustix::io::Result<(PathBuf, Option<OwnedFd>)> {
    let path = run_dir.join(SOCKET);
    if path.as_os_str().len() < 100 {
        return Ok((path, None));
    }
    let directory = rustix::fs::open(run_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd())), Some(directory)))
}

// ------------------------------------------------------------------------------------------------------------- server

/// What the clients' threads share with the decision thread.
#[derive(Clone)]
pub struct Board {
    shared: Arc<Shared>,
}

struct Shared {
    snapshot: Mutex<Snapshot>,
    rebuilds: rebuild::Board,
    checkpoints: checkpoint::Board,
    space: disk_space::Board,
    connections: connections::Board,
    backups: backup_watch::Board,
    /// When the decision thread last went round, ms.
    alive: AtomicU64,
    /// The changing command that is being executed: its id, and where the answer goes.
    executing: Mutex<Option<(u64, Sender<Reply>)>>,
    next: AtomicU64,
    clients: AtomicUsize,
    inspector: OnceLock<Inspector>,
    archive: OnceLock<ArchiveLink>,
    reloader: OnceLock<Arc<Reloader>>,
    inbox: Inbox,
    /// Somebody waits for a copy of the core's state.
    wanted: AtomicBool,
    /// Where it goes.
    copies: Mutex<Option<Sender<Box<Present>>>>,
    /// Held while a prediction is made.
    predicting: Mutex<()>,
}

impl Board {
    /// A board that shows `first` until something else is published, how far rebuilds and checkpoints are, disk space, and
    /// connections that fail.
    pub fn new(
        first: Snapshot,
        rebuilds: rebuild::Board,
        checkpoints: checkpoint::Board,
        (space, connections, backups): (disk_space::Board, connections::Board, backup_watch::Board),
        inbox: Inbox,
    ) -> Board {
        let shared = Shared {
            rebuilds,
            checkpoints,
            space,
            connections,
            backups,
            alive: AtomicU64::new(first.alive.0),
            snapshot: Mutex::new(first),
            executing: Mutex::new(None),
            next: AtomicU64::new(1),
            clients: AtomicUsize::new(0),
            inspector: OnceLock::new(),
            archive: OnceLock::new(),
            reloader: OnceLock::new(),
            inbox,
            wanted: AtomicBool::new(false),
            copies: Mutex::new(None),
            predicting: Mutex::new(()),
        };
        Board { shared: Arc::new(shared) }
    }

    /// From now on [`Call::Check`] is answered.
    pub fn inspected_by(&self, inspector: Inspector) {
        let _ = self.shared.inspector.set(inspector);
    }

    /// From now on [`Call::Archived`] is answered.
    pub fn archives_by(&self, archive: ArchiveLink) {
        let _ = self.shared.archive.set(archive);
    }

    /// From now on [`Call::Configuration`] and [`Call::Reload`] are answered.
    pub fn reloaded_by(&self, reloader: Arc<Reloader>) {
        let _ = self.shared.reloader.set(reloader);
    }

    /// Reports to the other server which connections fail on this one.
    pub(super) fn report_failing(&self) {
        if let Some(inspector) = self.shared.inspector.get() {
            let failing = self.snapshot().connections;
            inspector.report_failing(failing.iter().map(ConnectionFailure::sentence).collect());
        }
    }

    /// The decision thread goes round.
    pub fn alive(&self, at: Time) {
        self.shared.alive.store(at.0, Ordering::Relaxed);
    }

    /// Shows this report from now on.
    pub fn publish(&self, report: Report) {
        lock(&self.shared.snapshot).report = report;
    }

    /// Shows from now on why the ledger cannot be written, if it cannot.
    pub fn publish_ledger_error(&self, why: Option<&str>) {
        lock(&self.shared.snapshot).ledger_error = why.map(str::to_owned);
    }

    /// Shows this address of a server for its clients from now on.
    pub fn publish_client(&self, server: usize, address: &str) {
        if let Some(shown) = lock(&self.shared.snapshot).clients.get_mut(server) {
            address.clone_into(shown);
        }
    }

    /// Answers the command with this id, if it still waits.
    pub fn reply(&self, id: u64, reply: Reply) {
        if let Some((_, sender)) = lock(&self.shared.executing).take_if(|(executing, _)| *executing == id) {
            let _ = sender.send(reply);
        }
    }

    /// Hands out a copy of the core's state, if somebody waits for one and there is one.
    pub fn hand_out(&self, node: &Node) {
        if !self.shared.wanted.load(Ordering::Relaxed) {
            return;
        }
        if let Some(present) = node.present() {
            self.shared.wanted.store(false, Ordering::Relaxed);
            if let Some(sender) = lock(&self.shared.copies).take() {
                let _ = sender.send(Box::new(present));
            }
        }
    }

    /// Whether a client is yet to be told the answer of a command.
    pub fn is_answering(&self) -> bool {
        self.shared.clients.load(Ordering::SeqCst) > 0
    }

    /// What is shown now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut snapshot = lock(&self.shared.snapshot).clone();
        snapshot.now = now();
        snapshot.rebuild = self.shared.rebuilds.read();
        snapshot.checkpoint = self.shared.checkpoints.read();
        snapshot.space = self.shared.space.read();
        let role = snapshot.report.servers[snapshot.report.me.index()].role;
        snapshot.connections = connections::of_role(&self.shared.connections, role);
        snapshot.peer_failing = self.shared.inspector.get().map(Inspector::peer_failing).unwrap_or_default();
        snapshot.backups = self.shared.backups.read();
        snapshot.wall_ms = wall_ms();
        snapshot.alive = Time(self.shared.alive.load(Ordering::Relaxed));
        if let Some(ms) = snapshot.stuck_ms() {
            let what = "the controller's decision thread has not responded for";
            snapshot
                .report
                .advice
                .insert(0, format!("{what} {} s: the output shows the state at that time", ms / 1000));
        }
        snapshot
    }

    /// The answer to one request; waits for the core where it is a command.
    fn answer(&self, call: Call) -> Answer {
        match call {
            Call::Ping => {
                let snapshot = lock(&self.shared.snapshot);
                Answer::Pong { pid: snapshot.pid, start_id: snapshot.start_id }
            }
            Call::Status => Answer::Status(Box::new(self.snapshot())),
            Call::Configuration => self.by_reloader(|by| Answer::Configuration(Box::new(by.in_effect()))),
            Call::Reload => self.by_reloader(|by| match by.reload() {
                Ok(reloaded) => Answer::Reloaded(reloaded),
                Err(Error { message, hint }) => Answer::NotReloaded { message, hint },
            }),
            Call::Check { limit_ms } => {
                let limit = Duration::from_millis(limit_ms);
                let asked = self.shared.inspector.get().map(|inspector| inspector.ask(limit));
                let asked = asked.unwrap_or_else(|| Err("it is still starting".to_owned()));
                asked.map_or_else(Answer::Busy, |checked| Answer::Checked(Box::new(checked)))
            }
            Call::Archived { what, offset } => match self.shared.archive.get() {
                Some(link) => Answer::Archived(link.ask(&what, offset)),
                None => Answer::Busy("the controller is still starting".to_owned()),
            },
            Call::Request { request, limit_ms } => Answer::Reply(match status::obstacle(&self.snapshot(), request) {
                Some(why) => Reply::Refused(why),
                None => self.execute(request, limit_ms),
            }),
            Call::WhatIf { faults, each } => self.foretell(&faults, each),
        }
    }

    fn by_reloader(&self, answer: impl Fn(&Reloader) -> Answer) -> Answer {
        match self.shared.reloader.get() {
            Some(reloader) => answer(reloader),
            None => Answer::Busy("the controller is still starting".to_owned()),
        }
    }

    /// Predictions are made here, on the client's thread, from a copy: the decision thread only hands that out.
    fn foretell(&self, faults: &[Fault], each: bool) -> Answer {
        if faults.len() > MOST_FAULTS {
            return Answer::Bad(format!("at most {MOST_FAULTS} faults can be specified"));
        }
        // One at a time: it takes the whole of a CPU for a moment.
        let Ok(_predicting) = self.shared.predicting.try_lock() else {
            return Answer::Busy("another prediction is in progress".to_owned());
        };
        let (sender, receiver) = crossbeam_channel::bounded(1);
        *lock(&self.shared.copies) = Some(sender);
        self.shared.wanted.store(true, Ordering::Relaxed);
        let copy = receiver.recv_timeout(COPY_LIMIT);
        self.shared.wanted.store(false, Ordering::Relaxed);
        let Ok(present) = copy else {
            return Answer::Reply(Reply::TimedOut(
                "the controller does not report its state: its decision thread hangs, or its ledger cannot be written"
                    .to_owned(),
            ));
        };
        let snapshot = self.snapshot();
        let [one, two] = &snapshot.servers;
        let arbiter = snapshot.arbiter.as_ref().map_or("", |name| &name.id);
        let message = |who: Member, say: &CoreMessage| {
            let me = if let Member::Server(server) = who { server } else { present.settings.me };
            let ids = [one.id.clone(), two.id.clone()];
            let said = messages::of_say(say, &messages::Names { ids, me, arbiter: arbiter.to_owned() });
            (said.text, said.number)
        };
        let names = what_if::Names { servers: [&one.id, &two.id], arbiter, message: &message };
        let stories: Vec<Vec<Fault>> = match each {
            true => Fault::ALL.iter().map(|fault| [faults, &[*fault]].concat()).collect(),
            false => vec![faults.to_vec()],
        };
        let predict = |story: &Vec<Fault>| {
            let mut prediction = what_if::predict(&present, story, &names)?;
            let data = story.iter().any(|fault| fault.can_lose_data());
            prediction.remarks.extend(BackupStatus::remark(&snapshot).filter(|_| data));
            Ok(prediction)
        };
        match stories.iter().map(predict).collect() {
            Ok(predictions) => Answer::WhatIf(predictions),
            Err(why) => Answer::Reply(Reply::Refused(why)),
        }
    }

    /// How a rebuild of this server is ordered, and how it goes.
    pub(super) fn rebuilds(&self) -> Rebuilds {
        let (state, view, orders) = (self.clone(), self.clone(), self.clone());
        let order = |method| Request::Rebuild(RebuildOrder { method, ..RebuildOrder::default() });
        Rebuilds {
            state: Box::new(move || lock(&state.shared.snapshot).report.rebuilding.clone()),
            view: Box::new(move || lock(&view.shared.snapshot).report.view),
            order: Box::new(move |method, limit| orders.execute(order(method), limit.as_millis() as u64)),
        }
    }

    /// Has the core do it, and waits for its reply.
    fn execute(&self, request: Request, limit_ms: u64) -> Reply {
        let id = self.shared.next.fetch_add(1, Ordering::SeqCst);
        let (sender, receiver) = crossbeam_channel::bounded(1);
        {
            let mut executing = lock(&self.shared.executing);
            if executing.is_some() {
                return Reply::Refused("mc_ctl command is being executed".to_owned());
            }
            *executing = Some((id, sender));
        }
        self.shared.inbox.put(Event::Request { id, request, limit_ms });
        let deadline = Instant::now() + Duration::from_millis(limit_ms).saturating_add(GRACE);
        let reply = loop {
            let reply = receiver.recv_timeout(LEDGER_LOOK.min(deadline.saturating_duration_since(Instant::now())));
            let unwritable = lock(&self.shared.snapshot).ledger_error.is_some();
            let hint = unwritable.then(|| status::ledger_hint(&self.snapshot())).flatten();
            match (reply, hint) {
                (Err(_), Some(why)) => {
                    let rest = "the command may still be carried out when it can be written";
                    break Ok(Reply::Failed(format!("{why}; {rest}")));
                }
                (Err(_), None) if Instant::now() < deadline => (),
                (reply, _) => break reply,
            }
        };
        lock(&self.shared.executing).take_if(|(executing, _)| *executing == id);
        reply.unwrap_or_else(|_| {
            Reply::TimedOut(
                "the controller did not respond in time; \"mc_ctl status\" shows the present state".to_owned(),
            )
        })
    }
}

/// The bound control socket.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Binds `run_dir`'s control socket. The caller holds the controller's lock, so that one left behind is removed.
    ///
    /// # Errors
    /// It cannot be bound.
    pub fn bind(run_dir: &Path) -> Result<Control> {
        let path = run_dir.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(Error::io("remove file", &path, cause)),
            _ => (),
        }
        let failed = |cause: std::io::Error| Error::io("bind control socket", &path, cause);
        let (short, _directory) = short_path(run_dir).map_err(|cause| failed(cause.into()))?;
        let listener = UnixListener::bind(&short).map_err(failed)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Control { listener, path })
    }

    /// The socket and its path, for who serves it.
    pub(super) fn into_parts(self) -> (UnixListener, PathBuf) {
        (self.listener, self.path)
    }

    /// Serves clients on a thread of its own, as long as the process lives. Returns the path, to be removed at the end.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn serve(self, board: Board) -> Result<PathBuf> {
        let path = self.path.clone();
        spawn("control", move || {
            for stream in self.listener.incoming() {
                match stream {
                    Ok(stream) => admit(&board, stream),
                    // Out of file descriptors, most likely.
                    Err(_) => std::thread::sleep(Duration::from_millis(100)),
                }
            }
        })?;
        Ok(path)
    }
}

fn admit(board: &Board, mut stream: UnixStream) {
    let _ = stream.set_read_timeout(Some(CLIENT_PATIENCE));
    let _ = stream.set_write_timeout(Some(CLIENT_PATIENCE));
    let clients = &board.shared.clients;
    if clients.fetch_add(1, Ordering::SeqCst) >= MAX_CLIENTS {
        clients.fetch_sub(1, Ordering::SeqCst);
        let _ = stream
            .write_all(&line(&Answer::Busy(format!("{MAX_CLIENTS} commands are already connected to the controller"))));
        return;
    }
    let client = board.clone();
    let served = spawn("control-in", move || {
        serve(&client, &stream);
        client.shared.clients.fetch_sub(1, Ordering::SeqCst);
    });
    if served.is_err() {
        clients.fetch_sub(1, Ordering::SeqCst);
    }
}

fn serve(board: &Board, stream: &UnixStream) {
    converse(stream, |call| match call {
        Ok(call) => board.answer(call),
        Err(why) => Answer::Bad(why),
    });
}

/// Answers a client's calls, a line of JSON each, until it goes away or says too much.
pub(super) fn converse<C: DeserializeOwned, A: Serialize>(
    mut stream: &UnixStream,
    answer: impl Fn(std::result::Result<C, String>) -> A,
) {
    let mut reader = BufReader::with_capacity(1024, stream);
    loop {
        let mut request = Vec::new();
        match (&mut reader).take(MAX_CALL).read_until(b'\n', &mut request) {
            Ok(_) if request.last() == Some(&b'\n') => (),
            _ => return,
        }
        let call = serde_json::from_slice(&request).map_err(|cause| format!("request not understood: {cause}"));
        if stream.write_all(&line(&answer(call))).is_err() {
            return;
        }
    }
}

/// An answer as a line of JSON.
pub(super) fn line(answer: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::types::Server;
    use crate::status::MemberName;
    use crossbeam_channel::Receiver;

    const LIMIT: Duration = Duration::from_secs(10);

    fn snapshot() -> Snapshot {
        let report = Report { advice: vec!["first advice".to_owned()], ..Report::blank(Server::First) };
        let name = |id: &str| MemberName { id: id.to_owned(), host: "localhost".to_owned() };
        Snapshot {
            now: now(),
            alive: now(),
            pid: 1,
            version: String::new(),
            started: now(),
            start_id: 7,
            servers: [name("nd1"), name("nd2")],
            arbiter: None,
            clients: Default::default(),
            wall_ms: 0,
            noted: None,
            report,
            rebuild: None,
            checkpoint: None,
            space: Vec::new(),
            ledger_error: None,
            connections: Vec::new(),
            bin_dir: None,
            peer_failing: Vec::new(),
            backups: None,
        }
    }

    fn serve(run_dir: &Path) -> (Board, Receiver<(Time, Event)>) {
        let (inbox, events) = Inbox::new();
        let board = Board::new(snapshot(), rebuild::Board::default(), Default::default(), Default::default(), inbox);
        Control::bind(run_dir).unwrap().serve(board.clone()).unwrap();
        (board, events)
    }

    const SWITCH: Call = Call::Request { request: Request::Switch, limit_ms: 5000 };

    #[test]
    fn no_controller_is_told_apart_and_a_long_path_works() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("d".repeat(120)).join("nd1");
        assert_eq!(call(&run_dir, &Call::Ping, LIMIT), Err(CallError::NotRunning));
        std::fs::create_dir_all(&run_dir).unwrap();
        assert_eq!(call(&run_dir, &Call::Ping, LIMIT), Err(CallError::NotRunning));
        let _served = serve(&run_dir);
        assert_eq!(call(&run_dir, &Call::Ping, LIMIT), Ok(Answer::Pong { pid: 1, start_id: 7 }));
        assert_eq!(run_dir.join(SOCKET).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_stuck_decision_thread_does_not_delay_the_status_and_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (board, _events) = serve(dir.path());
        let status = || match call(dir.path(), &Call::Status, LIMIT) {
            Ok(Answer::Status(snapshot)) => snapshot.report.advice,
            other => panic!("{other:?}"),
        };
        board.alive(now());
        assert_eq!(status(), ["first advice"]);
        board.alive(Time(now().0 - 9000));
        assert!(status()[0].contains("has not responded for 9 s"));
    }

    /// During an update a new `mc_ctl` talks to a controller of the version before, which does not tell all of it.
    #[test]
    fn what_an_older_controller_does_not_tell_is_filled_in() {
        let mut older = serde_json::to_value(snapshot()).unwrap();
        for field in ["wall_ms", "noted"] {
            assert!(older.as_object_mut().unwrap().remove(field).is_some());
        }
        let read: Snapshot = serde_json::from_value(older).unwrap();
        assert_eq!((read.wall_ms, read.noted), (0, None));
    }

    #[test]
    fn one_command_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let (board, events) = serve(dir.path());
        let run_dir = dir.path().to_owned();
        let first = std::thread::spawn(move || call(&run_dir, &SWITCH, LIMIT));
        let (_, event) = events.recv_timeout(LIMIT).unwrap();
        let Event::Request { id, request: Request::Switch, limit_ms: 5000 } = event else { panic!("{event:?}") };
        let refused = Answer::Reply(Reply::Refused("mc_ctl command is being executed".to_owned()));
        assert_eq!(call(dir.path(), &SWITCH, LIMIT), Ok(refused));
        board.reply(id + 1, Reply::Done);
        board.reply(id, Reply::Failed("so".to_owned()));
        assert_eq!(first.join().unwrap(), Ok(Answer::Reply(Reply::Failed("so".to_owned()))));
        assert!(events.try_recv().is_err());
    }

    #[test]
    fn junk_is_answered_and_a_frozen_controller_times_out() {
        let dir = tempfile::tempdir().unwrap();
        let (_board, _events) = serve(dir.path());
        let mut stream = UnixStream::connect(dir.path().join(SOCKET)).unwrap();
        stream.write_all(b"sing\n").unwrap();
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).unwrap();
        assert!(answer.starts_with("{\"Bad\":"), "{answer}");

        let dir = tempfile::tempdir().unwrap();
        let _frozen = Control::bind(dir.path()).unwrap();
        assert_eq!(call(dir.path(), &Call::Ping, Duration::from_millis(50)), Err(CallError::TimedOut));
    }

    #[test]
    fn clients_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let (_board, _events) = serve(dir.path());
        let _clients: Vec<_> =
            (0..MAX_CLIENTS).map(|_| UnixStream::connect(dir.path().join(SOCKET)).unwrap()).collect();
        let busy = call(dir.path(), &Call::Ping, LIMIT);
        assert!(matches!(busy, Ok(Answer::Busy(_))), "{busy:?}");
    }
}
