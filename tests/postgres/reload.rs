//! `mc_ctl reload` and SIGHUP: what changes while the controller runs, what is reported, and files with a mistake.

use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup, new_key, write_private};
use crate::harness::script::Script;
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use std::time::Instant;

/// Replaces a text in a file.
#[track_caller]
fn edit(path: &std::path::Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).expect("could not read");
    assert!(text.contains(from), "{from:?} is not in {text}");
    write_private(path, &text.replace(from, to));
}

/// A hook changes; a heartbeat parameter, a member's port and a new hook are reported by name; a mistake changes nothing.
#[test]
fn what_changes_and_what_is_reported() {
    let pair = Setup::default().make();
    let [old, new] = ["old", "new"].map(|name| Script::new(pair.host(0), name, "exit 0"));
    let line = |script: &Script| script.line("pre_detach_command");
    pair.server_line(0, &line(&old));
    pair.bring_up();
    let (conf, network) = (pair.conf(0), pair.servers[0].management.join("network.conf"));
    let answer = pair.mc(0, &["reload"]).expect(0, "mc_ctl reload");
    assert!(answer.out.contains("no parameter has a new value") && answer.err.is_empty(), "{}", answer.text());

    // a mistake beside a change
    let good = std::fs::read_to_string(&conf).expect("could not read");
    write_private(&conf, &format!("{}retry = 2\n", good.replace(&line(&old), &line(&new))));
    let place = format!("{}\", line {}: unknown parameter \"retry\"", conf.display(), good.lines().count() + 1);
    let at = Instant::now();
    let answer = pair.mc(0, &["reload"]).expect(2, "mc_ctl reload with a mistake");
    assert!(answer.err.contains(&place) && answer.err.contains("\nHINT: "), "{}", answer.text());
    pair.wait_log(0, at, "MCA01232", s(10));
    write_private(&conf, &good);
    let answer = pair.run_explained(0, at, 1232);
    assert!(answer.out.contains("no parameter has a new value"), "{}", answer.text());

    let added = format!("heartbeat_interval = 900\n{}\n", new.line("post_attach_command"));
    write_private(&conf, &format!("{}{added}", good.replace(&line(&old), &line(&new))));
    let members = std::fs::read_to_string(&network).expect("could not read");
    edit(&network, "27540", "27541");
    let answer = pair.mc(0, &["reload"]).expect(0, "mc_ctl reload");
    assert_eq!(answer.out, "configuration files reloaded; new: pre_detach_command\n");
    for what in
        ["parameter \"heartbeat_interval\"", "parameter \"post_attach_command\"", "the line of \"nd1\" in network.conf"]
    {
        let text = format!("WARNING: {what} cannot be changed without restarting the controller\n");
        assert!(answer.err.contains(&text), "{text:?} is not in {}", answer.text());
    }
    write_private(&network, &members);
    key_is_reported(&pair);
    pair.wait_word(0, "switchable");
    pair.mc(0, &["detach"]).expect(0, "mc_ctl detach");
    wait_for("the new command is called", s(20), || (new.calls().len() == 1).then_some(()));
    assert!(old.calls().is_empty(), "the old command was called");

    // the watcher passes the signal on
    pair.server_line(0, "remote_call_timeout = 50s");
    let at = Instant::now();
    let controller = pair.controller(0).pid;
    let watcher = pair.host(0).controllers().into_iter().find(|p| p.pid != controller).expect("a watcher");
    signal(watcher.pid, Signal::HUP);
    pair.wait_log(0, at, "reloaded; new: remote_call_timeout (MCA01230)", s(20));
    pair.wait_log(0, at, "heartbeat_interval", s(20));
    assert_eq!(pair.controller(0).pid, controller);
}

/// A key that the file contains and the controller does not use yet is reported.
#[track_caller]
fn key_is_reported(pair: &Pair) {
    let path = pair.servers[0].management.join("mc.key");
    let good = std::fs::read_to_string(&path).expect("could not read");
    write_private(&path, &new_key());
    let answer = pair.mc(0, &["reload"]).expect(0, "mc_ctl reload");
    let text = "WARNING: the key in mc.key cannot be changed without restarting the controller\n";
    assert!(answer.err.contains(text) && answer.err.contains("\nHINT: "), "{}", answer.text());
    write_private(&path, &good);
    let answer = pair.mc(0, &["reload"]).expect(0, "mc_ctl reload");
    assert!(!answer.err.contains("mc.key"), "{}", answer.text());
}

/// Sessions of the controller that were opened since then.
fn opened_since(pair: &Pair, since: &str) -> usize {
    let query = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE client_port = -1 AND usename = 'postgres' AND backend_start > '{since}'"
    );
    pair.sql(0, &query).parse().expect("a number")
}

/// The controller connects with a new password as soon as it is reloaded.
#[test]
fn a_new_password() {
    let pair = Setup::default().conf("db_instance_password = 'first'").up();
    pair.sql(0, "ALTER ROLE postgres PASSWORD 'second'");
    let at = Instant::now();
    let demand = "sed -i '/^local/{/replication/!s/trust/scram-sha-256/}' \"$0\"/pg_hba.conf";
    pair.as_root(0, &["sh", "-c", demand, pair.data(0)]);
    pair.host(0).pg("pg_ctl", &["reload", "-D", pair.data(0)]).expect(0, "pg_ctl reload");
    pair.wait_log(0, at, "password", s(20));
    let since = pair.sql(0, "SELECT clock_timestamp()");
    std::thread::sleep(s(5));
    assert_eq!(opened_since(&pair, &since), 0, "a session was opened with the old password");
    edit(&pair.conf(0), "'first'", "'second'");
    let answer = pair.mc(0, &["reload"]).expect(0, "mc_ctl reload");
    assert_eq!(answer.out, "configuration files reloaded; new: db_instance_password\n");
    wait_for("a session with the new password", s(20), || (opened_since(&pair, &since) > 0).then_some(()));
    pair.wait_word(0, "switchable");
    pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
}

/// A controller that is started beside its running instance never shows that as inactivated.
#[test]
fn a_controller_beside_a_running_instance() {
    let pair = Setup::default().up();
    for (server, role) in [(0, "primary"), (1, "standby")] {
        pair.mc(server, &["stop", "--mc-only"]).expect(0, "mc_ctl stop --mc-only");
        pair.start(server, &["--mc-only", "-f"]);
        wait_for("the role is shown", s(30), || {
            let shown = pair.json(server)?["servers"][server]["host_role"].as_str()?.to_owned();
            assert!(!shown.contains("inactivated"), "{}", pair.json(server)?["servers"]);
            (shown == role).then_some(())
        });
    }
    pair.wait_word(0, "switchable");
}
