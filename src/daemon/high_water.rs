//! The file that notes how far this server's WAL has been known to go (PROTOCOL R13). A thread of its own writes it, so that no
//! ledger waits for it, and nothing waits for the file: an older note only finds less.

use super::spawn;
use crate::error::{Error, Result};
use crate::fsm::types::HighWater;
use crate::messages::{self, Tell};
use crate::pg::files;
use crossbeam_channel::Sender;
use std::path::{Path, PathBuf};

const FILE: &str = "wal_position";

/// What was noted last; `None` if there is no note that can be read.
pub fn load(run_dir: &Path) -> Option<HighWater> {
    let path = run_dir.join(FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return None,
        Err(cause) => {
            messages::tell(&Tell::Warning(Error::io("read file", &path, cause)));
            return None;
        }
    };
    let hint = "Nothing depends on it. It is written again when the WAL advances.";
    let damaged = |cause| messages::tell(&Tell::Warning(Error::io("read file", &path, cause).hint(hint)));
    serde_json::from_slice(&text).map_err(damaged).ok()
}

/// The thread that writes. Ends, after what is queued, when this is dropped.
pub struct Notes {
    queue: Sender<HighWater>,
}

impl Notes {
    /// Starts it for `run_dir`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(run_dir: PathBuf) -> Result<Notes> {
        let (queue, queued) = crossbeam_channel::unbounded::<HighWater>();
        spawn("high-water", move || {
            let mut failed = false;
            for note in queued {
                let written = save(&run_dir, &note);
                if let Err(error) = &written
                    && !failed
                {
                    messages::tell(&Tell::Warning(error.clone()));
                }
                failed = written.is_err();
            }
        })?;
        Ok(Notes { queue })
    }

    /// Orders a note. Never waits.
    pub fn write(&self, note: HighWater) {
        // The thread ends only after this sender is gone.
        let _ = self.queue.send(note);
    }
}

fn save(run_dir: &Path, note: &HighWater) -> Result<()> {
    let path = run_dir.join(FILE);
    let text = serde_json::to_vec(note).map_err(|cause| Error::io("encode", &path, cause))?;
    files::replace(&path, &text, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::types::{DataId, Lsn, Timeline, WalPoint};

    #[test]
    fn a_note_is_read_again_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), None);
        let point = WalPoint { timeline: Timeline(3), lsn: Lsn(0x1_0000_0000), length: 8192, hash: u64::MAX };
        let note = HighWater { data: DataId(7), point };
        save(dir.path(), &note).unwrap();
        assert_eq!(load(dir.path()), Some(note));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(load(dir.path()), None);
    }
}
