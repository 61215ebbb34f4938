//! `mc_std`: the helper of units and scripts that start and stop `mc_ctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    mirroring_controller::daemon::abort_on_panic();
    mirroring_controller::cli::mc_std::main()
}
