//! The control socket of `mc_arb`: what the command asks of the running arbiter, and what it is told.
//!
//! The socket is as a controller's (`daemon::control`): one JSON line a request, one JSON line an answer. Requests are
//! answered by the loop; a thread for each client waits for it. Decides nothing.

use super::{News, Notifier};
use crate::daemon::control::{CallError, Control, converse, exchange, line};
use crate::daemon::spawn;
use crate::error::Result;
use crate::fsm::types::Mode;
use crate::status::Space;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Clients that are served at a time.
const MAX_CLIENTS: usize = 16;

/// How long a client may be silent before it is sent away.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

/// How long the loop may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// What `mc_arb` asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Call {
    /// What it knows.
    Status,
    /// End.
    Stop,
    /// Remove what is known of the cluster with this system identifier.
    Forget(u64),
}

/// What the arbiter answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Call::Status`].
    Status(Box<Snapshot>),
    /// It is done, or will be at once.
    Done,
    /// The present state does not allow it.
    Refused(String),
    /// It was tried and did not succeed; or the request was not understood.
    Failed(String),
}

/// What the arbiter knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its process id.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// Since when it runs, ms.
    pub uptime_ms: u64,
    /// Its clusters: that of its directory itself first, then by name.
    pub clusters: Vec<ClusterStatus>,
    /// Clusters whose files were not as they must be when it started, by name, and why.
    #[serde(default)]
    pub refused: Vec<(String, String)>,
    /// System identifiers of ledgers that belong to none of them.
    pub others: Vec<u64>,
    /// The space of its directory.
    #[serde(default)]
    pub space: Vec<Space>,
}

/// What the arbiter knows of a cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The name of its directory; empty for the arbiter's own.
    pub name: String,
    /// `None` before a server has told it.
    pub system_identifier: Option<u64>,
    /// Why the cluster is not served; `None` where it is.
    pub problem: Option<String>,
    /// The view in its ledger; `None` where it has none.
    pub view: Option<ViewStatus>,
    /// The servers, in the order of `network.conf`.
    pub servers: [ServerStatus; 2],
}

/// [`Mode`] as it is written.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Mode", rename_all = "lowercase")]
enum Word {
    Mirrored,
    Degraded,
}

/// A view.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ViewStatus {
    /// Its number.
    pub term: u64,
    /// `mirrored` or `degraded`.
    #[serde(with = "Word")]
    pub mode: Mode,
    /// The primary's identifier.
    pub primary: String,
    /// It was made without the consent that safety needs.
    pub forced: bool,
    /// The highest term promised.
    pub promised: u64,
    /// Names the ledger: 16 hexadecimal digits. A view that names it too leans on this arbiter.
    pub ledger: String,
}

/// What the arbiter knows of a server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its identifier.
    pub id: String,
    /// Its host, by which it reaches the arbiter.
    pub host: String,
    /// Its heartbeats arrive.
    pub online: bool,
    /// Why it is not given the right to run alone, if there is a reason.
    #[serde(default)]
    pub refusal: Option<String>,
}

/// Asks the arbiter whose run-time directory (`DIR/run`) is `run_dir` and waits at most `limit` for the answer.
///
/// # Errors
/// See [`CallError`].
pub fn call(run_dir: &Path, call: &Call, limit: Duration) -> std::result::Result<Answer, CallError> {
    exchange(run_dir, call, limit)
}

/// Serves clients of `run_dir`'s control socket on threads of its own, as long as the process lives. Returns the
/// socket's path, to be removed at the end, and the number of clients that are being served.
///
/// # Errors
/// It cannot be bound, or no thread can be started.
pub(super) fn serve(run_dir: &Path, notifier: Notifier) -> Result<(PathBuf, Arc<AtomicUsize>)> {
    let (listener, path) = Control::bind(run_dir)?.into_parts();
    let clients = Arc::new(AtomicUsize::new(0));
    let count = clients.clone();
    spawn("control", move || {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => admit(stream, &notifier, &count),
                // Out of file descriptors, most likely.
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    })?;
    Ok((path, clients))
}

fn admit(stream: UnixStream, notifier: &Notifier, clients: &Arc<AtomicUsize>) {
    let _ = stream.set_read_timeout(Some(CLIENT_PATIENCE));
    let _ = stream.set_write_timeout(Some(CLIENT_PATIENCE));
    if clients.fetch_add(1, Ordering::SeqCst) >= MAX_CLIENTS {
        clients.fetch_sub(1, Ordering::SeqCst);
        let busy = Answer::Refused(format!("{MAX_CLIENTS} commands are already connected to the arbiter"));
        let _ = (&stream).write_all(&line(&busy));
        return;
    }
    let (notifier, count) = (notifier.clone(), clients.clone());
    let served = spawn("control-in", move || {
        converse(&stream, |call| match call {
            Ok(call) => ask(call, &notifier),
            Err(why) => Answer::Failed(why),
        });
        count.fetch_sub(1, Ordering::SeqCst);
    });
    if served.is_err() {
        clients.fetch_sub(1, Ordering::SeqCst);
    }
}

fn ask(call: Call, notifier: &Notifier) -> Answer {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    notifier.tell(News::Call(call, sender));
    receiver.recv_timeout(LIMIT).unwrap_or_else(|_| Answer::Failed("the arbiter did not respond in time".to_owned()))
}
