//! Looks at the own disks: writes, syncs and reads back a small file in the data directory, in `pg_wal` and in each
//! tablespace. Measures the free space there and in the management directory.
//!
//! It reports and decides nothing. An `fsync` on a dying disk may never return, so each place has a worker thread of its
//! own that may hang; a place whose worker hangs gets no second one, so there are never more threads than places. The
//! thread that reports touches no disk. Started by the daemon.
//!
//! What counts as a failure: an error of input or output, a filesystem that has become read-only, a place that is gone or
//! closed to us, and silence past `disk_check_timeout`. What does not: a full disk or quota, which PostgreSQL itself
//! handles (it refuses writes, or stops when `pg_wal` is full) and which a switch would soon meet on the standby as well, so
//! that it is reported for people only ([`Round::space`]); whatever befalls the management directory, which the ledger's
//! writer reports; and a shortage of memory or of file descriptors, which is no disk's.
//!
//! A data directory that is missing or empty because it has not been made yet, or is being made anew by a rebuild, is not
//! looked at: nothing may be put into it. One that was there and is gone is a failure.

use super::disk_space::{self, Gauge};
use super::pace::Pace;
use crate::fsm::event::Disk;
use crate::messages::{self, Tell};
use crate::status::{Directory, Level, Space, TABLESPACE};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use rustix::fs::{Advice, OFlags, fadvise};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How the disks are looked at.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Data directory.
    pub data: PathBuf,
    /// The controller's own directory, `DIR/ID`.
    pub management: PathBuf,
    /// The file that is there while a rebuild of the data directory is under way.
    pub journal: PathBuf,
    /// `disk_check_interval`.
    pub interval: Duration,
    /// `disk_check_timeout`.
    pub timeout: Duration,
    /// Where it is noted how long answers took.
    pub pace: Arc<Pace>,
}

/// What one round has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Round {
    /// The data directory and `pg_wal`: [`Disk::Failed`] with `data` or `tran_log`.
    pub instance: Disk,
    /// The tablespaces: [`Disk::Failed`] with `tablespace OID`, the first one that failed. Apart, because
    /// `tablespace_directory_error_action = message` makes a message of it and no failure.
    pub tablespaces: Disk,
    /// The space of each directory.
    pub space: Vec<Space>,
}

impl Round {
    /// With the name of a tablespace in the place of its OID, where `names` has it.
    pub fn named(mut self, names: &BTreeMap<String, String>) -> Round {
        if let Disk::Failed(which) = &mut self.tablespaces
            && let Some(name) = which.strip_prefix(TABLESPACE).and_then(|oid| names.get(oid))
        {
            *which = format!("{TABLESPACE}{name}");
        }
        for space in &mut self.space {
            if let Directory::Tablespace(of) = &mut space.directory
                && let Some(name) = names.get(of)
            {
                name.clone_into(of);
            }
        }
        self
    }

    /// The directories that are full, in one line; empty for none.
    pub fn full(&self) -> String {
        let full = self.space.iter().filter(|space| space.state == Level::Full);
        full.map(|space| space.directory.to_string()).collect::<Vec<_>>().join(", ")
    }

    /// One word on all disks; with `tablespaces` false (`tablespace_directory_error_action = message`) those count not.
    pub fn fold(self, tablespaces: bool) -> Disk {
        match self.instance {
            Disk::Good if tablespaces => self.tablespaces,
            found => found,
        }
    }
}

/// Starts the probe: `report` gets a [`Round`] each interval, also while places hang; it must not block. The probe ends
/// when what is returned is dropped.
///
/// # Errors
///
/// No thread could be started.
pub fn spawn(settings: Settings, report: impl Fn(Round) + Send + 'static) -> io::Result<Sender<()>> {
    let (handle, closed) = bounded(0);
    let probe = Probe::new(settings);
    std::thread::Builder::new().name("disk probe".into()).spawn(move || probe.run(&closed, report))?;
    Ok(handle)
}

/// A worker's answer: for which place, what came of it, and from the data directory's worker the list of places.
struct Answer {
    place: Directory,
    result: io::Result<()>,
    space: Option<Space>,
    places: Option<BTreeMap<Directory, PathBuf>>,
}

struct Worker {
    orders: Sender<PathBuf>,
    /// It has been given an order that it has not answered yet.
    busy: bool,
    /// It hung in an earlier round already, and is not waited for again.
    late: bool,
    failed: Option<String>,
    /// An error that is not a failure of the disk: this process cannot open more files.
    hindered: Option<String>,
    space: Option<Space>,
}

struct Probe {
    settings: Settings,
    places: BTreeMap<Directory, PathBuf>,
    workers: BTreeMap<Directory, Worker>,
    answers: (Sender<Answer>, Receiver<Answer>),
    told: BTreeMap<Directory, String>,
    told_hindered: BTreeMap<Directory, String>,
    told_space: BTreeMap<Directory, Level>,
}

impl Probe {
    fn new(settings: Settings) -> Probe {
        let places = BTreeMap::from([
            (Directory::Data, settings.data.clone()),
            (Directory::Management, settings.management.clone()),
        ]);
        Probe {
            settings,
            places,
            workers: BTreeMap::new(),
            answers: unbounded(),
            told: BTreeMap::new(),
            told_hindered: BTreeMap::new(),
            told_space: BTreeMap::new(),
        }
    }

    fn run(mut self, closed: &Receiver<()>, report: impl Fn(Round)) {
        loop {
            let round = self.round();
            report(round);
            // Nothing is ever sent: it ends when the other side is dropped.
            if closed.recv_timeout(self.settings.interval) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    fn round(&mut self) -> Round {
        let end = Instant::now() + self.settings.timeout;
        let known = self.places.len();
        self.order();
        self.collect(end);
        if self.places.len() > known {
            // The first round has just learnt of the other places.
            self.order();
            self.collect(end);
        }
        self.workers.retain(|place, worker| worker.busy || self.places.contains_key(place));
        let failed: Vec<(Directory, String)> = self
            .workers
            .iter()
            .filter_map(|(place, worker)| {
                let why =
                    if worker.busy { Some("no response within the time limit".into()) } else { worker.failed.clone() };
                Some((place.clone(), why?))
            })
            .collect();
        self.tell(&failed);
        self.tell_hindered();
        self.tell_space();
        let first = |wanted: fn(&Directory) -> bool| {
            let found = failed.iter().find(|(place, _)| wanted(place));
            found.map_or(Disk::Good, |(place, _)| Disk::Failed(place.to_string()))
        };
        Round {
            instance: first(|place| matches!(place, Directory::Data | Directory::TranLog)),
            tablespaces: first(|place| matches!(place, Directory::Tablespace(_))),
            space: self.workers.values().filter_map(|worker| worker.space.clone()).collect(),
        }
    }

    /// Gives every place that was not looked at in this round to its worker, unless that one still hangs.
    fn order(&mut self) {
        for (place, path) in &self.places {
            if !self.workers.contains_key(place) {
                match hire(place.clone(), &self.settings, self.answers.0.clone()) {
                    Ok(orders) => {
                        self.workers.insert(
                            place.clone(),
                            Worker { orders, busy: false, late: false, failed: None, hindered: None, space: None },
                        );
                    }
                    Err(error) => {
                        let what = format!("could not start a thread to check \"{}\": {error}", path.display());
                        messages::tell(&Tell::Probe(what));
                        continue;
                    }
                }
            }
            if let Some(worker) = self.workers.get_mut(place)
                && !worker.busy
            {
                worker.busy = worker.orders.send(path.clone()).is_ok();
            }
        }
    }

    /// Takes answers until all have answered, or the time is up. Those that hung already are not waited for.
    fn collect(&mut self, end: Instant) {
        // Answers that are late are taken too, also where every place hung.
        while let Ok(answer) = self.answers.1.try_recv() {
            self.take(answer);
        }
        while self.workers.values().any(|worker| worker.busy && !worker.late) {
            let Ok(answer) = self.answers.1.recv_deadline(end) else { break };
            self.take(answer);
        }
        for worker in self.workers.values_mut() {
            worker.late = worker.busy;
        }
    }

    fn take(&mut self, answer: Answer) {
        if let Some(worker) = self.workers.get_mut(&answer.place) {
            (worker.busy, worker.late) = (false, false);
            let error = answer.result.err();
            let hindered = error.as_ref().filter(|error| !counts(error) && !is_full(error));
            worker.hindered = hindered.map(ToString::to_string);
            worker.space = answer.space;
            worker.failed = error.filter(counts).map(|error| error.to_string());
        }
        if let Some(places) = answer.places {
            self.places = places;
            self.places.insert(Directory::Management, self.settings.management.clone());
        }
    }

    /// Logs what has changed.
    fn tell(&mut self, failed: &[(Directory, String)]) {
        let now: BTreeMap<Directory, String> = failed.iter().cloned().collect();
        for (place, why) in now.iter().filter(|(place, why)| self.told.get(place) != Some(why)) {
            let path = self.path(place);
            let what = format!("could not write, flush and read a file in \"{path}\" ({}): {why}", place);
            messages::tell(&Tell::Probe(what));
        }
        self.told = now;
    }

    /// The same for places that could not be looked at for a reason that is not the disk's.
    fn tell_hindered(&mut self) {
        let hindered = |(place, worker): (&Directory, &Worker)| Some((place.clone(), worker.hindered.clone()?));
        let now: BTreeMap<Directory, String> = self.workers.iter().filter_map(hindered).collect();
        for (place, why) in now.iter().filter(|(place, _)| !self.told_hindered.contains_key(place)) {
            messages::tell(&Tell::NotChecked { path: self.path(place), place: place.to_string(), why: why.clone() });
        }
        self.told_hindered = now;
    }

    /// The same for the free space. A place whose space is not known keeps what was said last.
    fn tell_space(&mut self) {
        for (place, worker) in &self.workers {
            if let Some(space) = &worker.space {
                let before = self.told_space.insert(place.clone(), space.state).unwrap_or_default();
                disk_space::tell(before, space);
            }
        }
    }

    fn path(&self, place: &Directory) -> String {
        self.places.get(place).unwrap_or(&self.settings.data).display().to_string()
    }
}

/// Whether an error is a failure of a disk.
fn counts(error: &io::Error) -> bool {
    !is_full(error) && !is_one_of(error, &[Errno::MFILE, Errno::NFILE, Errno::NOMEM])
}

/// Whether an error reports that no space is left, or that the user's quota is used up.
pub(super) fn is_full(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::NOSPC, Errno::DQUOT])
}

fn is_one_of(error: &io::Error, list: &[Errno]) -> bool {
    list.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Starts the worker of a place. It ends when its channel closes.
fn hire(place: Directory, settings: &Settings, answers: Sender<Answer>) -> io::Result<Sender<PathBuf>> {
    let (orders, inbox) = unbounded::<PathBuf>();
    let Settings { data, journal, pace, .. } = settings.clone();
    let file = file_name(&data);
    let mut seen = false;
    let mut gauge = Gauge::new(place.clone(), Some(data.clone()));
    std::thread::Builder::new().name("disk worker".into()).spawn(move || {
        while let Ok(directory) = inbox.recv() {
            let there = place != Directory::Data || !is_bare(&data);
            seen |= there;
            // While it is made anew, parts of it may be missing too, and pg_rewind fails on a file that vanishes.
            let remade = journal.exists();
            let excused = || !seen || remade || journal.exists();
            let looked_at = !remade && (there || !excused());
            let began = Instant::now();
            let result = match looked_at {
                true if place == Directory::Management => try_write(&directory.join(&file)),
                true => check(&directory.join(&file)).or_else(|error| match error.kind() {
                    io::ErrorKind::NotFound if excused() => Ok(()),
                    _ => Err(error),
                }),
                false => Ok(()),
            };
            if looked_at && place != Directory::Management {
                pace.disk.add(began.elapsed());
            }
            let places = (place == Directory::Data).then(|| places(&data, looked_at));
            let space = gauge.look(&directory, result.as_ref().is_err_and(is_full));
            if answers.send(Answer { place: place.clone(), result, space, places }).is_err() {
                return;
            }
        }
    })?;
    Ok(orders)
}

/// Whether there is no data directory, or nothing in it.
fn is_bare(data: &Path) -> bool {
    if data.join("PG_VERSION").symlink_metadata().is_ok() {
        return false;
    }
    match fs::read_dir(data) {
        Ok(mut entries) => entries
            .all(|entry| entry.is_ok_and(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()))),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// How the files of this check begin. Files with this prefix are skipped by base backups, `pg_checksums` and `pg_rewind`, and
/// ignored by the server.
const PREFIX: &str = "pgsql_tmp_mirroring_controller_";

/// The rest keeps two instances apart that have tablespaces in one directory.
pub(super) fn file_name(data: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    format!("{PREFIX}{:x}", hasher.finish())
}

/// Where PostgreSQL writes; the data directory alone where there is no other place yet.
fn places(data: &Path, whole: bool) -> BTreeMap<Directory, PathBuf> {
    let mut places = BTreeMap::from([(Directory::Data, data.to_owned())]);
    if !whole {
        return places;
    }
    places.insert(Directory::TranLog, data.join("pg_wal"));
    for entry in fs::read_dir(data.join("pg_tblspc")).into_iter().flatten().flatten() {
        let oid = entry.file_name().to_string_lossy().into_owned();
        if oid.bytes().all(|byte| byte.is_ascii_digit()) {
            places.insert(Directory::Tablespace(oid), entry.path());
        }
    }
    places
}

/// Writes a file, syncs it, reads it back from the disk, and removes it.
fn check(path: &Path) -> io::Result<()> {
    let result = write_and_read(path);
    let removed = fs::remove_file(path);
    result.and(removed)
}

/// Whether there is space for a small file. Nothing is synced: the ledger's disk has enough to do.
pub(super) fn try_write(path: &Path) -> io::Result<()> {
    let result = write(path).map(drop);
    let removed = fs::remove_file(path);
    result.and(removed)
}

const WRITTEN: [u8; 512] = [b'm'; 512];

fn write(path: &Path) -> io::Result<File> {
    let mut file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path)?;
    file.write_all(&WRITTEN)?;
    Ok(file)
}

fn write_and_read(path: &Path) -> io::Result<()> {
    let mut file = write(path)?;
    file.sync_all()?;
    // What is in memory is forgotten, so that the disk itself must answer. A filesystem that cannot do it is no failure.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    file.rewind()?;
    let mut read = [0; 512];
    file.read_exact(&mut read)?;
    if read != WRITTEN {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the data that was read differs from the data that was written",
        ));
    }
    Ok(())
}
