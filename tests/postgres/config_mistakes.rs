//! Mistakes in the files of a server whose controller runs: the commands that only talk to the controller work with what it
//! uses, and report the mistake.

use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup, write_private};
use crate::harness::run::Answer;
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::Instant;

/// The commands that only talk to the controller, with their exit status on a mirrored pair.
const COMMANDS: &[(&[&str], i32)] = &[
    (&["status"], 0),
    (&["status", "--check"], 1),
    (&["status", "--format", "json"], 0),
    (&["status", "--format", "prometheus"], 0),
    (&["history"], 0),
    (&["conninfo", "--format", "uri"], 0),
    (&["what-if", "standby-instance"], 0),
    (&["disable-failover"], 0),
    (&["status", "--check"], 1),
    (&["enable-failover"], 0),
    (&["detach", "--force", "--yes", "--no-fencing"], 4),
];

struct Mistake {
    file: PathBuf,
    /// The file with the mistake; `None`: it is removed.
    text: Option<String>,
    /// What the warning contains.
    named: Vec<String>,
}

fn mistakes(pair: &Pair) -> Vec<Mistake> {
    let (conf, network) = (pair.conf(0), pair.servers[0].management.join("network.conf"));
    let read = |file: &PathBuf| std::fs::read_to_string(file).expect("could not read");
    let add = |file: &PathBuf, line: &str, named: &str| {
        let text = read(file);
        let place = format!("{}\", line {}", file.display(), text.lines().count() + 1);
        Mistake { file: file.clone(), text: Some(format!("{text}{line}\n")), named: vec![place, named.to_owned()] }
    };
    let missing = |file: &PathBuf| Mistake {
        file: file.clone(),
        text: None,
        named: vec![file.display().to_string(), "mc_ctl init".to_owned()],
    };
    let port = read(&network).replace("27540", "275400");
    vec![
        add(&conf, "heartbeat_intervall = 800", "Perhaps you meant heartbeat_interval"),
        add(&conf, "heartbeat_retry = -1", "allowed: 0 to"),
        add(&conf, "heartbeat_retry 2", "A line is: key = value"),
        missing(&conf),
        Mistake {
            file: network.clone(),
            text: Some(port),
            named: vec!["network.conf\", line 1".into(), "275400".into()],
        },
        add(&network, "nd3 203.0.113.7 27540", "a third server"),
        add(&network, "nd3", "A line is: identifier host"),
        missing(&network),
    ]
}

/// A warning, once, that names the mistake and what to do.
#[track_caller]
fn warned(answer: &Answer, named: &[String]) {
    assert_eq!(answer.err.matches("WARNING: ").count(), 1, "{}", answer.text());
    assert!(answer.err.contains("\nHINT: "), "{}", answer.text());
    for text in named {
        assert!(answer.err.contains(text), "{text:?} is not in: {}", answer.text());
    }
}

/// The watcher ends a moment after its controller.
fn gone(pair: &Pair) {
    wait_for("controller and watcher are gone", s(20), || pair.host(0).controllers().is_empty().then_some(()));
}

#[test]
fn a_mistake_disables_no_command_of_a_running_controller() {
    let pair = Setup::default().up();
    for Mistake { file, text, named } in mistakes(&pair) {
        let good = std::fs::read_to_string(&file).expect("could not read");
        let before = pair.mc(0, &["conninfo", "--format", "uri"]).out;
        match &text {
            Some(text) => write_private(&file, text),
            None => std::fs::remove_file(&file).expect("could not remove"),
        }
        for (words, code) in COMMANDS {
            let answer = pair.mc(0, words).expect(*code, &format!("mc_ctl {} with {named:?}", words.join(" ")));
            warned(&answer, &named);
            match words {
                ["conninfo", ..] => assert_eq!(answer.out, before),
                ["status", "--check"] => {
                    let what = answer.out.starts_with("MIRRORING WARNING - ") && answer.out.contains(&named[0]);
                    assert!(what, "{}", answer.text());
                }
                ["status", "--format", "json"] => {
                    let status: serde_json::Value = serde_json::from_str(&answer.out).expect("JSON");
                    let mistake = status["configuration_error"].as_str().unwrap_or_default();
                    assert!(mistake.contains(&named[0]), "{}", answer.text());
                }
                _ => (),
            }
        }
        for words in [&["start", "-w"][..], &["rebuild", "--yes"], &["check"]] {
            let answer = pair.mc(0, words);
            // The lines of the check are wrapped.
            let shown = answer.text().split_whitespace().collect::<Vec<_>>().join(" ");
            let what = named.iter().all(|text| shown.contains(text));
            assert!(answer.code == 2 && what, "{words:?}: {}", answer.text());
        }
        write_private(&file, &good);
        assert_eq!(pair.mc(0, &["status"]).expect(0, "mc_ctl status").err, "");
        assert!(pair.mc(0, &["status", "--format", "json"]).out.contains("\"configuration_error\": null"));
    }
    pair.mc(0, &["status", "--check"]).expect(0, "mc_ctl status --check");
    pair.wait_word(0, "switchable");
}

/// Kills the controller of nd1; its watcher runs on.
fn kill_controller(pair: &Pair) -> u32 {
    let pid = pair.controller(0).pid;
    signal(pid, Signal::KILL);
    pid
}

/// A controller that dies while a file contains a mistake is started again with what it read before, and reports that.
#[test]
fn a_mistake_prevents_no_restart() {
    let pair = Setup::default().conf("db_instance_password = 'secret'").up();
    for Mistake { file, text, named } in mistakes(&pair).into_iter().step_by(3) {
        let good = std::fs::read_to_string(&file).expect("could not read");
        match &text {
            Some(text) => write_private(&file, text),
            None => std::fs::remove_file(&file).expect("could not remove"),
        }
        let at = Instant::now();
        let dead = kill_controller(&pair);
        wait_for("the controller runs again", s(30), || {
            let answer = pair.mc(0, &["status", "--check"]);
            (answer.code == 1 && answer.out.contains("switchable") && pair.controller(0).pid != dead).then_some(())
        });
        pair.wait_log(0, at, &named[0], s(20));
        write_private(&file, &good);
        pair.mc(0, &["reload"]).expect(0, "mc_ctl reload");
        pair.mc(0, &["status", "--check"]).expect(0, "mc_ctl status --check");
    }
    // The password was saved as well: the controller watches its instance.
    pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
}

/// While the watcher pauses between two attempts, commands report why they fail, and `mc_ctl start` has it make the next one.
#[test]
fn a_start_ends_the_pause_of_the_watcher() {
    let pair = Setup::default().up();
    let key = pair.servers[0].management.join("mc.key");
    let good = std::fs::read_to_string(&key).expect("could not read");
    write_private(&key, "no key\n");
    kill_controller(&pair);
    let named = |answer: &Answer| answer.text().contains("mc.key");
    // After several attempts it pauses for seconds.
    std::thread::sleep(s(8));
    for words in [&["status"][..], &["status", "--check"]] {
        let answer = pair.mc(0, words).expect(3, "mc_ctl status");
        assert!(named(&answer) && answer.text().contains("its watcher cannot start it"), "{}", answer.text());
    }
    write_private(&key, &good);
    let answer = pair.mc(0, &["start", "-w", "-f"]).expect(0, "mc_ctl start after the correction");
    assert!(answer.out.contains("server \"nd1\" is started as primary"), "{}", answer.text());
    pair.wait_word(0, "switchable");
    let answer = pair.mc(0, &["start", "-w"]).expect(4, "mc_ctl start of a running server");
    assert!(answer.err.contains("already running"), "{}", answer.text());
}

#[test]
fn a_mistake_keeps_no_controller_from_being_stopped() {
    let pair = Setup::default().up();
    for Mistake { file, text, named } in mistakes(&pair).into_iter().step_by(3) {
        let good = std::fs::read_to_string(&file).expect("could not read");
        let spoil = || match &text {
            Some(text) => write_private(&file, text),
            None => std::fs::remove_file(&file).expect("could not remove"),
        };
        for words in [&["stop", "-e"][..], &["stop", "--mc-only"]] {
            spoil();
            warned(&pair.mc(0, words).expect(0, "mc_ctl stop"), &named);
            gone(&pair);
            assert!(pair.instance_runs(0));
            pair.mc(0, &["status"]).expect(2, "mc_ctl status without a controller");
            pair.mc(0, &["start", "-w", "--mc-only"]).expect(2, "mc_ctl start");
            write_private(&file, &good);
            pair.mc(0, &["start", "-w", "--mc-only"]).expect(0, "mc_ctl start after the correction");
        }
        pair.wait_word(0, "switchable");
    }
    let Mistake { file, text, named } = mistakes(&pair).remove(0);
    let good = std::fs::read_to_string(&file).expect("could not read");
    write_private(&file, &text.expect("a text"));
    warned(&pair.mc(0, &["switch"]).expect(0, "mc_ctl switch"), &named);
    warned(&pair.mc(0, &["stop"]).expect(0, "mc_ctl stop"), &named);
    gone(&pair);
    assert!(!pair.instance_runs(0));
    write_private(&file, &good);
    pair.rebuild(0, &[]);
    pair.wait_roles(0, "switchable", ["standby", "primary"]);
}
