//! Reserved disk space for a ledger: the file `reserve` beside it.
//!
//! Where the filesystem of the management directory is full, a ledger cannot be replaced, and its owner can neither switch
//! nor disconnect. So some space is held beforehand, and a part of it is given up each time that a write of the ledger fails
//! because of a full disk. A part and not all of it: whatever has filled the disk may take at once what the ledger has not
//! used. The space is taken again when there is some. Called by the threads that write ledgers; decides nothing.

use super::lock;
use crate::error::Error;
use crate::messages::{self, Tell};
use crossbeam_channel::{Receiver, RecvError, RecvTimeoutError};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// The name of the file.
pub const NAME: &str = "reserve";

/// How large it is, in bytes.
const SIZE: u64 = 1 << 20;

/// How much of it is given up at a time, in bytes: a ledger takes a block or two, its directory entry another one.
const PART: u64 = 64 << 10;

/// How long nothing must be queued before the reserve is filled.
const IDLE: Duration = Duration::from_millis(500);

/// The same where the disk was full.
const AGAIN: Duration = Duration::from_secs(10);

/// The reserve of one directory.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The file has its full size.
    whole: bool,
    /// The full disk has been reported.
    reported: bool,
}

/// Whether an error says that the disk, or the owner's quota, is full.
pub fn is_full(cause: &io::Error) -> bool {
    [Errno::NOSPC, Errno::DQUOT].iter().any(|full| cause.raw_os_error() == Some(full.raw_os_error()))
}

impl Reserve {
    /// The reserve of this directory; nothing is written yet.
    pub fn new(directory: &Path) -> Reserve {
        Reserve { path: directory.join(NAME), state: Mutex::default() }
    }

    /// The next of what is queued. Fills the reserve while nothing is, and then calls `idle` until that has nothing left to do.
    ///
    /// # Errors
    /// The queue is closed.
    pub fn next<T>(&self, queue: &Receiver<T>, mut idle: impl FnMut() -> bool) -> Result<T, RecvError> {
        let (mut tried, mut done) = (false, false);
        loop {
            let (whole, reported) = {
                let state = lock(&self.state);
                (state.whole, state.reported)
            };
            if whole && done {
                return queue.recv();
            }
            match queue.recv_timeout(if reported || tried { AGAIN } else { IDLE }) {
                Ok(next) => return Ok(next),
                Err(RecvTimeoutError::Disconnected) => return Err(RecvError),
                Err(RecvTimeoutError::Timeout) => {
                    self.fill();
                    (tried, done) = (true, idle());
                }
            }
        }
    }

    /// Takes the space that is missing, as far as the disk has it.
    fn fill(&self) {
        let mut state = lock(&self.state);
        if state.whole {
            return;
        }
        match self.grow() {
            Ok(()) => {
                state.whole = true;
                if std::mem::take(&mut state.reported) {
                    messages::tell(&Tell::ReserveRestored { path: self.path.display().to_string() });
                }
            }
            Err(cause) if !state.reported => {
                state.reported = true;
                messages::tell(&Tell::Warning(Error::io("reserve space for the ledger in file", &self.path, cause)));
            }
            Err(_) => (),
        }
    }

    fn grow(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        let mut length = file.metadata()?.len();
        while length < SIZE {
            let part = noise(length);
            // A part that did not fit holds its space all the same.
            let written = file.write_all(&part[..PART.min(SIZE - length) as usize]);
            if let Err(cause) = written {
                let _ = file.sync_all();
                return Err(cause);
            }
            length += PART;
        }
        file.sync_all()
    }

    /// Does a write. Where it fails because the disk is full, gives up a part of the reserve and does it again, until it
    /// succeeds or nothing is left to give up. The error says whether the disk is full.
    ///
    /// # Errors
    /// The last error of the write.
    pub fn retry<T>(&self, mut write: impl FnMut() -> Result<T, (Error, bool)>) -> Result<T, Error> {
        loop {
            match write() {
                Ok(done) => return Ok(done),
                Err((error, full)) if !full || !self.give_up() => return Err(error),
                Err(_) => (),
            }
        }
    }

    /// Gives up a part; false where nothing is left.
    fn give_up(&self) -> bool {
        let mut state = lock(&self.state);
        state.whole = false;
        let shrink = || {
            let file = File::options().write(true).open(&self.path)?;
            let length = file.metadata()?.len();
            file.set_len(length.saturating_sub(PART))?;
            // Some filesystems give the space to others only after this.
            file.sync_all()?;
            Ok::<_, io::Error>(length > 0)
        };
        let given = shrink().unwrap_or(false);
        if given && !std::mem::replace(&mut state.reported, true) {
            messages::tell(&Tell::ReserveUsed { path: self.path.display().to_string() });
        }
        given
    }
}

/// Bytes that a filesystem cannot compress.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_ne_bytes()
    };
    (0..PART / 8).flat_map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn length(reserve: &Reserve) -> u64 {
        reserve.path.metadata().unwrap().len()
    }

    #[test]
    fn a_write_on_a_full_disk_takes_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(dir.path());
        assert!(!lock(&reserve.state).whole);
        reserve.fill();
        assert!(lock(&reserve.state).whole);
        assert_eq!(length(&reserve), SIZE);
        // What is really allocated, not only promised.
        use std::os::unix::fs::MetadataExt;
        assert!(reserve.path.metadata().unwrap().blocks() * 512 >= SIZE);

        let tries = Cell::new(0);
        let done = reserve.retry(|| {
            tries.set(tries.get() + 1);
            if tries.get() < 3 { Err((Error::new("full"), true)) } else { Ok(tries.get()) }
        });
        assert_eq!((done, length(&reserve)), (Ok(3), SIZE - 2 * PART));
        assert!(!lock(&reserve.state).whole);
        // Another fault than a full disk takes nothing.
        let failed = reserve.retry(|| Err::<(), _>((Error::new("broken"), false)));
        assert_eq!((failed, length(&reserve)), (Err(Error::new("broken")), SIZE - 2 * PART));
        // It ends where nothing is left.
        tries.set(0);
        let failed = reserve.retry(|| {
            tries.set(tries.get() + 1);
            Err::<(), _>((Error::new("full"), true))
        });
        assert_eq!((failed, length(&reserve), tries.get()), (Err(Error::new("full")), 0, SIZE / PART - 2 + 1));
        reserve.fill();
        assert_eq!((lock(&reserve.state).whole, length(&reserve)), (true, SIZE));
    }

    #[test]
    fn full_is_an_error_of_space_alone() {
        assert!(is_full(&Errno::NOSPC.into()) && is_full(&Errno::DQUOT.into()));
        assert!(!is_full(&Errno::IO.into()) && !is_full(&io::Error::other("x")));
    }
}
