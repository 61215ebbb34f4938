//! Names of hosts and their addresses, resolved by a thread of its own: a name service that does not answer must not hold
//! up the loop.

use super::{News, Notifier};
use crate::daemon::{now, spawn};
use crate::error::Result;
use crate::fsm::types::Time;
use crossbeam_channel::Sender;
use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs};

/// A name is resolved again after this long, ms.
const FRESH_MS: u64 = 60_000;

/// What is known of the names that were asked for.
pub struct Hosts {
    names: HashMap<String, Name>,
    questions: Sender<String>,
}

#[derive(Default)]
struct Name {
    addresses: Vec<IpAddr>,
    asked: Option<Time>,
}

impl Hosts {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(notifier: Notifier) -> Result<Hosts> {
        let (questions, asked) = crossbeam_channel::unbounded::<String>();
        spawn("names", move || {
            for host in asked {
                let found = (host.as_str(), 0).to_socket_addrs();
                let addresses = found.map(|found| found.map(|address| address.ip().to_canonical()).collect());
                notifier.tell(News::Resolved(host, addresses.unwrap_or_default()));
            }
        })?;
        Ok(Hosts { names: HashMap::new(), questions })
    }

    /// The addresses of a host, as far as they are known; asks for them where they are not, or were asked for long ago.
    pub fn addresses(&mut self, host: &str) -> Vec<IpAddr> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return vec![address.to_canonical()];
        }
        let name = self.names.entry(host.to_owned()).or_default();
        if name.asked.is_none_or(|asked| now().since(asked) >= FRESH_MS) {
            name.asked = Some(now());
            let _ = self.questions.send(host.to_owned());
        }
        name.addresses.clone()
    }

    /// Takes an answer in. One that failed leaves what was known. True where something has changed.
    pub fn resolved(&mut self, host: &str, addresses: Vec<IpAddr>) -> bool {
        match self.names.get_mut(host) {
            Some(name) if !addresses.is_empty() && name.addresses != addresses => {
                name.addresses = addresses;
                true
            }
            _ => false,
        }
    }
}
