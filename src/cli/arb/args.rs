//! What can be typed after `mc_arb`.

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Runs the arbiter of Mirroring Controller: the third member of pairs of PostgreSQL servers, which contains no data.
#[derive(Parser, Debug)]
#[command(name = "mc_arb", version, disable_help_subcommand = true)]
#[command(
    after_help = "Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 3 the arbiter is not running,\n4 refused by the present state, 5 timed out. See mc_arb(8)."
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
    /// Create arbitration.conf and the arbiter's keys if they are missing, and show the public keys
    Init(Init),
    /// Start the arbiter
    Start(Start),
    /// Stop the arbiter
    Stop(Stop),
    /// Show the servers, and whether they are online
    Status(Status),
    /// Remove the ledger of a cluster that no longer exists
    Forget(Forget),
    #[command(hide = true)]
    Completions(crate::cli::completions::Args),
}

#[derive(Args, Debug)]
pub(super) struct Common {
    /// The arbiter's directory [default: $ARBCONTROLDIR]
    #[arg(short = 'M', value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct Init {
    #[command(flatten)]
    pub common: Common,
    /// Serve a pair: read the block that "mc_ctl init" printed on its first server from this file, or from standard input (-)
    #[arg(long, value_name = "FILE")]
    pub join: Option<PathBuf>,
    /// Create its files in DIR/clusters/NAME, if DIR serves several pairs
    #[arg(long, value_name = "NAME", requires = "join")]
    pub cluster: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct Start {
    #[command(flatten)]
    pub common: Common,
    /// Wait until the arbiter serves (the default)
    #[arg(short = 'w', conflicts_with = "no_wait")]
    pub wait: bool,
    /// Do not wait
    #[arg(short = 'W')]
    pub no_wait: bool,
    /// Stay attached to the terminal or service manager, without a watcher
    #[arg(long)]
    pub foreground: bool,
}

#[derive(Args, Debug)]
pub(super) struct Stop {
    #[command(flatten)]
    pub common: Common,
    /// End the arbiter at once
    #[arg(short = 'e')]
    pub emergency: bool,
}

#[derive(Args, Debug)]
pub(super) struct Status {
    #[command(flatten)]
    pub common: Common,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

#[derive(Args, Debug)]
pub(super) struct Forget {
    /// The system identifier of the cluster, as shown by the status
    #[arg(value_name = "SYSTEM_IDENTIFIER")]
    pub system: u64,
    #[command(flatten)]
    pub common: Common,
}

/// `--format`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Format {
    /// A table
    Text,
    /// One object
    Json,
}
