//! What a rebuild would do, found out by reading alone.

use super::divergence::{self, Content, Means, Trial, Verdict};
use super::room::{self, Need};
use super::source::{self, Source};
use super::target::{self, Found, Target};
use super::{Journal, Lost, Phase, Setup, lost, program};
use crate::error::{Error, Result};
use crate::fsm::event::Rebuild;
use crate::fsm::types::{Lsn, Method, OldData};
use crate::pg::bounded::{self, Cancel};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a plan may take, a walk over all files and reading much WAL included.
const LIMIT: Duration = Duration::from_secs(4 * 3600);

/// How long a trial run of `pg_rewind` may say nothing: it reads WAL and lists files.
const SILENCE: Duration = Duration::from_secs(600);

/// How the data directory becomes the other server's standby.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Chosen {
    /// It has not diverged: it is started as a standby.
    Follow,
    /// `pg_rewind`.
    Rewind,
    /// `pg_basebackup`.
    BaseBackup,
}

/// Room on one filesystem.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Room {
    /// A directory on it.
    pub path: PathBuf,
    /// Bytes needed.
    pub needed: u64,
    /// Bytes free for this user.
    pub free: u64,
}

/// What would be done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// How.
    pub chosen: Chosen,
    /// Why so, in a sentence.
    pub why: String,
    /// Bytes to copy, about; `None` where that shows only later.
    pub bytes: Option<u64>,
    /// Room for it; a filesystem a line.
    pub room: Vec<Room>,
    /// What this server has and the other one has not.
    pub lost: Option<Lost>,
    /// The steps, in order, a sentence each.
    pub steps: Vec<String>,
    /// Why it cannot be done after all; empty: it can. A sentence with its remedy each.
    pub obstacles: Vec<String>,
}

/// Finds out what a rebuild would do. Changes nothing, on either server.
///
/// # Errors
/// Something could not be found out: the other instance does not let this server in, a disk does not answer.
pub fn plan(setup: &Setup, what: &Rebuild, cancel: &Cancel) -> Result<Plan> {
    bounded_make(setup, what, false, cancel)
}

/// The same, and lets `pg_rewind` itself say, where it would be used, whether it can be and how much it would copy. That
/// takes it a look at all files of both servers.
///
/// # Errors
/// As [`plan`].
pub fn plan_exactly(setup: &Setup, what: &Rebuild, cancel: &Cancel) -> Result<Plan> {
    bounded_make(setup, what, true, cancel)
}

fn bounded_make(setup: &Setup, what: &Rebuild, exact: bool, cancel: &Cancel) -> Result<Plan> {
    let (setup, what, inner) = (setup.clone(), what.clone(), cancel.clone());
    bounded::call("plan the rebuild", LIMIT, cancel, move || make(&setup, &what, exact, &inner))
}

fn make(setup: &Setup, what: &Rebuild, exact: bool, cancel: &Cancel) -> Result<Plan> {
    let journal = Journal::load(&setup.run_dir)?;
    if let Some(journal) = journal.as_ref().filter(|journal| journal.phase == Phase::Swapping) {
        return Ok(finish(journal));
    }
    let source = source::look(setup, what, cancel)?;
    let found = target::look(setup)?;
    let content = target::content(&found, &source, journal.as_ref(), cancel)?;
    let at = divergence::Source { timeline: source.history.timeline(), insert: source.insert };
    let verdict = divergence::judge(&content, at);
    let target = match &found {
        Found::Data(target) => Some(&**target),
        _ => None,
    };
    let look = Look { setup, what, source: &source, exact, cancel };
    let means = target.map_or(Ok(NO_MEANS), |target| look.means(target, &verdict))?;
    let choice = divergence::choose(what.order.method, &verdict, &means);
    let own = target.map(|target| Ok::<_, Error>((target, target.parted(verdict.own())?))).transpose()?;
    let mut lost = None;
    let mut kept = 0;
    if let Some((target, Some(from))) = own {
        let spans = target.spans(from);
        let remote = source::remote(setup, &what.source)?;
        lost = lost::survey(&target.wal, &spans, what.forced, &remote, cancel)?;
        let files = lost::segments(&target.wal, &spans)?;
        kept = files.iter().filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum();
    }
    let draft = Draft { setup, what, source: &source, found: &found, content: &content, chosen: choice.chosen, kept };
    let (room, mut obstacles) = draft.room(&means.trial, cancel)?;
    obstacles.extend(choice.obstacle);
    obstacles.extend(draft.obstacles());
    Ok(Plan {
        chosen: choice.chosen,
        why: choice.why,
        bytes: draft.bytes(&means.trial),
        room,
        steps: draft.steps(lost.as_ref(), &means),
        lost,
        obstacles,
    })
}

/// What is left of a rebuild whose new directory is whole.
fn finish(journal: &Journal) -> Plan {
    Plan {
        chosen: journal.method,
        why: "an earlier rebuild was interrupted when its copy was whole".into(),
        bytes: Some(0),
        room: Vec::new(),
        lost: None,
        steps: vec!["Go on with putting the new data directory in its place, as a standby's.".into()],
        obstacles: Vec::new(),
    }
}

// -------------------------------------------------------------------------------------------------------------- means

/// Of a directory that nothing can be made of.
const NO_MEANS: Means = Means {
    hints: false,
    full_page_writes: false,
    read_only: None,
    target_wal: false,
    source_lacks: None,
    trial: Trial::Later,
};

/// What is needed to look at what the ways back need.
struct Look<'a> {
    setup: &'a Setup,
    what: &'a Rebuild,
    source: &'a Source,
    exact: bool,
    cancel: &'a Cancel,
}

impl Look<'_> {
    fn means(&self, target: &Target, verdict: &Verdict) -> Result<Means> {
        let (source, cancel) = (self.source, self.cancel);
        let mut means = Means { hints: target.hints, full_page_writes: source.full_page_writes, ..NO_MEANS };
        match verdict {
            Verdict::Within(_) => means.source_lacks = self.lacks(target, target.asks_from()?)?,
            Verdict::Diverged(_, at, _) if self.what.order.method != Method::BaseBackup => {
                let restore = target.restore && self.setup.place.major >= 13;
                let common = target.checkpoint_before(*at, cancel)?;
                means.target_wal = restore || common.is_some();
                means.read_only =
                    room::read_only(&self.setup.place.data, cancel)?.map(|path| path.display().to_string());
                // Without a clean shutdown, and until the source's checkpoint, pg_rewind judges nothing.
                let ready = target.clean && !target.dir.running && source.control_timeline == source.history.timeline();
                let able = means.hints && means.full_page_writes && means.target_wal && means.read_only.is_none();
                if self.exact && ready && able {
                    means.trial = match trial(self.setup, self.what, cancel)? {
                        // It may find in the archive what it misses.
                        Trial::Refused(_) if restore && common.is_none() => Trial::Later,
                        other => other,
                    };
                }
                // Unknown, it lies in the archive, and what comes after it may too.
                means.source_lacks = common.filter(|common| !target.restore && !source.has_wal(*common));
            }
            _ => {}
        }
        Ok(means)
    }

    /// What a standby that is started from this directory asks for and the source has not.
    fn lacks(&self, target: &Target, at: Lsn) -> Result<Option<Lsn>> {
        if target.restore || self.source.has_wal(at) {
            return Ok(None);
        }
        // Of what it has received it may have noted only a part as replayed.
        let end = target.last_record(self.cancel)?;
        Ok((!self.source.has_wal(end)).then_some(end))
    }
}

// -------------------------------------------------------------------------------------------------------------- trial

/// `pg_rewind --dry-run`, as far as to what it would copy: after that it would read all that a real run reads.
fn trial(setup: &Setup, what: &Rebuild, cancel: &Cancel) -> Result<Trial> {
    let place = &setup.place;
    let remote = source::remote(setup, &what.source)?;
    let mut command = program::command(&place.bin_dir.join("pg_rewind"));
    command.args(["--dry-run", "--progress", "-D"]).arg(&place.data);
    command.arg("--source-server").arg(source::conninfo(setup, &remote));
    if let Some(password) = &setup.password {
        command.env("PGPASSWORD", password);
    }
    let mut found = None;
    let ended = program::read(command, SILENCE, cancel, |line| {
        if let Some((_, rest)) = line.split_once("need to copy ") {
            let megabytes = rest.split(' ').next().and_then(|word| word.parse::<u64>().ok());
            found = Some(Trial::Copies(megabytes.unwrap_or(0) << 20));
        } else if line.contains("no rewind required") {
            found = Some(Trial::Nothing);
        }
        found.is_none()
    })?;
    Ok(found.unwrap_or_else(|| Trial::Refused(refusal(&ended.said))))
}

/// The line with which a program gives up.
fn refusal(said: &str) -> String {
    let error = |line: &&str| line.contains("error: ") || line.contains("fatal: ");
    let line = said.lines().find(error).or(said.lines().last()).unwrap_or("it says nothing");
    let words = ["pg_rewind: ", "error: ", "fatal: "];
    words.iter().fold(line, |line, word| line.strip_prefix(word).unwrap_or(line)).to_owned()
}

// -------------------------------------------------------------------------------------------------------------- draft

/// What was found out, on the way to the plan.
struct Draft<'a> {
    setup: &'a Setup,
    what: &'a Rebuild,
    source: &'a Source,
    found: &'a Found,
    content: &'a Content,
    chosen: Chosen,
    /// Bytes of WAL that would be kept.
    kept: u64,
}

impl Draft<'_> {
    fn data(&self) -> &Path {
        &self.setup.place.data
    }

    fn exists(&self) -> bool {
        matches!(self.found, Found::Data(_) | Found::Damaged(_))
    }

    fn deletes(&self) -> bool {
        self.what.order.old_data == OldData::Delete && self.exists()
    }

    fn bytes(&self, trial: &Trial) -> Option<u64> {
        match (self.chosen, trial) {
            (Chosen::Follow, _) => Some(0),
            (Chosen::Rewind, Trial::Copies(bytes)) => Some(*bytes),
            (Chosen::Rewind, _) => None,
            (Chosen::BaseBackup, _) => {
                Some(self.source.bytes + self.source.tablespaces.iter().map(|t| t.bytes).sum::<u64>())
            }
        }
    }

    /// Where a tablespace of the source's lies here: where this server's link points to, else in the same place as there.
    fn location(&self, tablespace: &source::Tablespace) -> PathBuf {
        let link = self.data().join("pg_tblspc").join(tablespace.oid.to_string());
        std::fs::read_link(link).unwrap_or_else(|_| tablespace.location.clone())
    }

    /// Where the WAL lies, or will lie.
    fn wal(&self) -> PathBuf {
        super::wal::directory(self.data())
    }

    fn needs(&self, trial: &Trial) -> Vec<Need> {
        let mut needs = vec![Need::new(&self.setup.run_dir, self.kept)];
        match self.chosen {
            Chosen::Follow => {}
            Chosen::Rewind => needs.push(Need::new(self.data(), self.bytes(trial).unwrap_or(0))),
            Chosen::BaseBackup => {
                needs.push(Need::new(self.data(), self.source.bytes));
                // At least the segments that it begins and ends in.
                needs.push(Need::new(self.wal(), 2 * self.source.segment));
                let spaces = self.source.tablespaces.iter();
                needs.extend(spaces.map(|space| Need::new(self.location(space), space.bytes)));
            }
        }
        needs.retain(|need| need.bytes > 0);
        needs
    }

    /// The room, and what is said where it is not enough.
    fn room(&self, trial: &Trial, cancel: &Cancel) -> Result<(Vec<Room>, Vec<String>)> {
        let mut needs = self.needs(trial);
        let small = |rooms: &[Room]| rooms.iter().any(|room| room.needed > room.free);
        let rooms = room::rooms(&needs)?;
        if !small(&rooms) {
            return Ok((rooms, Vec::new()));
        }
        // Counting what would be freed is a walk over all files.
        let mut remedy = "Make room there.";
        let mut rooms = rooms;
        if self.chosen == Chosen::BaseBackup && self.exists() {
            for need in &mut needs {
                if need.path != self.setup.run_dir && need.path.exists() {
                    need.freed = room::used(&need.path, cancel)?;
                }
            }
            let freed = room::rooms(&needs)?;
            if self.deletes() {
                rooms = freed;
            } else if !small(&freed) {
                remedy = "Make room there, or let the old data directory be deleted first: \
                          mc_ctl rebuild --old-data delete.";
            }
        }
        let lacking = rooms.iter().filter(|room| room.needed > room.free).map(|room| {
            format!(
                "There is not enough room on the file system of \"{}\": {} are needed, {} are free. {remedy}",
                room.path.display(),
                room::human(room.needed),
                room::human(room.free)
            )
        });
        let lacking = lacking.collect();
        Ok((rooms, lacking))
    }

    /// What stands in the way.
    fn obstacles(&self) -> Vec<String> {
        let data = self.data();
        let mut found = Vec::new();
        if let Found::Foreign(entry) = self.found {
            found.push(format!(
                "Directory \"{}\" is not empty and is no data directory of PostgreSQL's: it holds \"{entry}\". Check \
                 db_instance, or empty it.",
                data.display()
            ));
        }
        if let Found::Data(target) = self.found
            && target.dir.running
        {
            found.push("This server's instance runs: stop it first (mc_ctl stop).".into());
        }
        if *self.content == Content::OtherCluster && self.deletes() {
            found.push(format!(
                "\"{}\" is a data directory of another cluster and is not deleted. Check db_instance, or leave out \
                 --old-data delete, so that it is kept aside.",
                data.display()
            ));
        }
        if self.chosen == Chosen::BaseBackup && !matches!(self.found, Found::Foreign(_)) {
            found.extend(self.against_backup());
        }
        found
    }

    /// What stands in the way of a base backup.
    fn against_backup(&self) -> Vec<String> {
        let data = self.data();
        let parent = data.parent().unwrap_or(Path::new("/"));
        let writable = |dir: &Path| {
            let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
            dir.is_dir() && rustix::fs::access(dir, wanted).is_ok()
        };
        let mut found = Vec::new();
        if room::is_mount_point(data) {
            found.push(format!(
                "A file system is mounted on the data directory \"{}\" itself, so that a new one cannot take its place. \
                 Move the data directory into a directory on that file system.",
                data.display()
            ));
        } else if !writable(parent) {
            found.push(format!(
                "Directory \"{}\" cannot be written, so that the new data directory cannot be made beside the old one. \
                 Give it to the user who runs the instance.",
                parent.display()
            ));
        }
        for space in &self.source.tablespaces {
            let location = self.location(space);
            let usable = if location.exists() { writable(&location) } else { writable(room::existing(&location)) };
            if !usable {
                found.push(format!(
                    "Directory \"{}\" of tablespace \"{}\" cannot be written. Make it on this server, for the user who \
                     runs the instance.",
                    location.display(),
                    space.name
                ));
            }
        }
        found
    }

    // ---------------------------------------------------------------------------------------------------------- steps

    fn steps(&self, lost: Option<&Lost>, means: &Means) -> Vec<String> {
        let from = &self.what.source;
        let mut steps = Vec::new();
        if self.chosen != Chosen::Follow {
            steps.push(format!(
                "Make a checkpoint on the other server's instance ({from}), and let it keep its WAL meanwhile."
            ));
        }
        if let Some(lost) = lost {
            let kept = self.setup.run_dir.join("lost");
            steps.push(format!(
                "Keep the WAL that only this server has, from {} on ({}), in \"{}\".",
                lost.from,
                room::human(self.kept),
                kept.display()
            ));
        }
        match self.chosen {
            Chosen::Follow => {}
            Chosen::Rewind => steps.extend(self.rewind_steps(means)),
            Chosen::BaseBackup => steps.extend(self.backup_steps()),
        }
        steps.push(format!(
            "Make the data directory a standby's of {from} (standby.signal, primary_conninfo), with this server's own \
             configuration files."
        ));
        steps.push("Start it, and wait until it streams from the primary and the pair is mirrored.".into());
        steps
    }

    fn rewind_steps(&self, means: &Means) -> Vec<String> {
        let mut steps = Vec::new();
        if let Found::Data(target) = self.found
            && !target.clean
        {
            steps.push("Let the data directory recover from its crash, in single-user mode.".into());
        }
        let size = match means.trial {
            Trial::Copies(bytes) => format!("about {}", room::human(bytes)),
            _ => "as much as has changed".into(),
        };
        steps.push(format!(
            "Run pg_rewind on \"{}\": copy {size}. Until it is done, the directory cannot be started by anyone.",
            self.data().display()
        ));
        steps
    }

    fn backup_steps(&self) -> Vec<String> {
        let data = self.data().display();
        let size = room::human(self.bytes(&Trial::Later).unwrap_or(0));
        let mut steps = Vec::new();
        if self.deletes() {
            steps.push(format!("Delete the old data directory \"{data}\" first, as ordered (--old-data delete)."));
        }
        steps.push(format!("Run pg_basebackup: copy about {size} into \"{data}.rebuild-new\"."));
        if self.exists() && !self.deletes() {
            steps.push(format!(
                "Put the old data directory aside, as \"{data}.old-TIME\", and the new one in its place."
            ));
        } else {
            steps.push(format!("Put the new data directory in its place, \"{data}\"."));
        }
        steps
    }
}
