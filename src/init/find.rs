//! What this host tells of itself: its data directory, and its address as the other server sees it.

use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::pg::bounded::{self, Cancel};
use crate::pg::files::{self, entries};
use crate::pg::{debian, process};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a name may take to resolve.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// The addresses of a host.
///
/// # Errors
/// Its name is not resolved, within 5 s.
pub fn addresses(host: &str) -> Result<Vec<IpAddr>> {
    let name = host.to_owned();
    let hint = "Specify an address, or correct the name.";
    let look = move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        let found = found.map_err(|cause| Error::new(format!("could not resolve \"{name}\": {cause}")).hint(hint))?;
        Ok(found.map(|address| address.ip()).collect::<Vec<IpAddr>>())
    };
    bounded::call(&format!("resolve \"{host}\""), RESOLVE_LIMIT, &Cancel::never(), look)
}

/// Whether two servers, each with its hosts, are both on this host.
pub fn is_one_host(one: &[String], other: &[String]) -> bool {
    let is_here = |address: IpAddr| config::is_local((address, 0).into());
    let some_here = |hosts: &[String]| hosts.iter().filter_map(|host| addresses(host).ok()).flatten().any(is_here);
    one.iter().any(|host| other.contains(host)) || some_here(one) && some_here(other)
}

/// This host's address on the way to the other server; `peer` itself where that is this host.
///
/// # Errors
/// There is no way to the peer.
pub fn own_address(peer: &str) -> Result<String> {
    let mut cause = String::from("it has no address");
    for to in addresses(peer)? {
        // Connecting a datagram socket sends nothing: the kernel only picks the source address. Any port but 0 does.
        let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).and_then(|socket| {
            socket.connect((to, 9))?;
            socket.local_addr()
        });
        match socket {
            Ok(own) if own.ip() == to => return Ok(peer.to_owned()),
            Ok(own) => return Ok(own.ip().to_string()),
            Err(error) => cause = error.to_string(),
        }
    }
    Err(Error::new(format!("could not find this host's address on the way to \"{peer}\": {cause}"))
        .hint("Correct --peer, or specify this host's address with --self HOST."))
}

/// The data directory: the given one, that of `PGDATA`, of the one instance that runs as this user, of Debian's layout, or at
/// one of the usual places. `taken` is that of the other server on this host. Where there may be none yet (`joins`), one that
/// is missing or empty will do. `told` is that of the first server, which is taken where none is found, and of several.
///
/// # Errors
/// None is found, or more than one, or one at another path than `told`.
pub fn data_directory(given: Option<&Path>, taken: Option<&Path>, joins: bool, told: Option<&Path>) -> Result<PathBuf> {
    let environment = std::env::var_os("PGDATA").filter(|data| !data.is_empty()).map(PathBuf::from);
    if let Some(data) = given.or(environment.as_deref().filter(|data| Some(*data) != taken)) {
        let data = std::path::absolute(data).map_err(|cause| Error::io("find directory", data, cause))?;
        if taken.is_some_and(|taken| process::home(taken) == process::home(&data)) {
            return Err(Error::new(format!("data directory \"{}\" belongs to the other server", data.display()))
                .hint("Specify that of this server with --data DIR."));
        }
        let makes_one = joins && config::is_vacant(&data);
        return if makes_one { Ok(data) } else { config::major_version(&data).map(|_| data) };
    }
    let free = |data: &PathBuf| taken.is_none_or(|taken| process::home(taken) != process::home(data));
    let running: Vec<PathBuf> = process::others(Path::new(""))?.into_iter().filter(free).collect();
    let usual: Vec<PathBuf> = usual().into_iter().filter(free).collect();
    let there = usual.iter().filter(|data| is_ours(data) && data.join("PG_VERSION").exists()).cloned().collect();
    let vacant = usual.iter().filter(|data| joins && config::is_vacant(data)).cloned().collect();
    for found in [running, there, vacant] {
        if let Some(data) = choose(found, joins, told)? {
            return Ok(data);
        }
    }
    if let Some(told) = told.filter(|told| config::is_vacant(told) || !told.parent().is_some_and(Path::exists)) {
        return Ok(told.to_owned());
    }
    let hint = match joins {
        true => "Specify its location with --data DIR, or the directory that \"mc_ctl rebuild\" is to create.",
        false => {
            "Specify its location with --data DIR. If none exists yet, create that of the first primary with initdb, and run \
             this command on its host."
        }
    };
    Err(Error::new("no data directory of this user was found").hint(hint))
}

/// One of the directories that were found. A single one at another path than the first server's may be that of an unrelated
/// cluster, which a rebuild would put aside: it is not taken.
fn choose(mut found: Vec<PathBuf>, joins: bool, told: Option<&Path>) -> Result<Option<PathBuf>> {
    found.sort_by_key(|data| process::home(data));
    found.dedup_by_key(|data| process::home(data));
    match (found.as_slice(), told) {
        ([], _) => Ok(None),
        ([data], Some(told)) if process::home(data) != process::home(told) => Err(Error::new(format!(
            "found data directory \"{}\" here, but that of the first server is \"{}\"",
            data.display(),
            told.display()
        ))
        .hint("Specify that of this server with --data DIR.")),
        ([data], _) if joins && config::is_vacant(data) => Ok(Some(data.clone())),
        ([data], _) => config::major_version(data).map(|_| Some(data.clone())),
        (several, Some(told)) if several.iter().any(|data| data == told) => Ok(Some(told.to_owned())),
        (several, _) => {
            let several: Vec<String> = several.iter().map(|data| format!("\"{}\"", data.display())).collect();
            Err(Error::new(format!("there are several data directories: {}", several.join(", ")))
                .hint("Specify the correct one with --data DIR."))
        }
    }
}

fn is_ours(data: &Path) -> bool {
    data.metadata().is_ok_and(|meta| meta.uid() == rustix::process::geteuid().as_raw())
}

/// Where data directories usually are: those that Debian's configurations name, then the packages' own places.
fn usual() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = debian::clusters().map(|(_, data)| data).collect();
    for (parent, under) in [("/var/lib/postgresql", "main"), ("/var/lib/pgsql", "data")] {
        found.extend(
            entries(Path::new(parent)).into_iter().map(|version| version.join(under)).filter(|data| data.exists()),
        );
    }
    let plain = ["/var/lib/pgsql/data", "/usr/local/pgsql/data", "/var/lib/postgres/data"];
    found.extend(plain.into_iter().map(PathBuf::from).filter(|data| data.exists()));
    found
}

/// The unit by which a distribution's packages start the instance of this data directory.
pub fn unit(data: &Path) -> Option<String> {
    if debian::clusters().any(|(_, its)| its == data) {
        return Some("postgresql".into());
    }
    let below = data.to_str()?.strip_prefix("/var/lib/pgsql/")?;
    match below.strip_suffix("/data") {
        Some(version) => Some(format!("postgresql-{version}")),
        None => (below == "data").then(|| "postgresql".into()),
    }
}

/// Whether the instance runs.
pub fn is_running(config: &Config) -> bool {
    process::postmaster(&process::home(&config.server.db_instance)).is_ok_and(|process| process.is_some())
}

/// Whether this user can make files in a directory.
pub fn is_writable(dir: &Path) -> bool {
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
}

/// Whether the management directory and the data directory are on one file system.
pub fn is_one_disk(config: &Config) -> bool {
    files::same_filesystem(&config.dir, &config.server.db_instance)
}

/// The programs of the instance that runs in this data directory, where they are at none of the places that are looked
/// through anyhow.
pub fn programs_of_running(data: &Path) -> Option<PathBuf> {
    let version = config::major_version(data).ok()?;
    if config::find_bin_dir(version, None).is_ok() {
        return None;
    }
    let postmaster = process::postmaster(&process::home(data)).ok()??;
    let program = std::fs::read_link(format!("/proc/{}/exe", postmaster.pid)).ok()?;
    let dir = program.parent()?.to_owned();
    config::find_bin_dir(version, Some(&dir)).is_ok().then_some(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses() {
        assert_eq!(own_address("127.0.0.1").unwrap(), "127.0.0.1");
        assert_eq!(own_address("localhost").unwrap(), "localhost");
        assert!(own_address("no-such-host.invalid").unwrap_err().message.contains("no-such-host.invalid"));
    }

    #[test]
    fn units_of_red_hat() {
        let unit_of = |data: &str| unit(Path::new(data));
        assert_eq!(unit_of("/var/lib/pgsql/15/data").as_deref(), Some("postgresql-15"));
        assert_eq!(unit_of("/var/lib/pgsql/data").as_deref(), Some("postgresql"));
        assert_eq!(unit_of("/srv/pgsql/data"), None);
    }

    #[test]
    fn another_path_than_the_first_servers() {
        let dir = tempfile::tempdir().unwrap();
        let [found, told, link] = ["found", "told", "link"].map(|name| dir.path().join(name));
        std::fs::create_dir(&found).unwrap();
        std::fs::write(found.join("PG_VERSION"), "15\n").unwrap();
        std::os::unix::fs::symlink(&found, &link).unwrap();
        let chosen = |told: Option<&Path>| choose(vec![found.clone()], true, told);
        for same in [None, Some(found.as_path()), Some(link.as_path())] {
            assert_eq!(chosen(same).unwrap().as_ref(), Some(&found));
        }
        let error = chosen(Some(&told)).unwrap_err().to_string();
        for part in [format!("\"{}\"", found.display()), format!("\"{}\"", told.display()), "--data DIR".into()] {
            assert!(error.contains(&part), "\"{part}\" is missing in {error}");
        }
        let several = choose(vec![found.clone(), told.clone()], true, Some(&told));
        assert_eq!(several.unwrap(), Some(told));
    }

    #[test]
    fn given_data_directories() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("full")).unwrap();
        std::fs::write(at("full/PG_VERSION"), "15\n").unwrap();
        std::fs::create_dir(at("foreign")).unwrap();
        std::fs::write(at("foreign/x"), "").unwrap();
        let check = |name: &str, joins: bool, expected: Option<&str>| match (
            data_directory(Some(&at(name)), None, joins, None),
            expected,
        ) {
            (Ok(data), None) => assert_eq!(data, at(name)),
            (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, wanted) => panic!("{name}: got {got:?}, wanted {wanted:?}"),
        };
        check("full", false, None);
        check("full", true, None);
        check("none", true, None);
        check("none", false, Some("does not exist"));
        check("none/below", true, Some("does not exist"));
        check("foreign", true, Some("has no file PG_VERSION"));
        // What was typed counts more than what the first server has.
        assert_eq!(data_directory(Some(&at("full")), None, true, Some(&at("none"))).unwrap(), at("full"));
    }
}
