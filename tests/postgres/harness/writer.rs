//! A client that knows one address only, behind which the primary is: one that follows it, a pooler, a load balancer. It writes
//! a row at a time, connects again where that fails, and remembers what was acknowledged.

use super::pair::Pair;
use super::{s, wait_for};
use postgres::{Config, NoTls};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A running client.
pub struct Writer {
    acks: Arc<Mutex<Vec<(i64, Instant)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    begun: Instant,
}

impl Writer {
    /// Starts to write, from where the clients of the pair are.
    pub fn start(pair: &Pair, address: &str, port: u16) -> Writer {
        let (acks, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (told, ends) = (Arc::clone(&acks), Arc::clone(&stop));
        let mut config = Config::new();
        config.host(address).port(port).user("postgres").dbname("postgres");
        config.connect_timeout(s(1)).tcp_user_timeout(s(2));
        let mut id = pair.first_id();
        let begun = Instant::now();
        // on the thread of the networks' hub, like every client
        let thread = std::thread::spawn(move || {
            let mut session = None;
            while !ends.load(SeqCst) {
                id += 1;
                let written = match session.as_mut() {
                    None => config.connect(NoTls).map(|open| session = Some(open)),
                    Some(open) => {
                        let open: &mut postgres::Client = open;
                        let query = format!("INSERT INTO written (id) VALUES ({id})");
                        open.simple_query(&query).map(|_| told.lock().expect("not poisoned").push((id, Instant::now())))
                    }
                };
                if written.is_err() {
                    session = None;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Writer { acks, stop, thread: Some(thread), begun }
    }

    /// Waits until a row is acknowledged after `since`.
    #[track_caller]
    pub fn wait_ack(&self, since: Instant) {
        let acked = || self.acks.lock().expect("not poisoned").iter().any(|(_, at)| *at >= since);
        wait_for("a row that is acknowledged", s(45), || acked().then_some(()));
    }

    /// Stops, and checks that nothing acknowledged is missing on this server; answers how many rows were acknowledged, and
    /// the longest time without one.
    #[track_caller]
    pub fn check(mut self, pair: &Pair, server: usize) -> (usize, Duration) {
        self.stop.store(true, SeqCst);
        self.thread.take().expect("it runs").join().expect("it did not panic");
        let end = Instant::now();
        let there: HashSet<i64> = pair.sql(server, "SELECT id FROM written").lines().flat_map(str::parse).collect();
        let acks = self.acks.lock().expect("not poisoned");
        let lost: Vec<_> = acks.iter().filter(|(id, _)| !there.contains(id)).collect();
        assert!(lost.is_empty(), "{} of {} acknowledged rows are lost: {lost:?}", lost.len(), acks.len());
        let times: Vec<Instant> = [self.begun].into_iter().chain(acks.iter().map(|(_, at)| *at)).chain([end]).collect();
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        (acks.len(), longest)
    }
}
