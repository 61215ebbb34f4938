//! The other server's instance, as the programs that copy from it need it. Called by [`super::perform`].

use super::{Setup, source};
use crate::error::{Error, Result};
use crate::fsm::event::Rebuild;
use crate::fsm::types::{SystemId, Timeline};
use crate::pg::bounded::{self, Cancel};
use crate::pg::connect::{Remote, Session};
use crate::pg::queries;
use std::path::PathBuf;
use std::time::Duration;

/// How long a session's opening, or a short query, may take.
const QUERY: Duration = Duration::from_secs(30);

/// How long a `CHECKPOINT` may take.
const CHECKPOINT: Duration = Duration::from_secs(3600);

/// The other server's instance.
#[derive(Clone, Debug)]
pub struct Primary {
    /// How it is reached.
    pub remote: Remote,
    /// The same for programs of PostgreSQL's, without a password. A host that is gone is noticed within half a minute.
    pub conninfo: String,
    /// For their environment.
    pub password: Option<String>,
    /// Its cluster.
    pub system: SystemId,
    /// On which it writes; 0 before [`Primary::checkpoint`].
    pub timeline: Timeline,
}

impl Primary {
    /// Of this order.
    ///
    /// # Errors
    /// Its address makes no sense.
    pub fn new(setup: &Setup, what: &Rebuild) -> Result<Primary> {
        let remote = source::remote(setup, &what.source)?;
        let conninfo = source::conninfo(setup, &remote);
        Ok(Primary { password: remote.password.clone(), remote, conninfo, system: what.system, timeline: Timeline(0) })
    }

    /// Makes a checkpoint, so that its control file tells its timeline (right after a promotion `pg_rewind` would see the one
    /// before, and do nothing), and learns the timeline.
    ///
    /// # Errors
    /// It is not reached, is no primary, or is another cluster's.
    pub fn checkpoint(&mut self, cancel: &Cancel) -> Result<()> {
        let (timeline, system) = self.ask("make a checkpoint on the other server", CHECKPOINT, cancel, |session| {
            if queries::is_in_recovery(session, QUERY)? {
                return Err(Error::new("the other server's instance is not running as a primary"));
            }
            queries::checkpoint(session, CHECKPOINT)?;
            let system = "SELECT system_identifier FROM pg_control_system()";
            let row = session.query(system, QUERY)?.into_iter().flatten().flatten().next();
            // A system identifier may look negative in SQL.
            let system = row.and_then(|id| id.parse::<i64>().ok()).unwrap_or_default() as u64;
            Ok((queries::primary_timeline(session, QUERY)?, system))
        })?;
        if self.system.0 != 0 && system != self.system.0 {
            return Err(Error::new(format!("the other server's instance belongs to another cluster: {system}")));
        }
        (self.timeline, self.system) = (timeline, SystemId(system));
        Ok(())
    }

    /// Whether it still runs as the primary: before the last other copy is deleted.
    ///
    /// # Errors
    /// It does not, or is not reached.
    pub fn is_there(&self, cancel: &Cancel) -> Result<()> {
        let in_recovery = self.ask("query the other server again", QUERY * 2, cancel, |session| {
            queries::is_in_recovery(session, QUERY).map_err(Error::from)
        })?;
        if in_recovery { Err(Error::new("the other server's instance is no longer a primary")) } else { Ok(()) }
    }

    /// Its tablespaces that have a directory of their own: OID and directory.
    ///
    /// # Errors
    /// It is not reached.
    pub fn tablespaces(&self, cancel: &Cancel) -> Result<Vec<(String, PathBuf)>> {
        let sql = "SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace ORDER BY oid";
        let rows = self.ask("list the other server's tablespaces", QUERY * 2, cancel, |session| {
            session.query(sql, QUERY).map_err(Error::from)
        })?;
        let pair = |row: Vec<Option<String>>| {
            let mut columns = row.into_iter();
            Some((columns.next()??, PathBuf::from(columns.next()??)))
        };
        // Those that lie in the data directory itself have a relative location.
        Ok(rows.into_iter().filter_map(pair).filter(|(_, location)| location.is_absolute()).collect())
    }

    fn ask<T: Send + 'static>(
        &self,
        what: &str,
        limit: Duration,
        cancel: &Cancel,
        work: impl FnOnce(&mut Session) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let remote = self.remote.clone();
        bounded::call(what, limit, cancel, move || {
            let mut session = Session::open_remote(&remote, QUERY, Duration::ZERO, "the rebuild")?;
            work(&mut session)
        })
    }
}
