//! Keeps the other server from removing WAL that this one will need: a temporary physical slot, held by a session of its own
//! from before the copy until the standby streams. It goes with the session, so that a dead controller or host leaves none;
//! and it is given up where it would fill the other server's disk. Called by [`super::perform`].

use super::Setup;
use crate::error::{Error, Result};
use crate::pg::bounded::{self, Cancel, Canceller};
use crate::pg::connect::{Remote, Session};
use crossbeam_channel::{Sender, bounded};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a session's opening, or one of its queries, may take.
const QUERY: Duration = Duration::from_secs(30);

/// How often is looked how much the slot keeps, and whether the standby streams.
const PAUSE: Duration = Duration::from_secs(1);

/// The least that a slot may keep where the server sets no bound of its own, in MiB.
const BOUND: u64 = 16 << 10;

/// The slot of the last rebuild, while its standby does not stream yet.
static WAITING: Mutex<Option<Canceller>> = Mutex::new(None);

/// A slot; dropped with this unless [`Slot::until_streaming`].
pub struct Slot {
    canceller: Canceller,
    made: Arc<AtomicBool>,
}

impl Slot {
    /// Makes one on the other server. That of an earlier rebuild is dropped.
    ///
    /// # Errors
    /// It could not be made. Nothing else is wrong with that than that WAL may be missing in the end.
    pub fn hold(setup: &Setup, source: &Remote, cancel: &Cancel) -> Result<Slot> {
        drop(WAITING.lock().unwrap_or_else(PoisonError::into_inner).take());
        let (canceller, cancelled) = Cancel::new();
        let made = Arc::new(AtomicBool::new(false));
        let (tell, told) = bounded(1);
        let holder = Holder { source: source.clone(), name: setup.name.clone(), made: made.clone() };
        let thread = std::thread::Builder::new().name("rebuild-slot".into());
        thread
            .spawn(move || holder.run(&tell, &cancelled))
            .map_err(|e| Error::new(format!("could not start a thread: {e}")))?;
        bounded::answer("create a replication slot on the other server", QUERY * 2, cancel, &told)?;
        Ok(Slot { canceller, made })
    }

    /// The data directory is made: the slot stays until its standby streams.
    pub fn until_streaming(self) {
        self.made.store(true, Ordering::Relaxed);
        *WAITING.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.canceller);
    }
}

/// What the thread holds.
struct Holder {
    source: Remote,
    name: String,
    made: Arc<AtomicBool>,
}

impl Holder {
    fn run(&self, tell: &Sender<Result<()>>, cancel: &Cancel) {
        let (mut session, slot, bound) = match self.make() {
            Ok(made) => made,
            Err(error) => return drop(tell.send(Err(error))),
        };
        if tell.send(Ok(())).is_err() {
            return;
        }
        while cancel.sleep(PAUSE).is_ok() {
            match self.look(&mut session, &slot) {
                Ok((true, _)) if self.made.load(Ordering::Relaxed) => return,
                Ok((_, kept)) if bound.is_some_and(|bound| kept > bound) => {
                    log::warn!("the replication slot of the rebuild is dropped: it retains {kept} MiB of WAL");
                    return;
                }
                Ok(_) => {}
                Err(error) => return log::warn!("the replication slot of the rebuild is lost: {error}"),
            }
        }
    }

    /// The session, the slot's name, and how many MiB it may keep.
    fn make(&self) -> Result<(Session, String, Option<u64>)> {
        let mut session = Session::open_remote(&self.source, QUERY, QUERY, "retaining WAL for the rebuild")?;
        let sql = "SELECT slot_name, (SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'), \
                   (SELECT setting FROM pg_settings WHERE name = 'max_wal_size') FROM \
                   pg_create_physical_replication_slot('mirroring_controller_' || pg_backend_pid(), true, true)";
        let row = session.query(sql, QUERY)?.into_iter().next().unwrap_or_default();
        let text = |column: usize| row.get(column).cloned().flatten();
        let slot = text(0).ok_or_else(|| Error::new("the other server returns no name of the slot"))?;
        let own = text(1).and_then(|size| size.parse::<u64>().ok());
        let wal = text(2).and_then(|size| size.parse::<u64>().ok()).unwrap_or(0);
        Ok((session, slot, own.is_none().then_some(BOUND.max(4 * wal))))
    }

    /// Whether the standby streams, and how many MiB the slot keeps.
    fn look(&self, session: &mut Session, slot: &str) -> Result<(bool, u64)> {
        let name = self.name.replace('\'', "''");
        let sql = format!(
            "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE lower(application_name) = lower('{name}') \
             AND state = 'streaming'), (SELECT (pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) / 1048576)::bigint \
             FROM pg_replication_slots WHERE slot_name = '{slot}')"
        );
        let row = session.query(&sql, QUERY)?.into_iter().next().unwrap_or_default();
        let text = |column: usize| row.get(column).cloned().flatten();
        // A slot that the server's own bound has invalidated keeps nothing.
        Ok((text(0).as_deref() == Some("t"), text(1).and_then(|kept| kept.parse().ok()).unwrap_or(0)))
    }
}
