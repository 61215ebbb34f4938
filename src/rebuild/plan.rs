//! What a rebuild would do, found out by reading alone.

use super::choice::{self, Means, Trial};
use super::divergence::{self, Verdict};
use super::draft::Draft;
use super::room;
use super::source::{self, Source};
use super::target::{self, Found, Target};
use super::{Journal, Lost, Phase, Setup, config_copy, keep, lost, program};
use crate::error::{Error, Result};
use crate::fsm::event::Rebuild;
use crate::fsm::types::{Lsn, Method};
use crate::pg::bounded::{self, Cancel};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
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
    /// More may be needed: how many bytes are written shows only later.
    #[serde(default)]
    pub at_least: bool,
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
    let remote = source::remote(setup, &what.source)?;
    let content = target::content(&found, (&source, &remote), journal.as_ref(), cancel)?;
    let at = divergence::Source { timeline: source.history.timeline(), insert: source.insert };
    let verdict = divergence::judge(&content, at);
    let target = match &found {
        Found::Data(target) => Some(&**target),
        _ => None,
    };
    let look = Look { setup, what, source: &source, exact, cancel };
    let means = target.map_or(Ok(NO_MEANS), |target| look.means(target, &verdict))?;
    let choice = choice::choose(what.order.method, &verdict, &means);
    let own = target.map(|target| Ok::<_, Error>((target, target.parted(verdict.own())?))).transpose()?;
    let mut lost = None;
    let mut kept = 0;
    if let Some((target, Some(from))) = own {
        let spans = target.spans(from);
        lost = lost::survey(&target.wal, &spans, what.doubt, &remote, cancel)?;
        let files = lost::segments(&target.wal, &spans)?;
        kept = files.iter().filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum();
    }
    let configuration = match choice.chosen {
        Chosen::BaseBackup => config_copy::missing(setup, &remote, cancel)?,
        Chosen::Follow | Chosen::Rewind => None,
    };
    let draft = Draft {
        setup,
        what,
        source: &source,
        found: &found,
        content: &content,
        journal: journal.as_ref(),
        chosen: choice.chosen,
        configuration: configuration.as_ref(),
        kept,
    };
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
pub(super) fn finish(journal: &Journal) -> Plan {
    Plan {
        chosen: journal.method,
        why: "an earlier rebuild ended when its copy was complete".into(),
        bytes: Some(0),
        room: Vec::new(),
        lost: None,
        steps: vec!["Continue to rename the new data directory, as that of a standby.".into()],
        obstacles: Vec::new(),
    }
}

// -------------------------------------------------------------------------------------------------------------- means

/// Of a directory that nothing can be made of.
const NO_MEANS: Means = Means {
    hints: false,
    full_page_writes: false,
    crashed_standby: false,
    read_only: None,
    new_tablespace: None,
    aside: None,
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
                // Unknown, it lies in the archive, and what comes after it may too.
                means.source_lacks = common.filter(|common| !target.restore && !source.has_wal(*common));
                let place = &self.setup.place;
                // Configuration is kept and put back, and made writable meanwhile.
                let read_only = room::read_only(&place.data, &keep::wanted(place).0, cancel)?;
                means.read_only = read_only.map(|path| path.display().to_string());
                let linked = |oid: u32| place.data.join("pg_tblspc").join(oid.to_string()).is_symlink();
                let new = source.tablespaces.iter().find(|space| !linked(space.oid));
                means.new_tablespace = new.map(|space| space.name.clone());
                means.crashed_standby = target.is_crashed_standby();
                means.aside = target.aside().or_else(|| source.aside.clone());
                // Without a clean shutdown, and until the source's checkpoint, pg_rewind judges nothing.
                let ready = target.clean && !target.dir.running && source.control_timeline == source.history.timeline();
                if self.exact && ready && choice::against_rewind(&means).is_none() {
                    means.trial = match trial(self.setup, self.what, cancel)? {
                        // It may find in the archive what it misses.
                        Trial::Refused(_) if restore && common.is_none() => Trial::Later,
                        other => other,
                    };
                }
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
    let line = said.lines().find(error).or(said.lines().last()).unwrap_or("it reports nothing");
    let words = ["pg_rewind: ", "error: ", "fatal: "];
    words.iter().fold(line, |line, word| line.strip_prefix(word).unwrap_or(line)).to_owned()
}
