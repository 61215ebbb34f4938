//! The state of the backups of a pair, as one of its servers sees it: values for the status, metrics and monitoring systems.

use super::archive::Archive;
use super::catalog::{Backup, Catalog};
use super::destination::Destination;
use super::make::retired;
use super::reach::{Contents, Holdings, Reach, reach};
use crate::error::Result;
use crate::fsm::types::Lsn;
use crate::pg::connect::{Session, Target};
use crate::rebuild::{human, now_ms};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long the instance may take to respond.
const QUERY: Duration = Duration::from_secs(5);

/// A survey that is older than this says that the destination does not respond, ms.
const STALE_MS: u64 = 5 * 60_000;

/// WAL that is complete, and is not archived for this time, is a problem, s.
const LATE_S: u64 = 10 * 60;

/// What is surveyed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scope {
    /// `backup_destination`.
    pub destination: Destination,
    /// `backup_generations`.
    pub generations: usize,
    /// `backup_max_age`, hours.
    pub max_age_hours: u32,
    /// The identifier of this server.
    pub server: String,
    /// The identifier of the other server.
    pub peer: String,
}

/// The backups of both servers.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Survey {
    /// `backup_destination`.
    pub destination: String,
    /// Why it cannot be read.
    #[serde(with = "crate::optional_text")]
    pub error: Option<String>,
    /// Why the backups of the other server are not known.
    #[serde(with = "crate::optional_text")]
    pub peer_error: Option<String>,
    /// The number of complete backups on this server.
    pub own_backups: usize,
    /// The number of complete backups on the other server; `None` if not known.
    pub peer_backups: Option<usize>,
    /// Backups of this server whose description cannot be read.
    pub damaged: Vec<String>,
    /// The newest verified backup of both servers that leads to the newest timeline.
    pub newest: Option<Newest>,
    /// Backups that lead only to a timeline that a recovery has abandoned.
    pub abandoned: Vec<Abandoned>,
    /// The other server uses the same directory.
    pub shared: bool,
    /// The limit of its age, hours.
    pub max_age_hours: u32,
    /// The archiver of this server's instance; `None` if the instance does not report it.
    pub archiver: Option<Archiver>,
    /// Bytes of the WAL of this server's instance that neither archive has after the newest backup, and that are lost if both servers
    /// are; `None` if not known.
    pub unarchived_bytes: Option<u64>,
    /// The size of a WAL segment of the newest backup.
    pub segment_size: u64,
    /// What this user can still write to the destination, bytes; `None` if not known.
    pub free_bytes: Option<u64>,
    /// Bytes of the newest full backup of this server, which the next one is expected to need.
    pub needed_bytes: Option<u64>,
    /// The backups that this server removes after its next full backup.
    pub next_removed: Vec<String>,
    /// When this was read, ms since 1970.
    pub read_ms: u64,
}

/// The newest verified backup.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Newest {
    /// Its name.
    pub name: String,
    /// The server that has it.
    pub on: String,
    /// When it was complete, ms since 1970.
    pub ended_ms: u64,
    /// When it was verified last, ms since 1970.
    pub verified_ms: u64,
    /// Where the WAL ends that follows it without a gap.
    pub wal_until: String,
    /// When the end of that WAL was archived, ms since 1970.
    pub wal_archived_ms: u64,
    /// The first WAL segment that is missing although later ones are there.
    pub wal_missing: Option<String>,
}

/// A backup that leads only to a timeline that a recovery to an earlier state has abandoned.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Abandoned {
    /// Its name.
    pub name: String,
    /// The server that has it.
    pub on: String,
    /// Where the WAL ends that follows it without a gap, and on which timeline.
    pub wal_until: String,
    /// See `wal_until`.
    pub wal_timeline: u32,
    /// The timeline that was begun instead.
    pub abandoned_for: u32,
}

/// `pg_stat_archiver`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Archiver {
    /// `archive_mode` is not off.
    pub enabled: bool,
    /// Where the WAL of the instance ends, or has been replayed to.
    pub wal_end: Option<String>,
    /// The last attempt failed.
    pub failing: bool,
    /// How many attempts have failed.
    pub failed_count: u64,
    /// The file of the last failure.
    #[serde(with = "crate::optional_text")]
    pub last_failed: Option<String>,
    /// When that was, ms since 1970.
    pub last_failed_ms: Option<u64>,
    /// When a file was archived last, ms since 1970.
    pub last_archived_ms: Option<u64>,
}

/// How bad a problem is, as monitoring systems count it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// A backup may become impossible or is old.
    Warning,
    /// Recovery is not possible, or not to the present.
    Critical,
}

/// Something that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Problem {
    /// The destination cannot be read.
    Unreadable(String),
    /// The destination has not responded for this time, s.
    Silent(u64),
    /// The description of this backup cannot be read.
    Damaged(String),
    /// Neither server has a complete backup, as far as is known.
    NoBackup,
    /// All backups lead to timelines that a recovery has abandoned for this one.
    AllAbandoned(u32),
    /// Both servers use this directory.
    Shared(String),
    /// This WAL segment after the newest backup is missing from both archives; or from this server's, and the other server
    /// cannot be asked.
    WalMissing(String, bool),
    /// The newest backup is this old, s, and may have this age, hours.
    Overdue(u64, u32),
    /// So much WAL, bytes, has not been archived for this time, s.
    NotArchived(u64, u64),
    /// The instance does not archive.
    ArchiverFails(Option<String>),
    /// So much is free, and the next backup needs so much, bytes.
    NoRoom(u64, u64),
}

impl Survey {
    /// Reads this server's destination, and combines it with what the other server has. Can hang with the destination.
    pub fn take(scope: &Scope, theirs: std::result::Result<Contents, String>, archiver: Option<Archiver>) -> Survey {
        let mut survey = Survey {
            destination: scope.destination.path().display().to_string(),
            max_age_hours: scope.max_age_hours,
            archiver,
            ..Survey::default()
        };
        let theirs = theirs.unwrap_or_else(|why| {
            survey.peer_error = Some(why);
            Contents::default()
        });
        survey.shared = scope.destination.shared_with(&scope.peer, theirs.identity.as_deref()).is_some();
        survey.peer_backups = survey.peer_error.is_none().then_some(theirs.backups.len());
        if let Err(error) = survey.read(scope, theirs) {
            survey.error = Some(error.message);
        }
        survey.read_ms = now_ms();
        survey
    }

    fn read(&mut self, scope: &Scope, theirs: Contents) -> Result<()> {
        let catalog = Catalog::read(&scope.destination)?;
        self.own_backups = catalog.backups.len();
        self.damaged = catalog.damaged.iter().map(|(path, _)| path.display().to_string()).collect();
        let room = rustix::fs::statvfs(scope.destination.path()).ok();
        self.free_bytes = room.map(|room| room.f_bavail.saturating_mul(room.f_frsize));
        self.needed_bytes = catalog.newest_full().map(|backup| backup.bytes);
        let own = Holdings::read(&Archive::new(scope.destination.clone()))?;
        self.next_removed = retired(&catalog, scope.generations.saturating_sub(1), &own);
        let holdings = own.and(theirs.holdings);
        let own = catalog.backups.iter().map(|backup| (&scope.server, backup));
        let all = own.chain(theirs.backups.iter().map(|backup| (&scope.peer, backup)));
        let mut newest: Option<(&String, &Backup, Reach)> = None;
        for (on, backup) in all {
            let reach = reach(backup, &holdings, None)?;
            match holdings.abandoned_for(&reach) {
                Some(by) => self.abandoned.push(Abandoned::new(on, backup, &reach, by)),
                None if newest.as_ref().is_some_and(|(_, newest, _)| newest.ended_ms > backup.ended_ms) => {}
                None => newest = Some((on, backup, reach)),
            }
        }
        self.segment_size = newest.as_ref().map_or(0, |(_, backup, _)| backup.segment_size);
        let end: Option<Lsn> = self.archiver.as_ref().and_then(|archiver| archiver.wal_end.as_ref()?.parse().ok());
        let reached = newest.as_ref().map(|(.., reach)| reach.until);
        self.unarchived_bytes = end.zip(reached).map(|(end, reached)| end.0.saturating_sub(reached.0));
        self.newest = newest.map(|(on, backup, reach)| Newest::new(on, backup, &reach));
        Ok(())
    }

    /// The age of the newest backup at this time, s.
    pub fn age_s(&self, now_ms: u64) -> Option<u64> {
        self.newest.as_ref().map(|newest| now_ms.saturating_sub(newest.ended_ms) / 1000)
    }

    /// For how long the newest WAL has been archived, s.
    pub fn archived_age_s(&self, now_ms: u64) -> Option<u64> {
        self.newest.as_ref().map(|newest| now_ms.saturating_sub(newest.wal_archived_ms) / 1000)
    }

    /// What is wrong at this time, the worst first.
    pub fn problems(&self, now_ms: u64) -> Vec<Problem> {
        let mut problems = Vec::new();
        let silent_ms = now_ms.saturating_sub(self.read_ms);
        if silent_ms > STALE_MS {
            problems.push(Problem::Silent(silent_ms / 1000));
        }
        problems.extend(self.error.clone().map(Problem::Unreadable));
        problems.extend(self.damaged.iter().cloned().map(Problem::Damaged));
        if self.shared {
            problems.push(Problem::Shared(self.destination.clone()));
        }
        // Without the other server's list, whether the pair has a backup is not known.
        if self.newest.is_none() && self.error.is_none() && self.peer_error.is_none() {
            let by = self.abandoned.iter().map(|backup| backup.abandoned_for).max();
            problems.push(by.map_or(Problem::NoBackup, Problem::AllAbandoned));
        }
        let missing = self.newest.iter().filter_map(|newest| newest.wal_missing.clone());
        problems.extend(missing.map(|segment| Problem::WalMissing(segment, self.peer_error.is_none())));
        let limit = u64::from(self.max_age_hours).saturating_mul(3600);
        let old = self.age_s(now_ms).filter(|age| *age > limit);
        problems.extend(old.map(|age| Problem::Overdue(age, self.max_age_hours)));
        if let Some(archiver) = self.archiver.as_ref().filter(|archiver| archiver.failing) {
            problems.push(Problem::ArchiverFails(archiver.last_failed.clone()));
        }
        let archives = self.archiver.as_ref().is_some_and(|archiver| archiver.enabled && !archiver.failing);
        if let (true, Some(bytes), Some(age_s)) = (archives, self.unarchived_bytes, self.archived_age_s(now_ms))
            && bytes >= self.segment_size.max(1)
            && age_s > LATE_S
        {
            problems.push(Problem::NotArchived(bytes, age_s));
        }
        if let (Some(free), Some(needed)) = (self.free_bytes, self.needed_bytes)
            && free < needed
        {
            problems.push(Problem::NoRoom(free, needed));
        }
        problems
    }
}

impl Newest {
    fn new(on: &str, backup: &Backup, reach: &Reach) -> Newest {
        Newest {
            name: backup.name.clone(),
            on: on.to_owned(),
            ended_ms: backup.ended_ms,
            verified_ms: backup.verified_ms,
            wal_until: reach.until.to_string(),
            wal_archived_ms: reach.archived_ms.unwrap_or_default().max(backup.ended_ms),
            wal_missing: reach.missing.map(|segment| segment.to_string()),
        }
    }
}

impl Abandoned {
    fn new(on: &str, backup: &Backup, reach: &Reach, by: u32) -> Abandoned {
        Abandoned {
            name: backup.name.clone(),
            on: on.to_owned(),
            wal_until: reach.until.to_string(),
            wal_timeline: reach.newest_timeline,
            abandoned_for: by,
        }
    }

    /// It, as a sentence.
    pub fn sentence(&self) -> String {
        let Abandoned { name, on, wal_until, wal_timeline, abandoned_for } = self;
        format!(
            "backup {name} of {on} leads only to timeline {wal_timeline}, to {wal_until}, which a recovery has abandoned for timeline \
             {abandoned_for}"
        )
    }
}

impl Archiver {
    /// Asks the instance.
    ///
    /// # Errors
    /// It does not respond.
    pub fn read(target: &Target) -> Result<Archiver> {
        const SQL: &str = "SELECT failed_count > 0 AND (last_archived_time IS NULL OR last_failed_time > last_archived_time), \
             failed_count, last_failed_wal, (extract(epoch FROM last_failed_time) * 1000)::bigint, \
             (extract(epoch FROM last_archived_time) * 1000)::bigint, current_setting('archive_mode') <> 'off', \
             CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END FROM pg_stat_archiver";
        let mut session = Session::open(target, QUERY, "the state of the archiver")?;
        let row = session.query(SQL, QUERY)?.into_iter().next().unwrap_or_default();
        let column = |n: usize| row.get(n).cloned().flatten();
        let number = |n: usize| column(n).and_then(|text| text.parse().ok());
        Ok(Archiver {
            enabled: column(5).as_deref() == Some("t"),
            wal_end: column(6),
            failing: column(0).as_deref() == Some("t"),
            failed_count: number(1).unwrap_or_default(),
            last_failed: column(2),
            last_failed_ms: number(3),
            last_archived_ms: number(4),
        })
    }
}

impl Problem {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Problem::Overdue(..) | Problem::ArchiverFails(_) | Problem::NoRoom(..) => Severity::Warning,
            Problem::NotArchived(..) | Problem::WalMissing(_, false) => Severity::Warning,
            Problem::Unreadable(_) | Problem::Silent(_) | Problem::Damaged(_) | Problem::NoBackup => Severity::Critical,
            Problem::WalMissing(_, true) | Problem::AllAbandoned(_) | Problem::Shared(_) => Severity::Critical,
        }
    }

    /// It, as a sentence.
    pub fn sentence(&self) -> String {
        match self {
            Problem::Unreadable(why) => why.clone(),
            Problem::Silent(seconds) => format!("backup_destination has not responded for {seconds} s"),
            Problem::Damaged(path) => format!("the description of backup \"{path}\" cannot be read"),
            Problem::NoBackup => "neither server has a backup".to_owned(),
            Problem::AllAbandoned(newest) => {
                format!("no backup leads to timeline {newest}, which a recovery has begun")
            }
            Problem::Shared(path) => {
                format!(
                    "backup_destination \"{path}\" is the same directory on both servers, so that no backup is made"
                )
            }
            Problem::WalMissing(segment, true) => {
                format!("WAL segment {segment} after the newest backup is missing from the archives of both servers")
            }
            Problem::WalMissing(segment, false) => format!(
                "WAL segment {segment} after the newest backup is missing from the archive of this server, and the other \
                 server cannot be asked"
            ),
            Problem::Overdue(age_s, limit) => {
                format!("the newest backup is {} h old; the limit is {limit} h", age_s / 3600)
            }
            Problem::NotArchived(bytes, age_s) => {
                format!("{} of WAL is not archived; the last was archived {} min ago", human(*bytes), age_s / 60)
            }
            Problem::ArchiverFails(Some(file)) => format!("archiving fails, last for \"{file}\""),
            Problem::ArchiverFails(None) => "archiving fails".to_owned(),
            Problem::NoRoom(free, needed) => {
                format!("backup_destination has {} free, and a backup needs {}", human(*free), human(*needed))
            }
        }
    }

    /// What fixes it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Problem::Unreadable(_) | Problem::Silent(_) => {
                "mount the file system of backup_destination, and give the directory to the instance administrator user with mode 0700"
            }
            Problem::Damaged(_) => {
                "examine the disk of backup_destination, run \"mc_ctl backup\" on the primary, and remove the damaged backup \
                 with \"mc_ctl backup --delete BACKUP\""
            }
            Problem::Shared(_) => {
                "set backup_destination to a directory of its own on each server, and run \"mc_ctl reload\" there"
            }
            Problem::NoBackup | Problem::AllAbandoned(_) | Problem::Overdue(..) | Problem::WalMissing(..) => {
                "run \"mc_ctl backup\" on the primary, and from cron on both servers"
            }
            Problem::ArchiverFails(_) => "see the log of the instance, and repair archive_command",
            Problem::NotArchived(..) => "see the log of the instance, and whether archive_command ends and can keep up",
            Problem::NoRoom(..) => {
                "enlarge the file system of backup_destination, or remove a backup with \"mc_ctl backup --delete BACKUP\""
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A survey at 100 h after 1970, with a backup that was complete an hour earlier.
    pub(crate) fn survey() -> Survey {
        let newest = Newest {
            name: "19700105T030000Z".into(),
            on: "nd1".into(),
            ended_ms: 99 * 3_600_000,
            verified_ms: 99 * 3_600_000,
            wal_until: "0/9000000".into(),
            wal_archived_ms: 100 * 3_600_000 - 300_000,
            wal_missing: None,
        };
        Survey {
            destination: "/backup".into(),
            own_backups: 2,
            peer_backups: Some(1),
            newest: Some(newest),
            max_age_hours: 26,
            archiver: Some(Archiver { enabled: true, ..Archiver::default() }),
            unarchived_bytes: Some(1 << 20),
            segment_size: 16 << 20,
            free_bytes: Some(10 << 30),
            needed_bytes: Some(1 << 30),
            next_removed: vec!["19700104T030000Z".into()],
            read_ms: 100 * 3_600_000,
            ..Survey::default()
        }
    }

    fn check(change: impl FnOnce(&mut Survey), expected: &[Problem]) {
        let mut changed = survey();
        change(&mut changed);
        assert_eq!(changed.problems(100 * 3_600_000 + 1000), expected);
    }

    #[test]
    fn what_is_wrong() {
        check(|_| (), &[]);
        check(|of| of.newest = None, &[Problem::NoBackup]);
        let abandoned = Abandoned { name: "a".into(), abandoned_for: 2, ..Abandoned::default() };
        check(|of| of.abandoned = vec![abandoned.clone()], &[]);
        check(|of| (of.newest, of.abandoned) = (None, vec![abandoned.clone()]), &[Problem::AllAbandoned(2)]);
        check(|of| of.shared = true, &[Problem::Shared("/backup".into())]);
        let unknown = |of: &mut Survey| (of.newest, of.peer_error) = (None, Some("it does not respond".into()));
        check(unknown, &[]);
        check(|of| of.max_age_hours = 1, &[Problem::Overdue(3601, 1)]);
        check(|of| of.free_bytes = Some(1 << 20), &[Problem::NoRoom(1 << 20, 1 << 30)]);
        let late = |bytes| {
            move |of: &mut Survey| {
                of.newest.as_mut().unwrap().wal_archived_ms -= 600_000;
                of.unarchived_bytes = Some(bytes);
            }
        };
        check(late(16 << 20), &[Problem::NotArchived(16 << 20, 901)]);
        check(late((16 << 20) - 1), &[]);
        check(|of| of.unarchived_bytes = Some(1 << 30), &[]);
        check(|of| of.read_ms -= STALE_MS, &[Problem::Silent(301)]);
        check(|of| of.error = Some("not mounted".into()), &[Problem::Unreadable("not mounted".into())]);
        let fails = |of: &mut Survey| {
            of.archiver = Some(Archiver {
                failing: true,
                last_failed: Some("000000010000000000000002".into()),
                ..Archiver::default()
            });
            of.newest.as_mut().unwrap().wal_missing = Some("000000010000000000000001".into());
        };
        let wal = |n| format!("00000001000000000000000{n}");
        check(fails, &[Problem::WalMissing(wal(1), true), Problem::ArchiverFails(Some(wal(2)))]);
    }
}
