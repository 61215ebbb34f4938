//! Whether two servers' WAL has diverged, and which way leads back: pure, over facts that others have gathered.
//!
//! It is decided from the timelines' history and from what lies in the WAL, never from `pg_rewind`'s exit code: right after
//! a promotion that says "no rewind required", and does nothing, because the promoted server's control file still tells
//! the old timeline.

use super::Chosen;
use crate::fsm::types::{Lsn, Method, Timeline};

/// The end of a timeline that goes on.
const OPEN: Lsn = Lsn(u64::MAX);

/// The way by which a server came to its timeline: each timeline and where it was left, oldest first. The last one goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History(Vec<(Timeline, Lsn)>);

impl History {
    /// Of a server on this timeline, by the text of its history file (empty for the first timeline).
    pub fn parse(timeline: Timeline, text: &str) -> Result<History, String> {
        let mut line = Vec::new();
        for entry in text.lines().map(str::trim).filter(|entry| !entry.is_empty() && !entry.starts_with('#')) {
            let mut words = entry.split_whitespace();
            let bad = || format!("the history of timeline {} has the line \"{entry}\"", timeline.0);
            let left = words.next().and_then(|word| word.parse().ok()).map(Timeline).ok_or_else(bad)?;
            let at: Lsn = words.next().and_then(|word| word.parse().ok()).ok_or_else(bad)?;
            if left >= timeline || line.last().is_some_and(|(before, end)| left <= *before || at < *end) {
                return Err(bad());
            }
            line.push((left, at));
        }
        line.push((timeline, OPEN));
        Ok(History(line))
    }

    /// The timeline that it has led to.
    pub fn timeline(&self) -> Timeline {
        self.0.last().map_or(Timeline(0), |(timeline, _)| *timeline)
    }

    /// Whether it was ever on this timeline.
    pub fn holds(&self, timeline: Timeline) -> bool {
        self.0.iter().any(|(known, _)| *known == timeline)
    }

    /// The same history up to this timeline, as it was before it was left.
    pub fn until(&self, timeline: Timeline) -> Option<History> {
        let at = self.0.iter().position(|(known, _)| *known == timeline)?;
        let mut line = self.0[..=at].to_vec();
        line[at].1 = OPEN;
        Some(History(line))
    }

    /// Where its present timeline begins.
    pub fn begin(&self) -> Lsn {
        self.0.len().checked_sub(2).map_or(Lsn(0), |before| self.0[before].1)
    }

    /// What lies at or after this position: timelines, from where, and to where.
    pub fn after(&self, at: Lsn) -> Vec<(Timeline, Lsn, Option<Lsn>)> {
        let mut begin = Lsn(0);
        let mut parts = Vec::new();
        for (timeline, end) in &self.0 {
            if *end > at {
                parts.push((*timeline, at.max(begin), (*end != OPEN).then_some(*end)));
            }
            begin = *end;
        }
        parts
    }
}

/// How two histories lie to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lineage {
    /// The same way to the same timeline.
    Same,
    /// The target is on this timeline, which the source has left at this position.
    Ancestor(Timeline, Lsn),
    /// They parted at this position of this timeline, which both were on; the target has gone on to another one.
    Fork(Timeline, Lsn),
    /// They parted there, and have come to timelines of the same number.
    Twins(Timeline, Lsn),
    /// They never were on one timeline.
    Strangers,
}

/// Compares them.
pub fn lineage(source: &History, target: &History) -> Lineage {
    let same = source.0.iter().zip(&target.0).take_while(|(ours, theirs)| ours == theirs).count();
    let (timeline, at, goes_on) = match (source.0.get(same), target.0.get(same)) {
        (None, None) => return Lineage::Same,
        // The same timeline, left at different places, or not left yet.
        (Some(ours), Some(theirs)) if ours.0 == theirs.0 => (ours.0, ours.1.min(theirs.1), theirs.1 != OPEN),
        // Left at the same place, for different timelines.
        _ if same > 0 => (source.0[same - 1].0, source.0[same - 1].1, true),
        _ => return Lineage::Strangers,
    };
    match goes_on {
        false => Lineage::Ancestor(timeline, at),
        true if source.timeline() == target.timeline() => Lineage::Twins(timeline, at),
        true => Lineage::Fork(timeline, at),
    }
}

// ------------------------------------------------------------------------------------------------------------ verdict

/// What the target is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// There is no directory, or nothing is in it.
    Nothing,
    /// A data directory of another cluster.
    OtherCluster,
    /// A data directory that cannot be judged, and why.
    Damaged(String),
    /// A rebuild has begun to overwrite it.
    HalfRewound,
    /// A data directory of this cluster.
    Cluster(Cluster),
}

/// A data directory of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// It was a standby's when it stopped.
    pub standby: bool,
    /// How it lies to the source.
    pub lineage: Lineage,
    /// Its WAL surely goes up to here: past its last checkpoint, or to its minimum recovery point.
    pub end: Lsn,
    /// The first record that was found at or after the point where the source has left this timeline.
    pub beyond: Option<Lsn>,
    /// A timeline that it would go to when started as a standby, and that the source does not know.
    pub stray: Option<Timeline>,
}

/// What matters of the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    /// Its timeline.
    pub timeline: Timeline,
    /// Where it writes.
    pub insert: Lsn,
}

/// What the comparison leads to, before it is asked what can be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The source has all that the target has; in a sentence.
    Within(String),
    /// They have diverged at this position of this timeline; in a sentence.
    Diverged(Timeline, Lsn, String),
    /// Only a base backup is safe, and why; what this server alone may have.
    Apart(String, Own),
}

/// What only the target has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Own {
    /// Nothing that can be told.
    Nothing,
    /// Its WAL from this position of this timeline on.
    From(Timeline, Lsn),
    /// Some of its present timeline; where that begins is not known.
    Unknown,
}

impl Verdict {
    /// What only the target has.
    pub fn own(&self) -> Own {
        match self {
            Verdict::Within(_) => Own::Nothing,
            Verdict::Diverged(timeline, at, _) => Own::From(*timeline, *at),
            Verdict::Apart(_, own) => *own,
        }
    }
}

/// Compares them.
pub fn judge(target: &Content, source: Source) -> Verdict {
    match target {
        Content::Cluster(cluster) => judge_cluster(cluster, source),
        Content::Nothing => apart("there is no data directory yet"),
        Content::OtherCluster => apart("the data directory belongs to another cluster"),
        Content::HalfRewound => apart(
            "an earlier rebuild was interrupted while it overwrote the data directory, which only a new copy can heal",
        ),
        Content::Damaged(why) => apart(why),
    }
}

fn judge_cluster(cluster: &Cluster, source: Source) -> Verdict {
    let (now, end, insert) = (source.timeline.0, cluster.end, source.insert);
    match cluster.lineage {
        Lineage::Strangers => apart("this server shares no timeline with the other one"),
        Lineage::Twins(timeline, at) => Verdict::Apart(
            format!(
                "both servers were promoted to timeline {now}, each by itself, at {at} of timeline {}; pg_rewind cannot tell \
                 them apart",
                timeline.0
            ),
            Own::From(timeline, at),
        ),
        Lineage::Fork(timeline, at) => Verdict::Diverged(
            timeline,
            at,
            format!("this server was promoted too, and parted from the other one at {at} of timeline {}", timeline.0),
        ),
        Lineage::Ancestor(timeline, at) => match cluster.beyond.or((end > at).then_some(end)) {
            Some(_) => Verdict::Diverged(
                timeline,
                at,
                format!(
                    "this server has WAL of timeline {} past {at}, where the other one went on to timeline {now}",
                    timeline.0
                ),
            ),
            None => within(
                cluster,
                format!(
                    "this server has nothing past {at}, where the other one left timeline {} for timeline {now}",
                    timeline.0
                ),
            ),
        },
        Lineage::Same if !cluster.standby => Verdict::Apart(
            format!(
                "this server ran as a primary on timeline {now} like the other one, so that nothing tells where they parted"
            ),
            Own::Unknown,
        ),
        Lineage::Same if end > insert => Verdict::Apart(
            format!(
                "this server has WAL of timeline {now} up to {end}, but the other one only up to {insert}, and pg_rewind \
                 works only between timelines"
            ),
            Own::From(source.timeline, insert),
        ),
        Lineage::Same => within(cluster, format!("this server is a standby on the other one's timeline {now}")),
    }
}

fn within(cluster: &Cluster, why: String) -> Verdict {
    match cluster.stray {
        None => Verdict::Within(why),
        Some(stray) => apart(&format!(
            "its pg_wal holds the history of timeline {}, which the other server does not know, and to which it would go",
            stray.0
        )),
    }
}

fn apart(why: &str) -> Verdict {
    Verdict::Apart(why.to_owned(), Own::Nothing)
}

// ------------------------------------------------------------------------------------------------------------- choice

/// What the trial run of `pg_rewind` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trial {
    /// It was not made: the target has to recover from its crash first, or the source to make a checkpoint.
    Later,
    /// It would copy this many bytes.
    Copies(u64),
    /// It says that there is nothing to rewind.
    Nothing,
    /// It refuses, and why.
    Refused(String),
}

/// What the ways back need.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Means {
    /// The target has data checksums or `wal_log_hints`.
    pub hints: bool,
    /// The source has `full_page_writes`.
    pub full_page_writes: bool,
    /// A file in the target that cannot be written.
    pub read_only: Option<String>,
    /// The target has the WAL back to where it parted, or a `restore_command` that pg_rewind can use.
    pub target_wal: bool,
    /// What the standby would need first and the source has no more, nor a `restore_command` might have.
    pub source_lacks: Option<Lsn>,
    /// The trial run.
    pub trial: Trial,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// How.
    pub chosen: Chosen,
    /// Why so.
    pub why: String,
    /// Why not after all: what was ordered cannot be.
    pub obstacle: Option<String>,
}

/// Chooses.
pub fn choose(method: Method, verdict: &Verdict, means: &Means) -> Choice {
    let (chosen, why) = match verdict {
        _ if method == Method::BaseBackup => (Chosen::BaseBackup, "a base backup was ordered".to_owned()),
        Verdict::Within(why) => match means.source_lacks {
            None => (Chosen::Follow, why.clone()),
            Some(at) => (Chosen::BaseBackup, format!("{why}, but {}", lacks(at))),
        },
        Verdict::Apart(why, _) => (Chosen::BaseBackup, why.clone()),
        Verdict::Diverged(_, _, why) => match against_rewind(means) {
            None => (Chosen::Rewind, why.clone()),
            Some(but) => (Chosen::BaseBackup, format!("{why}, but pg_rewind cannot be used: {but}")),
        },
    };
    if method == Method::Rewind && chosen == Chosen::BaseBackup {
        let obstacle =
            format!("A rewind was ordered, but {why}. A base backup can be made: mc_ctl rebuild --method basebackup.");
        return Choice { chosen: Chosen::Rewind, why, obstacle: Some(obstacle) };
    }
    Choice { chosen, why, obstacle: None }
}

fn lacks(at: Lsn) -> String {
    format!("the other server has no longer the WAL from {at} on, which a standby made so would need")
}

fn against_rewind(means: &Means) -> Option<String> {
    if !means.hints {
        return Some("the cluster has neither data checksums nor wal_log_hints = on".into());
    }
    if !means.full_page_writes {
        return Some("full_page_writes is off on the other server".into());
    }
    if let Some(file) = &means.read_only {
        return Some(format!("file \"{file}\" cannot be written"));
    }
    if !means.target_wal {
        return Some("this server has no longer the WAL back to that position".into());
    }
    match &means.trial {
        Trial::Nothing => Some("it says that there is nothing to rewind, which is not so".into()),
        Trial::Refused(why) => Some(why.clone()),
        Trial::Later | Trial::Copies(_) => means.source_lacks.map(lacks),
    }
}
