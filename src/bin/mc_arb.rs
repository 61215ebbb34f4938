//! `mc_arb`: the arbiter, and the command that starts, stops and asks it.

use mirroring_controller::{cli::arb, daemon, daemon::arbiter};
use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::abort_on_panic();
    daemon::protect_memory();
    // The watcher and the arbiter are this program too, started by it under a name of their own.
    arbiter::dispatch().map_or_else(arb::main, ExitCode::from)
}
