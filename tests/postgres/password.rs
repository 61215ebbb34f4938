//! The password of the database user and the certificates change while the pair serves: what fails at the next connection is
//! reported before, and `mc_ctl reload` puts the new password in effect everywhere.

use crate::harness::client::Style;
use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup, write_private};
use crate::harness::run::Answer;
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use std::time::Instant;

const WRONG: &str = "password authentication failed for user \"mc\"";
/// What all programs advise then.
const PASSWORD: &str = "et db_instance_password in ID.conf of both servers to the password of the database user";

/// A pair whose controllers and standbys connect as `mc`, with a password that `pg_hba.conf` demands everywhere.
pub fn guarded(setup: Setup) -> Pair {
    let pair = setup.conf("db_instance_username = 'mc'").conf("db_instance_password = 'first'").make();
    pair.pg_start(0);
    pair.sql(0, "CREATE ROLE mc LOGIN SUPERUSER PASSWORD 'first'");
    pair.sql(0, "CREATE ROLE rep LOGIN REPLICATION PASSWORD 'first'");
    pair.host(0).pg("pg_ctl", &["-D", pair.data(0), "-w", "stop"]).expect(0, "pg_ctl stop");
    for n in [0, 1] {
        let demand = "1i local all mc scram-sha-256\\nhost all,replication mc,rep 192.0.2.0/24 scram-sha-256";
        pair.as_root(n, &["sed", "-i", demand, &format!("{}/pg_hba.conf", pair.data(n))]);
    }
    conninfo(&pair, "mc", "first");
    pair.bring_up();
    pair
}

/// Sets user and password in `primary_conninfo` of the second server.
pub fn conninfo(pair: &Pair, user: &str, password: &str) {
    let edit = format!("s/user=[a-z]*\\( password=[a-z]*\\)\\?/user={user} password={password}/");
    pair.as_root(1, &["sed", "-i", &edit, &format!("{}/postgresql.auto.conf", pair.data(1))]);
}

pub fn new_password(pair: &Pair, server: usize, password: &str) {
    let text = std::fs::read_to_string(pair.conf(server)).expect("could not read");
    let lines = text.lines().filter(|line| !line.starts_with("db_instance_password"));
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    write_private(&pair.conf(server), &format!("{text}db_instance_password = '{password}'\n"));
}

/// `mc_ctl status` shows the failure as a WARNING, and so does `--check`.
#[track_caller]
fn wait_warning(pair: &Pair, server: usize, text: &str) {
    let what = format!("server {server} warns of: {text}");
    let status = wait_for(&what, s(60), || {
        let status = pair.mc(server, &["status"]).text();
        let own = |line: &&str| line.starts_with("WARNING: ") && !line.starts_with("WARNING: server ");
        status.lines().filter(own).any(|line| line.contains(text)).then_some(status)
    });
    assert!(status.contains("mc_ctl reload"), "no hint in {}", status);
    let check = pair.mc(server, &["status", "--check"]);
    assert!(check.code != 0 && check.out.contains(text), "{}", check.text());
}

/// Both servers are well, and warn of nothing.
#[track_caller]
fn wait_ok(pair: &Pair) {
    for n in [0, 1] {
        wait_for("status --check is OK", s(120), || (pair.mc(n, &["status", "--check"]).code == 0).then_some(()));
    }
}

fn receiver(pair: &Pair, standby: usize) -> String {
    pair.try_sql(standby, "SELECT pid FROM pg_stat_wal_receiver WHERE status = 'streaming'").unwrap_or_default()
}

/// Ends the WAL receiver, and waits for one that streams.
#[track_caller]
fn reconnect(pair: &Pair, standby: usize) {
    let before = receiver(pair, standby);
    end_receiver(pair, standby);
    wait_for("another WAL receiver streams", s(60), || {
        let now = receiver(pair, standby);
        (!now.is_empty() && now != before).then_some(())
    });
}

fn end_receiver(pair: &Pair, standby: usize) {
    // PostgreSQL ends and starts it when primary_conninfo has changed.
    let receiver = wait_for("a WAL receiver runs", s(60), || pair.host(standby).backend("walreceiver"));
    signal(receiver.pid, Signal::TERM);
}

/// A switch is refused until the primary's controller has seen that the standby streams again.
#[track_caller]
fn switch(pair: &Pair, server: usize) {
    wait_for("mc_ctl switch succeeds", s(60), || (pair.mc(server, &["switch"]).code == 0).then_some(()));
}

#[track_caller]
fn reload(pair: &Pair, server: usize) -> Answer {
    pair.mc(server, &["reload"]).expect(0, "mc_ctl reload")
}

/// The procedure of the manual: ALTER ROLE, the new password on both servers, mc_ctl reload on both. Then the WAL receiver
/// reconnects. No commit fails, and no server is switched.
#[track_caller]
fn rotate(pair: &Pair, primary: usize, password: &str) {
    let standby = 1 - primary;
    let client = pair.client(Style::OneSession);
    let (view, at) = (pair.ledger_of(primary), Instant::now());
    pair.sql(primary, &format!("ALTER ROLE mc PASSWORD '{password}'"));
    for n in [0, 1] {
        wait_warning(pair, n, WRONG);
        pair.wait_log(n, at, "MCA01233", s(60));
    }
    [0, 1].into_iter().for_each(|n| new_password(pair, n, password));
    for n in [primary, standby] {
        let answer = reload(pair, n);
        let written = answer.out.contains("password written to primary_conninfo; instance reloaded");
        assert!(written == (n == standby) && answer.err.is_empty(), "{}", answer.text());
    }
    assert!(pair.read(standby, "postgresql.auto.conf").contains(&format!("password={password}")));
    wait_ok(pair);
    reconnect(pair, standby);
    wait_ok(pair);
    client.wait_ack(Instant::now(), s(20));
    assert_eq!(client.last_error(), "", "a commit failed");
    assert_eq!(pair.ledger_of(primary), view, "the view has changed");
    client.check(pair, primary, &[primary]);
}

#[test]
fn rotation_under_load() {
    let pair = guarded(Setup::default());
    rotate(&pair, 0, "second");
    // the controllers are started again with the password, and a rebuild uses it
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    pair.rebuild(1, &["--method", "basebackup"]);
    reconnect(&pair, 1);
    // the same with the roles exchanged; nd1 was never a standby, and its rebuild writes the password
    switch(&pair, 1);
    pair.wait_switched(0);
    pair.rebuild(0, &[]);
    wait_ok(&pair);
    rotate(&pair, 1, "third");
    switch(&pair, 0);
    pair.wait_switched(1);
    // the file is older than the password
    let stale = "s/password=third/password=second/";
    pair.as_root(1, &["sed", "-i", stale, &format!("{}/postgresql.auto.conf", pair.data(1))]);
    pair.rebuild(1, &["--method", "basebackup"]);
    assert!(pair.read(1, "postgresql.auto.conf").contains("password=third"));
    reconnect(&pair, 1);
    wait_ok(&pair);
}

/// The new password reaches a server before ALTER ROLE: reload reports it, and the connections keep the old one until the
/// primary accepts the new one.
#[test]
fn a_password_before_its_time() {
    let pair = guarded(Setup::default());
    let client = pair.client(Style::OneSession);
    let at = Instant::now();
    new_password(&pair, 1, "second");
    let answer = reload(&pair, 1);
    assert!(answer.err.contains(WRONG) && !answer.out.contains("written"), "{}", answer.text());
    assert!(pair.read(1, "postgresql.auto.conf").contains("password=first"));
    reconnect(&pair, 1);
    pair.sql(0, "ALTER ROLE mc PASSWORD 'second'");
    pair.wait_log(1, at, "MCA01235", s(60));
    reconnect(&pair, 1);
    new_password(&pair, 0, "second");
    reload(&pair, 0);
    wait_ok(&pair);
    assert_eq!(client.last_error(), "", "a commit failed");
    client.check(&pair, 0, &[0]);
    a_switch_with_a_rejected_password(&pair);
}

/// A switch warns of a password that the other server rejects. The rebuild ends with the error of the server as soon as the
/// standby is rejected, and the printed command completes it.
#[track_caller]
fn a_switch_with_a_rejected_password(pair: &Pair) {
    // Only the other server rejects it.
    pair.as_root(0, &["sed", "-i", "/^local all mc/d", &format!("{}/pg_hba.conf", pair.data(0))]);
    pair.sql(0, "SELECT pg_reload_conf()");
    new_password(pair, 0, "wrong");
    assert!(reload(pair, 0).err.contains(WRONG));
    let switched = pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
    assert!(switched.err.contains(WRONG) && switched.err.contains(PASSWORD), "{}", switched.text());
    let next = "HINT: To make server \"nd1\" the standby, run \"mc_ctl rebuild\" on it.";
    assert!(switched.err.contains(next), "{}", switched.text());
    pair.wait_switched(0);
    let line = pair.mc(1, &["status", "--check"]).expect(2, "mc_ctl status --check").out;
    assert!(line.contains("server \"nd2\" became the primary") && line.contains("mc_ctl rebuild"), "{line}");
    let rebuild = pair.mc(0, &["rebuild", "--yes"]).expect(1, "mc_ctl rebuild with a rejected password");
    assert!(rebuild.err.contains("cannot be completed") && rebuild.err.contains(PASSWORD), "{}", rebuild.text());
    assert_eq!(rebuild.err.lines().last().map(|line| line.contains("mc_ctl reload")), Some(true), "{}", rebuild.text());
    let failed = rebuild.err.lines().find(|line| line.contains("cannot be completed")).unwrap_or_default();
    assert_eq!(failed.matches(WRONG).count(), 1, "{}", rebuild.text());
    new_password(pair, 0, "second");
    reload(pair, 0);
    wait_ok(pair);
}

/// A repair is seen soon, although a rejected session is tried again after a minute: the role has the old password again.
#[test]
fn a_repaired_password() {
    let pair = guarded(Setup::default());
    for n in [0, 1] {
        // The controllers' sessions on their own servers need none.
        pair.as_root(
            n,
            &["sed", "-i", "s/^local all mc .*/local all mc trust/", &format!("{}/pg_hba.conf", pair.data(n))],
        );
        pair.sql(n, "SELECT pg_reload_conf()");
    }
    pair.sql(0, "ALTER ROLE mc PASSWORD 'second'");
    [0, 1].into_iter().for_each(|n| wait_warning(&pair, n, "the other server's instance rejects the password"));
    pair.sql(0, "ALTER ROLE mc PASSWORD 'first'");
    for n in [0, 1] {
        wait_for("the warning ends", s(40), || (pair.mc(n, &["status", "--check"]).code == 0).then_some(()));
    }
}

/// A standby that cannot reconnect reports the server's error, and so does a rebuild, which otherwise waits for ever.
#[test]
fn the_error_of_the_wal_receiver_is_reported() {
    let pair = guarded(Setup::default());
    conninfo(&pair, "rep", "first");
    pair.sql(1, "SELECT pg_reload_conf()");
    let text = "password authentication failed for user \"rep\"";
    wait_for("it connects as rep", s(30), || {
        (pair.sql(0, "SELECT usename FROM pg_stat_replication") == "rep").then_some(())
    });
    wait_ok(&pair);
    pair.sql(0, "ALTER ROLE rep PASSWORD 'other'");
    // while the old connection still streams
    wait_warning(&pair, 1, text);
    assert!(!receiver(&pair, 1).is_empty());
    end_receiver(&pair, 1);
    wait_for("it does not stream", s(30), || receiver(&pair, 1).is_empty().then_some(()));
    wait_warning(&pair, 1, text);
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    let rebuild = pair.mc(1, &["rebuild", "--yes", "--method", "basebackup"]).expect(1, "mc_ctl rebuild");
    assert!(rebuild.err.contains("cannot be completed") && rebuild.err.contains(text), "{}", rebuild.text());
    conninfo(&pair, "rep", "other");
    pair.host(1).pg("pg_ctl", &["reload", "-D", pair.data(1)]).expect(0, "pg_ctl reload");
    wait_ok(&pair);
}

/// A certificate of the server, signed by an authority that is made if it is missing, in its data directory. Returns the
/// authority's certificate.
fn certify(pair: &Pair, server: usize, authority: &str) -> String {
    let dir = pair.hosts[0].dir.join("ca");
    let make = "set -e; mkdir -p $1; cd $1; test -e $2.crt || openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=$2 \
                -keyout $2.key -out $2.crt; openssl req -newkey rsa:2048 -nodes -subj /CN=nd -keyout $0/server.key -out nd.csr; \
                openssl x509 -req -in nd.csr -CA $2.crt -CAkey $2.key -CAcreateserial -days 2 -out $0/server.crt; \
                chmod 600 $0/server.key; chown postgres: $0/server.key $0/server.crt";
    pair.as_root(server, &["sh", "-c", make, pair.data(server), dir.to_str().expect("ASCII"), authority]);
    std::fs::read_to_string(dir.join(format!("{authority}.crt"))).expect("a certificate")
}

/// The primary gets a certificate of another authority. The standby, which verifies it, reports that before it has to connect
/// again; with the authority's certificate the warning ends, and it reconnects.
#[test]
fn a_certificate_of_another_authority() {
    let pair = Setup::default().pg("ssl = on").make();
    let old = [0, 1].map(|n| certify(&pair, n, "old")).concat();
    let roots = pair.servers[1].management.join("root.crt");
    write_private(&roots, &old);
    let verify = format!("s|user=postgres|user=postgres sslmode=verify-ca sslrootcert={}|", roots.display());
    pair.as_root(1, &["sed", "-i", &verify, &format!("{}/postgresql.auto.conf", pair.data(1))]);
    pair.bring_up();
    wait_ok(&pair);
    let client = pair.client(Style::OneSession);
    let new = certify(&pair, 0, "new");
    pair.sql(0, "SELECT pg_reload_conf()");
    wait_warning(&pair, 1, "certificate verify failed");
    wait_for("the primary warns too", s(60), || {
        let check = pair.mc(0, &["status", "--check"]);
        (check.code == 1 && check.out.contains("server \"nd2\" reports: ")).then_some(())
    });
    assert!(!receiver(&pair, 1).is_empty(), "the old connection has ended");
    write_private(&roots, &format!("{old}{new}"));
    wait_ok(&pair);
    reconnect(&pair, 1);
    certify(&pair, 1, "new");
    pair.sql(1, "SELECT pg_reload_conf()");
    write_private(&roots, &new);
    let answer = reload(&pair, 1);
    assert!(answer.err.is_empty(), "{}", answer.text());
    reconnect(&pair, 1);
    assert_eq!(client.last_error(), "", "a commit failed");
    client.check(&pair, 0, &[0]);
    // The procedure of the manual: after a switch, the old primary verifies the new one in the same way.
    let keys = format!("sslmode=verify-ca sslrootcert={}", roots.display());
    pair.sql(0, &format!("ALTER SYSTEM SET primary_conninfo = '{keys}'"));
    switch(&pair, 1);
    pair.wait_switched(0);
    pair.rebuild(0, &[]);
    let written = pair.read(0, "postgresql.auto.conf");
    assert!(written.contains(&keys) && written.contains("host="), "{written}");
    assert_eq!(
        pair.sql(1, "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_replication USING (pid) WHERE state = 'streaming'"),
        "t"
    );
}
