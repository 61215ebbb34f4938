//! Listening sockets of the controllers and the arbiter. A host name or address that is not there yet (the network comes up
//! late at boot) is tried again until it is.

use super::boot::join;
use super::resolver::Resolver;
use super::spawn;
use crate::error::{Error, Result};
use crate::messages::{self, Tell};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

/// The time between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a start waits for the name of its own host.
pub const NAME_LIMIT: Duration = Duration::from_secs(2);

/// Takes each listening socket as soon as it is bound.
pub type Take = Arc<dyn Fn(TcpListener) + Send + Sync>;

/// What an attempt has left.
pub struct Missing {
    /// In words.
    pub why: Error,
    /// It may come by itself: the address is not this host's yet, or the name does not resolve yet.
    pub late: bool,
}

/// Listens on every address of a host. What cannot be bound yet is reported, and tried again on a thread of its own.
///
/// # Errors
/// With `must`: a reason that waiting does not remove, such as a port in use.
pub fn open(resolver: &Resolver, host: &str, port: u16, must: bool, take: &Take) -> Result<()> {
    let mut bound = Vec::new();
    resolver.wait(host, port, NAME_LIMIT);
    let Err(missing) = attempt(resolver, host, port, &mut bound, take) else { return Ok(()) };
    if must && !missing.late {
        return Err(missing.why);
    }
    messages::tell(&Tell::NotListening { why: missing.why });
    let (resolver, host, take) = (resolver.clone(), host.to_owned(), take.clone());
    spawn("listen-later", move || {
        while !resolver.is_stopped() {
            std::thread::sleep(PAUSE);
            if attempt(&resolver, &host, port, &mut bound, &take).is_ok() {
                return messages::tell(&Tell::Listening { at: join(&host, port) });
            }
        }
    })
    .map(drop)
}

/// Binds the addresses that are not bound yet.
fn attempt(
    resolver: &Resolver,
    host: &str,
    port: u16,
    bound: &mut Vec<SocketAddr>,
    take: &Take,
) -> std::result::Result<(), Missing> {
    let found = resolver.addresses(host, port);
    if found.list.is_empty() {
        let why = found.failure.unwrap_or_else(|| "the name service has not responded yet".to_owned());
        let why = Error::new(format!("could not resolve host \"{host}\": {why}"));
        return Err(Missing { why: why.hint("Check network.conf and the name service."), late: true });
    }
    let mut missing = Ok(());
    for address in found.list {
        if bound.contains(&address) {
            continue;
        }
        match TcpListener::bind(address) {
            Ok(listener) => {
                bound.push(address);
                take(listener);
            }
            Err(cause) => {
                let late = cause.kind() == ErrorKind::AddrNotAvailable;
                missing = Err(Missing { why: unbound(address, &cause), late });
                if !late {
                    break;
                }
            }
        }
    }
    missing
}

fn unbound(address: SocketAddr, cause: &std::io::Error) -> Error {
    let hint = match cause.kind() {
        ErrorKind::AddrInUse => {
            "Another program listens there; \"ss -ltnp\" shows its process. If it is a controller of this server (mc_ctl) \
             whose directory was deleted, end it before the next start. Otherwise choose another port in network.conf on all \
             members."
        }
        ErrorKind::AddrNotAvailable => {
            "The host on this member's line of network.conf must be an address of this host."
        }
        _ => "Check this member's line of network.conf.",
    };
    Error::new(format!("could not listen on {address}: {cause}")).hint(hint)
}
