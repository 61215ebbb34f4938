//! `pg_basebackup` into staging directories: where they lie, the run, and what must be true after it. Called by
//! [`super::perform`].

use super::journal::{Journal, Move, Phase, now_ms, stamp};
use super::primary::Primary;
use super::progress::Teller;
use super::{Chosen, Setup, shared, swap};
use crate::error::{Error, Result};
use crate::fsm::types::OldData;
use crate::pg::bounded::Cancel;
use crate::pg::{Place, commands, control, files};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The journal of a base backup that is about to begin. Refuses what could not be gone through with.
///
/// # Errors
/// The data directory cannot be renamed, or something lies where the copy would.
pub fn prepare(
    setup: &Setup,
    (old_data, ruined): (OldData, bool),
    primary: &Primary,
    cancel: &Cancel,
) -> Result<Journal> {
    let stamp = stamp(now_ms());
    let journal = replacement(&setup.place, (&setup.name, &stamp), primary.tablespaces(cancel)?)?;
    Ok(Journal { ruined, old_data, ..journal })
}

/// The journal of a replacement of the data directory, which has these tablespaces (OID and directory) afterwards. `stamp`: the end
/// of the names of what is kept.
///
/// # Errors
/// As [`prepare`].
pub fn replacement(place: &Place, (name, stamp): (&str, &str), tablespaces: Vec<(String, PathBuf)>) -> Result<Journal> {
    let data = &place.data;
    if let Some(why) = swap::fixed(data) {
        return Err(Error::new(format!("could not replace the data directory \"{}\": {why}", data.display())).hint(
            "The copy is created beside the data directory and renamed to it. Use a data directory below the mount point; the \
             instance administrator user must own it and its parent.",
        ));
    }
    refuse_lower_layer(data)?;
    if data.is_symlink() {
        let what =
            format!("the data directory \"{}\" is a symbolic link to a directory that does not exist", data.display());
        return Err(Error::new(what).hint("Mount its file system, or create the directory to which it points."));
    }
    let journal = Journal {
        method: Chosen::BaseBackup,
        phase: Phase::Copying,
        ruined: false,
        old_data: OldData::Keep,
        existed: swap::has_content(data)?,
        name: name.to_owned(),
        data: data.clone(),
        staging: swap::staging(data),
        old: swap::old(data, stamp),
        moves: moves(place, stamp, tablespaces)?,
        swapped: false,
        stamp: stamp.to_owned(),
    };
    for change in &journal.moves {
        swap::renamed(change, place.major)?.iter().try_for_each(|dir| refuse_lower_layer(dir))?;
    }
    let asides = journal.moves.iter().flat_map(|change| [&change.staged, &change.old]);
    for path in asides.chain([&journal.staging, &journal.old]) {
        if path.symlink_metadata().is_ok() {
            return Err(Error::new(format!("\"{}\" already exists", path.display()))
                .hint("Its origin is unknown. Examine it, and remove it if it is not needed."));
        }
    }
    Ok(journal)
}

fn refuse_lower_layer(dir: &Path) -> Result<()> {
    if !swap::is_in_lower_layer(dir)? {
        return Ok(());
    }
    let dir = dir.display();
    Err(Error::new(format!("could not replace directory \"{dir}\": the file system cannot rename it")).hint(format!(
        "The directory is in the lower layer of an overlay file system. Run \"mv {dir} {dir}.copy && mv {dir}.copy {dir}\", \
         which copies it to the upper layer, then run the command again."
    )))
}

/// What lies outside of the data directory: where it does here, else where it does on the other server.
fn moves(place: &Place, stamp: &str, tablespaces: Vec<(String, PathBuf)>) -> Result<Vec<Move>> {
    let Place { data, major, .. } = place;
    let mut moves = Vec::new();
    let wal = PathBuf::from("pg_wal");
    if let Some(at) = linked(&data.join(&wal))? {
        moves.push(swap::plan(&wal, &at, stamp, None)?);
    }
    for (oid, location) in tablespaces {
        let link = Path::new("pg_tblspc").join(oid);
        let at = match linked(&data.join(&link))? {
            Some(at) => at,
            None => {
                shared::refuse_strange(&location, *major)?;
                location
            }
        };
        moves.push(swap::plan(&link, &at, stamp, Some(*major))?);
    }
    let outside: Vec<PathBuf> = moves.iter().map(|change| change.at.clone()).collect();
    shared::refuse(data, &outside)?;
    Ok(moves)
}

/// Where a symbolic link of the data directory points to; `None` where it is none.
fn linked(link: &Path) -> Result<Option<PathBuf>> {
    if !link.is_symlink() {
        return Ok(None);
    }
    let at = std::fs::canonicalize(link).map_err(|e| {
        Error::io("open the directory that is linked to by", link, e)
            .hint("Mount its file system. If it is permanently lost, create an empty directory in its place.")
    })?;
    Ok(Some(at))
}

/// Makes the copy and guards it. It is durable then.
///
/// # Errors
/// The copy failed or is not what it must be.
pub fn run(setup: &Setup, journal: &Journal, primary: &Primary, tell: &Teller, cancel: &Cancel) -> Result<()> {
    let staging = &journal.staging;
    let mut args: Vec<OsString> = ["-X", "stream", "-c", "fast", "-P", "-w", "-D"].map(Into::into).into();
    args.push(staging.into());
    args.extend(["-d".into(), primary.conninfo.clone().into()]);
    let locations = primary.tablespaces(cancel)?;
    for change in &journal.moves {
        let oid = change.link.strip_prefix("pg_tblspc").ok();
        match locations.iter().find(|(other, _)| oid.is_some_and(|oid| oid == Path::new(other))) {
            Some((_, location)) => {
                args.extend(["-T".into(), tablespace_mapping(location, &change.staged)]);
            }
            None => args.extend(["--waldir".into(), change.staged.clone().into()]),
        }
    }
    let begun = Instant::now();
    let program = commands::program(&setup.place, "pg_basebackup", args).password(primary.password.as_deref());
    program.follow(cancel, |line| !tell.said(line, begun))?;
    verify(setup, staging, primary)?;
    control::guard(staging, setup.place.major)?;
    // It has synced what is in these directories, not their own names.
    let staged = journal.moves.iter().map(|change| &change.staged).filter(|staged| staged.exists());
    staged.chain([staging]).try_for_each(|staged| files::sync_parent(staged))
}

/// The value of `pg_basebackup --tablespace-mapping` for a tablespace that is copied to another directory.
pub fn tablespace_mapping(location: &Path, copy: &Path) -> OsString {
    let escaped = |path: &Path| path.to_string_lossy().replace('=', "\\=");
    format!("{}={}", escaped(location), escaped(copy)).into()
}

fn verify(setup: &Setup, staging: &Path, primary: &Primary) -> Result<()> {
    let found = control::inspect(&Place { data: staging.to_path_buf(), ..setup.place.clone() })?;
    let wrong = |what: &str| Err(Error::new(format!("pg_basebackup ended without an error, but {what}")));
    if found.system != primary.system {
        return wrong("the copy belongs to another cluster");
    }
    if !found.backup_label {
        return wrong("the copy has no backup_label");
    }
    if found.checkpoint_timeline != primary.timeline {
        return wrong("the copy is not on the primary's timeline");
    }
    Ok(())
}
