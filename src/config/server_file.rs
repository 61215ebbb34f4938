//! `ID.conf`: one server's parameters (CONTRACT section 5).

use super::key::Secret;
use super::params::Parameter;
use crate::fsm::event::{OnInstanceSilence, OnSilence};
use std::path::PathBuf;

/// `ID.conf`, checked, with defaults in place of what it does not set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerFile {
    /// The data directory, absolute.
    pub db_instance: PathBuf,
    /// Database user; the OS user by default.
    pub db_instance_username: String,
    /// Its password.
    pub db_instance_password: Option<Secret>,
    /// Database to connect to.
    pub target_db: String,
    /// `postgresql.conf`, in the data directory or where Debian keeps it. Empty after [`super::Config::load_for_client`]
    /// unless set.
    pub config_file: PathBuf,
    /// The directory of `postgres` and `pg_ctl`, of the data directory's version. Empty after
    /// [`super::Config::load_for_client`] unless set.
    pub bin_dir: PathBuf,
    /// Of `PG_VERSION`: 12 or later. 0 after [`super::Config::load_for_client`].
    pub major_version: u32,
    /// Time between two heartbeats, ms.
    pub heartbeat_interval_ms: u64,
    /// Time after which an unanswered heartbeat has failed, ms.
    pub heartbeat_timeout_ms: u64,
    /// Failures beyond the first that are tolerated.
    pub heartbeat_retry: u32,
    /// What is done when heartbeats are lost.
    pub heartbeat_error_action: OnSilence,
    /// `isolated_primary_action = stop`.
    pub isolated_primary_stops: bool,
    /// `startup_wait`, ms.
    pub startup_wait_ms: u64,
    /// `accept_startup_race = on`.
    pub accept_startup_race: bool,
    /// Host under which clients reach this instance.
    pub client_address: String,
    /// Host under which the other instance reaches this one.
    pub replication_address: String,
    /// Time between two probes of the instance, ms.
    pub db_instance_check_interval_ms: u64,
    /// Time after which an unanswered probe has failed, ms.
    pub db_instance_check_timeout_ms: u64,
    /// Failures beyond the first that are tolerated.
    pub db_instance_check_retry: u32,
    /// What is done about an instance that does not answer.
    pub db_instance_timeout_action: OnInstanceSilence,
    /// Time between two probes of the disks, ms.
    pub disk_check_interval_ms: u64,
    /// Time after which an unanswered probe has failed, ms.
    pub disk_check_timeout_ms: u64,
    /// Failures beyond the first that are tolerated.
    pub disk_check_retry: u32,
    /// `tablespace_directory_error_action = failover`: a failed tablespace is a failed disk; else it is only reported.
    pub tablespace_error_is_failure: bool,
    /// `rebuild_action = auto`.
    pub rebuild_auto: bool,
    /// `fencing_command_timeout`, ms.
    pub fencing_command_timeout_ms: u64,
    /// `arbitration_command_timeout`, ms.
    pub arbitration_command_timeout_ms: u64,
    /// `status_change_command_timeout`, ms.
    pub status_change_command_timeout_ms: u64,
    /// `shutdown_detached_synchronous_standby = on`.
    pub shutdown_detached_synchronous_standby: bool,
    /// Time limit of a command's call to the other members, ms; `None` for no limit.
    pub remote_call_timeout_ms: Option<u64>,
    /// Time after which the watcher restarts a controller whose decision thread has stopped, ms; `None` for never.
    pub agent_alive_timeout_ms: Option<u64>,
    /// Time between two heartbeats to the arbiter, ms.
    pub arbiter_alive_interval_ms: u64,
    /// Time after which an unanswered one has failed, ms.
    pub arbiter_alive_timeout_ms: u64,
    /// Failures beyond the first that are tolerated.
    pub arbiter_alive_retry: u32,
    /// Time limit of a connection to the arbiter, ms.
    pub arbiter_connect_timeout_ms: u64,
    /// 0 to 7, for `LOCAL0` to `LOCAL7`.
    pub syslog_facility: u8,
    /// The program's name in the system log.
    pub syslog_ident: String,
    /// Directory for core files.
    pub core_file_path: PathBuf,
    /// What [`super::Config::parameters`] shows.
    pub(super) parameters: Vec<Parameter>,
}
