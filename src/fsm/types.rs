//! The nouns of the protocol: members, terms, positions, views and ledgers.
//!
//! Plain values. Everything that crosses the wire or is written to disk by the core is made of these.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One of the two servers, by the line that it has in `network.conf`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Server {
    /// The server of the first line; it proposes with odd terms.
    First,
    /// The server of the second line; it proposes with even terms.
    Second,
}

impl Server {
    /// Both servers, in the order of `network.conf`.
    pub const BOTH: [Server; 2] = [Server::First, Server::Second];

    /// The other server of the pair.
    pub fn other(self) -> Server {
        match self {
            Server::First => Server::Second,
            Server::Second => Server::First,
        }
    }

    /// 0 for the first line, 1 for the second.
    pub fn index(self) -> usize {
        match self {
            Server::First => 0,
            Server::Second => 1,
        }
    }

    /// What is this server's and what is the other's, in the order of `network.conf`.
    pub fn in_order<T>(self, mine: T, theirs: T) -> [T; 2] {
        match self {
            Server::First => [mine, theirs],
            Server::Second => [theirs, mine],
        }
    }
}

/// Any member of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Member {
    /// A server, with an instance.
    Server(Server),
    /// The third member, which holds no data.
    Arbiter,
}

impl Member {
    /// Every member, by its number.
    pub const ALL: [Member; 3] = [Member::Server(Server::First), Member::Server(Server::Second), Member::Arbiter];

    /// 0 and 1 for the servers, 2 for the arbiter.
    pub fn index(self) -> usize {
        match self {
            Member::Server(server) => server.index(),
            Member::Arbiter => 2,
        }
    }
}

/// A monotonic time in milliseconds that continues during suspend (`CLOCK_BOOTTIME`). Only differences mean anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// Milliseconds from `earlier` to this time; 0 where `earlier` is later.
    pub fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This time and `ms` milliseconds.
    pub fn plus(self, ms: u64) -> Time {
        Time(self.0.saturating_add(ms))
    }
}

/// The `count`th random number of a process that drew `seed` (splitmix64); never 0.
pub(super) fn draw(seed: u64, count: u64) -> u64 {
    let mut z = seed.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).max(1)
}

/// A term: numbers the views. Odd terms are proposed by the first server, even ones by the second (PROTOCOL R1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Term(pub u64);

impl Term {
    /// The smallest term above this one that `server` may propose with. There is none above the last; what comes back then is
    /// never accepted.
    pub fn next_for(self, server: Server) -> Term {
        let next = Term(self.0.saturating_add(1));
        if next.is_of(server) { next } else { Term(next.0.saturating_add(1)) }
    }
}

impl Term {
    /// Whether `server` may propose with this term.
    pub fn is_of(self, server: Server) -> bool {
        (self.0 % 2 == 1) == (server == Server::First)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A position in the write-ahead log, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl std::str::FromStr for Lsn {
    type Err = String;

    /// Parses PostgreSQL's `high/low` notation.
    fn from_str(text: &str) -> Result<Lsn, String> {
        let bad = || format!("\"{text}\" is not a WAL position");
        let (high, low) = text.trim().split_once('/').ok_or_else(bad)?;
        let high = u32::from_str_radix(high, 16).map_err(|_| bad())?;
        let low = u32::from_str_radix(low, 16).map_err(|_| bad())?;
        Ok(Lsn(u64::from(high) << 32 | u64::from(low)))
    }
}

/// A position in the WAL together with a digest of the bytes before it. A data directory contains the point if the same bytes
/// lie before that position in its own WAL (PROTOCOL R13).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct WalPoint {
    /// The timeline on which the bytes were written.
    pub timeline: Timeline,
    /// The position.
    pub lsn: Lsn,
    /// How many bytes before the position the digest covers.
    pub length: u32,
    /// The digest.
    pub hash: u64,
}

impl WalPoint {
    /// Whether this point is further on than `other`: on a newer timeline, or at a higher position of the same one.
    pub fn is_past(&self, other: &WalPoint) -> bool {
        (self.timeline, self.lsn) > (other.timeline, other.lsn)
    }

    /// The further of two points.
    pub fn further(one: Option<WalPoint>, other: Option<WalPoint>) -> Option<WalPoint> {
        match (one, other) {
            (Some(one), Some(other)) => Some(if other.is_past(&one) { other } else { one }),
            (one, other) => one.or(other),
        }
    }
}

/// The furthest point that the data directory of this name is known to have contained (PROTOCOL R13).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct HighWater {
    /// The data directory.
    pub data: DataId,
    /// The point.
    pub point: WalPoint,
}

impl HighWater {
    /// Raises a remembered mark. Another data directory begins a new one.
    pub fn raise(known: &mut Option<HighWater>, seen: HighWater) {
        if known.is_none_or(|known| known.data != seen.data || seen.point.is_past(&known.point)) {
            *known = Some(seen);
        }
    }

    /// Whether a server that reports `point` for the data directory `data` reports less than is remembered here.
    pub fn is_missed(known: Option<HighWater>, data: DataId, point: Option<WalPoint>) -> bool {
        known.is_some_and(|known| known.data == data && point.is_none_or(|point| known.point.is_past(&point)))
    }
}

/// A PostgreSQL timeline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Timeline(pub u32);

/// PostgreSQL's system identifier: the cluster's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct SystemId(pub u64);

/// The random name of a ledger; never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct LedgerId(pub u64);

/// The random name of a data directory. Only the ledger of an arbiter, which has none, contains 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct DataId(pub u64);

/// In ledgers and messages "none" is 0. This module converts it at the border.
pub(crate) mod zero {
    use super::{DataId, LedgerId, Lsn, SystemId, Term, Timeline};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// A value of which 0 is never a real one.
    pub trait Number: Copy {
        /// The number in the file or message.
        fn number(self) -> u64;
        /// The value of this number.
        fn of(number: u64) -> Self;
    }

    impl Number for u64 {
        fn number(self) -> u64 {
            self
        }
        fn of(number: u64) -> u64 {
            number
        }
    }

    macro_rules! numbers {
        ($($name:ident),+) => {
            $(impl Number for $name {
                fn number(self) -> u64 {
                    self.0
                }
                fn of(number: u64) -> $name {
                    $name(number)
                }
            })+
        };
    }
    numbers!(DataId, LedgerId, Lsn, SystemId, Term);

    impl Number for Timeline {
        fn number(self) -> u64 {
            self.0.into()
        }
        fn of(number: u64) -> Timeline {
            Timeline(number.try_into().unwrap_or(u32::MAX))
        }
    }

    /// The number that is written.
    pub fn number<T: Number>(value: Option<T>) -> u64 {
        value.map_or(0, T::number)
    }

    /// What a number that was read means.
    pub fn value<T: Number>(number: u64) -> Option<T> {
        (number != 0).then(|| T::of(number))
    }

    pub fn serialize<T: Number, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(number(*value))
    }

    pub fn deserialize<'de, T: Number, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
        Ok(value(u64::deserialize(from)?))
    }

    /// The same of two values.
    pub mod pair {
        use super::{Deserialize, Deserializer, Number, Serialize, Serializer, number, value};

        pub fn serialize<T: Number, S: Serializer>(values: &[Option<T>; 2], to: S) -> Result<S::Ok, S::Error> {
            values.map(number).serialize(to)
        }

        pub fn deserialize<'de, T: Number, D: Deserializer<'de>>(from: D) -> Result<[Option<T>; 2], D::Error> {
            Ok(<[u64; 2]>::deserialize(from)?.map(value))
        }
    }

    /// The same of a ledger's id beside the highest term that it has promised.
    pub mod known {
        use super::{Deserialize, Deserializer, LedgerId, Serialize, Serializer, Term, number, value};

        pub fn serialize<S: Serializer>((id, term): &(Option<LedgerId>, Term), to: S) -> Result<S::Ok, S::Error> {
            (number(*id), term).serialize(to)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<(Option<LedgerId>, Term), D::Error> {
            let (id, term) = <(u64, Term)>::deserialize(from)?;
            Ok((value(id), term))
        }
    }
}

/// Whether both servers serve, or one alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Mode {
    /// The other server is the synchronous standby and holds every acknowledged commit.
    Mirrored,
    /// The primary alone may acknowledge commits; the other must not be promoted.
    Degraded,
}

impl Mode {
    /// The word for it in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Mirrored => "mirrored",
            Mode::Degraded => "degraded",
        }
    }

    /// Who serves in this mode, in words. `primary`: its identifier.
    pub fn state(self, primary: &str, forced: bool) -> String {
        let forced = if forced { " (forced)" } else { "" };
        match self {
            Mode::Mirrored => format!("mirrored, primary {primary}{forced}"),
            Mode::Degraded => format!("{primary} serves alone{forced}"),
        }
    }
}

/// Who may acknowledge commits (PROTOCOL section 2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct View {
    /// Numbers the views; one term never carries two.
    pub term: Term,
    /// The server whose instance takes writes.
    pub primary: Server,
    /// Mirrored, or alone.
    pub mode: Mode,
    /// The data directories that the view leans on, by [`Server::index`], as far as they are known.
    #[serde(with = "zero::pair")]
    pub data: [Option<DataId>; 2],
    /// The arbiter's ledger that the view leans on.
    #[serde(with = "zero")]
    pub arbiter: Option<LedgerId>,
    /// Written without the consent that the safety argument needs (PROTOCOL section 6).
    pub forced: bool,
}

impl View {
    /// Whether this is `Degraded(server)`.
    pub fn is_alone(&self, server: Server) -> bool {
        self.mode == Mode::Degraded && self.primary == server
    }

    /// Whether this is `Mirrored(server)`.
    pub fn is_mirrored(&self, server: Server) -> bool {
        self.mode == Mode::Mirrored && self.primary == server
    }
}

/// How a data directory is recognised: its random name, and what it is compared by when it is looked at again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct DataIdentity {
    /// The random name.
    pub id: DataId,
    /// Inode and birth time of `global/pg_control`, folded into one number by the reader of the directory.
    pub fingerprint: u64,
    /// The fingerprint without the birth time; 0 in a ledger of an earlier version.
    #[serde(default)]
    pub inode_print: u64,
    /// The last checkpoint seen in it. A directory whose checkpoint is older has been put back.
    pub checkpoint: Lsn,
}

/// What a member keeps on disk (PROTOCOL section 2). For the arbiter `data` is all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Ledger {
    /// The cluster that it belongs to.
    pub system: SystemId,
    /// Its own random name.
    pub id: LedgerId,
    /// This server's data directory.
    pub data: DataIdentity,
    /// The newest view that this member has accepted, adopted or written.
    pub view: View,
    /// The highest term promised, at least `view.term`. Never goes down.
    pub promised: Term,
}

/// The pair's setting for automatic switch and disconnection; the higher `version` wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Failover {
    /// Counts the changes; distinct between the servers, as terms are.
    pub version: u64,
    /// Whether a failure leads to a switch or a disconnection by itself.
    pub enabled: bool,
}

/// How a data directory is made a copy of the other server's again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Method {
    /// The cheapest that works: nothing where it has not diverged, `pg_rewind`, else a base backup.
    #[default]
    Auto,
    /// `pg_rewind`, or nothing.
    Rewind,
    /// `pg_basebackup`.
    BaseBackup,
}

/// What becomes of a data directory that a base backup replaces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum OldData {
    /// It is kept aside.
    #[default]
    Keep,
    /// It is deleted first.
    Delete,
}

/// What an operator, or `rebuild_action = auto`, asks of a rebuild.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct RebuildOrder {
    /// How.
    pub method: Method,
    /// What becomes of the old directory.
    pub old_data: OldData,
}

/// What a server keeps beside its ledger, in the same file: no part of the safety argument, but needed after a restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Notes {
    /// Automatic switch and disconnection.
    pub failover: Failover,
    /// The instance is to run (false after a stop that was asked for).
    pub wanted: bool,
    /// An operator detached the standby: no return to `Mirrored` until the standby's controller is started again. Holds
    /// the other's `start_id` at that time.
    #[serde(with = "zero")]
    pub detached: Option<u64>,
    /// The `start_id` that this server's running controller took from the operator's last order. A restart after a crash keeps
    /// it, and therefore does not attach a detached standby. `None` if the order was the start of the controller.
    #[serde(default)]
    pub start_id: Option<u64>,
    /// This data directory was shut down in a hand-over and its shutdown checkpoint confirmed by the standby: it may
    /// start as a standby without a rebuild. Holds the position of that checkpoint.
    #[serde(with = "zero")]
    pub handed_over: Option<Lsn>,
    /// This server was promoted (or was asked to be) under the present right to run alone.
    pub promoted: bool,
    /// A split was seen and this server is the one that was stopped; it stays down until an operator decides.
    pub lost_split: bool,
    /// The data directory was adopted by an operator while a `backup_label` lay in it: no other directory for that.
    #[serde(default)]
    pub labelled: bool,
    /// Under the present `Mirrored`, the primary found `synchronous_standby_names` changed: commits may not have waited, and the
    /// standby may lack them. The primary, the standby and the arbiter each keep it until the view changes. A primary that lost
    /// its role keeps it until it has another one, because its data directory may hold commits that no other server has.
    #[serde(default)]
    pub unmirrored: bool,
    /// The view is a right that one server took by force, and replaces a right of the other server, which keeps that (R7). The
    /// arbiter keeps this, and the server that took the right.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaces_right: bool,
    /// A rebuild of the data directory is under way, or is to be: it is continued after a restart.
    #[serde(default)]
    pub rebuild: Option<RebuildOrder>,
    /// The view for which `rebuild_action = auto` has ordered a rebuild.
    #[serde(default, with = "zero")]
    pub rebuild_tried: Option<Term>,
    /// The data directory was found to lack WAL that it had contained up to this point (PROTOCOL R13), and was given a new
    /// name for that; kept until the view changes.
    #[serde(default)]
    pub went_back: Option<WalPoint>,
    /// A WAL receiver has overwritten the WAL of this standby from a primary that did not contain it: only a base backup makes
    /// the data directory a copy again.
    #[serde(default)]
    pub overwritten: bool,
    /// How many rebuilds have failed in that view.
    #[serde(default)]
    pub rebuild_tries: u32,
    /// Hooks that are still to be called, or have not ended: they are called again after a restart.
    #[serde(default)]
    pub owed: PendingHooks,
}

/// The views of whose change a hook has not been called, or has not ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct PendingHooks {
    /// `post_switch_command`: since this view this server has been the primary.
    #[serde(with = "zero")]
    pub switched: Option<Term>,
    /// `pre_detach_command`: with this view the standby was disconnected.
    #[serde(with = "zero")]
    pub detached: Option<Term>,
    /// `post_attach_command`: with this view the pair became mirrored.
    #[serde(with = "zero")]
    pub attached: Option<Term>,
}

/// Everything that a server writes to disk, in one file and one write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Durable {
    /// The protocol's part.
    pub ledger: Ledger,
    /// The rest.
    pub notes: Notes,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of version 0.1, in which "none" is 0, is read, and is written as it was.
    #[test]
    fn an_old_ledger_is_read() {
        let ledger = |data: &str, arbiter: u64| {
            format!(
                r#"{{"system":7,"id":9,"data":{{"id":3,"fingerprint":5,"inode_print":0,"checkpoint":100}},"view":{{"term":4,"primary":"Second","mode":"Degraded","data":{data},"arbiter":{arbiter},"forced":false}},"promised":6}}"#
            )
        };
        let notes = |number: u64| {
            format!(
                r#"{{"failover":{{"version":2,"enabled":true}},"wanted":true,"detached":{number},"start_id":null,"handed_over":{number},"promoted":false,"lost_split":false,"labelled":false,"unmirrored":false,"rebuild":null,"rebuild_tried":{number},"went_back":null,"overwritten":false,"rebuild_tries":0,"owed":{{"switched":{number},"detached":{number},"attached":{number}}}}}"#
            )
        };
        for (data, arbiter, number) in [("[0,0]", 0, 0), ("[3,18446744073709551615]", 8, 11)] {
            let old = format!(r#"{{"ledger":{},"notes":{}}}"#, ledger(data, arbiter), notes(number));
            let read: Durable = serde_json::from_str(&old).expect("it is read");
            assert_eq!(read.ledger.view.arbiter, (arbiter != 0).then_some(LedgerId(arbiter)));
            assert_eq!(read.ledger.view.data[0], (number != 0).then_some(DataId(3)));
            assert_eq!(read.notes.handed_over, (number != 0).then_some(Lsn(number)));
            assert_eq!(read.notes.owed.attached, (number != 0).then_some(Term(number)));
            assert_eq!(serde_json::to_string(&read).expect("it is written"), old);
        }
    }
}
