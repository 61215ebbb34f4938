//! `mc_ctl init`: makes the files of a management directory, and shows what is still missing, here and on the other hosts.
//!
//! A password is read from a file or from standard input, never from an argument, and only where that is asked for: a script
//! that calls this never hangs at a prompt. It is never printed.

use super::{Ended, Failure, print, say, say_remark};
use crate::check::host::{Autostart, autostarts, hindrances};
use crate::config::{Config, Remark, Secret, running_user};
use crate::daemon::control::{Call, call};
use crate::error::Error;
use crate::init::{Join, Member, Wanted, find, prepare, rules, settings};
use crate::pg::debian::Cluster;
use clap::Args as Arguments;
use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The user of the arbiter in the unit of the samples.
const ARBITER_USER: &str = "mcarb";
/// How long a controller may take to say that it runs.
const PING_LIMIT: Duration = Duration::from_secs(2);

#[derive(Arguments, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    common: super::args::Common,
    /// The other server; required on the first server. As for the other options, its id (nd2) and port (27540) may be omitted
    #[arg(long, value_name = "[ID=]HOST[:PORT]")]
    peer: Option<Member>,
    /// The arbiter, if any
    #[arg(long, value_name = "[ID=]HOST[:PORT]")]
    arbiter: Option<Member>,
    /// This server [default: its address on the route to the other server]
    #[arg(long = "self", value_name = "[ID=]HOST[:PORT]")]
    own: Option<Member>,
    /// Data directory [default: the one that is found]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Read the database user's password from this file, or from standard input (-)
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Write missing settings to postgresql.conf and pg_hba.conf, and on Debian to start.conf
    #[arg(long)]
    apply: bool,
    /// Join the pair of the first server: read the block that init printed on it from this file, or from standard input (-)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["peer", "arbiter", "own", "show_join"])]
    join: Option<PathBuf>,
    /// Print the block for the other members again; it contains the pair's key
    #[arg(long)]
    show_join: bool,
    /// The action of a server that has lost its role: wait for mc_ctl rebuild, or become the standby automatically [default: manual; with
    /// --join, as on the first server]
    #[arg(long, value_name = "manual|auto", value_parser = ["manual", "auto"])]
    rebuild_action: Option<String>,
}

pub(super) fn run(args: &Args) -> Ended {
    let join = args.join.as_deref().map(read_join).transpose().map_err(Failure::usage)?;
    let after_block = args.join.as_deref() == Some(Path::new("-"));
    let password = args.password_file.as_deref().map(|path| read_password(path, after_block));
    let password = password.transpose().map_err(Failure::usage)?;
    let wanted = Wanted {
        dir: args.common.directory()?,
        own: args.own.clone(),
        peer: args.peer.clone(),
        arbiter: args.arbiter.clone(),
        local_server: args.common.local_server.clone(),
        data: args.data.clone(),
        password,
        join,
        rebuild_auto: args.rebuild_action.as_ref().map(|action| action == "auto"),
    };
    let draft = prepare(&wanted).map_err(Failure::usage)?;
    let (made, config) = draft.place().map_err(Failure::failed)?;
    let names: Vec<String> = made.iter().map(|path| format!("made \"{}\"\n", path.display())).collect();
    print(&if names.is_empty() { "nothing had to be created\n".to_owned() } else { names.concat() });
    config.remarks.iter().for_each(|remark| say_remark("mc_ctl", remark));
    warn_of_the_disk(&config);
    for (what, fix) in hindrances(&config.server.db_instance) {
        say_remark("mc_ctl", &Remark::warning(what, format!("To change that, {fix}.")));
    }
    let first = args.join.is_none() && made.iter().any(|path| path.ends_with("network.conf"));
    let here = Here { first, ..Here::new(&config) };
    if here.one_host && first {
        let text = "both servers of network.conf are on this host, so that a failure of the host stops both";
        let hint =
            "Use this only for a test. Otherwise remove the created files, and specify the other host with --peer.";
        say_remark("mc_ctl", &Remark::warning(text, hint));
    }
    let mut missing = rules::missing(&config);
    for why in &missing.unresolved {
        let text = format!("{}; what pg_hba.conf lacks for that server is not shown", why.message);
        let hint = "Correct the name in network.conf, or add it to the name service of this host; then run this command again.";
        say_remark("mc_ctl", &Remark::warning(text, hint));
    }
    print(&here.server());
    let mut needs = settings::needs(&config);
    if args.apply {
        settings::apply(&config, &needs).map_err(Failure::failed)?;
        let (beaten, written): (Vec<_>, Vec<_>) = needs.into_iter().partition(|need| need.beaten_by.is_some());
        print(&here.written(&written));
        needs = beaten;
        if rules::apply(&missing).map_err(Failure::failed)? {
            print(&here.let_in(&missing));
            missing = rules::missing(&config);
        }
    }
    // A service that starts the cluster at boot may still be in use: the finding names the commands.
    let starts = autostarts(&config);
    if starts.is_empty() {
        print(&here.start_conf(args.apply).map_err(Failure::failed)?);
    }
    print(&here.settings(&needs));
    print(&here.rules(&missing));
    print(&here.key());
    print(&here.autostart(&starts));
    if args.join.is_some() {
        print(&here.running());
    }
    if first || args.show_join {
        print(&here.elsewhere().map_err(Failure::failed)?);
    }
    print(&here.next(&made));
    Ok(0)
}

/// The block for `--join`, of a file or of standard input.
pub(super) fn read_join(path: &Path) -> Result<Join, Error> {
    if path != Path::new("-") {
        let file = std::fs::File::open(path).map_err(|cause| Error::io("open file", path, cause))?;
        return Join::read(&mut std::io::BufReader::new(file));
    }
    if std::io::stdin().is_terminal() {
        say("Paste the block that \"mc_ctl init\" printed on the first server:\n");
    }
    Join::read(&mut std::io::stdin().lock())
}

/// The first line of a file, or of standard input: there, after the block, if that was read from it too.
fn read_password(path: &Path, after_block: bool) -> Result<Secret, Error> {
    let mut line = String::new();
    if path == Path::new("-") {
        let silent = std::io::stdin().is_terminal().then(|| {
            say("Password of the database user: ");
            Silence::new()
        });
        let mut input = std::io::stdin().lock();
        // Empty lines may follow a block that was pasted.
        while line.trim().is_empty() {
            line.clear();
            if input.read_line(&mut line).map_err(|cause| Error::io("read", Path::new("standard input"), cause))? == 0 {
                break;
            }
        }
        if silent.is_some() {
            say("\n");
        }
    } else {
        let file = std::fs::File::open(path).map_err(|cause| Error::io("open file", path, cause))?;
        std::io::BufReader::new(file).read_line(&mut line).map_err(|cause| Error::io("read file", path, cause))?;
    }
    let line = line.trim_end_matches(['\r', '\n']);
    if line.is_empty() && after_block && path == Path::new("-") {
        return Err(Error::new("the password is missing on standard input")
            .hint("With \"--join - --password-file -\", the block comes first, and the password on the next line that is not empty."));
    }
    match line.is_empty() || !line.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Err(Error::new("the password must be one or more printable ASCII characters without spaces")),
        false => Ok(Secret::new(line)),
    }
}

/// The terminal does not show what is typed, until this is dropped.
pub(super) struct Silence(Option<rustix::termios::Termios>);

impl Silence {
    pub(super) fn new() -> Silence {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let Ok(before) = tcgetattr(std::io::stdin()) else { return Silence(None) };
        let mut quiet = before.clone();
        // Without signals: an interrupt would leave the terminal silent. The character is refused in a password.
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &quiet);
        Silence(Some(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, before);
        }
    }
}

/// A ledger on the disk that has failed cannot give consent.
fn warn_of_the_disk(config: &Config) {
    if find::is_one_disk(config) {
        let text = format!(
            "management directory \"{}\" is on the file system of data directory \"{}\"; if that file system fails, this \
             server cannot consent to a takeover by the other server",
            config.dir.display(),
            config.server.db_instance.display()
        );
        say_remark("mc_ctl", &Remark::warning(text, "Use a directory on another file system, except for a test."));
    }
}

/// This server, and what is told of it.
struct Here<'a> {
    config: &'a Config,
    /// Its instance runs.
    instance: bool,
    /// Its controller runs.
    controller: bool,
    /// The other server is on this host too.
    one_host: bool,
    /// This is the first server: `network.conf` was made now.
    first: bool,
    user: String,
}

impl Here<'_> {
    fn new(config: &Config) -> Here<'_> {
        Here {
            config,
            instance: find::is_running(config),
            controller: call(&config.run_dir(), &Call::Ping, PING_LIMIT).is_ok(),
            one_host: find::is_one_host(&config.own().hosts, &config.peer().hosts),
            first: false,
            user: running_user().unwrap_or_else(|_| "USER".into()),
        }
    }

    /// `-M DIR`, and ` --local-server ID` where two servers are on this host.
    fn options(&self, id: &str) -> String {
        let local = if self.one_host { format!(" --local-server {id}") } else { String::new() };
        format!("-M {}{local}", self.config.dir.display())
    }

    /// What was found.
    fn server(&self) -> String {
        let (config, file) = (self.config, &self.config.server);
        let state = match (&file.no_data, self.instance) {
            (Some(_), _) => "does not exist yet".to_owned(),
            (None, true) => format!("PostgreSQL {}, running", file.major_version),
            (None, false) => format!("PostgreSQL {}, not running", file.major_version),
        };
        let (host, port) = config.own().addresses().into_iter().next().unwrap_or_default();
        let mut text = format!("\nserver {}: host {host}, port {port}\n", config.id);
        let _ = writeln!(text, "  data directory   {} ({state})", file.db_instance.display());
        let _ = writeln!(text, "  postgresql.conf  {}", file.config_file.display());
        let _ = writeln!(text, "  programs         {}", file.bin_dir.display());
        text
    }

    /// What was written into `postgresql.conf`.
    fn written(&self, needs: &[settings::Need]) -> String {
        if needs.is_empty() {
            return String::new();
        }
        let file = self.config.server.config_file.display();
        let mut text = format!("\nwritten into {file}:\n");
        needs.iter().for_each(|need| text += &line(need));
        text + &self.effect(needs)
    }

    /// What is still missing there.
    fn settings(&self, needs: &[settings::Need]) -> String {
        let file = self.config.server.config_file.display();
        let (beaten, open): (Vec<_>, Vec<_>) = needs.iter().cloned().partition(|need| need.beaten_by.is_some());
        let mut text = String::new();
        if !open.is_empty() {
            let _ = writeln!(
                text,
                "\nmissing in {file} (mc_ctl init {} --apply writes it):",
                self.options(&self.config.id)
            );
            open.iter().for_each(|need| text += &line(need));
            text += &self.effect(&open);
        }
        for need in beaten {
            let Some((file, number)) = &need.beaten_by else { continue };
            let _ = writeln!(
                text,
                "\n{} is {}, set by ALTER SYSTEM in {}, line {number}, and must be {} ({}): ALTER SYSTEM SET {0} = {3}",
                need.name,
                need.found,
                file.display(),
                need.value,
                need.why
            );
        }
        text
    }

    /// The lines that were written into `pg_hba.conf`.
    fn let_in(&self, missing: &rules::Missing) -> String {
        let mut text = format!("\nwritten into {}:\n", missing.file.display());
        missing.lines.iter().for_each(|line| _ = writeln!(text, "  {line}"));
        let (bin, data) = (self.config.server.bin_dir.display(), self.config.server.db_instance.display());
        if self.instance {
            let _ = writeln!(text, "It takes effect with: {bin}/pg_ctl reload -D {data}");
        }
        text
    }

    /// `start.conf` of Debian's cluster, which must not have Debian's service start the instance. With `apply` that is written.
    fn start_conf(&self, apply: bool) -> Result<String, Error> {
        let cluster = Cluster::of(&self.config.server.config_file).filter(Cluster::starts_automatically);
        let Some(cluster) = cluster else { return Ok(String::new()) };
        let file = cluster.start_conf();
        let head = match apply {
            true => cluster.start_manually().map(|()| format!("written into {}", file.display()))?,
            false => format!(
                "missing in {} (mc_ctl init {} --apply writes it)",
                file.display(),
                self.options(&self.config.id)
            ),
        };
        Ok(format!("\n{head}:\n  {:32} # is auto; only the controller starts the instance\n", "manual"))
    }

    /// What else starts the instance when the host boots.
    fn autostart(&self, starts: &[Autostart]) -> String {
        let mut text = String::new();
        for start in starts {
            let _ = writeln!(text, "\n{}; only the controller may start the instance:\n  {}", start.what, start.fix);
        }
        text
    }

    /// On a server that joins, a cluster that runs is replaced by the copy of the primary.
    fn running(&self) -> String {
        let file = &self.config.server;
        if !self.instance || self.controller {
            return String::new();
        }
        let stop = match find::unit(&file.db_instance) {
            Some(unit) => format!("as root: systemctl disable --now {unit}"),
            None => format!("{}/pg_ctl stop -D {}", file.bin_dir.display(), file.db_instance.display()),
        };
        format!(
            "\nA cluster runs in {}, and \"mc_ctl rebuild\" makes this server the standby. Stop the cluster before, and disable its \
             service:\n  {stop}\n",
            file.db_instance.display()
        )
    }

    fn effect(&self, needs: &[settings::Need]) -> String {
        let (bin, data) = (self.config.server.bin_dir.display(), self.config.server.db_instance.display());
        match (self.instance, needs.iter().any(|need| need.restart), self.controller) {
            (false, ..) => String::new(),
            (true, false, _) => format!("It takes effect with: {bin}/pg_ctl reload -D {data}\n"),
            (true, true, false) => {
                let log = &self.config.server.log_file;
                // The run-time directory is made by the first start of the controller.
                let there = log.parent().is_some_and(Path::is_dir);
                let log = if there { log.display().to_string() } else { format!("{data}/startup.log") };
                format!("It takes effect with: {bin}/pg_ctl restart -D {data} -l {log}\n")
            }
            (true, true, true) => {
                format!("It takes effect with: mc_ctl stop {0}; mc_ctl start {0} -f\n", self.options(&self.config.id))
            }
        }
    }

    /// What is missing in `pg_hba.conf`, and the password.
    fn rules(&self, missing: &rules::Missing) -> String {
        let mut text = String::new();
        let (bin, data) = (self.config.server.bin_dir.display(), self.config.server.db_instance.display());
        if !missing.lines.is_empty() {
            let _ = match &missing.above {
                None => writeln!(text, "\nmissing in {}; to add it:\n", missing.file.display()),
                Some((file, line)) => writeln!(
                    text,
                    "\nmissing in {}, above line {line}, which rejects the other server:\n",
                    file.display()
                ),
            };
            text += &match missing.above {
                None => rules::add_command(&missing.file, &missing.lines),
                Some(_) => missing.lines.join("\n") + "\n",
            };
            if self.instance {
                let _ = writeln!(text, "{bin}/pg_ctl reload -D {data}");
            }
        }
        let user = &self.config.server.db_instance_username;
        if missing.password && self.config.server.db_instance_password.is_none() {
            let file = self.config.dir.join(format!("{}.conf", self.config.id));
            let _ = writeln!(
                text,
                "\nmissing in {}, the password of the database user {user}:\n  db_instance_password = 'PASSWORD'\nTo set it \
                 for the user while the instance runs, if the user has no password yet: {bin}/psql -d postgres -c '\\password \
                 {user}'",
                file.display()
            );
        }
        text
    }

    /// The public key, where `network.conf` does not list it.
    fn key(&self) -> String {
        let config = self.config;
        match (&config.own_key, config.own().key) {
            (Some(key), None) => super::unlisted_key(&config.id, &key.public()),
            _ => String::new(),
        }
    }

    /// What is to be done now, here and elsewhere.
    fn next(&self, made: &[PathBuf]) -> String {
        let config = self.config;
        if made.is_empty() {
            return format!(
                "\nto find other errors, on both servers and the arbiter:\n  mc_ctl check {}\n",
                self.options(&config.id)
            );
        }
        let (first, mut text) = (self.first, String::new());
        let (primary, standby) = if first { (config.own(), config.peer()) } else { (config.peer(), config.own()) };
        let (on_primary, on_standby) = if first { ("here", &*standby.id) } else { (&*primary.id, "here") };
        text += "\nwhen nothing is missing:\n";
        let _ = writeln!(text, "  mc_ctl start {} -f  # {on_primary}, the first primary", self.options(&primary.id));
        if config.server.db_instance_password.is_some() {
            let user = &config.server.db_instance_username;
            let _ = writeln!(
                text,
                "  psql -d postgres -c '\\password {user}'  # {on_primary}, the password given to init, unless the user has it"
            );
        }
        match (self.one_host, first) {
            (false, _) => {
                let _ = writeln!(
                    text,
                    "  mc_ctl rebuild {}  # {on_standby}, the standby: copies the primary, and starts the copy",
                    self.options(&standby.id)
                );
            }
            // The copy needs a port of its own before it is started.
            (true, true) => text += "  # then the standby, as the output of init on it describes\n",
            (true, false) if config.server.no_data.is_some() => text += &self.copy(),
            (true, false) => {
                let _ = writeln!(text, "  mc_ctl start {}  # {on_standby}, the standby", self.options(&standby.id));
            }
        }
        let options = self.options(&config.id);
        let _ = writeln!(text, "  mc_ctl check {options}");
        text
    }

    /// What the other members need: the commands, and the block that they read.
    fn elsewhere(&self) -> Result<String, Error> {
        let config = self.config;
        let (own, peer, dir) = (config.own(), config.peer(), config.dir.display());
        let mut text = String::new();
        let mut needs_block = !self.one_host;
        if self.one_host {
            let options = self.options(&peer.id);
            let _ = writeln!(text, "\nthe other server of this host:\n  mc_ctl init {options} --data DIR");
        } else {
            text += &self.on(&peer.hosts[0], &peer.id, &self.user, find::unit(&config.server.db_instance));
            let password = if config.server.db_instance_password.is_some() { " --password-file -" } else { "" };
            let _ = writeln!(text, "  mc_ctl init -M {dir} --join -{password} --apply");
        }
        if let Some(arbiter) = &config.network.arbiter {
            if own.hosts.iter().any(|host| arbiter.hosts.contains(host)) {
                let directory = format!("{dir}.{}", arbiter.id);
                let _ = writeln!(
                    text,
                    "\nthe arbiter, also on this host:\n  mkdir -m 700 {directory}\n  cp -p {dir}/network.conf {dir}/mc.key \
                     {directory}/\n  mc_arb init -M {directory}\n  mc_arb start -M {directory}"
                );
            } else {
                needs_block = true;
                text += &self.on(&arbiter.hosts[0], &arbiter.id, ARBITER_USER, None);
                let _ = writeln!(text, "  mc_arb init -M {dir} --join -\n  mc_arb start -M {dir}");
            }
        }
        if needs_block {
            let _ = write!(
                text,
                "\nthe lines that --join - reads; paste them there. They contain the key of the pair: protect them like a \
                 password.\n\n{}",
                Join::of(config)?.text()
            );
        }
        Ok(text)
    }

    /// The head of what another host needs, and what root does there: `unit` must not start the instance.
    fn on(&self, host: &str, id: &str, user: &str, unit: Option<String>) -> String {
        let dir = &self.config.dir;
        let new = if self.first { String::new() } else { format!(", only if {id} is a new host") };
        let mut text = format!("\non {host} ({id}), as {user}{new}:\n");
        if let Some(unit) = unit {
            let _ = writeln!(text, "  # as root: systemctl disable --now {unit}");
        }
        if user != self.user {
            let _ = writeln!(text, "  # as root: useradd -r {user}");
        }
        // Where this user could not make it here, it is root who makes it there too.
        if dir.parent().is_none_or(|parent| !find::is_writable(parent)) {
            let _ = writeln!(text, "  # as root: install -d -m 700 -o {user} {}", dir.display());
        }
        text
    }

    /// How the standby on the same host gets its data directory, with a port of its own.
    fn copy(&self) -> String {
        let file = &self.config.server;
        let others = self.config.dir.join(format!("{}.conf", self.config.peer().id));
        let primary = crate::config::db_instance(&others).ok().flatten();
        let port = primary.map_or(settings::PORT, |data| settings::port(&data.join("postgresql.conf"), &data));
        let (bin, data) = (file.bin_dir.display(), file.db_instance.display());
        let (host, user, id) = (&self.config.peer().hosts[0], &file.db_instance_username, &self.config.id);
        format!(
            "  {bin}/pg_basebackup -D {data} -R -c fast -h {host} -p {port} -U {user} -d application_name={id}\n  \
             echo 'port = {}' >>{data}/postgresql.conf\n  mc_ctl start {}\n",
            port.saturating_add(1),
            self.options(id)
        )
    }
}

fn line(need: &settings::Need) -> String {
    let set = format!("{} = {}", need.name, need.value);
    format!("  {set:32} # is {}; {}\n", need.found, need.why)
}
