//! Which backups lead to a target: the descriptions of backups and the names in the archives in, values out.

use super::Target;
use crate::backup::{Backup, Holdings, Reach, reach};
use crate::error::{Error, Result};

/// A backup that can lead to the target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// It.
    pub backup: Backup,
    /// How far the WAL leads that follows it.
    pub reach: Reach,
}

/// A backup that cannot, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Its name.
    pub backup: String,
    /// Why.
    pub why: Error,
}

/// The backups that can lead to the target with this WAL, and the others. First come those that lead to the newest timeline, which
/// is that of the pair, and of these the newest. `timeline`: the one to which they are to lead, if the operator has selected one.
/// `major`: PostgreSQL's version.
pub fn candidates(
    backups: &[Backup],
    holdings: &Holdings,
    (target, timeline): (&Target, Option<u32>),
    major: u32,
) -> (Vec<Candidate>, Vec<Refused>) {
    let mut newest: Vec<&Backup> = backups.iter().collect();
    newest.sort_by_key(|backup| std::cmp::Reverse(backup.ended_ms));
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    for backup in newest {
        match check(backup, holdings, (target, timeline), major) {
            Ok(reach) => found.push(Candidate { backup: backup.clone(), reach }),
            Err(why) => refused.push(Refused { backup: backup.name.clone(), why }),
        }
    }
    found.sort_by_key(|candidate| holdings.abandoned_for(&candidate.reach).is_some());
    (found, refused)
}

fn check(
    backup: &Backup,
    holdings: &Holdings,
    (target, timeline): (&Target, Option<u32>),
    major: u32,
) -> Result<Reach> {
    if backup.major_version != major {
        let what = format!("it is of PostgreSQL {}, and {major} is installed", backup.major_version);
        return Err(Error::new(what));
    }
    if !target.is_after(backup.ended_ms, backup.end()) {
        return Err(Error::new("it was made after the target"));
    }
    let reach = reach(backup, holdings, timeline)?;
    if target.is_latest()
        && timeline.is_none()
        && let Some(newest) = holdings.abandoned_for(&reach)
    {
        let old = reach.newest_timeline;
        let what = format!("it leads to timeline {old}, which a recovery has abandoned for timeline {newest}");
        return Err(Error::new(what).hint(format!(
            "Make a backup after each recovery. To recover commits of that timeline instead, add --timeline {old}."
        )));
    }
    if target.is_within(reach.archived_ms, reach.until) {
        return Ok(reach);
    }
    let unknown = || holdings.without_history().into_iter().find(|timeline| *timeline > reach.newest_timeline);
    if timeline.is_none()
        && let Some(timeline) = unknown()
    {
        let what = format!("both archives have WAL of timeline {timeline}, and neither has \"{timeline:08X}.history\"");
        return Err(Error::new(what).hint(
            "Copy that file to archived_wal in backup_destination from pg_wal of a server, or select a target before that timeline.",
        ));
    }
    match (&reach.missing, target) {
        (Some(segment), Target::Latest | Target::Time(_) | Target::Lsn(_)) => Err(Error::new(format!(
            "WAL segment {segment} is missing in both archives, so that the WAL which follows ends at {}",
            reach.until
        ))),
        _ => Ok(reach),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::{Archive, Destination};

    fn backup(name: &str, ended_ms: u64, end: &str) -> Backup {
        let text = format!(
            r#"{{"name": "{name}", "server": "nd1", "system_identifier": "7", "major_version": 15, "begun_ms": 0,
                "ended_ms": {ended_ms}, "verified_ms": 0, "timeline": 1, "start": "0/2000028", "end": "{end}",
                "segment_size": 16777216, "bytes": 1, "tablespaces": []}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    /// The names of the backups that lead to the target, with these files in the archives, and why the others do not.
    fn found(target: &Target, files: &[&str]) -> (Vec<String>, Vec<String>) {
        with_contents(target, &files.iter().map(|name| (*name, "")).collect::<Vec<_>>())
    }

    fn with_contents(target: &Target, files: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        on_timeline(target, None, files)
    }

    fn on_timeline(target: &Target, timeline: Option<u32>, files: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::new(Destination::new(dir.path()));
        std::fs::create_dir(archive.dir()).unwrap();
        for (name, text) in files {
            std::fs::write(archive.dir().join(name), text).unwrap();
        }
        let backups = [backup("old", 1000, "0/2000100"), backup("new", 2000, "0/3000100")];
        let (found, refused) = candidates(&backups, &Holdings::read(&archive).unwrap(), (target, timeline), 15);
        let names = found.into_iter().map(|candidate| candidate.backup.name).collect();
        (names, refused.into_iter().map(|refused| refused.why.message).collect())
    }

    #[test]
    fn the_newest_that_precedes_the_target() {
        let files = ["000000010000000000000002", "000000010000000000000003", "000000010000000000000004"];
        assert_eq!(found(&Target::Latest, &files).0, ["new", "old"]);
        assert_eq!(found(&Target::lsn("0/3000100").unwrap(), &files).0, ["new", "old"]);
        assert_eq!(found(&Target::lsn("0/3000099").unwrap(), &files).0, ["old"]);
        assert_eq!(found(&Target::time("1970-01-01 00:00:01.5Z").unwrap(), &files).0, ["old"]);
        let (none, why) = found(&Target::time("1970-01-01 00:00:00.5Z").unwrap(), &files);
        assert!(none.is_empty() && why.iter().all(|why| why == "it was made after the target"), "{why:?}");
    }

    /// A recovery to a position between the two backups has begun timeline 2: the newer backup is on the abandoned timeline.
    #[test]
    fn an_abandoned_timeline() {
        let files = [
            ("000000010000000000000002", ""),
            ("000000010000000000000003", ""),
            ("000000010000000000000004", ""),
            ("00000002.history", "1\t0/2800000\tbefore 2026-11-30\n"),
            ("000000020000000000000002", ""),
        ];
        let (names, why) = with_contents(&Target::Latest, &files);
        assert_eq!(names, ["old"]);
        assert_eq!(why, ["it leads to timeline 1, which a recovery has abandoned for timeline 2"]);
        let later = Target::time("1970-01-01 00:00:03Z").unwrap();
        assert_eq!(with_contents(&later, &files).0, ["old", "new"]);
        for target in [&Target::Latest, &later] {
            assert_eq!(on_timeline(target, Some(1), &files).0, ["new", "old"]);
            assert_eq!(on_timeline(target, Some(2), &files).0, ["old"]);
            let (none, why) = on_timeline(target, Some(3), &files);
            assert!(none.is_empty() && why[0].contains("does not lead to timeline 3"), "{why:?}");
        }
    }

    #[test]
    fn what_is_missing() {
        let gap = ["000000010000000000000002", "000000010000000000000003", "000000010000000000000005"];
        let (none, why) = found(&Target::Latest, &gap);
        assert!(none.is_empty() && why[0].contains("000000010000000000000004 is missing"), "{why:?}");
        assert_eq!(found(&Target::lsn("0/3FFFFFF").unwrap(), &gap).0, ["new", "old"]);
        assert!(found(&Target::lsn("0/4000001").unwrap(), &gap).0.is_empty());
        assert_eq!(found(&Target::Xid(700), &gap).0, ["new", "old"]);
        assert_eq!(found(&Target::Immediate, &gap).0, ["new", "old"]);
        let branch = ["000000010000000000000003", "000000020000000000000004"];
        let (none, why) = found(&Target::Latest, &branch);
        assert!(none.is_empty() && why[0].contains("\"00000002.history\""), "{why:?}");
    }
}
