//! Does what was planned.

use super::{Board, Setup};
use crate::error::{Error, Result};
use crate::fsm::event::Rebuild;
use crate::pg::bounded::Cancel;

/// Makes the data directory a standby's copy of the other server's, or goes on with that after an interruption.
///
/// # Errors
/// It was not done. The directory is what it was before, or, where `pg_rewind` had begun, cannot be started.
pub fn perform(_setup: &Setup, _what: &Rebuild, _board: &Board, _cancel: &Cancel) -> Result<()> {
    Err(Error::new("not yet"))
}

/// Undoes a rebuild that was interrupted before anything of the directory was overwritten. Where that is not so, nothing
/// is done.
///
/// # Errors
/// A file could not be written or removed.
pub fn abandon(_setup: &Setup, _cancel: &Cancel) -> Result<()> {
    Ok(())
}
