//! The samples of hooks, as an administrator installs them: an address that follows the primary, a PgBouncer that is pointed
//! to it, and a notification.

use crate::harness::host::Host;
use crate::harness::net::HUB;
use crate::harness::pair::{Pair, Setup, own, program};
use crate::harness::run::{Beside, run};
use crate::harness::writer::Writer;
use crate::harness::{need, s, sample, wait_for};
use postgres::{Config, NoTls};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

const ADDRESS: &str = "192.0.2.50";

/// Installs a sample on a server's host, with these lines (`name=value`) in place of its own.
pub fn install(pair: &Pair, n: usize, name: &str, lines: &[(&str, &str)]) -> PathBuf {
    let management = pair.servers[n].management.display().to_string();
    let ours = [("mc", management.as_str()), ("mc_ctl", program().to_str().expect("ASCII"))];
    let mut text = sample(name);
    for (key, value) in lines.iter().chain(&ours) {
        let line = text.lines().find(|line| line.starts_with(&format!("{key}="))).map(str::to_owned);
        if let Some(line) = line {
            text = text.replacen(&format!("\n{line}\n"), &format!("\n{key}={value}\n"), 1);
        } else {
            assert!(ours.iter().any(|(ours, _)| ours == key), "{name} has no line {key}=");
        }
    }
    let path = pair.host(n).dir.join(name);
    std::fs::write(&path, text).expect("could not write");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("could not chmod");
    own(&path);
    path
}

fn hook(pair: &Pair, n: usize, key: &str, path: &Path) {
    pair.server_line(n, &format!("{key} = '{}'", path.display()));
}

/// `PROGRAM check` every second on a host, as its service would.
fn checks(host: &Host, path: &Path) -> Beside {
    let mut command = host.admin("sh");
    command.args(["-c", &format!("while sleep 1; do {} check; done", path.display())]);
    Beside::start(command)
}

// --------------------------------------------------------------------------------------------------------- the address

fn has_address(pair: &Pair, n: usize) -> bool {
    let mut command = pair.host(n).command("ip");
    command.args(["-o", "address", "show", "dev", "eth0", "to", ADDRESS]);
    !run(command, s(10)).expect(0, "ip address").out.is_empty()
}

#[track_caller]
fn only_on(pair: &Pair, n: usize) {
    wait_for("the address on exactly one host", s(45), || {
        (has_address(pair, n) && !has_address(pair, 1 - n)).then_some(())
    });
}

/// What the sample says is to be put into sudoers, for the hosts of a pair.
fn allow(pair: &Pair, n: usize, script: &str) {
    let rules: String = script
        .lines()
        .filter_map(|line| line.strip_prefix("#   postgres ALL="))
        .fold(String::new(), |rules, line| rules + "postgres ALL=" + line + "\n");
    assert_eq!(rules.lines().count(), 3, "{rules}");
    let path = pair.host(n).dir.join("sudoers");
    std::fs::write(&path, rules).expect("could not write");
    let steps = "mount -t tmpfs -o mode=0755 none /etc/sudoers.d && cp \"$1\" /etc/sudoers.d/mc-vip && chmod 0440 /etc/sudoers.d/mc-vip";
    pair.as_root(n, &["sh", "-c", steps, "sh", path.to_str().expect("ASCII")]);
}

/// Crash of the primary, and a planned switch back: the client knows the address alone, and continues; the address is on one
/// host at the end of each.
#[test]
fn the_address_follows_the_primary() {
    for (program, package) in [("sudo", "sudo"), ("arping", "iputils-arping")] {
        need(program, package);
    }
    let pair = Setup::default().fast_network().make();
    let mut checking = Vec::new();
    for n in [0, 1] {
        let path = install(&pair, n, "vip.sh", &[]);
        allow(&pair, n, &sample("vip.sh"));
        hook(&pair, n, "post_switch_command", &path);
        hook(&pair, n, "post_attach_command", &path);
        checking.push(checks(pair.host(n), &path));
    }
    pair.bring_up();
    only_on(&pair, 0);
    let client = Writer::start(&pair, ADDRESS, 5432);
    client.wait_ack(Instant::now());
    pair.kill_postmaster(0);
    wait_for("the role", s(30), || (pair.try_sql(1, "SELECT pg_is_in_recovery()").ok()? == "f").then_some(()));
    client.wait_ack(Instant::now());
    only_on(&pair, 1);
    // also where nothing but the commands themselves moves it
    checking.clear();
    pair.mc(0, &["rebuild", "--yes"]).expect(0, "mc_ctl rebuild");
    pair.wait_word(1, "switchable");
    pair.mc(1, &["switch"]).expect(0, "mc_ctl switch");
    wait_for("the address on the new primary", s(30), || has_address(&pair, 0).then_some(()));
    pair.mc(1, &["rebuild", "--yes"]).expect(0, "mc_ctl rebuild");
    only_on(&pair, 0);
    client.wait_ack(Instant::now());
    client.check(&pair, 0);
}

// ----------------------------------------------------------------------------------------------------------- PgBouncer

fn start_pgbouncer(pair: &Pair, n: usize, file: &Path) {
    let dir = pair.host(n).dir.join("pgbouncer");
    let at = |name: &str| dir.join(name).display().to_string();
    let text = format!(
        "[pgbouncer]\nlisten_addr = *\nlisten_port = 6432\nunix_socket_dir = {}\nauth_type = trust\nauth_file = {}\n\
         logfile = {}\npidfile = {}\nserver_login_retry = 1\nserver_connect_timeout = 2\n%include {}\n",
        dir.display(),
        at("users"),
        at("log"),
        at("pid"),
        file.display()
    );
    std::fs::write(dir.join("users"), "\"postgres\" \"\"\n").expect("could not write");
    std::fs::write(dir.join("ini"), text).expect("could not write");
    own(&dir);
    let mut command = pair.host(n).admin("/usr/sbin/pgbouncer");
    command.args(["-q", "-d", &at("ini")]);
    run(command, s(30)).expect(0, "pgbouncer -d");
}

/// A PgBouncer on each server; the client knows that of the standby alone. After the crash of the primary both lead to the new one.
#[test]
fn pgbouncer_is_pointed_to_the_primary() {
    need("pgbouncer", "pgbouncer");
    let pair = Setup::default().fast_network().make();
    let mut paths = Vec::new();
    for n in [0, 1] {
        let dir = pair.host(n).dir.join("pgbouncer");
        std::fs::create_dir(&dir).expect("could not create a directory");
        own(&dir);
        let admin = format!("'host={} port=6432 user=pgbouncer dbname=pgbouncer'", dir.display());
        let file = dir.join("primary.ini").display().to_string();
        let lines = [("file", file.as_str()), ("admin", &admin), ("one", "nd1"), ("two", "nd2")];
        paths.push((install(&pair, n, "pgbouncer.sh", &lines), dir.join("primary.ini")));
        hook(&pair, n, "post_switch_command", &paths[n].0);
        hook(&pair, n, "post_attach_command", &paths[n].0);
    }
    pair.bring_up();
    for (n, (path, file)) in paths.iter().enumerate() {
        let check = pair.host(n).admin(path.to_str().expect("ASCII")).arg("check").status();
        assert!(check.expect("could not run nsenter").success());
        assert!(std::fs::read_to_string(file).expect("written").contains("* = host=192.0.2.100 port=5432"));
        start_pgbouncer(&pair, n, file);
    }
    let client = Writer::start(&pair, pair.servers[1].address, 6432);
    client.wait_ack(Instant::now());
    pair.kill_postmaster(0);
    wait_for("the role", s(30), || (pair.try_sql(1, "SELECT pg_is_in_recovery()").ok()? == "f").then_some(()));
    client.wait_ack(Instant::now());
    assert!(std::fs::read_to_string(&paths[1].1).expect("written").contains("* = host=192.0.2.110 port=5432"));

    // the old primary's calls nothing: there the script is called at intervals
    let _checks = checks(pair.host(0), &paths[0].0);
    let leads_to = || {
        let mut config = Config::new();
        config.host(pair.servers[0].address).port(6432).user("postgres").dbname("postgres").connect_timeout(s(2));
        let rows = config.connect(NoTls).ok()?.simple_query("SELECT host(inet_server_addr())").ok()?;
        rows.iter().find_map(|row| match row {
            postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
    };
    wait_for("the old primary's PgBouncer", s(30), || (leads_to()? == pair.servers[1].address).then_some(()));
    client.check(&pair, 1);
}

// -------------------------------------------------------------------------------------------------------- notification

/// Collects what is posted to it, and answers; with `answers` false, never.
fn sink(port: u16, answers: bool) -> Arc<Mutex<Vec<String>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let (posts, listener) = (Arc::clone(&told), TcpListener::bind((HUB, port)).expect("could not bind"));
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for mut stream in listener.incoming().flatten() {
            if !answers {
                silent.push(stream);
                continue;
            }
            let _ = stream.set_read_timeout(Some(s(5)));
            let mut text = String::new();
            let mut buffer = [0; 4096];
            while !text.contains("}") {
                match stream.read(&mut buffer) {
                    Ok(length) if length > 0 => text += &String::from_utf8_lossy(&buffer[..length]),
                    _ => break,
                }
            }
            posts.lock().expect("not poisoned").push(text);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    told
}

/// Every way that is set up tells; one that never answers keeps neither the others nor the pair waiting.
#[test]
fn a_notification_is_told_in_every_way() {
    need("curl", "curl");
    need("logger", "bsdutils");
    let pair = Setup::default().fast_network().make();
    let (answering, silent) = (sink(8080, true), sink(8081, false));
    for (n, port) in [(0, 8081), (1, 8080)] {
        let mail = pair.host(n).dir.join("mail");
        // the documented interface: any program that reads a message
        let mailer = format!("'tee -a {}'", mail.display());
        std::fs::write(&mail, "").expect("could not write");
        own(&mail);
        let url = format!("http://{HUB}:{port}/notify");
        let lines = [("url", url.as_str()), ("mail_to", "dba@example.com"), ("mailer", &mailer)];
        let path = install(&pair, n, "notify.sh", &lines);
        for key in ["post_switch_command", "pre_detach_command", "post_attach_command"] {
            hook(&pair, n, key, &path);
        }
    }
    let at = Instant::now();
    pair.bring_up();
    let mirrored = "mirrored with standby nd2, reported by nd1 (primary)";
    pair.wait_log(0, at, mirrored, s(30));
    // tried after the way that does not answer
    let mail = |n: usize| std::fs::read_to_string(pair.host(n).dir.join("mail")).unwrap_or_default();
    wait_for("the mail", s(30), || mail(0).contains(mirrored).then_some(()));
    pair.wait_log(0, at, "could not notify by http", s(30));
    pair.wait_log(0, at, "MCA01049", s(30));

    let at = pair.kill_postmaster(0);
    pair.wait_log(1, at, "mc-notify: mirroring: nd2 is now the primary; term ", s(45));
    let posted = || answering.lock().expect("not poisoned").iter().any(|post| post.contains("nd2 is now the primary"));
    wait_for("the post", s(30), || posted().then_some(()));
    wait_for("the mail", s(30), || mail(1).contains("Subject: mirroring: nd2 is now the primary").then_some(()));
    assert!(silent.lock().expect("not poisoned").is_empty());
}
