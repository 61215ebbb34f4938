//! The settings of one server, as the core uses them.

use super::types::Server;
use super::user_command::Hooks;
use serde::{Deserialize, Serialize};

/// What a server does when heartbeats are lost (`heartbeat_error_action`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum OnSilence {
    /// Asks the arbiter.
    Arbitration,
    /// Asks the operator's script; its consent makes a forced view.
    Command,
    /// Reports only.
    Message,
    /// Acts alone, without a safety argument (PROTOCOL section 6).
    Fallback,
    /// Safe half: only the standby acts.
    Switch,
    /// Safe half: only the primary acts.
    Disconnect,
}

impl OnSilence {
    /// As `heartbeat_error_action` is written.
    pub fn text(self) -> &'static str {
        match self {
            OnSilence::Arbitration => "arbitration",
            OnSilence::Command => "command",
            OnSilence::Message => "message",
            OnSilence::Fallback => "fallback",
            OnSilence::Switch => "switch",
            OnSilence::Disconnect => "disconnect",
        }
    }
}

/// What a server does when its own instance does not answer (`db_instance_timeout_action`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum OnInstanceSilence {
    /// Nothing.
    None,
    /// Reports only.
    Message,
    /// As a dead instance.
    Failover,
}

/// One server's settings, fixed for the life of a controller process.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Settings {
    /// This server.
    pub me: Server,
    /// `network.conf` names an arbiter.
    pub arbiter: bool,
    /// Time between two heartbeats, ms.
    pub heartbeat_interval_ms: u64,
    /// `heartbeat_timeout`, ms.
    pub heartbeat_timeout_ms: u64,
    /// (timeout + interval) x (retry + 1) of the heartbeats, ms.
    pub heartbeat_detection_ms: u64,
    /// The same of the instance probe, ms.
    pub instance_detection_ms: u64,
    /// The same of the disk probe, ms.
    pub disk_detection_ms: u64,
    /// `heartbeat_error_action`.
    pub on_silence: OnSilence,
    /// `db_instance_timeout_action`.
    pub on_instance_silence: OnInstanceSilence,
    /// `isolated_primary_action = stop`.
    pub isolated_primary_stops: bool,
    /// `isolated_restart = on`.
    pub isolated_restart: bool,
    /// `startup_wait`, ms.
    pub startup_wait_ms: u64,
    /// `rebuild_action = auto`.
    pub rebuild_auto: bool,
    /// `shutdown_detached_synchronous_standby = on`.
    pub stop_detached_standby: bool,
    /// A `fencing_command` is configured.
    pub fencing: bool,
    /// Which of the commands that follow a change are configured.
    pub hooks: Hooks,
    /// Random; new for every controller process. The core makes its ids from it.
    pub seed: u64,
}
