//! The web console, `mc_web`: a page and its JSON interface (mc_web(8)), for users who log in.
//!
//! ```text
//!  browsers ─► connections ─► routes ─┬─ status: the controller's control socket
//!              (one thread    (users, ├─ queries and actions: `mc_ctl`, as a process
//!               each, bounded) roles) └─ events: one thread looks for all (`feed`)
//!  the other console ─► peer: start and stop, over Noise with the pair's keys
//! ```
//!
//! Has no rights of its own and decides nothing: whatever changes something is a command of `mc_ctl`. Everything that comes in
//! is bounded: connections, sizes, times, logins, sessions, jobs. Called by `cli::web`.

mod actions;
mod feed;
mod jobs;
mod logs;
mod page;
mod peer;
mod removal;
mod routes;
mod run;
mod sessions;
mod transport;
pub mod users;

use crate::config::web::WebConfig;
use crate::daemon::{lock, spawn};
use crate::error::{Error, Result};
use crate::messages::{self, Tell};
use crate::status::Status;
use feed::Feed;
use jobs::Jobs;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sessions::{Limits, Sessions};
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use transport::Connection;

/// Connections at a time, and of one address.
const MAX_CONNECTIONS: usize = 64;
const MAX_OF_ADDRESS: usize = 48;

/// The pause after an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the status comes from: the controller of a management directory, as `mc_ctl status` shows it.
pub type StatusSource = fn(&Path) -> std::result::Result<Box<Status>, Failed>;

/// Why there is no status: the exit status of `mc_ctl`, and what it prints.
#[derive(Clone, Debug)]
pub struct Failed {
    /// As mc_ctl(8) lists it.
    pub exit: u8,
    /// The message and the hint.
    pub error: Error,
}

impl Failed {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({ "error": self.error.message, "hint": self.error.hint, "exit": self.exit })
    }
}

/// The console, not served yet.
pub struct Console {
    config: WebConfig,
    status: StatusSource,
    listeners: Vec<TcpListener>,
    tls: Option<Arc<ServerConfig>>,
}

/// What the threads of the connections share.
struct Shared {
    config: WebConfig,
    status: StatusSource,
    tls: Option<Arc<ServerConfig>>,
    security: String,
    cookie: String,
    sessions: Mutex<Sessions>,
    limits: Mutex<Limits>,
    verifier: users::Verifier,
    feed: Arc<Feed>,
    jobs: Arc<Jobs>,
    queries: routes::Queries,
    connections: Mutex<Connections>,
}

impl Console {
    /// Listens, with the certificate.
    ///
    /// # Errors
    /// The address cannot be listened on, or the files of TLS cannot be used.
    pub fn bind(config: WebConfig, status: StatusSource) -> Result<Console> {
        let tls = config.tls.as_ref().map(|(certificate, key)| tls(certificate, key)).transpose()?;
        let at = &config.listen;
        let found = (at.host.as_str(), at.port).to_socket_addrs();
        let found =
            found.map_err(|cause| at.error(format!("listen: could not resolve host \"{}\": {cause}", at.host)))?;
        let listeners: Result<Vec<TcpListener>> = found
            .map(|address| {
                TcpListener::bind(address).map_err(|cause| {
                    at.error(format!("listen: could not listen on {address}: {cause}"))
                        .hint("Specify an address of this host and a free port in web.conf.")
                })
            })
            .collect();
        Ok(Console { config, status, listeners: listeners?, tls })
    }

    /// Its address, as a browser needs it.
    pub fn url(&self) -> String {
        url(&self.config)
    }

    /// Serves on threads of its own, as long as the process lives.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn serve(self) -> Result<()> {
        let Console { config, status, listeners, tls } = self;
        messages::tell(&Tell::WebStarted { at: url(&config) });
        peer::serve(&config)?;
        let feed = Arc::new(Feed::default());
        let jobs = Arc::new(Jobs::new(logs::record(&config.dir), feed.clone()));
        let shared = Arc::new(Shared {
            security: page::security_headers(),
            cookie: routes::cookie_name(&config),
            sessions: Mutex::default(),
            limits: Mutex::default(),
            verifier: users::Verifier::default(),
            queries: routes::Queries::default(),
            connections: Mutex::default(),
            config: config.clone(),
            status,
            tls,
            feed: feed.clone(),
            jobs,
        });
        spawn("web-feed", move || feed.run(&config.dir, status))?;
        for listener in listeners {
            let shared = shared.clone();
            spawn("web-listen", move || shared.accept(&listener))?;
        }
        Ok(())
    }
}

/// The address of a console.
pub fn url(config: &WebConfig) -> String {
    let at = &config.listen;
    let host = if at.host.contains(':') { format!("[{}]", at.host) } else { at.host.clone() };
    format!("http{}://{host}:{}/", if config.tls.is_some() { "s" } else { "" }, at.port)
}

fn tls(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let unusable = |path: &Path, cause: &dyn std::fmt::Display| {
        Error::io("use file", path, cause).hint("It must be a PEM file that the instance administrator user can read.")
    };
    let chain =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let chain = chain.map_err(|cause| unusable(certificate, &cause))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|cause| unusable(key, &cause))?;
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|cause| unusable(certificate, &cause))?.with_no_client_auth();
    Ok(Arc::new(config.with_single_cert(chain, private).map_err(|cause| unusable(certificate, &cause))?))
}

/// The connections that there are.
#[derive(Default)]
struct Connections {
    number: u64,
    of: HashMap<u64, Open>,
}

struct Open {
    address: IpAddr,
    tcp: TcpStream,
    /// Its request is there: it makes no room for another.
    answered: bool,
}

impl Connections {
    /// One more. Where there are too many, the oldest that has not sent its request yet makes room, so that slow
    /// clients do not lock out others. `None` if there is no such connection.
    fn add(&mut self, address: IpAddr, tcp: TcpStream) -> Option<u64> {
        let of_address = self.of.values().filter(|open| open.address == address).count();
        if self.of.len() >= MAX_CONNECTIONS || of_address >= MAX_OF_ADDRESS {
            let only = of_address >= MAX_OF_ADDRESS;
            let may = |open: &Open| !open.answered && (!only || open.address == address);
            let oldest = self.of.iter().filter(|(_, open)| may(open)).map(|(number, _)| *number).min()?;
            if let Some(open) = self.of.remove(&oldest) {
                let _ = open.tcp.shutdown(Shutdown::Both);
            }
        }
        self.number += 1;
        self.of.insert(self.number, Open { address, tcp, answered: false });
        Some(self.number)
    }
}

impl Shared {
    fn accept(self: &Arc<Shared>, listener: &TcpListener) {
        loop {
            let Ok((tcp, address)) = listener.accept() else {
                std::thread::sleep(PAUSE);
                continue;
            };
            let address = address.ip().to_canonical();
            let Ok(handle) = tcp.try_clone() else { continue };
            let Some(number) = lock(&self.connections).add(address, handle) else { continue };
            let shared = self.clone();
            let served = spawn("web-client", move || {
                shared.serve(tcp, address, number);
                lock(&shared.connections).of.remove(&number);
            });
            if served.is_err() {
                lock(&self.connections).of.remove(&number);
            }
        }
    }

    fn serve(&self, tcp: TcpStream, address: IpAddr, number: u64) {
        let _ = tcp.set_nodelay(true);
        let Ok(mut connection) = Connection::new(tcp, self.tls.as_ref()) else { return };
        let request = connection.read();
        if let Some(open) = lock(&self.connections).of.get_mut(&number) {
            open.answered = true;
        }
        let reply = match request {
            Ok(None) => return,
            Ok(Some(request)) => self.route(&request, address),
            Err((status, why)) => routes::Reply::Whole(transport::Response::error(status, &why, "", None)),
        };
        match reply {
            routes::Reply::Whole(response) => {
                if connection.send(&response.bytes(&self.security, false)).is_ok() {
                    connection.close();
                }
            }
            routes::Reply::Events(token) => self.stream(&mut connection, &token),
        }
    }
}
