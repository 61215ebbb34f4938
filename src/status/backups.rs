//! The backups of both servers, as `mc_ctl status` shows them.

use super::{Snapshot, duration};
use crate::backup::{Abandoned, Archiver, Newest, Problem};
use serde::Serialize;

/// A survey with what follows from it at the time of the status.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct BackupStatus {
    /// `backup_destination` of the answering server.
    pub destination: String,
    /// The newest verified backup of both servers that leads to the newest timeline; `null` for none.
    pub newest: Option<Newest>,
    /// Its age; `null` without one.
    pub newest_age_seconds: Option<u64>,
    /// The backups that lead only to timelines that a recovery has abandoned.
    pub abandoned: Vec<Abandoned>,
    /// From which age on it is overdue.
    pub max_age_seconds: u64,
    /// How many complete backups the answering server has.
    pub own_backups: usize,
    /// How many the other server has; `null` where not known.
    pub peer_backups: Option<usize>,
    /// The archiver of the answering server's instance; `null` where not known.
    pub archiver: Option<Archiver>,
    /// What a loss of both servers loses of the WAL of the answering server's instance; `null` where not known.
    pub unarchived_bytes: Option<u64>,
    /// For how long the newest WAL has been archived; `null` without a backup.
    pub archived_age_seconds: Option<u64>,
    /// What can still be written to the destination; `null` where not known.
    pub free_bytes: Option<u64>,
    /// What the next backup is expected to need; `null` where not known.
    pub needed_bytes: Option<u64>,
    /// The backups that the answering server removes after its next full backup.
    pub next_removed: Vec<String>,
    /// How old this information is.
    pub read_seconds_ago: u64,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
}

impl BackupStatus {
    pub(super) fn new(snapshot: &Snapshot) -> Option<BackupStatus> {
        let survey = snapshot.backups.as_ref()?;
        Some(BackupStatus {
            destination: survey.destination.clone(),
            newest: survey.newest.clone(),
            abandoned: survey.abandoned.clone(),
            newest_age_seconds: survey.age_s(snapshot.wall_ms),
            max_age_seconds: u64::from(survey.max_age_hours).saturating_mul(3600),
            own_backups: survey.own_backups,
            peer_backups: survey.peer_backups,
            archiver: survey.archiver.clone(),
            unarchived_bytes: survey.unarchived_bytes,
            archived_age_seconds: survey.archived_age_s(snapshot.wall_ms),
            free_bytes: survey.free_bytes,
            needed_bytes: survey.needed_bytes,
            next_removed: survey.next_removed.clone(),
            read_seconds_ago: snapshot.wall_ms.saturating_sub(survey.read_ms) / 1000,
            problems: problems(snapshot).iter().map(Problem::sentence).collect(),
        })
    }

    /// What is left if the data of both servers is lost; `None` if `backup_destination` is not set.
    pub fn remark(snapshot: &Snapshot) -> Option<String> {
        let survey = snapshot.backups.as_ref()?;
        let left = match &survey.newest {
            None if survey.peer_error.is_none() => "there is no backup to recover from".to_owned(),
            None => "this server has no backup, and the other server cannot be asked".to_owned(),
            Some(Newest { name, on, wal_until, .. }) => {
                let age = duration(survey.age_s(snapshot.wall_ms).unwrap_or_default());
                let archived = duration(survey.archived_age_s(snapshot.wall_ms).unwrap_or_default());
                format!(
                    "backup {name} of {on} is left, which is {age} old, with WAL to {wal_until}, which was archived {archived} ago"
                )
            }
        };
        Some(format!("if the data of both servers is lost: {left}"))
    }

    /// What fixes the problems.
    pub(super) fn remedies(snapshot: &Snapshot) -> Vec<String> {
        let mut remedies: Vec<String> = problems(snapshot).iter().map(|problem| problem.remedy().to_owned()).collect();
        remedies.dedup();
        remedies
    }
}

fn problems(snapshot: &Snapshot) -> Vec<Problem> {
    snapshot.backups.as_ref().map(|survey| survey.problems(snapshot.wall_ms)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::backup::sample_survey;
    use crate::status::tests::snapshot;
    use crate::status::{Colour, Status};

    #[test]
    fn backups_are_shown_if_something_is_wrong() {
        let mut s = snapshot();
        let survey = sample_survey();
        s.wall_ms = survey.read_ms;
        s.backups = Some(survey);
        let plain = Status::new(&snapshot()).text(false, Colour::Never);
        assert_eq!(Status::new(&s).text(false, Colour::Never), plain);
        s.backups.as_mut().unwrap().newest.as_mut().unwrap().ended_ms = 0;
        let status = Status::new(&s);
        let problem = "backups: the newest backup is 100 h old; the limit is 26 h";
        assert!(status.text(false, Colour::Never).ends_with(&format!("\n\nWARNING: {problem}\n")));
        let (line, code) = status.check();
        assert!(code == 1 && line.contains(problem), "{line}");
        assert!(status.advice.last().unwrap().starts_with("run \"mc_ctl backup\" on the primary"));
        let json: serde_json::Value = serde_json::from_str(&status.json()).unwrap();
        assert_eq!(json["backups"]["newest_age_seconds"], 360_000);
        assert_eq!(json["backups"]["next_removed"][0], "19700104T030000Z");
    }
}
