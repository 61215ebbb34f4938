//! The decision thread: steps the core and has its actions performed.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::fsm::event::StartedBy;

/// See [`super::run`].
pub fn run(config: Config, by: StartedBy, start_id: u64, foreground: bool) -> Result<u8> {
    let _ = (config, by, start_id, foreground);
    Err(Error::new("the controller cannot run yet"))
}
