//! The addresses of host names. Each lookup has its own thread, so a name service that fails or hangs delays no caller:
//! callers get the last known addresses at once.
//!
//! Used by `links.rs`, `listening.rs`, `peer_probe.rs` and the arbiter. Reports a name that stops resolving and a name that
//! resolves again. Decides nothing.

use super::{lock, now, spawn};
use crate::error::Result;
use crate::fsm::types::Time;
use crate::messages::{self, Tell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A name that resolves is looked up again after this time, ms.
const REFRESH_MS: u64 = 30_000;

/// The same while a caller asks for its addresses, ms.
const REFRESH_IN_USE_MS: u64 = 10_000;

/// The time between a failed lookup and the next one, ms.
const RETRY_MS: u64 = 1_000;

/// A lookup that takes longer is reported as a failure, ms. glibc tries a name server for 5 s by default.
const HANG_MS: u64 = 5_000;

/// An address that was confirmed within this time may serve as evidence, ms: see [`Addresses::recent`].
const RECENT_MS: u64 = 60_000;

/// Lookups at a time: of names in a configuration file, and of names that members report.
const MAX_LOOKUPS: [usize; 2] = [64, 16];

/// What is known of a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// Its addresses with the port asked for; empty where none has been found yet.
    pub list: Vec<SocketAddr>,
    /// The addresses belong to the host: a lookup found them, or a connection to them was authenticated, a short time ago.
    /// A refusal by an older address proves nothing about the host.
    pub recent: bool,
    /// Why the name does not resolve at present.
    pub failure: Option<String>,
}

/// The names and their lookups. Clones share them.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// A lookup has ended or is late.
    changed: Condvar,
    /// A lookup may be due.
    due: Condvar,
    on_change: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    names: HashMap<String, Name>,
    /// When a connection to an address was last authenticated.
    confirmed: HashMap<IpAddr, Time>,
    /// Lookups that have not ended, by [`MAX_LOOKUPS`].
    lookups: [usize; 2],
    stopped: bool,
}

#[derive(Default)]
struct Name {
    /// It is in a configuration file.
    configured: bool,
    /// With port 0.
    addresses: Vec<SocketAddr>,
    resolved_at: Option<Time>,
    /// When the lookup began that has not ended.
    asked_at: Option<Time>,
    due_at: Time,
    failure: Option<String>,
}

impl Name {
    /// Notes a failure. Returns the message if it is the first one.
    fn fail(&mut self, host: &str, why: String) -> Option<Tell> {
        let first = self.failure.replace(why.clone()).is_none();
        let addresses = text(&self.addresses);
        first.then(|| Tell::NameFailed { host: host.to_owned(), why, addresses })
    }
}

/// Addresses without their ports.
fn text(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ")
}

fn literal(host: &str) -> Option<IpAddr> {
    host.parse().ok()
}

impl Resolver {
    /// Starts the thread that starts the lookups. `hosts` are the names of the configuration. `on_change` is called when
    /// the addresses of a name change, and must not block.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        hosts: impl IntoIterator<Item = String>,
        on_change: impl Fn() + Send + Sync + 'static,
    ) -> Result<Resolver> {
        let mut state = State::default();
        for host in hosts.into_iter().filter(|host| literal(host).is_none()) {
            state.names.entry(host).or_default().configured = true;
        }
        let resolver = Resolver::new(state, Box::new(on_change));
        let own = resolver.clone();
        spawn("names", move || own.run())?;
        Ok(resolver)
    }

    fn new(state: State, on_change: Box<dyn Fn() + Send + Sync>) -> Resolver {
        let state = Mutex::new(state);
        Resolver { shared: Arc::new(Shared { state, changed: Condvar::new(), due: Condvar::new(), on_change }) }
    }

    /// Ends the thread and every wait.
    pub fn stop(&self) {
        lock(&self.shared.state).stopped = true;
        self.shared.changed.notify_all();
        self.shared.due.notify_all();
    }

    /// Whether [`Resolver::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        lock(&self.shared.state).stopped
    }

    /// The last known addresses of a host; never waits. A name that is not known yet is looked up from now on.
    pub fn addresses(&self, host: &str, port: u16) -> Addresses {
        self.read(&mut lock(&self.shared.state), host, port)
    }

    /// The same. Waits until an address is known or a lookup has failed, at most for `limit`.
    pub fn wait(&self, host: &str, port: u16, limit: Duration) -> Addresses {
        let end = Instant::now() + limit;
        let mut state = lock(&self.shared.state);
        loop {
            let found = self.read(&mut state, host, port);
            let left = end.saturating_duration_since(Instant::now());
            if !found.list.is_empty() || found.failure.is_some() || left.is_zero() || state.stopped {
                return found;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether an address is among the known ones of a host. Causes no lookup.
    pub fn is_of(&self, host: &str, address: IpAddr) -> bool {
        match literal(host) {
            Some(own) => own.to_canonical() == address.to_canonical(),
            None => self.known(host).contains(&address.to_canonical()),
        }
    }

    /// The known addresses of a host. Causes no lookup.
    pub fn known(&self, host: &str) -> Vec<IpAddr> {
        match (literal(host), lock(&self.shared.state).names.get(host)) {
            (Some(own), _) => vec![own.to_canonical()],
            (None, Some(name)) => name.addresses.iter().map(|address| address.ip().to_canonical()).collect(),
            (None, None) => Vec::new(),
        }
    }

    /// At that time a connection to this address was authenticated: the address belonged to the member that was dialled.
    pub fn confirm(&self, address: IpAddr, at: Time) {
        let mut state = lock(&self.shared.state);
        state.confirmed.retain(|_, confirmed| now().since(*confirmed) < RECENT_MS);
        state.confirmed.insert(address.to_canonical(), at);
    }

    /// Forgets a name that a member reported and no longer reports.
    pub fn forget(&self, host: &str) {
        let mut state = lock(&self.shared.state);
        if state.names.get(host).is_some_and(|name| !name.configured) {
            state.names.remove(host);
        }
    }

    /// How many names it holds.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        lock(&self.shared.state).names.len()
    }

    fn read(&self, state: &mut State, host: &str, port: u16) -> Addresses {
        if let Some(address) = literal(host) {
            return Addresses { list: vec![SocketAddr::new(address, port)], recent: true, failure: None };
        }
        let at = now();
        let confirmed = |address: &SocketAddr, confirmed: &HashMap<IpAddr, Time>| {
            confirmed.get(&address.ip().to_canonical()).is_some_and(|confirmed| at.since(*confirmed) < RECENT_MS)
        };
        let name = state.names.entry(host.to_owned()).or_default();
        if let Some(resolved_at) = name.resolved_at.filter(|_| name.failure.is_none()) {
            name.due_at = name.due_at.min(resolved_at.plus(REFRESH_IN_USE_MS));
        }
        if name.due_at <= at && name.asked_at.is_none() {
            self.shared.due.notify_all();
        }
        let list = name.addresses.iter().map(|address| with_port(*address, port)).collect();
        let resolved = name.resolved_at.is_some_and(|resolved| at.since(resolved) < RECENT_MS);
        let recent = resolved || name.addresses.iter().all(|address| confirmed(address, &state.confirmed));
        Addresses { list, recent, failure: name.failure.clone() }
    }

    fn run(&self) {
        loop {
            let mut state = lock(&self.shared.state);
            if state.stopped {
                return;
            }
            let mut reports = Vec::new();
            for (host, configured) in take_due(&mut state, now(), &mut reports) {
                let (own, name) = (self.clone(), host.clone());
                if spawn("name", move || own.look_up(&name, configured)).is_err() {
                    state.lookups[usize::from(!configured)] -= 1;
                    if let Some(name) = state.names.get_mut(&host) {
                        (name.asked_at, name.due_at) = (None, now().plus(RETRY_MS));
                    }
                }
            }
            if reports.is_empty() {
                let wait = Duration::from_millis(RETRY_MS);
                drop(self.shared.due.wait_timeout(state, wait));
            } else {
                drop(state);
                self.shared.changed.notify_all();
                reports.iter().for_each(messages::tell);
            }
        }
    }

    fn look_up(&self, host: &str, configured: bool) {
        let found = (host, 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        let mut state = lock(&self.shared.state);
        state.lookups[usize::from(!configured)] -= 1;
        let Some(name) = state.names.get_mut(host) else { return };
        let (at, mut changed) = (now(), false);
        name.asked_at = None;
        let report = match found {
            Ok(found) if !found.is_empty() => {
                changed = found.len() != name.addresses.len() || found.iter().any(|new| !name.addresses.contains(new));
                (name.resolved_at, name.due_at) = (Some(at), at.plus(REFRESH_MS));
                name.addresses = found;
                let addresses = text(&name.addresses);
                name.failure.take().map(|_| Tell::NameResolves { host: host.to_owned(), addresses })
            }
            other => {
                name.due_at = at.plus(RETRY_MS);
                name.fail(host, other.err().map_or("it has no address".to_owned(), |cause| cause.to_string()))
            }
        };
        drop(state);
        self.shared.changed.notify_all();
        if changed {
            (self.shared.on_change)();
        }
        report.iter().for_each(messages::tell);
    }
}

/// The names whose lookup begins now. Reports the lookups that hang.
fn take_due(state: &mut State, at: Time, reports: &mut Vec<Tell>) -> Vec<(String, bool)> {
    let mut due = Vec::new();
    for (host, name) in &mut state.names {
        match name.asked_at {
            Some(asked_at) if name.failure.is_none() && at.since(asked_at) >= HANG_MS => {
                reports.extend(name.fail(host, format!("the name service has not responded for {} s", HANG_MS / 1000)));
            }
            Some(_) => (),
            None => {
                let kind = usize::from(!name.configured);
                if name.due_at <= at && state.lookups[kind] < MAX_LOOKUPS[kind] {
                    state.lookups[kind] += 1;
                    name.asked_at = Some(at);
                    due.push((host.clone(), name.configured));
                }
            }
        }
    }
    due
}

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn an_address_needs_no_lookup() {
        let resolver = Resolver::start(["192.0.2.7".to_owned()], || ()).unwrap();
        let found = resolver.addresses("192.0.2.7", 5);
        assert_eq!(found.list, ["192.0.2.7:5".parse().unwrap()]);
        assert!(found.recent && found.failure.is_none() && resolver.count() == 0);
        assert!(resolver.is_of("192.0.2.7", "::ffff:192.0.2.7".parse().unwrap()));
        resolver.stop();
    }

    #[test]
    fn names_resolve_or_say_why_not() {
        let resolver = Resolver::start(["localhost".to_owned(), "no-such-host.invalid".to_owned()], || ()).unwrap();
        let found = resolver.wait("localhost", 7, LIMIT);
        assert!(found.list.iter().all(|address| address.ip().is_loopback() && address.port() == 7), "{found:?}");
        assert!(!found.list.is_empty() && found.recent);
        let found = resolver.wait("no-such-host.invalid", 7, LIMIT);
        assert!(found.list.is_empty() && found.failure.is_some(), "{found:?}");
        resolver.stop();
    }

    /// What is known stays known while the name service fails, and is no evidence once it is old.
    #[test]
    fn a_failure_keeps_the_last_addresses() {
        let state = State::default();
        let resolver = Resolver::new(state, Box::new(|| ()));
        let address: SocketAddr = "192.0.2.7:0".parse().unwrap();
        let long_ago = Time(now().0.saturating_sub(RECENT_MS));
        let name = Name { addresses: vec![address], resolved_at: Some(long_ago), ..Name::default() };
        lock(&resolver.shared.state).names.insert("no-such-host.invalid".to_owned(), name);
        lock(&resolver.shared.state).lookups[1] = 1;
        resolver.look_up("no-such-host.invalid", false);
        let found = resolver.addresses("no-such-host.invalid", 5);
        assert_eq!((found.list.as_slice(), found.recent), (&["192.0.2.7:5".parse().unwrap()][..], false));
        assert!(found.failure.is_some());
        resolver.confirm(address.ip(), now());
        assert!(resolver.addresses("no-such-host.invalid", 5).recent, "an authenticated connection is as good");
    }

    #[test]
    fn a_failure_and_a_hang_are_reported_once() {
        let mut state = State::default();
        state.names.insert("h".to_owned(), Name { asked_at: Some(Time(1)), ..Name::default() });
        let mut reports = Vec::new();
        for at in [HANG_MS, HANG_MS + 1, HANG_MS + 2] {
            assert!(take_due(&mut state, Time(at), &mut reports).is_empty());
        }
        assert_eq!(reports.len(), 1);
        let name = state.names.get_mut("h").unwrap();
        assert!(name.fail("h", "another reason".to_owned()).is_none());
    }

    #[test]
    fn lookups_at_a_time_are_bounded() {
        let mut state = State::default();
        for n in 0..1000 {
            state.names.insert(format!("configured{n}"), Name { configured: true, ..Name::default() });
            state.names.insert(format!("reported{n}"), Name::default());
        }
        let due = take_due(&mut state, Time(1), &mut Vec::new());
        assert_eq!(due.len(), MAX_LOOKUPS.iter().sum::<usize>());
        assert!(take_due(&mut state, Time(2), &mut Vec::new()).is_empty());
    }
}
