//! `backup_destination`: the directory that backups and the WAL archive are written to, and the checks that it is the right one.

use crate::error::{Error, Result};
use crate::fsm::types::SystemId;
use crate::pg::files;
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The file that names the cluster.
const MARK: &str = "mirroring_controller.json";
/// The file that `mc_ctl backup` locks.
const LOCK: &str = ".lock";
/// The file that it and the programs that it starts lock.
const COPYING: &str = ".copying";
/// How long the processes of an interrupted backup may take to end.
const ENDED: Duration = Duration::from_secs(5);

/// The directory of `backup_destination`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Destination {
    path: PathBuf,
}

/// To which cluster a destination belongs.
#[derive(Serialize, Deserialize)]
struct Mark {
    /// As PostgreSQL writes it: in decimal digits.
    system_identifier: String,
}

/// Held while a backup is made. The programs that this process starts inherit the second file, and hold its lock until they
/// have ended.
#[derive(Debug)]
pub struct Lock {
    _files: [File; 2],
}

impl Destination {
    /// This directory, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Destination {
        Destination { path: path.into() }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that the directory exists, which it does not if its file system is not mounted.
    ///
    /// # Errors
    /// It does not exist, is not a directory, or cannot be written by this user.
    pub fn check_exists(&self) -> Result<()> {
        let path = &self.path;
        let meta = path.metadata().map_err(|cause| {
            Error::io("open backup_destination", path, cause).hint(
                "Mount its file system, or create the directory for the instance administrator user with mode 0700.",
            )
        })?;
        if !meta.is_dir() {
            return Err(Error::new(format!("backup_destination \"{}\" is not a directory", path.display())));
        }
        let me = rustix::process::geteuid().as_raw();
        if meta.uid() != me || meta.mode() & 0o022 != 0 {
            return Err(Error::new(format!(
                "backup_destination \"{}\" must belong to the instance administrator user, and only that user may write to it",
                path.display()
            ))
            .hint("Run chown and chmod 0700 on it."));
        }
        Ok(())
    }

    /// Checks that the directory belongs to this cluster. An empty directory becomes this cluster's.
    ///
    /// # Errors
    /// It belongs to another cluster, or it is not empty and belongs to none.
    pub fn claim(&self, system: SystemId) -> Result<()> {
        self.check_exists()?;
        let mark = self.path.join(MARK);
        match std::fs::read_to_string(&mark) {
            Ok(text) => {
                let read: Mark =
                    serde_json::from_str(&text).map_err(|cause| Error::io("understand file", &mark, cause))?;
                if read.system_identifier == system.0.to_string() {
                    return Ok(());
                }
                Err(Error::new(format!(
                    "backup_destination \"{}\" belongs to another cluster: its system identifier is {}, this instance's is {}",
                    self.path.display(),
                    read.system_identifier,
                    system.0
                ))
                .hint("Set backup_destination to a directory of its own for each cluster."))
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                if let Some(stranger) = self.strangers().first() {
                    return Err(Error::new(format!(
                        "backup_destination \"{}\" is not empty and holds no backups: \"{}\"",
                        self.path.display(),
                        stranger.display()
                    ))
                    .hint("Set backup_destination to an empty directory."));
                }
                let text = serde_json::to_string(&Mark { system_identifier: system.0.to_string() });
                files::replace(&mark, (text.unwrap_or_default() + "\n").as_bytes(), None)
            }
            Err(cause) => Err(Error::io("read file", &mark, cause)),
        }
    }

    /// The same on two servers if they use the same directory, for example of a network file system; `None` if it belongs to no
    /// cluster yet. No copy of a file has the time of the last change of its inode.
    pub fn identity(&self) -> Option<String> {
        let meta = self.path.join(MARK).metadata().ok()?;
        Some(format!("{} {}.{:09}", meta.ino(), meta.ctime(), meta.ctime_nsec()))
    }

    /// Why this directory cannot be used if the other server's has this identity; `None` if it can.
    pub fn shared_with(&self, server: &str, identity: Option<&str>) -> Option<Error> {
        let own = self.identity().filter(|own| Some(own.as_str()) == identity);
        own.map(|_| {
            let path = self.path.display();
            Error::new(format!("backup_destination \"{path}\" is the same directory as that of server \"{server}\""))
                .hint(format!(
                    "Set backup_destination to a directory of its own on each server. If the directories are not the same, because \
                     the disk of one was cloned, run \"touch {}\".",
                    self.path.join(MARK).display()
                ))
        })
    }

    /// What lies in a directory that belongs to no cluster yet.
    fn strangers(&self) -> Vec<PathBuf> {
        let ours = [LOCK, COPYING, "archived_wal", "lost+found"];
        let mut entries = files::entries(&self.path);
        entries.retain(|path| !ours.iter().any(|name| path.ends_with(name)));
        entries
    }

    /// Locks the directory for a backup; `None` if another one is being made. Ends what an interrupted backup has left running.
    ///
    /// # Errors
    /// The directory does not exist, a lock file cannot be opened, or a process of an interrupted backup does not end.
    pub fn lock(&self) -> Result<Option<Lock>> {
        self.check_exists()?;
        let mine = self.open_lock(LOCK)?;
        if !try_lock(&mine, &self.path.join(LOCK))? {
            return Ok(None);
        }
        let path = self.path.join(COPYING);
        let copying = self.open_lock(COPYING)?;
        let end = Instant::now() + ENDED;
        while !try_lock(&copying, &path)? {
            if Instant::now() >= end {
                return Err(Error::new(format!(
                    "a process of an interrupted backup still writes to backup_destination \"{}\"",
                    self.path.display()
                ))
                .hint(format!("Find it with \"fuser -v {}\" and end it.", path.display())));
            }
            end_holders(&path);
            std::thread::sleep(Duration::from_millis(50));
        }
        rustix::io::fcntl_setfd(&copying, rustix::io::FdFlags::empty())
            .map_err(|cause| Error::io("lock file", &path, std::io::Error::from(cause)))?;
        Ok(Some(Lock { _files: [mine, copying] }))
    }

    fn open_lock(&self, name: &str) -> Result<File> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        opened.map_err(|cause| Error::io("open file", &path, cause))
    }
}

fn try_lock(file: &File, path: &Path) -> Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(cause) => Err(Error::io("lock file", path, std::io::Error::from(cause))),
    }
}

/// Kills the processes that have this file open. If `pg_basebackup` dies with the `mc_ctl` that reads its output, its second
/// process streams WAL without an end.
fn end_holders(path: &Path) {
    let Ok(path) = std::fs::canonicalize(path) else { return };
    let me = std::process::id() as i32;
    for process in files::entries(Path::new("/proc")) {
        let Some(pid) = process.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok()) else { continue };
        let holds = || files::entries(&process.join("fd")).iter().any(|fd| fd.read_link().is_ok_and(|to| to == path));
        if pid != me
            && holds()
            && let Some(pid) = Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Makes a directory that only its owner can read.
///
/// # Errors
/// It exists, or it cannot be created.
pub fn make_private_dir(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).map_err(|cause| Error::io("create directory", path, cause))
}
