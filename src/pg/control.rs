//! What lies in a data directory, read without a connection: `global/pg_control` through `pg_controldata`, the signal
//! files, and the mark that names the ledger. Reads may hang on a dying disk; the runner makes them on threads that it
//! can abandon.

use super::{Place, commands, conf, files, process};
use crate::error::{Error, Result};
use crate::fsm::event::{ControlState, DataDir};
use crate::fsm::types::{LedgerId, Lsn, SystemId, Timeline};
use rustix::fs::{AtFlags, StatxFlags};
use std::path::Path;
use std::time::Duration;

/// The file in the data directory that names the ledger which the directory belongs to (PROTOCOL section 2).
pub const MARK: &str = "mirroring_controller.mark";

const LIMIT: Duration = Duration::from_secs(10);

/// Reads the data directory, and looks whether one of its processes runs.
pub fn inspect(place: &Place) -> Result<DataDir> {
    // First: what is read of an instance that does not run must be what it left.
    let running = !process::scan(&place.data)?.is_empty();
    let (fingerprint, inode_print) = fingerprint(&place.data)?;
    let text = commands::controldata(place).run(LIMIT, None)?;
    let exists = |name: &str| place.data.join(name).symlink_metadata().is_ok();
    let control = parse(&text)
        .map_err(|why| Error::new(format!("could not read the control data of \"{}\": {why}", place.data.display())))?;
    Ok(DataDir {
        fingerprint,
        inode_print,
        standby_signal: exists("standby.signal"),
        backup_label: exists("backup_label"),
        mark: read_mark(&place.data)?,
        incomplete: is_incomplete(&place.data)?,
        unnamed: is_unnamed(place),
        running,
        ..control
    })
}

/// Whether the configuration can be read, and sets no `synchronous_standby_names`, or sets `max_wal_senders` to 0, with which
/// no commit waits.
pub fn is_unnamed(place: &Place) -> bool {
    let value = |name| conf::effective(name, &place.config_file, &place.data);
    let unnamed = || value(conf::NAMES).is_none_or(|names| names.trim().is_empty());
    std::fs::File::open(&place.config_file).is_ok() && (unnamed() || value("max_wal_senders").as_deref() == Some("0"))
}

/// Where the WAL is that a recovery would read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wal {
    /// The position from which it would read.
    pub redo: Lsn,
    /// The timeline of the last checkpoint.
    pub redo_timeline: Timeline,
    /// The timeline that the instance has reached.
    pub timeline: Timeline,
}

/// Reads where a recovery would begin.
///
/// # Errors
/// The control data cannot be read.
pub fn wal(place: &Place) -> Result<Wal> {
    let text = commands::controldata(place).run(LIMIT, None)?;
    let data = parse(&text).map_err(Error::new)?;
    let redo = value(&text, "Latest checkpoint's REDO location").unwrap_or_default();
    let redo = redo.parse::<Lsn>().map_err(Error::new)?;
    let redo_timeline = data.checkpoint_timeline;
    Ok(Wal { redo, redo_timeline, timeline: redo_timeline.max(data.min_recovery_timeline) })
}

/// The cluster state alone.
pub fn state(place: &Place) -> Result<ControlState> {
    let text = commands::controldata(place).run(LIMIT, None)?;
    parse(&text).map(|data| data.state).map_err(Error::new)
}

/// The timeline of an instance that was promoted and lets nobody in: that of the newest history file, which the promotion
/// has written. `None` while it is in recovery.
pub fn promoted(place: &Place) -> Option<Timeline> {
    if place.data.join("standby.signal").exists() || state(place) != Ok(ControlState::InProduction) {
        return None;
    }
    let files = std::fs::read_dir(place.data.join("pg_wal")).ok()?.flatten();
    let timeline = |name: String| u32::from_str_radix(name.strip_suffix(".history")?, 16).ok();
    files.filter_map(|file| timeline(file.file_name().into_string().ok()?)).max().map(Timeline)
}

/// Inode and birth time of `global/pg_control`, which PostgreSQL rewrites in place, in one number; and the same without the
/// birth time. Never 0.
fn fingerprint(data: &Path) -> Result<(u64, u64)> {
    let missing = |e: rustix::io::Errno| {
        let hint = "Check db_instance, and that the file system is mounted.";
        Error::io("open data directory", data, std::io::Error::from(e)).hint(hint)
    };
    rustix::fs::stat(data).map_err(missing)?;
    let path = data.join("global/pg_control");
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let stat = rustix::fs::statx(rustix::fs::CWD, &path, AtFlags::empty(), wanted).map_err(|e| {
        Error::io("stat file", &path, std::io::Error::from(e))
            .hint("This is not a PostgreSQL data directory, or it is damaged.")
    })?;
    let birth = (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec);
    let has_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    Ok((fold(stat.stx_ino, has_birth.then_some(birth)), fold(stat.stx_ino, None)))
}

fn fold(inode: u64, birth: Option<(i64, u32)>) -> u64 {
    let hash = mix(inode);
    let whole = |(seconds, nanoseconds): (i64, u32)| mix(mix(hash ^ seconds as u64) ^ u64::from(nanoseconds));
    birth.map_or(hash, whole).max(1)
}

/// The finisher of splitmix64.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// The value of a line of `pg_controldata` in the C locale.
pub fn value<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(':')).map(str::trim)
}

/// The output of `pg_controldata` in the C locale.
fn parse(text: &str) -> std::result::Result<DataDir, String> {
    if text.contains("WARNING:") {
        return Err("pg_controldata reports a damaged or foreign control file".into());
    }
    let value = |label: &str| value(text, label).ok_or_else(|| format!("pg_controldata does not report \"{label}\""));
    let number = |label: &str| value(label)?.parse::<u64>().map_err(|_| format!("\"{label}\" is not a number"));
    let timeline =
        |label: &str| u32::try_from(number(label)?).map(Timeline).map_err(|_| format!("\"{label}\" is out of range"));
    let state = match value("Database cluster state")? {
        "shut down" => ControlState::ShutDown,
        "shut down in recovery" => ControlState::ShutDownInRecovery,
        "in production" => ControlState::InProduction,
        "in archive recovery" => ControlState::InArchiveRecovery,
        _ => ControlState::Other,
    };
    Ok(DataDir {
        system: SystemId(number("Database system identifier")?),
        fingerprint: 0,
        inode_print: 0,
        checkpoint: value("Latest checkpoint location")?.parse::<Lsn>()?,
        checkpoint_timeline: timeline("Latest checkpoint's TimeLineID")?,
        min_recovery_timeline: timeline("Min recovery ending loc's timeline")?,
        state,
        standby_signal: false,
        backup_label: false,
        mark: None,
        incomplete: false,
        unnamed: false,
        running: false,
    })
}

/// What `PG_VERSION` begins with while a rebuild is under way. No program of PostgreSQL's starts such a directory, and
/// pg_rewind leaves the file alone.
pub const GUARD: &str = "rebuilding";

/// Whether a rebuild keeps everyone from starting this data directory: its `PG_VERSION` holds [`GUARD`], or a part of it that a
/// power loss has left, and not exactly a version.
///
/// # Errors
/// Its `PG_VERSION` cannot be read.
pub fn is_incomplete(data: &Path) -> Result<bool> {
    let path = data.join("PG_VERSION");
    let text = std::fs::read(&path).map_err(|cause| Error::io("read file", &path, cause))?;
    let text = text.trim_ascii();
    Ok(text.is_empty() || !text.iter().all(|c| c.is_ascii_digit() || *c == b'.'))
}

/// Keeps everyone from starting a data directory, durably.
///
/// # Errors
/// `PG_VERSION` cannot be written.
pub fn guard(data: &Path, major: u32) -> Result<()> {
    write_version(data, &format!("{GUARD} {major} (Mirroring Controller; see mc_ctl status)\n"))
}

/// Lets a data directory be started again, durably.
///
/// # Errors
/// `PG_VERSION` cannot be written.
pub fn unguard(data: &Path, major: u32) -> Result<()> {
    write_version(data, &format!("{major}\n"))
}

fn write_version(data: &Path, text: &str) -> Result<()> {
    let path = data.join("PG_VERSION");
    let old = path.metadata().map_err(|cause| Error::io("stat file", &path, cause))?;
    match files::replace(&path, text.as_bytes(), Some(&old)) {
        // A directory whose old content is to be deleted can be on a full file system. A power loss can leave a part of either
        // text, with which the directory counts as incomplete, so that the journal decides.
        Err(error) if files::lacks_space(&path, text.as_bytes()) => {
            files::write_over(&path, text.as_bytes()).map_err(|_| error)
        }
        other => other,
    }
}

/// How far recovery must go before the instance is consistent: `pg_rewind` sets it.
///
/// # Errors
/// The control data cannot be read.
pub fn recovery_end(place: &Place) -> Result<(Lsn, Timeline)> {
    let text = commands::controldata(place).run(LIMIT, None)?;
    let line = text.lines().find_map(|line| line.strip_prefix("Minimum recovery ending location:"));
    let lsn = line.unwrap_or_default().trim().parse().map_err(Error::new)?;
    Ok((lsn, parse(&text).map_err(Error::new)?.min_recovery_timeline))
}

/// The size of a WAL segment, bytes.
///
/// # Errors
/// The control data cannot be read.
pub fn segment_size(place: &Place) -> Result<u64> {
    let text = commands::controldata(place).run(LIMIT, None)?;
    let size = value(&text, "Bytes per WAL segment").and_then(|text| text.parse().ok());
    size.ok_or_else(|| Error::new("the control data has no size of a WAL segment"))
}

/// Puts the mark that names this ledger into the data directory, durably.
pub fn write_mark(data: &Path, ledger: LedgerId) -> Result<()> {
    files::replace(&data.join(MARK), format!("{:016x}\n", ledger.0).as_bytes(), None)
}

/// The ledger that the mark names, if there is a mark.
fn read_mark(data: &Path) -> Result<Option<LedgerId>> {
    let path = data.join(MARK);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read file", &path, e)),
    };
    match u64::from_str_radix(text.trim(), 16) {
        Ok(id) if id != 0 => Ok(Some(LedgerId(id))),
        // A mark without a readable name is a mark all the same; no ledger has this id.
        _ => Ok(Some(LedgerId(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::types::{DataId, DataIdentity};

    const TEXT: &str = "pg_control version number:            1300
Database system identifier:           7575757575757575757
Database cluster state:               shut down in recovery
pg_control last modified:             Mon 23 Nov 2026 10:00:00 AM UTC
Latest checkpoint location:           1/3000060
Latest checkpoint's TimeLineID:       2
Latest checkpoint's PrevTimeLineID:   2
Minimum recovery ending location:     0/30000D8
Min recovery ending loc's timeline:   1
";

    #[test]
    fn parses_control_data() {
        let data = parse(TEXT).unwrap();
        assert_eq!(data.system, SystemId(7_575_757_575_757_575_757));
        assert_eq!(data.checkpoint, Lsn(0x1_0300_0060));
        assert_eq!((data.checkpoint_timeline, data.min_recovery_timeline), (Timeline(2), Timeline(1)));
        assert_eq!(data.state, ControlState::ShutDownInRecovery);
        assert!(parse(&TEXT.replace("cluster state", "x")).unwrap_err().contains("Database cluster state"));
        assert!(parse(&TEXT.replace("1/3000060", "zzz")).is_err());
        assert!(parse(&format!("WARNING: Calculated CRC checksum does not match\n{TEXT}")).is_err());
    }

    #[test]
    fn a_birth_time_counts_only_where_both_sides_have_one() {
        let data = |inode, birth| DataDir {
            fingerprint: fold(inode, birth),
            inode_print: fold(inode, None),
            ..parse(TEXT).unwrap()
        };
        let known = |inode, birth| data(inode, birth).identity(DataId(1));
        let (none, some, other) = (None, Some((1, 2)), Some((1, 3)));
        for (then, now, same) in
            [(none, none, true), (none, some, true), (some, none, true), (some, some, true), (some, other, false)]
        {
            assert_eq!(data(7, now).has_fingerprint(&known(7, then)), same, "{then:?} {now:?}");
            assert!(!data(8, now).has_fingerprint(&known(7, then)), "{then:?} {now:?}");
        }
        // It is still compared when it is reported again.
        let meanwhile = data(7, none).confirmed_identity(&known(7, some));
        assert!(data(7, some).has_fingerprint(&meanwhile) && !data(7, other).has_fingerprint(&meanwhile));
        assert_eq!(data(7, some).confirmed_identity(&known(7, none)), known(7, some));
        // An earlier version has noted no print of the inode alone: the missing birth time cannot be left out.
        let earlier = DataIdentity { inode_print: 0, ..known(7, some) };
        assert!(data(7, some).has_fingerprint(&earlier) && !data(7, none).has_fingerprint(&earlier));
        // What an earlier version has noted stays valid.
        assert_eq!(fold(7, some), mix(mix(mix(7) ^ 1) ^ 2));
    }

    #[test]
    fn marks() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_mark(dir.path()), Ok(None));
        write_mark(dir.path(), LedgerId(0xabc)).unwrap();
        assert_eq!(read_mark(dir.path()), Ok(Some(LedgerId(0xabc))));
        std::fs::write(dir.path().join(MARK), "junk").unwrap();
        assert_eq!(read_mark(dir.path()), Ok(Some(LedgerId(u64::MAX))));
    }

    /// What a power loss can leave of a guard, or of its removal, that was written in place.
    #[test]
    fn a_part_of_a_guard_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("PG_VERSION");
        let check = |text: &[u8], expected: bool| {
            std::fs::write(&path, text).unwrap();
            assert_eq!(is_incomplete(dir.path()), Ok(expected), "{text:?}");
        };
        check(b"15\n", false);
        check(b"9.6\n", false);
        for part in
            [&b""[..], b"\n", b"reb", b"15\n\0\0\0", b"15\nuilding 15 (Mirroring Controller", b"\0\0\0", b"\xff"]
        {
            check(part, true);
        }
        guard(dir.path(), 15).unwrap();
        assert_eq!(is_incomplete(dir.path()), Ok(true));
        unguard(dir.path(), 15).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"15\n");
    }

    /// Only on a full file system is a guard written in place: another error leaves the file as it is.
    #[test]
    fn a_guard_that_cannot_be_written_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("PG_VERSION");
        std::fs::write(&path, "15\n").unwrap();
        std::fs::create_dir_all(dir.path().join("PG_VERSION.mc_new/x")).unwrap();
        assert!(guard(dir.path(), 15).unwrap_err().message.contains("could not create file"));
        assert_eq!(std::fs::read(&path).unwrap(), b"15\n");
    }

    #[test]
    fn missing_directory_is_said() {
        let error = fingerprint(Path::new("/nonexistent/data")).unwrap_err();
        assert!(error.message.starts_with("could not open data directory \"/nonexistent/data\""), "{error}");
    }
}
