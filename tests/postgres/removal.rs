//! "From a pair to a single server" of mirroring-controller(7): the commands are run as they are printed there, with the
//! directories of the test in place of the manual's. Nothing of the pair may be left on the server that stays.

use crate::debian;
use crate::harness::client::Style;
use crate::harness::pair::{Pair, Setup, program};
use crate::harness::run::{Answer, run};
use crate::harness::{arbiter, bin_dir, s};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

const PASSWORD: &str = "sesame";

/// A command of the manual: the host, whether as root, the line.
type Line = (usize, bool, String);

/// The literal blocks of a section.
fn blocks(section: &str) -> Vec<Vec<Line>> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/mirroring-controller.7"))
        .expect("could not read the manual");
    let (_, rest) = page.split_once(&format!(".Ss {section}\n")).expect("the section");
    let section = rest.split("\n.Ss ").next().and_then(|text| text.split("\n.Sh ").next()).expect("a section");
    let line = |line: &str| {
        let (prompt, command) = line.split_once(' ').expect("a prompt");
        let host = ["nd1", "nd2", "arb"].iter().position(|name| prompt[..3] == **name).expect("a host");
        (host, &prompt[3..] == "#", command.to_owned())
    };
    let block = |text: &str| text.split("\n.Ed").next().unwrap_or_default().lines().map(line).collect();
    section.split(".Bd -literal -offset indent\n").skip(1).map(block).collect()
}

/// The test's directories in place of the manual's.
struct Places<'a> {
    pair: &'a Pair,
    /// The directory of `postgresql.conf` on the server that stays.
    conf: String,
    /// The client's `PGHOST` on that server.
    sockets: String,
}

impl Places<'_> {
    fn run(&self, (host, as_root, line): &Line) -> Answer {
        let pair = self.pair;
        let (machine, management) = match pair.servers.get(*host) {
            Some(server) => (pair.host(*host), server.management.clone()),
            None => (pair.arbiter.as_ref().expect("an arbiter"), pair.arbiter_dir()),
        };
        let line = line.replace("/data/15/postgresql.conf", &format!("{}/postgresql.conf", self.conf));
        let line = line.replace("/etc/postgresql/15/main", &self.conf).replace("/srv/mc", path(&management));
        let line = if *host < 2 { line.replace("/data/15", pair.data(*host)) } else { line };
        let line = match version_of(&self.conf) {
            Some(version) => line
                .replace("postgresql/15/main", &format!("postgresql/{version}/main"))
                .replace("pg_dropcluster 15 ", &format!("pg_dropcluster {version} "))
                .replace("postgresql@15-main", &format!("postgresql@{version}-main")),
            None => line,
        };
        let mut command = if *as_root { machine.command("sh") } else { machine.admin("sh") };
        let programs = [program(), arbiter::program()].map(|program| path(program.parent().expect("a directory")));
        let (own, bin) = (path(&machine.dir), path(bin_dir()));
        let sockets = self.sockets.replace(path(&self.pair.host(0).dir), own);
        let environment = format!(
            "export PGHOST={} PATH={own}/bin:{}:{}:{bin}:/usr/sbin:/usr/bin:/sbin:/bin",
            sockets, programs[0], programs[1]
        );
        command.args(["-c", &format!("{environment}; {line}")]);
        let answer = run(command, s(120));
        eprintln!("{}{} {line}\n{}", machine.name, if *as_root { '#' } else { '$' }, answer.text());
        answer
    }
}

/// The version of a cluster of Debian's, by the directory of its configuration files.
fn version_of(conf: &str) -> Option<&str> {
    conf.strip_prefix("/etc/postgresql/")?.strip_suffix("/main")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("ASCII")
}

/// The name of each server's host, and a service manager that runs this command to start the unit of PostgreSQL.
fn systemctl(pair: &Pair, start: &str) {
    for (n, server) in pair.servers.iter().enumerate() {
        let bin = pair.host(n).dir.join("bin");
        std::fs::create_dir_all(&bin).expect("could not create a directory");
        let service =
            format!("#!/bin/sh\ncase $* in 'start postgresql@'*-main | 'enable --now postgresql-15') {start};; esac\n");
        for (name, text) in [("systemctl", service), ("hostname", format!("#!/bin/sh\necho {}\n", server.id))] {
            std::fs::write(bin.join(name), text).expect("could not write");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(bin.join(name), mode).expect("could not chmod");
        }
    }
}

/// Both servers have been the standby, so that the files of each have the password; nd1 is the primary.
fn each_was_the_standby(pair: &Pair) {
    for (to, other) in [(1, 0), (0, 1)] {
        pair.mc(to, &["switch"]).expect(0, "mc_ctl switch");
        pair.mc(other, &["rebuild", "--yes"]).expect(0, "mc_ctl rebuild");
        pair.wait_word(to, "switchable");
    }
    let auto = format!("grep -q password={PASSWORD} {}/postgresql.auto.conf", pair.data(0));
    pair.as_root(0, &["sh", "-c", &auto]);
}

/// Runs the procedure while a client writes, and looks for what is left.
fn remove(places: &Places, on_debian: bool, own_role: bool) {
    let pair = places.pair;
    let [plain, debian] = &blocks("From a pair to a single server")[..] else { panic!("two literal blocks") };
    let [role] = &blocks("After the removal of a pair")[..] else { panic!("a literal block") };
    let procedure = if on_debian { debian } else { plain };
    assert!(procedure.len() <= 12, "{procedure:?}");
    let client = pair.client(Style::PerHost);
    for line in procedure {
        let starts = line.0 == 0 && line.2.contains("systemctl enable");
        let answer = places.run(line).expect(0, &line.2);
        if line.0 == 1 && line.2.starts_with("psql ") {
            assert!(answer.out.contains(&format!(" {}\n", pair.data(1))), "{}", answer.text());
        }
        if line.2.starts_with("pg_lsclusters ") {
            assert!(answer.out.contains(pair.data(1)), "{}", answer.text());
        }
        if starts && own_role {
            role.iter().for_each(|line| drop(places.run(line).expect(0, &line.2)));
        }
    }
    client.wait_ack(Instant::now(), s(20));

    let shown = "SELECT current_setting('synchronous_standby_names') || current_setting('primary_conninfo')";
    assert_eq!(pair.sql(0, shown), "");
    assert_eq!(pair.sql(0, "SELECT count(*) FROM pg_roles WHERE rolname = 'mc'"), "0");
    // Passwords, the standby's name, and files of the controllers.
    let conf = format!("{}/postgresql.conf {}/postgresql.auto.conf", places.conf, pair.data(0));
    let host = path(&pair.host(0).dir);
    let leftovers = format!(
        "! grep -rn {PASSWORD} {host} {0} {1} && ! grep -n \"'nd2'\" {conf} && ! find {host} {0} -name '*mirroring_controller*' \
         | grep . && ! grep -n primary_conninfo {0}/postgresql.auto.conf",
        pair.data(0),
        places.conf
    );
    places.run(&(0, true, leftovers.clone())).expect(0, &leftovers);
    for (n, server) in pair.servers.iter().enumerate() {
        assert!(!server.management.exists(), "{}", server.management.display());
        let ours = pair.host(n).processes().into_iter().find(|process| process.command.contains("mc_ctl"));
        assert!(ours.is_none(), "{ours:?}");
    }
    assert!(pair.arbiters().is_empty(), "the arbiter runs");
    // The instance's log is where the service manager has it.
    let log = std::fs::read_link(format!("/proc/{}/fd/2", pair.postmaster(0).pid)).expect("its standard error");
    assert!(!log.to_string_lossy().contains("(deleted)") && !log.ends_with("startup.log"), "{}", log.display());
    client.check(pair, 0, &[0]);
}

#[test]
fn plain_layout() {
    let pair = Setup::default().arbiter().conf("db_instance_password = 'sesame'").up();
    each_was_the_standby(&pair);
    let (data, sockets) = (pair.data(0).to_owned(), pair.host(0).dir.join("run"));
    let start = format!("su postgres -c '{}/pg_ctl -D {data} -l {}/log -w start'", path(bin_dir()), sockets.display());
    systemctl(&pair, &start);
    remove(&Places { pair: &pair, conf: data, sockets: path(&sockets).to_owned() }, false, false);
}

#[test]
fn cluster_of_debian() {
    let Some(version) = debian::version_of_debian() else { return };
    let mut pair = Setup::default().arbiter().make();
    [0, 1].into_iter().for_each(|n| debian::create_cluster(&mut pair, n, &version));
    pair.as_root(1, &["find", pair.data(1), "-mindepth", "1", "-delete"]);
    let role = format!("CREATE ROLE mc SUPERUSER LOGIN PASSWORD '{PASSWORD}'");
    let make = format!(
        "echo manual >/etc/postgresql/{version}/main/start.conf && pg_ctlcluster {version} main start && su postgres -c \"psql -c \\\"$0\\\"\" && pg_ctlcluster {version} main stop"
    );
    pair.as_root(0, &["sh", "-c", &make, &role]);
    for n in [0, 1] {
        pair.server_line(n, &format!("db_instance_username = 'mc'\ndb_instance_password = '{PASSWORD}'"));
    }
    pair.start_arbiter();
    pair.start(0, &["-f"]);
    pair.mc(1, &["rebuild", "--yes"]).expect(0, "the first mc_ctl rebuild");
    pair.sql(0, "CREATE TABLE written (id bigint PRIMARY KEY)");
    each_was_the_standby(&pair);
    let conf = format!("/etc/postgresql/{version}/main");
    systemctl(&pair, &format!("[ \"$(cat {conf}/start.conf)\" = auto ] && pg_ctlcluster {version} main start"));
    remove(&Places { pair: &pair, conf, sockets: "/run/postgresql".into() }, true, true);
    assert_eq!(debian::listed(&pair, 0), "online");
    pair.as_root(0, &["pg_ctlcluster", &version, "main", "restart"]);
    assert_eq!(pair.sql(0, "SELECT pg_is_in_recovery()"), "f");
}
