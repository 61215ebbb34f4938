//! The README's "Set up", typed as it stands there on three hosts that have PostgreSQL's programs and one data directory, and
//! nothing else: what it says must lead to a pair that is `switchable` with its arbiter, and to clients that find the primary.

use crate::harness::host::Host;
use crate::harness::net::{ADDRESSES, ADMIN, Net, Wiring};
use crate::harness::pair::program;
use crate::harness::run::{Answer, must, run};
use crate::harness::{arbiter, bin_dir, root};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

const NAMES: [&str; 3] = ["nd1", "nd2", "arb"];

/// What is typed where a command asks: the password, as often as it does.
const TYPED: &str = "printf 'sesame\\nsesame\\n'";

struct Hosts {
    all: Vec<Host>,
    /// What is on the PATH besides PostgreSQL's programs: ours, and stand-ins for ssh and for the service manager.
    bin: PathBuf,
    _net: Net,
}

impl Hosts {
    /// Three hosts. `/srv` is on another file system than PostgreSQL's data.
    fn new(name: &str) -> Hosts {
        let dir = root().join(name);
        let bin = dir.join("bin");
        std::fs::create_dir_all(&bin).expect("could not create a directory");
        let net = Net::new(Wiring { hosts: 3, networks: 1, far: false });
        let mut scp = String::from("set -e\nfor last; do :; done\nfor a; do case $a in\n");
        let mut all = Vec::new();
        for (n, name) in NAMES.into_iter().enumerate() {
            let host = Host::new(name, ADDRESSES[ADMIN][n], dir.join(name), net.hosts[n].pid());
            let srv = host.dir.join("srv").display().to_string();
            let script = format!(
                "set -e; mkdir {srv}; mount --bind {srv} /srv\nfor d in /var/lib/postgresql /etc/postgresql /run/postgresql; do\n\
                 mkdir -p $d; mount -t tmpfs -o mode=755 none $d; chown postgres: $d; done"
            );
            let mut command = host.command("sh");
            command.args(["-c", &script]);
            run(command, Duration::from_secs(60)).expect(0, "mount");
            scp += &format!("postgres@{}:/srv/*) cp -p {srv}${{a#*:/srv}} \"$last\";;\n", ADDRESSES[ADMIN][n]);
            all.push(host);
        }
        let hosts = Hosts { all, bin, _net: net };
        for program in [program(), arbiter::program()] {
            must("cp", &[program.to_str().expect("ASCII"), hosts.bin.to_str().expect("ASCII")]);
        }
        hosts.script("scp", &(scp + "esac; done\n"));
        hosts.script("systemctl", "echo \"$@\" >/srv/systemctl\n");
        hosts
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.bin.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}")).expect("could not write");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("could not chmod");
    }

    /// Types a line on a host, as root or as the user postgres; it must succeed.
    #[track_caller]
    fn types(&self, host: usize, as_root: bool, line: &str) -> Answer {
        self.tries(host, as_root, line).expect(0, line)
    }

    /// The same where it may fail.
    fn tries(&self, host: usize, as_root: bool, line: &str) -> Answer {
        let host = &self.all[host];
        let mut command = if as_root { host.command("sh") } else { host.admin("sh") };
        let path = format!("{}:{}:/usr/sbin:/usr/bin:/sbin:/bin", self.bin.display(), bin_dir().display());
        // Without a terminal, from which psql would read the password.
        command.args(["-c", &format!("export PATH={path}; {TYPED} | setsid -w sh -c \"$0\""), line]);
        let answer = run(command, Duration::from_secs(600));
        eprintln!("{}{} {line}\n{}", host.name, if as_root { '#' } else { '$' }, answer.text());
        answer
    }
}

/// What the check may find of this machine: it is busy, short of room, and the hosts' data is in memory, to be on another file
/// system than `/srv`. Of a pair that was just made it must find nothing else.
fn of_the_machine(finding: &str) -> bool {
    let code = finding.split(' ').nth(1).unwrap_or_default();
    !finding.starts_with("ERROR ")
        && (code.ends_with("-late") || ["disk-space", "link-unsteady", "unfit-filesystem"].contains(&code))
}

/// The section of the README, and its lines that are typed: host, whether as root, what.
fn set_up() -> (String, Vec<(usize, bool, String)>) {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let section =
        readme.split("\n## ").find(|section| section.starts_with("Set up\n")).expect("its section").to_owned();
    let lines = section.lines().filter_map(|line| {
        let (prompt, typed) = line.split_once(' ')?;
        let host = NAMES.iter().position(|name| prompt.strip_prefix(name).is_some_and(|p| p == "$" || p == "#"))?;
        Some((host, prompt.ends_with('#'), typed.to_owned()))
    });
    let lines = lines.collect();
    (section, lines)
}

#[test]
fn three_hosts_as_the_readme_says() {
    let (_, lines) = set_up();
    assert!(lines.len() > 12, "{lines:?}");
    let hosts = Hosts::new("init");
    let major = hosts.types(0, false, "postgres --version").out;
    let major: String = major.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    let data = format!("/var/lib/postgresql/{major}/main");
    // As a package of a distribution leaves it: no password, peer on the socket. On the other one, nothing but the directory.
    let made = format!("initdb -D {data} --auth-local=peer --auth-host=scram-sha-256 -U postgres -N >/dev/null");
    hosts.types(0, false, &made);
    hosts.types(1, false, &format!("mkdir -p -m 700 {data}"));

    for (host, as_root, line) in &lines {
        let answer = hosts.tries(*host, *as_root, line);
        if line.starts_with("mc_ctl check ") {
            let found = answer.out.lines().filter(|line| line.starts_with("ERROR ") || line.starts_with("WARNING "));
            let found: Vec<&str> = found.filter(|finding| !of_the_machine(finding)).collect();
            assert!(answer.code < 2 && found.is_empty() && answer.out.contains("\nCHECK "), "{}", answer.text());
            continue;
        }
        let answer = answer.expect(0, line);
        if *host == 0 && line.starts_with("mc_ctl init ") {
            for (host, _, line) in lines.iter().filter(|(host, _, _)| *host > 0) {
                // What the other hosts need is printed too; but options that are the reader's choice.
                let same = ["scp ", "(umask", "mc_arb start", "mc_ctl rebuild", "mc_ctl init"]
                    .iter()
                    .any(|w| line.starts_with(w));
                let line = line.trim_end_matches(" --yes").trim_end_matches(" --password-file -");
                assert!(
                    !same || answer.out.contains(line),
                    "init on nd1 does not say what is typed on {}: {line}",
                    NAMES[*host]
                );
            }
            let (_, paste) = answer.out.split_once("to add it:\n").expect("lines for pg_hba.conf");
            let (paste, _) = paste.split_once("\nEND\n").expect("lines for pg_hba.conf");
            hosts.types(0, false, &format!("{paste}\nEND"));
        }
    }

    let status = hosts.types(0, false, "mc_ctl status -M /srv/mc --arbiter").out;
    assert_eq!(status.lines().nth(2), Some("switchable"), "{status}");
    assert!(status.lines().any(|line| line.starts_with("arb ") && line.ends_with("online")), "{status}");
    for host in [0, 1] {
        // Nothing more to say, and nothing to change.
        let again = hosts.types(host, false, "mc_ctl init -M /srv/mc").out;
        assert!(again.starts_with("nothing had to be made") && !again.contains("missing in"), "{again}");
    }
    // Clients, wherever they are told how to connect, come to the primary.
    let ask = |host: usize, format: &str| {
        let where_from = "PGPASSWORD=sesame psql -qAtX -c 'SELECT inet_server_addr()' -d";
        hosts
            .types(host, false, &format!("{where_from} \"$(mc_ctl conninfo -M /srv/mc --user postgres {format})\""))
            .out
    };
    for host in [0, 1] {
        assert_eq!(ask(host, "--format uri").trim(), ADDRESSES[ADMIN][0]);
    }
    hosts.types(1, false, "mc_ctl switch -M /srv/mc");
    assert_eq!(ask(0, "--format keywords").trim(), ADDRESSES[ADMIN][1]);
    hosts.types(0, false, "mc_ctl rebuild -M /srv/mc --yes");
    let standby = if major.parse::<u32>().is_ok_and(|major| major >= 14) { ADDRESSES[ADMIN][0] } else { return };
    assert_eq!(ask(1, "--format uri --read-only").trim(), standby);
}
