//! The run-time directory `DIR/ID`: its lock, the ledger file and the history.
//!
//! The ledger is replaced by write-new-file, fsync, rename, fsync-directory, and names its own file by inode and birth
//! time, so that one put back from a backup or copied from elsewhere is recognised (PROTOCOL section 2). One thread
//! writes, in order, and answers by event once the bytes are durable; the decision thread never waits for it.

use super::reserve::{self, Reserve};
use super::{Inbox, spawn};
use crate::error::{Error, Result};
use crate::fsm::event::Event;
use crate::fsm::types::{Durable, View};
use crate::messages::{self, Tell};
use crate::pg::files;
use crate::recover::{Journal, Phase};
use crate::status::Change;
use crossbeam_channel::{Receiver, Sender};
use rustix::fs::{AtFlags, FlockOperation, StatxFlags, flock, statx};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

const LEDGER: &str = "ledger";
/// The servers, in the order of `network.conf`.
const MEMBERS: &str = "members";
const NEW_LEDGER: &str = "ledger.new";
const HISTORY: &str = "history";

/// What a controller holds as long as it lives.
pub const CONTROLLER_LOCK: &str = "lock";

/// What a watcher, or a controller that runs without one, holds as long as it lives.
pub const WATCHER_LOCK: &str = "watcher.lock";

/// [`is_locked`] holds a lock for a moment, so a lock is tried this often more, after this pause.
const LOCK_TRIES: u32 = 3;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// How long the history may become, in bytes: some thousands of changes.
const MAX_HISTORY: u64 = 1 << 20;

/// The longest ledger file that is read, in bytes.
const MAX_LEDGER: u64 = 64 * 1024;

/// Version of the file's format; another one is not read.
const FORMAT: u32 = 1;

/// The ledger file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Stored {
    format: u32,
    /// What the file is recognised by: its own inode and birth time.
    inode: u64,
    /// Nanoseconds since the epoch; `None` where the filesystem keeps no birth time.
    born: Option<i128>,
    durable: Durable,
    /// Over all of the above.
    checksum: u64,
}

/// What [`load`] found.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the ledger file held; `None` where there is none.
    pub durable: Option<Durable>,
    /// The filesystem keeps no birth time: a ledger put back is recognised by its inode alone. To be told as a NOTICE.
    pub no_birth_time: bool,
}

/// One lock of a run-time directory, held as long as this lives: one controller, and one watcher, for each directory. The
/// kernel lets go of it when the process is gone, and not before: a controller that hangs on a dying disk keeps it.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock `name` of `run_dir`, which is made if it is missing.
    ///
    /// # Errors
    /// Another controller holds it, or the directory cannot be used.
    pub fn take(run_dir: &Path, name: &str) -> Result<Lock> {
        Lock::try_take(run_dir, name)?
            .ok_or_else(|| Error::new("the controller is already running").hint("\"mc_ctl status\" shows its state"))
    }

    /// As [`Lock::take`]; `None` where another process holds it.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn try_take(run_dir: &Path, name: &str) -> Result<Option<Lock>> {
        match std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(run_dir) {
            Err(cause) if cause.kind() != ErrorKind::AlreadyExists => {
                return Err(Error::io("create directory", run_dir, cause));
            }
            Ok(()) => sync_directory(run_dir.parent().unwrap_or(Path::new("/")))?,
            Err(_) => (),
        }
        let path = run_dir.join(name);
        let file = private().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|cause| Error::io("open file", &path, cause))?;
        let mut tries = 0..LOCK_TRIES;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Lock { _file: file })),
                Err(rustix::io::Errno::WOULDBLOCK) if tries.next().is_none() => return Ok(None),
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
                Err(cause) => return Err(Error::io("lock file", &path, cause)),
            }
        }
    }
}

/// Whether a controller, an arbiter or a watcher holds a lock of `run_dir`. Creates nothing.
pub fn is_locked(run_dir: &Path) -> bool {
    [CONTROLLER_LOCK, WATCHER_LOCK].iter().any(|name| {
        let file = File::open(run_dir.join(name));
        file.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK))
    })
}

/// Reads the ledger of `run_dir`.
///
/// # Errors
/// A ledger that cannot be read, is not whole, or is not the file that it says it is. It is never taken for none.
pub fn load(run_dir: &Path) -> Result<Loaded> {
    load_with(run_dir, &remedy(run_dir))
}

/// As [`load`], with another hint in errors.
///
/// # Errors
/// As [`load`].
pub fn load_with(run_dir: &Path, remedy: &str) -> Result<Loaded> {
    let path = run_dir.join(LEDGER);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            return Ok(Loaded { durable: None, no_birth_time: false });
        }
        Err(cause) => return Err(Error::io("open ledger", &path, cause).hint(remedy)),
    };
    let mut bytes = Vec::new();
    let read = (&file).take(MAX_LEDGER).read_to_end(&mut bytes);
    read.map_err(|cause| Error::io("read ledger", &path, cause).hint(remedy))?;
    let stored: Stored = serde_json::from_slice(&bytes)
        .map_err(|cause| Error::new(format!("ledger \"{}\" is damaged: {cause}", path.display())).hint(remedy))?;
    if stored.format != FORMAT {
        return Err(Error::new(format!("ledger \"{}\" has format {}, not {FORMAT}", path.display(), stored.format))
            .hint("use the program version that wrote it"));
    }
    if Some(stored.checksum) != checksum(&bytes) {
        return Err(Error::new(format!("ledger \"{}\" is damaged: its checksum differs", path.display())).hint(remedy));
    }
    let (inode, born) = identity(&file, &path)?;
    if !is_same_file((inode, born), (stored.inode, stored.born)) {
        return Err(Error::new(format!(
            "ledger \"{}\" is not the file that was written here: it was copied, or restored from a backup",
            path.display()
        ))
        .hint(remedy));
    }
    // Whoever wrote it may have been killed before it was durable, and what is read here is acted on.
    file.sync_all().map_err(|cause| Error::io("sync ledger", &path, cause).hint(remedy))?;
    sync_directory(run_dir)?;
    Ok(Loaded { durable: Some(stored.durable), no_birth_time: born.is_none() })
}

fn remedy(run_dir: &Path) -> String {
    let directory = run_dir.display();
    format!(
        "an old ledger could give the right to run alone twice, so this server does not start with it; if the file was moved, \
         move the original file to its place, otherwise run \"mv {directory} {directory}.bad\" and \"mc_ctl start\": a standby \
         receives the state from the other server; a primary is not started, and \"mc_ctl status\" names the next command"
    )
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Inode and birth time of an open file.
fn identity(file: &File, path: &Path) -> Result<(u64, Option<i128>)> {
    let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::BTIME)
        .map_err(|cause| Error::io("stat file", path, cause))?;
    let mask = StatxFlags::from_bits_retain(stat.stx_mask);
    let born = i128::from(stat.stx_btime.tv_sec) * 1_000_000_000 + i128::from(stat.stx_btime.tv_nsec);
    Ok((stat.stx_ino, mask.contains(StatxFlags::BTIME).then_some(born)))
}

/// A birth time can appear or disappear with another kernel, so it counts only if both sides have one.
fn is_same_file((inode, born): (u64, Option<i128>), (known_inode, known_born): (u64, Option<i128>)) -> bool {
    inode == known_inode && born.zip(known_born).is_none_or(|(now, then)| now == then)
}

/// FNV-1a over the file with a checksum of 0 and without its line's end: against torn and edited files, not against
/// malice. Over the text, not over what is known of it: a later version may have written more, an earlier one less.
fn checksum(text: &[u8]) -> Option<u64> {
    let name = br#""checksum":"#;
    let at = text.windows(name.len()).rposition(|window| window == name)? + name.len();
    let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let zeroed = text[..at].iter().chain(b"0").chain(text[at + digits..].trim_ascii_end());
    Some(zeroed.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)))
}

/// Replaces the ledger of `run_dir` durably. Where the disk is full, it takes space from the reserve.
///
/// # Errors
/// Any step that fails; whether the new ledger will be found after a crash is then not known.
pub(super) fn save(run_dir: &Path, durable: &Durable, reserve: &Reserve) -> Result<()> {
    reserve.retry(|| try_save(run_dir, durable))
}

/// The same without a reserve. The error says whether the disk is full.
fn try_save(run_dir: &Path, durable: &Durable) -> std::result::Result<(), (Error, bool)> {
    let failed = |what: &str, path: &Path, cause: std::io::Error| {
        let full = reserve::is_full(&cause);
        (Error::io(what, path, cause), full)
    };
    let (new, path) = (run_dir.join(NEW_LEDGER), run_dir.join(LEDGER));
    match std::fs::remove_file(&new) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(failed("remove file", &new, cause)),
        _ => (),
    }
    let mut file =
        private().write(true).create_new(true).open(&new).map_err(|cause| failed("create file", &new, cause))?;
    let (inode, born) = identity(&file, &new).map_err(|error| (error, false))?;
    let mut stored = Stored { format: FORMAT, inode, born, durable: *durable, checksum: 0 };
    let encode =
        |stored: &Stored| serde_json::to_vec(stored).map_err(|cause| (Error::io("encode", &new, cause), false));
    stored.checksum = checksum(&encode(&stored)?).unwrap_or_default();
    let mut bytes = encode(&stored)?;
    bytes.push(b'\n');
    file.write_all(&bytes).map_err(|cause| failed("write file", &new, cause))?;
    file.sync_all().map_err(|cause| failed("sync file", &new, cause))?;
    std::fs::rename(&new, &path).map_err(|cause| failed("rename to the ledger file", &new, cause))?;
    let synced = File::open(run_dir).and_then(|directory| directory.sync_all());
    synced.map_err(|cause| failed("sync directory", run_dir, cause))
}

/// Notes the servers in the order of `network.conf`. The ledger knows them by that order alone, and another order would
/// make the standby take itself for the primary.
///
/// # Errors
/// They stood in the other order when the ledger was written.
pub fn check_members(run_dir: &Path, one: &str, two: &str) -> Result<()> {
    let path = run_dir.join(MEMBERS);
    // A disk that cannot be read or written keeps no controller from starting.
    let noted = std::fs::read_to_string(&path).unwrap_or_default();
    let (now, swapped) = (format!("{one}\n{two}\n"), format!("{two}\n{one}\n"));
    if noted == swapped {
        return Err(Error::new(format!(
            "the order of the lines in network.conf has changed: server \"{two}\" was the first, now \"{one}\" is"
        ))
        .hint("Restore the former order of the lines. It must be the same on all members, and must not change."));
    }
    if noted == now {
        return Ok(());
    }
    let file = private().write(true).create(true).truncate(true).open(&path);
    if let Err(cause) = file.and_then(|mut file| file.write_all(now.as_bytes())) {
        messages::tell(&Tell::Warning(Error::io("write file", &path, cause)));
    }
    Ok(())
}

/// Makes what was created, renamed or removed in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> Result<()> {
    let opened = File::open(directory).and_then(|directory| directory.sync_all());
    opened.map_err(|cause| Error::io("sync directory", directory, cause))
}

// ------------------------------------------------------------------------------------------------------------- thread

struct Order {
    number: u64,
    durable: Box<Durable>,
    reason: String,
}

/// The thread that writes. Ends, after what is queued, when this is dropped.
pub struct Store {
    queue: Sender<Order>,
    thread: std::thread::JoinHandle<()>,
}

impl Store {
    /// Starts it for `run_dir`, whose ledger holds `durable`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(run_dir: PathBuf, durable: Option<Durable>, inbox: Inbox) -> Result<Store> {
        let (queue, queued) = crossbeam_channel::unbounded();
        let history = History::load(&run_dir, durable.map(|durable| durable.ledger.view));
        let thread = spawn("store", move || write_all(&run_dir, history, &queued, &inbox))?;
        Ok(Store { queue, thread })
    }

    /// Orders a write; it answers with [`Event::Stored`] or [`Event::StoreFailed`]. Never waits.
    pub fn write(&self, number: u64, durable: Box<Durable>, reason: String) {
        let _ = self.queue.send(Order { number, durable, reason });
    }

    /// Waits until everything ordered is written, at most `limit`.
    pub fn finish(self, limit: Duration) {
        drop(self.queue);
        let deadline = std::time::Instant::now() + limit;
        while !self.thread.is_finished() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The changes that a history keeps to write them later.
const MOST_MISSING: usize = 64;

/// A history to which every change of view is added, also one that a full disk or a failure of the host kept from it.
pub(super) struct History {
    /// The view of the ledger.
    last: Option<View>,
    /// The changes that could not be written yet, oldest first.
    missing: VecDeque<Change>,
    /// The change whose ledger is not durable. A ledger that could not be written is written again without the reason.
    pending: Option<(View, String)>,
}

impl History {
    /// That of a directory whose ledger has this view.
    pub fn load(run_dir: &Path, view: Option<View>) -> History {
        let noted = || Some((view?, history(run_dir).ok()?));
        let missing = noted().and_then(|(view, changes)| not_noted(run_dir, &view, &changes));
        let mut history = History { last: view, missing: missing.into_iter().collect(), pending: None };
        history.tell(run_dir);
        history
    }

    /// A ledger with this view has become durable, or not. The reason is empty unless the view has changed.
    pub fn written(&mut self, run_dir: &Path, durable: bool, view: View, reason: String) {
        if !reason.is_empty() {
            self.pending = Some((view, reason));
        }
        if durable && let Some((to, reason)) = self.pending.take_if(|(pending, _)| *pending == view) {
            let from = self.last.replace(to);
            let reason = with_recovery(run_dir, from, to, reason);
            let change = Change { time_ms: wall_ms(), from, to, reason };
            self.missing.push_back(change);
            if self.missing.len() > MOST_MISSING {
                self.missing.pop_front();
            }
            self.tell(run_dir);
        }
    }

    /// Adds what is missing. Returns whether it could.
    pub fn complete(&mut self, run_dir: &Path) -> bool {
        self.write(run_dir).is_ok()
    }

    fn tell(&mut self, run_dir: &Path) {
        if let Err(error) = self.write(run_dir) {
            messages::tell(&Tell::Warning(error));
        }
    }

    fn write(&mut self, run_dir: &Path) -> Result<()> {
        while let Some(change) = self.missing.front() {
            append_history(run_dir, change)?;
            self.missing.pop_front();
        }
        Ok(())
    }
}

/// The reason, and that a recovery has replaced the data which the view is about to lean on.
fn with_recovery(run_dir: &Path, from: Option<View>, to: View, reason: String) -> String {
    match Journal::load(run_dir) {
        Ok(Some(Journal { phase: Phase::Adopting, target, .. })) if from.is_none_or(|from| from.data != to.data) => {
            format!("{reason}; the data was recovered to {target}")
        }
        _ => reason,
    }
}

/// The change to the view of the ledger, if the history lacks it. The ledger is durable before it is acted on, and the history is
/// not: if the host fails, its last lines can be lost.
pub fn not_noted(run_dir: &Path, view: &View, changes: &[Change]) -> Option<Change> {
    let from = changes.last().map(|change| change.to);
    if from.is_some_and(|from| from.term >= view.term) {
        return None;
    }
    let written = run_dir.join(LEDGER).metadata().and_then(|found| found.modified()).unwrap_or(UNIX_EPOCH);
    let time_ms = written.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
    let reason = "by the ledger; the host failed before the reason was recorded".to_owned();
    Some(Change { time_ms, from, to: *view, reason })
}

/// Writes until the queue closes. Of several that wait only the last is written: it is at least as new as the others. The
/// reserve is filled when there is nothing to write.
fn write_all(run_dir: &Path, mut history: History, queued: &Receiver<Order>, inbox: &Inbox) {
    let reserve = Reserve::new(run_dir);
    while let Ok(first) = reserve.next(queued, || history.complete(run_dir)) {
        let mut batch = vec![first];
        batch.extend(queued.try_iter());
        let Some(last) = batch.last() else { continue };
        let outcome = save(run_dir, &last.durable, &reserve);
        for write in batch {
            let answer = match &outcome {
                Ok(()) => Event::Stored(write.number),
                Err(error) => Event::StoreFailed(write.number, error.to_string()),
            };
            inbox.put(answer);
            history.written(run_dir, outcome.is_ok(), write.durable.ledger.view, write.reason);
        }
    }
}

/// This host's clock, ms since the epoch.
pub fn wall_ms() -> u64 {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Notes a change of view.
///
/// # Errors
/// The file cannot be appended to.
fn append_history(run_dir: &Path, change: &Change) -> Result<()> {
    let path = run_dir.join(HISTORY);
    shorten(&path, MAX_HISTORY)?;
    let mut line = serde_json::to_vec(change).map_err(|cause| Error::io("encode", &path, cause))?;
    line.push(b'\n');
    let file = private().append(true).create(true).open(&path);
    // One write, so that a line is there whole or, after a crash, cut short at the end.
    let write = |mut file: File| {
        let length = file.metadata()?.len();
        // A part of a line would spoil the next one.
        file.write_all(&line).inspect_err(|_| drop(file.set_len(length)))
    };
    file.and_then(write).map_err(|cause| Error::io("append to file", &path, cause))
}

/// Removes the oldest half of a history that is longer than `limit` bytes.
fn shorten(path: &Path, limit: u64) -> Result<()> {
    if path.metadata().map_or(0, |found| found.len()) <= limit {
        return Ok(());
    }
    let text = std::fs::read(path).map_err(|cause| Error::io("read file", path, cause))?;
    let half = text.len() / 2;
    let from = text[half..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| half + end + 1);
    let removed = text[..from].iter().filter(|byte| **byte == b'\n').count();
    files::replace(path, &text[from..], None)?;
    messages::tell(&Tell::HistoryShortened { path: path.display().to_string(), removed });
    Ok(())
}

/// The changes of view that this server has noted, oldest first; lines that a crash cut short are left out.
///
/// # Errors
/// A history that is there and cannot be read.
pub fn history(run_dir: &Path) -> Result<Vec<Change>> {
    let path = run_dir.join(HISTORY);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(cause) => Err(Error::io("read file", &path, cause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::types::*;

    fn durable(term: u64) -> Durable {
        let view = View {
            term: Term(term),
            primary: Server::First,
            mode: Mode::Degraded,
            data: [Some(DataId(u64::MAX)), Some(DataId(2))],
            arbiter: None,
            forced: false,
        };
        let ledger = Ledger {
            system: SystemId(7_000_000_000_000_000_001),
            id: LedgerId(5),
            data: DataIdentity::default(),
            view,
            promised: Term(term),
        };
        Durable { ledger, notes: Notes::default() }
    }

    fn error(run_dir: &Path) -> String {
        load(run_dir).unwrap_err().message
    }

    #[test]
    fn what_was_saved_is_loaded_and_missing_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap().durable, None);
        for term in 1..4 {
            try_save(dir.path(), &durable(term)).unwrap();
            assert_eq!(load(dir.path()).unwrap().durable, Some(durable(term)));
        }
    }

    #[test]
    fn a_ledger_put_back_is_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, kept) = (dir.path().join(LEDGER), dir.path().join("kept"));
        try_save(dir.path(), &durable(1)).unwrap();
        std::fs::copy(&ledger, &kept).unwrap();
        try_save(dir.path(), &durable(2)).unwrap();
        std::fs::rename(&kept, &ledger).unwrap();
        assert!(error(dir.path()).contains("restored from a backup"));
        // Over the present file, as `cp` does it: the inode is the present one's, what the file says is not.
        try_save(dir.path(), &durable(1)).unwrap();
        let old = std::fs::read(&ledger).unwrap();
        try_save(dir.path(), &durable(2)).unwrap();
        try_save(dir.path(), &durable(3)).unwrap();
        std::fs::write(&ledger, old).unwrap();
        assert!(error(dir.path()).contains("restored from a backup"));
    }

    #[test]
    fn servers_in_another_order_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        check_members(dir.path(), "nd1", "nd2").unwrap();
        check_members(dir.path(), "nd1", "nd2").unwrap();
        let told = check_members(dir.path(), "nd2", "nd1").unwrap_err();
        assert!(told.message.contains("server \"nd1\" was the first, now \"nd2\" is"), "{told}");
        // Another name is no other order.
        check_members(dir.path(), "nd1", "db2").unwrap();
        check_members(dir.path(), "db2", "nd1").unwrap_err();
    }

    #[test]
    fn a_ledger_of_an_earlier_version_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = dir.path().join(LEDGER);
        try_save(dir.path(), &durable(3)).unwrap();
        let now = std::fs::read_to_string(&ledger).unwrap();
        // As it was written before there was this note.
        let before = now.replace(",\"labelled\":false", "");
        assert_ne!(now, before);
        let (head, _) = before.rsplit_once(":").unwrap();
        let sum = checksum(before.as_bytes()).unwrap();
        std::fs::write(&ledger, format!("{head}:{sum}}}\n")).unwrap();
        assert_eq!(load(dir.path()).unwrap().durable, Some(durable(3)));
    }

    /// Written where the kernel or the file system reported no birth time, which it does now.
    #[test]
    fn a_birth_time_that_appears_does_not_disown_the_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = dir.path().join(LEDGER);
        try_save(dir.path(), &durable(3)).unwrap();
        let edit = |born: Option<&str>, inode: u64| {
            let mut stored: Stored = serde_json::from_slice(&std::fs::read(&ledger).unwrap()).unwrap();
            assert!(stored.born.is_some(), "the file system of {} reports no birth time", dir.path().display());
            stored.born = born.map(|born| born.parse().unwrap());
            stored.inode += inode;
            stored.checksum = 0;
            stored.checksum = checksum(&serde_json::to_vec(&stored).unwrap()).unwrap();
            serde_json::to_vec(&stored).unwrap()
        };
        let (none, other_inode, other_birth) = (edit(None, 0), edit(None, 1), edit(Some("5"), 0));
        std::fs::write(&ledger, none).unwrap();
        assert_eq!(load(dir.path()).unwrap().durable, Some(durable(3)));
        for text in [other_inode, other_birth] {
            std::fs::write(&ledger, text).unwrap();
            assert!(error(dir.path()).contains("copied, or restored"));
        }
    }

    #[test]
    fn a_birth_time_that_disappears_does_not_disown_the_ledger() {
        assert!(is_same_file((7, None), (7, Some(1))) && is_same_file((7, Some(1)), (7, None)));
        assert!(!is_same_file((8, None), (7, Some(1))) && !is_same_file((7, Some(2)), (7, Some(1))));
    }

    #[test]
    fn a_torn_or_edited_ledger_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = dir.path().join(LEDGER);
        try_save(dir.path(), &durable(3)).unwrap();
        let whole = std::fs::read_to_string(&ledger).unwrap();
        for length in 0..whole.len() - 1 {
            std::fs::write(&ledger, &whole[..length]).unwrap();
            assert!(error(dir.path()).contains("is damaged"), "{length}");
        }
        std::fs::write(&ledger, whole.replace("\"promised\":3", "\"promised\":2")).unwrap();
        assert!(error(dir.path()).contains("checksum"));
        std::fs::write(&ledger, &whole).unwrap();
        assert_eq!(load(dir.path()).unwrap().durable, Some(durable(3)));
    }

    #[test]
    fn one_holder_of_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("nd1");
        let lock = Lock::take(&run_dir, CONTROLLER_LOCK).unwrap();
        assert!(Lock::take(&run_dir, CONTROLLER_LOCK).unwrap_err().message.contains("already running"));
        assert!(is_locked(&run_dir));
        drop(lock);
        assert!(!is_locked(&run_dir));
        Lock::take(&run_dir, CONTROLLER_LOCK).unwrap();
    }

    #[test]
    fn a_look_at_the_locks_creates_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("nd1");
        assert!(!is_locked(&run_dir) && !run_dir.exists());
        let lock = Lock::take(&run_dir, WATCHER_LOCK).unwrap();
        assert!(is_locked(&run_dir) && !run_dir.join(CONTROLLER_LOCK).exists());
        drop(lock);
        assert!(!is_locked(&run_dir));
    }

    #[test]
    fn every_write_is_answered_in_order_and_the_history_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (inbox, events) = Inbox::new();
        let store = Store::start(dir.path().to_owned(), None, inbox).unwrap();
        for number in 1..=20 {
            let reason = if number % 2 == 0 { format!("why {number}") } else { String::new() };
            store.write(number, Box::new(durable(number)), reason);
        }
        store.finish(Duration::from_secs(10));
        let answers: Vec<Event> = events.try_iter().map(|(_, event)| event).collect();
        assert_eq!(answers, (1..=20).map(Event::Stored).collect::<Vec<_>>());
        assert_eq!(load(dir.path()).unwrap().durable, Some(durable(20)));
        let history = history(dir.path()).unwrap();
        assert_eq!(history.len(), 10);
        // A write without a reason does not change the view: a first ledger comes from none.
        assert_eq!((history[0].from, history[1].from), (None, Some(durable(2).ledger.view)));
        assert_eq!((history[1].to, history[1].reason.as_str()), (durable(4).ledger.view, "why 4"));
    }

    #[test]
    fn changes_that_could_not_be_written_are_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("nd1");
        let [one, two, three] = [1, 2, 3].map(|term| durable(term).ledger.view);
        let mut history = History { last: Some(one), missing: VecDeque::new(), pending: None };
        history.written(&run_dir, true, two, "why 2".into());
        history.written(&run_dir, true, three, "why 3".into());
        assert!(!history.complete(&run_dir));
        std::fs::create_dir(&run_dir).unwrap();
        assert!(history.complete(&run_dir) && history.complete(&run_dir));
        let noted = super::history(&run_dir).unwrap();
        let changes = noted.iter().map(|change| (change.from, change.to)).collect::<Vec<_>>();
        assert_eq!(changes, [(Some(one), two), (Some(two), three)]);
    }

    /// The host failed before the reason was on the disk.
    #[test]
    fn a_change_that_only_the_ledger_has_is_added_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = [1, 2].map(|term| durable(term).ledger.view);
        let mut history = History::load(dir.path(), None);
        history.written(dir.path(), true, one, "why 1".into());
        for _ in 0..2 {
            History::load(dir.path(), Some(two));
            let noted = super::history(dir.path()).unwrap();
            assert_eq!(noted.len(), 2);
            assert_eq!((noted[1].from, noted[1].to), (Some(one), two));
            assert!(noted[1].reason.starts_with("by the ledger"), "{noted:?}");
        }
    }

    /// The ledger is written again without a reason when there is space.
    #[test]
    fn the_reason_of_a_ledger_that_could_not_be_written_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("nd1");
        let (inbox, events) = Inbox::new();
        let store = Store::start(run_dir.clone(), None, inbox).unwrap();
        store.write(1, Box::new(durable(1)), "why 1".into());
        assert!(matches!(events.recv().unwrap().1, Event::StoreFailed(1, _)));
        std::fs::create_dir(&run_dir).unwrap();
        store.write(2, Box::new(durable(1)), String::new());
        store.finish(Duration::from_secs(10));
        let noted = history(&run_dir).unwrap();
        assert_eq!(noted.iter().map(|change| change.reason.as_str()).collect::<Vec<_>>(), ["why 1"]);
    }

    #[test]
    fn the_history_is_bounded_and_its_newest_part_stays() {
        let dir = tempfile::tempdir().unwrap();
        let view = durable(1).ledger.view;
        for number in 0..20 {
            let change = Change { time_ms: 0, from: None, to: view, reason: format!("why {number}") };
            append_history(dir.path(), &change).unwrap();
        }
        let path = dir.path().join(HISTORY);
        let before = path.metadata().unwrap().len();
        shorten(&path, before).unwrap();
        assert_eq!(path.metadata().unwrap().len(), before);
        shorten(&path, before - 1).unwrap();
        let left: Vec<String> = history(dir.path()).unwrap().into_iter().map(|change| change.reason).collect();
        let expected: Vec<String> = (20 - left.len()..20).map(|number| format!("why {number}")).collect();
        assert_eq!(left, expected);
        assert!((8..=10).contains(&left.len()), "{left:?}");
    }

    #[test]
    fn a_failed_write_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (inbox, events) = Inbox::new();
        let store = Store::start(dir.path().join("gone"), None, inbox).unwrap();
        store.write(1, Box::new(durable(1)), String::new());
        store.finish(Duration::from_secs(10));
        assert!(matches!(events.try_recv().unwrap().1, Event::StoreFailed(1, _)));
    }
}
