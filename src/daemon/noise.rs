//! One authenticated, encrypted connection: Noise over a byte stream, in frames of a 16-bit big-endian length and that
//! many bytes.
//!
//! The dialler sends. Between the servers the other end only takes part in the handshake; the arbiter answers on the
//! connections that it accepts. `psk0` mixes `mc.key` in before the first message: a caller that does not hold it cannot
//! make a first message that is answered.
//!
//! There are two handshakes, which the length of the first message distinguishes. `NNpsk0` proves `mc.key` alone. `IKpsk0`
//! also proves the private key of either end, that of the caller in the first message, so that a caller without it is not
//! answered either. Where `network.conf` lists a key for the other end, nothing but that key in `IKpsk0` is accepted.
//! Called by `links.rs` and the arbiter.

use crate::config::{PrivateKey, PublicKey};
use crate::error::{Error, Result};
use crate::wire::{Hello, MAJOR};
use snow::{Builder, HandshakeState, TransportState};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const SHARED_KEY_PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const MEMBER_KEY_PATTERN: &str = "Noise_IKpsk0_25519_ChaChaPoly_BLAKE2s";

static PROLOGUE: [u8; 22] = {
    let mut prologue = *b"mirroring controller \0";
    prologue[21] = MAJOR;
    prologue
};

/// Length of an authentication tag.
const TAG: usize = 16;

/// Length of an answer, and of the first message of the handshake without member keys: an ephemeral key and the tag of an
/// empty payload.
const HANDSHAKE_LENGTH: usize = 32 + TAG;

/// Length of the first message of the handshake with member keys: the caller's encrypted public key besides.
pub const FIRST_LENGTH: usize = HANDSHAKE_LENGTH + 32 + TAG;

/// The longest encrypted [`Hello`].
pub const HELLO_LENGTH: usize = 1024;

/// What is said where the other end has closed the connection.
pub const CLOSED: &str = "the other end closed the connection";

/// Whether the other end has just hung up: who only looks whether a host answers, as an arbiter does, is no stranger.
pub fn has_hung_up(error: &Error) -> bool {
    error.message.ends_with(CLOSED)
}

/// What a member authenticates itself with.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// `mc.key`.
    pub shared: &'a [u8; 32],
    /// Its private key, where it has one.
    pub own: Option<&'a PrivateKey>,
}

/// Why a caller is not let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It holds `mc.key`, and does not prove the key that `network.conf` lists for the member.
    NotProved(NotProved),
    /// Anything else.
    Other(Error),
}

/// What a caller has proved instead of the member's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotProved {
    /// `mc.key` alone.
    SharedKeyAlone,
    /// Another private key.
    OtherKey,
}

impl NotProved {
    /// For a message.
    pub fn text(self) -> &'static str {
        match self {
            NotProved::SharedKeyAlone => "it proves only mc.key, and network.conf lists a key for that member",
            NotProved::OtherKey => "it proves a different key from the one that network.conf lists for that member",
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Other(error)
    }
}

/// Bytes asked of a socket at a time.
const CHUNK: usize = 4 * 1024;

/// The sending end, made by the dialler.
pub struct Writer {
    stream: TcpStream,
    state: TransportState,
    /// What an arbiter has answered and is not taken yet.
    answers: Frames,
}

/// The receiving end.
pub struct Reader {
    stream: TcpStream,
    state: TransportState,
}

impl Writer {
    /// Shakes hands on a connection just dialled, and sends the hello. `peer` is the key that the other end must prove.
    ///
    /// # Errors
    /// The other end does not hold the key, is of another major version, or does not answer before `limit`.
    pub fn dial(
        mut stream: TcpStream,
        identity: Identity<'_>,
        peer: Option<&PublicKey>,
        hello: &Hello,
        limit: Duration,
    ) -> Result<Writer> {
        let deadline = Instant::now() + limit;
        let mut handshake = match peer {
            Some(peer) => keyed(identity, Some(peer))?,
            None => unkeyed(identity, true)?,
        };
        let mut message = [0; FIRST_LENGTH];
        let length = handshake.write_message(&[], &mut message).map_err(noise)?;
        write_frame(&mut stream, &message[..length])?;
        let answer = read_frame(&mut stream, HANDSHAKE_LENGTH, Some(deadline)).map_err(|error| {
            // A caller that does not hold the key gets no answer, and so no better reason.
            match (error.message.ends_with(CLOSED), peer) {
                (true, None) => Error::new("the other end closed the connection instead of authenticating itself")
                    .hint(
                        "if this persists, its mc.key differs from this server's (copy one to the other), or its \
                           network.conf lists keys and this server's does not",
                    ),
                (true, Some(_)) => {
                    Error::new("the other end closed the connection instead of proving its key of network.conf")
                        .hint("if this persists, its network.conf, mc.key or private key is different")
                }
                (false, _) => error,
            }
        })?;
        handshake.read_message(&answer, &mut message).map_err(noise)?;
        let state = handshake.into_transport_mode().map_err(noise)?;
        let mut writer = Writer { stream, state, answers: Frames::default() };
        writer.send(&hello.encode())?;
        Ok(writer)
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The connection is broken, or the write timeout of the stream has passed: it is of no more use.
    pub fn send(&mut self, body: &[u8]) -> Result<()> {
        seal(&mut self.state, &mut self.stream, body)
    }

    /// What the other end has answered, once the connection is readable: at least one read, which then does not wait.
    ///
    /// # Errors
    /// The connection is broken, or something in it was forged: it is of no more use.
    pub fn take(&mut self) -> Result<Vec<Vec<u8>>> {
        self.answers.fill(&mut self.stream).map_err(|cause| match cause.kind() {
            ErrorKind::UnexpectedEof => Error::new(CLOSED),
            _ => Error::new(format!("could not receive: {cause}")),
        })?;
        let mut bodies = Vec::new();
        while let Some(frame) = self.answers.next(usize::from(u16::MAX))? {
            bodies.push(open(&mut self.state, frame)?);
        }
        Ok(bodies)
    }

    /// The connection, to wait on.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

impl Reader {
    /// Shakes hands on a connection just accepted, and takes the hello. Sends nothing before the other end has shown
    /// that it holds the keys: one of `listed`, if there are any. Only the hello proves that the other end is alive: a
    /// first message may be a recording.
    ///
    /// # Errors
    /// The other end does not hold the keys, is of another major version, or is not done before `limit`.
    pub fn accept(
        mut stream: TcpStream,
        identity: Identity<'_>,
        listed: &[PublicKey],
        limit: Duration,
    ) -> std::result::Result<(Reader, Hello), Refusal> {
        let deadline = Instant::now() + limit;
        let first = read_frame(&mut stream, FIRST_LENGTH, Some(deadline))?;
        let (state, answer) = respond(identity, listed, &first)?;
        write_frame(&mut stream, &answer)?;
        let mut reader = Reader { stream, state };
        let hello = reader.read(HELLO_LENGTH, Some(deadline))?;
        Ok((reader, Hello::decode(&hello)?))
    }

    /// The key that the other end has proved.
    pub fn caller(&self) -> Option<PublicKey> {
        caller(&self.state)
    }

    /// Answers on the same connection, which the arbiter and the web console do.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn answer(&mut self, body: &[u8]) -> Result<()> {
        seal(&mut self.state, &mut self.stream, body)
    }

    /// Waits for one message, at most so long.
    ///
    /// # Errors
    /// As [`Reader::receive`], or none arrives in time.
    pub fn receive_within(&mut self, longest: usize, limit: Duration) -> Result<Vec<u8>> {
        self.read(longest, Some(Instant::now() + limit))
    }

    /// Waits for one message.
    ///
    /// # Errors
    /// The connection is broken, or something in it was forged: it is of no more use.
    pub fn receive(&mut self) -> Result<Vec<u8>> {
        self.read(usize::from(u16::MAX), None)
    }

    fn read(&mut self, longest: usize, deadline: Option<Instant>) -> Result<Vec<u8>> {
        let frame = read_frame(&mut self.stream, longest, deadline)?;
        open(&mut self.state, &frame)
    }
}

/// The arbiter's end of a connection, once the dialler has shown that it holds the key. Touches no socket.
pub struct Transport {
    state: TransportState,
}

impl Transport {
    /// Takes a dialler's first message, which must prove one of `listed`, if there are any. Returns the frame to answer it
    /// with.
    ///
    /// # Errors
    /// It was not made with these keys.
    pub fn answer(
        identity: Identity<'_>,
        listed: &[PublicKey],
        first: &[u8],
    ) -> std::result::Result<(Transport, Vec<u8>), Refusal> {
        let (state, answer) = respond(identity, listed, first)?;
        let mut frame = Vec::with_capacity(2 + answer.len());
        frame.extend_from_slice(&(answer.len() as u16).to_be_bytes());
        frame.extend_from_slice(&answer);
        Ok((Transport { state }, frame))
    }

    /// The key that the dialler has proved.
    pub fn caller(&self) -> Option<PublicKey> {
        caller(&self.state)
    }

    /// Encrypts a message and appends its frame.
    ///
    /// # Errors
    /// It is too long.
    pub fn seal(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let begin = out.len();
        let length = u16::try_from(body.len() + TAG)
            .map_err(|_| Error::new(format!("message of {} bytes is too long", body.len())))?;
        out.extend_from_slice(&length.to_be_bytes());
        out.resize(begin + 2 + usize::from(length), 0);
        if let Err(cause) = self.state.write_message(body, &mut out[begin + 2..]) {
            out.truncate(begin);
            return Err(noise(cause));
        }
        Ok(())
    }

    /// Decrypts a frame.
    ///
    /// # Errors
    /// It was forged: the connection is of no more use.
    pub fn open(&mut self, frame: &[u8]) -> Result<Vec<u8>> {
        open(&mut self.state, frame)
    }
}

fn open(state: &mut TransportState, frame: &[u8]) -> Result<Vec<u8>> {
    let mut body = vec![0; frame.len()];
    let length = state.read_message(frame, &mut body).map_err(noise)?;
    body.truncate(length);
    Ok(body)
}

/// Bytes that arrive as they like, cut into frames. Never more than one frame and one read.
#[derive(Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// Where the next frame begins.
    at: usize,
}

impl Frames {
    /// One read.
    ///
    /// # Errors
    /// The stream's; `UnexpectedEof` where the other end has closed it.
    pub fn fill(&mut self, stream: &mut impl Read) -> std::io::Result<usize> {
        self.bytes.drain(..self.at);
        self.at = 0;
        let mut chunk = [0; CHUNK];
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.bytes.extend_from_slice(&chunk[..length]);
        Ok(length)
    }

    /// The next whole frame. To be called until there is none.
    ///
    /// # Errors
    /// It is longer than `longest`.
    pub fn next(&mut self, longest: usize) -> Result<Option<&[u8]>> {
        let rest = &self.bytes[self.at..];
        let Some((head, rest)) = rest.split_first_chunk::<2>() else {
            self.forget();
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*head));
        if length > longest {
            return Err(Error::new(format!("frame of {length} bytes where at most {longest} are expected")));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let begin = self.at + 2;
        self.at = begin + length;
        Ok(Some(&self.bytes[begin..self.at]))
    }

    /// An idle connection keeps no buffer.
    fn forget(&mut self) {
        if self.at == self.bytes.len() {
            *self = Frames::default();
        }
    }
}

/// The responder's part of either handshake: the connection's state, and the answer.
fn respond(
    identity: Identity<'_>,
    listed: &[PublicKey],
    first: &[u8],
) -> std::result::Result<(TransportState, Vec<u8>), Refusal> {
    let mut handshake = match (first.len() == FIRST_LENGTH, identity.own) {
        (true, Some(_)) => keyed(identity, None)?,
        (true, None) => {
            return Err(Error::new("could not authenticate: it uses a member key, and this member has none").into());
        }
        (false, _) => unkeyed(identity, false)?,
    };
    let mut message = [0; FIRST_LENGTH];
    handshake.read_message(first, &mut message).map_err(noise)?;
    match handshake.get_remote_static().and_then(PublicKey::proved) {
        _ if listed.is_empty() => (),
        Some(key) if listed.contains(&key) => (),
        Some(_) => return Err(Refusal::NotProved(NotProved::OtherKey)),
        None => return Err(Refusal::NotProved(NotProved::SharedKeyAlone)),
    }
    let length = handshake.write_message(&[], &mut message).map_err(noise)?;
    Ok((handshake.into_transport_mode().map_err(noise)?, message[..length].to_vec()))
}

fn caller(state: &TransportState) -> Option<PublicKey> {
    state.get_remote_static().and_then(PublicKey::proved)
}

/// The handshake without member keys.
fn unkeyed(identity: Identity<'_>, initiator: bool) -> Result<HandshakeState> {
    let builder = builder(SHARED_KEY_PATTERN, identity.shared)?;
    if initiator { builder.build_initiator() } else { builder.build_responder() }.map_err(noise)
}

/// The handshake with member keys; the initiator's with the key that the other end must prove.
fn keyed(identity: Identity<'_>, peer: Option<&PublicKey>) -> Result<HandshakeState> {
    let Some(own) = identity.own else { return Err(Error::new("this member has no private key")) };
    let builder = builder(MEMBER_KEY_PATTERN, identity.shared)?.local_private_key(own.as_bytes()).map_err(noise)?;
    match peer {
        Some(peer) => builder.remote_public_key(peer.as_bytes()).and_then(Builder::build_initiator),
        None => builder.build_responder(),
    }
    .map_err(noise)
}

fn builder<'a>(pattern: &str, shared: &'a [u8; 32]) -> Result<Builder<'a>> {
    let builder = Builder::new(pattern.parse().map_err(noise)?);
    builder.psk(0, shared).and_then(|builder| builder.prologue(&PROLOGUE)).map_err(noise)
}

fn write_frame(stream: &mut TcpStream, frame: &[u8]) -> Result<()> {
    let Ok(length) = u16::try_from(frame.len()) else {
        return Err(Error::new(format!("frame of {} bytes is too long", frame.len())));
    };
    let bytes = [&length.to_be_bytes(), frame].concat();
    stream.write_all(&bytes).map_err(|cause| Error::new(format!("could not send: {cause}")))
}

fn read_frame(stream: &mut TcpStream, longest: usize, deadline: Option<Instant>) -> Result<Vec<u8>> {
    let mut length = [0; 2];
    read_exact(stream, &mut length, deadline)?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > longest {
        return Err(Error::new(format!("frame of {length} bytes where at most {longest} are expected")));
    }
    let mut frame = vec![0; length];
    read_exact(stream, &mut frame, deadline)?;
    Ok(frame)
}

/// Reads until `buffer` is full; the deadline is for all of it, however it drips in.
fn read_exact(stream: &mut TcpStream, mut buffer: &mut [u8], deadline: Option<Instant>) -> Result<()> {
    let failed = |cause: &dyn std::fmt::Display| Error::new(format!("could not receive: {cause}"));
    while !buffer.is_empty() {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(failed(&"no response in time"));
        }
        stream.set_read_timeout(left).map_err(|cause| failed(&cause))?;
        match stream.read(buffer) {
            Ok(0) => return Err(failed(&CLOSED)),
            Ok(length) => buffer = &mut buffer[length..],
            Err(cause) if matches!(cause.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => (),
            Err(cause) => return Err(failed(&cause)),
        }
    }
    Ok(())
}

/// Encrypts one message and sends its frame.
fn seal(state: &mut TransportState, stream: &mut TcpStream, body: &[u8]) -> Result<()> {
    let mut frame = vec![0; body.len() + TAG];
    let length = state.write_message(body, &mut frame).map_err(noise)?;
    write_frame(stream, &frame[..length])
}

fn noise(cause: snow::Error) -> Error {
    match cause {
        snow::Error::Decrypt => Error::new(
            "could not authenticate: its mc.key differs from this server's, or its network.conf lists a different key for this \
             member",
        ),
        cause => Error::new(format!("could not authenticate: {cause}")),
    }
}
