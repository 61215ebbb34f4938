//! The other server's WAL archive and list of backups, over the members' link.
//!
//! A command requests one part at a time from the controller of this host, which requests it from the other server's controller
//! by [`Aside`]s. The decision thread takes no part in it. What is asked for is read on a thread of its own, one part after the other. A
//! heartbeat waits for one part at most. Messages may be lost, so a part is asked for again until it comes.

use super::links::Voice;
use super::pace::Pace;
use super::watcher::random;
use super::{lock, spawn};
use crate::backup::{self, Archive, Catalog, Contents, Destination, Holdings, Reported};
use crate::config::Config;
use crate::error::{self, Error};
use crate::fsm::event::Reply;
use crate::fsm::report::Rebuilding;
use crate::fsm::types::{Member, Method, View};
use crate::wire::{Archived, Aside, MINOR_OF_ARCHIVES, Part};
use crate::{rebuild, recover};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crossbeam_channel::{Receiver, Sender};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The longest part, bytes.
const PART: usize = 32 << 10;
/// A part that does not come within this time is asked for again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a part may take.
const LIMIT: Duration = Duration::from_secs(3);
/// For how long a server that did not respond is not asked for the beginning of another file.
const SILENT: Duration = Duration::from_secs(10);
/// The time between two attempts to continue a transfer.
const RESUME: Duration = Duration::from_millis(200);
/// How long the list of the other server's backups may be interrupted.
const LIST_PATIENCE: Duration = Duration::from_secs(5);
/// Why a server has no list of backups.
const UNSET: &str = "its backup_destination is not set";
/// Questions that may wait to be answered.
const QUESTIONS: usize = 8;

/// A question of the other server's: its number, what, and from which byte on.
type Question = (u64, Archived, u64);

/// A question that this server has asked: its number, and where the answer goes.
type Asked = (u64, Sender<Result<Part, String>>);

/// How a rebuild of this server is ordered, how it goes, and the view.
pub struct Rebuilds {
    /// Where it stands.
    pub state: Box<dyn Fn() -> Rebuilding + Send + Sync>,
    /// The durable view of this server.
    pub view: Box<dyn Fn() -> Option<View> + Send + Sync>,
    /// Orders it, and waits so long for the reply.
    pub order: Box<dyn Fn(Method, Duration) -> Reply + Send + Sync>,
}

/// The controller's part. One clone for each thread.
#[derive(Clone)]
pub struct ArchiveLink(Arc<Shared>);

struct Shared {
    peer: Member,
    pace: Arc<Pace>,
    config: Mutex<Config>,
    voice: OnceLock<Voice>,
    rebuilds: OnceLock<Rebuilds>,
    questions: Sender<Question>,
    /// Held by who asks.
    turn: Mutex<()>,
    /// The question that waits for its answer.
    asking: Mutex<Option<Asked>>,
    /// When the other server did not respond.
    silent: Mutex<Option<Instant>>,
    /// The backup whose files were listed last, and the list.
    listed: Mutex<Option<(String, Arc<str>)>>,
}

impl ArchiveLink {
    /// One that can answer; it can ask from [`ArchiveLink::speak`] on.
    ///
    /// # Errors
    /// The thread that reads cannot be started.
    pub fn start(config: &Config, pace: Arc<Pace>) -> error::Result<ArchiveLink> {
        let (questions, asked) = crossbeam_channel::bounded(QUESTIONS);
        let link = ArchiveLink(Arc::new(Shared {
            peer: Member::Server(config.me.other()),
            pace,
            config: Mutex::new(config.clone()),
            voice: OnceLock::new(),
            rebuilds: OnceLock::new(),
            questions,
            turn: Mutex::default(),
            asking: Mutex::default(),
            silent: Mutex::default(),
            listed: Mutex::default(),
        }));
        let shared = Arc::downgrade(&link.0);
        spawn("archive", move || {
            for (id, what, offset) in asked {
                let Some(shared) = shared.upgrade() else { return };
                shared.answer(id, &what, offset);
            }
        })?;
        Ok(link)
    }

    /// From now on this configuration is in effect.
    pub fn uses(&self, config: &Config) {
        *lock(&self.0.config) = config.clone();
    }

    /// The configuration in effect.
    pub(super) fn config(&self) -> Config {
        lock(&self.0.config).clone()
    }

    /// From now on it can ask and answer.
    pub fn speak(&self, voice: Voice) {
        let _ = self.0.voice.set(voice);
    }

    /// From now on a rebuild can be ordered through it.
    pub fn orders(&self, rebuilds: Rebuilds) {
        let _ = self.0.rebuilds.set(rebuilds);
    }

    /// Takes in what another member says; returns what is not for it. Does not block.
    pub fn hear(&self, from: Member, aside: Aside) -> Option<Aside> {
        match aside {
            // The arbiter holds no data, and is shown none.
            Aside::Read { id, what, offset } if from == self.0.peer => {
                let _ = self.0.questions.try_send((id, what, offset));
            }
            Aside::Read { .. } => {}
            Aside::Part { id, part } => {
                if let Some((asked, answer)) = &*lock(&self.0.asking)
                    && *asked == id
                    && from == self.0.peer
                {
                    let _ = answer.try_send(part);
                }
            }
            other => return Some(other),
        }
        None
    }

    /// Asks the other server for a part, and waits for it, a few seconds at most. Called by the threads of the control socket's
    /// clients; one after the other.
    ///
    /// # Errors
    /// The other server does not respond, cannot read it, or its version does not know the question.
    pub fn ask(&self, what: &Archived, offset: u64) -> Result<Part, String> {
        let _turn = lock(&self.0.turn);
        if self.0.pace.minor(self.0.peer).is_some_and(|minor| minor < MINOR_OF_ARCHIVES) {
            return Err("the controller of the other server has an older version".to_owned());
        }
        let Some(voice) = self.0.voice.get() else { return Err("the controller is still starting".to_owned()) };
        // A recovery requests many files, and would wait for each.
        if offset == 0
            && let Some(since) = lock(&self.0.silent).map(|at| at.elapsed()).filter(|since| *since < SILENT)
        {
            return Err(format!("the other server did not respond {} s ago", since.as_secs()));
        }
        let id = random().map_err(|error| error.to_string())?;
        let (tell, told) = crossbeam_channel::bounded(1);
        *lock(&self.0.asking) = Some((id, tell));
        let part = self.0.wait(voice, id, what, offset, &told);
        *lock(&self.0.asking) = None;
        part
    }

    /// What the other server has.
    ///
    /// # Errors
    /// It does not respond, or its `backup_destination` is not set or cannot be read.
    pub(super) fn contents(&self) -> Result<Contents, String> {
        contents(&|offset| self.ask(&Archived::Contents, offset))
    }
}

/// Requests the list of backups by its parts.
///
/// # Errors
/// As [`ArchiveLink::ask`]; or the other server has no `backup_destination`.
pub fn contents(ask: &dyn Fn(u64) -> Result<Part, String>) -> Result<Contents, String> {
    let contents = answer(ask)?;
    if contents.without_destination { Err(UNSET.to_owned()) } else { Ok(contents) }
}

/// Requests what is in progress on the other server that a recovery must not meet.
///
/// # Errors
/// As [`ArchiveLink::ask`].
pub fn busy(ask: &dyn Fn(u64) -> Result<Part, String>) -> Result<Option<String>, String> {
    answer(ask).map(|contents| contents.busy)
}

/// Requests the identity of the other server's `backup_destination`; `None` if it has none.
///
/// # Errors
/// As [`ArchiveLink::ask`].
pub fn identity(ask: &dyn Fn(u64) -> Result<Part, String>) -> Result<Option<String>, String> {
    answer(ask).map(|contents| contents.identity)
}

/// Requests the data directories that were replaced on the other server, and are kept.
///
/// # Errors
/// As [`ArchiveLink::ask`].
pub fn old_data(ask: &dyn Fn(u64) -> Result<Part, String>) -> Result<Vec<PathBuf>, String> {
    answer(ask).map(|contents| contents.old_data)
}

/// Requests the durable view of the other server.
///
/// # Errors
/// As [`ArchiveLink::ask`].
pub fn view(ask: &dyn Fn(u64) -> Result<Part, String>) -> Result<Reported, String> {
    answer(ask).map(|contents| contents.view)
}

fn answer(ask: &dyn Fn(u64) -> Result<Part, String>) -> Result<Contents, String> {
    let first = ask(0)?;
    if first.total.is_none() {
        return Err(UNSET.to_owned());
    }
    let mut text = Vec::new();
    let read = whole(ask, first, LIST_PATIENCE, &mut |bytes| {
        text.extend_from_slice(bytes);
        Ok(())
    });
    read.map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|cause| format!("its response is not understood: {cause}"))
}

/// Requests the parts after the first, and passes all of them to `take`. A part that does not come is requested again until
/// the transfer has been interrupted for longer than `patience`.
///
/// # Errors
/// It was interrupted for longer, the file has changed, or `take` failed.
pub fn whole(
    ask: &dyn Fn(u64) -> Result<Part, String>,
    first: Part,
    patience: Duration,
    take: &mut dyn FnMut(&[u8]) -> error::Result<()>,
) -> error::Result<()> {
    let failed = |why: &str| Error::new(format!("the transfer from the other server ended early: {why}"));
    let total = first.total.unwrap_or_default();
    let (mut next, mut offset) = (first, 0);
    loop {
        let bytes = decode(&next)?;
        take(&bytes)?;
        offset += bytes.len() as u64;
        if offset >= total {
            return Ok(());
        }
        let interrupted = Instant::now();
        next = loop {
            match ask(offset) {
                Ok(part) => break part,
                Err(why) if interrupted.elapsed() >= patience => return Err(failed(&why)),
                Err(_) => std::thread::sleep(RESUME),
            }
        };
        if next.total != Some(total) || bytes.is_empty() {
            return Err(failed("the file has changed"));
        }
    }
}

impl Shared {
    fn wait(
        &self,
        voice: &Voice,
        id: u64,
        what: &Archived,
        offset: u64,
        told: &Receiver<Result<Part, String>>,
    ) -> Result<Part, String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            voice.say(self.peer, &Aside::Read { id, what: what.clone(), offset });
            match told.recv_deadline(deadline.min(Instant::now() + AGAIN)) {
                Ok(part) => {
                    *lock(&self.silent) = None;
                    return part;
                }
                Err(_) if Instant::now() >= deadline => {
                    *lock(&self.silent) = Some(Instant::now());
                    return Err("the other server does not respond".to_owned());
                }
                Err(_) => {}
            }
        }
    }

    fn answer(&self, id: u64, what: &Archived, offset: u64) {
        let Some(voice) = self.voice.get() else { return };
        let part = self.read(what, offset).map_err(|error| error.to_string());
        voice.say(self.peer, &Aside::Part { id, part });
    }

    /// Orders a rebuild as an operator on this host does. One that is in progress is the one that was ordered.
    fn rebuild(&self, copy: bool) -> error::Result<()> {
        let Some(rebuilds) = self.rebuilds.get() else { return Err(Error::new("the controller is still starting")) };
        if recover::Journal::forbids_rebuild(&lock(&self.config).run_dir()) {
            return Err(Error::new("a recovery is in progress"));
        }
        if self.is_rebuilding() {
            return Ok(());
        }
        match (rebuilds.order)(if copy { Method::BaseBackup } else { Method::Rewind }, LIMIT) {
            Reply::Done => Ok(()),
            Reply::Refused(why) | Reply::Failed(why) | Reply::TimedOut(why) => Err(Error::new(why)),
        }
    }

    /// A rebuild that was interrupted, and that nothing continues, is none.
    fn is_rebuilding(&self) -> bool {
        let state = self.rebuilds.get().map(|rebuilds| (rebuilds.state)());
        !matches!(state, None | Some(Rebuilding::Idle | Rebuilding::Failed(_)))
    }

    /// What is in progress here that a recovery on the other server must not meet.
    fn busy(&self) -> Option<String> {
        let run_dir = lock(&self.config).run_dir();
        if recover::Journal::exists(&run_dir) {
            return Some("a recovery is in progress".to_owned());
        }
        self.is_rebuilding().then(|| "a rebuild is in progress".to_owned())
    }

    fn view(&self) -> Reported {
        let Some(rebuilds) = self.rebuilds.get() else { return Reported::No };
        (rebuilds.view)().map_or(Reported::Nothing, Reported::View)
    }

    /// The list of the files of a backup. It is read with its first part.
    fn files(&self, destination: &Destination, name: &str, offset: u64) -> error::Result<Arc<str>> {
        let mut listed = lock(&self.listed);
        match &*listed {
            Some((of, text)) if of == name && offset > 0 => Ok(text.clone()),
            _ => {
                let entries = backup::entries(&dir(destination, name)?)?;
                let text: Arc<str> = serde_json::to_string(&entries).unwrap_or_default().into();
                *listed = Some((name.to_owned(), text.clone()));
                Ok(text)
            }
        }
    }

    fn read(&self, what: &Archived, offset: u64) -> error::Result<Part> {
        let missing = Part { total: None, data: String::new() };
        if let Archived::Rebuild { copy } = what {
            return self.rebuild(*copy).map(|()| missing);
        }
        if *what == Archived::Rebuilding {
            let state = self.rebuilds.get().map(|rebuilds| (rebuilds.state)());
            return Ok(part_of_text(&serde_json::to_string(&state).unwrap_or_default(), offset));
        }
        let destination = lock(&self.config).server.backup_destination.as_ref().map(Destination::new);
        let old_data = rebuild::old_data(&lock(&self.config).server.db_instance);
        let Some(destination) = destination else {
            let (busy, view) = (self.busy(), self.view());
            let contents = Contents { old_data, busy, view, without_destination: true, ..Contents::default() };
            let text = serde_json::to_string(&contents).unwrap_or_default();
            return Ok(if *what == Archived::Contents { part_of_text(&text, offset) } else { missing });
        };
        let archive = Archive::new(destination.clone());
        match what {
            Archived::Wal(name) => match archive.open(name)? {
                Some(file) => part_of(&file, offset),
                None => Ok(missing),
            },
            Archived::Contents => {
                let backups = Catalog::read(&destination)?.backups;
                let holdings = Holdings::read(&archive)?;
                let identity = destination.identity();
                let contents = Contents {
                    backups,
                    holdings,
                    old_data,
                    busy: self.busy(),
                    without_destination: false,
                    sends: true,
                    view: self.view(),
                    identity,
                };
                Ok(part_of_text(&serde_json::to_string(&contents).unwrap_or_default(), offset))
            }
            Archived::Files(name) => Ok(part_of_text(&self.files(&destination, name, offset)?, offset)),
            Archived::File { backup, path } => part_of(&backup::open_file(&dir(&destination, backup)?, path)?, offset),
            Archived::Rebuild { .. } | Archived::Rebuilding => Ok(missing),
        }
    }
}

fn dir(destination: &Destination, name: &str) -> error::Result<PathBuf> {
    let dir = Catalog::dir_of(destination, name);
    dir.ok_or_else(|| Error::new(format!("it has no complete backup \"{name}\"")))
}

fn part_of_text(text: &str, offset: u64) -> Part {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    let part = &text.as_bytes()[from..text.len().min(from + PART)];
    Part { total: Some(text.len() as u64), data: STANDARD.encode(part) }
}

fn part_of(file: &File, offset: u64) -> error::Result<Part> {
    let failed = |cause: std::io::Error| Error::new(format!("could not read the archive: {cause}"));
    let total = file.metadata().map_err(failed)?.len();
    let mut bytes = vec![0; PART.min(usize::try_from(total.saturating_sub(offset)).unwrap_or(PART))];
    file.read_exact_at(&mut bytes, offset).map_err(failed)?;
    Ok(Part { total: Some(total), data: STANDARD.encode(bytes) })
}

/// The bytes of a part.
///
/// # Errors
/// It is not what a controller sends.
pub fn decode(part: &Part) -> error::Result<Vec<u8>> {
    let decoded = STANDARD.decode(&part.data);
    decoded.map_err(|cause| Error::new(format!("malformed part of a file: {cause}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// The bytes that arrive of a file of 100 bytes in parts of 10, if the requests of these numbers are not answered.
    fn transferred(lost: &[usize], patience: Duration) -> error::Result<Vec<u8>> {
        let file: Vec<u8> = (0..100).collect();
        let asked = Cell::new(0);
        let part = |offset: u64| {
            let begin = offset as usize;
            Part { total: Some(100), data: STANDARD.encode(&file[begin..begin + 10]) }
        };
        let ask = |offset| {
            asked.set(asked.get() + 1);
            if lost.contains(&asked.get()) {
                Err("the other server does not respond".to_owned())
            } else {
                Ok(part(offset))
            }
        };
        let mut bytes = Vec::new();
        whole(&ask, part(0), patience, &mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        Ok(bytes)
    }

    #[test]
    fn an_interrupted_transfer_is_resumed() {
        let all: Vec<u8> = (0..100).collect();
        assert_eq!(transferred(&[], Duration::ZERO), Ok(all.clone()));
        assert_eq!(transferred(&[3, 4, 9], Duration::from_secs(60)), Ok(all));
        let ended = transferred(&[3], Duration::ZERO).unwrap_err();
        assert!(ended.message.ends_with("ended early: the other server does not respond"), "{ended}");
    }
}
