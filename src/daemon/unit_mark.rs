//! Whether the service manager has restarted the controller after a crash, or an operator has started its unit.
//!
//! systemd keeps the directory of `RuntimeDirectory` during an automatic restart (`RuntimeDirectoryPreserve=restart`), and
//! removes it when the unit stops or has failed. A controller that serves keeps its start id in a file there until a stop is
//! requested. If a start finds the file, the controller before it has died: this start keeps the start id and the settings, as a
//! restart by the watcher does. Without the directory, each start is an operator's.

use crate::error::Error;
use crate::fsm::event::StartedBy;
use crate::messages::{self, Tell};
use std::path::{Path, PathBuf};

/// The file of one start.
#[derive(Clone, Default, Debug)]
pub struct Mark {
    /// `None` without a directory for it.
    file: Option<PathBuf>,
    start_id: u64,
}

impl Mark {
    /// Reads what `$RUNTIME_DIRECTORY`, as systemd sets it, contains. Returns the mark of this start, and who has ordered it,
    /// where an operator would have done so as `by`.
    pub fn read(id: &str, run_dir: &Path, by: StartedBy, start_id: u64) -> (Mark, StartedBy) {
        let directories = std::env::var_os("RUNTIME_DIRECTORY").unwrap_or_default();
        let first = directories.to_str().and_then(|list| list.split(':').next()).filter(|first| !first.is_empty());
        Mark::read_in(first.map(Path::new), id, run_dir, by, start_id)
    }

    fn read_in(directory: Option<&Path>, id: &str, run_dir: &Path, by: StartedBy, start_id: u64) -> (Mark, StartedBy) {
        let file = directory.map(|directory| directory.join(format!("{id}.start")));
        let left = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok());
        // Until there is a ledger, it is still the operator's start that founds the pair.
        match left.filter(|_| run_dir.join("ledger").exists()) {
            Some(start_id) => (Mark { file, start_id }, StartedBy::Watcher),
            None => (Mark { file, start_id }, by),
        }
    }

    /// The start id of this start.
    pub fn start_id(&self) -> u64 {
        self.start_id
    }

    /// The controller serves: if it dies, the next start is a restart.
    pub fn set(&self) {
        let Some(file) = &self.file else { return };
        if let Err(cause) = std::fs::write(file, format!("{}\n", self.start_id)) {
            messages::tell(&Tell::Warning(Error::io("write file", file, cause)));
        }
    }

    /// The controller ends as ordered: the next start is an operator's.
    pub fn clear(&self) {
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_crash_leaves_a_mark() {
        let dir = tempfile::tempdir().unwrap();
        let operator = StartedBy::Operator { instance: true, failover: Some(true) };
        let read = |directory, start_id| Mark::read_in(directory, "nd1", dir.path(), operator, start_id);
        let start = |start_id| read(Some(dir.path()), start_id);
        let (first, by) = start(7);
        assert_eq!((first.start_id(), by), (7, operator));
        first.set();
        assert_eq!(start(8).1, operator, "there is no ledger yet");
        std::fs::write(dir.path().join("ledger"), "").unwrap();
        let (second, by) = start(8);
        assert_eq!((second.start_id(), by), (7, StartedBy::Watcher));
        assert_eq!(start(9).0.start_id(), 7, "the second start failed");
        assert_eq!(read(None, 9).1, operator);
        second.set();
        second.clear();
        let (third, by) = start(9);
        assert_eq!((third.start_id(), by), (9, operator));
    }
}
