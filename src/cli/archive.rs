//! `mc_ctl archive-wal` and `mc_ctl restore-wal`, which PostgreSQL runs as `archive_command` and `restore_command`. They read
//! `ID.conf` and talk to no controller, so that they work while it is stopped.

use super::args::Common;
use super::{Ended, Exit, Failure};
use crate::backup::{Archive, Destination};
use crate::config::Config;
use crate::error::{Error, Result};
use crossbeam_channel::RecvTimeoutError;
use std::path::PathBuf;
use std::time::Duration;

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
    /// The name in the archive: %f of restore_command
    name: String,
    /// Where the copy is written: %p
    path: PathBuf,
}

pub(super) fn archive(args: &ArchiveArgs) -> Ended {
    let archive = open(&args.common)?;
    let (path, name) = (args.path.clone(), args.name.clone());
    within(args.seconds, "archive", &args.name, move || archive.store(&path, &name))?;
    Ok(0)
}

pub(super) fn restore(args: &RestoreArgs) -> Ended {
    let archive = open(&args.common)?;
    let (name, path) = (args.name.clone(), args.path.clone());
    // PostgreSQL asks for files that may not exist, and takes status 1 for "not there". Its log would fill with messages.
    let there = within(args.seconds, "restore", &args.name, move || archive.fetch(&name, &path))?;
    Ok(if there { 0 } else { Exit::Failed as u8 })
}

/// The archive of this server.
fn open(common: &Common) -> std::result::Result<Archive, Failure> {
    let config = common.client_config()?;
    destination(&config).map(Archive::new)
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
