//! Starts the controller again when it dies or hangs.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::fsm::event::StartedBy;
use std::path::Path;
use std::time::Duration;

/// Takes over where this process was started as a watcher or controller by [`start_detached`]: returns its exit code
/// when it ends, `None` in every other process. `main` of `mc_ctl` calls it before it parses the command line.
pub fn dispatch() -> Option<u8> {
    None
}

/// Starts a watcher, which starts a controller, both detached from this terminal. Returns once the controller answers
/// on its control socket.
///
/// # Errors
/// What kept the controller from starting, in its own words, or nothing heard of it within `limit`.
pub fn start_detached(config: &Config, by: StartedBy, limit: Duration) -> Result<()> {
    let _ = (config, by, limit);
    Err(Error::new("the controller cannot run detached yet"))
}

/// Ends watcher and controller at once and leaves the instance alone (`mc_ctl stop -e`). False where neither runs.
///
/// # Errors
/// They cannot be ended.
pub fn kill(run_dir: &Path) -> Result<bool> {
    let _ = run_dir;
    Err(Error::new("the controller cannot be ended yet"))
}
