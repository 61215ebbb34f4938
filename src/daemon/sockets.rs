//! TCP sockets of the members' connections: dialling from a chosen address, without waiting or for a limited time.
//!
//! Called by `links.rs` and the arbiter.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Begins to dial `address` from the host's address `from` (`None`: whichever the kernel chooses). The socket does not
/// block; it is writable once the connection stands or has failed, which [`outcome`] tells.
///
/// # Errors
/// It fails at once.
pub fn begin(address: SocketAddr, from: Option<IpAddr>) -> Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if let Some(from) = from {
        bind(&socket, &SocketAddr::new(from, 0))?;
    }
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(cause) => Err(cause),
    }
}

/// What came of a socket that [`begin`] made for `address`, once it is writable.
///
/// # Errors
/// The connection failed.
pub fn outcome(socket: OwnedFd, address: SocketAddr) -> Result<TcpStream> {
    sockopt::socket_error(&socket)??;
    let stream = TcpStream::from(socket);
    // A port of this host in the ephemeral range on which nobody listens may be connected to itself.
    if stream.local_addr().is_ok_and(|own| own == address) {
        return Err(Errno::CONNREFUSED);
    }
    Ok(stream)
}

/// Dials and waits, at most `limit`. The stream blocks.
///
/// # Errors
/// The connection failed; `TIMEDOUT` where it took as long as it may.
pub fn dial(address: SocketAddr, from: Option<IpAddr>, limit: Duration) -> Result<TcpStream> {
    let socket = begin(address, from)?;
    let wait = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
    match poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&wait)) {
        Ok(0) => return Err(Errno::TIMEDOUT),
        Ok(_) => (),
        // A signal; the next attempt is soon.
        Err(cause) => return Err(cause),
    }
    let stream = outcome(socket, address)?;
    rustix::io::ioctl_fionbio(&stream, false)?;
    Ok(stream)
}
