//! Whether two servers' WAL has diverged, and which way leads back: pure, over facts that others have gathered.
//!
//! It is decided from the timelines' history and from what lies in the WAL, never from `pg_rewind`'s exit code: right after
//! a promotion that says "no rewind required", and does nothing, because the promoted server's control file still tells
//! the old timeline.

use crate::fsm::types::{Lsn, Timeline};

/// The end of a timeline that continues.
const OPEN: Lsn = Lsn(u64::MAX);

/// The way by which a server came to its timeline: each timeline and where it was left, oldest first. The last one continues.
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

    /// All timelines that it was on, oldest first.
    pub fn timelines(&self) -> impl DoubleEndedIterator<Item = Timeline> + '_ {
        self.0.iter().map(|(timeline, _)| *timeline)
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
    /// They parted at this position of this timeline, which both were on; the target has continued to another one.
    Fork(Timeline, Lsn),
    /// They parted there, and have come to timelines of the same number.
    Twins(Timeline, Lsn),
    /// They never were on one timeline.
    Strangers,
}

impl Lineage {
    /// Up to here their WAL is the same if the target has it; `None` for no bound, or no common timeline.
    pub fn common_until(self) -> Option<Lsn> {
        match self {
            Lineage::Ancestor(_, at) | Lineage::Fork(_, at) | Lineage::Twins(_, at) => Some(at),
            Lineage::Same | Lineage::Strangers => None,
        }
    }
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
    /// Its WAL differs from the source's before this position, where by the histories it would be the same.
    pub differs: Option<Lsn>,
    /// A file of its WAL that is missing or truncated.
    pub unreadable: Option<String>,
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
        Content::Nothing => apart("this server has no data directory yet"),
        Content::OtherCluster => apart("the data directory belongs to another cluster"),
        Content::HalfRewound => apart(
            "an earlier rebuild was interrupted while it overwrote the data directory, which only a new copy can repair",
        ),
        Content::Damaged(why) => apart(why),
    }
}

fn judge_cluster(cluster: &Cluster, source: Source) -> Verdict {
    let (now, end, insert) = (source.timeline.0, cluster.end, source.insert);
    if let Some(file) = &cluster.unreadable {
        let own = match cluster.lineage {
            Lineage::Ancestor(timeline, at) | Lineage::Fork(timeline, at) | Lineage::Twins(timeline, at) => {
                Own::From(timeline, at)
            }
            Lineage::Same => Own::Unknown,
            Lineage::Strangers => Own::Nothing,
        };
        let why = format!(
            "WAL file \"{file}\" is missing or truncated, so that this server's WAL does not show what its data files contain"
        );
        return Verdict::Apart(why, own);
    }
    if let Some(at) = cluster.differs {
        return Verdict::Apart(
            format!(
                "the WAL of the servers already differs before {at}, although both were on the same timeline; pg_rewind does \
                 not detect this"
            ),
            Own::Unknown,
        );
    }
    match cluster.lineage {
        Lineage::Strangers => apart("this server shares no timeline with the other server"),
        Lineage::Twins(timeline, at) => Verdict::Apart(
            format!(
                "both servers were promoted to timeline {now} independently, at {at} of timeline {}; pg_rewind cannot \
                 distinguish them",
                timeline.0
            ),
            Own::From(timeline, at),
        ),
        Lineage::Fork(timeline, at) => Verdict::Diverged(
            timeline,
            at,
            format!(
                "this server was also promoted, and diverged from the other server at {at} of timeline {}",
                timeline.0
            ),
        ),
        Lineage::Ancestor(timeline, at) => match cluster.beyond.or((end > at).then_some(end)) {
            Some(_) => Verdict::Diverged(
                timeline,
                at,
                format!(
                    "this server has WAL of timeline {} past {at}, where timeline {now} of the other server begins",
                    timeline.0
                ),
            ),
            None => within(
                cluster,
                format!(
                    "this server has nothing past {at}, where the other server changed from timeline {} to timeline {now}",
                    timeline.0
                ),
            ),
        },
        Lineage::Same if !cluster.standby => Verdict::Apart(
            format!(
                "this server ran as a primary on timeline {now} like the other server, so that the point of divergence is unknown"
            ),
            Own::Unknown,
        ),
        Lineage::Same if end > insert => Verdict::Apart(
            format!(
                "this server has WAL of timeline {now} up to {end}, but the other server only up to {insert}, and pg_rewind \
                 works only between timelines"
            ),
            Own::From(source.timeline, insert),
        ),
        Lineage::Same => within(cluster, format!("this server is a standby on the other server's timeline {now}")),
    }
}

fn within(cluster: &Cluster, why: String) -> Verdict {
    match cluster.stray {
        None => Verdict::Within(why),
        Some(stray) => apart(&format!(
            "its pg_wal contains the history of timeline {}, which the other server does not have, and to which recovery would \
             switch",
            stray.0
        )),
    }
}

fn apart(why: &str) -> Verdict {
    Verdict::Apart(why.to_owned(), Own::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const F: Lsn = Lsn(0x300_0060);
    const SOURCE: Source = Source { timeline: Timeline(2), insert: Lsn(0x500_0000) };

    fn history(timeline: u32, text: &str) -> History {
        History::parse(Timeline(timeline), text).unwrap()
    }

    #[test]
    fn histories_are_parsed() {
        let three = history(3, "1\t0/3000060\tno recovery target specified\n\n2\t0/4000000\tbefore 2000-01-01\n# x\n");
        assert_eq!(three.0, [(Timeline(1), F), (Timeline(2), Lsn(0x400_0000)), (Timeline(3), OPEN)]);
        assert_eq!((three.timeline(), three.begin()), (Timeline(3), Lsn(0x400_0000)));
        assert!(three.holds(Timeline(2)) && !three.holds(Timeline(4)));
        assert_eq!(three.until(Timeline(2)), Some(history(2, "1 0/3000060 x")));
        assert_eq!(three.until(Timeline(9)), None);
        assert_eq!(history(1, "").begin(), Lsn(0));
        for bad in ["1", "x 0/1", "1 0:1", "3 0/1", "2 0/5\n1 0/6", "1 0/5\n2 0/4", "1 0/5\n1 0/6"] {
            assert!(History::parse(Timeline(3), bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_lies_after_a_position() {
        let three = history(3, "1 0/300\n2 0/400");
        let part = |timeline, from, to: Option<u64>| (Timeline(timeline), Lsn(from), to.map(Lsn));
        assert_eq!(
            three.after(Lsn(0x250)),
            [part(1, 0x250, Some(0x300)), part(2, 0x300, Some(0x400)), part(3, 0x400, None)]
        );
        assert_eq!(three.after(Lsn(0x300)), [part(2, 0x300, Some(0x400)), part(3, 0x400, None)]);
        assert_eq!(three.after(Lsn(0x500)), [part(3, 0x500, None)]);
    }

    #[test]
    fn histories_are_compared() {
        let check = |source: (u32, &str), target: (u32, &str), expected: Lineage| {
            let (source, target) = (history(source.0, source.1), history(target.0, target.1));
            assert_eq!(lineage(&source, &target), expected, "{source:?} {target:?}");
        };
        let (one, at) = (Timeline(1), Lsn(0x300));
        check((1, ""), (1, ""), Lineage::Same);
        check((2, "1 0/300"), (2, "1 0/300"), Lineage::Same);
        check((2, "1 0/300"), (1, ""), Lineage::Ancestor(one, at));
        check((4, "1 0/300\n2 0/400"), (1, ""), Lineage::Ancestor(one, at));
        check((4, "1 0/300\n2 0/400"), (2, "1 0/300"), Lineage::Ancestor(Timeline(2), Lsn(0x400)));
        // The target was promoted; the source has continued, or not.
        check((1, ""), (2, "1 0/300"), Lineage::Fork(one, at));
        check((3, "1 0/300"), (2, "1 0/300"), Lineage::Fork(one, at));
        check((3, "1 0/300"), (2, "1 0/500"), Lineage::Fork(one, at));
        check((3, "1 0/500"), (2, "1 0/300"), Lineage::Fork(one, at));
        check((4, "1 0/300\n3 0/600"), (2, "1 0/300"), Lineage::Fork(one, at));
        check((4, "1 0/300\n2 0/400"), (3, "1 0/300\n2 0/500"), Lineage::Fork(Timeline(2), Lsn(0x400)));
        // The same number, by other ways.
        check((2, "1 0/300"), (2, "1 0/500"), Lineage::Twins(one, at));
        check((3, "1 0/300\n2 0/400"), (3, "1 0/300"), Lineage::Twins(one, at));
        check((3, "1 0/300\n2 0/400"), (3, "1 0/300\n2 0/500"), Lineage::Twins(Timeline(2), Lsn(0x400)));
        check((2, ""), (1, ""), Lineage::Strangers);
        check((3, "2 0/300"), (4, "1 0/300"), Lineage::Strangers);
    }

    fn cluster(lineage: Lineage, end: u64) -> Cluster {
        Cluster { standby: false, lineage, end: Lsn(end), beyond: None, stray: None, differs: None, unreadable: None }
    }

    /// The words of the verdict, and what only the target has.
    fn verdict(cluster: Cluster) -> (&'static str, Own, String) {
        let verdict = judge(&Content::Cluster(cluster), SOURCE);
        let own = verdict.own();
        match verdict {
            Verdict::Within(why) => ("within", own, why),
            Verdict::Diverged(_, _, why) => ("diverged", own, why),
            Verdict::Apart(why, _) => ("apart", own, why),
        }
    }

    #[test]
    fn verdicts() {
        let check = |cluster: Cluster, expected: &str, own: Own, why: &str| {
            let found = verdict(cluster.clone());
            assert_eq!((found.0, found.1), (expected, own), "{cluster:?}");
            assert!(found.2.contains(why), "{why:?} is not in {:?}", found.2);
        };
        let ancestor = Lineage::Ancestor(Timeline(1), F);
        let from = Own::From(Timeline(1), F);
        let standby = |lineage, end| Cluster { standby: true, ..cluster(lineage, end) };
        // A primary that was shut down: the record of its checkpoint begins just before the fork, or at it.
        check(cluster(ancestor, F.0 - 0x77), "within", Own::Nothing, "nothing past 0/3000060");
        check(cluster(ancestor, F.0), "within", Own::Nothing, "from timeline 1 to timeline 2");
        check(cluster(ancestor, F.0 + 1), "diverged", from, "WAL of timeline 1 past 0/3000060");
        // One that crashed: its control file is behind, its WAL is not.
        check(Cluster { beyond: Some(F), ..cluster(ancestor, 40) }, "diverged", from, "");
        check(cluster(ancestor, 40), "within", Own::Nothing, "");
        // A standby that had received more than the one that was promoted, and one that is behind.
        check(Cluster { beyond: Some(Lsn(F.0 + 8)), ..standby(ancestor, 40) }, "diverged", from, "");
        check(standby(ancestor, 40), "within", Own::Nothing, "");
        let stray = Cluster { stray: Some(Timeline(7)), ..standby(ancestor, 40) };
        let differs = Cluster { differs: Some(F), ..standby(ancestor, 40) };
        check(differs, "apart", Own::Unknown, "differs before 0/3000060");
        let unreadable = |cluster| Cluster { unreadable: Some("/d/pg_wal/3".into()), ..cluster };
        check(unreadable(cluster(ancestor, 40)), "apart", from, "WAL file \"/d/pg_wal/3\" is missing or truncated");
        check(unreadable(cluster(Lineage::Same, 40)), "apart", Own::Unknown, "missing or truncated");
        check(stray, "apart", Own::Nothing, "history of timeline 7");
        check(cluster(Lineage::Fork(Timeline(1), F), 0), "diverged", from, "also promoted");
        check(standby(Lineage::Fork(Timeline(1), F), 0), "diverged", from, "also promoted");
        check(cluster(Lineage::Twins(Timeline(1), F), 0), "apart", from, "independently");
        check(cluster(Lineage::Strangers, 0), "apart", Own::Nothing, "no timeline");
        // The same timeline.
        check(cluster(Lineage::Same, 40), "apart", Own::Unknown, "ran as a primary on timeline 2");
        check(standby(Lineage::Same, SOURCE.insert.0), "within", Own::Nothing, "a standby on");
        let ahead = Own::From(Timeline(2), SOURCE.insert);
        check(standby(Lineage::Same, SOURCE.insert.0 + 1), "apart", ahead, "the other server only up to 0/5000000");
        for (content, why) in [
            (Content::Nothing, "no data directory yet"),
            (Content::OtherCluster, "another cluster"),
            (Content::HalfRewound, "interrupted"),
            (Content::Damaged("it is damaged".into()), "it is damaged"),
        ] {
            let Verdict::Apart(found, Own::Nothing) = judge(&content, SOURCE) else { panic!("{content:?}") };
            assert!(found.contains(why), "{found}");
        }
    }

    /// A way through a few timelines.
    fn any_history() -> impl Strategy<Value = History> {
        proptest::collection::vec((1_u32..3, 0_u64..4), 0..4).prop_map(|steps| {
            let (mut timeline, mut at) = (1, 0x100);
            let mut line = Vec::new();
            for (up, on) in steps {
                at += on * 0x10;
                line.push((Timeline(timeline), Lsn(at)));
                timeline += up;
            }
            line.push((Timeline(timeline), OPEN));
            History(line)
        })
    }

    proptest! {
        #[test]
        fn the_point_of_parting_is_on_both_ways(source in any_history(), target in any_history()) {
            let found = lineage(&source, &target);
            prop_assert_eq!(found == Lineage::Same, source == target);
            // The other way round they part at the same place.
            match (found, lineage(&target, &source)) {
                (Lineage::Ancestor(timeline, at), other) => {
                    prop_assert_eq!(target.timeline(), timeline);
                    prop_assert_eq!(other, Lineage::Fork(timeline, at));
                }
                (Lineage::Twins(timeline, at), other) => prop_assert_eq!(other, Lineage::Twins(timeline, at)),
                (Lineage::Fork(timeline, at), other) => {
                    let known = [Lineage::Fork(timeline, at), Lineage::Ancestor(timeline, at)];
                    prop_assert!(known.contains(&other));
                    prop_assert!(source.holds(timeline) && target.holds(timeline));
                }
                (Lineage::Same | Lineage::Strangers, other) => prop_assert_eq!(other, found),
            }
        }

        #[test]
        fn junk_does_not_panic(text in "\\PC{0,60}") {
            let _ = History::parse(Timeline(5), &text);
        }
    }
}
