//! Free space of the directories that the instance and the controller write to, as `mc_ctl status` shows it.

use crate::fsm::types::Lsn;
use crate::rebuild::human;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};

/// How much space is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Enough.
    #[default]
    Normal,
    /// Less than the limit, or full soon at the present rate.
    NearlyFull,
    /// Not enough for the next write.
    Full,
}

/// A directory that the instance or the controller writes to, in the order in which failures are named.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Directory {
    /// The data directory.
    #[default]
    Data,
    /// `pg_wal`.
    TranLog,
    /// A tablespace: its name, or its OID if the name is not known.
    Tablespace(String),
    /// `DIR/ID`, or an arbiter's directory.
    Management,
}

/// What the name of a tablespace follows.
pub const TABLESPACE: &str = "tablespace ";

impl Display for Directory {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Directory::Data => f.write_str("data"),
            Directory::TranLog => f.write_str("tran_log"),
            Directory::Tablespace(name) => write!(f, "{TABLESPACE}{name}"),
            Directory::Management => f.write_str("management"),
        }
    }
}

impl From<Directory> for String {
    fn from(directory: Directory) -> String {
        directory.to_string()
    }
}

impl TryFrom<String> for Directory {
    type Error = String;

    fn try_from(text: String) -> Result<Directory, String> {
        match (text.as_str(), text.strip_prefix(TABLESPACE)) {
            ("data", _) => Ok(Directory::Data),
            ("tran_log", _) => Ok(Directory::TranLog),
            ("management", _) => Ok(Directory::Management),
            (_, Some(name)) => Ok(Directory::Tablespace(name.to_owned())),
            _ => Err(format!("no directory is called \"{text}\"")),
        }
    }
}

impl Directory {
    /// The directories in a list that a server reports, joined by `, `.
    pub fn list(names: &str) -> Vec<Directory> {
        names.split(", ").filter_map(|name| Directory::try_from(name.to_owned()).ok()).collect()
    }

    /// A primary writes its checkpoints here, or their WAL.
    pub fn holds_checkpoints(&self) -> bool {
        matches!(self, Directory::Data | Directory::TranLog)
    }
}

/// The space for one directory.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Space {
    /// `data`, `tran_log`, `tablespace NAME`, `management`.
    pub directory: Directory,
    /// Its path.
    pub path: String,
    /// Where its file system is mounted.
    pub mount_point: String,
    /// Size of the file system, bytes.
    pub size_bytes: u64,
    /// What an unprivileged user can still write, bytes.
    pub free_bytes: u64,
    /// How much that is.
    pub state: Level,
    /// When it is full at the rate of the last minutes; `null` if free space does not shrink, or the rate is not known yet.
    pub seconds_left: Option<u64>,
    /// What the largest consumers are; empty while there is enough space.
    pub consumers: String,
    /// `tran_log`: the end of the last WAL segment file that exists; `null` if not known.
    pub wal_end: Option<Lsn>,
    /// What the next write needs, bytes: a WAL segment for `tran_log`.
    pub needed_bytes: u64,
    /// `management`: what the ledger's reserve still holds, bytes; `null` if there is none.
    #[serde(default)]
    pub reserve_bytes: Option<u64>,
}

impl Space {
    /// The state in a sentence: the file system, what is free, and what uses it.
    pub fn sentence(&self) -> String {
        Space::sentence_of(&[self])
    }

    /// The same of directories on one file system, of which there is at least one.
    fn sentence_of(spaces: &[&Space]) -> String {
        let Some(first) = spaces.first() else { return String::new() };
        let Space { mount_point, state, .. } = first;
        let places = spaces.iter().map(|space| format!("of \"{}\" ({})", space.path, space.directory));
        let mut text = format!(
            "the file system \"{mount_point}\" {} {}: {} of {} are free",
            places.collect::<Vec<_>>().join(" and "),
            match state {
                Level::Normal => "has free space",
                Level::NearlyFull => "is nearly full",
                Level::Full => "is full",
            },
            human(first.free_bytes),
            human(first.size_bytes)
        );
        if *state == Level::Full && first.free_bytes > 0 {
            text += &format!(", and the next write needs {}", human(first.needed_bytes));
        }
        if let Some(left) = first.time_left().filter(|_| *state == Level::NearlyFull) {
            text += &format!(", {left} at the present rate");
        }
        match spaces.iter().find_map(|space| space.reserve_bytes).filter(|_| *state == Level::Full) {
            Some(0) => text += "; the ledger's reserve is used up",
            Some(left) => text += &format!("; {} of the ledger's reserve are left", human(left)),
            None => (),
        }
        let mut consumers: Vec<&str> = Vec::new();
        for part in spaces.iter().flat_map(|space| space.consumers.split("; ")) {
            if !part.is_empty() && !consumers.contains(&part) {
                consumers.push(part);
            }
        }
        consumers.iter().for_each(|part| text += &format!("; {part}"));
        text
    }

    /// When it is full at the present rate, as `90 minutes` or `5.2 hours`.
    pub fn time_left(&self) -> Option<String> {
        Some(match self.seconds_left? {
            seconds if seconds < 7200 => format!("{} minutes", seconds.div_ceil(60)),
            seconds => format!("{:.1} hours", seconds as f64 / 3600.0),
        })
    }

    /// Those in this state, in a sentence for each file system. Directories that share one are named together.
    pub fn hints(spaces: &[Space], state: Level) -> Vec<String> {
        let mut groups: Vec<Vec<&Space>> = Vec::new();
        for space in spaces.iter().filter(|space| space.state == state) {
            match groups.iter_mut().find(|group| group.iter().any(|other| other.mount_point == space.mount_point)) {
                Some(group) => group.push(space),
                None => groups.push(vec![space]),
            }
        }
        let hint = |group: Vec<&Space>| {
            let mount_point = group.first().map(|space| space.mount_point.as_str()).unwrap_or_default();
            let mut hint = Space::sentence_of(&group);
            hint += &format!("; for the rest, run \"du -axk -d 3 {mount_point} | sort -n\"");
            if group.iter().any(|space| space.directory == Directory::TranLog) {
                hint += "; never delete files in pg_wal";
            }
            hint
        };
        groups.into_iter().map(hint).collect()
    }

    /// The ledger in this directory cannot be written.
    pub fn blocks_ledger(&self) -> bool {
        self.state == Level::Full && self.reserve_bytes == Some(0)
    }

    /// A primary cannot write a checkpoint here, or the WAL of one.
    pub fn blocks_checkpoint(&self) -> bool {
        self.state == Level::Full && self.directory.holds_checkpoints()
    }

    /// Whether writes of a primary fail now, whose WAL ends at `at`. A full `pg_wal` does not prevent writes as long as it
    /// contains segment files beyond the present one.
    pub fn prevents_writes(&self, at: Option<Lsn>) -> bool {
        let segment_left = match (self.wal_end, at) {
            (Some(end), Some(at)) => end.0.saturating_sub(at.0) > self.needed_bytes,
            _ => false,
        };
        self.state == Level::Full && self.directory != Directory::Management && !segment_left
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A directory with `free` of 100 MB.
    pub fn space(directory: &str, free: u64, state: Level) -> Space {
        Space {
            directory: directory.to_owned().try_into().expect("a name of a directory"),
            path: format!("/srv/{directory}"),
            mount_point: "/srv".into(),
            size_bytes: 100 << 20,
            free_bytes: free,
            state,
            needed_bytes: if directory == "tran_log" { 16 << 20 } else { 1 << 20 },
            ..Space::default()
        }
    }

    #[test]
    fn the_name_of_a_directory_is_read_back() {
        for name in ["data", "tran_log", "tablespace of tran_log", "management"] {
            assert_eq!(Directory::try_from(name.to_owned()).unwrap().to_string(), name);
        }
        assert!(Directory::try_from("else".to_owned()).is_err());
        assert_eq!(Directory::list("data, management"), [Directory::Data, Directory::Management]);
        assert_eq!(Directory::list(""), []);
    }

    #[test]
    fn a_sentence_names_the_file_system_and_its_consumers() {
        let mut nearly = space("data", 3 << 20, Level::NearlyFull);
        nearly.seconds_left = Some(5400);
        let text = "the file system \"/srv\" of \"/srv/data\" (data) is nearly full: 3.0 MB of 100 MB are free";
        assert_eq!(nearly.sentence(), format!("{text}, 90 minutes at the present rate"));
        nearly.seconds_left = Some(61);
        assert_eq!(nearly.sentence(), format!("{text}, 2 minutes at the present rate"));
        let wal = space("tran_log", 14 << 20, Level::Full).sentence();
        assert!(wal.ends_with("is full: 14 MB of 100 MB are free, and the next write needs 16 MB"), "{wal}");
        let full = Space { consumers: "pg_wal has 3 segments (48 MB)".into(), ..space("data", 0, Level::Full) };
        let text = "the file system \"/srv\" of \"/srv/data\" (data) is full: 0 bytes of 100 MB are free";
        assert_eq!(full.sentence(), format!("{text}; pg_wal has 3 segments (48 MB)"));
    }

    #[test]
    fn writes_fail_if_no_space_is_left() {
        assert!(space("data", 0, Level::Full).prevents_writes(None));
        assert!(space("tablespace 1", 0, Level::Full).prevents_writes(None));
        assert!(!space("data", 0, Level::NearlyFull).prevents_writes(None));
        assert!(!space("management", 0, Level::Full).prevents_writes(None));
        let mut wal = space("tran_log", 0, Level::Full);
        assert!(wal.prevents_writes(Some(Lsn(5))));
        wal.wal_end = Some(Lsn(0x300_0000));
        assert!(!wal.prevents_writes(Some(Lsn(0x1ff_ffff))), "a segment beyond the present one exists");
        assert!(wal.prevents_writes(Some(Lsn(0x200_0000))), "the present segment is the last one");
    }
}
