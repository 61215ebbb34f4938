//! File systems: kinds, free space, and whether a rebuild can put a new data directory in the place of the old one.

use super::super::{Entry, Finding};
use super::limit;
use crate::config::Config;
use crate::error::Error;
use crate::pg::bounded::{self, Cancel};
use crate::pg::{Place, conf};
use crate::rebuild::{fix_of_parent, human, is_mount_point, mounted_in, used};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;

pub(super) const DISK_NOT_READABLE: Entry = Entry::error(
    "disk-not-readable",
    "The file system of the data directory, of pg_wal or of the management directory cannot be read, or does not respond.",
);
pub(super) const DISK_FULL: Entry = Entry::error(
    "disk-full",
    "A file system has no space for the next write. An instance without space for WAL stops, a standby receives no WAL, and a \
     server that cannot write its ledger cannot consent to a switch.",
);
pub(super) const DISK_SPACE: Entry = Entry::warning(
    "disk-space",
    "A file system is nearly full: less than a tenth and less than 50 GB is free, pg_wal has no space for max_wal_size, or no \
     file can be created. A server that cannot write its ledger cannot consent to a switch, and an instance without space for \
     WAL stops.",
);
pub(super) const BACKUP_SPACE: Entry = Entry::notice(
    "backup-space",
    "There is no space for a second data directory beside the present one: a rebuild by base backup works only with --old-data \
     delete.",
);
pub(super) const UNSUITABLE_FILE_SYSTEM: Entry = Entry::warning(
    "unsuitable-file-system",
    "The data directory, pg_wal or the management directory is in memory and does not survive a restart of the host, or is on \
     a network file system, which hangs when the network fails and gives no guarantee that flushed data is durable.",
);
pub(super) const REBUILD_PREVENTED: Entry = Entry::warning(
    "rebuild-prevented",
    "A rebuild by base backup would be refused: the data directory is a mount point or contains one, or its parent directory \
     is not writable.",
);

/// Kinds of file systems, by the magic number of statfs(2): what is wrong with each.
const UNSUITABLE: [(u64, &str, &str); 5] = [
    (0x0102_1994, "tmpfs", "in memory"),
    (0x8584_58f6, "ramfs", "in memory"),
    (0x6969, "NFS", "on the network"),
    (0xff53_4d42, "CIFS", "on the network"),
    (0xfe53_4d42, "SMB", "on the network"),
];

/// What the next write needs, bytes: a WAL segment of the usual size, and a few blocks elsewhere.
const SEGMENT: u64 = 16 << 20;
const BLOCKS: u64 = 1 << 20;
/// Free space that is enough however large the whole is, bytes.
const PLENTY: u64 = 50 << 30;

/// What is read.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The file systems of the data directory, of `pg_wal` and of the management directory.
    pub disks: Vec<(String, Result<Disk, String>)>,
    /// `max_wal_size`, bytes.
    pub max_wal_size: Option<u64>,
    /// Bytes of the data directory; `None` where counting took too long.
    pub used: Option<u64>,
    /// What hinders a base backup, and what fixes it.
    pub hindrances: Vec<(String, String)>,
}

/// A file system.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// The directory on it that matters.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Bytes that are free to this user.
    pub free: u64,
    /// Files that can be made; `None` where it does not count them.
    pub files_free: Option<u64>,
    /// The magic number of its kind.
    pub kind: u64,
}

/// Reads it.
pub(super) fn collect(config: &Config, place: &Place, deadline: Instant) -> Facts {
    let wal = place.data.join("pg_wal");
    let mut places =
        vec![("data directory", place.data.clone()), ("pg_wal", wal), ("management directory", config.dir.clone())];
    if config.server.no_data.is_some() {
        // It is to be made, or filled: what counts is where.
        let above = place.data.parent().unwrap_or(&place.data).to_owned();
        places.splice(..2, [("place of the data directory", above)]);
    }
    let disks = places.into_iter().map(|(of, path)| {
        let asked = bounded::call(&format!("check the {of}"), limit(deadline), &Cancel::never(), move || look(&path));
        (of.to_owned(), asked.map_err(|error| error.message))
    });
    let disks: Vec<_> = disks.collect();
    let max_wal_size = conf::effective("max_wal_size", &place.config_file, &place.data);
    // A disk that hangs is not asked once more.
    let answers = disks.iter().all(|(_, disk)| disk.is_ok());
    let counted = answers.then(|| {
        let (stop, cancel) = Cancel::new();
        let data = place.data.clone();
        let counted = bounded::call("count", limit(deadline) / 2, &Cancel::never(), move || used(&data, &cancel));
        drop(stop);
        counted.ok()
    });
    Facts {
        disks,
        max_wal_size: Some(max_wal_size.as_deref().and_then(bytes).unwrap_or(1 << 30)),
        used: counted.flatten(),
        hindrances: if answers { hindrances(&place.data) } else { Vec::new() },
    }
}

fn look(path: &Path) -> Result<Disk, Error> {
    let failed = |cause: rustix::io::Errno| Error::io("read the free space of", path, std::io::Error::from(cause));
    let room = rustix::fs::statvfs(path).map_err(failed)?;
    let kind = rustix::fs::statfs(path).map_err(failed)?.f_type;
    Ok(Disk {
        path: path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string(),
        size: room.f_blocks.saturating_mul(room.f_frsize),
        free: room.f_bavail.saturating_mul(room.f_frsize),
        files_free: (room.f_files > 0).then_some(room.f_favail),
        // The kernel's number has 32 bits, whatever the type.
        kind: (kind as u64) & 0xffff_ffff,
    })
}

/// What prevents a rebuild that makes this data directory, each with what fixes it.
pub fn hindrances(data: &Path) -> Vec<(String, String)> {
    let parent = data.parent().unwrap_or(Path::new("/"));
    let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let mut found = Vec::new();
    if is_mount_point(data) {
        let what = format!("a file system is mounted on the data directory \"{}\" itself", data.display());
        found.push((
            what,
            "move the data directory into a directory on that file system, and correct db_instance".into(),
        ));
    } else if rustix::fs::access(parent, wanted).is_err() {
        let what = format!(
            "directory \"{}\" is not writable for this user, so that \"mc_ctl rebuild\" cannot create a data directory in it",
            parent.display()
        );
        let user = crate::config::running_user().unwrap_or_else(|_| "USER".into());
        found.push((what, fix_of_parent(parent, &user)));
    }
    if let Some(point) = mounted_in(data) {
        let what = format!("a file system is mounted in the data directory, on \"{}\"", point.display());
        found.push((what, "mount it elsewhere, and replace it by a symbolic link".into()));
    }
    found
}

/// A size as PostgreSQL writes it; without a unit, in MB.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit.trim() {
        "B" => 1,
        "kB" => 1 << 10,
        "MB" | "" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// What is wrong with it.
pub(super) fn examine(id: &str, facts: &Facts, found: &mut Vec<Finding>) {
    for (of, disk) in &facts.disks {
        let disk = match disk {
            Ok(disk) => disk,
            Err(why) => {
                let fix = "check its mount and the log of the kernel: findmnt, dmesg";
                found.push(DISK_NOT_READABLE.found(id, format!("the {of}: {why}"), fix));
                continue;
            }
        };
        let path = &disk.path;
        if let Some((_, name, why)) = UNSUITABLE.iter().find(|(kind, ..)| *kind == disk.kind) {
            let what = format!("the {of} \"{path}\" is {why} ({name})");
            found.push(UNSUITABLE_FILE_SYSTEM.found(id, what, "move it to a local disk"));
        }
        let (free, whole) = (human(disk.free), human(disk.size));
        let needed = if of == "pg_wal" { SEGMENT } else { BLOCKS };
        if disk.free < needed {
            let what =
                format!("the {of} \"{path}\": {free} of {whole} are free, and the next write needs {}", human(needed));
            found.push(DISK_FULL.found(
                id,
                what,
                "free space, or enlarge the file system; never delete files in pg_wal",
            ));
            continue;
        }
        let short = match of.as_str() {
            _ if disk.files_free == Some(0) => Some("no file can be created on the file system".to_owned()),
            _ if disk.free < disk.size / 10 && disk.free < PLENTY => Some(format!("{free} of {whole} are free")),
            "pg_wal" => {
                let wanted = facts.max_wal_size.filter(|wanted| disk.free < *wanted);
                wanted.map(|wanted| format!("{free} are free, and max_wal_size is {}", human(wanted)))
            }
            _ => None,
        };
        if let Some(short) = short {
            let fix = "free space, enlarge the file system, or reduce max_wal_size; an unused replication slot retains WAL: \
                       SELECT * FROM pg_replication_slots";
            found.push(DISK_SPACE.found(id, format!("the {of} \"{path}\": {short}"), fix));
        }
        if let (Some(used), "data directory") = (facts.used, of.as_str())
            && used.saturating_add(used / 10) > disk.free
        {
            let what = format!("the data directory has {}, and the file system has {free} free", human(used));
            let fix = "mc_ctl rebuild --old-data delete, when it is needed; or enlarge the file system";
            found.push(BACKUP_SPACE.found(id, what, fix));
        }
    }
    for (what, fix) in &facts.hindrances {
        found.push(REBUILD_PREVENTED.found(id, what.as_str(), fix.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(bytes(text), expected, "{text}");
        check("1GB", Some(1 << 30));
        check("64", Some(64 << 20));
        check(" 16 kB ", Some(16 << 10));
        check("1.5GB", None);
        check("x", None);
        check("99999999999999999TB", None);
    }

    fn codes(of: &str, disk: Disk) -> Vec<&'static str> {
        let facts = Facts {
            disks: vec![(of.to_owned(), Ok(disk))],
            max_wal_size: Some(1 << 30),
            used: Some(2 << 30),
            hindrances: Vec::new(),
        };
        let mut found = Vec::new();
        examine("nd1", &facts, &mut found);
        found.into_iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn rooms_and_kinds() {
        let disk = |size_gb: u64, free_gb: u64, kind| Disk {
            size: size_gb << 30,
            free: free_gb << 30,
            kind,
            ..Disk::default()
        };
        assert!(codes("data directory", disk(100, 50, 0xef53)).is_empty());
        assert_eq!(codes("data directory", disk(100, 9, 0xef53)), ["disk-space"]);
        assert!(codes("data directory", disk(1000, 60, 0xef53)).is_empty());
        assert_eq!(codes("data directory", disk(4, 1, 0xef53)), ["backup-space"]);
        assert_eq!(codes("pg_wal", disk(4, 0, 0x6969)), ["unsuitable-file-system", "disk-full"]);
        assert_eq!(codes("data directory", disk(4, 0, 0xef53)), ["disk-full"]);
        assert_eq!(codes("management directory", Disk { files_free: Some(0), ..disk(9, 9, 0) }), ["disk-space"]);
    }

    #[test]
    fn this_machine_answers() {
        let disk = look(Path::new("/proc/self")).unwrap();
        assert_eq!((disk.kind, disk.size), (0x9fa0, 0));
        assert!(look(Path::new("/nowhere")).is_err());
    }
}
