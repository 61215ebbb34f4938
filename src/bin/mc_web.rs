//! `mc_web`: the web console.

use mirroring_controller::{cli, daemon};
use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::abort_on_panic();
    daemon::protect_memory();
    cli::web::main()
}
