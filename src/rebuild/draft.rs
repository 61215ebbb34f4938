//! The parts of a plan that are told once the way is chosen: bytes, room, steps, and what stands in the way.

use super::choice::{Means, Trial};
use super::config_copy::ConfigCopy;
use super::divergence::Content;
use super::room::{self, Need};
use super::source::{self, Source};
use super::target::{Found, Target};
use super::{Chosen, Journal, Lost, Room, Setup, backup, journal, shared};
use crate::error::{Error, Result};
use crate::fsm::event::Rebuild;
use crate::fsm::types::OldData;
use crate::pg::bounded::Cancel;
use std::path::{Path, PathBuf};

/// The name of a directory in which a new copy is made.
const STAGED: &str = "rebuild-new";

/// What a start of the instance writes to its data directory, bytes: with less space, the disk check reports the disk as full.
const START: u64 = 1 << 20;

/// What the journal and the copies of this server's configuration files need, bytes.
const JOURNAL: u64 = 128 << 10;

/// `<location>.rebuild-new`
fn beside(location: &Path) -> PathBuf {
    let mut name = location.as_os_str().to_owned();
    name.push(".");
    name.push(STAGED);
    name.into()
}

/// An error as an obstacle.
fn sentences(why: &Error) -> String {
    let mut letters = why.message.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    format!("{}{}. {}", first.unwrap_or_default(), letters.as_str(), why.hint)
}

/// What was found out, on the way to the plan.
pub struct Draft<'a> {
    /// This server.
    pub setup: &'a Setup,
    /// What was ordered.
    pub what: &'a Rebuild,
    /// The other one.
    pub source: &'a Source,
    /// What lies here.
    pub found: &'a Found,
    /// What that is.
    pub content: &'a Content,
    /// An earlier rebuild that has not ended.
    pub journal: Option<&'a Journal>,
    /// The way.
    pub chosen: Chosen,
    /// The configuration that is to be made.
    pub configuration: Option<&'a ConfigCopy>,
    /// Bytes of WAL that would be kept.
    pub kept: u64,
}

impl Draft<'_> {
    fn data(&self) -> &Path {
        &self.setup.place.data
    }

    fn target(&self) -> Option<&Target> {
        match self.found {
            Found::Data(target) => Some(target),
            _ => None,
        }
    }

    fn exists(&self) -> bool {
        matches!(self.found, Found::Data(_) | Found::Damaged(_))
    }

    fn deletes(&self) -> bool {
        self.what.order.old_data == OldData::Delete && self.exists()
    }

    /// Bytes to copy, about.
    pub fn bytes(&self, trial: &Trial) -> Option<u64> {
        match (self.chosen, trial) {
            (Chosen::Follow, _) => Some(0),
            (Chosen::Rewind, Trial::Copies(bytes)) => Some(*bytes),
            (Chosen::Rewind, _) => None,
            (Chosen::BaseBackup, _) => {
                Some(self.source.bytes + self.source.tablespaces.iter().map(|t| t.bytes).sum::<u64>())
            }
        }
    }

    /// Where a tablespace of the source's lies here: where this server's link points to, else in the same place as there.
    fn location(&self, tablespace: &source::Tablespace) -> PathBuf {
        let link = self.data().join("pg_tblspc").join(tablespace.oid.to_string());
        std::fs::read_link(link).unwrap_or_else(|_| tablespace.location.clone())
    }

    /// Where the WAL lies, or will lie.
    fn wal(&self) -> PathBuf {
        super::wal::directory(self.data())
    }

    fn needs(&self, trial: &Trial) -> Vec<Need> {
        let mut needs = vec![Need::at_least(self.data(), START)];
        match self.chosen {
            // The WAL that it receives may fit into segments that are there.
            Chosen::Follow => needs.push(Need::at_least(self.wal(), 0)),
            Chosen::Rewind => {
                needs.push(self.notes());
                needs.push(match self.bytes(trial) {
                    Some(bytes) => Need::new(self.data(), bytes),
                    // It copies the segment in which the source writes.
                    None => Need::at_least(self.wal(), self.source.segment),
                });
            }
            Chosen::BaseBackup => {
                needs.push(self.notes());
                needs.push(Need::new(self.data(), self.source.bytes));
                // At least the segments that it begins and ends in.
                needs.push(Need::new(self.wal(), 2 * self.source.segment));
                let spaces = self.source.tablespaces.iter();
                needs.extend(spaces.map(|space| Need::new(self.location(space), space.bytes)));
            }
        }
        needs
    }

    /// What is written to the run-time directory before anything of the data directory is changed.
    fn notes(&self) -> Need {
        Need::new(&self.setup.run_dir, self.kept + JOURNAL)
    }

    /// The room, and what is said where it is not enough.
    ///
    /// # Errors
    /// A filesystem cannot be asked, or it was cancelled.
    pub fn room(&self, trial: &Trial, cancel: &Cancel) -> Result<(Vec<Room>, Vec<String>)> {
        let mut needs = self.needs(trial);
        let small = |rooms: &[Room]| rooms.iter().any(|room| room.needed > room.free);
        let rooms = room::rooms(&needs)?;
        if !small(&rooms) {
            return Ok((rooms, Vec::new()));
        }
        // Counting what would be freed is a walk over all files.
        let mut remedy = match self.chosen {
            Chosen::BaseBackup => "Free space there.",
            Chosen::Follow | Chosen::Rewind => {
                "Free space there; or run \"mc_ctl rebuild --method basebackup --old-data delete\", which deletes this server's data \
                 directory before it copies that of the other server, so that only the other server has the data meanwhile."
            }
        };
        let mut rooms = rooms;
        if self.chosen == Chosen::BaseBackup && self.exists() {
            let mut counted = vec![self.setup.run_dir.clone()];
            for need in &mut needs {
                // The WAL counts independently only where it lies elsewhere, and several needs can be in one directory.
                let inside = need.path != self.data() && need.path.starts_with(self.data());
                if !counted.contains(&need.path) && need.path.exists() && !inside {
                    need.freed = room::used(&need.path, cancel)?;
                    counted.push(need.path.clone());
                }
            }
            let freed = room::rooms(&needs)?;
            if self.deletes() {
                let before = room::rooms(&[self.notes()])?;
                rooms = if small(&before) { before } else { freed };
            } else if !small(&freed) {
                remedy = "Free space there, for example remove what earlier rebuilds have kept (*.old-*); or run \"mc_ctl rebuild \
                          --old-data delete\", which deletes this server's data directory before the copy, so that only the other \
                          server has the data meanwhile.";
            }
        }
        let lacking = rooms.iter().filter(|room| room.needed > room.free).map(|room| {
            format!(
                "There is not enough space on the file system of \"{}\": {}{} are required, {} are free. {remedy}",
                room.path.display(),
                if room.at_least { "at least " } else { "" },
                room::human(room.needed),
                room::human(room.free)
            )
        });
        let lacking = lacking.collect();
        Ok((rooms, lacking))
    }

    /// What stands in the way.
    pub fn obstacles(&self) -> Vec<String> {
        let data = self.data();
        let mut found = Vec::new();
        if let Found::Foreign(entry) = self.found {
            found.push(format!(
                "Directory \"{}\" is not empty and is not a data directory of PostgreSQL: it contains \"{entry}\". Check \
                 db_instance, or empty it.",
                data.display()
            ));
        }
        if *self.content == Content::OtherCluster && self.deletes() {
            found.push(format!(
                "\"{}\" is a data directory of another cluster and is not deleted. Check db_instance, or omit --old-data \
                 delete to keep the directory.",
                data.display()
            ));
        }
        if matches!(self.found, Found::Nothing)
            && self.journal.is_some_and(|journal| journal.existed && !journal.ruined)
        {
            found.push(format!(
                "\"{}\" is missing or empty, but was a data directory when the rebuild was started. Mount its file system. If \
                 the directory is no longer needed, remove \"{}\".",
                data.display(),
                Journal::path(&self.setup.run_dir).display()
            ));
        }
        if let Err(why) = shared::refuse(data, &[]) {
            found.push(sentences(&why));
        }
        if self.chosen == Chosen::BaseBackup && !matches!(self.found, Found::Foreign(_)) {
            found.extend(self.against_backup());
            found.extend(self.configuration.into_iter().flat_map(|copy| copy.obstacles(self.setup)));
        }
        found
    }

    /// What stands in the way of a base backup.
    fn against_backup(&self) -> Vec<String> {
        let data = self.data();
        let parent = data.parent().unwrap_or(Path::new("/"));
        let writable = |dir: &Path| {
            let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
            dir.is_dir() && rustix::fs::access(dir, wanted).is_ok()
        };
        let mut found = Vec::new();
        if room::is_mount_point(data) {
            found.push(format!(
                "A file system is mounted on the data directory \"{}\" itself, so that a new directory cannot replace it. Move \
                 the data directory into a directory on that file system.",
                data.display()
            ));
        } else if !writable(parent) {
            let user = rustix::process::geteuid().as_raw();
            found.push(format!(
                "Directory \"{0}\" is not writable for the user who runs the instance (user id {user}), so that the new data \
                 directory cannot be created in it. To change that, {1}.",
                parent.display(),
                room::fix_of_parent(parent, &user.to_string())
            ));
        }
        if let Some(point) = room::mounted_in(data) {
            found.push(format!(
                "A file system is mounted in the data directory, on \"{}\", and cannot be renamed with it. Mount it elsewhere, \
                 and replace it by a symbolic link.",
                point.display()
            ));
        }
        let mut staged = vec![beside(data), beside(&self.wal())];
        for space in &self.source.tablespaces {
            let location = self.location(space);
            let linked = data.join("pg_tblspc").join(space.oid.to_string()).is_symlink();
            if !linked && let Err(why) = shared::refuse_strange(&location, self.setup.place.major) {
                found.push(sentences(&why));
            }
            let usable = if location.exists() { writable(&location) } else { writable(room::existing(&location)) };
            if !usable {
                found.push(format!(
                    "Directory \"{}\" of tablespace \"{}\" is not writable. Create it on this server for the user who runs the \
                     instance.",
                    location.display(),
                    space.name
                ));
            }
            staged.extend([beside(&location), location.join(STAGED)]);
        }
        // Of a rebuild that was interrupted the journal tells, and it is cleared away.
        staged.retain(|path| self.journal.is_none() && path.symlink_metadata().is_ok());
        found.extend(
            staged
                .iter()
                .map(|path| format!("\"{}\" blocks a new copy. Remove it if it is not needed.", path.display())),
        );
        // What else the copy itself refuses.
        if found.is_empty() && self.journal.is_none() {
            let spaces = self.source.tablespaces.iter().map(|space| (space.oid.to_string(), space.location.clone()));
            let stamp = journal::stamp(journal::now_ms());
            let refused = backup::replacement(&self.setup.place, (&self.setup.name, &stamp), spaces.collect());
            found.extend(refused.err().map(|why| sentences(&why)));
        }
        found
    }

    // ---------------------------------------------------------------------------------------------------------- steps

    /// The steps, in order.
    pub fn steps(&self, lost: Option<&Lost>, means: &Means) -> Vec<String> {
        let from = &self.what.source;
        let mut steps = Vec::new();
        if self.target().is_some_and(|target| target.dir.running) {
            steps.push("Stop this server's instance.".into());
        }
        if self.chosen != Chosen::Follow {
            steps.push(format!(
                "Make a checkpoint on the other server's instance ({from}), and retain its WAL during the rebuild."
            ));
        }
        if let Some(lost) = lost {
            let kept = self.setup.run_dir.join("lost");
            steps.push(format!(
                "Save the WAL that only this server has, from {} on ({}), in \"{}\".",
                lost.from,
                room::human(self.kept),
                kept.display()
            ));
        }
        match self.chosen {
            Chosen::Follow => {}
            Chosen::Rewind => steps.extend(self.rewind_steps(means)),
            Chosen::BaseBackup => steps.extend(self.backup_steps()),
        }
        steps.push(format!(
            "Make the data directory that of a standby of {from} (standby.signal, primary_conninfo), with this server's own \
             configuration files."
        ));
        steps.push("Start the instance, and wait until it streams from the primary and the pair is mirrored.".into());
        steps
    }

    fn rewind_steps(&self, means: &Means) -> Vec<String> {
        let mut steps = Vec::new();
        if self.target().is_some_and(|target| !target.clean && !target.dir.running) {
            steps.push("Run crash recovery of the data directory, in single-user mode.".into());
        }
        let size = match means.trial {
            Trial::Copies(bytes) => format!("about {}", room::human(bytes)),
            _ => "as much as has changed".into(),
        };
        steps.push(format!(
            "Run pg_rewind on \"{}\": copy {size}. Until it is completed, no program can start an instance from the directory.",
            self.data().display()
        ));
        steps
    }

    fn backup_steps(&self) -> Vec<String> {
        let data = self.data().display();
        let size = room::human(self.bytes(&Trial::Later).unwrap_or(0));
        let mut steps: Vec<String> = self.configuration.iter().map(|copy| copy.step(self.setup)).collect();
        if self.deletes() {
            steps.push(format!("Delete the old data directory \"{data}\" first, as requested (--old-data delete)."));
        }
        steps.push(format!("Run pg_basebackup: copy about {size} into \"{data}.rebuild-new\"."));
        if self.exists() && !self.deletes() {
            steps.push(format!("Rename the old data directory to \"{data}.old-TIME\", and the new one to its name."));
        } else {
            steps.push(format!("Rename the new data directory to \"{data}\"."));
        }
        steps
    }
}
