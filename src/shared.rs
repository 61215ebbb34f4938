//! A value that one thread publishes and others read.

use std::sync::{Arc, Mutex, PoisonError};

/// The value that was published last. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shared<T>(Arc<Mutex<T>>);

impl<T: Clone> Shared<T> {
    /// What was published last.
    pub fn read(&self) -> T {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces it.
    pub fn write(&self, value: T) {
        self.update(|present| *present = value);
    }

    /// Changes it.
    pub fn update(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
