//! One connection that a server has dialled, as bytes: handshake, hello, messages; nothing in it ever waits.
//!
//! What the bytes mean is the hub's business, which also says which key a first message was made with.

use crate::config::PublicKey;
use crate::daemon::noise::{CLOSED, FIRST_LENGTH, Frames, HELLO_LENGTH, Transport};
use crate::error::{Error, Result};
use crate::fsm::types::{Server, Time};
use crate::wire::Hello;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};

/// Bytes that may wait to be sent: a few messages. What finds no room is dropped, since the next one says it anew.
const MAX_UNSENT: usize = 32 * 1024;

/// A connection.
pub struct Connection {
    stream: TcpStream,
    /// Where it comes from.
    pub from: SocketAddr,
    /// The caller's address is that of a cluster's server.
    pub known: bool,
    /// When it was accepted.
    pub since: Time,
    /// How far it has come.
    pub stage: Stage,
    frames: Frames,
    unsent: Vec<u8>,
}

/// How far a connection has come.
pub enum Stage {
    /// Nothing authenticated yet.
    First,
    /// It holds this cluster's key, or is a recording of one who does.
    Keyed(usize, Box<Transport>),
    /// It is this cluster's server.
    Member(usize, Server, Box<Transport>),
}

/// What a connection has said.
pub enum Said {
    /// A first message, to be tried with the keys.
    First(Vec<u8>),
    /// Who it is, of this cluster.
    Hello(usize, Hello),
    /// A message of this cluster's server.
    Body(usize, Server, Vec<u8>),
}

impl Connection {
    /// A connection just accepted.
    ///
    /// # Errors
    /// It is broken already.
    pub fn new(stream: TcpStream, from: SocketAddr, known: bool, since: Time) -> std::io::Result<Connection> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let (frames, unsent) = (Frames::default(), Vec::new());
        Ok(Connection { stream, from, known, since, stage: Stage::First, frames, unsent })
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads once, when there is something to read.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn fill(&mut self) -> Result<()> {
        match self.frames.fill(&mut self.stream) {
            Ok(_) => Ok(()),
            Err(cause) if matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(cause) if cause.kind() == ErrorKind::UnexpectedEof => Err(Error::new(CLOSED)),
            Err(cause) => Err(Error::new(cause.to_string())),
        }
    }

    /// What was read and not taken yet; to be called until there is nothing.
    ///
    /// # Errors
    /// It is not what is due at this stage, or forged: the connection is of no more use.
    pub fn next(&mut self) -> Result<Option<Said>> {
        let longest = match &self.stage {
            Stage::First => FIRST_LENGTH,
            Stage::Keyed(..) => HELLO_LENGTH,
            Stage::Member(..) => usize::from(u16::MAX),
        };
        let Some(frame) = self.frames.next(longest)? else { return Ok(None) };
        Ok(Some(match &mut self.stage {
            Stage::First => Said::First(frame.to_vec()),
            Stage::Keyed(cluster, transport) => Said::Hello(*cluster, Hello::decode(&transport.open(frame)?)?),
            Stage::Member(cluster, server, transport) => Said::Body(*cluster, *server, transport.open(frame)?),
        }))
    }

    /// Answers a first message that was made with this cluster's key.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn keyed(&mut self, cluster: usize, transport: Transport, answer: &[u8]) -> Result<()> {
        self.stage = Stage::Keyed(cluster, Box::new(transport));
        self.unsent.extend_from_slice(answer);
        self.flush()
    }

    /// The member's key that it has proved.
    pub fn caller(&self) -> Option<PublicKey> {
        match &self.stage {
            Stage::First => None,
            Stage::Keyed(_, transport) | Stage::Member(_, _, transport) => transport.caller(),
        }
    }

    /// It has said who it is.
    pub fn member(&mut self, server: Server) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::First) {
            Stage::Keyed(cluster, transport) => Stage::Member(cluster, server, transport),
            other => other,
        };
    }

    /// Sends a message to the member, or drops it where too much waits already.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn send(&mut self, body: &[u8]) -> Result<()> {
        let Stage::Member(_, _, transport) = &mut self.stage else { return Ok(()) };
        if self.unsent.len() + body.len() > MAX_UNSENT {
            return Ok(());
        }
        transport.seal(body, &mut self.unsent)?;
        self.flush()
    }

    /// Sends what waits, as far as it goes.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn flush(&mut self) -> Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(cause) if cause.kind() == ErrorKind::Interrupted => (),
                Err(cause) => return Err(Error::new(cause.to_string())),
            }
        }
        self.unsent = Vec::new();
        Ok(())
    }

    /// Something waits to be sent.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// It has not authenticated itself yet.
    pub fn is_stranger(&self) -> bool {
        !matches!(self.stage, Stage::Member(..))
    }
}
