//! Who is logged in, and how often a login may fail. In memory alone; bounded.

use super::users::{Role, User};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a session lasts.
pub const LIFE: Duration = Duration::from_secs(12 * 3600);
/// How long it lasts without a request.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// Sessions at a time, and of one user.
const MAX_SESSIONS: usize = 64;
const MAX_OF_USER: usize = 8;

/// One session.
#[derive(Clone)]
pub struct Session {
    /// The user as the file had it at the login: with another line, the session ends.
    pub user: User,
    /// What a request that changes something must bring.
    pub csrf: String,
    /// When it ends at the latest, ms since the epoch.
    pub expires_ms: u64,
    began: Instant,
    used: Instant,
}

impl Session {
    /// Whether its user may act.
    pub fn is_operator(&self) -> bool {
        self.user.role == Role::Operator
    }
}

/// All sessions, by the hash of their token, so that how long a look-up takes says nothing about a token.
#[derive(Default)]
pub struct Sessions(HashMap<[u8; 32], Session>);

fn key(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl Sessions {
    /// Adds one. The oldest ends where there are too many.
    pub fn add(&mut self, token: &str, csrf: String, user: User, expires_ms: u64, now: Instant) {
        self.0.retain(|_, session| session.is_alive(now));
        let oldest = |sessions: &HashMap<[u8; 32], Session>, name: Option<&str>| {
            let of = sessions.iter().filter(|(_, session)| name.is_none_or(|name| session.user.name == name));
            let of: Vec<_> = of.map(|(key, session)| (session.used, *key)).collect();
            (of.len(), of.into_iter().min().map(|(_, key)| key))
        };
        for (name, most) in [(Some(user.name.as_str()), MAX_OF_USER), (None, MAX_SESSIONS)] {
            if let (count, Some(key)) = oldest(&self.0, name)
                && count >= most
            {
                self.0.remove(&key);
            }
        }
        self.0.insert(key(token), Session { user, csrf, expires_ms, began: now, used: now });
    }

    /// The session of a token, used now. `users` are those of the file.
    pub fn find(&mut self, token: &str, users: &[User], now: Instant) -> Option<Session> {
        let key = key(token);
        let session = self.0.get_mut(&key)?;
        if !session.is_alive(now) || !users.contains(&session.user) {
            self.0.remove(&key);
            return None;
        }
        session.used = now;
        Some(session.clone())
    }

    /// Ends it.
    pub fn remove(&mut self, token: &str) {
        self.0.remove(&key(token));
    }
}

impl Session {
    fn is_alive(&self, now: Instant) -> bool {
        now.duration_since(self.began) < LIFE && now.duration_since(self.used) < IDLE
    }
}

/// Logins that may fail at once, of one address or one name; one more every [`REFILL`].
const BURST: f64 = 10.0;
const REFILL: Duration = Duration::from_secs(6);
/// Addresses and names that are remembered.
const MAX_REMEMBERED: usize = 1024;

/// How many logins have failed.
#[derive(Default)]
pub struct Limits {
    /// By address or name: how many may still fail, and when that was.
    left: HashMap<String, (f64, Instant)>,
}

/// An address as it counts: of IPv6 the network, since a host has all of it.
fn address(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{:x?}", &address.segments()[..4]),
    }
}

fn keys(from: IpAddr, name: &str) -> [String; 2] {
    [format!("a {}", address(from)), format!("n {}", name.chars().take(64).collect::<String>())]
}

impl Limits {
    fn left(&self, key: &str, now: Instant) -> f64 {
        self.left.get(key).map_or(BURST, |(left, at)| {
            (left + now.duration_since(*at).as_secs_f64() / REFILL.as_secs_f64()).min(BURST)
        })
    }

    /// For how many seconds this address or name may not try again; `None` if it may.
    pub fn blocked(&self, from: IpAddr, name: &str, now: Instant) -> Option<u64> {
        let left = keys(from, name).iter().map(|key| self.left(key, now)).fold(BURST, f64::min);
        (left < 1.0).then(|| ((1.0 - left) * REFILL.as_secs_f64()).ceil() as u64)
    }

    /// One that was counted as failed has not.
    pub fn succeeded(&mut self, from: IpAddr, name: &str) {
        for key in keys(from, name) {
            if let Some((left, _)) = self.left.get_mut(&key) {
                *left = (*left + 1.0).min(BURST);
            }
        }
    }

    /// One has failed.
    pub fn failed(&mut self, from: IpAddr, name: &str, now: Instant) {
        for key in keys(from, name) {
            let left = self.left(&key, now) - 1.0;
            self.left.insert(key, (left, now));
        }
        if self.left.len() > MAX_REMEMBERED {
            let full: Vec<String> = self.left.keys().filter(|key| self.left(key, now) >= BURST).cloned().collect();
            for key in full {
                self.left.remove(&key);
            }
        }
        while self.left.len() > MAX_REMEMBERED {
            let oldest = self.left.iter().min_by_key(|(_, (_, at))| *at).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            self.left.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_an_address_and_of_a_name_are_counted() {
        let (mut limits, begin) = (Limits::default(), Instant::now());
        let [one, two]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|a| a.parse().unwrap());
        for n in 0..10 {
            assert_eq!(limits.blocked(one, "dba", begin), None, "{n}");
            limits.failed(one, "dba", begin);
        }
        assert_eq!(limits.blocked(one, "dba", begin), Some(6));
        assert_eq!(limits.blocked(one, "eve", begin), Some(6), "the address");
        assert_eq!(limits.blocked(two, "dba", begin), Some(6), "the name");
        assert_eq!(limits.blocked(two, "eve", begin), None);
        assert_eq!(limits.blocked(one, "dba", begin + REFILL), None);
        for n in 0..5000 {
            limits.failed(two, &format!("user{n}"), begin + REFILL * n);
        }
        assert!(limits.left.len() <= MAX_REMEMBERED);
    }
}
