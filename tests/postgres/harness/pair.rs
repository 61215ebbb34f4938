//! A pair: two servers on two hosts (or on one), set up as the guide's chapter 3 says, with or without an arbiter on a
//! third host, and the commands an administrator gives.

use super::client::{Client, Style};
use super::host::{Host, Process, signal};
use super::names::NAMES;
use super::net::{ADDRESSES, ADMIN, ARBITRATION, LOG, Net, Wiring};
use super::run::{Answer, must, run};
use super::template::template;
use super::{root, wait_for};
use postgres::{Config, NoTls, SimpleQueryMessage};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What differs from the usual pair.
#[derive(Clone, Default)]
pub struct Setup {
    /// Lines of both `ID.conf`.
    pub server_conf: Vec<String>,
    /// Lines of both `postgresql.conf`.
    pub postgresql_conf: Vec<String>,
    /// Both servers on one host, with one management directory.
    pub one_host: bool,
    /// The first server's data directory is on a file system of this size, in MiB.
    pub small_disk_mib: Option<u32>,
    /// `pg_wal` is on another disk: a symbolic link.
    pub wal_apart: bool,
    /// An arbiter on a third host.
    pub arbiter: bool,
    /// Lines of `arbitration.conf`.
    pub arbiter_conf: Vec<String>,
    /// Networks besides the admin network: 1 adds that of the log transfer, 2 that of the arbitration too.
    pub more_networks: usize,
    /// The hosts are far from each other ([`super::far`]).
    pub far: bool,
    /// Host names in `network.conf` ([`super::names`]).
    pub names: bool,
    /// The first process of each host is systemd ([`super::systemd`]).
    pub systemd: bool,
}

impl Setup {
    /// With host names in `network.conf`.
    pub fn names(self) -> Setup {
        Setup { names: true, ..self }
    }

    /// With systemd, the sample units, and an arbiter.
    pub fn systemd(self) -> Setup {
        Setup { systemd: true, arbiter: true, ..self }
    }

    /// With one more line in both `ID.conf`.
    pub fn conf(mut self, line: &str) -> Setup {
        self.server_conf.push(line.into());
        self
    }

    /// With one more line in both `postgresql.conf`.
    pub fn pg(mut self, line: &str) -> Setup {
        self.postgresql_conf.push(line.into());
        self
    }

    /// With an arbiter on a third host.
    pub fn arbiter(self) -> Setup {
        Setup { arbiter: true, ..self }
    }

    /// With one more line in `arbitration.conf`.
    pub fn arbiter_line(mut self, line: &str) -> Setup {
        self.arbiter_conf.push(line.into());
        self
    }

    /// The settings that the issue names for a fast detection, of the network, of instances and of disks.
    pub fn fast(self) -> Setup {
        ["heartbeat", "db_instance_check", "disk_check"].into_iter().fold(self, Setup::fast_in)
    }

    /// The same but for disks: one that is busy with other tests is not taken for a broken one.
    pub fn fast_network(self) -> Setup {
        let setup = ["heartbeat", "db_instance_check"].into_iter().fold(self, Setup::fast_in);
        setup.conf("disk_check_interval = 800").conf("disk_check_timeout = 1").conf("disk_check_retry = 4")
    }

    fn fast_in(self, kind: &str) -> Setup {
        let setup = self.conf(&format!("{kind}_interval = 100"));
        setup.conf(&format!("{kind}_timeout = '300ms'")).conf(&format!("{kind}_retry = 1"))
    }

    /// The pair, nothing started.
    pub fn make(self) -> Pair {
        Pair::new(self)
    }

    /// The pair, started as the guide does, with automatic failover, mirrored.
    pub fn up(self) -> Pair {
        let pair = self.make();
        pair.bring_up();
        pair
    }
}

/// One server of the pair.
pub struct Server {
    /// Its identifier.
    pub id: &'static str,
    /// Its instance's address.
    pub address: &'static str,
    /// Its instance's port.
    pub port: u16,
    /// Its controller's port.
    pub control_port: u16,
    /// How the other instance reaches it.
    pub replication_address: &'static str,
    /// Data directory.
    pub data: PathBuf,
    /// Management directory.
    pub management: PathBuf,
    host: usize,
}

/// A row of `mc_ctl status`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// `host_role`
    pub role: String,
    /// `host_status`
    pub host: String,
    /// `db_proc_status`
    pub processes: String,
    /// `disk_status`
    pub disk: String,
}

/// `mc_ctl status`, read as a script reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// The third line.
    pub word: String,
    /// By server.
    pub rows: [Row; 2],
}

/// A pair and its network.
pub struct Pair {
    /// The servers; 0 is the first primary.
    pub servers: [Server; 2],
    /// One or two.
    pub hosts: Vec<Host>,
    /// The arbiter's host; its directory is `mc` there.
    pub arbiter: Option<Host>,
    /// What connects them.
    pub net: Net,
    began: Instant,
    dir: PathBuf,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);
static IDS: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(1);

/// The program under test, where the user postgres can read it.
pub fn program() -> &'static Path {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    COPY.get_or_init(|| readable(Path::new(env!("CARGO_BIN_EXE_mc_ctl"))))
}

/// A copy of a program where the user postgres can read it; made once, since what runs cannot be written to.
pub fn readable(program: &Path) -> PathBuf {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let copy = root().join(program.file_name().expect("a name"));
    if !copy.exists() {
        // By a process of its own: a child of another test that inherits the open file would make it busy ("Text file busy").
        must("cp", &[program.to_str().expect("ASCII"), copy.to_str().expect("ASCII")]);
    }
    copy
}

/// Gives it to the instance administrator user, with all that is in it.
pub fn own(path: &Path) {
    must("chown", &["-R", "postgres:postgres", path.to_str().expect("ASCII")]);
}

/// Writes a file as a careful administrator: owner postgres, mode 0600.
pub fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|e| panic!("could not write {path:?}: {e}"));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("could not chmod");
    own(path);
}

/// A new key.
pub fn new_key() -> String {
    let mut bytes = [0; 32];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").expect("urandom"), &mut bytes).expect("urandom");
    bytes.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n"
}

impl Pair {
    fn new(setup: Setup) -> Pair {
        let dir = root().join(NUMBER.fetch_add(1, SeqCst).to_string());
        let networks = 1 + setup.more_networks;
        let net = Net::new(Wiring { hosts: if setup.arbiter { 3 } else { 2 }, networks, far: setup.far });
        let mut hosts = Vec::new();
        for (n, address) in ADDRESSES[ADMIN].into_iter().enumerate().take(if setup.one_host { 1 } else { 2 }) {
            let name = format!("db{}", n + 1);
            hosts.push(Host::new(&name, address, dir.join(&name), net.hosts[n].pid()));
        }
        let servers = [0, 1].map(|n| {
            let host = if setup.one_host { 0 } else { n };
            let apart = if setup.one_host { n as u16 } else { 0 };
            Server {
                id: ["nd1", "nd2"][n],
                address: hosts[host].address,
                port: 5432 + apart,
                control_port: 27540 + apart,
                replication_address: ADDRESSES[if networks > LOG { LOG } else { ADMIN }][host],
                data: hosts[host].dir.join(format!("disk/data{apart}")),
                management: hosts[host].dir.join("mc"),
                host,
            }
        });
        let arbiter = setup.arbiter.then(|| Host::new("arb", ADDRESSES[ADMIN][2], dir.join("arb"), net.hosts[2].pid()));
        let mut pair = Pair { servers, hosts, arbiter, net, began: Instant::now(), dir };
        for host in &pair.hosts {
            let disk = host.dir.join("disk");
            std::fs::create_dir(&disk).expect("could not create a directory");
            own(&disk);
        }
        if let Some(size) = setup.small_disk_mib {
            let disk = pair.hosts[0].dir.join("disk");
            let options = format!("size={size}m,mode=755,uid=postgres,gid=postgres");
            pair.as_root(0, &["mount", "-t", "tmpfs", "-o", &options, "none", disk.to_str().expect("ASCII")]);
        }
        if setup.names {
            pair.install_names();
        }
        let key = new_key();
        for n in [0, 1] {
            pair.install(n, &setup, &key);
        }
        if pair.arbiter.is_some() {
            pair.install_arbiter(&setup, &key);
        }
        if setup.systemd {
            pair.install_systemd();
        }
        pair
    }

    /// Starts it as the guide does, with automatic failover, and waits until it is mirrored.
    #[track_caller]
    pub fn bring_up(&self) {
        if self.arbiter.is_some() {
            self.start_arbiter();
        }
        self.start(0, &["-f"]);
        self.start(1, &["-f"]);
        self.wait_word(0, "switchable");
        if self.arbiter.is_some() {
            self.wait_arbiter_named();
        }
    }

    /// The server's `ID.conf`.
    pub fn conf(&self, server: usize) -> PathBuf {
        let me = &self.servers[server];
        me.management.join(format!("{}.conf", me.id))
    }

    /// One more line in the server's `ID.conf`, before it is started.
    pub fn server_line(&self, server: usize, line: &str) {
        let path = self.conf(server);
        let text = std::fs::read_to_string(&path).expect("could not read");
        write_private(&path, &format!("{text}{line}\n"));
    }

    /// Runs a step on the server's host as root.
    pub fn as_root(&self, server: usize, words: &[&str]) {
        let mut command = self.host(server).command(words[0]);
        command.args(&words[1..]);
        run(command, Duration::from_secs(60)).expect(0, &words.join(" "));
    }

    fn install(&self, n: usize, setup: &Setup, key: &str) {
        let (me, peer) = (&self.servers[n], &self.servers[1 - n]);
        let data = me.data.to_str().expect("ASCII");
        let sockets = self.host(n).dir.join("run");
        std::fs::create_dir_all(&sockets).expect("could not create a directory");
        std::fs::create_dir_all(&me.management).expect("could not create a directory");
        own(&sockets);
        let from = template().join(["primary", "standby"][n]);
        // on the host, since its file systems are its own
        self.as_root(n, &["sh", "-c", &format!("mkdir -p {data} && cp -a {}/. {data}", from.display())]);
        if setup.wal_apart {
            let wal = self.host(n).dir.join("disk/wal");
            self.as_root(n, &["sh", "-c", &format!("mv {data}/pg_wal {0} && ln -s {0} {data}/pg_wal", wal.display())]);
        }
        let mut lines = format!(
            "port = {}\nunix_socket_directories = '{}'\nsynchronous_standby_names = '{}'\n",
            me.port,
            sockets.display(),
            peer.id
        );
        for line in &setup.postgresql_conf {
            lines += &format!("{line}\n");
        }
        self.append(n, "postgresql.conf", &lines);
        if n == 1 {
            let connection = format!(
                "primary_conninfo = 'host={} port={} user=postgres application_name={}'\n",
                peer.replication_address, peer.port, me.id
            );
            let write = format!("echo \"$1\" > {data}/postgresql.auto.conf");
            self.as_root(n, &["sh", "-c", &write, "sh", &connection]);
        }
        self.as_root(n, &["chown", "-R", "postgres:postgres", data]);
        self.as_root(n, &["chmod", "0700", data]);
        let mut conf = format!("db_instance = '{data}'\n");
        if setup.more_networks > 0 {
            conf += &format!("replication_address = '{}'\n", me.replication_address);
        }
        for line in &setup.server_conf {
            conf += &format!("{line}\n");
        }
        write_private(&me.management.join("network.conf"), &self.network_conf(setup));
        write_private(&self.conf(n), &conf);
        write_private(&me.management.join("mc.key"), key);
        own(&me.management);
        std::fs::set_permissions(&me.management, std::fs::Permissions::from_mode(0o700)).expect("could not chmod");
    }

    /// `network.conf`, the same on all members.
    pub fn network_conf(&self, setup: &Setup) -> String {
        let own = setup.more_networks >= ARBITRATION;
        let mut lines = String::new();
        for server in &self.servers {
            lines += &match own {
                true => {
                    let second = ADDRESSES[ARBITRATION][server.host];
                    format!("{} {},{second} {},{}\n", server.id, server.address, server.control_port, 27550)
                }
                false => {
                    let host = if setup.names { NAMES[server.host] } else { server.address };
                    format!("{} {host} {}\n", server.id, server.control_port)
                }
            };
        }
        if setup.arbiter {
            let address = ADDRESSES[if own { ARBITRATION } else { ADMIN }][2];
            lines += &format!("arb {} 27541 arbiter\n", if setup.names { NAMES[2] } else { address });
        }
        lines
    }

    /// Appends to a file of the server's data directory.
    pub fn append(&self, server: usize, file: &str, text: &str) {
        let path = self.servers[server].data.join(file);
        self.as_root(
            server,
            &[
                "sh",
                "-c",
                "printf '\\n%s' \"$1\" >> \"$2\" && chown postgres: \"$2\"",
                "sh",
                text,
                path.to_str().expect("ASCII"),
            ],
        );
    }

    /// The server's host.
    pub fn host(&self, server: usize) -> &Host {
        &self.hosts[self.servers[server].host]
    }

    /// The same, to switch on or off.
    pub fn host_mut(&mut self, server: usize) -> &mut Host {
        &mut self.hosts[self.servers[server].host]
    }

    /// The server's postmaster, which must run.
    #[track_caller]
    pub fn postmaster(&self, server: usize) -> Process {
        self.host(server).postmaster(&self.servers[server].data).expect("a postmaster runs")
    }

    /// Whether the server's postmaster runs.
    pub fn instance_runs(&self, server: usize) -> bool {
        self.host(server).is_on() && self.host(server).postmaster(&self.servers[server].data).is_some()
    }

    /// `kill -9` of the server's postmaster; answers when.
    #[track_caller]
    pub fn kill_postmaster(&self, server: usize) -> Instant {
        let postmaster = self.postmaster(server);
        let at = Instant::now();
        signal(postmaster.pid, Signal::KILL);
        at
    }

    /// Runs `mc_ctl` on the server. A status is repeated while it reports that the controller does not answer: it waits for
    /// 0.15 s only, which a controller among many busy processes may exceed.
    #[track_caller]
    pub fn mc(&self, server: usize, words: &[&str]) -> Answer {
        let begin = Instant::now();
        loop {
            let answer = self.mc_once(server, words);
            if words[0] != "status" || answer.code != 5 || begin.elapsed() > Duration::from_secs(5) {
                return answer;
            }
        }
    }

    /// Runs `mc_ctl` on the server, and repeats nothing.
    #[track_caller]
    pub fn mc_once(&self, server: usize, words: &[&str]) -> Answer {
        run(self.mc_command(server, words), Duration::from_secs(600))
    }

    /// The same, to be started by the caller.
    pub fn mc_command(&self, server: usize, words: &[&str]) -> std::process::Command {
        let me = &self.servers[server];
        let mut command = self.host(server).admin(program().to_str().expect("ASCII"));
        command.args(words).arg("-M").arg(&me.management);
        if self.hosts.len() == 1 {
            command.args(["--local-server", me.id]);
        }
        command
    }

    /// `mc_ctl start -w …`, which must succeed.
    #[track_caller]
    pub fn start(&self, server: usize, more: &[&str]) -> Answer {
        let what = format!("mc_ctl start on {}", self.servers[server].id);
        self.mc(server, &[&["start", "-w"], more].concat()).expect(0, &what)
    }

    /// `mc_ctl status` on the server; `None` where it fails.
    pub fn status(&self, server: usize) -> Option<Status> {
        let answer = self.mc(server, &["status"]);
        (answer.code == 0).then(|| read_status(&answer.out))
    }

    /// Waits for the status word on the server.
    #[track_caller]
    pub fn wait_word(&self, server: usize, word: &str) -> Status {
        let begin = Instant::now();
        loop {
            let answer = self.mc(server, &["status"]);
            if answer.code == 0 {
                let status = read_status(&answer.out);
                if status.word == word {
                    return status;
                }
            }
            assert!(begin.elapsed() < Duration::from_secs(45), "waited in vain for {word}:\n{}", answer.text());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for the status word and both roles on the server.
    #[track_caller]
    pub fn wait_roles(&self, server: usize, word: &str, roles: [&str; 2]) {
        let begin = Instant::now();
        loop {
            let answer = self.mc(server, &["status"]);
            let status = read_status(&answer.out);
            if answer.code == 0 && status.word == word && [0, 1].map(|n| &*status.rows[n].role) == roles {
                return;
            }
            let late = begin.elapsed() > Duration::from_secs(45);
            assert!(!late, "waited in vain for {word} and {roles:?}:\n{}", answer.text());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for a message on the server, logged since then; answers when it was logged.
    #[track_caller]
    pub fn wait_log(&self, server: usize, since: Instant, text: &str, limit: Duration) -> Instant {
        wait_for(&format!("the message \"{text}\""), limit, || self.host(server).syslog.find(since, text)).0
    }

    /// Runs a query on the server: columns separated by `|`, rows by newlines.
    #[track_caller]
    pub fn sql(&self, server: usize, query: &str) -> String {
        self.try_sql(server, query).unwrap_or_else(|e| panic!("{query}: {e}"))
    }

    /// The same from the server's own host, which may be cut off.
    pub fn sql_beside(&self, server: usize, query: &str) -> Result<String, String> {
        self.net.hosts[self.servers[server].host].inside(|| self.try_sql(server, query))
    }

    /// The same where it may fail.
    pub fn try_sql(&self, server: usize, query: &str) -> Result<String, String> {
        let me = &self.servers[server];
        let mut config = Config::new();
        config.host(me.address).port(me.port).user("postgres").dbname("postgres").application_name("harness");
        config.connect_timeout(Duration::from_secs(2)).options("-c synchronous_commit=local -c statement_timeout=20s");
        let text = |e: postgres::Error| e.as_db_error().map_or_else(|| e.to_string(), ToString::to_string);
        let rows = config.connect(NoTls).map_err(text)?.simple_query(query).map_err(text)?;
        let lines = rows.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|n| row.get(n).unwrap_or("")).collect::<Vec<_>>().join("|"))
            }
            _ => None,
        });
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    /// A writing client.
    pub fn client(&self, style: Style) -> Client {
        Client::start(self, style)
    }

    /// A number above those of all clients before.
    pub fn first_id(&self) -> i64 {
        IDS.fetch_add(1_000_000, SeqCst)
    }

    /// The server's data directory.
    pub fn data(&self, server: usize) -> &str {
        self.servers[server].data.to_str().expect("ASCII")
    }

    /// The view in the server's words: the line of `mc_ctl status --format json`, reduced to its term.
    pub fn ledger_of(&self, server: usize) -> String {
        let json = self.mc(server, &["status", "--format", "json"]).expect(0, "mc_ctl status").out;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{e} in: {json}"));
        let term = &json["view"]["term"];
        assert!(term.is_u64(), "no term in: {json}");
        term.to_string()
    }

    /// The server's history shows a view that was entered for this reason.
    #[track_caller]
    pub fn decided(&self, server: usize, why: &str) {
        let history = self.mc(server, &["history"]).expect(0, "mc_ctl history").out;
        assert!(history.contains(why), "\"{why}\" is not in the history:\n{history}");
    }

    /// The server's controller, which must run; not its watcher.
    #[track_caller]
    pub fn controller(&self, server: usize) -> Process {
        self.host(server).controllers().pop().expect("a controller runs")
    }

    /// The guide's copying of the other server's instance (3.4.2): `pg_basebackup` into an emptied directory, and the
    /// names set to the other server.
    pub fn copy_anew(&self, server: usize) {
        let (me, peer) = (&self.servers[server], &self.servers[1 - server]);
        self.as_root(server, &["sh", "-c", "rm -rf \"$0\"/* \"$0\"/.??*", self.data(server)]);
        let name = format!("application_name={}", me.id);
        let port = peer.port.to_string();
        let from = peer.replication_address;
        let words = ["-D", self.data(server), "-R", "-c", "fast", "-U", "postgres", "-h", from, "-p", &port];
        self.host(server).pg("pg_basebackup", &[&words[..], &["-d", &name]].concat()).expect(0, "pg_basebackup");
        let edit = format!(
            "s/^#*synchronous_standby_names = '{}'/synchronous_standby_names = '{}'/; \
             s|^unix_socket_directories.*|unix_socket_directories = '{}'|",
            me.id,
            peer.id,
            self.host(server).dir.join("run").display()
        );
        self.as_root(server, &["sed", "-i", &edit, &format!("{}/postgresql.conf", self.data(server))]);
    }

    /// Starts an instance without a controller, for the harness's own checks.
    pub fn pg_start(&self, server: usize) {
        let (data, log) = (&self.servers[server].data, self.host(server).dir.join("run/log"));
        let words = ["-D", data.to_str().expect("ASCII"), "-w", "-l", log.to_str().expect("ASCII"), "start"];
        self.host(server).pg("pg_ctl", &words).expect(0, "pg_ctl start");
    }

    /// Since the pair was made.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// What all hosts have logged, in order, each line with the seconds since the begin and the host's name.
    pub fn all_logged(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for host in self.hosts.iter().chain(&self.arbiter) {
            for (at, line) in host.syslog.since(self.began) {
                let line = line.split_once('>').map_or(line.as_str(), |(_, rest)| rest);
                lines.push((at, format!("{:8.3} {} {line}", (at - self.began).as_secs_f64(), host.name)));
            }
        }
        lines.sort();
        lines.into_iter().map(|(_, line)| line).collect()
    }

    fn dump(&self) {
        let lines = self.all_logged();
        eprintln!("---- syslog of all hosts; now is {:.3}", self.began.elapsed().as_secs_f64());
        for line in lines.iter().skip(lines.len().saturating_sub(150)) {
            eprintln!("{line}");
        }
        for server in &self.servers {
            let text = std::fs::read_to_string(server.data.join("log/postgresql.log")).unwrap_or_default();
            let all: Vec<_> = text.lines().collect();
            eprintln!("---- PostgreSQL's log on {}", server.id);
            for line in all.iter().skip(all.len().saturating_sub(25)) {
                eprintln!("{line}");
            }
        }
        for host in self.hosts.iter().chain(&self.arbiter) {
            eprintln!("---- processes on {}", host.name);
            for process in host.processes() {
                eprintln!("{:7} {:7} {}", process.inner, process.parent, process.command);
            }
        }
    }
}

/// Reads the table: columns are separated by at least two spaces.
fn read_status(text: &str) -> Status {
    let lines: Vec<_> = text.lines().collect();
    let row = |n: usize| {
        let line = lines.get(5 + n).copied().unwrap_or_default();
        let cells: Vec<_> = line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        let cell = |n: usize| cells.get(n).copied().unwrap_or_default().to_string();
        Row { role: cell(1), host: cell(3), processes: cell(4), disk: cell(5) }
    };
    Status { word: lines.get(2).copied().unwrap_or_default().trim().into(), rows: [row(0), row(1)] }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dump();
        }
        for host in self.hosts.iter_mut().chain(&mut self.arbiter) {
            host.power_off();
        }
        if std::env::var_os("MC_TEST_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}
