//! Reads the state of the backups of both servers in the background, for `mc_ctl status`, `mc_ctl check` and the metrics.
//!
//! It decides nothing. Its thread may hang with the disk of `backup_destination`; the survey on the board then becomes old, which
//! the status reports.

use super::archive_link::ArchiveLink;
use super::{reload, spawn};
use crate::backup::{Archiver, Catalog, Destination, Scope, Survey};
use crate::config::Config;
use crate::error::Result;
use crate::shared::Shared;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded, unbounded};
use std::time::{Duration, Instant};

/// The time between two looks at the backups of this server.
const LOOK: Duration = Duration::from_secs(5);
/// The time between two surveys of both servers, if the backups of this server have not changed.
const INTERVAL: Duration = Duration::from_secs(60);

/// How long a survey that is requested may take.
const LIMIT: Duration = Duration::from_secs(3);

/// The last survey; `None` before the first one, and if `backup_destination` is not set.
pub type Board = Shared<Option<Survey>>;

/// Has a survey made at once.
#[derive(Clone, Debug)]
pub struct Handle(Sender<Sender<()>>);

impl Handle {
    /// Returns when the board has a survey that was begun after this call, or after the limit or [`LIMIT`].
    pub fn survey(&self, limit: Duration) {
        let (sender, made) = bounded(1);
        let _ = self.0.send(sender);
        let _ = made.recv_timeout(limit.min(LIMIT));
    }
}

/// Surveys for as long as the process lives.
///
/// # Errors
/// The thread cannot be started.
pub fn watch(archive: ArchiveLink, board: Board) -> Result<Handle> {
    let (requests, inbox) = unbounded::<Sender<()>>();
    spawn("backups", move || {
        let mut last = None;
        let mut waiting = Vec::new();
        loop {
            let config = archive.config();
            let present = scope(&config).map(|scope| {
                let backups = Catalog::read(&scope.destination).map(|catalog| catalog.backups);
                (scope, backups)
            });
            let changed =
                last.as_ref().is_none_or(|(at, before): &(Instant, _)| at.elapsed() >= INTERVAL || *before != present);
            if changed || !waiting.is_empty() {
                let survey = present.as_ref().map(|(scope, _)| {
                    let archiver = Archiver::read(&reload::target(&config)).ok();
                    Survey::take(scope, archive.contents(), archiver)
                });
                board.write(survey);
                last = Some((Instant::now(), present));
            }
            waiting.drain(..).for_each(|sender: Sender<()>| _ = sender.send(()));
            match inbox.recv_timeout(LOOK) {
                Ok(sender) => waiting.extend(std::iter::once(sender).chain(inbox.try_iter())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK),
            }
        }
    })?;
    Ok(Handle(requests))
}

/// What is to be surveyed with this configuration; `None` if there is nothing, or another program makes the backups.
pub fn scope(config: &Config) -> Option<Scope> {
    let server = &config.server;
    if server.backup_command.is_some() {
        return None;
    }
    Some(Scope {
        destination: Destination::new(server.backup_destination.clone()?),
        generations: server.backup_generations as usize,
        max_age_hours: server.backup_max_age,
        server: config.id.clone(),
        peer: config.peer().id.clone(),
    })
}
