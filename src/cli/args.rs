//! What can be typed.

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Controls Mirroring Controller, which keeps a pair of PostgreSQL servers serving through the death of either.
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
    /// Let the standby take over from the primary (planned)
    Switch(Change),
    /// Disconnect the standby: the primary continues alone
    Detach(Change),
    /// Let failures lead to a switch or a disconnection by themselves
    EnableFailover(Common),
    /// Only report failures
    DisableFailover(Common),
    /// Make this server, which has lost its role or has no data, the standby of the other one
    Rebuild(Rebuild),
    /// Let the running controller read ID.conf and network.conf again
    Reload(Common),
    /// Show every change of who serves: when and why
    History(History),
    /// Explain a message or a finding of the check: its cause, what to do
    Explain(super::explain::Args),
    /// Make the files of the management directory, and show what is still missing
    Init(Box<super::init::Args>),
    /// Look for everything that would keep the pair from working: on both servers and the arbiter
    Check(super::check::Args),
    /// Tell what the pair would do if something failed now; changes nothing
    WhatIf(super::what_if::Args),
    /// Show how clients connect with whichever server is the primary
    Conninfo(super::conninfo::Args),
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
    /// Which server of network.conf this is, where two of them are on this host
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
    /// How long to wait, in seconds
    #[arg(short = 't', value_name = "SEC", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Enable automatic switch and disconnection
    #[arg(short = 'f', conflicts_with = "no_failover")]
    pub failover: bool,
    /// Disable automatic switch and disconnection
    #[arg(short = 'F')]
    pub no_failover: bool,
    /// Start the controller alone, not the instance
    #[arg(long)]
    pub mc_only: bool,
    /// Stay in the foreground, and write messages to standard error too
    #[arg(long)]
    pub foreground: bool,
    /// Start even where the arbiter cannot be reached yet, and connect with it later
    #[arg(long)]
    pub async_connect_arbiter: bool,
    /// Take the right to run alone with the present data directory, after a restore or the loss of the ledger
    #[arg(long, conflicts_with = "foreground")]
    pub adopt_data: bool,
    /// Do not ask whether to adopt the data directory
    #[arg(long, requires = "adopt_data")]
    pub yes: bool,
}

#[derive(Args, Debug)]
pub(super) struct Stop {
    #[command(flatten)]
    pub common: Common,
    /// How long it may take, in seconds [default: remote_call_timeout]
    #[arg(short = 't', value_name = "SEC", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// Stop both servers; nothing is switched
    #[arg(short = 'a')]
    pub all: bool,
    /// Stop the controller alone, not the instance
    #[arg(long)]
    pub mc_only: bool,
    /// End the controller at once and leave the instance alone
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
    /// Show the arbiter too
    #[arg(long)]
    pub arbiter: bool,
    /// How to show it
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub format: Format,
    /// One line for monitoring, and its exit status: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN
    #[arg(long, conflicts_with_all = ["format", "watch", "arbiter"])]
    pub check: bool,
    /// Show it again and again, every so many seconds
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
    /// How long to wait, in seconds; the rebuild itself continues [default: without end]
    #[arg(short = 't', value_name = "SEC", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// How: the cheapest way that works, pg_rewind or nothing, or a whole copy
    #[arg(long, value_enum, default_value_t = Method::Auto, value_name = "METHOD")]
    pub method: Method,
    /// What becomes of a data directory that a whole copy replaces
    #[arg(long, value_enum, default_value_t = OldData::Keep, value_name = "WHAT")]
    pub old_data: OldData,
    /// Only show what would be done: how, why, how many bytes, whether there is room
    #[arg(long, conflicts_with_all = ["yes", "seconds"])]
    pub dry_run: bool,
    /// How to show that
    #[arg(long, value_enum, default_value_t = ListFormat::Text, value_name = "FORMAT", requires = "dry_run")]
    pub format: ListFormat,
    /// Do not ask whether to overwrite or replace the data directory
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
    /// How to show it
    #[arg(long, value_enum, default_value_t = ListFormat::Text, value_name = "FORMAT")]
    pub format: ListFormat,
}

#[derive(Args, Debug)]
pub(super) struct Change {
    #[command(flatten)]
    pub common: Common,
    /// How long it may take, in seconds [default: remote_call_timeout]
    #[arg(short = 't', value_name = "SEC", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// Go without the other server's consent: it does not answer, and is surely down
    #[arg(long)]
    pub force: bool,
    /// Do not run fencing_command first
    #[arg(long, requires = "force")]
    pub no_fencing: bool,
    /// Do not ask whether to force it
    #[arg(long, requires = "force")]
    pub yes: bool,
}
