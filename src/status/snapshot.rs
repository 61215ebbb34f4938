//! What the decision thread publishes, and all that is shown of a controller is made from: the material of the status, of
//! `start -w`, of the health endpoint.
//!
//! Plain values, sent over the control socket as JSON: fields are added, with a default, and never renamed.

use super::{Cause, Checkpoint, ConnectionFailure, Directory, Purpose, Space};
use crate::backup::Survey;
use crate::fsm::report::{HostRole, Report};
use crate::fsm::types::{Time, View};
use crate::rebuild;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A decision thread that has not gone round its loop for longer than this is called stuck, ms.
const STUCK_MS: u64 = 2000;

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
    /// `host:port` under which clients reach each of the servers; empty where it is not known yet.
    #[serde(default)]
    pub clients: [String; 2],
    /// When the answer was made, by this host's clock, ms since the epoch. Times in `noted` are of the same clock.
    #[serde(default)]
    pub wall_ms: u64,
    /// The last change of view in the history when this process started; what it has seen since is in `report`.
    pub noted: Option<Change>,
    /// What the core tells. Where the decision thread has not gone round its loop for 2 s, its advice says so.
    pub report: Report,
    /// How far the last rebuild since the controller's start is, or was when it ended.
    #[serde(default)]
    pub rebuild: Option<rebuild::Progress>,
    /// How far the checkpoint is that the controller waits for.
    #[serde(default)]
    pub checkpoint: Option<Checkpoint>,
    /// The directory of the instance's programs; `None` if an older controller does not report it.
    #[serde(default)]
    pub bin_dir: Option<String>,
    /// The disk space of this server's directories.
    #[serde(default)]
    pub space: Vec<Space>,
    /// Why this server's ledger cannot be written.
    #[serde(default, with = "crate::optional_text")]
    pub ledger_error: Option<String>,
    /// Connections that this server needs and that fail.
    #[serde(default)]
    pub connections: Vec<ConnectionFailure>,
    /// Connections that fail on the other server, a sentence each as that reports it.
    #[serde(default)]
    pub peer_failing: Vec<String>,
    /// The backups of both servers; `None` if `backup_destination` is not set, or before they were read.
    #[serde(default)]
    pub backups: Option<Survey>,
}

/// A line of `network.conf`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberName {
    /// The identifier.
    pub id: String,
    /// The host, as written there.
    pub host: String,
}

/// One line of `DIR/ID/history`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Milliseconds since the epoch, of this host's clock.
    pub time_ms: u64,
    /// The view before; `None` for the first one.
    pub from: Option<View>,
    /// The view since.
    pub to: View,
    /// Why, in a sentence.
    pub reason: String,
}

impl Snapshot {
    /// The primary rejects the replication connection of this standby: no password, certificate or line of `pg_hba.conf` fits.
    pub fn rejected_replication(&self) -> Option<&ConnectionFailure> {
        let standby = self.report.servers[self.report.me.index()].role == HostRole::Standby;
        let rejected = |failure: &&ConnectionFailure| {
            failure.purpose == Purpose::Replication && failure.cause == Cause::Authentication
        };
        self.connections.iter().find(rejected).filter(|_| standby)
    }

    /// The primary no longer has WAL that this standby requires.
    pub fn missing_wal(&self) -> Option<&ConnectionFailure> {
        self.connections.iter().find(|failure| failure.cause == Cause::MissingWal)
    }

    /// How to stop this server's instance without the checkpoint for which its disk has no space.
    pub fn immediate_shutdown(&self) -> Option<String> {
        let data = self.space.iter().find(|space| space.directory == Directory::Data)?;
        let program = Path::new(self.bin_dir.as_deref().unwrap_or_default()).join("pg_ctl");
        Some(format!("run \"{} stop -m immediate -D {}\" here as its owner", program.display(), data.path))
    }

    /// For how long the decision thread has stood still, ms, where that is longer than 2 s.
    pub fn stuck_ms(&self) -> Option<u64> {
        Some(self.now.since(self.alive)).filter(|ms| *ms > STUCK_MS)
    }
}
