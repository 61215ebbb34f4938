//! What rebuilds are called and how they are told, the same in messages, status and command line.

use super::{Chosen, Lost};
use crate::fsm::event::Doubt;

impl Chosen {
    /// The program that does it.
    pub fn program(self) -> &'static str {
        match self {
            Chosen::Follow => "no copy",
            Chosen::Rewind => "pg_rewind",
            Chosen::BaseBackup => "pg_basebackup",
        }
    }

    /// As `--method` has it.
    pub fn word(self) -> &'static str {
        match self {
            Chosen::Follow => "follow",
            Chosen::Rewind => "rewind",
            Chosen::BaseBackup => "basebackup",
        }
    }
}

impl Lost {
    /// What it is, in a line.
    pub fn in_words(&self) -> String {
        let Lost { timeline, from, to, transactions, .. } = self;
        let place = format!("timeline {timeline}, {from} to {to}");
        if *transactions == 0 {
            return format!("WAL without a committed transaction ({place})");
        }
        let when = match (self.first_commit.as_str(), self.last_commit.as_str()) {
            ("", _) | (_, "") => String::new(),
            (first, last) if first == last => format!(", of {first}"),
            (first, last) => format!(", from {first} to {last}"),
        };
        let more = if self.more_relations { " and more" } else { "" };
        let relations = match self.relations.as_slice() {
            [] => String::new(),
            names => format!(", in {}{more}", names.join(", ")),
        };
        let word = if *transactions == 1 { "transaction" } else { "transactions" };
        let told = match self.doubt {
            Doubt::None if !self.maybe_acknowledged => "none was acknowledged with synchronous_commit on",
            Doubt::None | Doubt::Forced => "some may have been acknowledged, because a view was forced",
            Doubt::NamesChanged => "some may have been acknowledged, because synchronous_standby_names was changed",
            Doubt::NotKnown => "whether any was acknowledged is not known",
        };
        format!("{transactions} committed {word}{when}{relations}; {told} ({place})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_reads_well() {
        let mut lost = Lost {
            time_ms: 0,
            timeline: 1,
            from: "0/3000000".into(),
            to: "0/3001000".into(),
            transactions: 2,
            first_commit: "12:00".into(),
            last_commit: "12:01".into(),
            relations: vec!["app.public.t".into()],
            more_relations: false,
            maybe_acknowledged: false,
            doubt: Doubt::None,
            kept: "/mc/nd1/lost/x".into(),
        };
        assert_eq!(
            lost.in_words(),
            "2 committed transactions, from 12:00 to 12:01, in app.public.t; none was acknowledged with synchronous_commit on (timeline 1, \
             0/3000000 to 0/3001000)"
        );
        (lost.transactions, lost.more_relations, lost.maybe_acknowledged) = (1, true, true);
        lost.last_commit = "12:00".into();
        assert_eq!(
            lost.in_words(),
            "1 committed transaction, of 12:00, in app.public.t and more; some may have been acknowledged, because a \
             view was forced (timeline 1, 0/3000000 to 0/3001000)"
        );
        (lost.transactions, lost.doubt) = (2, Doubt::NamesChanged);
        assert!(lost.in_words().contains("acknowledged, because synchronous_standby_names was changed"));
        lost.doubt = Doubt::NotKnown;
        assert!(lost.in_words().contains("is not known"));
        lost.transactions = 0;
        assert_eq!(lost.in_words(), "WAL without a committed transaction (timeline 1, 0/3000000 to 0/3001000)");
    }
}
