//! A backup that only the other server has: it is copied to `backup_destination` through the controllers, as `restore-wal` copies
//! WAL, and is a backup of this server then.

use super::super::{Exit, Failure, archive};
use super::work::Work;
use crate::backup::{self, Backup, Destination, Entry};
use crate::daemon::archive_link;
use crate::error::{Error, Result};
use crate::rebuild::human;
use crate::wire::{Archived, Part};
use std::io::Write;
use std::time::{Duration, Instant};

/// For how long the transfer may be interrupted.
const PATIENCE: Duration = Duration::from_secs(60);
/// The time between two attempts to begin the transfer of a file.
const AGAIN: Duration = Duration::from_millis(500);

impl Work<'_> {
    /// Copies these backups from the other server. What is here of an interrupted copy is not copied again.
    pub fn fetch(&self, destination: &Destination, wanted: &[Backup]) -> std::result::Result<(), Failure> {
        let Some(lock) = destination.lock().map_err(Failure::failed)? else {
            return Err(Failure::new(Exit::Refused, "a backup is in progress")
                .hint("Run this command again when it has ended."));
        };
        let cancel = &self.interruption.cancel;
        for backup in wanted {
            let from = format!("copying backup \"{}\" from server \"{}\"", backup.name, self.config.peer().id);
            let (mut done, mut shown) = (0, 0);
            self.step(&from);
            let copied = self.content(&backup.name).and_then(|content| {
                backup::receive(
                    (destination, &lock),
                    &self.place,
                    backup,
                    &content,
                    &mut |path, bytes, file| {
                        let what = Archived::File { backup: backup.name.clone(), path: path.to_owned() };
                        self.transfer(&what, Some(bytes), &mut |part| {
                            done += part.len() as u64;
                            if done > shown + backup.bytes / 100 {
                                shown = done;
                                self.step(&format!("{from}, {} of {}", human(done), human(backup.bytes)));
                            }
                            file.write_all(part).map_err(|cause| Error::io("write file of backup", path, cause))
                        })
                    },
                    cancel,
                )
            });
            copied.map_err(|error| {
                let what = format!(
                    "could not copy backup \"{}\" from server \"{}\": {}",
                    backup.name,
                    self.config.peer().id,
                    error.message
                );
                self.explain(Error { message: what, ..error })
            })?;
        }
        self.end_display();
        Ok(())
    }

    fn content(&self, name: &str) -> Result<Vec<Entry>> {
        let mut text = Vec::new();
        self.transfer(&Archived::Files(name.to_owned()), None, &mut |part| {
            text.extend_from_slice(part);
            Ok(())
        })?;
        serde_json::from_slice(&text)
            .map_err(|cause| Error::new(format!("its list of files is not understood: {cause}")))
    }

    fn transfer(&self, what: &Archived, bytes: Option<u64>, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let ask = |offset| archive::ask(self.config, what, offset);
        let first = self.first(&ask)?;
        if first.total.is_none() || bytes.is_some_and(|bytes| first.total != Some(bytes)) {
            return Err(Error::new("the backup has changed"));
        }
        archive_link::whole(&ask, first, PATIENCE, &mut |part| {
            self.interruption.cancel.check()?;
            take(part)
        })
    }

    fn first(&self, ask: &dyn Fn(u64) -> std::result::Result<Part, String>) -> Result<Part> {
        let begin = Instant::now();
        loop {
            match ask(0) {
                Ok(part) => return Ok(part),
                Err(why) if begin.elapsed() >= PATIENCE => return Err(Error::new(why)),
                Err(_) => self.interruption.cancel.sleep(AGAIN)?,
            }
        }
    }
}
