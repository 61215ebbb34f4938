//! One authenticated, encrypted connection: Noise `NNpsk0` over a byte stream, in frames of a 16-bit big-endian length
//! and that many bytes.
//!
//! The dialler sends. Between the servers the other end only takes part in the handshake; the arbiter answers on the
//! connections that it accepts. `psk0` mixes the key in before the first message: whoever does not hold it cannot make a
//! first message that is answered. Called by `links.rs` and the arbiter.

use crate::error::{Error, Result};
use crate::wire::{Hello, MAJOR};
use snow::{Builder, HandshakeState, TransportState};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";

/// Length of either handshake message: an ephemeral key and the tag of an empty payload.
pub const HANDSHAKE_LENGTH: usize = 32 + 16;

/// The longest encrypted [`Hello`].
pub const HELLO_LENGTH: usize = 1024;

/// Length of an authentication tag.
const TAG: usize = 16;

/// What is said where the other end has closed the connection.
const CLOSED: &str = "the other end closed the connection";

/// Whether the other end has just hung up: who only looks whether a host answers, as an arbiter does, is no stranger.
pub fn has_hung_up(error: &Error) -> bool {
    error.message.ends_with(CLOSED)
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
    /// Shakes hands on a connection just dialled, and says hello.
    ///
    /// # Errors
    /// The other end does not hold the key, is of another major version, or does not answer before `limit`.
    pub fn dial(mut stream: TcpStream, key: &[u8; 32], hello: &Hello, limit: Duration) -> Result<Writer> {
        let deadline = Instant::now() + limit;
        let mut handshake = state(key, true)?;
        let mut message = [0; HANDSHAKE_LENGTH];
        let length = handshake.write_message(&[], &mut message).map_err(noise)?;
        write_frame(&mut stream, &message[..length])?;
        let answer = read_frame(&mut stream, HANDSHAKE_LENGTH, Some(deadline)).map_err(|error| {
            match error.message.ends_with(CLOSED) {
                // Who does not hold the key gets no answer, and so no better reason.
                true => Error::new("the other end closed the connection instead of authenticating itself")
                    .hint("if this stays so, its mc.key is not the same as this server's: copy one to the other"),
                false => error,
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
        let mut frame = vec![0; body.len() + TAG];
        let length = self.state.write_message(body, &mut frame).map_err(noise)?;
        write_frame(&mut self.stream, &frame[..length])
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
    /// that it holds the key. Only the hello proves that the other end is alive: a first message may be a recording.
    ///
    /// # Errors
    /// The other end does not hold the key, is of another major version, or is not done before `limit`.
    pub fn accept(mut stream: TcpStream, key: &[u8; 32], limit: Duration) -> Result<(Reader, Hello)> {
        let deadline = Instant::now() + limit;
        let mut handshake = state(key, false)?;
        let mut message = [0; HANDSHAKE_LENGTH];
        let first = read_frame(&mut stream, HANDSHAKE_LENGTH, Some(deadline))?;
        handshake.read_message(&first, &mut message).map_err(noise)?;
        let length = handshake.write_message(&[], &mut message).map_err(noise)?;
        write_frame(&mut stream, &message[..length])?;
        let mut reader = Reader { stream, state: handshake.into_transport_mode().map_err(noise)? };
        let hello = reader.read(HELLO_LENGTH, Some(deadline))?;
        Ok((reader, Hello::decode(&hello)?))
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
    /// Takes a dialler's first message. Returns the frame to answer it with; `None` where it was not made with this key.
    pub fn answer(key: &[u8; 32], first: &[u8]) -> Option<(Transport, Vec<u8>)> {
        let mut handshake = state(key, false).ok()?;
        let mut message = [0; HANDSHAKE_LENGTH];
        handshake.read_message(first, &mut message).ok()?;
        let length = handshake.write_message(&[], &mut message).ok()?;
        let mut frame = Vec::with_capacity(2 + length);
        frame.extend_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
        frame.extend_from_slice(&message[..length]);
        Some((Transport { state: handshake.into_transport_mode().ok()? }, frame))
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

fn state(key: &[u8; 32], initiator: bool) -> Result<HandshakeState> {
    let prologue = [b"mirroring controller ".as_slice(), &[MAJOR]].concat();
    let builder = Builder::new(PATTERN.parse().map_err(noise)?);
    let builder = builder.psk(0, key).and_then(|builder| builder.prologue(&prologue)).map_err(noise)?;
    if initiator { builder.build_initiator() } else { builder.build_responder() }.map_err(noise)
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
            return Err(failed(&"no answer in time"));
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

fn noise(cause: snow::Error) -> Error {
    match cause {
        snow::Error::Decrypt => Error::new("could not authenticate: its mc.key is not the same as this server's"),
        cause => Error::new(format!("could not authenticate: {cause}")),
    }
}
