//! The connection between the consoles of the two servers: starting and stopping the other server's controller, nothing else.
//!
//! Noise as between the controllers, with the same keys. The greeting names `web:ID` as the member that is meant, so that a
//! console is never mistaken for a controller. One order a connection; the answer is its lines and its exit status.

use super::actions::process;
use super::logs;
use super::run::{Ended, run};
use crate::config::web::WebConfig;
use crate::config::{Config, PublicKey};
use crate::daemon::noise::{Identity, Reader, Refusal, Writer};
use crate::daemon::{sockets, spawn};
use crate::error::{Error, Result};
use crate::fsm::types::{Member, Server};
use crate::messages::{self, Tell};
use crate::wire::{Hello, MINOR};
use serde::{Deserialize, Serialize};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a connection, its handshake and its order may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How long the other console may be silent: longer than a start of `mc_ctl` waits.
const SILENCE: Duration = Duration::from_secs(120);
/// The longest order, in bytes.
const MAX_ORDER: usize = 1024;
/// Callers at a time.
const MAX_CALLERS: usize = 4;
/// The pause before the address is listened on again.
const PAUSE: Duration = Duration::from_secs(3);
/// How often a caller that is not let in is reported at most.
const REPORT: Duration = Duration::from_secs(60);

/// What the other console is to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum Order {
    /// `mc_ctl start`
    Start {
        /// `-f`, `-F` or neither.
        failover: Option<bool>,
        /// `--mc-only`
        mc_only: bool,
        /// Who, for the log.
        user: String,
    },
    /// `mc_ctl stop`
    Stop {
        /// `--mc-only`
        mc_only: bool,
        /// Who, for the log.
        user: String,
    },
}

/// A part of the answer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Line(String),
    Exit(u8),
}

impl Order {
    fn words(&self) -> Vec<&'static str> {
        let (verb, failover, mc_only) = match self {
            Order::Start { failover, mc_only, .. } => ("start", *failover, *mc_only),
            Order::Stop { mc_only, .. } => ("stop", None, *mc_only),
        };
        let failover = failover.map(|on| if on { "-f" } else { "-F" });
        [Some(verb), failover, mc_only.then_some("--mc-only")].into_iter().flatten().collect()
    }

    fn user(&self) -> &str {
        let (Order::Start { user, .. } | Order::Stop { user, .. }) = self;
        user
    }
}

fn identity(config: &Config) -> Identity<'_> {
    Identity { shared: config.key.as_bytes(), own: config.own_key.as_ref() }
}

/// Why the other server cannot be ordered, as far as this is known here.
pub fn refused(config: &WebConfig) -> Option<String> {
    config.peer_port.is_none().then(|| "peer_port is not set in web.conf".to_owned())
}

/// Has the other console carry it out.
///
/// # Errors
/// It cannot be reached, or the connection breaks.
pub fn send(config: &WebConfig, order: &Order, line: &mut dyn FnMut(&str)) -> Result<Ended> {
    let port = config.peer_port.ok_or_else(|| Error::new("peer_port is not set in web.conf"))?;
    let pair = Config::load_for_client(&config.dir, None)?;
    let peer = pair.peer();
    let host = peer.hosts.first().map_or("", String::as_str);
    let at = (host, port)
        .to_socket_addrs()
        .map_err(|cause| Error::new(format!("could not resolve host \"{host}\": {cause}")))?;
    let mut failure = Error::new(format!("host \"{host}\" has no address"));
    let mut stream = None;
    for address in at {
        match sockets::dial(address, None, LIMIT) {
            Ok(found) => {
                stream = Some(found);
                break;
            }
            Err(cause) => {
                failure = Error::new(format!(
                    "could not connect to the web console of server \"{}\" at {address}: {cause}",
                    peer.id
                ))
                .hint("Start mc_web on that server, with the same peer_port in web.conf.");
            }
        }
    }
    let stream = stream.ok_or(failure)?;
    let hello = Hello { version: MINOR, member: member(pair.me), id: pair.id.clone(), to: format!("web:{}", peer.id) };
    let mut writer = Writer::dial(stream, identity(&pair), peer.key.as_ref(), &hello, LIMIT)?;
    // After the handshake, which has set a limit of its own.
    let limits = writer.stream().set_read_timeout(Some(SILENCE));
    limits
        .and_then(|()| writer.stream().set_write_timeout(Some(LIMIT)))
        .map_err(|cause| Error::new(format!("could not set a time limit: {cause}")))?;
    writer.send(&serde_json::to_vec(order).unwrap_or_default())?;
    loop {
        for body in writer.take()? {
            match serde_json::from_slice(&body) {
                Ok(Answer::Line(text)) => line(&text),
                Ok(Answer::Exit(exit)) => return Ok(Ended { exit, ..Ended::default() }),
                Err(cause) => {
                    return Err(Error::new(format!("the web console of server \"{}\" answered: {cause}", peer.id)));
                }
            }
        }
    }
}

fn member(server: Server) -> Member {
    Member::Server(server)
}

/// Serves the other console on a thread of its own, as long as the process lives.
///
/// # Errors
/// No thread can be started.
pub fn serve(config: &WebConfig) -> Result<()> {
    let Some(port) = config.peer_port else { return Ok(()) };
    let config = config.clone();
    spawn("web-peer", move || {
        let (waiting, mut reported) = (Arc::new(AtomicUsize::new(0)), None::<Instant>);
        let (report, reports) = crossbeam_channel::bounded::<(String, Error)>(MAX_CALLERS);
        let _ = spawn("web-peer-log", move || {
            for (from, error) in reports {
                if reported.is_none_or(|at| at.elapsed() >= REPORT) {
                    reported = Some(Instant::now());
                    messages::tell(&Tell::WebPeerRefused { from, why: error.message });
                }
            }
        });
        loop {
            let Some(listener) = listen(&config, port) else {
                std::thread::sleep(PAUSE);
                continue;
            };
            for stream in listener.incoming() {
                let Ok(stream) = stream else {
                    std::thread::sleep(PAUSE);
                    continue;
                };
                if waiting.fetch_add(1, Ordering::SeqCst) >= MAX_CALLERS {
                    waiting.fetch_sub(1, Ordering::SeqCst);
                    continue;
                }
                let (config, place, report) = (config.clone(), waiting.clone(), report.clone());
                let served = spawn("web-peer-in", move || {
                    let from = stream.peer_addr().map_or(String::new(), |address| address.to_string());
                    if let Err(error) = receive(&config, stream) {
                        let _ = report.try_send((from, error));
                    }
                    place.fetch_sub(1, Ordering::SeqCst);
                });
                if served.is_err() {
                    waiting.fetch_sub(1, Ordering::SeqCst);
                }
            }
        }
    })
    .map(drop)
}

/// On this server's host in `network.conf`; `None` while there is no set-up, or no such address.
fn listen(config: &WebConfig, port: u16) -> Option<TcpListener> {
    let (network, me) = logs::network(&config.dir)?;
    TcpListener::bind((network.servers[me].hosts.first()?.as_str(), port)).ok()
}

/// Takes one order and carries it out.
fn receive(config: &WebConfig, stream: TcpStream) -> Result<()> {
    let _ = stream.set_write_timeout(Some(LIMIT));
    let pair = Config::load_for_client(&config.dir, None)?;
    let peer = pair.peer();
    let listed: Vec<PublicKey> = peer.key.into_iter().collect();
    let (mut reader, hello) =
        Reader::accept(stream, identity(&pair), &listed, LIMIT).map_err(|refusal| match refusal {
            Refusal::NotProved(what) => Error::new(what.text()),
            Refusal::Other(error) => error,
        })?;
    if hello.id != peer.id || hello.to != format!("web:{}", pair.id) {
        return Err(Error::new(format!("member \"{}\" tried to reach \"{}\"", hello.id, hello.to)));
    }
    let order = reader.receive_within(MAX_ORDER, LIMIT)?;
    let order: Order = serde_json::from_slice(&order).map_err(|cause| Error::new(format!("unknown order: {cause}")))?;
    let (words, user) = (order.words(), format!("{}@{}", clean(order.user()), peer.id));
    let command = format!("mc_ctl {}", words.join(" "));
    let (from, server) = (peer.id.clone(), pair.id.clone());
    messages::tell(&Tell::WebAction { user: user.clone(), from, command: command.clone(), server });
    let mut send = |answer: Answer| reader.answer(&serde_json::to_vec(&answer).unwrap_or_default());
    let result = run(process(&config.dir, &words), b"", None, |line| {
        // The caller may be gone; the command continues.
        let _ = send(Answer::Line(line.chars().take(2000).collect()));
    });
    let exit = match result {
        Ok(ended) => ended.exit,
        Err(error) => {
            let _ = send(Answer::Line(error.to_string()));
            1
        }
    };
    messages::tell(&Tell::WebActionEnded { user, command, exit });
    let _ = send(Answer::Exit(exit));
    Ok(())
}

/// A name that came over the network, for a log.
fn clean(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_graphic()).take(64).collect()
}
