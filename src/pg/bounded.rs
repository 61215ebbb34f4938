//! Waiting with an end: a cancel flag, and calls that may hang made on threads that can be abandoned. Called by the
//! runner and by what it calls.

use crate::error::{Error, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, never, select};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The most threads that may hang at one time.
const MAX_ABANDONED: usize = 32;

static OUT: AtomicUsize = AtomicUsize::new(0);

/// Set once, by dropping its [`Canceller`]; seen by every wait.
#[derive(Clone, Debug)]
pub struct Cancel(Receiver<()>);

/// Whoever drops this cancels.
#[derive(Debug)]
pub struct Canceller {
    _held: Sender<()>,
}

impl Cancel {
    /// A flag and what sets it.
    pub fn new() -> (Canceller, Cancel) {
        let (held, seen) = bounded(0);
        (Canceller { _held: held }, Cancel(seen))
    }

    /// A flag that is never set.
    pub fn never() -> Cancel {
        Cancel(never())
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.0.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// An error where it is set.
    pub fn check(&self) -> Result<()> {
        if self.is_set() { Err(cancelled()) } else { Ok(()) }
    }

    /// Waits; an error as soon as it is set.
    pub fn sleep(&self, time: Duration) -> Result<()> {
        match self.0.recv_timeout(time) {
            Err(RecvTimeoutError::Disconnected) => Err(cancelled()),
            _ => Ok(()),
        }
    }
}

fn cancelled() -> Error {
    Error::new("the controller cancelled the operation")
}

/// Calls `work` on a thread of its own, and returns its answer; an error where there is none within the limit or before
/// the flag is set. The thread then continues by itself, and its answer is dropped: `work` must be such that this does no
/// harm. `what` completes "could not ...: no answer within N ms".
pub fn call<T: Send + 'static>(
    what: &str,
    limit: Duration,
    cancel: &Cancel,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    answer(what, limit, cancel, &begin(what, work)?)
}

/// The same without a limit: each `pause`, `look` sees whether to wait any longer, and its error ends the wait.
pub fn watch<T: Send + 'static>(
    what: &str,
    pause: Duration,
    cancel: &Cancel,
    mut look: impl FnMut() -> Result<()>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let told = begin(what, work)?;
    loop {
        if let Some(answer) = answer_within(what, pause, cancel, &told) {
            return answer;
        }
        look()?;
    }
}

fn begin<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<Receiver<Result<T>>> {
    if OUT.fetch_add(1, Ordering::Relaxed) >= MAX_ABANDONED {
        OUT.fetch_sub(1, Ordering::Relaxed);
        return Err(Error::new(format!("could not {what}: too many earlier calls hang")));
    }
    let (tell, told) = bounded(1);
    let spawned = std::thread::Builder::new().name("pg-call".into()).spawn(move || {
        let _ = tell.send(work());
        OUT.fetch_sub(1, Ordering::Relaxed);
    });
    if let Err(e) = spawned {
        OUT.fetch_sub(1, Ordering::Relaxed);
        return Err(Error::new(format!("could not {what}: could not start a thread: {e}")));
    }
    Ok(told)
}

/// Waits for an answer, the limit, or the flag.
pub fn answer<T>(what: &str, limit: Duration, cancel: &Cancel, told: &Receiver<Result<T>>) -> Result<T> {
    let late = || Err(Error::new(format!("could not {what}: no response within {} ms", limit.as_millis())));
    answer_within(what, limit, cancel, told).unwrap_or_else(late)
}

/// The answer, or that the flag is set; `None` if there is neither within the limit.
fn answer_within<T>(what: &str, limit: Duration, cancel: &Cancel, told: &Receiver<Result<T>>) -> Option<Result<T>> {
    let ended = || Error::new(format!("could not {what}: the thread ended"));
    select! {
        recv(told) -> got => Some(got.unwrap_or_else(|_| Err(ended()))),
        recv(cancel.0) -> _ => Some(Err(cancelled())),
        default(limit) => None,
    }
}

/// Repeats `look` each `pause` until it gives something, at most for `limit`, then `None`. An error of `look` ends it.
pub fn poll<T>(
    limit: Duration,
    pause: Duration,
    cancel: &Cancel,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let end = Instant::now() + limit;
    loop {
        cancel.check()?;
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        cancel.sleep(pause)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_end() {
        let (canceller, cancel) = Cancel::new();
        let long = Duration::from_secs(60);
        assert_eq!(call("add", long, &cancel, || Ok(1 + 1)), Ok(2));
        let hang = || {
            std::thread::sleep(Duration::from_secs(1));
            Ok(())
        };
        let late = call("wait", Duration::from_millis(5), &cancel, hang).unwrap_err();
        assert_eq!(late.message, "could not wait: no response within 5 ms");
        assert!(!cancel.is_set());
        let waiter = cancel.clone();
        let waits = std::thread::spawn(move || call("wait", long, &waiter, hang));
        drop(canceller);
        assert!(waits.join().unwrap().unwrap_err().message.contains("cancelled"));
        assert!(cancel.is_set() && cancel.sleep(long).is_err());
        assert_eq!(Cancel::never().check(), Ok(()));
    }

    #[test]
    fn watched_calls_end_by_the_watch_alone() {
        let pause = Duration::from_millis(1);
        let slow = || {
            std::thread::sleep(Duration::from_millis(50));
            Ok(7)
        };
        assert_eq!(watch("add", pause, &Cancel::never(), || Ok(()), slow), Ok(7));
        let mut looks = 0;
        let look = || {
            looks += 1;
            if looks < 3 { Ok(()) } else { Err(Error::new("stuck")) }
        };
        assert_eq!(watch("add", pause, &Cancel::never(), look, slow), Err(Error::new("stuck")));
        let (canceller, cancel) = Cancel::new();
        drop(canceller);
        assert!(watch("add", pause, &cancel, || Ok(()), slow).unwrap_err().message.contains("cancelled"));
    }
}
