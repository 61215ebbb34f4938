//! `mc_ctl init`: the files that it makes, with which modes, what it finds out by itself, what it says is missing, and that it
//! changes nothing where it refuses. Two real hosts, and servers made by it: `tests/postgres/init.rs`.

#[path = "common/user.rs"]
mod user;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use user::{User, is_root};

/// An address of a network that is nobody's (RFC 5737).
const AWAY: &str = "203.0.113.77";

/// What is said where both servers are here.
const ONE_HOST: &str = "WARNING: both servers of network.conf are on this host";

/// A host with a data directory, all the instance administrator user's.
struct Site {
    root: tempfile::TempDir,
    user: User,
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// The version of PostgreSQL that is installed.
fn version() -> u32 {
    let found = (12..=18).rev().find(|v| Path::new(&format!("/usr/lib/postgresql/{v}/bin/pg_controldata")).exists());
    found.expect("no PostgreSQL found: apt-get install postgresql")
}

impl Site {
    fn new() -> Site {
        let site = Site { root: tempfile::tempdir().unwrap(), user: User::new() };
        site.own(site.root.path(), 0o700);
        site.user.copy_mc_ctl(&site.at("mc_ctl"));
        site.data("data");
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn own(&self, path: &Path, mode: u32) {
        self.user.own(path, mode);
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
        self.own(&self.at(name), 0o600);
    }

    /// A data directory, as far as files go.
    fn data(&self, name: &str) {
        fs::create_dir(self.at(name)).unwrap();
        self.own(&self.at(name), 0o700);
        self.write(&format!("{name}/PG_VERSION"), &format!("{}\n", version()));
        self.write(&format!("{name}/postgresql.conf"), "port = 5432\n#wal_log_hints = off\n");
        self.write(&format!("{name}/pg_hba.conf"), "local all all peer\nhost all all 127.0.0.1/32 scram-sha-256\n");
    }

    /// The management directory of a second host: what was copied to it.
    fn copied(&self) {
        fs::create_dir(self.at("mc")).unwrap();
        self.own(&self.at("mc"), 0o700);
        self.write("mc/network.conf", &format!("nd1 {AWAY} 27540\nnd2 127.0.0.1 27540\n"));
        self.write("mc/mc.key", &"0123456789abcdef".repeat(4));
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = self.user.command(&self.at("mc_ctl"));
        command.arg(verb).arg("-M").arg(self.at("mc")).current_dir(self.root.path());
        command
    }

    fn give(&self, args: &str, input: &str) -> Ran {
        let mut command = self.command("init");
        command.args(args.split_whitespace()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    fn init(&self, args: &str) -> Ran {
        self.give(args, "")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    /// Names, modes, inodes and texts of all files of the management directory.
    fn all(&self) -> Vec<(String, u32, u64, Vec<u8>)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.at("mc")).into_iter().flatten().flatten() {
            let (path, meta) = (entry.path(), entry.path().symlink_metadata().unwrap());
            let name = entry.file_name().into_string().unwrap();
            found.push((name, meta.mode() & 0o7777, meta.ino(), fs::read(path).unwrap_or_default()));
        }
        found.sort();
        found
    }

    /// It refuses, says this, and changes nothing.
    #[track_caller]
    fn refuses(&self, args: &str, parts: &[&str]) {
        let before = (self.at("mc").exists(), self.all());
        let ran = self.init(args);
        assert_eq!(ran.code, 2, "{args}: {}{}", ran.out, ran.err);
        parts.iter().for_each(|part| assert!(ran.err.contains(part), "{args}: \"{part}\" is missing in {}", ran.err));
        assert_eq!((self.at("mc").exists(), self.all()), before, "{args}");
        assert_eq!(ran.out, "", "{args}");
    }
}

impl Ran {
    #[track_caller]
    fn done(self) -> Ran {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn says(self, parts: &[&str]) -> Ran {
        parts.iter().for_each(|part| assert!(self.out.contains(part), "\"{part}\" is missing in\n{}", self.out));
        self
    }
}

fn first() -> String {
    format!("--self 127.0.0.1 --peer {AWAY} --data data")
}

#[test]
fn the_first_server() {
    let site = Site::new();
    let ran = site.init(&format!("{} --arbiter arb1=203.0.113.78:27555", first())).done();
    assert!(!ran.err.contains("on this host"), "{}", ran.err);
    ran.says(&["made \"", "/mc/mc.key\"", "nd1.conf", "network.conf", "mc_ctl rebuild", "mc_arb init", "key="]);
    let all = site.all();
    let names: Vec<(&str, u32)> = all.iter().map(|(name, mode, ..)| (name.as_str(), *mode)).collect();
    assert_eq!(names, [("mc.key", 0o600), ("nd1.conf", 0o600), ("nd1.private", 0o600), ("network.conf", 0o600)]);
    assert_eq!(fs::metadata(site.at("mc")).unwrap().mode() & 0o7777, 0o700);
    let network = site.read("mc/network.conf");
    let lines: Vec<Vec<&str>> =
        network.lines().filter(|l| !l.starts_with('#')).map(|l| l.split_whitespace().collect()).collect();
    let [own, peer] = [["nd1", "127.0.0.1", "27540"], ["nd2", AWAY, "27540"]];
    assert_eq!(lines, [&own[..], &peer[..], &["arb1", "203.0.113.78", "27555", "arbiter"][..]]);
    let conf = site.read("mc/nd1.conf");
    assert!(conf.contains(&format!("db_instance = '{}'", site.at("data").display())), "{conf}");
    assert!(!conf.contains("heartbeat_error_action"), "with an arbiter it is arbitration: {conf}");
    let key = site.read("mc/mc.key");
    assert!(key.trim().len() == 64 && key.trim().bytes().all(|b| b.is_ascii_hexdigit()));
    // Loaded by the other verbs: the controller does not run.
    let status = site.command("status").output().unwrap();
    assert_eq!(status.status.code(), Some(3), "{status:?}");
    // Once more: nothing changes, and what is missing is shown again.
    site.init("").done().says(&["nothing had to be created", "wal_log_hints = on", "host replication postgres", AWAY]);
    site.init(&first()).done();
    assert_eq!(site.all(), all);
}

/// What `ID.conf` has where there is no arbiter.
const SAFE_HALF: &str = "\nheartbeat_error_action = 'switch'\nisolated_primary_action = 'stop'\n";

#[test]
fn without_an_arbiter_the_safe_half() {
    let site = Site::new();
    site.init(&first()).done();
    assert!(site.read("mc/nd1.conf").contains(SAFE_HALF));
    let other = Site::new();
    other.init(&first()).done();
    assert_ne!(site.read("mc/mc.key"), other.read("mc/mc.key"));
}

#[test]
fn the_other_server() {
    let site = Site::new();
    site.copied();
    let before = site.all();
    site.init("--data data").done().says(&["made \"", "nd2.conf", "server nd2", "mc_ctl rebuild"]);
    let after: Vec<_> = site.all().into_iter().filter(|(name, ..)| !name.starts_with("nd2.")).collect();
    assert_eq!(after, before);
    assert!(site.read("mc/nd2.conf").contains(SAFE_HALF));

    let site = Site::new();
    site.copied();
    site.init("--data coming").done().says(&["(does not exist yet)"]);
    assert!(site.read("mc/nd2.conf").contains(&site.at("coming").display().to_string()));
    assert!(!site.at("coming").exists());
}

/// The block that a run has printed.
fn block(ran: &Ran) -> String {
    let (_, rest) = ran.out.split_once("-----BEGIN").unwrap_or_else(|| panic!("no block in {}", ran.out));
    let (body, _) = rest.rsplit_once("\n-----END").unwrap();
    format!("-----BEGIN{body}\n-----END MIRRORING CONTROLLER CLUSTER-----\n")
}

#[test]
fn a_member_joins_by_the_block() {
    let one = Site::new();
    one.write("password", "sesame\n");
    let printed = one.init(&format!("{} --password-file password --rebuild-action auto", first())).done();
    let next = format!("  mc_ctl init -M {} --join - --password-file - --apply\n", one.at("mc").display());
    let printed = printed.says(&[&next, "They contain the key of the pair"]);
    let private = one.read("mc/nd1.private");
    assert!(!printed.out.contains("sesame") && !printed.out.contains(private.trim()), "{}", printed.out);
    let block = block(&printed);
    assert!(!one.init("").done().out.contains("BEGIN"));
    let shown = one.init("--show-join").done().says(&[&block]);
    let heading = format!("on {AWAY} (nd2), as ");
    assert!(
        printed.out.lines().any(|line| line.starts_with(&heading) && !line.contains("new host")),
        "{}",
        printed.out
    );
    assert!(shown.out.lines().any(|line| line.starts_with(&heading) && line.ends_with(", only if nd2 is a new host:")));

    let two = Site::new();
    let join = "--join - --password-file - --data data";
    let broken = block.replacen("27540", "27541", 1);
    for (input, part) in [(broken.as_str(), "its checksum does not match"), ("", "its first line was not found")] {
        let ran = two.give(join, input);
        assert!(ran.code == 2 && ran.err.contains(part) && !two.at("mc").exists(), "{}", ran.err);
    }
    for input in [block.clone(), format!("sesame\n{block}")] {
        let ran = two.give(join, &input);
        let why = "the password is missing on standard input\nHINT: With \"--join - --password-file -\", the block comes first";
        assert!(ran.code == 2 && ran.err.contains(why) && !two.at("mc").exists(), "{}", ran.err);
    }
    let ran = two.give(join, &format!("{block}\nse'same\n")).done();
    assert!(!ran.out.contains("BEGIN") && !ran.out.contains("se'same"), "{}", ran.out);
    for name in ["mc/network.conf", "mc/mc.key"] {
        assert_eq!(one.read(name), two.read(name));
    }
    let conf = two.read("mc/nd1.conf");
    for line in ["db_instance_password = \"se'same\"", "rebuild_action = 'auto'"] {
        assert!(conf.lines().any(|have| have == line), "{line} is missing in {conf}");
    }
    // Once more with the same block: nothing changes. With another pair's: it is refused.
    let all = two.all();
    two.give("--join -", &block).done().says(&["nothing had to be created"]);
    let other = Site::new();
    let other = self::block(&other.init(&first()).done());
    let ran = two.give("--join -", &other);
    assert!(ran.code == 2 && ran.err.contains("mc.key\" exists and differs from the block"), "{}", ran.err);
    assert_eq!(two.all(), all);
}

#[test]
fn what_a_rebuild_does_is_offered() {
    for (option, line) in [("", "#rebuild_action = 'auto'"), (" --rebuild-action auto", "rebuild_action = 'auto'")] {
        let site = Site::new();
        site.init(&format!("{}{option}", first())).done();
        let conf = site.read("mc/nd1.conf");
        assert!(conf.lines().any(|have| have == line) && conf.contains("without confirmation"), "{conf}");
    }
}

#[test]
fn both_on_one_host() {
    let site = Site::new();
    let ran = site.init("--peer 127.0.0.1 --arbiter 127.0.0.1 --data data").done();
    assert!(ran.err.contains(ONE_HOST), "{}", ran.err);
    ran.says(&["mc.arb", "--local-server nd2"]);
    let network = site.read("mc/network.conf");
    for line in ["nd1  127.0.0.1  27540", "nd2  127.0.0.1  27541", "arb  127.0.0.1  27542  arbiter"] {
        assert!(network.contains(line), "{network}");
    }
    site.refuses("--data data2", &["both \"nd1\" and \"nd2\"", "--local-server nd1 or --local-server nd2"]);
    site.refuses("--local-server nd2 --data data", &["belongs to the other server"]);
    let ran = site.init("--local-server nd2 --data data2").done();
    assert!(!ran.err.contains(ONE_HOST), "{}", ran.err);
    ran.says(&["nd2.conf", "pg_basebackup", "-p 5432", "port = 5433", "mc_ctl start"]);
    assert_eq!(
        site.all().iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(),
        ["mc.key", "nd1.conf", "nd1.private", "nd2.conf", "nd2.private", "network.conf"]
    );
}

/// Two of its addresses are one host as well.
#[test]
fn both_on_one_host_by_two_addresses() {
    let site = Site::new();
    let ran = site.init("--self 127.0.0.1 --peer 127.0.0.2 --data data").done();
    assert!(ran.err.contains(ONE_HOST), "{}", ran.err);
    ran.says(&["--local-server nd2 --data DIR"]);
    let ran = site.init("--local-server nd2 --data data2").done();
    ran.says(&["nd2.conf", "pg_basebackup", "-h 127.0.0.1", "mc_ctl start"]);
}

#[test]
fn a_server_whose_name_is_not_known_here() {
    let site = Site::new();
    let ran = site.init("--self 127.0.0.1 --peer no-such-host.invalid --data data").done();
    for part in
        ["WARNING: could not resolve \"no-such-host.invalid\": ", "pg_hba.conf lacks for that server is not shown"]
    {
        assert!(ran.err.contains(part), "{}", ran.err);
    }
    ran.says(&["host replication postgres 127.0.0.1/32"]);
}

#[test]
fn refusals_change_nothing() {
    let site = Site::new();
    let none = "--self 127.0.0.1 --peer 203.0.113.77 --data";
    site.refuses("", &["could not determine the host of the other server", "--peer HOST"]);
    site.refuses(&format!("{none} nowhere"), &["does not exist", "initdb"]);
    site.refuses(&format!("{none} ."), &["has no file PG_VERSION"]);
    site.refuses(&format!("--self {AWAY} --peer 203.0.113.78 --data data"), &["no server of file", "/mc/network.conf"]);
    site.refuses("--peer no-such-host.invalid --data data", &["could not resolve \"no-such-host.invalid\""]);
    site.refuses(&format!("{} --arbiter nd2=203.0.113.78", first()), &["the identifier \"nd2\" is that of line"]);
    site.refuses("--self 127.0.0.1:5 --peer 127.0.0.1:5 --data data", &["host \"127.0.0.1\" with port 5 is also"]);
    for (option, part) in [("--peer 192.0.2.300", "not an IPv4 address"), ("--peer h:0", "1 to 65535")] {
        site.refuses(option, &[part]);
    }
    // A directory that others could write to.
    fs::create_dir(site.at("mc")).unwrap();
    site.own(&site.at("mc"), 0o770);
    site.refuses(&first(), &["must not be writable", "chmod go-w"]);
}

#[test]
fn files_that_are_there_stay() {
    let site = Site::new();
    site.init(&first()).done();
    site.refuses("--peer 203.0.113.79", &["already exists, and does not contain --peer 203.0.113.79: line 2 has nd1"]);
    site.refuses(&format!("--peer {AWAY}:27000"), &["--peer 203.0.113.77 port 27000", "Nothing was changed"]);
    site.refuses("--arbiter 203.0.113.78", &["--arbiter 203.0.113.78: it has no arbiter"]);
    site.data("other");
    site.refuses("--data other", &["nd1.conf\" already exists, and its db_instance is"]);
    site.write("password", "sesame\n");
    site.refuses("--password-file password", &["already exists, and is not changed", "db_instance_password"]);
    site.write("mc/mc.key", "short\n");
    site.refuses("", &["is not a hexadecimal digit"]);
    // Beside a network.conf that came from elsewhere, a new key would be another one.
    fs::remove_file(site.at("mc/mc.key")).unwrap();
    site.refuses("", &["exists, but \"", "copy mc.key, which is the same on all members"]);
    symlink("nowhere", site.at("mc/mc.key")).unwrap();
    site.refuses("", &["could not open file"]);
}

/// A run that was killed, at each step: what is there stays, the rest is made.
#[test]
fn an_interrupted_run_is_finished() {
    for left in [&[][..], &["mc.key"], &["mc.key", "nd1.conf"]] {
        let site = Site::new();
        site.init(&first()).done();
        let whole = site.all();
        for (name, ..) in &whole {
            if !left.contains(&name.as_str()) {
                fs::remove_file(site.at("mc").join(name)).unwrap();
            }
        }
        fs::create_dir(site.at("mc/.init-new")).unwrap();
        site.own(&site.at("mc/.init-new"), 0o700);
        site.write("mc/.init-new/mc.key", "half");
        site.init(&first()).done();
        let again = site.all();
        assert_eq!(again.len(), 4, "{left:?}");
        assert!(
            whole.iter().filter(|file| left.contains(&file.0.as_str())).all(|file| again.contains(file)),
            "{left:?}"
        );
    }
}

/// The key that a command has printed.
fn printed_key(ran: &Ran) -> &str {
    let line = ran.out.lines().find_map(|line| line.strip_prefix("  key="));
    line.unwrap_or_else(|| panic!("no key in {}", ran.out))
}

/// The private key is made once and never printed; the public one is printed until `network.conf` lists it.
#[test]
fn each_member_has_a_key_of_its_own() {
    let site = Site::new();
    let ran = site.init(&first()).done();
    let (own, private) = (printed_key(&ran).to_owned(), site.read("mc/nd1.private"));
    assert!(!ran.out.contains(private.trim()) && !ran.err.contains(private.trim()));
    assert_eq!(printed_key(&site.init("").done()), own);
    assert_eq!(site.read("mc/nd1.private"), private);
    // A directory of an earlier version gets its key.
    fs::remove_file(site.at("mc/nd1.private")).unwrap();
    let ran = site.init("").done();
    let (lost, own) = (own, printed_key(&ran).to_owned());
    ran.says(&["made \"", "nd1.private"]);
    assert_ne!(lost, own);

    let network = site.read("mc/network.conf");
    let list = |nd1: &str| {
        let keys = [nd1, "0900000000000000000000000000000000000000000000000000000000000007"];
        let lines = network.lines().filter(|line| line.starts_with("nd"));
        lines.zip(keys).map(|(line, key)| format!("{line} key={key}\n")).collect::<String>()
    };
    site.write("mc/network.conf", &list(&own));
    let ran = site.init("").done();
    assert!(ran.out.contains("nothing had to be created") && !ran.out.contains("key="), "{}", ran.out);
    site.write("mc/network.conf", &list(&lost));
    site.refuses("", &["line 1: the key of member \"nd1\" is not the public key of", &own]);
    // The key is lost: the next one must be listed, and is there afterwards.
    fs::remove_file(site.at("mc/nd1.private")).unwrap();
    let ran = site.init("");
    assert!(ran.code == 2 && ran.err.contains("lists a different public key"), "{}", ran.err);
    let key = ran.err.split("key=").nth(1).and_then(|rest| rest.get(..64)).unwrap().to_owned();
    site.write("mc/network.conf", &list(&key));
    site.init("").done();
    let names: Vec<_> = site.all().into_iter().map(|(name, mode, ..)| (name, mode)).collect();
    assert!(names.contains(&("nd1.private".to_owned(), 0o600)) && names.len() == 4, "{names:?}");
}

#[test]
fn a_parent_that_is_not_writable() {
    let site = Site::new();
    let mut command = site.command("init");
    command.args(first().split(' '));
    fs::set_permissions(site.root.path(), Permissions::from_mode(0o500)).unwrap();
    let ran = command.output().unwrap();
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    fs::set_permissions(site.root.path(), Permissions::from_mode(0o700)).unwrap();
    assert_eq!(ran.status.code(), Some(2), "{told}");
    assert!(told.contains("could not create directory") && told.contains("install -d -m 700 -o "), "{told}");
}

/// A rebuild makes a data directory beside the present one, or the first one.
#[test]
fn a_rebuild_that_is_prevented() {
    let site = Site::new();
    fs::create_dir(site.at("big")).unwrap();
    site.data("big/data");
    site.own(&site.at("big"), 0o500);
    let ran = site.init(&first().replace("--data data", "--data big/data")).done();
    let expected = format!("directory \"{}\" is not writable for this user", site.at("big").display());
    assert!(ran.err.contains(&expected) && ran.err.contains("HINT: To change that, as root: chown "), "{}", ran.err);
    let other = Site::new();
    fs::create_dir(other.at("big")).unwrap();
    other.own(&other.at("big"), 0o500);
    let ran = other.give("--join - --data big/data", &block(&ran)).done();
    assert!(ran.err.contains("so that \"mc_ctl rebuild\" cannot create a data directory in it"), "{}", ran.err);
    assert!(!other.init("--data data").err.contains("mc_ctl rebuild"));
}

#[test]
fn root_is_refused() {
    if is_root() {
        let ran = Command::new(env!("CARGO_BIN_EXE_mc_ctl")).args(["init", "-M", "/nonexistent/mc"]).output().unwrap();
        assert_eq!(ran.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&ran.stderr).contains("cannot be run as root"));
    }
}

#[test]
fn passwords_are_not_shown() {
    for (args, input) in [("--password-file password", ""), ("--password-file -", "se'sa\"me\\1\n")] {
        let site = Site::new();
        site.write("password", "se'sa\"me\\1\nsecond line\n");
        let ran = site.give(&format!("{} {args}", first()), input).done();
        assert!(!format!("{}{}", ran.out, ran.err).contains("sa\"me"), "{}{}", ran.out, ran.err);
        assert!(!ran.out.contains("db_instance_password"), "{}", ran.out);
        let conf = site.read("mc/nd1.conf");
        assert!(conf.contains(r#"db_instance_password = "se'sa\"me\\1""#), "{conf}");
    }
    let site = Site::new();
    site.init(&first()).done().says(&["db_instance_password = 'PASSWORD'", "\\password postgres"]);
    let site = Site::new();
    site.write("password", "two words\n");
    site.refuses(&format!("{} --password-file password", first()), &["printable ASCII characters without spaces"]);
    site.refuses(&format!("{} --password-file none", first()), &["could not open file \"none\""]);
}

#[test]
fn settings_are_written_only_when_asked() {
    let site = Site::new();
    let text = "# mine\nport = 5432\nwal_level = minimal # why\ninclude 'more.conf'\n";
    site.write("real.conf", text);
    site.own(&site.at("real.conf"), 0o640);
    site.write("data/more.conf", "max_wal_senders = 1\n");
    site.write("data/postgresql.auto.conf", "hot_standby = 'off'\n");
    fs::remove_file(site.at("data/postgresql.conf")).unwrap();
    symlink("../real.conf", site.at("data/postgresql.conf")).unwrap();
    site.init(&first()).done().says(&[
        "wal_level = replica",
        "--apply writes it",
        "hot_standby is off, set by ALTER SYSTEM",
    ]);
    assert_eq!(site.read("real.conf"), text);
    assert!(!site.read("data/pg_hba.conf").contains("replication"));
    let said =
        site.init("--apply").done().says(&["written into", "wal_log_hints = on", "ALTER SYSTEM SET hot_standby"]);
    assert!(!said.out.contains("--apply writes it"), "{}", said.out);
    let keep = if version() >= 13 { "wal_keep_size = '1GB'" } else { "wal_keep_segments = 64" };
    let written = format!(
        "# mine\nport = 5432\nwal_level = replica # why\ninclude 'more.conf'\n\
         # for Mirroring Controller: mc_ctl init --apply\nmax_wal_senders = 10\nwal_log_hints = on\n{keep}\n"
    );
    assert_eq!(site.read("real.conf"), written);
    let meta = fs::metadata(site.at("real.conf")).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o640);
    assert!(site.at("data/postgresql.conf").is_symlink());
    let done = site.read("real.conf");
    assert!(!site.init("--apply").done().out.contains("written into"));
    assert_eq!(site.read("real.conf"), done);
    let rules = "local all all peer\nhost all all 127.0.0.1/32 scram-sha-256\n\
                 # for Mirroring Controller: mc_ctl init --apply\n\
                 host replication postgres 127.0.0.1/32 scram-sha-256\n\
                 host replication postgres 203.0.113.77/32 scram-sha-256\n\
                 host postgres postgres 203.0.113.77/32 scram-sha-256\n";
    assert_eq!(site.read("data/pg_hba.conf"), rules);
    // Lines that belong above another one are left to the operator.
    let rejects = "local all all peer\nhost all all 0.0.0.0/0 reject\n";
    site.write("data/pg_hba.conf", rejects);
    site.init("--apply").done().says(&["above line 2, which rejects the other server"]);
    assert_eq!(site.read("data/pg_hba.conf"), rejects);
}

#[test]
fn rules_that_are_missing() {
    let site = Site::new();
    let lines = [
        "host replication postgres 127.0.0.1/32 scram-sha-256\nhost replication postgres 203.0.113.77/32 scram-sha-256\nhost \
         postgres postgres 203.0.113.77/32 scram-sha-256\nEND\n",
        "cat >>'",
    ];
    site.init(&first()).done().says(&lines);
    site.write("data/pg_hba.conf", "local all all peer\n\nhost all all 0.0.0.0/0 reject\n");
    let said = site.init("").done().says(&["above line 3, which rejects the other server"]);
    assert!(!said.out.contains("cat >>"), "{}", said.out);
    site.write(
        "data/pg_hba.conf",
        "host all,replication all 127.0.0.1/32 md5\nhost all,replication all 203.0.113.0/24 md5\n",
    );
    let said = site.init("").done();
    assert!(!said.out.contains("pg_hba.conf"), "{}", said.out);
    site.write("data/pg_hba.conf", "hostssl all,replication all all scram-sha-256\nhost all all all reject\n");
    site.init("").done().says(&["above line 2, which rejects the other server"]);
    site.write("data/postgresql.conf", "ssl = on\n");
    let said = site.init("").done();
    assert!(!said.out.contains("pg_hba.conf"), "{}", said.out);
    site.write("data/pg_hba.conf", "host all,replication all all trust\n");
    let said = site.init("").done();
    assert!(!said.out.contains("PASSWORD"), "{}", said.out);
}

/// Without a controller, from the files; where the other server's are not here, with a notice.
#[test]
fn connections_from_the_files() {
    let site = Site::new();
    site.init("--peer 127.0.0.1 --data data").done();
    site.data("data2");
    site.write("data2/postgresql.conf", "port = 5433\n");
    site.init("--local-server nd2 --data data2").done();
    let conninfo = |args: &str| {
        let output = site.command("conninfo").args(args.split_whitespace()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }.done()
    };
    let both = "postgresql://127.0.0.1:5432,127.0.0.1:5433/postgres?target_session_attrs=read-write";
    assert!(conninfo("--local-server nd2 --format uri").out.starts_with(both));
    let ran = conninfo("--local-server nd1 --format jdbc --dbname shop --user web --read-only");
    let jdbc = "jdbc:postgresql://127.0.0.1:5432,127.0.0.1:5433/shop?user=web&targetServerType=preferSecondary";
    assert!(ran.out.starts_with(jdbc) && ran.out.ends_with("&connectTimeout=2&socketTimeout=4&tcpKeepAlive=true\n"));
    assert!(
        ran.err.contains("NOTICE: socketTimeout also ends each statement that takes longer than 4 s"),
        "{}",
        ran.err
    );
    let told: serde_json::Value = serde_json::from_str(&conninfo("--local-server nd1 --format json").out).unwrap();
    assert_eq!(told["servers"][1], serde_json::json!({ "id": "nd2", "host": "127.0.0.1", "port": 5433 }));
    assert_eq!(told["limits"], serde_json::json!({ "connect_seconds": 2, "silence_seconds": 4 }));
    let text = conninfo("--local-server nd1").out;
    assert!(
        text.contains("a client abandons a server that does not respond for 4 s, and tries each server for 2 s"),
        "{text}"
    );
    assert!(text.contains("isolated_primary_action = 'stop'") && text.contains("stops after 10.8 s"), "{text}");
    site.write("mc/nd1.conf", &site.read("mc/nd1.conf").replace("'stop'", "'wait'"));
    let text = conninfo("--local-server nd1").out;
    assert!(
        text.contains("does not connect to the new primary; \"stop\" on both servers ends this after 10.8 s"),
        "{text}"
    );

    let site = Site::new();
    site.init(&first()).done();
    let output = site.command("conninfo").args(["--format", "keywords"]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout)
            .starts_with("host=127.0.0.1,203.0.113.77 port=5432,5432 dbname=postgres ")
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("203.0.113.77 port 5432 is assumed"));
}
