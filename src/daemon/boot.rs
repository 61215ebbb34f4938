//! What the controller reads about its instance before the core boots. Only reads; a disk that does not answer holds it
//! up for a bounded time, and the core boots without a data directory.

use super::high_water;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::fsm::event::{Boot, DataDir, StartedBy};
use crate::fsm::types::Durable;
use crate::messages::{self, Tell};
use crate::pg::bounded::{self, Cancel};
use crate::pg::{Place, conf, control, follow, version};
use crate::rebuild::Journal;
use std::path::Path;
use std::time::Duration;

/// How long the data directory may take to be read.
const LIMIT: Duration = Duration::from_secs(5);

/// What is read from the instance's files.
struct Found {
    data: Result<DataDir>,
    name: Option<String>,
    peer_name: Option<String>,
    port: u16,
    /// The management directory lies on the data directory's filesystem.
    same_filesystem: bool,
}

/// The core's first event. Reports what it finds wrong.
///
/// # Errors
/// A version of PostgreSQL that may acknowledge too early, not allowed by `accept_startup_race` (PROTOCOL R9).
pub fn read(config: &Config, by: StartedBy, start_id: u64, durable: Option<Durable>) -> Result<Boot> {
    let high_water = high_water::load(&config.run_dir());
    if by != StartedBy::Watcher {
        check_version(config)?;
    }
    let (place, dir, run_dir) = (Place::new(config), config.dir.clone(), config.run_dir());
    let found =
        bounded::call("read the data directory", LIMIT, &Cancel::never(), move || Ok(look(&place, &dir, &run_dir)));
    let (own, peer) = (&config.own().id, &config.peer().id);
    let host = &config.server.replication_address;
    let boot = |data, name: Option<String>, peer_name: Option<String>, port: u16| Boot {
        by,
        durable,
        data,
        name: name.unwrap_or_else(|| own.clone()),
        address: join(host, port),
        peer_name: peer_name.unwrap_or_else(|| peer.clone()),
        start_id,
        high_water,
    };
    match found {
        Err(error) => {
            messages::tell(&Tell::Error(error));
            Ok(boot(None, None, None, conf::PORT))
        }
        Ok(found) => {
            if found.same_filesystem && by != StartedBy::Watcher {
                let text = |path: &Path| path.display().to_string();
                messages::tell(&Tell::SameFilesystem {
                    directory: text(&config.dir),
                    data: text(&config.server.db_instance),
                });
            }
            let unread = |error| match config.server.no_data.clone() {
                Some(why) => messages::tell(&Tell::Warning(why)),
                None => messages::tell(&Tell::Error(error)),
            };
            let data = found.data.map_err(unread).ok();
            Ok(boot(data, found.name, found.peer_name, found.port))
        }
    }
}

/// A host and a port in one word.
pub(super) fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// `host:port` of the instance, by its configuration files.
pub(super) fn address(place: &Place, host: &str) -> String {
    join(host, conf::port(&place.config_file, &place.data))
}

fn look(place: &Place, dir: &Path, run_dir: &Path) -> Found {
    let device = |path: &Path| rustix::fs::stat(path).map(|stat| stat.st_dev).ok();
    let text = std::fs::read(&place.config_file).unwrap_or_default();
    Found {
        data: control::inspect(place),
        name: own_name(place, run_dir),
        peer_name: conf::present_value(&text).and_then(|value| single_name(&value)),
        port: conf::port(&place.config_file, &place.data),
        same_filesystem: device(dir).is_some_and(|own| Some(own) == device(&place.data)),
    }
}

/// This server's `application_name`, where one is known. A data directory that is being rebuilt may hold the other server's.
pub(super) fn own_name(place: &Place, run_dir: &Path) -> Option<String> {
    Journal::kept_name(run_dir).or_else(|| follow::application_name(place))
}

/// The one standby that a value of `synchronous_standby_names` names, without the quotes of an identifier.
fn single_name(value: &str) -> Option<String> {
    let value = value.trim();
    match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => Some(quoted.replace("\"\"", "\"")),
        None => (!value.is_empty() && !value.contains([',', '(', '*', ' ', '"'])).then(|| value.to_owned()),
    }
}

fn check_version(config: &Config) -> Result<()> {
    let program = config.server.bin_dir.join("postgres");
    let path = program.clone();
    let output = bounded::call("run \"postgres --version\"", LIMIT, &Cancel::never(), move || {
        let output = std::process::Command::new(&path).arg("--version").stdin(std::process::Stdio::null()).output();
        output.map_err(|cause| Error::io("run", &path, cause))
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(number) = version::version_num(&text) else {
        return Err(Error::new(format!("could not find a version number in \"{}\"", text.trim()))
            .hint(format!("Check that \"{}\" is the server program of PostgreSQL.", program.display())));
    };
    version::Major::of_server(number)?;
    if !version::has_startup_race(number) {
        return Ok(());
    }
    let version = format!("{}.{}", number / 10000, number % 10000);
    if !config.server.accept_startup_race {
        return Err(Error::new(format!(
            "PostgreSQL {version} may acknowledge commits before synchronous_standby_names takes effect while it starts"
        ))
        .hint("Update PostgreSQL to its newest minor version, or set accept_startup_race = 'on' to accept the risk."));
    }
    messages::tell(&Tell::StartupRace { version });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_standby() {
        let check =
            |value: &str, expected: Option<&str>| assert_eq!(single_name(value).as_deref(), expected, "{value}");
        check("nd2", Some("nd2"));
        check("\"nd-2\"", Some("nd-2"));
        check("\"n\"\"d\"", Some("n\"d"));
        check("*", None);
        check("FIRST 1 (a, b)", None);
        check("a,b", None);
        check("", None);
    }
}
