//! The restore of a backup to the staging directories.

use crate::backup::{Backup, Catalog, combine_to};
use crate::error::{Error, Result};
use crate::fsm::types::SystemId;
use crate::pg::bounded::Cancel;
use crate::pg::{Place, commands, conf, control, files};
use crate::rebuild::{self, Move, Need, Room, human, used};
use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The bits of the mode of a data directory with which PostgreSQL does not start.
const NOT_FOR_POSTGRESQL: u32 = 0o027;

/// What of the data directory is restored elsewhere: from where in the backup, and to where.
fn outside<'a>(dir: &Path, moves: &'a [Move]) -> Vec<(PathBuf, &'a Move)> {
    let from = |change: &Move| match change.link.strip_prefix("pg_tblspc") {
        Ok(oid) => dir.join("tablespaces").join(oid),
        Err(_) => dir.join("data").join(&change.link),
    };
    moves.iter().map(|change| (from(change), change)).collect()
}

/// The file systems that have too little space, a sentence each.
pub fn shortages(rooms: &[Room]) -> Vec<String> {
    let short = rooms.iter().filter(|room| room.free < room.needed).map(|room| {
        let (path, free, needed) = (room.path.display(), human(room.free), human(room.needed));
        format!("the file system of \"{path}\" has {free} free, and the recovery needs {needed}")
    });
    short.collect()
}

/// What a restore of this backup writes, and where.
///
/// # Errors
/// Its full backup is missing, or it was cancelled.
pub fn needs(catalog: &Catalog, backup: &Backup, replacement: &rebuild::Journal, cancel: &Cancel) -> Result<Vec<Need>> {
    let mut needs = Vec::new();
    for part in catalog.full_of(backup)?.into_iter().chain([backup]) {
        let dir = catalog.dir(part);
        let mut inside = used(&dir.join("data"), cancel)?;
        for (from, change) in outside(&dir, &replacement.moves) {
            let bytes = used(&from, cancel)?;
            if from.starts_with(dir.join("data")) {
                inside = inside.saturating_sub(bytes);
            }
            needs.push(Need::new(&change.staged, bytes));
        }
        needs.push(Need::new(&replacement.staging, inside));
    }
    Ok(needs)
}

/// Restores a backup, verifies the copy, and prepares it for recovery. It is durable then. `copied` receives the bytes that are
/// copied so far.
///
/// # Errors
/// The backup is damaged, a file cannot be read or written, or it was cancelled.
pub fn stage(
    place: &Place,
    (catalog, backup): (&Catalog, &Backup),
    replacement: &rebuild::Journal,
    copied: &mut dyn FnMut(u64),
    cancel: &Cancel,
) -> Result<()> {
    let dir = catalog.dir(backup);
    let outside = outside(&dir, &replacement.moves);
    let staging = &replacement.staging;
    let mut copy = Copy { but: &[], bytes: 0, copied, cancel };
    match &backup.full {
        Some(_) => combine(place, (catalog, backup), replacement, &mut copy)?,
        None => {
            let data = dir.join("data");
            let elsewhere: Vec<PathBuf> = outside.iter().map(|(_, change)| data.join(&change.link)).collect();
            Copy { but: &elsewhere, ..copy.reborrow() }.dir(&data, staging)?;
            for (from, change) in &outside {
                copy.dir(from, &change.staged)?;
                link(staging, change)?;
            }
        }
    }
    verify(place, staging, cancel)
        .map_err(|error| Error::new(format!("backup \"{}\" is damaged: {}", backup.name, error.message)))?;
    ready(replacement)
}

/// Restores an incremental backup: `pg_combinebackup` places everything but `pg_wal`.
fn combine(
    place: &Place,
    (catalog, backup): (&Catalog, &Backup),
    replacement: &rebuild::Journal,
    copy: &mut Copy,
) -> Result<()> {
    let staging = &replacement.staging;
    let oid = |change: &Move| Some(change.link.strip_prefix("pg_tblspc").ok()?.to_string_lossy().into_owned());
    let spaces = replacement.moves.iter().filter_map(|change| Some((oid(change)?, change.staged.clone())));
    combine_to(place, catalog, backup, (staging, &spaces.collect::<Vec<_>>()), copy.cancel)?;
    let mut inside = replacement.moves.iter().filter(|change| oid(change).is_none());
    inside.try_for_each(|change| move_out(staging, change, copy))
}

/// Moves a directory of the copy to where it is staged.
fn move_out(staging: &Path, change: &Move, copy: &mut Copy) -> Result<()> {
    let inside = staging.join(&change.link);
    copy.dir(&inside, &change.staged)?;
    files::remove(&inside)?;
    link(staging, change)
}

/// Prepares what the program of `recover_command` has restored for recovery, once it is certain that it can be the copy. It is
/// durable then. `system`: the cluster, if it is known.
///
/// # Errors
/// It is not what mc_hooks(5) requires, a file cannot be read or written, or it was cancelled.
pub fn accept(place: &Place, system: Option<SystemId>, replacement: &rebuild::Journal, cancel: &Cancel) -> Result<()> {
    let staging = &replacement.staging;
    let refused = |what: String| {
        Err(Error::new(format!(
            "what recover_command has restored to \"{}\" cannot be used: {what}",
            staging.display()
        ))
        .hint("RECOVERY in mc_hooks(5) describes what the program must do."))
    };
    match std::fs::read_to_string(staging.join("PG_VERSION")) {
        Ok(version) if version.trim() == place.major.to_string() => {}
        Ok(version) => return refused(format!("it is of PostgreSQL {}", version.trim())),
        Err(_) => return refused("it is no data directory".to_owned()),
    }
    let staged = Place { data: staging.clone(), ..place.clone() };
    let restored = control::inspect(&staged)?;
    if system.is_some_and(|system| restored.system != system) {
        return refused(format!("it is of another cluster, with the system identifier {}", restored.system.0));
    }
    if !restored.backup_label {
        return refused("it has no backup_label, so that it is not a backup of an instance".to_owned());
    }
    if staging.join("pg_wal").is_symlink() {
        return refused("pg_wal is a symbolic link".to_owned());
    }
    let mut spaces = files::entries(&staging.join("pg_tblspc"));
    spaces.retain(|link| !replacement.moves.iter().any(|change| is_at(link, &change.staged)));
    if let Some(link) = spaces.first() {
        let at = std::fs::read_link(link).unwrap_or_default();
        return refused(format!("tablespace {} is in \"{}\"", link.display(), at.display()));
    }
    // The program may have given it the mode of a directory of the repository.
    let changed = staging.metadata().and_then(|meta| match meta.permissions().mode() & NOT_FOR_POSTGRESQL {
        0 => Ok(()),
        _ => std::fs::set_permissions(staging, Permissions::from_mode(0o700)),
    });
    changed.map_err(|cause| Error::io("change the mode of", staging, cause))?;
    let mut copy = Copy { but: &[], bytes: 0, copied: &mut |_| (), cancel };
    let mut wal = replacement.moves.iter().filter(|change| change.link == Path::new("pg_wal"));
    wal.try_for_each(|change| move_out(staging, change, &mut copy))?;
    let settings = staging.join("postgresql.auto.conf");
    if settings.exists() {
        files::edit(&settings, |text| Ok(without_recovery(text)))?;
    }
    ready(replacement)
}

fn is_at(link: &Path, staged: &Path) -> bool {
    link.canonicalize().is_ok_and(|at| Some(at) == staged.canonicalize().ok())
}

/// `postgresql.auto.conf` without what a program has added for a recovery of its own. A standby would stop at its target.
fn without_recovery(text: &[u8]) -> Vec<u8> {
    let of_recovery = |name: &str| {
        name.starts_with("recovery_target")
            || matches!(name, "restore_command" | "recovery_end_command" | "archive_cleanup_command")
    };
    conf::map_lines(text, |_, line| {
        let setting = conf::parse_line(line).filter(|setting| of_recovery(&setting.name))?;
        let comment = format!("#{}", setting.name);
        Some([comment.as_bytes(), b" = ", &setting.raw, &setting.rest].concat())
    })
}

/// The copy is to be recovered, and is durable.
fn ready(replacement: &rebuild::Journal) -> Result<()> {
    let staging = &replacement.staging;
    for name in ["backup_manifest", "standby.signal"] {
        files::remove(&staging.join(name))?;
    }
    files::touch(&staging.join("recovery.signal"))?;
    // A backup may lack a tablespace of the data directory.
    let staged = replacement.moves.iter().map(|change| &change.staged).filter(|path| path.exists());
    staged.chain([staging]).try_for_each(|path| sync(path))
}

fn link(staging: &Path, change: &Move) -> Result<()> {
    let link = staging.join(&change.link);
    symlink(&change.staged, &link).map_err(|cause| Error::io("create symbolic link", &link, cause))
}

fn verify(place: &Place, staging: &Path, cancel: &Cancel) -> Result<()> {
    commands::program(place, "pg_verifybackup", ["-q".into(), staging.into()]).follow(cancel, |_| true)
}

/// Makes a staging directory durable with all that is in it.
fn sync(path: &Path) -> Result<()> {
    let failed = |cause: std::io::Error| Error::io("synchronize the file system of", path, cause);
    let dir = File::open(path).map_err(failed)?;
    rustix::fs::syncfs(&dir).map_err(|cause| failed(cause.into()))?;
    files::sync_parent(path)
}

/// A copy in progress.
struct Copy<'a> {
    /// What is not copied.
    but: &'a [PathBuf],
    bytes: u64,
    copied: &'a mut dyn FnMut(u64),
    cancel: &'a Cancel,
}

impl Copy<'_> {
    fn reborrow(&mut self) -> Copy<'_> {
        Copy { but: self.but, bytes: self.bytes, copied: &mut *self.copied, cancel: self.cancel }
    }

    fn dir(&mut self, from: &Path, to: &Path) -> Result<()> {
        let entries = std::fs::read_dir(from).map_err(|cause| Error::io("open directory", from, cause))?;
        let mode = from.metadata().map_or(0o700, |meta| meta.permissions().mode() & 0o7777);
        let created = DirBuilder::new().mode(mode).create(to);
        created.map_err(|cause| Error::io("create directory", to, cause))?;
        for entry in entries {
            self.cancel.check()?;
            let entry = entry.map_err(|cause| Error::io("read directory", from, cause))?;
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            if self.but.contains(&source) {
                continue;
            }
            let kind = entry.file_type().map_err(|cause| Error::io("stat file", &source, cause))?;
            if kind.is_dir() {
                self.dir(&source, &target)?;
            } else if kind.is_symlink() {
                let link = std::fs::read_link(&source).and_then(|link| symlink(link, &target));
                link.map_err(|cause| Error::io("create symbolic link", &target, cause))?;
            } else {
                let written = std::fs::copy(&source, &target);
                self.bytes += written.map_err(|cause| {
                    Error::new(format!("could not copy \"{}\" to \"{}\": {cause}", source.display(), target.display()))
                })?;
                (self.copied)(self.bytes);
            }
        }
        Ok(())
    }
}
