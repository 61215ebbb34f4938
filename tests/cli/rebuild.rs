//! `mc_ctl rebuild`: what it wants before it orders one, and how it follows what the controller tells.

use super::{Ran, Site};
use mirroring_controller::daemon::{Inbox, connections, control};
use mirroring_controller::fsm::event::{Event, Rebuild, Reply, Request};
use mirroring_controller::fsm::report::{HostRole, HostStatus, Progress, Rebuilding, Report, ServerReport, Word};
use mirroring_controller::fsm::types::{Method, Mode, OldData, RebuildOrder, Server, SystemId, Term, Time, View};
use mirroring_controller::rebuild::{self, Chosen, Lost};
use mirroring_controller::status::{ConnectionFailure, MemberName, Purpose, Snapshot};
use std::fs;
use std::process::Stdio;

/// A rebuild starts the controller where none runs, on an empty data directory too, and puts nothing there. Nobody says that
/// he is the primary.
#[test]
fn a_rebuild_wants_the_other_servers_word() {
    let site = Site::new();
    site.write("network.conf", "nd1 127.0.0.1 27606\nnd2 203.0.113.77 27606\n");
    let line = format!("db_instance = '{}'\nheartbeat_error_action = 'switch'\n", site.data().display());
    site.write("nd1.conf", &format!("{line}heartbeat_interval = 100\nheartbeat_timeout = '200ms'\n"));
    for args in ["rebuild --dry-run", "rebuild", "rebuild --yes --method basebackup --old-data delete -t 5"] {
        let began = std::time::Instant::now();
        site.run(args).refused(
            4,
            &[
                "server \"nd1\" cannot be rebuilt now: the other server's controller does not respond",
                "on server \"nd2\"",
            ],
        );
        assert!(began.elapsed() < std::time::Duration::from_secs(15), "{args}");
    }
    assert_eq!(site.run("stop -e").code, 0);
    for name in ["PG_VERSION", "postgresql.conf"] {
        fs::remove_file(site.data().join(name)).unwrap();
    }
    for empty in [true, false] {
        let ran = site.run("rebuild");
        ran.refused(4, &["is not running; it is started as with \"mc_ctl start --mc-only", "cannot be rebuilt now"]);
        let status = site.run("status");
        assert!(status.out.contains("nd1        none(unknown)"), "{status:?}");
        site.run("start").refused(2, &["mc_ctl rebuild"]);
        assert_eq!(site.run("stop -e").code, 0);
        if empty {
            // An interrupted check of the disk leaves its file.
            for file in fs::read_dir(site.data()).unwrap().map(|entry| entry.unwrap().path()) {
                assert!(file.to_string_lossy().contains("/pgsql_tmp_mirroring_controller_"), "{file:?}");
                fs::remove_file(file).unwrap();
            }
            fs::remove_dir(site.data()).expect("nothing was put into it");
        }
        assert!(!site.data().exists());
    }
}

/// A control socket that tells what a test says, in the place of a controller.
struct Told {
    board: control::Board,
    rebuilds: rebuild::Board,
    connections: connections::Board,
    events: crossbeam_channel::Receiver<(Time, Event)>,
    report: Report,
}

impl Told {
    /// `nd1` has lost its role to `nd2`.
    fn new(site: &Site) -> Told {
        let (nd1, nd2) = (Server::First, Server::Second);
        let row = |server, role| ServerReport {
            role,
            host: HostStatus::Normal,
            processes: Some(vec![]),
            disk: Some(String::new()),
            ..ServerReport::blank(server)
        };
        let view = View {
            term: Term(2),
            primary: nd2,
            mode: Mode::Degraded,
            data: Default::default(),
            arbiter: None,
            forced: false,
        };
        let source = Rebuild {
            order: RebuildOrder::default(),
            source: "203.0.113.77:5432".into(),
            system: SystemId(7),
            names: "nd2".into(),
            doubt: Default::default(),
        };
        let report = Report {
            word: Word::Switched,
            servers: [row(nd1, HostRole::InactivatedPrimary), row(nd2, HostRole::Primary)],
            view: Some(view),
            peer_lives: true,
            progress: Progress::Settled,
            rebuild_from: Ok(source),
            ..Report::blank(nd1)
        };
        let name = |id: &str| MemberName { id: id.into(), host: "127.0.0.1".into() };
        let snapshot = Snapshot {
            now: Time(0),
            alive: Time(0),
            pid: 1,
            version: "0".into(),
            started: Time(0),
            start_id: 1,
            servers: [name("nd1"), name("nd2")],
            arbiter: None,
            clients: Default::default(),
            wall_ms: 0,
            noted: None,
            report: report.clone(),
            rebuild: None,
            checkpoint: None,
            space: Vec::new(),
            ledger_error: None,
            connections: Vec::new(),
            bin_dir: None,
            peer_failing: Vec::new(),
            backups: None,
        };
        let run_dir = site.dir().join("nd1");
        fs::create_dir(&run_dir).unwrap();
        let (inbox, events) = Inbox::new();
        let rebuilds = rebuild::Board::default();
        let connections = connections::Board::default();
        let boards = (Default::default(), connections.clone(), Default::default());
        let board = control::Board::new(snapshot, rebuilds.clone(), Default::default(), boards, inbox);
        let socket = control::Control::bind(&run_dir).unwrap().serve(board.clone()).unwrap();
        site.own(&run_dir, 0o700);
        site.own(&socket, 0o600);
        let told = Told { board, rebuilds, connections, events, report };
        told.now(|_| ());
        told
    }

    fn now(&self, change: impl FnOnce(&mut Report)) {
        let mut report = self.report.clone();
        change(&mut report);
        self.board.alive(mirroring_controller::daemon::now());
        self.board.publish(report);
    }

    fn copies(&self, chosen: Option<Chosen>, step: &str, done: u64) {
        let lost = Lost {
            time_ms: 0,
            timeline: 1,
            from: "0/3000000".into(),
            to: "0/3001000".into(),
            transactions: 2,
            first_commit: String::new(),
            last_commit: String::new(),
            relations: vec!["app.public.t".into()],
            more_relations: false,
            maybe_acknowledged: false,
            doubt: Default::default(),
            kept: "/mc/nd1/lost/x".into(),
        };
        self.rebuilds.write(Some(rebuild::Progress {
            chosen,
            why: "the histories have parted".into(),
            continued: false,
            step: step.into(),
            done,
            total: if chosen.is_some() { 4 << 20 } else { 0 },
            elapsed_ms: 2_000,
            lost: chosen.map(|_| lost),
            kept_configuration: Vec::new(),
            removed_slots: Vec::new(),
        }));
        self.now(|report| report.rebuilding = Rebuilding::Copying);
    }

    /// What is ordered, which is granted.
    fn ordered(&self) -> RebuildOrder {
        let limit = std::time::Duration::from_secs(20);
        match self.events.recv_timeout(limit).expect("nothing is asked for").1 {
            Event::Request { id, request: Request::Rebuild(order), .. } => {
                self.now(|report| report.rebuilding = Rebuilding::Waiting("a pause".into()));
                self.board.reply(id, Reply::Done);
                order
            }
            event => panic!("{event:?}"),
        }
    }
}

/// A program that runs while the test continues; what it says is read as it comes.
struct Follow {
    child: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStderr>>,
    err: String,
}

impl Follow {
    fn start(site: &Site, args: &str) -> Follow {
        let mut command = site.command();
        command.args(["rebuild", "-M"]).arg(site.dir()).args(args.split(' '));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
        Follow { child, lines, err: String::new() }
    }

    fn until(&mut self, part: &str) {
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            self.err += &format!("{line}\n");
            if line.contains(part) {
                return;
            }
        }
        panic!("\"{part}\" is not said: {}", self.err);
    }

    fn end(mut self) -> Ran {
        for line in self.lines.by_ref() {
            self.err += &format!("{}\n", line.unwrap());
        }
        let output = self.child.wait_with_output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        Ran { code: output.status.code().unwrap_or(-1), out, err: self.err }
    }
}

#[test]
fn a_rebuild_is_followed_to_its_end() {
    let site = Site::new();
    let told = Told::new(&site);
    let mut follow = Follow::start(&site, "--yes --old-data delete");
    assert_eq!(told.ordered(), RebuildOrder { method: Method::Auto, old_data: OldData::Delete });
    follow.until(
        "server \"nd1\" becomes the standby of server \"nd2\". Its controller performs the rebuild, and continues if",
    );
    follow.until("mc_ctl: waiting: a pause");
    told.copies(None, "asking the other server", 0);
    follow.until("mc_ctl: asking the other server");
    told.copies(Some(Chosen::Rewind), "copying", 1 << 20);
    follow.until("mc_ctl: pg_rewind: the histories have parted");
    follow.until("mc_ctl: copying: 1.00 MiB of 4.00 MiB (25 %), 512.00 KiB/s, 6 s left");
    let status = site.run("status");
    assert!(status.out.ends_with("\nrebuild of nd1: copying: 1.00 MiB of 4.00 MiB (25 %), 512.00 KiB/s, 6 s left\n"));
    let json: serde_json::Value = serde_json::from_str(&site.run("status --format json").out).unwrap();
    assert_eq!((&json["rebuild"]["method"], &json["rebuild"]["bytes_done"]), (&"rewind".into(), &(1 << 20).into()));
    told.copies(Some(Chosen::Rewind), "copying", 4 << 20);
    told.now(|report| report.rebuilding = Rebuilding::Starting);
    follow.until("mc_ctl: the standby starts and catches up");
    let mirrored = |report: &mut Report| {
        report.view = report.view.map(|view| View { mode: Mode::Mirrored, term: Term(4), ..view });
        report.servers[0].role = HostRole::Standby;
    };
    told.now(|report| {
        mirrored(report);
        report.word = Word::NotSwitchable;
    });
    follow.until("mc_ctl: the pair is mirrored; the status is still \"not-switchable\"");
    told.now(|report| {
        mirrored(report);
        report.word = Word::FailoverDisabled;
    });
    let ran = follow.end();
    assert_eq!(ran.code, 0, "{ran:?}");
    let head = "server \"nd1\" is the standby of server \"nd2\"; the pair is failover-disabled\npg_rewind copied 4.00 MiB in 2 s; ";
    assert!(ran.out.starts_with(head), "{ran:?}");
    let kept = "only \"nd1\" had: 2 committed transactions, in app.public.t; none was acknowledged with synchronous_commit on (timeline 1, \
                0/3000000 to 0/3001000)\nthis WAL is saved in \"/mc/nd1/lost/x\"\n";
    assert!(ran.out.ends_with(kept), "{ran:?}");
    assert!(ran.err.ends_with("Run \"mc_ctl enable-failover\" to enable them.\n"), "{ran:?}");
}

/// It fails, is late, is under way already; who only asks what would be done is told so.
#[test]
fn a_rebuild_that_does_not_end_well() {
    let site = Site::new();
    let told = Told::new(&site);
    let follow = Follow::start(&site, "--yes --method rewind");
    assert_eq!(told.ordered(), RebuildOrder { method: Method::Rewind, old_data: OldData::Keep });
    told.now(|report| report.rebuilding = Rebuilding::Failed("no room on \"/data\"".into()));
    follow.end().refused(
        1,
        &[
            "the rebuild of server \"nd1\" failed: no room on \"/data\"",
            "HINT: Repair the cause",
            "mc_ctl rebuild\" again",
        ],
    );
    // The standby is rejected: the error of the primary, in the place of a reference to the log.
    let error = "FATAL: password authentication failed for user \"mc\"";
    told.connections.write(vec![ConnectionFailure::new(Purpose::Replication, error.into())]);
    let follow = Follow::start(&site, "--yes");
    told.ordered();
    told.now(|report| {
        report.rebuilding = Rebuilding::Failed("it does not stream\nHINT: see the log".into());
        report.servers[0].role = HostRole::Standby;
    });
    let text =
        format!("failed: it does not stream: {error}\nHINT: set db_instance_password in ID.conf of both servers");
    follow.end().refused(1, &[&text]);
    told.connections.write(Vec::new());
    // The last one has failed: another may be tried.
    let follow = Follow::start(&site, "--yes -t 1 --method basebackup");
    assert_eq!(told.ordered().method, Method::BaseBackup);
    told.copies(None, "asking the other server", 0);
    follow.end().refused(5, &["has not ended within 1 s", "HINT: It continues in the controller"]);
    site.run("rebuild --dry-run").refused(4, &["a rebuild is already in progress"]);
    let mut follow = Follow::start(&site, "-t 60");
    follow.until("a rebuild is already in progress; this command follows it");
    told.now(|report| report.rebuilding = Rebuilding::Failed("so".into()));
    follow.end().refused(1, &["failed: so"]);
    assert!(told.events.try_recv().is_err(), "nothing was ordered anew");
}

/// On a terminal: a bar with bytes, rate and time left, which is gone at the end; without colours.
#[test]
fn a_rebuild_shows_a_bar_on_a_terminal() {
    let site = Site::new();
    let told = Told::new(&site);
    let command = site.command();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap().to_owned()).collect();
    let line = format!("stty cols 120; {} rebuild --yes -M {}", words.join(" "), site.dir().display());
    let mut script = std::process::Command::new("script");
    script.args(["-qefc", &line, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null());
    let child = script.stdout(Stdio::piped()).spawn().expect("this test needs script: apt-get install bsdutils");
    told.ordered();
    for quarter in 0..=4 {
        told.copies(Some(Chosen::BaseBackup), "copying", quarter << 20);
        // As long as a look of mc_ctl's takes, and a drawing of the bar.
        std::thread::sleep(std::time::Duration::from_millis(400));
    }
    told.now(|report| {
        report.view = report.view.map(|view| View { mode: Mode::Mirrored, ..view });
        report.word = Word::Switchable;
    });
    let output = child.wait_with_output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{shown}");
    for part in
        ["pg_basebackup: the histories have parted", "copying [", "2.00 MiB/4.00 MiB 50%, ", "MiB/s, ", "s left\r"]
    {
        assert!(shown.contains(part), "\"{part}\" is missing in {shown:?}");
    }
    assert!(!shown.contains("\x1b[3"), "coloured: {shown:?}");
    assert!(shown.ends_with("this WAL is saved in \"/mc/nd1/lost/x\"\r\n"), "{shown:?}");
}
