//! Where messages go: syslog's local socket, a bounded log file, standard error.
//!
//! Syslog gets datagrams that are never waited for. The file and standard error can block (a dying disk, a full pipe), so
//! a thread of their own writes them from a bounded queue; what does not fit is dropped and counted.

use super::{Message, Tell, of_tell};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Size at which the log file is renamed to `log.1`, in bytes; so the two together stay below twice that.
const FILE_LIMIT: u64 = 4 << 20;
/// Lines that may wait for the file.
const QUEUE: usize = 1024;
/// The socket of the local syslog daemon.
const SOCKET: &str = "/dev/log";
/// Where that leads when systemd's journal listens there (systemd-journald.service(8)).
const SOCKET_OF_JOURNAL: &str = "/run/systemd/journal/dev-log";

/// A syslog facility, `LOCAL0` to `LOCAL7` (`syslog_facility`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facility(u8);

impl Facility {
    /// `LOCALn`, n from 0 to 7; anything above is 7.
    pub fn local(n: u8) -> Facility {
        Facility(16 + n.min(7))
    }
}

/// Where this process writes its messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// `syslog_facility`.
    pub facility: Facility,
    /// `syslog_ident`.
    pub ident: String,
    /// The log file (`DIR/ID/log`); it grows to 4 MiB, is then renamed to `log.1`, and begun anew.
    pub file: Option<PathBuf>,
    /// Write to standard error as well (`--foreground`); not where both lead to systemd's journal, which would have each
    /// message twice.
    pub stderr: bool,
}

struct Sink {
    output: Output,
    socket: Mutex<Option<UnixDatagram>>,
    queue: Sender<Job>,
    lost: AtomicU64,
}

enum Job {
    Line(String),
    Flush(Sender<()>),
}

/// How often a message to syslog tries to get the socket while other threads send.
const ATTEMPTS: usize = 1000;

static SINK: OnceLock<Sink> = OnceLock::new();

/// Opens the sink of this process; the first call counts. To be called after the last fork. A panic of this process is
/// from then on told as a message before the process aborts.
pub fn init(output: Output) {
    let (queue, lines) = bounded(QUEUE);
    let stderr = output.stderr && !is_journal_for_both();
    let writer = Writer { file: None, size: 0, path: output.file.clone(), stderr };
    let sink = Sink { output, socket: Mutex::new(None), queue, lost: AtomicU64::new(0) };
    if SINK.set(sink).is_err() {
        return;
    }
    // Without the thread (no memory for one) the queue fills and its lines are counted as lost; syslog still works.
    let _ = std::thread::Builder::new().name("log".into()).spawn(move || writer.run(&lines));
    std::panic::set_hook(Box::new(|info| {
        write(&of_tell(&Tell::Panic(info.to_string())));
        flush(Duration::from_secs(1));
        std::process::abort();
    }));
}

/// Whether standard error and the local socket both lead to the journal: the service manager names the former by device and
/// inode (systemd.exec(5), `JOURNAL_STREAM`).
fn is_journal_for_both() -> bool {
    let stream = rustix::fs::fstat(std::io::stderr()).map(|stat| format!("{}:{}", stat.st_dev, stat.st_ino));
    stream.is_ok_and(|stream| std::env::var("JOURNAL_STREAM").is_ok_and(|told| told == stream))
        && std::fs::read_link(SOCKET).is_ok_and(|path| path == Path::new(SOCKET_OF_JOURNAL))
}

/// Waits until what was written so far has reached the file and standard error, at most this long. For the end of the
/// process.
pub fn flush(limit: Duration) {
    if let Some(sink) = SINK.get() {
        let (done, wait) = bounded(1);
        if sink.queue.send_timeout(Job::Flush(done), limit).is_ok() {
            let _ = wait.recv_timeout(limit);
        }
    }
}

/// Hands a message to syslog and to the writer. Without [`init`] (the command line) it goes to standard error.
pub(super) fn write(message: &Message) {
    let Some(sink) = SINK.get() else {
        eprintln!("{message}");
        return;
    };
    let line = format!("{}[{}]: {message}", sink.output.ident, std::process::id());
    sink.syslog(message, &line);
    let lost = sink.lost.swap(0, Ordering::Relaxed);
    if lost > 0 {
        sink.enqueue(format!("{}[{}]: {}", sink.output.ident, std::process::id(), of_tell(&Tell::MessagesLost(lost))));
    }
    sink.enqueue(line);
}

impl Sink {
    /// One datagram `<priority>line`. Without a time: each syslog daemon that reads a local socket puts its own there, in
    /// its own time zone.
    fn syslog(&self, message: &Message, line: &str) {
        let priority = self.output.facility.0 * 8 + message.kind.severity();
        let datagram = format!("<{priority}>{line}");
        // Another thread that sends at the same time is done soon; the socket does not block.
        let attempt = |_| self.socket.try_lock().inspect_err(|_| std::thread::yield_now()).ok();
        let Some(mut socket) = (0..ATTEMPTS).find_map(attempt) else { return };
        for _ in 0..2 {
            if socket.is_none() {
                *socket = connect();
            }
            match socket.as_ref().map(|s| s.send(datagram.as_bytes())) {
                Some(Ok(_)) | None => return,
                Some(Err(e)) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                // The daemon was restarted: its socket is another one.
                Some(Err(_)) => *socket = None,
            }
        }
    }

    fn enqueue(&self, line: String) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.queue.try_send(Job::Line(line)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn connect() -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect(SOCKET).ok()?;
    Some(socket)
}

struct Writer {
    file: Option<File>,
    size: u64,
    path: Option<PathBuf>,
    stderr: bool,
}

impl Writer {
    fn run(mut self, lines: &Receiver<Job>) {
        for job in lines {
            match job {
                Job::Line(line) => self.line(&line),
                Job::Flush(done) => drop(done.send(())),
            }
        }
    }

    fn line(&mut self, line: &str) {
        if self.stderr {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
        if let Some(path) = self.path.clone() {
            let text = format!("{} {line}\n", utc(SystemTime::now()));
            if self.append(&path, text.as_bytes()).is_err() {
                // Tried again with the next line: the disk may be full for now.
                self.file = None;
            }
        }
    }

    fn append(&mut self, path: &Path, text: &[u8]) -> std::io::Result<()> {
        if self.file.is_some() && self.size >= FILE_LIMIT {
            std::fs::rename(path, path.with_extension("1"))?;
            self.file = None;
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
                self.size = file.metadata()?.len();
                none.insert(file)
            }
        };
        file.write_all(text)?;
        self.size += text.len() as u64;
        Ok(())
    }
}

/// `2026-01-31T12:00:00.123Z`: independent of time zones and locales, sorts as text.
pub(crate) fn utc(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days since 1970 to the Gregorian calendar, with years that begin in March (so that the leap day is the last).
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year_of_era + carry;
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        let at = |s: u64| utc(UNIX_EPOCH + Duration::from_millis(s));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(1_767_225_599_999), "2025-12-31T23:59:59.999Z");
    }

    #[test]
    fn the_file_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = Writer { file: None, size: 0, path: Some(path.clone()), stderr: false };
        let line = "x".repeat(64 << 10);
        for _ in 0..100 {
            writer.line(&line);
        }
        let sizes = ["log", "log.1"].map(|f| std::fs::metadata(dir.path().join(f)).unwrap().len());
        assert!(sizes[0] > 0 && sizes[0] < FILE_LIMIT && sizes[1] >= FILE_LIMIT, "{sizes:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
