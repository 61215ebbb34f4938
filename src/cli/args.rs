//! What can be typed.

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Controls Mirroring Controller, which keeps a pair of PostgreSQL servers available when either one fails.
#[derive(Parser, Debug)]
#[command(name = "mc_ctl", version, about, disable_help_subcommand = true)]
#[command(
    after_help = "Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 3 the controller is not running,\n4 refused by the present state, 5 timed out. See mc_ctl(8)."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// The whole command line, for tests that compare it with the manual.
pub fn command() -> clap::Command {
    Cli::command()
}

#[derive(Subcommand, Debug)]
pub(super) enum Verb {
    /// Start the controller and the instance of this server
    Start(Start),
    /// Stop the controller and the instance of this server
    Stop(Stop),
    /// Show the state of the pair
    Status(Status),
    /// Make the standby the primary (planned)
    Switch(Change),
    /// Disconnect the standby: the primary continues alone
    Detach(Change),
    /// Enable automatic switch and disconnection
    EnableFailover(Common),
    /// Disable automatic switch and disconnection; failures are only reported
    DisableFailover(Common),
    /// Make this server, which has lost its role or has no data, the standby of the other server
    Rebuild(Rebuild),
    /// Make the running controller read ID.conf and network.conf again
    Reload(Common),
    /// Show every change of the right to acknowledge commits, with its time and reason
    History(History),
    /// Explain a message or a finding of the check: its cause and remedy
    Explain(super::explain::Args),
    /// Create the files of the management directory, and show the settings that are still missing
    Init(Box<super::init::Args>),
    /// Report conditions that prevent the pair from working, on both servers and the arbiter
    Check(super::check::Args),
    /// Predict the actions of the pair after a fault in its present state; changes nothing
    WhatIf(super::what_if::Args),
    /// Show the connection strings with which clients connect to the primary
    Conninfo(super::conninfo::Args),
    /// Make a backup on the primary, or show, verify and remove backups
    Backup(super::backup::Args),
    /// Recover the pair from a backup, to the end of WAL or to an earlier target
    Recover(super::recover::Args),
    /// Archive a WAL file: for archive_command
    ArchiveWal(super::archive::ArchiveArgs),
    /// Copy a WAL file from the archive: for restore_command
    RestoreWal(super::archive::RestoreArgs),
    #[command(hide = true)]
    Completions(super::completions::Args),
    /// Not a command: without it, "detach" would be proposed
    #[command(hide = true)]
    Attach {
        #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

#[derive(Args, Debug)]
pub(super) struct Common {
    /// Management directory [default: $MCCONTROLDIR]
    #[arg(short = 'M', value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Identifier of this server; required only if both servers are on this host
    #[arg(long, value_name = "ID")]
    pub local_server: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct Start {
    #[command(flatten)]
    pub common: Common,
    /// Wait until the instance runs, on a standby until the pair is mirrored [default]
    #[arg(short = 'w', overrides_with = "no_wait")]
    pub wait: bool,
    /// Do not wait
    #[arg(short = 'W', overrides_with = "wait")]
    pub no_wait: bool,
    /// Time limit in seconds
    #[arg(short = 't', value_name = "SEC", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Enable automatic switch and disconnection
    #[arg(short = 'f', conflicts_with = "no_failover")]
    pub failover: bool,
    /// Disable automatic switch and disconnection
    #[arg(short = 'F')]
    pub no_failover: bool,
    /// Start only the controller, not the instance
    #[arg(long)]
    pub mc_only: bool,
    /// Stay in the foreground, and also write messages to standard error
    #[arg(long)]
    pub foreground: bool,
    /// Start even if the arbiter cannot be reached yet, and connect to it later
    #[arg(long)]
    pub async_connect_arbiter: bool,
    /// Take the right to run alone with the present data directory, after a restore or the loss of the ledger
    #[arg(long, conflicts_with = "foreground")]
    pub adopt_data: bool,
    /// Do not request confirmation
    #[arg(long, requires = "adopt_data")]
    pub yes: bool,
}

#[derive(Args, Debug)]
pub(super) struct Stop {
    #[command(flatten)]
    pub common: Common,
    /// Time limit in seconds [default: remote_call_timeout]
    #[arg(short = 't', value_name = "SEC", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// Stop both servers; nothing is switched
    #[arg(short = 'a')]
    pub all: bool,
    /// Stop only the controller, not the instance
    #[arg(long)]
    pub mc_only: bool,
    /// End the controller at once; the instance is not affected
    #[arg(short = 'e', conflicts_with_all = ["all", "mc_only", "seconds"])]
    pub emergency: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
    Prometheus,
}

#[derive(Args, Debug)]
pub(super) struct Status {
    #[command(flatten)]
    pub common: Common,
    /// Also show the arbiter
    #[arg(long)]
    pub arbiter: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub format: Format,
    /// One line for monitoring, and its exit status: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN
    #[arg(long, conflicts_with_all = ["format", "watch", "arbiter"])]
    pub check: bool,
    /// Repeat the output every SEC seconds
    #[arg(long, value_name = "SEC", num_args = 0..=1, default_missing_value = "1",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub watch: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Method {
    Auto,
    Rewind,
    Basebackup,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum OldData {
    Keep,
    Delete,
}

#[derive(Args, Debug)]
pub(super) struct Rebuild {
    #[command(flatten)]
    pub common: Common,
    /// Time limit in seconds; the rebuild continues after it [default: no limit]
    #[arg(short = 't', value_name = "SEC", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// The method: the fastest that works, no full copy, or a full copy
    #[arg(long, value_enum, default_value_t = Method::Auto, value_name = "METHOD")]
    pub method: Method,
    /// Whether to keep a data directory that a full copy replaces
    #[arg(long, value_enum, default_value_t = OldData::Keep, value_name = "WHAT")]
    pub old_data: OldData,
    /// Only show the method, its reason, the number of bytes to copy, the disk space and the steps
    #[arg(long, conflicts_with_all = ["yes", "seconds"])]
    pub dry_run: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = ListFormat::Text, value_name = "FORMAT", requires = "dry_run")]
    pub format: ListFormat,
    /// Do not request confirmation before the data directory is overwritten or replaced
    #[arg(long)]
    pub yes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum ListFormat {
    Text,
    Json,
}

#[derive(Args, Debug)]
pub(super) struct History {
    #[command(flatten)]
    pub common: Common,
    /// Show only the last change
    #[arg(long)]
    pub last: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = ListFormat::Text, value_name = "FORMAT")]
    pub format: ListFormat,
}

#[derive(Args, Debug)]
pub(super) struct Change {
    #[command(flatten)]
    pub common: Common,
    /// Time limit in seconds [default: remote_call_timeout]
    #[arg(short = 't', value_name = "SEC", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// Act without the consent of the other server, which does not respond and is confirmed down
    #[arg(long)]
    pub force: bool,
    /// Do not run fencing_command first
    #[arg(long, requires = "force")]
    pub no_fencing: bool,
    /// Do not request confirmation
    #[arg(long, requires = "force")]
    pub yes: bool,
}
