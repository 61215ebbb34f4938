//! The plan of a recovery: what is recovered from what, what is lost, and what happens to both servers. Only reads.

use super::super::archive;
use super::super::backup::time;
use super::pair::Standing;
use super::{Order, Source};
use crate::backup::{Archive, Backup, Catalog, Contents, Destination, Holdings};
use crate::config::Config;
use crate::error::Error;
use crate::pg::bounded::Cancel;
use crate::pg::{Place, control};
use crate::rebuild::{self, Need, Room, human, now_ms, rooms};
use crate::recover::{self, Candidate, Discarded, End, Loss, Question, Target, candidates};
use crate::status::Snapshot;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What is found before a recovery.
pub struct Found {
    /// What will be done.
    pub plan: Plan,
    /// The backups that lead to the target, the newest first.
    pub candidates: Vec<Candidate>,
    /// The backup of the other server that is copied first, after the full backup that it needs; `None` if it is here.
    pub missing: Option<Vec<Backup>>,
    /// It is certain that the archives contain the target.
    pub within: bool,
    /// The backup from which on the target is searched in the WAL of both archives.
    first: Option<Backup>,
    holdings: Holdings,
}

/// The plan.
#[derive(Serialize, Debug, Default)]
pub struct Plan {
    target: String,
    /// The program that restores the backup.
    recover_command: Option<PathBuf>,
    /// The name of the backup, when it ended, and its size.
    backup: Option<String>,
    backup_ended: Option<String>,
    bytes: u64,
    /// The server from which it is copied first, and how many bytes.
    copied_from: Option<String>,
    copied_bytes: Option<u64>,
    /// The end of the WAL that follows it, and on which timeline.
    wal_until: Option<String>,
    wal_timeline: Option<u32>,
    /// The primary, and the end of its WAL.
    primary: Option<String>,
    primary_lsn: Option<String>,
    lost: String,
    /// How many commits, if that is known, and why there may be more.
    lost_transactions: Option<u64>,
    lost_incomplete: Option<String>,
    /// The time of the first and of the last of them, and of the last commit before them.
    lost_first_commit: Option<String>,
    lost_last_commit: Option<String>,
    last_recovered_commit: Option<String>,
    disk_space: Vec<Room>,
    /// Where the old data directory is kept.
    kept: Option<PathBuf>,
    steps: Vec<String>,
    warnings: Vec<String>,
    /// Why it cannot be done.
    pub obstacles: Vec<String>,
}

/// The WAL of both archives, what the other server has, and why that is not known.
pub fn holdings(config: &Config, destination: &Destination) -> Result<(Holdings, Contents, Option<String>), Error> {
    let own = Holdings::read(&Archive::new(destination.clone()))?;
    let (theirs, why) = match archive::contents_of_peer(config) {
        Ok(theirs) => (theirs, None),
        Err(why) => (Contents::default(), Some(why)),
    };
    Ok((own.and(theirs.holdings.clone()), theirs, why))
}

/// Finds the backups that lead to the target, and what a recovery would do.
pub fn find(
    config: &Config,
    source: &Source,
    order: &Order,
    now: (Option<&Snapshot>, Standing),
) -> Result<Found, Error> {
    match source {
        Source::Destination(destination) => in_destination(config, destination, order, now),
        Source::Program(program) => by_program(config, program, order, now),
    }
}

/// With a program, which selects the backup itself.
fn by_program(
    config: &Config,
    program: &Path,
    order: &Order,
    (snapshot, standing): (Option<&Snapshot>, Standing),
) -> Result<Found, Error> {
    let target = &order.target;
    let mut plan = Plan { target: target.to_string(), recover_command: Some(program.to_owned()), ..Plan::default() };
    plan.backup = order.backup.clone();
    guard(&mut plan, config, target)?;
    let place = Place::new(config);
    match rebuild::replacement(&place, (&config.id, &order.stamp), vec![]) {
        Ok(replacement) if replacement.existed => {
            plan.kept = Some(replacement.old.clone());
            let bytes = rebuild::used(&place.data, &Cancel::never())?;
            let rooms = rooms(&[Need::new(&replacement.staging, bytes)])?;
            // The size of the backup is not known.
            plan.warnings.extend(recover::shortages(&rooms));
            plan.disk_space = rooms;
        }
        Ok(_) => {}
        Err(error) => plan.obstacles.push(error.to_string()),
    }
    present(&mut plan, config, snapshot, standing, target);
    Ok(Found { plan, candidates: vec![], missing: None, within: false, first: None, holdings: Holdings::default() })
}

/// What prevents every recovery to this target now.
fn guard(plan: &mut Plan, config: &Config, target: &Target) -> Result<(), Error> {
    if let Ok(Some(why)) = archive::busy_peer(config) {
        plan.obstacles.push(format!("on server \"{}\" {why}", config.peer().id));
    }
    match rebuild::Journal::load(&config.run_dir())? {
        Some(journal) if journal.phase == rebuild::Phase::Rewinding => {}
        Some(_) => {
            plan.obstacles.push("a rebuild of this server has not ended; run \"mc_ctl rebuild\" first".to_owned())
        }
        None => {}
    }
    if target.is_later_than(now_ms()) {
        plan.obstacles.push("the target is in the future".to_owned());
    }
    if control::is_incomplete(&config.server.db_instance) == Ok(true) {
        plan.warnings.push(
            "a rebuild has left the data directory incomplete: it is kept, but cannot be started, and its WAL is not used"
                .to_owned(),
        );
    }
    Ok(())
}

fn in_destination(
    config: &Config,
    destination: &Destination,
    order: &Order,
    (snapshot, standing): (Option<&Snapshot>, Standing),
) -> Result<Found, Error> {
    let catalog = Catalog::read(destination)?;
    let (holdings, theirs, unknown) = holdings(config, destination)?;
    let place = Place::new(config);
    let (target, only) = (&order.target, order.backup.as_deref());
    let named = |backup: &&Backup| only.is_none_or(|name| backup.name == name);
    let own: Vec<_> = catalog.backups.iter().filter(named).cloned().collect();
    let others: Vec<_> = theirs.backups.iter().filter(named).cloned().collect();
    if let (Some(name), true, true) = (only, own.is_empty(), others.is_empty()) {
        catalog.find(name)?;
    }
    let (found, refused) = candidates(&own, &holdings, (target, order.timeline), place.major);
    let mut plan = Plan { target: target.to_string(), ..Plan::default() };
    let peer = &config.peer().id;
    if let Some(why) = unknown {
        plan.warnings.push(format!("what server \"{peer}\" has archived is not known: {why}"));
    }
    guard(&mut plan, config, target)?;
    let (elsewhere, _) = candidates(&others, &holdings, (target, order.timeline), place.major);
    let rank = |candidate: &Candidate| (holdings.abandoned_for(&candidate.reach).is_none(), candidate.backup.ended_ms);
    let newer = elsewhere
        .into_iter()
        .filter(|other| catalog.find(&other.backup.name).is_err())
        .find(|other| found.first().is_none_or(|own| rank(other) > rank(own)));
    let newer = match newer {
        Some(newer) if !theirs.sends => {
            let name = &newer.backup.name;
            plan.warnings.push(format!(
                "only server \"{peer}\" has backup \"{name}\", and its controller has an older version, which cannot send it; run \
                 \"mc_ctl recover\" there"
            ));
            None
        }
        other => other,
    };
    if found.is_empty() && newer.is_none() {
        plan.obstacles.push("no backup on either server leads to the target".to_owned());
    }
    let usable = !found.is_empty() || newer.is_some();
    for refused in refused {
        let line = format!("backup \"{}\" is not used: {}", refused.backup, refused.why);
        if usable { plan.warnings.push(line) } else { plan.obstacles.push(line) }
    }
    for (path, error) in &catalog.damaged {
        plan.warnings.push(format!("backup \"{}\" is not used: {}", path.display(), error.message));
    }
    let missing = newer.as_ref().map(|newer| {
        let full = newer.backup.full.as_ref().filter(|full| catalog.find(full).is_err());
        let full = full.and_then(|full| theirs.backups.iter().find(|backup| backup.name == *full));
        full.into_iter().chain([&newer.backup]).cloned().collect::<Vec<_>>()
    });
    let first = newer.as_ref().or(found.first());
    if let Some(missing) = &missing {
        plan.copied_from = Some(peer.clone());
        plan.copied_bytes = Some(missing.iter().map(|backup| backup.bytes).sum());
        let older = found.first().map(|own| format!("; \"--backup {}\" restores one of this server", own.backup.name));
        plan.warnings.push(format!(
            "the backup is copied from server \"{peer}\"; run this command there to avoid the copy{}",
            older.unwrap_or_default()
        ));
    }
    if let Some((first, newest)) = first.and_then(|first| Some((first, holdings.abandoned_for(&first.reach)?))) {
        plan.warnings.push(format!(
            "the recovery leads to timeline {}, which an earlier recovery has abandoned for timeline {newest}: commits since that \
             recovery are lost",
            first.reach.newest_timeline
        ));
    }
    if let Some(first) = first {
        describe(&mut plan, first, (&catalog, missing.as_deref(), destination), (&place, &order.stamp));
    }
    present(&mut plan, config, snapshot, standing, target);
    let within = first.is_some_and(|first| target.is_within(first.reach.archived_ms, first.reach.until));
    // A restore point or a transaction may precede the newest backup.
    let older = match target {
        Target::Name(_) | Target::Xid(_) => found.iter().rfind(|own| holdings.abandoned_for(&own.reach).is_none()),
        _ => None,
    };
    let first = older.or(first).map(|first| first.backup.clone());
    Ok(Found { plan, candidates: found, missing, within, first, holdings })
}

impl Found {
    /// Adds to the plan how many commits are lost. That takes seconds, and is done once, for the operator.
    pub fn count_lost(&mut self, config: &Config, source: &Source, order: &Order, now: (Option<&Snapshot>, Standing)) {
        let (Source::Destination(destination), Some(backup)) = (source, &self.first) else { return };
        // What the primary has is in the archives, or is added to them.
        if order.target.is_latest() && order.timeline.is_none() && now.1 != Standing::Down {
            return;
        }
        let place = Place::new(config);
        let report = now.0.map(|snapshot| &snapshot.report);
        let primary = report.and_then(|report| report.view).map(|view| view.primary);
        let known = report.zip(primary).and_then(|(report, primary)| report.servers[primary.index()].lsn);
        let end = match known {
            Some(lsn) => End::At(lsn),
            None if report.zip(primary).is_some_and(|(report, primary)| report.me == primary) => End::Own,
            None => End::Unknown,
        };
        // The WAL of a data directory that a rebuild has left incomplete is not used.
        let own = Some(place.data.join("pg_wal")).filter(|_| control::is_incomplete(&place.data) != Ok(true));
        let dirs: Vec<PathBuf> = own.into_iter().chain([Archive::new(destination.clone()).dir().to_owned()]).collect();
        let question = Question {
            backup,
            target: &order.target,
            timeline: order.timeline,
            holdings: &self.holdings,
            dirs: &dirs,
            run_dir: &config.run_dir(),
            bin_dir: &place.bin_dir,
            end,
        };
        let plan = &mut self.plan;
        let Loss { transactions, incomplete, first_commit, last_commit, last_recovered, discarded, elsewhere } =
            recover::loss(&question);
        // Nothing was found, and not all was read.
        let unread = transactions == Some(0) && incomplete.is_some();
        (plan.lost_transactions, plan.lost_incomplete) = (transactions.filter(|_| !unread), incomplete);
        if let Some(timeline) = order.timeline.filter(|_| elsewhere) {
            plan.lost = format!("every commit since timeline {timeline} was left");
        }
        (plan.lost_first_commit, plan.lost_last_commit) = (first_commit, last_commit);
        plan.last_recovered_commit = last_recovered;
        plan.warnings.extend(discarded.map(|discarded| {
            let target = &order.target;
            match discarded {
                Discarded::On(timeline) => format!(
                    "an earlier recovery has discarded the commits up to {target}, so that this one ends where that one ended; to \
                     recover them, add --timeline {timeline}"
                ),
                Discarded::PerhapsOn(timeline) => format!(
                    "an earlier recovery can have discarded commits up to {target}, whose WAL only the archive of the other server \
                     has; to recover them, add --timeline {timeline}"
                ),
            }
        }));
    }
}

fn describe(
    plan: &mut Plan,
    first: &Candidate,
    (catalog, missing, destination): (&Catalog, Option<&[Backup]>, &Destination),
    (place, stamp): (&Place, &str),
) {
    let Candidate { backup, reach } = first;
    plan.backup = Some(backup.name.clone());
    plan.backup_ended = Some(time(backup.ended_ms));
    plan.bytes = backup.bytes;
    plan.wal_until = Some(reach.until.to_string());
    plan.wal_timeline = Some(reach.newest_timeline);
    let spaces = backup.tablespaces.iter().map(|space| (space.oid.clone(), space.location.clone())).collect();
    let rooms = rebuild::replacement(place, (&backup.server, stamp), spaces).and_then(|replacement| {
        plan.kept = replacement.existed.then(|| replacement.old.clone());
        let Some(missing) = missing else {
            return rooms(&recover::needs(catalog, backup, &replacement, &Cancel::never())?);
        };
        let full = backup.full.as_ref().and_then(|full| catalog.find(full).ok());
        let restored = missing.iter().chain(full).map(|part| Need::new(&replacement.staging, part.bytes));
        let copied = missing.iter().map(|part| Need::new(destination.path(), part.bytes));
        rooms(&copied.chain(restored).collect::<Vec<_>>())
    });
    match rooms {
        Ok(rooms) => {
            plan.obstacles.extend(recover::shortages(&rooms));
            plan.disk_space = rooms;
        }
        Err(error) => plan.obstacles.push(error.to_string()),
    }
}

/// What becomes of the pair.
fn present(plan: &mut Plan, config: &Config, snapshot: Option<&Snapshot>, standing: Standing, target: &Target) {
    let (id, peer) = (&config.id, &config.peer().id);
    let report = snapshot.map(|snapshot| &snapshot.report);
    let primary = report.and_then(|report| Some((report, report.view?.primary)));
    if let Some((report, primary)) = primary {
        plan.primary = Some(if primary == report.me { id.clone() } else { peer.clone() });
        plan.primary_lsn = report.servers[primary.index()].lsn.map(|lsn| lsn.to_string());
    }
    plan.lost = match target {
        Target::Latest => "commits whose WAL neither archive nor this server's pg_wal contains".to_owned(),
        _ => format!("every commit after {target}"),
    };
    let steps = &mut plan.steps;
    if let (Some(peer), Some(bytes)) = (&plan.copied_from, plan.copied_bytes) {
        let size = human(bytes);
        steps.push(format!("copy the backup, {size}, from server \"{peer}\" to backup_destination, and verify it"));
    }
    let restore = match plan.recover_command {
        Some(_) => "have recover_command restore a backup beside the data directory",
        None => "restore and verify the backup beside the data directory",
    };
    if target.is_latest() {
        steps.push(format!("{restore}; the pair is not affected"));
    } else {
        steps.push(format!(
            "{restore}, and recover it to {target}; the pair is not affected, and nothing else is done if the target is not \
             reached"
        ));
    }
    match standing {
        Standing::Primary => {
            steps.push(format!("detach server \"{peer}\", and stop this server; clients lose their connections"))
        }
        Standing::Standby => steps.push(format!(
            "switch to this server, detach server \"{peer}\", and stop this server; clients lose their connections"
        )),
        Standing::Down => {
            steps.push("keep this server stopped".to_owned());
            if report.is_none_or(|report| !report.peer_lives) {
                plan.warnings.push(format!(
                    "the controller of server \"{peer}\" does not respond; if its instance runs as the primary, both servers \
                     acknowledge commits: confirm that it does not, and that it stays down until it is rebuilt"
                ));
            }
        }
    }
    if target.is_latest() {
        steps.push("recover all WAL".to_owned());
    }
    let kept = plan.kept.as_ref().map(|path| format!("; the old one is kept as \"{}\"", path.display()));
    steps.push(format!("replace the data directory{}", kept.unwrap_or_default()));
    steps.push("start this server with the right to run alone".to_owned());
    steps.push(format!("rebuild server \"{peer}\""));
}

impl Plan {
    /// What is known of the number of commits that are lost.
    fn number_lost(&self) -> String {
        let why = self.lost_incomplete.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
        let Some(number) = self.lost_transactions else {
            let unknown = self.lost_incomplete.as_ref().filter(|_| self.last_recovered_commit.is_none());
            return unknown.map(|why| format!("; how many is not known: {why}")).unwrap_or_default();
        };
        let least = if self.lost_incomplete.is_some() { "at least " } else { "" };
        let times = match (&self.lost_first_commit, &self.lost_last_commit) {
            (Some(first), Some(last)) if number > 1 => format!(", committed from {first} to {last}"),
            (Some(first), _) => format!(", committed at {first}"),
            _ => String::new(),
        };
        let noun = if number == 1 { "transaction" } else { "transactions" };
        format!(": {least}{number} {noun}{times}{why}")
    }

    /// As text.
    pub fn text(&self) -> String {
        let mut out = format!("target:     {}\n", self.target);
        if let (Some(backup), Some(ended)) = (&self.backup, &self.backup_ended) {
            let from = self.copied_from.as_ref().map(|peer| format!(", only on server \"{peer}\"")).unwrap_or_default();
            _ = writeln!(out, "backup:     {backup}, {}, ended at {ended}{from}", human(self.bytes));
        }
        if let Some(program) = &self.recover_command {
            let backup = self
                .backup
                .as_ref()
                .map_or("the backup that it selects".to_owned(), |name| format!("backup \"{name}\""));
            _ = writeln!(out, "backup:     {backup}, restored by \"{}\"", program.display());
        }
        if let (Some(until), Some(timeline)) = (&self.wal_until, self.wal_timeline) {
            _ = writeln!(out, "WAL:        archived to {until}, timeline {timeline}");
        }
        if let (Some(primary), Some(lsn)) = (&self.primary, &self.primary_lsn) {
            _ = writeln!(out, "primary:    {primary}, at {lsn}");
        }
        _ = writeln!(out, "lost:       {}{}", self.lost, self.number_lost());
        if let Some(time) = &self.last_recovered_commit {
            let more =
                if self.lost_transactions.is_none() && self.lost_incomplete.is_some() { " or later" } else { "" };
            _ = writeln!(out, "recovered:  up to the commit at {time}{more}");
        }
        for room in &self.disk_space {
            _ = writeln!(
                out,
                "disk space: {}: {} needed, {} free",
                room.path.display(),
                human(room.needed),
                human(room.free)
            );
        }
        out += "steps:\n";
        for (number, step) in self.steps.iter().enumerate() {
            _ = writeln!(out, "  {}. {step}", number + 1);
        }
        for warning in &self.warnings {
            _ = writeln!(out, "warning:    {warning}");
        }
        out
    }
}
