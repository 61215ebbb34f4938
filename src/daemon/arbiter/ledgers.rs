//! The ledgers of an arbiter's clusters, `run/SYSTEM_IDENTIFIER/`: found at the start, written by a few threads.
//!
//! Each is a ledger file as a server's (`store.rs`), beside it its history and the file `cluster`, which names the
//! directory of the cluster that it belongs to: that cannot be read from the ledger while no server has told its system
//! identifier. The loop orders and never waits; answers are [`News`].

use super::{News, Notifier};
use crate::daemon::reserve::Reserve;
use crate::daemon::{spawn, store};
use crate::error::{Error, Result};
use crate::fsm::event::Event;
use crate::fsm::types::{Durable, SystemId};
use crossbeam_channel::{Receiver, Sender};
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The file that names the cluster.
const CLUSTER: &str = "cluster";

/// A ledger that was found at the start.
#[derive(Clone, Debug)]
pub struct Found {
    /// The name of its cluster's directory, as noted when it was made; `None` where the note is missing.
    pub cluster: Option<String>,
    /// What it holds, or why it cannot be used.
    pub ledger: Result<Option<Durable>>,
}

/// The directory of a cluster's ledger.
pub fn directory(run_dir: &Path, system: SystemId) -> PathBuf {
    run_dir.join(system.0.to_string())
}

/// Reads all ledgers of `run_dir`.
///
/// # Errors
/// The directory cannot be read. A ledger that cannot be used is no error here.
pub fn scan(run_dir: &Path) -> Result<HashMap<SystemId, Found>> {
    let failed = |cause| Error::io("read directory", run_dir, cause);
    let mut found = HashMap::new();
    for entry in run_dir.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        if let Some(system) = number.map(SystemId).filter(|_| path.is_dir()) {
            found.insert(system, look(&path, system));
        }
    }
    Ok(found)
}

fn look(directory: &Path, system: SystemId) -> Found {
    let cluster = std::fs::read_to_string(directory.join(CLUSTER)).ok().map(|name| name.trim_end().to_owned());
    let remedy = format!(
        "an old ledger could give the right to run alone twice, so this cluster is not served with it; if the file was moved, \
         move the original file to its place, otherwise run \"mc_arb forget {}\": the servers then accept this arbiter as a \
         new one",
        system.0
    );
    let ledger = store::load_with(directory, &remedy).and_then(|loaded| match loaded.durable {
        Some(durable) if durable.ledger.system != system => Err(Error::new(format!(
            "the ledger in \"{}\" has system identifier {}",
            directory.display(),
            durable.ledger.system.0
        ))
        .hint(remedy.clone())),
        durable => Ok(durable),
    });
    Found { cluster, ledger }
}

/// Removes a cluster's ledger, history and all. False where there is none.
///
/// # Errors
/// A file cannot be removed.
pub fn remove(run_dir: &Path, system: SystemId) -> Result<bool> {
    let directory = directory(run_dir, system);
    match std::fs::remove_dir_all(&directory) {
        Ok(()) => store::sync_directory(run_dir).map(|()| true),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(Error::io("remove directory", &directory, cause)),
    }
}

// ------------------------------------------------------------------------------------------------------------- thread

/// What the thread is ordered to do.
enum Order {
    Write(Entry),
    Remove(SystemId),
}

/// One write.
struct Entry {
    cluster: usize,
    name: String,
    number: u64,
    durable: Box<Durable>,
    reason: String,
}

/// The threads that write, each for some of the system identifiers: when a whole site fails many pairs ask at once, and
/// a disk that syncs one file after the other is slower than one that is given several. They end, after what is queued,
/// when this is dropped.
pub struct Ledgers {
    writers: Vec<(Sender<Order>, std::thread::JoinHandle<()>)>,
}

/// How many they are.
const THREADS: usize = 8;

impl Ledgers {
    /// Starts them.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(run_dir: &Path, found: &HashMap<SystemId, Found>, notifier: &Notifier) -> Result<Ledgers> {
        let view = |found: &Found| Some(found.ledger.as_ref().ok()?.as_ref()?.ledger.view);
        let views: HashMap<_, _> = found.iter().filter_map(|(system, found)| Some((*system, view(found)?))).collect();
        let mut writers = Vec::new();
        let reserve = Arc::new(Reserve::new(run_dir));
        for place in 0..THREADS {
            let views = views.iter().filter(|(system, _)| place_of(**system) == place);
            let load = |system, view| (system, store::History::load(&directory(run_dir, system), Some(view)));
            let histories = views.map(|(system, view)| load(*system, *view)).collect();
            let (run_dir, reserve) = (run_dir.to_owned(), reserve.clone());
            let writer = Writer { run_dir, histories, notifier: notifier.clone(), reserve };
            let (queue, queued) = crossbeam_channel::unbounded();
            writers.push((queue, spawn("store", move || writer.run(&queued))?));
        }
        Ok(Ledgers { writers })
    }

    /// Orders a write for the cluster of this number, whose directory has this name. Answered by
    /// [`Event::Stored`] or [`Event::StoreFailed`].
    pub fn write(&self, cluster: usize, name: &str, number: u64, durable: Box<Durable>, reason: String) {
        let system = durable.ledger.system;
        self.order(system, Order::Write(Entry { cluster, name: name.to_owned(), number, durable, reason }));
    }

    /// Orders a removal, after all writes ordered before. Answered by [`News::Removed`].
    pub fn remove(&self, system: SystemId) {
        self.order(system, Order::Remove(system));
    }

    /// What is ordered for one system identifier is done in order.
    fn order(&self, system: SystemId, order: Order) {
        let _ = self.writers[place_of(system)].0.send(order);
    }

    /// Waits until everything ordered is written, at most `limit`.
    pub fn finish(self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let threads: Vec<_> = self.writers.into_iter().map(|(_, thread)| thread).collect();
        while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn place_of(system: SystemId) -> usize {
    (system.0 % THREADS as u64) as usize
}

struct Writer {
    run_dir: PathBuf,
    histories: HashMap<SystemId, store::History>,
    notifier: Notifier,
    reserve: Arc<Reserve>,
}

impl Writer {
    fn run(mut self, queued: &Receiver<Order>) {
        let reserve = self.reserve.clone();
        while let Ok(order) = reserve.next(queued, || self.complete()) {
            match order {
                Order::Write(write) => self.write(write),
                Order::Remove(system) => {
                    self.histories.remove(&system);
                    self.notifier.tell(News::Removed(system, remove(&self.run_dir, system)));
                }
            }
        }
    }

    /// Adds what is missing in the histories. Returns whether it could.
    fn complete(&mut self) -> bool {
        let complete =
            |(system, history): (&SystemId, &mut store::History)| history.complete(&directory(&self.run_dir, *system));
        // Every one is tried.
        self.histories.iter_mut().map(complete).filter(|done| !done).count() == 0
    }

    fn write(&mut self, write: Entry) {
        let system = write.durable.ledger.system;
        let directory = directory(&self.run_dir, system);
        let saved =
            self.prepare(&directory, &write.name).and_then(|()| store::save(&directory, &write.durable, &self.reserve));
        let answer = match &saved {
            Ok(()) => Event::Stored(write.number),
            Err(error) => Event::StoreFailed(write.number, error.to_string()),
        };
        self.notifier.tell(News::Of(write.cluster, Box::new(answer)));
        let history = self.histories.entry(system).or_insert_with(|| store::History::load(&directory, None));
        history.written(&directory, saved.is_ok(), write.durable.ledger.view, write.reason);
    }

    /// The directory, with the note of its cluster; both durable before the ledger, which they lead to.
    fn prepare(&self, directory: &Path, name: &str) -> Result<()> {
        match std::fs::DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => store::sync_directory(&self.run_dir)?,
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists => (),
            Err(cause) => return Err(Error::io("create directory", directory, cause)),
        }
        let path = directory.join(CLUSTER);
        if std::fs::read_to_string(&path).is_ok_and(|noted| noted.trim_end() == name) {
            return Ok(());
        }
        let new = directory.join("cluster.new");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
        let written = file.and_then(|mut file| {
            file.write_all(format!("{name}\n").as_bytes())?;
            file.sync_all()
        });
        written.map_err(|cause| Error::io("write file", &new, cause))?;
        std::fs::rename(&new, &path).map_err(|cause| Error::io("create file", &path, cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::types::*;

    fn durable(system: u64, term: u64) -> Box<Durable> {
        let view = View {
            term: Term(term),
            primary: Server::First,
            mode: Mode::Degraded,
            data: Default::default(),
            arbiter: None,
            forced: false,
        };
        let data = DataIdentity::default();
        let ledger = Ledger { system: SystemId(system), id: LedgerId(5), data, view, promised: Term(term) };
        Box::new(Durable { ledger, notes: Notes::default() })
    }

    #[test]
    fn ledgers_are_written_found_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (notifier, news) = Notifier::new().unwrap();
        let ledgers = Ledgers::start(dir.path(), &HashMap::new(), &notifier).unwrap();
        ledgers.write(0, "", 1, durable(7, 1), "why".into());
        ledgers.write(3, "shop", 1, durable(8, 2), "why".into());
        ledgers.write(0, "", 2, durable(7, 3), "why".into());
        ledgers.remove(SystemId(9));
        ledgers.finish(Duration::from_secs(10));
        let mut told: Vec<String> = news.try_iter().map(|news| format!("{news:?}")).collect();
        let place = |what: &str| told.iter().position(|told| told == what);
        assert!(place("Of(0, Stored(1))") < place("Of(0, Stored(2))"), "{told:?}");
        told.sort();
        let expected = ["Of(0, Stored(1))", "Of(0, Stored(2))", "Of(3, Stored(1))", "Removed(SystemId(9), Ok(false))"];
        assert_eq!(told, expected);
        let found = scan(dir.path()).unwrap();
        assert_eq!(found.len(), 2);
        let first = &found[&SystemId(7)];
        assert_eq!((first.cluster.as_deref(), first.ledger.clone()), (Some(""), Ok(Some(*durable(7, 3)))));
        assert_eq!(found[&SystemId(8)].cluster.as_deref(), Some("shop"));
        assert_eq!(store::history(&directory(dir.path(), SystemId(7))).unwrap().len(), 2);
        assert_eq!(remove(dir.path(), SystemId(7)), Ok(true));
        assert!(!scan(dir.path()).unwrap().contains_key(&SystemId(7)));
    }

    /// A ledger that could not be written is written again without the reason.
    #[test]
    fn a_history_has_no_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (notifier, news) = Notifier::new().unwrap();
        let ledgers = Ledgers::start(dir.path(), &HashMap::new(), &notifier).unwrap();
        let place = directory(dir.path(), SystemId(7));
        std::fs::write(&place, "not a directory").unwrap();
        ledgers.write(0, "", 1, durable(7, 1), "why".into());
        let told = format!("{:?}", news.recv().unwrap());
        assert!(told.contains("StoreFailed(1"), "{told}");
        std::fs::remove_file(&place).unwrap();
        ledgers.write(0, "", 2, durable(7, 1), String::new());
        ledgers.finish(Duration::from_secs(10));
        let reasons = |changes: Vec<crate::status::Change>| -> Vec<String> {
            changes.into_iter().map(|change| change.reason).collect()
        };
        assert_eq!(reasons(store::history(&place).unwrap()), ["why"]);
        // The host failed before the line was on the disk.
        std::fs::remove_file(place.join("history")).unwrap();
        Ledgers::start(dir.path(), &scan(dir.path()).unwrap(), &notifier).unwrap().finish(Duration::from_secs(10));
        let found = reasons(store::history(&place).unwrap());
        assert!(found.len() == 1 && found[0].starts_with("by the ledger"), "{found:?}");
    }

    #[test]
    fn a_ledger_of_another_cluster_or_copied_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let (notifier, _news) = Notifier::new().unwrap();
        let ledgers = Ledgers::start(dir.path(), &HashMap::new(), &notifier).unwrap();
        ledgers.write(0, "", 1, durable(7, 1), String::new());
        ledgers.finish(Duration::from_secs(10));
        let place = |system| directory(dir.path(), SystemId(system));
        std::fs::create_dir(place(8)).unwrap();
        std::fs::copy(place(7).join("ledger"), place(8).join("ledger")).unwrap();
        std::fs::rename(place(7), place(9)).unwrap();
        let found = scan(dir.path()).unwrap();
        let error = |system| found[&SystemId(system)].ledger.clone().unwrap_err();
        assert!(error(8).message.contains("restored from a backup"), "{}", error(8));
        assert!(error(8).hint.contains("mc_arb forget 8"), "{}", error(8));
        assert!(error(9).message.contains("has system identifier 7"), "{}", error(9));
    }
}
