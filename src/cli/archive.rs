//! `mc_ctl archive-wal` and `mc_ctl restore-wal`, which PostgreSQL runs as `archive_command` and `restore_command`. They read
//! `ID.conf` and work while the controller is stopped. If it runs, `restore-wal` also gets files from the other server by it.

use super::args::Common;
use super::{Ended, Exit, Failure, say};
use crate::backup::{Archive, Contents, Destination, Reported, deliver};
use crate::config::Config;
use crate::daemon::archive_link;
use crate::daemon::control::{self, Answer, Call, CallError};
use crate::error::{Error, Result};
use crate::wire::{Archived, Part};
use crossbeam_channel::RecvTimeoutError;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a part of a file may take from the other server.
const PART_LIMIT: Duration = Duration::from_secs(5);

/// `archive-wal`.
#[derive(clap::Args, Debug)]
pub struct ArchiveArgs {
    #[command(flatten)]
    common: Common,
    /// Time limit in seconds
    #[arg(short = 't', value_name = "SEC", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// The file to archive: %p of archive_command
    path: PathBuf,
    /// Its name in the archive: %f
    name: String,
}

/// `restore-wal`.
#[derive(clap::Args, Debug)]
pub struct RestoreArgs {
    #[command(flatten)]
    common: Common,
    /// Time limit in seconds
    #[arg(short = 't', value_name = "SEC", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Do not ask the other server
    #[arg(long)]
    own_archive: bool,
    /// The name in the archive: %f of restore_command
    name: String,
    /// Where the copy is written: %p
    path: PathBuf,
}

pub(super) fn archive(args: &ArchiveArgs) -> Ended {
    let archive = Archive::new(destination(&args.common.client_config()?)?);
    let (path, name) = (args.path.clone(), args.name.clone());
    within(args.seconds, "archive", &args.name, move || archive.store(&path, &name))?;
    Ok(0)
}

pub(super) fn restore(args: &RestoreArgs) -> Ended {
    restored(args).map_err(|failure| match recovers_a_backup() {
        true => Failure { exit: Exit::AbortsRecovery, ..failure },
        false => failure,
    })
}

/// Whether PostgreSQL recovers a backup in the working directory, its data directory. It would take a file that cannot be read
/// for the end of WAL, and commits that are in the archive would be missing. A standby continues from another source.
fn recovers_a_backup() -> bool {
    let exists = |name: &str| Path::new(name).exists();
    exists("recovery.signal") && !exists("standby.signal")
}

fn restored(args: &RestoreArgs) -> Ended {
    let config = args.common.client_config()?;
    let archive = Archive::new(destination(&config)?);
    let (name, path, own_only) = (args.name.clone(), args.path.clone(), args.own_archive);
    let patience = Duration::from_secs(args.seconds);
    let there = within(args.seconds, "restore", &args.name, move || {
        let own = archive.fetch(&name, &path);
        if own_only || own == Ok(true) {
            return own;
        }
        // Either archive suffices. The other server may be down: then the own archive is all there is.
        match fetch_from_peer(&config, &name, &path, patience) {
            Ok(true) => Ok(true),
            Ok(false) => own,
            Err(error) if recovers_a_backup() => Err(error.hint(
                "The recovery would end before WAL that only the other server may have. Repair the connection, or add \
                 --own-archive to restore_command if that server is lost.",
            )),
            Err(error) => {
                say(&format!("mc_ctl: {error}\n"));
                own
            }
        }
    })?;
    // PostgreSQL asks for files that may not exist, and takes status 1 for "not there". Its log would fill with messages.
    Ok(if there { 0 } else { Exit::Failed as u8 })
}

/// Copies a file from the other server's archive, through the controllers. False if it is not there, or no controller runs.
fn fetch_from_peer(config: &Config, name: &str, to: &Path, patience: Duration) -> Result<bool> {
    let what = Archived::Wal(name.to_owned());
    let first = match part(config, &what, 0) {
        Ok(Part { total: None, .. }) | Err(None) => return Ok(false),
        Ok(first) => first,
        Err(Some(why)) => return Err(Error::new(format!("could not get \"{name}\" from the other server: {why}"))),
    };
    deliver(name, to, |new| {
        let _ = std::fs::remove_file(new);
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new);
        let mut file = created.map_err(|cause| Error::io("create file", new, cause))?;
        archive_link::whole(&|offset| ask(config, &what, offset), first, patience, &mut |bytes| {
            file.write_all(bytes).map_err(|cause| Error::io("write file", new, cause))
        })
    })?;
    Ok(true)
}

/// What the other server has.
pub(super) fn contents_of_peer(config: &Config) -> std::result::Result<Contents, String> {
    archive_link::contents(&|offset| ask(config, &Archived::Contents, offset))
}

/// What is in progress on the other server that a recovery must not meet.
pub(super) fn busy_peer(config: &Config) -> std::result::Result<Option<String>, String> {
    archive_link::busy(&|offset| ask(config, &Archived::Contents, offset))
}

/// The old data that the other server keeps; none if it does not report that.
pub(super) fn old_data_of_peer(config: &Config) -> Vec<PathBuf> {
    archive_link::old_data(&|offset| ask(config, &Archived::Contents, offset)).unwrap_or_default()
}

/// The durable view of the other server.
pub(super) fn view_of_peer(config: &Config) -> std::result::Result<Reported, String> {
    archive_link::view(&|offset| ask(config, &Archived::Contents, offset))
}

/// Fails if the other server uses the same directory. False if the other server does not respond, so that this is not known.
pub(super) fn refuse_shared(config: &Config, destination: &Destination) -> std::result::Result<bool, Failure> {
    let Ok(theirs) = archive_link::identity(&|offset| ask(config, &Archived::Contents, offset)) else {
        return Ok(false);
    };
    match destination.shared_with(&config.peer().id, theirs.as_deref()) {
        Some(error) => Err(Failure { exit: Exit::Refused, error, transient: None }),
        None => Ok(true),
    }
}

/// A part of what the other server has.
pub(super) fn ask(config: &Config, what: &Archived, offset: u64) -> std::result::Result<Part, String> {
    let not_running = || "the controller of this server is not running".to_owned();
    part(config, what, offset).map_err(|why| why.unwrap_or_else(not_running))
}

/// One part; `Err(None)` if no controller runs on this host.
pub(super) fn part(config: &Config, what: &Archived, offset: u64) -> std::result::Result<Part, Option<String>> {
    let call = Call::Archived { what: what.clone(), offset };
    match control::call(&config.run_dir(), &call, PART_LIMIT) {
        Ok(Answer::Archived(answer)) => answer.map_err(Some),
        Ok(Answer::Busy(why)) => Err(Some(why)),
        Ok(_) => Err(Some("the controller of this server has another version".to_owned())),
        Err(CallError::NotRunning) => Err(None),
        Err(CallError::TimedOut) => Err(Some("the controller of this server does not respond".to_owned())),
        Err(CallError::Failed(error)) => Err(Some(error.to_string())),
    }
}

/// `backup_destination`.
pub(super) fn destination(config: &Config) -> std::result::Result<Destination, Failure> {
    let path = config.server.backup_destination.as_ref().ok_or_else(|| {
        let file = config.dir.join(format!("{}.conf", config.id));
        Failure::new(Exit::Usage, format!("file \"{}\": backup_destination is not set", file.display())).hint(
            "Set it to a directory on another disk than the data directory's, which belongs to the instance administrator user.",
        )
    })?;
    Ok(Destination::new(path))
}

/// Does it within the limit. A thread that waits for a disk cannot be ended, but this process can.
fn within<T: Send + 'static>(
    seconds: u64,
    verb: &str,
    name: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> std::result::Result<T, Failure> {
    let (tell, told) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || tell.send(work()));
    match told.recv_timeout(Duration::from_secs(seconds)) {
        Ok(done) => done.map_err(Failure::failed),
        Err(RecvTimeoutError::Timeout) => {
            Err(Failure::new(Exit::TimedOut, format!("could not {verb} \"{name}\" within {seconds} s")).hint(
                "The disk of backup_destination or of pg_wal does not respond, or is slow: -t sets another limit.",
            ))
        }
        Err(RecvTimeoutError::Disconnected) => {
            Err(Failure::failed(Error::new(format!("could not {verb} \"{name}\": internal error"))))
        }
    }
}
