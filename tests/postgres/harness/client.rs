//! The writing clients: one row every 10 ms, remembering every row that was acknowledged, by whom and when (on one
//! monotonic clock for all).
//!
//! A row counts as acknowledged only where `INSERT` returned without a warning: a cancelled wait for the standby also
//! returns success, with one.
//!
//! *Two servers acknowledge in the same period* where, of all acknowledged rows in the order in which they were **begun**,
//! one of the old server's comes after one of the new one's: [`Client::turns`] then shows a turn more than there were
//! switches. A row begun before, whose acknowledgement arrives late (a link was healed, the standby had the row before it
//! was promoted), is in order if the new primary has it, which [`Client::lost_on`] checks.

use super::net::Space;
use super::pair::Pair;
use postgres::config::TargetSessionAttrs;
use postgres::{Config, NoTls};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

const PACE: Duration = Duration::from_millis(10);
/// From one host to an instance on another, in [`Style::Everywhere`].
const SLOW_PACE: Duration = Duration::from_millis(40);
const LIMIT: Duration = Duration::from_millis(100);
/// The same where hosts are far from each other.
const FAR_LIMIT: Duration = Duration::from_secs(5);

/// Writes a row, and returns the timeline.
const INSERT: &str = "INSERT INTO written (id) VALUES ($1) RETURNING left(pg_walfile_name(pg_current_wal_lsn()), 8)";

/// The place on the arbiter's host.
pub const THIRD: usize = 2;
/// The place between the hosts.
const MIDDLE: usize = 3;

/// How it connects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// `host=a,b target_session_attrs=read-write`, one session, no time limit.
    OneSession,
    /// One session per host in parallel, each given up after 100 ms: for hosts that fall silent.
    PerHost,
    /// The same from the arbiter's host, and one beside each server that writes to that server's instance alone.
    Third,
    /// A client beside each server and one beside the arbiter, each writing to both instances.
    Everywhere,
}

/// One acknowledged row.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    id: i64,
    begun: Instant,
    at: Instant,
    server: usize,
    place: usize,
    /// The timeline on which the server wrote the row.
    timeline: u32,
}

/// From where to which instance.
#[derive(Clone, Copy)]
struct Way {
    place: usize,
    server: usize,
    pace: Duration,
    limit: Duration,
    /// So many stuck sessions are left behind.
    stuck: usize,
}

struct Shared {
    addresses: [(String, u16); 2],
    next: AtomicI64,
    stop: AtomicBool,
    paused: AtomicBool,
    acks: Mutex<Vec<Ack>>,
    last_error: Mutex<String>,
}

/// A running client; it stops when dropped.
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Starts to write, and returns once the first row is acknowledged.
    pub fn start(pair: &Pair, style: Style) -> Client {
        let addresses = [0, 1].map(|n| (pair.servers[n].address.to_string(), pair.servers[n].port));
        let shared = Arc::new(Shared {
            addresses,
            next: AtomicI64::new(pair.first_id()),
            stop: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            acks: Mutex::default(),
            last_error: Mutex::default(),
        });
        for way in ways(pair, style) {
            let shared = Arc::clone(&shared);
            let space = pair.net.hosts.get(way.place).map(Space::pid);
            std::thread::spawn(move || {
                space.into_iter().for_each(Space::enter);
                match style {
                    Style::OneSession => one_session(&shared),
                    _ => per_host(&shared, way),
                }
            });
        }
        let client = Client { shared };
        client.wait_ack(Instant::now(), Duration::from_secs(20));
        client
    }

    /// Waits until a row that was begun after `since` is acknowledged; answers when that was.
    #[track_caller]
    pub fn wait_ack(&self, since: Instant, limit: Duration) -> Instant {
        self.wait_ack_of(&[0, 1], since, limit)
    }

    /// The same of one of these servers.
    #[track_caller]
    pub fn wait_ack_of(&self, servers: &[usize], since: Instant, limit: Duration) -> Instant {
        let begin = Instant::now();
        loop {
            let wanted = |a: &&Ack| a.begun >= since && servers.contains(&a.server);
            let found = self.shared.acks.lock().expect("not poisoned").iter().find(wanted).map(|a| a.at);
            if let Some(at) = found {
                return at;
            }
            if begin.elapsed() > limit {
                let error = self.shared.last_error.lock().expect("not poisoned").clone();
                panic!("no row was acknowledged within {limit:?}; the client's last error: {error}");
            }
            sleep(Duration::from_millis(5));
        }
    }

    fn sorted(&self, key: impl Fn(&Ack) -> Instant) -> Vec<Ack> {
        let mut acks = self.shared.acks.lock().expect("not poisoned").clone();
        acks.sort_by_key(key);
        acks
    }

    /// The longest time without an acknowledgement that ended after `since`, or still lasts.
    pub fn longest_gap(&self, since: Instant) -> Duration {
        self.gap_in(since, |_| true)
    }

    /// The same as seen from one place.
    pub fn longest_gap_at(&self, place: usize, since: Instant) -> Duration {
        self.gap_in(since, |a| a.place == place)
    }

    fn gap_in(&self, since: Instant, wanted: impl Fn(&Ack) -> bool) -> Duration {
        let mut last = None;
        let mut longest = Duration::ZERO;
        for at in self.sorted(|a| a.at).iter().filter(|a| wanted(a)).map(|a| a.at).chain([Instant::now()]) {
            if let Some(last) = last.replace(at)
                && at > since
            {
                longest = longest.max(at - last);
            }
        }
        longest
    }

    /// The longest that a commit beside its server has waited, of those that were acknowledged after `since`.
    pub fn longest_wait(&self, since: Instant) -> Duration {
        let beside = |a: &&Ack| a.place == a.server && a.at > since;
        self.sorted(|a| a.at).iter().filter(beside).map(|a| a.at - a.begun).max().unwrap_or_default()
    }

    /// The servers that acknowledged, in turn: `[0, 1]` is one switch. Two that acknowledge in the same period show as
    /// many turns.
    pub fn turns(&self) -> Vec<usize> {
        let mut turns: Vec<usize> = self.sorted(|a| a.begun).iter().map(|a| a.server).collect();
        turns.dedup();
        turns
    }

    /// How many rows were acknowledged.
    pub fn count(&self) -> usize {
        self.shared.acks.lock().expect("not poisoned").len()
    }

    /// The error of the last commit or connection that failed; empty for none.
    pub fn last_error(&self) -> String {
        self.shared.last_error.lock().expect("not poisoned").clone()
    }

    /// Whether a row that was begun after `since` is acknowledged.
    pub fn acknowledged_since(&self, since: Instant) -> bool {
        let acks = self.shared.acks.lock().expect("not poisoned");
        acks.iter().rev().take_while(|a| a.at >= since).any(|a| a.begun >= since)
    }

    /// Begins no more rows until [`Client::resume`]; rows that were begun before may still be acknowledged.
    pub fn pause(&self) {
        self.shared.paused.store(true, SeqCst);
    }

    /// Undoes [`Client::pause`].
    pub fn resume(&self) {
        self.shared.paused.store(false, SeqCst);
    }

    /// Checks that no server acknowledged a row that was begun after one that was acknowledged on a later timeline, and
    /// that the rows of one timeline have one server. Each promotion makes a timeline, so that a violation means two
    /// primaries. Unlike [`Client::turns`] this needs no knowledge of the switches. Returns the last timeline.
    #[track_caller]
    pub fn check_timelines(&self) -> u32 {
        let mut last: Option<Ack> = None;
        for ack in self.sorted(|a| a.begun) {
            if let Some(before) = last {
                let same = ack.timeline == before.timeline && ack.server == before.server;
                assert!(same || ack.timeline > before.timeline, "two primaries: {ack:?} was begun after {before:?}");
            }
            last = Some(ack);
        }
        last.map_or(0, |ack| ack.timeline)
    }

    /// Stops, and answers the acknowledged rows that this server does not have: their ids, which server acknowledged
    /// them, and how long before now.
    pub fn lost_on(&self, pair: &Pair, server: usize) -> Vec<(i64, usize, Duration)> {
        self.shared.stop.store(true, SeqCst);
        self.missing_on(pair, server)
    }

    /// The same without stopping.
    pub fn missing_on(&self, pair: &Pair, server: usize) -> Vec<(i64, usize, Duration)> {
        // before the rows are read, since some may still be acknowledged meanwhile
        let acks = self.sorted(|a| a.at);
        let there: HashSet<i64> =
            pair.sql(server, "SELECT id FROM written").lines().map(|l| l.parse().expect("a number")).collect();
        acks.iter().filter(|a| !there.contains(&a.id)).map(|a| (a.id, a.server, a.at.elapsed())).collect()
    }

    /// Stops, and checks that nothing acknowledged is missing on that server, and that servers acknowledged in these
    /// turns.
    #[track_caller]
    pub fn check(self, pair: &Pair, server: usize, turns: &[usize]) {
        let lost = self.lost_on(pair, server);
        let count = self.count();
        assert!(lost.is_empty(), "{} of {count} acknowledged rows are lost: {lost:?}", lost.len());
        assert_eq!(self.turns(), turns, "the servers that acknowledged, in turn");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
    }
}

/// A session, the server that it is on, and a flag that a warning sets.
struct Session {
    client: postgres::Client,
    server: usize,
    warned: Arc<AtomicBool>,
}

/// Which clients a style has.
fn ways(pair: &Pair, style: Style) -> Vec<Way> {
    let limit = if pair.net.far.is_some() { FAR_LIMIT } else { LIMIT };
    let way = |place, server, pace, stuck| Way { place, server, pace, limit, stuck };
    match style {
        Style::OneSession => vec![way(MIDDLE, 0, PACE, 0)],
        Style::PerHost => [0, 1].map(|server| way(MIDDLE, server, PACE, 40)).into(),
        Style::Third => {
            vec![way(THIRD, 0, PACE, 12), way(THIRD, 1, PACE, 12), way(0, 0, PACE, 6), way(1, 1, PACE, 6)]
        }
        Style::Everywhere => [0, 1, THIRD]
            .into_iter()
            .flat_map(|place| [0, 1].map(|server| (place, server)))
            .map(|(place, server)| match place {
                _ if place == server => way(place, server, PACE, 6),
                _ => way(place, server, SLOW_PACE, 6),
            })
            .collect(),
    }
}

impl Shared {
    fn connect(&self, servers: &[usize], config: &mut Config) -> Result<Session, postgres::Error> {
        let warned = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&warned);
        for &n in servers {
            config.host(&self.addresses[n].0).port(self.addresses[n].1);
        }
        config.user("postgres").dbname("postgres").application_name("writer");
        config.notice_callback(move |_| flag.store(true, SeqCst));
        let mut client = config.connect(NoTls)?;
        let server = match servers {
            [only] => *only,
            _ => {
                let row = client.query_one("SELECT host(inet_server_addr()), inet_server_port()", &[])?;
                let (host, port): (String, i32) = (row.get(0), row.get(1));
                self.addresses.iter().position(|(h, p)| *h == host && i32::from(*p) == port).expect("one of both")
            }
        };
        Ok(Session { client, server, warned })
    }

    fn write(&self, session: &mut Session, place: usize) -> Result<(), postgres::Error> {
        let id = self.next.fetch_add(1, SeqCst);
        session.warned.store(false, SeqCst);
        let begun = Instant::now();
        let timeline: String = session.client.query_one(INSERT, &[&id])?.get(0);
        let at = Instant::now();
        if !session.warned.load(SeqCst) {
            let timeline = u32::from_str_radix(&timeline, 16).expect("a timeline");
            self.acks.lock().expect("not poisoned").push(Ack {
                id,
                begun,
                at,
                server: session.server,
                place,
                timeline,
            });
        }
        Ok(())
    }

    fn note(&self, error: &postgres::Error) {
        let text = error.as_db_error().map_or_else(|| format!("{error:?}"), ToString::to_string);
        *self.last_error.lock().expect("not poisoned") = text;
    }
}

fn one_session(shared: &Shared) {
    let mut session: Option<Session> = None;
    while !shared.stop.load(SeqCst) {
        let due = Instant::now() + PACE;
        let result = match session.as_mut() {
            Some(_) if shared.paused.load(SeqCst) => Ok(()),
            Some(open) => shared.write(open, MIDDLE),
            None => {
                let mut config = Config::new();
                config.target_session_attrs(TargetSessionAttrs::ReadWrite).connect_timeout(Duration::from_secs(1));
                shared.connect(&[0, 1], &mut config).and_then(|open| shared.write(session.insert(open), MIDDLE))
            }
        };
        if let Err(error) = result {
            shared.note(&error);
            session = None;
        }
        sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Keeps one worker at work on the server; one that is stuck is left behind (what it may still get acknowledged counts)
/// and another begins, while not too many are left behind.
fn per_host(shared: &Arc<Shared>, way: Way) {
    let mut workers: Vec<Arc<Worker>> = Vec::new();
    while !shared.stop.load(SeqCst) {
        workers.retain(|w| Arc::strong_count(w) > 1);
        let stuck = workers.last().is_none_or(|w| w.stuck(way.limit));
        if stuck && workers.len() < way.stuck {
            if let Some(last) = workers.last() {
                last.dismissed.store(true, SeqCst);
            }
            let worker = Arc::new(Worker::default());
            workers.push(Arc::clone(&worker));
            let shared = Arc::clone(shared);
            std::thread::spawn(move || work(&shared, way, &worker));
        }
        sleep(Duration::from_millis(5));
    }
    for worker in workers {
        worker.dismissed.store(true, SeqCst);
    }
}

/// What is known of one worker from outside.
struct Worker {
    base: Instant,
    busy_since_us: AtomicU64,
    dismissed: AtomicBool,
}

impl Default for Worker {
    fn default() -> Worker {
        Worker { base: Instant::now(), busy_since_us: AtomicU64::new(0), dismissed: AtomicBool::new(false) }
    }
}

impl Worker {
    fn stuck(&self, limit: Duration) -> bool {
        let since = self.busy_since_us.load(SeqCst);
        since != 0 && self.base.elapsed() > Duration::from_micros(since) + limit
    }

    /// Counts the time of `what` as busy.
    fn busy<T>(&self, what: impl FnOnce() -> T) -> T {
        self.busy_since_us.store(self.base.elapsed().as_micros() as u64 + 1, SeqCst);
        let result = what();
        self.busy_since_us.store(0, SeqCst);
        result
    }
}

fn work(shared: &Shared, way: Way, me: &Worker) {
    let mut session: Option<Session> = None;
    while !shared.stop.load(SeqCst) && !me.dismissed.load(SeqCst) {
        let due = Instant::now() + way.pace;
        let result = me.busy(|| {
            let open = match session.as_mut() {
                Some(open) => open,
                None => session.insert(shared.connect(&[way.server], Config::new().connect_timeout(way.limit))?),
            };
            let read_only: String = open.client.query_one("SHOW transaction_read_only", &[])?.get(0);
            if read_only == "off" && !shared.paused.load(SeqCst) { shared.write(open, way.place) } else { Ok(()) }
        });
        if let Err(error) = result {
            shared.note(&error);
            session = None;
        }
        sleep(due.saturating_duration_since(Instant::now()));
    }
}
