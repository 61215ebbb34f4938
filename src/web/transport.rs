//! One connection of a browser: TCP or TLS, a request in, an answer out, everything within a time and a size.
//!
//! One request a connection. Shares the parser of `daemon::http`.

use crate::daemon::http::{self, Head};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest request line with its header, in bytes.
const MAX_HEAD: usize = 8 << 10;
/// The longest body, in bytes.
pub const MAX_BODY: usize = 64 << 10;
/// How long the header, with the handshake of TLS, may take.
pub const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// How long the body may take.
const BODY_LIMIT: Duration = Duration::from_secs(5);
/// How long an answer may take to be with the kernel.
pub const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// How long the other side may take to close after it has been answered.
const LINGER: Duration = Duration::from_secs(1);

/// A socket, each operation of which ends at the deadline, however the bytes drip.
struct Timed {
    tcp: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        self.tcp.set_read_timeout(Some(self.left()?))?;
        self.tcp.read(bytes)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.tcp.set_write_timeout(Some(self.left()?))?;
        self.tcp.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.tcp.flush()
    }
}

/// A connection.
pub struct Connection {
    stream: Stream,
}

enum Stream {
    Plain(Timed),
    Tls(Box<StreamOwned<ServerConnection, Timed>>),
}

/// A request.
pub struct Request {
    /// Its head.
    pub head: Head,
    /// Its body.
    pub body: Vec<u8>,
}

/// A request that is not answered as it asks: the status, and why.
pub type Bad = (u16, String);

impl Connection {
    /// Of a socket just accepted.
    ///
    /// # Errors
    /// TLS cannot be begun.
    pub fn new(tcp: TcpStream, tls: Option<&Arc<ServerConfig>>) -> Result<Connection> {
        let timed = Timed { tcp, deadline: Instant::now() + HEAD_LIMIT };
        let stream = match tls {
            None => Stream::Plain(timed),
            Some(config) => {
                let session = ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
                Stream::Tls(Box::new(StreamOwned::new(session, timed)))
            }
        };
        Ok(Connection { stream })
    }

    fn timed(&mut self) -> &mut Timed {
        match &mut self.stream {
            Stream::Plain(timed) => timed,
            Stream::Tls(tls) => &mut tls.sock,
        }
    }

    fn within(&mut self, limit: Duration) -> &mut dyn ReadWrite {
        self.timed().deadline = Instant::now() + limit;
        match &mut self.stream {
            Stream::Plain(timed) => timed,
            Stream::Tls(tls) => tls.as_mut(),
        }
    }

    /// Reads a request; `None` where the other side closes, or is too slow with the head.
    ///
    /// # Errors
    /// The answer to it.
    pub fn read(&mut self) -> std::result::Result<Option<Request>, Bad> {
        let mut bytes = Vec::new();
        let stream = self.within(HEAD_LIMIT);
        let head = loop {
            let mut chunk = [0; 2048];
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return Ok(None),
                Ok(length) => bytes.extend_from_slice(&chunk[..length]),
            }
            match http::head(&bytes) {
                Some(head) => break head.map_err(|why| (400, why))?,
                None if bytes.len() >= MAX_HEAD => {
                    return Err((431, format!("the header is longer than {MAX_HEAD} bytes")));
                }
                None => (),
            }
        };
        let bad = |why| (400, why);
        if head.header("transfer-encoding").map_err(bad)?.is_some() {
            return Err((400, "bad request: Transfer-Encoding is not accepted; use Content-Length".to_owned()));
        }
        let length = match head.header("content-length").map_err(bad)? {
            None => 0,
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse::<usize>().map_err(|_| (400, "bad request: Content-Length".to_owned()))?
            }
            Some(_) => return Err((400, "bad request: Content-Length".to_owned())),
        };
        if length > MAX_BODY {
            return Err((413, format!("the body is longer than {MAX_BODY} bytes")));
        }
        let mut body = bytes.split_off(head.length);
        let stream = self.within(BODY_LIMIT);
        while body.len() < length {
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(got) => body.extend_from_slice(&chunk[..got]),
                Err(_) => return Err((408, "the body did not arrive in time".to_owned())),
            }
        }
        body.truncate(length);
        Ok(Some(Request { head, body }))
    }

    /// Sends a part of an answer.
    ///
    /// # Errors
    /// The other side is gone or too slow.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let stream = self.within(WRITE_LIMIT);
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// Ends it after the answer: what still comes is thrown away, since closing upon it would take the answer back.
    pub fn close(mut self) {
        if let Stream::Tls(tls) = &mut self.stream {
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
        let timed = self.timed();
        timed.deadline = Instant::now() + LINGER;
        if timed.tcp.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let (mut rest, mut left) = ([0; 4096], MAX_BODY);
        while let Ok(length) = timed.read(&mut rest) {
            if length == 0 || length >= left {
                return;
            }
            left -= length;
        }
    }
}

/// Both.
trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

/// An answer.
pub struct Response {
    /// The status.
    pub status: u16,
    /// `Content-Type`
    pub content_type: &'static str,
    /// Further header lines, each with its end.
    pub headers: String,
    /// The body.
    pub body: String,
}

impl Response {
    /// JSON.
    pub fn json(status: u16, body: &impl serde::Serialize) -> Response {
        // Strings, numbers, lists and maps of them always have a JSON text.
        Response::raw(status, serde_json::to_string(body).unwrap_or_default())
    }

    /// A text that is JSON.
    pub fn raw(status: u16, body: String) -> Response {
        Response { status, content_type: "application/json", headers: String::new(), body }
    }

    /// Why it cannot be answered. `exit`: the exit status of the command.
    pub fn error(status: u16, error: &str, hint: &str, exit: Option<u8>) -> Response {
        Response::json(status, &serde_json::json!({ "error": error, "hint": hint, "exit": exit }))
    }

    /// As it goes out; `security`: the headers of every answer. A stream has no length.
    pub fn bytes(&self, security: &str, stream: bool) -> Vec<u8> {
        let Response { status, content_type, headers, body } = self;
        let reason = http::reason(*status);
        let length = if stream { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\n{length}{headers}{security}\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}
