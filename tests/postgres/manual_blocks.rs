//! Blocks of mirroring-controller(7) that show what happened, run as they are printed there in the situation that they are for,
//! with the directories of the test in place of the manual's.

use crate::harness::client::Style;
use crate::harness::pair::{Pair, Setup, own};
use crate::harness::run::{Answer, must, run};
use crate::harness::{bin_dir, s, wait_for};
use std::path::Path;
use std::time::Instant;

/// The text of the first block of a page after this text. Lines that end with a backslash are joined.
pub fn block(page: &str, after: &str) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(page));
    let text = text.unwrap_or_else(|e| panic!("could not read {page}: {e}"));
    let (_, text) = text.split_once(after).unwrap_or_else(|| panic!("{after:?} is not in {page}"));
    let (_, text) = text.split_once("\n.Bd -literal -offset indent\n").expect("a block");
    text.split("\n.Ed").next().unwrap_or_default().replace("\\e\n", " ")
}

/// A command of a page: the host, whether as root, and the line.
#[derive(Debug)]
pub struct Line {
    pub host: usize,
    pub root: bool,
    pub text: String,
}

/// The lines of a block that have a prompt.
pub fn lines(block: &str) -> Vec<Line> {
    let line = |line: &str| {
        let (prompt, text) = line.split_once(' ')?;
        let host = ["nd1", "nd2", "arb"]
            .iter()
            .position(|name| prompt.strip_prefix(name).is_some_and(|p| "$#".contains(p)))?;
        Some(Line { host, root: prompt.ends_with('#'), text: text.to_owned() })
    };
    block.lines().filter_map(line).collect()
}

/// The page with the procedures.
pub const MANUAL: &str = "mirroring-controller.7";

fn type_line(pair: &Pair, Line { host, root, text }: &Line) -> Answer {
    let answer = match (*host, *root) {
        (2, false) => pair.paste_to_arbiter(text),
        (host, false) => pair.paste(host, text),
        (host, true) => {
            let mut command = if host < 2 { pair.host(host) } else { pair.third() }.command("sh");
            command.args(["-c", text]);
            run(command, s(60))
        }
    };
    eprintln!("{}{} {text}\n{}", ["nd1", "nd2", "arb"][*host], if *root { '#' } else { '$' }, answer.text());
    answer.expect(0, text)
}

/// The second server is lost, and the first one serves alone until it ends too. The history of each, without a controller, and the
/// arbiter show it.
#[test]
fn who_has_served_alone() {
    let mut pair = Setup::default().arbiter().fast_network().up();
    let client = pair.client(Style::PerHost);
    let at = Instant::now();
    pair.host_mut(1).power_off();
    pair.net.cut(1);
    client.wait_ack_of(&[0], at, s(30));
    wait_for("nd1 serves alone", s(30), || (pair.view(0)?["mode"] == "degraded").then_some(()));
    client.pause();
    pair.host_mut(0).power_off();
    for n in [0, 1] {
        pair.host_mut(n).boot();
    }
    let lines = lines(&block(MANUAL, ".It 3: X has not served alone\n"));
    let [history, peer_history, arbiter] = &lines[..] else { panic!("{lines:?}") };
    // The history is not synced, and a power failure can take its last line.
    let noted = std::fs::read_to_string(pair.run_dir(0).join("history")).expect("a history");
    let (kept, _) = noted.trim_end().rsplit_once('\n').expect("lines");
    std::fs::write(pair.run_dir(0).join("history"), format!("{kept}\n")).expect("could not write the history");
    let shown = type_line(&pair, history).out;
    assert!(shown.contains(" -> nd1 serves alone") && shown.lines().count() == 1, "{shown}");
    let shown = type_line(&pair, peer_history).out;
    assert!(shown.contains(" -> mirrored, primary nd1"), "{shown}");
    let shown = type_line(&pair, arbiter).out;
    assert!(shown.contains("\nview: nd1 serves alone, term "), "{shown}");
    let confirm = self::lines(&block(MANUAL, "has none of these lines:"));
    assert!(type_line(&pair, &confirm[0]).out.contains("(MCA01100)"));
    let page = include_str!("../../man/mirroring-controller.7");
    assert!(page.contains("a history: Li X serves alone Ta yes\n"));
    assert!(page.contains("history of X: any other state, no WARNING (c) Ta no\n"));
    assert!(page.contains("arbiter: Li X serves alone Ta yes\n"));
}

/// The arbiter is lost, and then a server: the other server is forced to serve, by the lines of its section. The arbiter, which has
/// not received this, is started before the lost server.
fn forced(section: &str, lost: usize, word: &str) {
    let mut pair = Setup::default().arbiter().fast_network().up();
    let client = pair.client(Style::PerHost);
    pair.arb(&["stop"]).expect(0, "mc_arb stop");
    let at = Instant::now();
    pair.host_mut(lost).power_off();
    let forced = 1 - lost;
    pair.wait_log(forced, at, "MCA00019", s(20));
    let mut recorded = false;
    for mut line in lines(&block(MANUAL, section)) {
        let text = line.text.clone();
        let command: Vec<&str> = text.split_whitespace().take(3).collect();
        match command[..] {
            ["mc_ctl", _, "--force"] => {
                line.text = line.text.replace("--force ", "--force --yes ");
                let shown = type_line(&pair, &line);
                assert!(shown.err.contains("has not received this change"), "{}", shown.text());
            }
            ["mc_ctl", "status", _] => assert!(type_line(&pair, &line).out.contains(word)),
            ["systemctl", "start", "mirroring-arbiter"] => pair.start_arbiter(),
            ["mc_arb", "status", _] => {
                let (_, wanted) = line.text.rsplit_once(": ").expect("a comment");
                let shown = || pair.paste_to_arbiter(&line.text).out;
                let shows = || shown().contains(wanted).then_some(());
                wait_for("the arbiter shows the view", s(20), shows);
                recorded = true;
            }
            ["systemctl", "enable", "--now"] => {
                assert!(recorded);
                pair.host_mut(lost).boot();
                _ = pair.mc(lost, &["start", "-f", "-t", "20"]);
            }
            ["mc_ctl", "rebuild", _] if lost == 0 => _ = pair.rebuild(lost, &[]),
            _ => (),
        }
    }
    pair.wait_word(forced, "switchable");
    client.wait_ack_of(&[forced], Instant::now(), s(30));
    client.check(&pair, forced, if forced == 1 { &[0, 1] } else { &[0] });
}

#[test]
fn a_takeover_without_consent() {
    forced(".Ss Takeover without consent\n", 0, "switched");
}

#[test]
fn a_detach_without_consent() {
    forced(".Ss Commits wait\n", 1, "not-switchable");
}

/// The ledger of the first server cannot be read: while it is the standby, it receives the view from the primary; while it is the
/// primary, an operator adopts its data. The lines of the service manager are replaced by the one for hosts without it.
#[test]
fn a_lost_ledger() {
    let pair = Setup::default().arbiter().fast_network().up();
    let client = pair.client(Style::PerHost);
    let follow = |is_standby: bool, state: &str| {
        pair.mc(0, &["stop", "--mc-only"]).expect(0, "mc_ctl stop --mc-only");
        std::fs::write(pair.run_dir(0).join("ledger"), "garbage").expect("could not write the ledger");
        let mut start = None;
        for mut line in lines(&block(MANUAL, ".Ss The ledger cannot be read\n")) {
            line.text = line.text.replace("/data/15", pair.data(0));
            line.text = line.text.replace("/srv/mc", &pair.servers[0].management.display().to_string());
            if line.text.starts_with("ls ") {
                let found = pair.paste(0, &line.text);
                assert!(found.out.contains("PG_VERSION"), "{}", found.text());
                assert_eq!(found.out.contains("standby.signal"), is_standby, "{}", found.text());
            } else if line.text.starts_with("mc_ctl start ") {
                start = Some(pair.paste(0, &line.text));
            } else if line.text.starts_with("mc_ctl history ") {
                let shown = type_line(&pair, &line).out;
                assert!(shown.contains(&format!(" -> {state}, term ")) && shown.lines().count() == 1, "{shown}");
            } else if !line.text.starts_with("systemctl ") {
                type_line(&pair, &line);
            }
        }
        let moved = pair.run_dir(0).with_extension("bad");
        std::fs::remove_dir_all(moved).expect("the ledger was moved aside");
        start.expect("a start")
    };
    follow(false, "mirrored, primary nd1").expect(4, "the start of a primary without a ledger");
    let adopt = "mc_ctl start --adopt-data -f";
    let page = include_str!("../../man/mirroring-controller.7");
    assert!(page.contains(&format!("It primary Ta Li mirrored, primary nd1 Ta Ql {adopt}\n")));
    pair.paste(0, adopt).expect(0, adopt);
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
    pair.mc(1, &["switch"]).expect(0, "mc_ctl switch");
    pair.rebuild(0, &[]);
    pair.wait_roles(1, "switchable", ["standby", "primary"]);
    follow(true, "mirrored, primary nd2").expect(0, "the start of a standby without a ledger");
    pair.wait_roles(1, "switchable", ["standby", "primary"]);
    client.wait_ack(Instant::now(), s(20));
    client.check(&pair, 1, &[0, 1]);
}

/// Both servers have run alone, and a base backup has replaced the data of the first one. A copy of the replaced directory is
/// started beside it, and holds the rows that only that server had.
#[test]
fn a_copy_to_compare() {
    let pair = Setup::default().conf("heartbeat_error_action = message").up();
    let client = pair.client(Style::Everywhere);
    let ready = crate::force::force_both(&pair, &client);
    pair.wait_log(0, ready, "PANIC", s(20));
    wait_for("nd1 is stopped", s(20), || (!pair.instance_runs(0)).then_some(()));
    let (lost, ..) = *client.lost_on(&pair, 1).first().expect("rows that only nd1 has");
    pair.rebuild(0, &["--method", "basebackup"]);
    let disk = pair.servers[0].data.parent().expect("a parent").to_owned();
    let mut names = std::fs::read_dir(&disk).expect("could not read").flatten().map(|entry| entry.file_name());
    let old = names.find(|name| name.to_string_lossy().contains(".old-")).expect("the replaced directory");
    let (old, copy) = (disk.join(old).display().to_string(), disk.join("compare").display().to_string());
    let query = format!("SELECT count(*) FROM written WHERE id = {lost}");
    for mut line in lines(&block(MANUAL, "To compare rows")) {
        line.text = line.text.replace("/data/15.old-20261130T095803Z", &old).replace("/data/compare", &copy);
        line.text = line.text.replace("/usr/lib/postgresql/15/bin", bin_dir().to_str().expect("ASCII"));
        let asks = line.text.starts_with("psql ");
        if asks {
            line.text += &format!(" -Atc '{query}'");
        }
        let answer = type_line(&pair, &line);
        assert!(!asks || answer.out.trim() == "1", "{}", answer.text());
    }
    assert_eq!(pair.sql(0, &query), "0");
    pair.wait_roles(0, "switchable", ["standby", "primary"]);
}

/// A new key. The lines of the service manager are replaced by the commands that the text below the block names.
#[test]
fn a_new_key() {
    let pair = Setup::default().arbiter().fast_network().up();
    let page = include_str!("../../man/mirroring-controller.7");
    let (start_arbiter, start) = ("mc_arb start", "mc_ctl start --mc-only -f");
    assert!(page.contains(&format!("run\n.Ql {start_arbiter}\nand\n.Ql {start} .\n")));
    let view = pair.ledger_of(0);
    let key = |directory: &Path| std::fs::read_to_string(directory.join("mc.key")).expect("a key");
    let directories = [&pair.servers[0].management, &pair.servers[1].management, &pair.arbiter_dir()];
    let former = key(directories[0]);
    for mut line in lines(&block(MANUAL, ".Ss Changing mc.key or network.conf\n")) {
        if line.text.starts_with("...") {
            assert!(line.text.ends_with("# copy it to nd2 and arb"), "{}", line.text);
            for to in &directories[1..] {
                let paths = [directories[0], *to].map(|directory| directory.join("mc.key").display().to_string());
                must("cp", &["-p", &paths[0], &paths[1]]);
            }
            continue;
        }
        if let Some(unit) = line.text.strip_prefix("systemctl start ") {
            let own_start = if unit == "mirroring-arbiter" { start_arbiter } else { start };
            line = Line { root: false, text: own_start.to_owned(), ..line };
        }
        type_line(&pair, &line);
    }
    assert!(directories.iter().all(|directory| key(directory) != former));
    pair.wait_arbiter_named();
    pair.wait_word(0, "switchable");
    assert_eq!(pair.ledger_of(0), view, "the view has changed");
    let tail = lines(&block(MANUAL, ".Ss The controller does not start\n"));
    let tail = tail.iter().find(|line| line.text.starts_with("tail ")).expect("a look at the log");
    assert!(type_line(&pair, tail).out.contains("(MCA01100)"));
}

/// The standby's management directory is moved to another place.
#[test]
fn another_management_directory() {
    let pair = Setup::default().up();
    let old = pair.servers[1].management.display().to_string();
    let new = format!("{old}.moved");
    for mut line in lines(&block(MANUAL, ".Ss Moving the management directory\n")) {
        line.text = line.text.replace("/data/mc", &old).replace("/srv/mc", &new);
        type_line(&pair, &line);
    }
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
    assert!(Path::new(&new).join("nd2/ledger").exists());
    pair.paste(1, &format!("mc_ctl stop -M {new}")).expect(0, "mc_ctl stop");
}

/// The endpoint as mc_http(5) configures and queries it.
#[test]
fn the_endpoint() {
    let text = block("mc_http.5", ".Sh EXAMPLES\n");
    let (setting, queries) = text.split_once("\n\n").expect("a setting and queries");
    let pair = Setup::default().make();
    pair.server_line(0, setting);
    pair.bring_up();
    let queries: Vec<&str> = queries.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    let [primary, status] = queries[..] else { panic!("{queries:?}") };
    let primary = pair.paste(1, primary).expect(0, primary).out;
    assert!(primary.starts_with("HTTP/1.1 200"), "{primary}");
    let status = pair.paste(1, status).expect(0, status).out;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_else(|e| panic!("{e}: {status}"));
    assert_eq!(status["mirroring_status"], "switchable");
}

/// The hook of mc_hooks(5), installed and configured as the page shows, writes the line that the page shows.
#[test]
fn the_hook() {
    let script = block("mc_hooks.5", ".Sh EXAMPLES\n");
    let installed = block("mc_hooks.5", "Install the hook on both servers");
    let (install, settings) = installed.split_once("\n\n").expect("a command and settings");
    let shown = block("mc_hooks.5", "the file on the new primary nd2 contains:");
    let pair = Setup::default().make();
    for n in [0, 1] {
        let directory = pair.host(n).dir.join("hook").display().to_string();
        std::fs::create_dir(&directory).expect("could not create a directory");
        std::fs::write(Path::new(&directory).join("hook.sh"), format!("{script}\n")).expect("could not write");
        own(Path::new(&directory));
        let private =
            "mount -t tmpfs -o mode=755 none /usr/local/lib && mkdir /usr/local/lib/mc && mount -t tmpfs none /var/tmp";
        pair.as_root(n, &["sh", "-ec", private]);
        let [line] = &lines(install)[..] else { panic!("{install}") };
        type_line(&pair, &Line { host: n, root: line.root, text: format!("cd {directory} && {}", line.text) });
        pair.server_line(n, settings);
    }
    pair.bring_up();
    pair.mc(1, &["switch"]).expect(0, "mc_ctl switch");
    let log = pair.host(1).path(Path::new("/var/tmp/mc_hooks.log"));
    let (name, _) = shown.split_once(" term=").expect("a term");
    wait_for("the line of the page", s(20), || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.lines().any(|line| line.starts_with(&format!("{name} term="))).then_some(())
    });
}
