//! What `mc_ctl init` makes: `network.conf`, `ID.conf`, `mc.key` and `ID.private`, from what this host tells of itself; and
//! what `mc_arb init` makes.
//!
//! Everything is found and checked before anything is written: the new files are made in a directory beside their place,
//! loaded there as a start would load them, and then linked to their names one by one, `network.conf` last. A file that is
//! there is never replaced, so that a run that was killed anywhere, or was one too many, does no harm. What PostgreSQL's own
//! files still lack is found by [`settings`] and [`rules`]; nothing here changes a database. Called by `cli::init`.

mod arbiter;
pub mod find;
mod join;
mod own_file;
pub mod rules;
pub mod settings;

pub use arbiter::{MemberKey, arbiter};
pub use join::Join;

use crate::config::key::{PrivateKey, PublicKey, file_name};
use crate::config::{self, Config, Key, MemberLine, Network, Secret};
use crate::error::{Error, Result};
use crate::fsm::types::Server;
use crate::pg::files;
use crate::random;
use std::fmt::Write as _;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The controllers' port where none is given; below the range from which Linux picks ports by itself.
const PORT: u16 = 27540;

/// Where the new files are made, in the management directory.
const STAGE: &str = ".init-new";

/// A member as it is typed: `[ID=]HOST[:PORT]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its identifier.
    pub id: Option<String>,
    /// Name or address, without brackets.
    pub host: String,
    /// Its controller's port.
    pub port: Option<u16>,
}

impl std::str::FromStr for Member {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Member, String> {
        let (id, rest) = match text.split_once('=') {
            Some((id, rest)) => (Some(id.to_owned()), rest),
            None => (None, text),
        };
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None if rest.matches(':').count() > 1 => (rest, None),
            None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map(str::parse).transpose().ok().filter(|port| *port != Some(0));
        let port = port.ok_or("the port must be a number from 1 to 65535")?;
        config::network::check_host(host)?;
        Ok(Member { id, host: host.to_owned(), port })
    }
}

/// What was typed.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The management directory.
    pub dir: PathBuf,
    /// This server.
    pub own: Option<Member>,
    /// The other one.
    pub peer: Option<Member>,
    /// The arbiter.
    pub arbiter: Option<Member>,
    /// `--local-server`.
    pub local_server: Option<String>,
    /// The data directory.
    pub data: Option<PathBuf>,
    /// For `ID.conf`.
    pub password: Option<Secret>,
    /// What the first server has printed for the other members.
    pub join: Option<Join>,
    /// `rebuild_action = 'auto'`; `None` where neither was asked for.
    pub rebuild_auto: Option<bool>,
}

/// New files, made and checked but not yet at their places. Dropped, they are removed.
#[derive(Debug)]
pub struct Draft {
    dir: PathBuf,
    local_server: Option<String>,
    /// Name and text, in the order in which they are put to their places.
    files: Vec<(String, String)>,
    /// The management directory was made for them.
    made_dir: bool,
    /// Directories that were made for the data directory, the outermost first.
    parents: Vec<PathBuf>,
}

/// Finds out what is needed, and makes the new files beside their places.
///
/// # Errors
/// What cannot be found, what contradicts a file that is there, and all that a start would refuse. Nothing was changed then.
pub fn prepare(wanted: &Wanted) -> Result<Draft> {
    let dir = std::path::absolute(&wanted.dir).map_err(|cause| Error::io("find directory", &wanted.dir, cause))?;
    let path = dir.join("network.conf");
    let mut new = Vec::new();
    let (network, local_server, joins) = match (path.symlink_metadata().is_ok(), &wanted.join) {
        (true, join) => {
            let text = config::read_private(&path, "")?;
            let network = Network::parse(&path, &text)?;
            agree(&path, &network, wanted)?;
            join.as_ref().map_or(Ok(()), |join| is_same(&path, &text, &join.network))?;
            (network, wanted.local_server.clone(), true)
        }
        (false, Some(join)) => {
            let network = Network::parse(&path, &join.network)?;
            new.push(("network.conf".to_owned(), join.network.clone()));
            (network, wanted.local_server.clone(), true)
        }
        (false, None) => {
            let (text, own, one_host) = network_conf(wanted)?;
            let network = Network::parse(&path, &text)?;
            new.push(("network.conf".to_owned(), text));
            (network, one_host.then_some(own), false)
        }
    };
    let me = match joins {
        true => config::which_server(&path, &network, local_server.as_deref())?,
        false => Server::First,
    };
    let (own, peer) = (&network.servers[me.index()], &network.servers[me.other().index()]);
    let of_its_own = own_file::own_file(&dir, own, peer, wanted, joins, network.arbiter.is_some())?;
    let parent = of_its_own.as_ref().and_then(|file| file.parent.clone());
    new.splice(..0, of_its_own.map(|file| (format!("{}.conf", own.id), file.text)));
    new.splice(..0, shared_key(&path, wanted.join.as_ref(), joins)?.map(|text| ("mc.key".to_owned(), text)));
    let private = dir.join(file_name(&own.id));
    match (private.symlink_metadata().is_ok(), own.key) {
        (true, _) => (),
        (false, None) => new.insert(0, (file_name(&own.id), new_key()?)),
        (false, Some(_)) => {
            let public = make_key(&private)?;
            return Err(Error::new(format!(
                "created \"{}\", but network.conf lists a different public key",
                private.display()
            ))
            .hint(format!(
                "List key={public} for \"{}\" in network.conf on all members; then run this command again.",
                own.id
            )));
        }
    }
    stage(dir, local_server, new, parent)
}

/// The text of `mc.key`; `None` where it is there.
fn shared_key(network: &Path, join: Option<&Join>, joins: bool) -> Result<Option<String>> {
    let key = network.with_file_name("mc.key");
    match (key.symlink_metadata().is_ok(), join) {
        (true, join) => {
            let text = config::read_private(&key, "")?;
            Key::parse(&key, &text)?;
            join.map_or(Ok(()), |join| is_same(&key, &text, join.key.expose()))?;
            Ok(None)
        }
        (false, Some(join)) => Ok(Some(format!("{}\n", join.key.expose()))),
        (false, None) if joins => {
            Err(Error::new(format!("file \"{}\" exists, but \"{}\" does not", network.display(), key.display())).hint(format!(
                "Specify the block that \"mc_ctl init --show-join\" prints on the first server with --join; or copy mc.key, \
                 which is the same on all members. If none exists yet, create it: (umask 077; openssl rand -hex 32 >\"{}\")",
                key.display()
            )))
        }
        (false, None) => new_key().map(Some),
    }
}

/// A file that is there must be what the block contains. The error quotes neither.
fn is_same(path: &Path, has: &str, block: &str) -> Result<()> {
    if has.lines().map(str::trim).eq(block.lines().map(str::trim)) {
        return Ok(());
    }
    Err(Error::new(format!("file \"{}\" exists and differs from the block for --join", path.display()))
        .hint("Remove the file if it belongs to another pair, or omit --join. Nothing was changed."))
}

/// `network.conf`, this server's identifier, and whether both servers are this host.
fn network_conf(wanted: &Wanted) -> Result<(String, String, bool)> {
    let Some(peer) = &wanted.peer else {
        return Err(Error::new("could not determine the host of the other server").hint(
            "On the first server: mc_ctl init -M DIR --peer HOST [--arbiter HOST]. On the other server: mc_ctl init -M DIR --join -, \
             with the block that it prints.",
        ));
    };
    let host = match &wanted.own {
        Some(own) => own.host.clone(),
        None => find::own_address(&peer.host)?,
    };
    let own_id = wanted.own.as_ref().and_then(|own| own.id.clone()).or(wanted.local_server.clone());
    let own_id = own_id.unwrap_or_else(|| "nd1".into());
    let one_host = find::is_one_host(std::slice::from_ref(&host), std::slice::from_ref(&peer.host));
    let preset = if own_id == "nd2" { "nd1" } else { "nd2" };
    let own = Member { id: Some(own_id.clone()), host, port: wanted.own.as_ref().and_then(|own| own.port) };
    let members =
        [Some((&own, "", "")), Some((peer, preset, "")), wanted.arbiter.as_ref().map(|m| (m, "arb", "  arbiter"))];
    let mut text = "# The same on all members; see network.conf(5).\n".to_owned();
    let mut taken: Vec<(&str, u16)> = Vec::new();
    for (member, preset, kind) in members.into_iter().flatten() {
        let free = || (PORT..).find(|port| !taken.contains(&(&member.host, *port))).unwrap_or(PORT);
        let port = member.port.unwrap_or_else(free);
        taken.push((&member.host, port));
        let _ = writeln!(text, "{}  {}  {port}{kind}", member.id.as_deref().unwrap_or(preset), member.host);
    }
    Ok((text, own_id, one_host))
}

/// Whether what was typed is what `network.conf` says.
fn agree(path: &Path, network: &Network, wanted: &Wanted) -> Result<()> {
    let fits = |line: &MemberLine, member: &Member| {
        line.hosts.contains(&member.host)
            && member.port.is_none_or(|port| line.ports.contains(&port))
            && member.id.as_ref().is_none_or(|id| *id == line.id)
    };
    let servers: Vec<&MemberLine> = network.servers.iter().collect();
    let arbiter: Vec<&MemberLine> = network.arbiter.iter().collect();
    let asked = [
        (&wanted.own, "--self", &servers),
        (&wanted.peer, "--peer", &servers),
        (&wanted.arbiter, "--arbiter", &arbiter),
    ];
    for (member, option, lines) in asked {
        let Some(member) = member else { continue };
        if !lines.iter().any(|line| fits(line, member)) {
            let told = |line: &&MemberLine| {
                let ports: Vec<String> = line.ports.iter().map(u16::to_string).collect();
                format!("line {} has {} {} {}", line.line, line.id, line.hosts.join(","), ports.join(","))
            };
            let has: Vec<String> = lines.iter().map(told).collect();
            let has = if has.is_empty() { "it has no arbiter".into() } else { has.join(", ") };
            let id = member.id.as_ref().map_or(String::new(), |id| format!("{id}="));
            let port = member.port.map_or(String::new(), |port| format!(" port {port}"));
            return Err(Error::new(format!(
                "file \"{}\" already exists, and does not contain {option} {id}{}{port}: {has}",
                path.display(),
                member.host
            ))
            .hint(
                "Omit the option, or correct the file, which must be the same on all members. Nothing was changed.",
            ));
        }
    }
    Ok(())
}

/// 64 hexadecimal digits of the kernel's randomness.
fn new_key() -> Result<String> {
    Ok(random::digits()? + "\n")
}

/// Makes a file with a new private key, where there is none, and returns the public one.
///
/// # Errors
/// There is a file meanwhile, or the disk fails.
fn make_key(path: &Path) -> Result<PublicKey> {
    let text = Zeroizing::new(new_key()?);
    let failed = |cause| Error::io("create file", path, cause);
    let beside = path.with_file_name(".new-key");
    files::remove(&beside)?;
    files::replace(&beside, text.as_bytes(), None)?;
    // A link is made only where nothing is: no key is ever replaced.
    let linked = std::fs::hard_link(&beside, path).map_err(failed);
    files::remove(&beside)?;
    linked?;
    files::sync_parent(path)?;
    Ok(PrivateKey::parse(path, &text)?.public())
}

/// Makes a directory for this user alone, where it is missing.
///
/// # Errors
/// It cannot be made.
fn make_dir(dir: &Path) -> Result<bool> {
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Ok(true),
        Err(_) if dir.is_dir() => Ok(false),
        Err(cause) => Err(Error::io("create directory", dir, cause).hint(install_hint(dir))),
    }
}

/// How root makes a directory for this user.
fn install_hint(dir: &Path) -> String {
    let user = config::running_user().unwrap_or_else(|_| "USER".into());
    format!("Run as root: install -d -m 700 -o {user} \"{}\"", dir.display())
}

/// Makes the new files beside their places, with those that are there, and loads them as a start would.
fn stage(
    dir: PathBuf,
    local_server: Option<String>,
    files: Vec<(String, String)>,
    parent: Option<PathBuf>,
) -> Result<Draft> {
    let make = |path: &Path| std::fs::DirBuilder::new().mode(0o700).create(path);
    let made_dir = make_dir(&dir)?;
    let mut draft = Draft { dir, local_server, files, made_dir, parents: Vec::new() };
    if let Some(parent) = parent {
        draft.make_parents(&parent)?;
    }
    config::management_directory(&draft.dir)?;
    let stage = draft.dir.join(STAGE);
    // What a run that was killed has left.
    files::remove(&stage)?;
    make(&stage).map_err(|cause| Error::io("create directory", &stage, cause))?;
    for name in ["network.conf".into(), "mc.key".into()].into_iter().chain(draft.members_files()) {
        if let Ok(text) = std::fs::read(draft.dir.join(&name)) {
            files::replace(&stage.join(&name), &text, None)?;
        }
    }
    for (name, text) in &draft.files {
        files::replace(&stage.join(name), text.as_bytes(), None)?;
    }
    Config::load(&stage, draft.local_server.as_deref()).map_err(|error| {
        // The operator knows the files by the place where they will be.
        let place = |text: String| text.replace(&stage.display().to_string(), &draft.dir.display().to_string());
        Error { message: place(error.message), hint: place(error.hint) }
    })?;
    Ok(draft)
}

impl Draft {
    /// `ID.conf` and `ID.private` of the servers that have them here.
    fn members_files(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let is_members =
            |name: &String| name.ends_with(".conf") && name != "network.conf" || name.ends_with(".private");
        names.filter(is_members).collect()
    }

    /// Makes the directory in which the data directory will be.
    fn make_parents(&mut self, parent: &Path) -> Result<()> {
        let missing: Vec<&Path> = parent.ancestors().take_while(|dir| !dir.exists()).collect();
        for dir in missing.into_iter().rev() {
            std::fs::create_dir(dir)
                .map_err(|cause| Error::io("create directory", dir, cause).hint(install_hint(parent)))?;
            self.parents.push(dir.to_owned());
        }
        Ok(())
    }

    /// Puts the new files to their places. Returns their paths, and the whole configuration.
    ///
    /// # Errors
    /// A file has come there meanwhile, or the disk fails. What has its place keeps it; the next run makes the rest.
    pub fn place(mut self) -> Result<(Vec<PathBuf>, Config)> {
        let mut made = Vec::new();
        for (name, _) in &self.files {
            let (from, to) = (self.dir.join(STAGE).join(name), self.dir.join(name));
            // A link is made only where nothing is: no file is ever replaced.
            std::fs::hard_link(&from, &to).map_err(|cause| Error::io("create file", &to, cause))?;
            files::sync_dir(&self.dir)?;
            self.made_dir = false;
            made.push(to);
        }
        files::sync_parent(&self.dir)?;
        made.append(&mut self.parents);
        let config = Config::load(&self.dir, self.local_server.as_deref())?;
        Ok((made, config))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Best effort: the next run removes what stays.
        let _ = files::remove(&self.dir.join(STAGE));
        if self.made_dir {
            let _ = std::fs::remove_dir(&self.dir);
        }
        self.parents.iter().rev().for_each(|dir| _ = std::fs::remove_dir(dir));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: std::result::Result<(Option<&str>, &str, Option<u16>), &str>) {
        match (text.parse::<Member>(), expected) {
            (Ok(got), Ok((id, host, port))) => {
                assert_eq!((got.id.as_deref(), got.host.as_str(), got.port), (id, host, port), "{text}");
            }
            (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
            (got, wanted) => panic!("{text}: got {got:?}, wanted {wanted:?}"),
        }
    }

    #[test]
    fn members() {
        check("192.0.2.110", Ok((None, "192.0.2.110", None)));
        check("db2=db2.example.com:27000", Ok((Some("db2"), "db2.example.com", Some(27000))));
        check("2001:db8::1", Ok((None, "2001:db8::1", None)));
        check("x=[2001:db8::1]:27540", Ok((Some("x"), "2001:db8::1", Some(27540))));
        check("[::1]", Ok((None, "::1", None)));
        check("192.0.2.300", Err("not an IPv4 address"));
        check("192.0.2.1:0", Err("from 1 to 65535"));
        check("192.0.2.1:x", Err("from 1 to 65535"));
        check("", Err("neither a host name"));
        check("0.0.0.0", Err("not the address of one host"));
    }

    #[test]
    fn keys_differ_and_are_good() {
        let keys = [new_key().unwrap(), new_key().unwrap()];
        assert_ne!(keys[0], keys[1]);
        assert!(Key::parse(Path::new("k"), &keys[0]).is_ok());
    }
}
