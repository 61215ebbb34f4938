//! `mc_ctl`: the command and the controller.

use mirroring_controller::{cli, daemon, daemon::watcher};
use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::abort_on_panic();
    daemon::protect_memory();
    // The watcher and the controller are this program too, started by it under a name of their own.
    watcher::dispatch().map_or_else(cli::main, ExitCode::from)
}
