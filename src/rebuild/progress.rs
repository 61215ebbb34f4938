//! How far a rebuild is: written by whoever performs it, read for `mc_ctl status` and `mc_ctl rebuild`.

use super::Chosen;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};

/// How far it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// How; `None` while that is being found out.
    pub chosen: Option<Chosen>,
    /// Why so.
    pub why: String,
    /// What is being done, in a few words.
    pub step: String,
    /// Bytes copied, of the step that copies.
    pub done: u64,
    /// Of how many; 0 where that is not known.
    pub total: u64,
    /// How long the copying has gone on, ms.
    pub elapsed_ms: u64,
    /// What only this server had, once it is kept.
    pub lost: Option<super::Lost>,
}

/// Where it is written. Holds nothing before the first rebuild.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Option<Progress>>>);

impl Board {
    /// What was last written.
    pub fn read(&self) -> Option<Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes it.
    pub fn write(&self, progress: Option<Progress>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }
}
