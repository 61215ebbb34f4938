//! `mc_ctl check` on real servers: a healthy pair has nothing but what is true of it, and what keeps the check itself from
//! looking. What provokes each finding is in `check_files.rs` (before the first start), `check_running.rs` and `check_pair.rs`.

use crate::harness::pair::{Pair, Setup};
use crate::harness::run::{Answer, run};
use crate::harness::s;
use serde_json::Value;

/// A pair that is set up as the manual says, but for the rules of `pg_hba.conf` that every pair of these tests has.
pub fn setup() -> Setup {
    Setup::default()
        .conf("heartbeat_error_action = 'switch'")
        .pg("wal_sender_timeout = 10s")
        .pg("wal_receiver_timeout = 10s")
        .pg("archive_mode = always")
        .pg("archive_timeout = 5min")
        .pg("archive_command = 'true'")
}

/// Moves both management directories to another filesystem.
pub fn apart(pair: &Pair) {
    for n in [0, 1] {
        let dir = pair.servers[n].management.to_str().expect("ASCII");
        let mount = "cp -a \"$0\" \"$0.old\" && mount -t tmpfs -o mode=700 none \"$0\" && cp -a \"$0.old/.\" \"$0\" && \
                     chown postgres: \"$0\" && rm -r \"$0.old\"";
        pair.as_root(n, &["sh", "-c", mount, dir]);
    }
}

/// What `mc_ctl check` says of a server.
pub struct Report {
    pub code: i32,
    pub json: Value,
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    pub code: String,
    pub severity: String,
    pub member: String,
    pub what: String,
    pub file: String,
    pub line: u64,
    pub fix: String,
}

impl Report {
    #[track_caller]
    pub fn of(answer: &Answer) -> Report {
        let json = serde_json::from_str(&answer.out).unwrap_or_else(|e| panic!("{e} in: {}", answer.text()));
        Report { code: answer.code, json }
    }

    pub fn findings(&self) -> Vec<Found> {
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let one = |finding: &Value| Found {
            code: text(finding, "code"),
            severity: text(finding, "severity"),
            member: text(finding, "member"),
            what: text(finding, "what"),
            file: text(finding, "file"),
            line: finding["line"].as_u64().unwrap_or(0),
            fix: text(finding, "fix"),
        };
        self.json["findings"].as_array().expect("findings").iter().map(one).collect()
    }

    pub fn find(&self, code: &str, member: &str) -> Option<Found> {
        self.findings().into_iter().find(|found| found.code == code && found.member == member)
    }

    /// Every code with its server, sorted, but for what is true of the machine of the tests: it is busy, may be short of
    /// room, and `apart` puts a directory into memory.
    pub fn codes(&self) -> Vec<String> {
        let machine = |code: &str| {
            code.ends_with("-late")
                || ["unsuitable-file-system", "disk-space", "backup-space", "link-unsteady", "oom-killer"]
                    .contains(&code)
        };
        let findings = self.findings();
        let of_the_pair = findings.iter().filter(|finding| !machine(&finding.code));
        let mut codes: Vec<_> = of_the_pair.map(|f| format!("{} {}", f.code, f.member)).collect();
        codes.sort();
        codes.dedup();
        codes
    }
}

/// `mc_ctl check --format json` on a server.
#[track_caller]
pub fn check(pair: &Pair, server: usize) -> Report {
    Report::of(&pair.mc(server, &["check", "--format", "json"]))
}

/// The finding, which must be there, and of which `mc_ctl check` as text tells in one line.
#[track_caller]
pub fn expect(pair: &Pair, server: usize, code: &str, member: &str) -> Found {
    let report = check(pair, server);
    let found = report.find(code, member).unwrap_or_else(|| panic!("no {code}: {:#}", report.json));
    assert!(!found.what.is_empty() && !found.fix.is_empty(), "{found:?}");
    let exit = match found.severity.as_str() {
        "error" => 2..=2,
        "warning" => 1..=2,
        _ => 0..=2,
    };
    assert!(exit.contains(&report.code), "{code}: exit code {}", report.code);
    found
}

/// The finding must have gone.
#[track_caller]
pub fn expect_gone(pair: &Pair, server: usize, code: &str, member: &str) {
    let report = check(pair, server);
    assert!(report.find(code, member).is_none(), "still {code}: {:#}", report.json);
}

/// A file of a server as its host sees it, which is put back at the end.
pub struct Edit<'a> {
    pair: &'a Pair,
    server: usize,
    path: String,
    old: String,
    new: String,
}

impl<'a> Edit<'a> {
    /// With these lines at the end.
    #[track_caller]
    pub fn append(pair: &'a Pair, server: usize, path: &str, lines: &str) -> Edit<'a> {
        Edit::change(pair, server, path, |old| format!("{}\n{lines}\n", old.trim_end_matches('\n')))
    }

    #[track_caller]
    pub fn change(pair: &'a Pair, server: usize, path: &str, change: impl Fn(&str) -> String) -> Edit<'a> {
        let seen = pair.host(server).path(std::path::Path::new(path));
        let old = std::fs::read_to_string(&seen).unwrap_or_default();
        let new = change(&old);
        assert_ne!(old, new, "nothing was changed in {path}");
        let edit = Edit { pair, server, path: path.into(), old, new: new.clone() };
        edit.write(&new);
        edit
    }

    fn write(&self, text: &str) {
        let write = "printf %s \"$1\" > \"$0\" && chown postgres: \"$0\" && chmod 600 \"$0\"";
        self.pair.as_root(self.server, &["sh", "-c", write, &self.path, text]);
    }

    /// The number of the last line that contains this.
    pub fn line(&self, text: &str) -> u64 {
        let last = self.new.lines().zip(1..).filter(|(line, _)| line.contains(text)).last();
        last.unwrap_or_else(|| panic!("no {text}")).1
    }
}

impl Drop for Edit<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.write(&self.old);
        }
    }
}

/// The path of a file in a server's data directory.
pub fn in_data(pair: &Pair, server: usize, file: &str) -> String {
    format!("{}/{file}", pair.data(server))
}

/// The path of a server's `ID.conf`.
pub fn id_conf(pair: &Pair, server: usize) -> String {
    let me = &pair.servers[server];
    format!("{}/{}.conf", me.management.display(), me.id)
}

/// The four rules that let anyone in; every pair of these tests has them.
const TRUST: &str = "hba-trust";
/// These pairs have `isolated_primary_action = 'wait'`.
const WAITS: &str = "isolated-primary-waits";

#[test]
fn a_healthy_pair() {
    let pair = setup().make();
    apart(&pair);
    let before = check(&pair, 0);
    assert_eq!(
        before.codes(),
        [format!("{TRUST} nd1"), format!("{WAITS} nd1"), "no-member-keys ".into(), "peer-not-seen nd1".into()],
        "{:#}",
        before.json
    );
    expect(&pair, 0, "peer-not-seen", "nd1");
    assert!(expect(&pair, 0, "no-member-keys", "").fix.contains("mc_ctl init -M "));
    pair.bring_up();
    for n in [0, 1] {
        let report = check(&pair, n);
        assert_eq!(report.code, 1, "{:#}", report.json);
        let own = pair.servers[n].id;
        let codes: Vec<_> = report.codes().into_iter().filter(|code| code.ends_with(own)).collect();
        let expected = [format!("{TRUST} {own}"), format!("{WAITS} {own}"), format!("peer-not-seen {own}")];
        assert!(codes.iter().all(|code| expected.contains(code)) && codes.contains(&expected[0]), "{:#}", report.json);
        let rules = report.findings().into_iter().filter(|f| f.code == TRUST && f.member == own);
        let lines: Vec<_> = rules.map(|found| (found.file, found.line)).collect();
        let hba = in_data(&pair, n, "pg_hba.conf");
        assert_eq!(lines, [4, 5, 8, 9].map(|line| (hba.clone(), line)));
        assert_eq!(report.json["server"], own);
    }
    let text = pair.mc(0, &["check", "--parameters"]);
    let lines: Vec<_> = text.out.lines().collect();
    let rule = format!("WARNING {TRUST} nd1: a rule accepts any client without authentication: ");
    assert!(lines[0].starts_with(&rule), "{}", text.out);
    let joined = text.out.replace("\n    ", " ");
    assert!(joined.lines().next().is_some_and(|line| line.contains("/pg_hba.conf:4) -> ")), "{}", text.out);
    assert!(
        lines.iter().filter(|line| !line.starts_with("parameter")).all(|line| line.chars().count() <= 120),
        "{}",
        text.out
    );
    assert!(lines.contains(&"parameter heartbeat_retry = 2 (default)"), "{}", text.out);
    assert!(lines.contains(&"parameter heartbeat_error_action = switch (line 2)"), "{}", text.out);
    assert!(lines.last().is_some_and(|line| line.starts_with("CHECK WARNING - 0 errors, ")), "{}", text.out);
    assert!(!text.out.contains('\x1b'));
}

/// What is wrong with the configuration is a finding; what is wrong with the question is UNKNOWN.
#[test]
fn what_cannot_be_checked() {
    let pair = setup().make();
    let conf = id_conf(&pair, 0);
    {
        let edit = Edit::append(&pair, 0, &conf, "heartbeat_intervall = 800");
        let found = expect(&pair, 0, "configuration", "");
        assert!(
            found.what.contains(&conf) && found.what.contains(&format!("line {}", edit.line("intervall"))),
            "{found:?}"
        );
    }
    expect_gone(&pair, 0, "configuration", "");
    {
        let _edit = Edit::change(&pair, 0, &in_data(&pair, 0, "PG_VERSION"), |_| "9.6\n".into());
        let found = expect(&pair, 0, "configuration", "");
        assert!(found.what.contains("belongs to PostgreSQL 9.6") && found.fix.contains("pg_upgrade"), "{found:?}");
    }
    let key = pair.servers[0].management.join("mc.key");
    pair.as_root(0, &["chmod", "644", key.to_str().expect("ASCII")]);
    assert!(expect(&pair, 0, "configuration", "").fix.contains("chmod 600"));
    pair.as_root(0, &["chmod", "600", key.to_str().expect("ASCII")]);
    let mut root = pair.host(0).command(crate::harness::pair::program().to_str().expect("ASCII"));
    root.args(["check", "-M"]).arg(&pair.servers[0].management);
    let answer = run(root, s(20)).expect(3, "mc_ctl check as root");
    assert!(answer.out.starts_with("CHECK UNKNOWN - mc_ctl cannot be run as root"), "{}", answer.text());
    let mut nowhere = pair.host(0).admin(crate::harness::pair::program().to_str().expect("ASCII"));
    nowhere.args(["check", "--format", "json"]);
    let report = Report::of(&run(nowhere, s(20)).expect(3, "mc_ctl check without a directory"));
    assert!(report.json["unknown"].as_str().is_some_and(|why| why.contains("MCCONTROLDIR")));
    assert_eq!(report.json["outcome"], "unknown");
}
