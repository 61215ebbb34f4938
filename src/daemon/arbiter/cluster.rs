//! One cluster as the arbiter's process sees it: its core, its ledger's name, and what is known of its servers.

use super::control::{ClusterStatus, ServerStatus, ViewStatus};
use super::ledgers::Found;
use super::probe;
use crate::config::arbiter::ClusterConfig;
use crate::config::{PrivateKey, PublicKey};
use crate::daemon::noise::Identity;
use crate::daemon::resolver::Resolver;
use crate::daemon::watcher::random;
use crate::error::{Error, Result};
use crate::fsm::arbiter::{Arbiter, ArbiterSettings};
use crate::fsm::event::Heartbeat;
use crate::fsm::types::{Durable, Server, SystemId, Time};
use crate::messages::Names;

/// The longest pause of the loop that is not taken for one, ms (PROTOCOL R12). After a shorter one the hub has taken in
/// what arrived meanwhile before a core judges anybody's silence.
const PAUSE_MS: u64 = 500;

/// A cluster.
pub struct Cluster {
    /// The name of its directory; empty for the arbiter's own.
    pub name: String,
    /// What its members are called.
    pub names: Names,
    /// Its key.
    pub key: [u8; 32],
    /// The arbiter's private key, of this cluster.
    pub own_key: Option<PrivateKey>,
    /// The keys that its servers must prove, in the order of `network.conf`; none or both.
    pub listed: Vec<PublicKey>,
    /// Its servers, in the order of `network.conf`.
    pub servers: [Seen; 2],
    /// The core, or why the cluster is not served.
    pub core: Result<Box<Arbiter>>,
    /// Which ledger is its own.
    pub system: Option<SystemId>,
    /// Counts the cores, so that an answer to one before is not taken for the present one's.
    pub generation: u64,
    /// A system identifier that was told and is not that one; logged once.
    pub other_system: Option<SystemId>,
    /// Why the ledger cannot be written, as last logged.
    pub unwritten: String,
    fencing: bool,
}

/// What is known of a server.
pub struct Seen {
    /// Hosts and ports of `network.conf`: the last of them is the one nearer to the arbiter.
    pub addresses: Vec<(String, u16)>,
    /// Its connection: the hub's token.
    pub connection: Option<u64>,
    /// When something of it last arrived.
    pub heard: Option<Time>,
    /// Its detection time as told, ms.
    pub detection_ms: u64,
    /// `host:port` of its instance as told.
    pub instance: String,
}

/// How the cluster of this name is called in messages; empty where there is no need to tell it from others.
pub(super) fn title(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("cluster \"{name}\": ") }
}

impl Cluster {
    /// A cluster whose ledger is not known yet.
    ///
    /// # Errors
    /// No random number can be had.
    pub fn new(config: &ClusterConfig, fencing: bool, now: Time) -> Result<Cluster> {
        let [one, two] = &config.network.servers;
        let seen = |server: &crate::config::MemberLine| Seen {
            addresses: server.addresses(),
            connection: None,
            heard: None,
            detection_ms: 0,
            instance: String::new(),
        };
        let ids = [one.id.clone(), two.id.clone()];
        let mut cluster = Cluster {
            name: config.name.clone(),
            names: Names { ids, me: Server::First, arbiter: config.arbiter.id.clone() },
            key: *config.key.as_bytes(),
            own_key: config.own_key.clone(),
            listed: config.network.servers.iter().filter_map(|server| server.key).collect(),
            servers: [seen(one), seen(two)],
            core: Err(Error::new("")),
            system: None,
            generation: 0,
            other_system: None,
            unwritten: String::new(),
            fencing,
        };
        cluster.begin(None, now)?;
        Ok(cluster)
    }

    /// Begins anew with this ledger, or with none.
    ///
    /// # Errors
    /// No random number can be had.
    pub fn begin(&mut self, durable: Option<Durable>, now: Time) -> Result<()> {
        let settings = ArbiterSettings { pause_ms: PAUSE_MS, fencing: self.fencing, seed: random()?, durable };
        self.core = Ok(Box::new(Arbiter::new(settings, now)));
        self.generation += 1;
        self.system = durable.map(|durable| durable.ledger.system);
        self.other_system = None;
        Ok(())
    }

    /// Begins with a ledger that was found.
    ///
    /// # Errors
    /// No random number can be had. A ledger that cannot be used is no error here: the cluster is then not served.
    pub fn adopt(&mut self, system: SystemId, found: &Found, now: Time) -> Result<()> {
        match &found.ledger {
            Ok(durable) => self.begin(*durable, now)?,
            Err(error) => self.core = Err(error.clone()),
        }
        self.system = Some(system);
        Ok(())
    }

    /// What the arbiter authenticates itself with.
    pub fn identity(&self) -> Identity<'_> {
        Identity { shared: &self.key, own: self.own_key.as_ref() }
    }

    /// How it is called in messages; empty where there is no need to tell it from others.
    pub fn title(&self) -> String {
        title(&self.name)
    }

    /// Notes what a heartbeat tells besides what the core needs.
    pub fn heard(&mut self, server: Server, told: &Heartbeat, resolver: &Resolver, now: Time) {
        let seen = &mut self.servers[server.index()];
        seen.heard = Some(now);
        seen.detection_ms = told.detection_ms;
        probe::note_instance(&mut seen.instance, &told.address, resolver);
    }

    /// The longer of both servers' detection times, ms; 0 where none has been told.
    pub fn detection_ms(&self) -> u64 {
        self.servers.iter().map(|seen| seen.detection_ms).max().unwrap_or(0)
    }

    /// Whether a server is heard.
    pub fn is_online(&self, server: Server) -> bool {
        self.core.as_ref().is_ok_and(|core| core.hears(server))
    }

    /// What is durable.
    pub fn durable(&self) -> Option<&Durable> {
        self.core.as_ref().ok().and_then(|core| core.durable())
    }

    /// For `mc_arb status`.
    pub fn status(&self) -> ClusterStatus {
        let durable = self.durable();
        let view = durable.map(|durable| {
            let view = durable.ledger.view;
            ViewStatus {
                term: view.term.0,
                mode: view.mode,
                primary: self.names.id(view.primary).to_owned(),
                forced: view.forced,
                promised: durable.ledger.promised.0,
                ledger: format!("{:016x}", durable.ledger.id.0),
            }
        });
        let server = |server: Server| ServerStatus {
            id: self.names.id(server).to_owned(),
            host: self.servers[server.index()].addresses.last().map(|(host, _)| host.clone()).unwrap_or_default(),
            online: self.is_online(server),
            refusal: self.core.as_ref().ok().and_then(|core| core.refusal(server)),
        };
        ClusterStatus {
            name: self.name.clone(),
            system_identifier: self.system.map(|system| system.0),
            problem: match &self.core {
                Err(why) => Some(why.to_string()),
                // Until it can be, every proposal waits.
                Ok(_) if !self.unwritten.is_empty() => Some(self.unwritten.clone()),
                Ok(_) => None,
            },
            view,
            servers: Server::BOTH.map(server),
        }
    }
}
