//! Looks at the own instance: through a session each interval, through fresh sessions often enough to notice a frozen
//! postmaster, and through a process-death notice.
//!
//! It reports and decides nothing. Two threads: one looks, and is never held up longer than the time limit of a look; one
//! waits for the death of the postmaster and does nothing else. Started by the daemon, kicked by the decision thread
//! whenever it has changed something, so that what came of it is known at once.
//!
//! What a look costs the server is kept small: one session stays open and is replaced by a fresh one only every
//! (retry + 1)th of the detection time (each new one may be a line in the server's log), and while the instance is
//! starting or stopping its `postmaster.pid` is read instead of asking it.

use super::connections;
use super::pace::Pace;
use crate::error::Error;
use crate::fsm::event::{Contains, Event, Instance, Names, WalReading};
use crate::fsm::types::{Lsn, Timeline, WalPoint};
use crate::messages::{self, Tell};
use crate::pg::connect::{Refusal, Session, Target};
use crate::pg::process::{self, Process};
use crate::pg::queries;
use crate::pg::wal::{self, Segments};
use crate::status::{ConnectionFailure, Purpose};
use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time between two looks at the settings that weaken commits.
const SETTINGS: Duration = Duration::from_secs(10);

/// The time between two looks while the instance comes up, or goes down.
const EAGER: Duration = Duration::from_millis(10);

/// How the instance is looked at.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The instance.
    pub target: Target,
    /// `db_instance_check_interval`.
    pub interval: Duration,
    /// `db_instance_check_timeout`.
    pub timeout: Duration,
    /// The other server's `application_name`.
    pub peer: String,
    /// Where the names of the tablespaces are put.
    pub tablespaces: Tablespaces,
    /// Where it is noted how long answers took.
    pub pace: Arc<Pace>,
    /// Where it is noted that new sessions are rejected.
    pub connections: connections::Board,
}

/// What the probe is told.
#[derive(Clone, Debug)]
pub enum Command {
    /// Look now, through a fresh session.
    Kick,
    /// The other server's `application_name` has become known, or changed.
    PeerName(String),
    /// Connect as this user from now on. The old session serves until a new one is open.
    Target(Target),
    /// Look now, and compare the instance's WAL with this point.
    Compare(WalPoint),
}

/// Where readings go, each with the time at which the look began.
pub type Report = Arc<dyn Fn(Event, Instant) + Send + Sync>;

/// The names of the tablespaces, by OID, as the last session told them.
pub type Tablespaces = Arc<Mutex<BTreeMap<String, String>>>;

/// Starts the probe. `report` gets [`Event::Instance`] at least once every interval and time limit, and [`Event::Died`]
/// as soon as a postmaster that was seen has ended; it must not block. The probe ends when the channel closes.
///
/// # Errors
///
/// No thread could be started.
pub fn spawn(settings: Settings, report: Report) -> std::io::Result<Sender<Command>> {
    let (commands, inbox) = unbounded();
    let probe = Probe::new(settings, report);
    std::thread::Builder::new().name("db probe".into()).spawn(move || probe.run(&inbox))?;
    Ok(commands)
}

/// When to look again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// After the interval.
    Regular,
    /// Soon: only files are read for it.
    Eager,
    /// Soon, and then ever later up to the interval: each look may be a line in the server's log.
    Backoff,
}

struct Probe {
    settings: Settings,
    report: Report,
    session: Option<Session>,
    /// When the next fresh session is due; in the past where the last one got no answer.
    fresh_due: Instant,
    /// When the settings that weaken commits are looked at again.
    settings_due: Instant,
    postmaster: Option<Process>,
    /// The data directory by its real path, looked up once: a disk that hangs must not hide a death.
    home: PathBuf,
    deaths: (Sender<()>, Receiver<()>),
    backoff: Duration,
    /// Why the instance was last not readable: logged when it changes.
    told: String,
    /// Why the last fresh session was refused while the old one continues; empty where it was not.
    refused: String,
    /// The segments of the instance's WAL, once there are any.
    segments: Option<Segments>,
    /// The point of the last reading: it is read again only where the position has changed.
    point: Option<WalPoint>,
    /// How far the WAL receiver of a standby had flushed WAL at the last look.
    streamed: Lsn,
    /// Names the run of the postmaster.
    incarnation: Option<u64>,
    /// What the instance's WAL is to be compared with.
    compare: Vec<WalPoint>,
    /// What went wrong at the last look, where that is told only if it stays so.
    lost: String,
}

impl Probe {
    fn new(settings: Settings, report: Report) -> Probe {
        Probe {
            settings,
            report,
            session: None,
            fresh_due: Instant::now(),
            settings_due: Instant::now(),
            postmaster: None,
            home: PathBuf::new(),
            deaths: bounded(1),
            backoff: EAGER,
            told: String::new(),
            refused: String::new(),
            segments: None,
            point: None,
            streamed: Lsn(0),
            incarnation: None,
            compare: Vec::new(),
            lost: String::new(),
        }
    }

    fn run(mut self, inbox: &Receiver<Command>) {
        self.home = process::home(&self.settings.target.data);
        let mut last = None;
        let mut reported = Instant::now();
        loop {
            let began = Instant::now();
            let (reading, next) = self.look();
            self.answer_comparisons(reading, began);
            if last != Some(reading) || reported.elapsed() >= self.settings.interval {
                if let Some(wal) = self.wal(reading) {
                    (self.report)(Event::Wal(wal), began);
                }
                (self.report)(Event::Instance(reading), began);
                (last, reported) = (Some(reading), Instant::now());
            }
            self.look_at_settings(reading);
            let wait = self.wait(next);
            select! {
                recv(inbox) -> command => match command {
                    Ok(command) => {
                        self.obey(command);
                        last = None;
                    }
                    Err(_) => return,
                },
                recv(self.deaths.1) -> _ => last = None,
                default(wait) => {}
            }
            while let Ok(command) = inbox.try_recv() {
                self.obey(command);
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Kick => {
                self.fresh_due = Instant::now();
                self.backoff = EAGER;
            }
            Command::PeerName(name) => self.settings.peer = name,
            Command::Target(target) => {
                self.settings.target = target;
                self.fresh_due = Instant::now();
            }
            Command::Compare(point) if self.compare.contains(&point) => {}
            Command::Compare(point) => self.compare.push(point),
        }
    }

    fn wait(&mut self, next: Next) -> Duration {
        let interval = self.settings.interval;
        let wait = match next {
            Next::Regular => interval,
            Next::Eager => EAGER,
            Next::Backoff => self.backoff,
        };
        self.backoff = if next == Next::Backoff { self.backoff * 2 } else { EAGER }.min(interval.max(EAGER));
        wait.min(interval)
    }

    // ---------------------------------------------------------------------------------------------------------- look

    fn look(&mut self) -> (Instance, Next) {
        if !self.find_postmaster() {
            self.session = None;
            self.fresh_due = Instant::now();
            // Without its postmaster an instance is no longer one, whatever an orphaned session still answers.
            let left = process::scan(&self.home).map_or(true, |pids| !pids.is_empty());
            return if left {
                self.tell("could not check the instance: its postmaster has ended, but some of its processes are still running");
                (Instance::Silent, Next::Backoff)
            } else {
                (Instance::Down, Next::Regular)
            };
        }
        if matches!(status(&self.settings.target.data).as_deref(), Some("starting" | "stopping" | "standby")) {
            self.session = None;
            self.fresh_due = Instant::now();
            return (Instance::Starting, Next::Eager);
        }
        match self.ask() {
            Ok(reading) => {
                self.tell(&self.refused.clone());
                self.lost.clear();
                (reading, Next::Regular)
            }
            Err(refusal) => {
                if refusal == Refusal::NotRunning && !self.postmaster.as_ref().is_some_and(Process::alive) {
                    // It ended meanwhile.
                    return self.look();
                }
                let why = format!("could not check the instance: {refusal}");
                match refusal {
                    Refusal::Starting => {}
                    // A session, or the way to one, that ends while the instance stops is no news, unless it stays so.
                    Refusal::Other(_) | Refusal::NotRunning if self.lost != why => {
                        self.lost = why;
                        if refusal == Refusal::NotRunning {
                            return (Instance::Starting, Next::Eager);
                        }
                    }
                    _ => self.tell(&why),
                }
                match refusal {
                    Refusal::Starting => (Instance::Starting, Next::Backoff),
                    // The postmaster lives and says that it is ready: its sockets were removed, or nobody may reach them.
                    Refusal::NotRunning | Refusal::Closed(_) | Refusal::Password(_) => {
                        (Instance::Closed, Next::Regular)
                    }
                    Refusal::Silent | Refusal::Other(_) => (Instance::Silent, Next::Regular),
                }
            }
        }
    }

    /// One reading within the time limit, through a fresh session where one is due, else through the old one.
    fn ask(&mut self) -> Result<Instance, Refusal> {
        let now = Instant::now();
        let stopped = self.postmaster.as_ref().is_some_and(Process::is_stopped);
        let fresh = stopped || now >= self.fresh_due || self.session.as_ref().is_none_or(Session::is_closed);
        let answer = self.ask_by(fresh, now + self.settings.timeout);
        // Refusals are quick, and say nothing of how quickly it answers.
        if matches!(answer, Ok(_) | Err(Refusal::Silent)) {
            let pace = &self.settings.pace;
            if fresh { &pace.session } else { &pace.instance }.add(now.elapsed());
        }
        answer
    }

    fn ask_by(&mut self, fresh: bool, end: Instant) -> Result<Instance, Refusal> {
        if fresh {
            match self.open() {
                // The old one still serves where there is no room for another.
                Err(refusal)
                    if self.session.is_some() && (refusal.is_rejection() || refusal == Refusal::NotRunning) =>
                {
                    self.refused =
                        format!("the instance rejects new connections, but the existing one still works: {refusal}");
                }
                Err(refusal) => return Err(refusal),
                Ok(()) => {}
            }
        }
        match self.query(end) {
            Err(Refusal::Silent) => Err(Refusal::Silent),
            // The old session was lost: a fresh one says what is the matter.
            Err(_) if !fresh => {
                self.open()?;
                self.query(end)
            }
            answer => answer,
        }
    }

    /// Reports what makes commits less durable. A failure is left to the next look.
    fn look_at_settings(&mut self, reading: Instance) {
        let answers = matches!(reading, Instance::Primary { .. } | Instance::Standby { .. });
        let Some(session) = self.session.as_mut().filter(|_| answers && Instant::now() >= self.settings_due) else {
            return;
        };
        self.settings_due = Instant::now() + SETTINGS;
        match queries::weakened(session, self.settings.timeout) {
            Ok(found) => (self.report)(Event::Weakened(found), Instant::now()),
            Err(_) => self.session = None,
        }
    }

    fn open(&mut self) -> Result<(), Refusal> {
        let Settings { target, interval, timeout, connections, .. } = &self.settings;
        let opened = Session::open(target, *timeout, "the instance probe");
        let rejected = match &opened {
            Err(Refusal::Closed(why) | Refusal::Password(why)) => {
                Some(ConnectionFailure::new(Purpose::OwnInstance, why.clone()))
            }
            _ => None,
        };
        connections::note(connections, Purpose::OwnInstance, rejected);
        match opened {
            Ok(mut session) => {
                if let Ok(names) = queries::tablespaces(&mut session, *timeout) {
                    *self.settings.tablespaces.lock().unwrap_or_else(PoisonError::into_inner) = names;
                }
                self.session = Some(session);
                self.refused.clear();
                self.fresh_due = Instant::now() + *interval + *timeout;
                Ok(())
            }
            Err(refusal) => {
                // A server that lets nobody in is not asked more often for it; one that is silent is.
                self.fresh_due = Instant::now();
                if refusal.is_rejection() || refusal == Refusal::NotRunning {
                    self.fresh_due += *interval + *timeout;
                }
                Err(refusal)
            }
        }
    }

    fn query(&mut self, end: Instant) -> Result<Instance, Refusal> {
        let Some(session) = &mut self.session else { return Err(Refusal::Silent) };
        let answer = queries::probe(session, &self.settings.peer, end.saturating_duration_since(Instant::now()));
        match &answer {
            Ok(look) => self.streamed = look.streamed,
            Err(_) => {
                self.session = None;
                self.fresh_due = Instant::now();
            }
        }
        answer.map(|look| look.instance)
    }

    /// Logs why the instance cannot be read, when that changes.
    fn tell(&mut self, why: &str) {
        if self.told != why {
            if !why.is_empty() {
                messages::tell(&Tell::Probe(why.to_owned()));
            }
            why.clone_into(&mut self.told);
        }
    }

    // ----------------------------------------------------------------------------------------------------------- WAL

    /// Which WAL the instance has by this reading (PROTOCOL R13); `None` if it has no role.
    fn wal(&mut self, reading: Instance) -> Option<WalReading> {
        // A postmaster that answers has written its file.
        if self.incarnation.is_none()
            && let Some(postmaster) = &self.postmaster
        {
            self.incarnation = Some(wal::incarnation(&self.home, postmaster.pid));
        }
        let (at, incarnation, confirmed) = match reading {
            Instance::Primary { timeline, names: Names::Peer, standby, flushed, .. } => {
                let row = standby.filter(|row| row.streaming && row.sync);
                (row.map(|row| (timeline, row.flushed.min(flushed))), self.incarnation, row.is_some())
            }
            Instance::Primary { timeline, flushed, .. } => (Some((timeline, flushed)), self.incarnation, false),
            // Without a WAL receiver the timeline is that of the last checkpoint, which may be an earlier one. What was replayed
            // and not streamed may be in the file of an earlier timeline; the file of the present one is still empty there.
            Instance::Standby { timeline, received, streaming, .. } => {
                ((streaming && self.streamed == received).then_some((timeline, received)), None, false)
            }
            Instance::Down | Instance::Starting | Instance::Closed | Instance::Silent => return None,
        };
        let point = at.and_then(|(timeline, lsn)| self.point(timeline, lsn));
        Some(WalReading { incarnation, point, confirmed })
    }

    fn point(&mut self, timeline: Timeline, lsn: Lsn) -> Option<WalPoint> {
        if self.point.is_none_or(|known| (known.timeline, known.lsn) != (timeline, lsn)) {
            let read = self.segments().and_then(|segments| segments.map_or(Ok(None), |it| it.point(timeline, lsn)));
            self.point = read.unwrap_or_else(|error| self.wal_failed(&error));
        }
        self.point
    }

    fn segments(&mut self) -> crate::error::Result<Option<&Segments>> {
        if self.segments.is_none() {
            self.segments = Segments::of(&self.home)?;
        }
        Ok(self.segments.as_ref())
    }

    fn wal_failed<T>(&mut self, error: &Error) -> Option<T> {
        self.tell(&format!("could not read the WAL of the instance: {error}"));
        None
    }

    /// Answers what the decision thread has asked for. What it asked before this look is compared with what the look found.
    fn answer_comparisons(&mut self, reading: Instance, began: Instant) {
        let (timeline, reached) = match reading {
            Instance::Primary { timeline, flushed, .. } => (Some(timeline), flushed),
            Instance::Standby { received, replayed, .. } => (None, received.max(replayed)),
            Instance::Down | Instance::Starting | Instance::Closed | Instance::Silent => return,
        };
        for point in std::mem::take(&mut self.compare) {
            // What a primary has not flushed is not its own, whatever lies in a segment made in advance.
            let beyond = timeline.is_some_and(|timeline| point.timeline > timeline || point.lsn > reached);
            let found = match self.segments() {
                _ if beyond => Ok(Contains::No),
                Ok(None) => Ok(Contains::Unknown),
                Ok(Some(segments)) => segments.contains(&point, reached),
                Err(error) => Err(error),
            };
            match found {
                Ok(found) => (self.report)(Event::WalCompared(point, found), began),
                Err(error) => self.wal_failed::<()>(&error).unwrap_or_default(),
            }
        }
    }

    // ---------------------------------------------------------------------------------------------------- postmaster

    /// Whether a postmaster lives. One that is new is watched from now on.
    fn find_postmaster(&mut self) -> bool {
        if self.postmaster.as_ref().is_some_and(Process::alive) {
            return true;
        }
        self.postmaster = process::postmaster(&self.home).unwrap_or_default().filter(Process::alive);
        let Some(postmaster) = &self.postmaster else { return false };
        self.incarnation = None;
        (self.segments, self.point) = (None, None);
        self.session = None;
        self.fresh_due = Instant::now();
        if let Err(error) = watch(postmaster, self.report.clone(), self.deaths.0.clone()) {
            let pid = postmaster.pid;
            messages::tell(&Tell::Probe(format!("could not watch process {pid} for its end: {error}")));
        }
        true
    }
}

/// Waits for the end of this postmaster on a thread of its own, which ends with it.
fn watch(postmaster: &Process, report: Report, deaths: Sender<()>) -> std::io::Result<()> {
    let pidfd = postmaster.as_fd().try_clone_to_owned()?;
    let end = postmaster.end();
    std::thread::Builder::new().name("db death".into()).spawn(move || {
        // Interrupted by a signal: wait on.
        while !poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).is_ok_and(|count| count > 0) {}
        report(Event::Died { signal: end.signal() }, Instant::now());
        let _ = deaths.try_send(());
    })?;
    Ok(())
}

/// The state that the postmaster notes in line 8 of its file: `starting`, `stopping`, `ready`, or `standby` where a
/// standby takes no sessions. `pg_ctl` goes by it as well.
fn status(data: &Path) -> Option<String> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    Some(text.lines().nth(7).map_or("starting", str::trim).to_owned())
}
