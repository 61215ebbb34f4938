//! `synchronous_standby_names`: written to the file, reloaded, and verified by effect. Called by the jobs.

use super::jobs::{PAUSE, QUERY, Setup, hang_up, in_session, value_of};
use crate::error::{Error, Result};
use crate::messages::{self, Tell};
use crate::pg::bounded::{self, Cancel};
use crate::pg::checkpointer::Signs;
use crate::pg::connect::Session;
use crate::pg::{Place, conf, control, files, queries};
use std::time::Duration;

/// How long the file's edit may take.
const FILES: Duration = Duration::from_secs(20);

/// How long a reload may take to show in a new session, and to free those who wait.
const EFFECT: Duration = Duration::from_millis(1000);

/// Writes the line, durably: set to exactly this name, or commented out. Returns whether the names were empty before, by all
/// configuration files.
pub fn write(setup: &Setup, name: Option<&str>, limit: Duration, cancel: &Cancel) -> Result<bool> {
    let place = setup.place.clone();
    let name = name.map(conf::names_value);
    let cancelled = cancel.clone();
    bounded::call("write synchronous_standby_names", limit, cancel, move || {
        let unnamed = control::is_unnamed(&place);
        // Its turn may come only after that of a later order.
        let wanted = || !cancelled.is_set();
        let edited = files::edit_if(&place.config_file, wanted, |text| match &name {
            Some(value) => conf::set(text, value),
            None => Ok(conf::comment_out(text)),
        });
        match edited {
            // A full file system must not keep a server with the right to run alone from serving.
            Err(error) if name.is_none() => {
                let edit = |text: &[u8]| Ok(conf::comment_out_in_place(text));
                files::overwrite_if(&place.config_file, wanted, edit).map_err(|_| error.clone())?;
                messages::tell(&Tell::Warning(error));
            }
            edited => _ = edited?,
        }
        Ok(unnamed)
    })
}

/// Whether the file can be read and does not set exactly this name, or will not when an earlier edit that hangs returns.
pub fn differs(place: &Place, name: &str, limit: Duration, cancel: &Cancel) -> Result<bool> {
    let (file, value) = (place.config_file.clone(), conf::names_value(name));
    bounded::call("read the configuration file", limit, cancel, move || {
        // In this order: an edit that ends in between has changed the text that is read.
        let pending = files::pending(&file);
        let text = std::fs::read(&file).map_err(|e| Error::io("read file", &file, e))?;
        let other = |text: Vec<u8>| Ok::<_, Error>(conf::set(&text, &value)? != text);
        Ok(other(text)? || pending.map_or(Ok(false), other)?)
    })
}

/// Makes the postmaster read its configuration.
pub fn reload(place: &Place) -> Result<()> {
    hang_up(place)
}

/// Sets the names, reloads, and waits until a new session shows them.
pub fn on(setup: &Setup, name: &str, cancel: &Cancel) -> Result<()> {
    write(setup, Some(name), FILES, cancel)?;
    apply(setup, Some(name), cancel)
}

/// Comments the names out, reloads, and waits until a new session shows none and no backend waits for the standby.
pub fn off(setup: &Setup, cancel: &Cancel) -> Result<()> {
    write(setup, None, FILES, cancel)?;
    apply(setup, None, cancel)
}

/// What was seen last while the effect was waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    Effect,
    Value(String),
    Waiters(u64),
}

fn apply(setup: &Setup, name: Option<&str>, cancel: &Cancel) -> Result<()> {
    reload(&setup.place)?;
    let wanted = value_of(name);
    let mut last = Ok(Seen::Value(String::new()));
    let look = || {
        let value = wanted.clone();
        last = in_session(setup, "verify synchronous_standby_names", QUERY * 2, cancel, move |session, _| {
            see(session, &value)
        });
        let done = last == Ok(Seen::Effect) || last.is_err() && wanted.is_empty() && is_closed_standby(setup, cancel);
        Ok(done.then_some(()))
    };
    if bounded::poll(EFFECT, PAUSE, cancel, look)?.is_some() {
        return Ok(());
    }
    cancel.check()?;
    match last? {
        Seen::Effect => Ok(()),
        Seen::Value(value) => Err(in_the_way(setup, &wanted, &value, cancel)),
        Seen::Waiters(count) => Err(stuck(&setup.place, count)),
    }
}

/// Whether it is a standby that lets the controller not in, and nothing overrides our line: nobody waits on a standby, so
/// a wrong password or a lack of connections is no reason not to promote it.
fn is_closed_standby(setup: &Setup, cancel: &Cancel) -> bool {
    let Setup { place, target, .. } = setup.clone();
    let look = move || {
        let closed = Session::open(&target, QUERY, "a look").is_err_and(|refusal| refusal.is_rejection());
        let overridden = |found: &conf::Elsewhere| found.wins && !found.value.trim().is_empty();
        let elsewhere = conf::elsewhere(conf::NAMES, &place.config_file, &place.data);
        Ok(closed && place.data.join("standby.signal").exists() && !elsewhere.iter().any(overridden))
    };
    bounded::call("check whether the standby accepts the controller's connection", QUERY * 2, cancel, look)
        .unwrap_or(false)
}

/// One look, by a session opened after the reload.
fn see(session: &mut Session, wanted: &str) -> Result<Seen> {
    let value = queries::show_names(session, QUERY)?;
    if value != wanted {
        return Ok(Seen::Value(value));
    }
    if wanted.is_empty() && !queries::is_in_recovery(session, QUERY)? {
        let waiters = queries::waiters(session, QUERY)?;
        if waiters > 0 {
            return Ok(Seen::Waiters(waiters));
        }
    }
    if !wanted.is_empty() && queries::max_wal_senders(session, QUERY)? == 0 && !queries::is_in_recovery(session, QUERY)?
    {
        return Err(Error::new("max_wal_senders is 0, so that synchronous_standby_names has no effect")
            .hint("Set max_wal_senders to at least 3 and restart the instance."));
    }
    Ok(Seen::Effect)
}

/// Why a new session does not show the value: another file or line, the command line, an error in the file.
fn in_the_way(setup: &Setup, wanted: &str, value: &str, cancel: &Cancel) -> Error {
    let place = setup.place.clone();
    let files = bounded::call("read the configuration files", QUERY, cancel, move || {
        Ok(conf::elsewhere(conf::NAMES, &place.config_file, &place.data))
    });
    let mut reasons: Vec<String> = files
        .unwrap_or_default()
        .into_iter()
        .map(|found| format!("file \"{}\", line {}, sets it to \"{}\"", found.file.display(), found.line, found.value))
        .collect();
    let asked = in_session(setup, "find what overrides the setting", QUERY * 3, cancel, |session, _| {
        Ok((queries::setting_source(session, conf::NAMES, QUERY)?, queries::file_errors(session, QUERY)?))
    });
    if let Ok((source, errors)) = asked {
        match &source.file {
            Some(file) if reasons.is_empty() && source.value != wanted => {
                reasons.push(format!("file \"{file}\", line {}, sets it", source.line));
            }
            None if source.source != "default" => reasons.push(format!("it is set by: {}", source.source)),
            _ => {}
        }
        reasons.extend(errors.into_iter().map(|error| format!("error in {error}")));
    }
    if reasons.is_empty() {
        reasons.push("the postmaster has not read its configuration".into());
    }
    Error::new(format!(
        "synchronous_standby_names is \"{value}\" and not \"{wanted}\" after a reload: {}",
        reasons.join("; ")
    ))
    .hint("The controller owns this setting: remove it everywhere except in postgresql.conf (ALTER SYSTEM RESET).")
}

/// Why backends still wait although new sessions show no names: only the checkpointer puts the change in effect.
fn stuck(place: &Place, waiters: u64) -> Error {
    let condition = Signs::read(&place.data).condition();
    Error::new(format!(
        "synchronous_standby_names is empty, but {waiters} commits still wait for the standby: the checkpointer {condition}"
    ))
    .hint("Only the checkpointer puts the setting into effect; the likely cause is a disk that hangs.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_that_hangs_counts_with_the_text_that_it_writes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("postgresql.conf");
        std::fs::write(&file, "synchronous_standby_names = 'nd2'\n").unwrap();
        let place = Place {
            config_file: file.clone(),
            bin_dir: dir.path().into(),
            major: 15,
            log_file: dir.path().join("log"),
            startup_log: dir.path().join("log"),
            data: dir.path().into(),
        };
        let differs = || differs(&place, "nd2", Duration::from_secs(60), &Cancel::never()).unwrap();
        assert!(!differs());
        let (begun, has_begun) = crossbeam_channel::bounded(0);
        let (go, may_go) = crossbeam_channel::bounded::<()>(0);
        let hangs = move || {
            begun.send(()).unwrap();
            may_go.recv().unwrap();
            true
        };
        let edit = std::thread::spawn(move || files::edit_if(&file, hangs, |text| Ok(conf::comment_out(text))));
        has_begun.recv().unwrap();
        let during = differs();
        go.send(()).unwrap();
        assert_eq!((during, edit.join().unwrap(), differs()), (true, Ok(true), true));
    }
}
