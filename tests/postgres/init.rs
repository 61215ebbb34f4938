//! The README's "Set up a pair", run as it stands there on three hosts that have PostgreSQL's programs and nothing else of ours, in the
//! layouts of Debian, of Red Hat and of a build by hand: it must lead to a pair that is `switchable` with its arbiter, in at most
//! twelve commands, and to clients that find the primary. Nothing is copied between the hosts but what `init` prints. Then "Starting
//! at boot" of mirroring-controller(7), as it stands there, hands the pair over to the units of `samples`.

use crate::harness::host::Host;
use crate::harness::net::{ADDRESSES, ADMIN, Net, Wiring};
use crate::harness::pair::program;
use crate::harness::run::{Answer, must, run};
use crate::harness::{arbiter, bin_dir, major, root, s, wait_for};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const NAMES: [&str; 3] = ["nd1", "nd2", "arb"];

/// Where the hosts have PostgreSQL's files, and who starts the instances before the set-up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Debian's packages; the second server has the cluster that they create.
    Debian,
    /// Debian's packages that create no cluster; the first server has one.
    DebianOneCluster,
    /// The packages of Red Hat, or of postgresql.org for it; the second server has no cluster.
    RedHat,
    /// `initdb` by hand; the second server has nothing.
    Plain,
}

/// Directories that a host has for itself, and the unit that starts PostgreSQL.
const HOST: &str = r#"
set -e
srv=$1; unit=$2
mkdir "$srv"; mount --bind "$srv" /srv
mount -t tmpfs -o mode=755 none /var/lib
mkdir /var/lib/postgresql /var/lib/pgsql; chown postgres: /var/lib/postgresql /var/lib/pgsql
for d in /etc/postgresql /var/log/postgresql /run/postgresql; do
    mkdir -p $d; mount -t tmpfs -o mode=755 none $d; chown postgres: $d
done
[ -z "$unit" ] && exit
mount -t tmpfs -o mode=755 none /etc/systemd/system
mkdir /etc/systemd/system/multi-user.target.wants
printf "$3" >/etc/systemd/system/multi-user.target.wants/$unit.service
"#;

/// A substitute for the service manager. "disable" stops the cluster and removes the link of its unit. "enable" runs the command of
/// one of our units, as the unit's user, or for the arbiter as the user that the manual names, and repeats it if it fails, as
/// the unit demands.
const SYSTEMCTL: &str = r#"
case "$1 $2 $3" in "enable --now mirroring-"*)
    value() { sed -n "s/^$1=//p" "@samples@/$unit.service"; }
    unit=$3
    user=$(value User | sed s/mcarb/postgres/)
    set -- $(value ExecStart)
    program=${1##*/}
    shift
    set -- setpriv --reuid $user --regid $user --init-groups env $(value Environment) $program "$@"
    never=$(value RestartPreventExitStatus)
    setsid sh -c 'while "$@"; code=$?; case " $0 " in *" $code "*) false ;; esac; do sleep 1; done' "0 $never" "$@" \
        </dev/null >/srv/$unit.log 2>&1 &
    exit ;;
esac
[ "$1 $2" = "disable --now" ] || { echo "systemctl $*: not known here" >&2; exit 1; }
rm /etc/systemd/system/multi-user.target.wants/$3.service || exit
pg_lsclusters -h 2>/dev/null | while read version name rest; do pg_ctlcluster $version $name stop -m fast; done
for pid in /var/lib/pgsql/*/data/postmaster.pid; do
    [ ! -e $pid ] || setpriv --reuid postgres --regid postgres --init-groups pg_ctl stop -m fast -D ${pid%/*}
done
"#;

impl Layout {
    fn unit(self) -> String {
        match self {
            Layout::Debian | Layout::DebianOneCluster => "postgresql".into(),
            Layout::RedHat => format!("postgresql-{}", major()),
            Layout::Plain => String::new(),
        }
    }

    /// A line of the README with the unit of this layout. On the arbiter's host the user `postgres` stands in for `mcarb`.
    fn line(self, line: &str) -> String {
        let line = line.replace("useradd -r mcarb; ", "").replace("-o mcarb", "-o postgres");
        line.replace("--now postgresql", &format!("--now {}", self.unit()))
    }

    fn unit_text(self) -> String {
        let data = self.data();
        match self {
            Layout::RedHat => format!(
                "[Service]\nType=notify\nUser=postgres\nEnvironment=PGDATA={data}/\nExecStart=/usr/pgsql-{}/bin/postmaster -D ${{PGDATA}}\n",
                major()
            ),
            _ => "[Service]\nType=oneshot\nExecStart=/bin/true\n".into(),
        }
    }

    fn data(self) -> String {
        match self {
            Layout::Debian | Layout::DebianOneCluster => format!("/var/lib/postgresql/{}/main", major()),
            Layout::RedHat => format!("/var/lib/pgsql/{}/data", major()),
            Layout::Plain => "/var/lib/pgsql/data".into(),
        }
    }

    /// What a server has before the set-up, and the state that its packages leave it in: it runs.
    fn make_cluster(self, hosts: &Hosts, host: usize) {
        let (data, major) = (self.data(), major());
        if self == Layout::Debian || self == Layout::DebianOneCluster {
            hosts.types(host, true, &format!("pg_createcluster --start {major} main"));
            return;
        }
        // No password, peer on the socket.
        let made = format!("initdb -D {data} --auth-local=peer --auth-host=scram-sha-256 -U postgres -N >/dev/null");
        hosts.types(host, false, &made);
        if self != Layout::Plain {
            hosts.types(host, false, &format!("pg_ctl -D {data} -l /tmp/start.log start"));
        }
    }
}

struct Hosts {
    all: Vec<Host>,
    /// What is on the PATH besides PostgreSQL's programs: ours, and a stand-in for the service manager.
    bin: PathBuf,
    _net: Net,
}

impl Hosts {
    /// Three hosts. `/srv` is on another file system than PostgreSQL's data.
    fn new(name: &str, layout: Layout) -> Hosts {
        let dir = root().join(name);
        let bin = dir.join("bin");
        std::fs::create_dir_all(&bin).expect("could not create a directory");
        let net = Net::new(Wiring { hosts: 3, networks: 1, far: false });
        let mut all = Vec::new();
        for (n, name) in NAMES.into_iter().enumerate() {
            let host = Host::new(name, ADDRESSES[ADMIN][n], dir.join(name), net.hosts[n].pid());
            let mut command = host.command("sh");
            command.args(["-c", HOST, "sh"]).arg(host.dir.join("srv"));
            command.args([if n < 2 { layout.unit() } else { String::new() }, layout.unit_text()]);
            run(command, Duration::from_secs(60)).expect(0, "mount");
            all.push(host);
        }
        let hosts = Hosts { all, bin, _net: net };
        for program in [program(), arbiter::program()] {
            must("cp", &[program.to_str().expect("ASCII"), hosts.bin.to_str().expect("ASCII")]);
        }
        let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/samples");
        hosts.script("systemctl", &SYSTEMCTL.replace("@samples@", samples));
        hosts
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.bin.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}")).expect("could not write");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("could not chmod");
    }

    /// Runs a line on a host, as root or as the user postgres; it must succeed.
    #[track_caller]
    fn types(&self, host: usize, as_root: bool, line: &str) -> Answer {
        self.tries(host, as_root, line, "").expect(0, line)
    }

    /// The same where it may fail; `paste` is given where it asks, then the password, as often as it asks.
    fn tries(&self, at: usize, as_root: bool, line: &str, paste: &str) -> Answer {
        let host = &self.all[at];
        let mut command = host.command("setpriv");
        let user = if as_root { "root" } else { "postgres" };
        let path = format!("{}:{}:/usr/sbin:/usr/bin:/sbin:/bin", self.bin.display(), bin_dir().display());
        command.args(["--reuid", user, "--regid", user, "--init-groups", "env", "-i", "-C", "/tmp", "LANG=C.UTF-8"]);
        command.args([&format!("PATH={path}"), "HOME=/tmp", &format!("USER={user}"), "sh", "-c"]);
        // Without a terminal, from which psql would read the password.
        let typed = r#"printf '%ssesame\nsesame\n' "$1" | setsid -w sh -c "$0""#;
        command.args([typed, line, paste]);
        let answer = run(command, Duration::from_secs(600));
        eprintln!("{}{} {line}\n{}", host.name, if as_root { '#' } else { '$' }, answer.text());
        // On a busy machine a status may take longer than its limit of 0.2 s.
        match answer.code == 5 && line.starts_with("mc_ctl status") {
            true => self.tries(at, as_root, line, paste),
            false => answer,
        }
    }
}

/// What the check may find of this machine: it is busy, short of room, and the hosts' data is in memory, to be on another file
/// system than `/srv`. Of a pair that was just made it must find nothing else.
fn of_the_machine(finding: &str) -> bool {
    let code = finding.split(' ').nth(1).unwrap_or_default();
    !finding.starts_with("ERROR ")
        && (code.ends_with("-late") || ["disk-space", "link-unsteady", "unsuitable-file-system"].contains(&code))
}

/// A file of the project.
fn document(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("could not read {}: {e}", path.display()))
}

/// The commands of a text: host, whether as root, what.
fn commands(text: &str) -> Vec<(usize, bool, String)> {
    let lines = text.lines().filter_map(|line| {
        let (prompt, typed) = line.trim_start_matches("old-").split_once(' ')?;
        let host = NAMES.iter().position(|name| prompt.strip_prefix(name).is_some_and(|p| p == "$" || p == "#"))?;
        Some((host, prompt.ends_with('#'), typed.to_owned()))
    });
    lines.collect()
}

/// The commands of the README's section.
fn set_up() -> Vec<(usize, bool, String)> {
    let readme = document("README.md");
    commands(readme.split("\n## ").find(|section| section.starts_with("Set up a pair\n")).expect("its section"))
}

/// Runs the manual's commands that let the service managers start the pair.
fn start_at_boot(hosts: &Hosts) {
    let manual = document("man/mirroring-controller.7");
    let section =
        manual.split("\n.Ss ").find(|section| section.starts_with("Starting at boot\n")).expect("its section");
    let lines = commands(section);
    assert_eq!(lines.iter().filter(|(.., line)| line.starts_with("systemctl enable")).count(), 3, "{lines:?}");
    for (host, as_root, line) in &lines {
        let line = format!("export MCCONTROLDIR=/srv/mc ARBCONTROLDIR=/srv/mc; {line}");
        match line.split_once(" --watch ") {
            None => drop(hosts.types(*host, *as_root, &line)),
            Some((status, comment)) => {
                assert!(comment.ends_with("until it shows switchable"), "{comment}");
                wait_for("the pair is switchable", s(60), || {
                    let answer = hosts.tries(*host, *as_root, status, "");
                    if answer.code != 0 {
                        let log = hosts.all[*host].dir.join("srv/mirroring-controller.log");
                        eprintln!("{}", std::fs::read_to_string(log).unwrap_or_default());
                    }
                    (answer.out.lines().nth(2) == Some("switchable")).then_some(())
                });
            }
        }
    }
    wait_for("the arbiter is online", s(60), || {
        let status = hosts.tries(0, false, "mc_ctl status -M /srv/mc --arbiter", "").out;
        status.lines().any(|line| line.starts_with("arb ") && line.ends_with("online")).then_some(())
    });
}

/// The block that `init` prints for the other members.
fn block_for_join(text: &str) -> String {
    let from = text.find("-----BEGIN").expect("a block");
    let end = text.rfind("-----END").expect("its end");
    let rest = text[end..].find('\n').expect("a line");
    text[from..=end + rest].to_owned()
}

/// The commands of the first block of the manual's section after this text.
fn whole_block(section: &str, after: &str) -> Vec<(usize, bool, String)> {
    let manual = document("man/mirroring-controller.7");
    let text = manual.split("\n.Ss ").find(|text| text.starts_with(&format!("{section}\n"))).expect("its section");
    let (_, text) = text.split_once(after).unwrap_or_else(|| panic!("{after:?} is not in {section:?}"));
    let (_, text) = text.split_once("\n.Bd -literal").expect("a block");
    commands(text.split("\n.Ed").next().unwrap_or_default())
}

/// The same without those of the service manager.
fn manual_block(section: &str, after: &str) -> Vec<(usize, bool, String)> {
    whole_block(section, after).into_iter().filter(|(.., line)| !line.starts_with("systemctl ")).collect()
}

/// Runs the lines. What `--show-join` prints is pasted where a line reads it. A status and a history are repeated until they show
/// what their comment names.
fn follow_manual(hosts: &Hosts, layout: Layout, lines: &[(usize, bool, String)]) {
    let mut block = String::new();
    for (host, as_root, line) in lines {
        let line = format!("export MCCONTROLDIR=/srv/mc ARBCONTROLDIR=/srv/mc; {}", layout.line(line));
        if line.contains("mc_ctl status") || line.contains("mc_ctl history") {
            let (command, words) = line.split_once(" # ").expect("what it shows");
            let words = words.trim().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches(": ");
            let words = words.trim_start_matches("until it shows ").trim_start_matches("soon: ");
            wait_for(words, s(60), || {
                let shown = hosts.tries(*host, *as_root, &command.replace(" --watch", ""), "").out.replace('\n', " ");
                words.split(", ").all(|word| shown.contains(&format!(" {word}"))).then_some(())
            });
            continue;
        }
        let paste = if line.contains("--join") { block.as_str() } else { "" };
        let shown = hosts.tries(*host, *as_root, &line, paste).expect(0, &line).out;
        if line.contains("--show-join") {
            block = block_for_join(&shown);
        }
    }
}

/// Replaces the host of the arbiter by one that has only the programs: the block of the manual for this situation.
fn replace_the_arbiter(hosts: &Hosts, layout: Layout) {
    hosts.types(2, false, "mc_arb stop -M /srv/mc");
    hosts.types(2, true, "rm -r /srv/mc");
    follow_manual(hosts, layout, &manual_block("Replacing the arbiter", ""));
}

/// Replaces the host of the first server, which is lost while the second server serves, in the same way.
fn replace_a_server(hosts: &Hosts, layout: Layout) {
    hosts.types(0, false, "mc_ctl stop -M /srv/mc");
    hosts.types(0, true, &format!("rm -r /srv/mc {}", layout.data()));
    let mut lines = whole_block("Moving to new hosts", "");
    // The other server has no other parameters.
    lines.retain(|(_, _, line)| !line.starts_with("vi "));
    follow_manual(hosts, layout, &lines);
    wait_for("the pair is switchable", s(60), || {
        let status = hosts.tries(1, false, "mc_ctl status -M /srv/mc", "").out;
        (status.lines().nth(2) == Some("switchable")).then_some(())
    });
}

/// Moves the arbiter to another port, removes it, and adds it again, by the blocks of the manual. The lines of the service manager
/// are replaced by the commands that the text names for hosts without it.
fn move_the_arbiter(hosts: &Hosts, layout: Layout) {
    let line = |(host, as_root, line): (usize, bool, String)| match line.split(" #").next().unwrap_or_default().trim() {
        "systemctl disable --now mirroring-arbiter" => (host, false, "mc_arb stop && rm -r /srv/mc/*".to_owned()),
        "systemctl enable --now mirroring-arbiter" => (host, false, "mc_arb start".to_owned()),
        "systemctl start mirroring-controller" => (host, false, "mc_ctl start --mc-only -f".to_owned()),
        "vi $MCCONTROLDIR/network.conf" => {
            (host, false, "sed -i '/ arbiter$/s/27540/27541/' /srv/mc/network.conf".into())
        }
        _ => (host, as_root, line),
    };
    let moving = whole_block("Moving the arbiter to another address", "").into_iter().map(line).collect::<Vec<_>>();
    follow_manual(hosts, layout, &moving);

    for (host, name) in NAMES[..2].iter().enumerate() {
        let edit = "sed -i '/ arbiter$/d' network.conf && echo \"heartbeat_error_action = 'switch'\"";
        hosts.types(host, false, &format!("cd /srv/mc && {edit} >>{name}.conf"));
    }
    follow_manual(hosts, layout, &whole_block("Removing the arbiter", ""));
    let status = hosts.types(0, false, "mc_ctl status -M /srv/mc").out;
    assert!(status.contains("heartbeat_error_action switch, no arbiter"), "{status}");

    let manual = document("man/mirroring-controller.7");
    let address = ADDRESSES[ADMIN][2];
    let added = manual.lines().find(|line| line.starts_with("arb ")).expect("a line").replace("192.0.2.120", address);
    for (host, name) in NAMES[..2].iter().enumerate() {
        let edit = format!("echo '{added}' >>network.conf && sed -i '/^heartbeat_error_action/d' {name}.conf");
        hosts.types(host, false, &format!("cd /srv/mc && {edit}"));
    }
    assert!(moving[3].2.starts_with("mc_ctl init --show-join"), "{moving:?}");
    hosts.types(2, false, "rm -r /srv/mc/*");
    follow_manual(hosts, layout, &moving[3..]);
}

/// Runs the README's lines, and returns what `init` printed on the first server.
fn follow_the_readme(hosts: &Hosts, layout: Layout) {
    let lines = set_up();
    let last = lines.iter().rposition(|(.., line)| line.starts_with("mc_ctl rebuild")).expect("a rebuild");
    let needed = lines[..=last].iter().filter(|(.., line)| layout != Layout::Plain || !line.starts_with("systemctl"));
    eprintln!("{} commands to switchable", needed.clone().count());
    assert!(needed.clone().count() <= 12, "{lines:?}");
    let begin = Instant::now();
    let mut block = String::new();
    for (host, as_root, line) in needed {
        let line = &layout.line(line);
        let paste = if line.contains("--join") { block.as_str() } else { "" };
        let answer = hosts.tries(*host, *as_root, line, paste).expect(0, line);
        if *host == 0 && line.starts_with("mc_ctl init ") {
            for (host, as_root, line) in lines[..=last].iter().filter(|(host, ..)| *host > 0) {
                let line = layout.line(line.trim_end_matches(" --yes"));
                let line = if *as_root { format!("  # as root: {line}\n") } else { format!("  {line}") };
                assert!(
                    answer.out.contains(&line) || layout == Layout::Plain && line.contains("systemctl"),
                    "init on nd1 does not print what is run on {}: {line}",
                    NAMES[*host]
                );
            }
            block = block_for_join(&answer.out);
            assert!(!answer.out.contains("sesame") && !answer.out.contains("missing in"), "{}", answer.out);
        }
        if line.starts_with("mc_ctl rebuild") {
            let kept = hosts.tries(1, false, &format!("ls -d {}.old-*", layout.data()), "");
            assert_eq!(kept.code == 0, layout == Layout::Debian, "{}", kept.text());
            assert!(kept.out.lines().all(|old| answer.text().contains(old)), "{}", answer.text());
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    for (host, as_root, line) in &lines[last + 1..] {
        let answer = hosts.tries(*host, *as_root, line, "");
        if line.starts_with("mc_ctl check ") {
            let found = answer.out.lines().filter(|line| line.starts_with("ERROR ") || line.starts_with("WARNING "));
            let found: Vec<&str> = found.filter(|finding| !of_the_machine(finding)).collect();
            assert!(answer.code < 2 && found.is_empty() && answer.out.contains("\nCHECK "), "{}", answer.text());
        } else {
            answer.expect(0, line);
        }
    }
    eprintln!("{seconds:.1} s from the first command to switchable");
}

fn three_hosts(name: &str, layout: Layout) {
    let debian = layout == Layout::Debian || layout == Layout::DebianOneCluster;
    if debian && !bin_dir().starts_with("/usr/lib/postgresql") {
        println!("LEFT OUT: {} is not of Debian's packages", bin_dir().display());
        return;
    }
    let hosts = Hosts::new(name, layout);
    layout.make_cluster(&hosts, 0);
    if layout == Layout::Debian {
        layout.make_cluster(&hosts, 1);
    }
    follow_the_readme(&hosts, layout);

    let status = hosts.types(0, false, "mc_ctl status -M /srv/mc --arbiter").out;
    assert_eq!(status.lines().nth(2), Some("switchable"), "{status}");
    assert!(status.lines().any(|line| line.starts_with("arb ") && line.ends_with("online")), "{status}");
    for host in [0, 1] {
        // Nothing more to say, and nothing to change.
        let again = hosts.types(host, false, "mc_ctl init -M /srv/mc").out;
        assert!(again.starts_with("nothing had to be created") && !again.contains("missing in"), "{again}");
        assert!(!again.contains("BEGIN"), "{again}");
        let shown = hosts.types(host, false, "psql -qAtX -d postgres -c 'SHOW config_file'").out;
        let of_debian = format!("/etc/postgresql/{}/main/postgresql.conf", major());
        let expected = if debian { of_debian } else { format!("{}/postgresql.conf", layout.data()) };
        assert_eq!(shown.trim(), expected, "{}", NAMES[host]);
    }
    if debian {
        // Both have what pg_createcluster makes: names, modes, owners, and the same text but for what the servers' differ in.
        let dir = format!("/etc/postgresql/{}/main", major());
        let files = format!("cd {dir} && stat -c '%n %A %U:%G' . * && cat start.conf pg_ctl.conf environment");
        let [first, second] = [0, 1].map(|host| hosts.types(host, false, &files).out);
        assert_eq!(first, second);
        assert!(first.contains("start.conf -rw-r--r-- postgres:postgres") && first.contains("\nmanual\n"), "{first}");
        let listed = hosts.types(1, false, "pg_lsclusters -h").out;
        assert!(listed.contains(" online,recovery postgres "), "{listed}");
    }
    if layout == Layout::RedHat {
        let unit = format!("{}.service", layout.unit());
        let link = format!("printf '{}' >/etc/systemd/system/multi-user.target.wants/{unit}", layout.unit_text());
        hosts.types(0, true, &link);
        let again = hosts.types(0, false, "mc_ctl init -M /srv/mc").out;
        assert!(again.contains(&format!("as root: systemctl disable {unit}\n")), "{again}");
    }
    if layout == Layout::Plain || layout == Layout::RedHat {
        replace_the_arbiter(&hosts, layout);
    }
    if layout == Layout::Plain {
        move_the_arbiter(&hosts, layout);
    }
    start_at_boot(&hosts);
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
    if major() >= 14 {
        assert_eq!(ask(1, "--format uri --read-only").trim(), ADDRESSES[ADMIN][0]);
    }
    if layout == Layout::Plain || layout == Layout::RedHat {
        replace_a_server(&hosts, layout);
    }
}

#[test]
fn three_hosts_of_debian() {
    three_hosts("init-debian", Layout::Debian);
}

#[test]
fn three_hosts_of_debian_with_one_cluster() {
    three_hosts("init-debian-one", Layout::DebianOneCluster);
}

#[test]
fn three_hosts_of_red_hat() {
    three_hosts("init-red-hat", Layout::RedHat);
}

#[test]
fn three_hosts_by_hand() {
    three_hosts("init-plain", Layout::Plain);
}
