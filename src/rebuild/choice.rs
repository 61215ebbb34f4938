//! Which way leads back, once it is known how two servers lie to each other: pure.

use super::Chosen;
use super::divergence::Verdict;
use crate::fsm::types::{Lsn, Method};

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
    /// The target is a standby's that was not shut down cleanly: it cannot end its recovery by itself.
    pub crashed_standby: bool,
    /// A file in the target that cannot be written.
    pub read_only: Option<String>,
    /// What an earlier rebuild has put aside where pg_rewind would delete it, or copy it.
    pub aside: Option<String>,
    /// A tablespace that was made on the source since they parted: pg_rewind would link to a directory that is not there.
    pub new_tablespace: Option<String>,
    /// The target has the WAL back to the last checkpoint before it parted, or a `restore_command` that pg_rewind can use.
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
        _ if method == Method::BaseBackup => (Chosen::BaseBackup, "a base backup was requested".to_owned()),
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
        let obstacle = format!(
            "A rewind was requested, but {why}. To make a base backup, run \"mc_ctl rebuild --method basebackup\"."
        );
        return Choice { chosen: Chosen::Rewind, why, obstacle: Some(obstacle) };
    }
    Choice { chosen, why, obstacle: None }
}

fn lacks(at: Lsn) -> String {
    format!("the other server no longer has the WAL from {at} on, which the standby would require")
}

/// Why `pg_rewind` cannot be used, if it cannot.
pub fn against_rewind(means: &Means) -> Option<String> {
    if !means.hints {
        return Some("the cluster has neither data checksums nor wal_log_hints = on".into());
    }
    if !means.full_page_writes {
        return Some("full_page_writes is off on the other server".into());
    }
    if means.crashed_standby {
        return Some("the data directory is that of a standby that was not shut down cleanly".into());
    }
    if let Some(file) = &means.read_only {
        return Some(format!("file \"{file}\" cannot be written"));
    }
    if let Some(aside) = &means.aside {
        return Some(format!("it would change \"{aside}\", which an earlier rebuild has saved"));
    }
    if let Some(name) = &means.new_tablespace {
        return Some(format!("tablespace \"{name}\" was created on the other server since then"));
    }
    if !means.target_wal {
        return Some("this server no longer has the WAL back to that position".into());
    }
    match &means.trial {
        Trial::Nothing => Some("it reports that no rewind is required, although one is".into()),
        Trial::Refused(why) => Some(why.clone()),
        Trial::Later | Trial::Copies(_) => means.source_lacks.map(lacks),
    }
}

#[cfg(test)]
mod tests {
    use super::super::divergence::Own;
    use super::*;
    use crate::fsm::types::Timeline;

    fn able() -> Means {
        Means {
            hints: true,
            full_page_writes: true,
            crashed_standby: false,
            read_only: None,
            aside: None,
            new_tablespace: None,
            target_wal: true,
            source_lacks: None,
            trial: Trial::Later,
        }
    }

    #[test]
    fn choices() {
        let diverged = Verdict::Diverged(Timeline(1), Lsn(0x300_0060), "they parted".into());
        let within = Verdict::Within("all is there".into());
        let apart = Verdict::Apart("it is another cluster".into(), Own::Nothing);
        let check = |method, verdict: &Verdict, means: Means, expected: Chosen, why: &str| {
            let choice = choose(method, verdict, &means);
            assert_eq!((choice.chosen, choice.obstacle), (expected, None), "{verdict:?} {means:?}");
            assert!(choice.why.contains(why), "{why:?} is not in {:?}", choice.why);
        };
        let auto = Method::Auto;
        check(auto, &within, able(), Chosen::Follow, "all is there");
        check(Method::Rewind, &within, able(), Chosen::Follow, "all is there");
        check(Method::BaseBackup, &within, able(), Chosen::BaseBackup, "requested");
        let lacks = Means { source_lacks: Some(Lsn(7)), ..able() };
        check(auto, &within, lacks.clone(), Chosen::BaseBackup, "no longer has the WAL from 0/7");
        check(auto, &diverged, able(), Chosen::Rewind, "they parted");
        check(auto, &diverged, Means { trial: Trial::Copies(7), ..able() }, Chosen::Rewind, "they parted");
        check(Method::BaseBackup, &diverged, able(), Chosen::BaseBackup, "requested");
        check(auto, &apart, able(), Chosen::BaseBackup, "another cluster");
        for (means, why) in [
            (Means { hints: false, ..able() }, "wal_log_hints"),
            (Means { full_page_writes: false, ..able() }, "full_page_writes"),
            (Means { crashed_standby: true, ..able() }, "not shut down cleanly"),
            (Means { new_tablespace: Some("t".into()), ..able() }, "tablespace \"t\" was created on the other server"),
            (Means { read_only: Some("/d/key".into()), ..able() }, "\"/d/key\" cannot be written"),
            (Means { aside: Some("/t/rebuild-old-1".into()), ..able() }, "would change \"/t/rebuild-old-1\""),
            (Means { target_wal: false, ..able() }, "this server no longer has the WAL"),
            (lacks, "the other server no longer has the WAL from 0/7"),
            (Means { trial: Trial::Nothing, ..able() }, "although one is"),
            (Means { trial: Trial::Refused("could not".into()), ..able() }, "could not"),
        ] {
            check(auto, &diverged, means.clone(), Chosen::BaseBackup, "they parted, but pg_rewind cannot be used");
            check(auto, &diverged, means.clone(), Chosen::BaseBackup, why);
            let refused = choose(Method::Rewind, &diverged, &means);
            assert!(refused.chosen == Chosen::Rewind && refused.obstacle.is_some_and(|text| text.contains(why)));
        }
        assert!(choose(Method::Rewind, &apart, &able()).obstacle.is_some());
    }
}
