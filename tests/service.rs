//! What belongs to the system around the programs: `mc_std`, units, rc scripts, cron lines, log rotation, directories at boot,
//! completions. Each sample is given to the program that it is written for.
//!
//! Without a database; how units and scripts do with real servers is in `tests/postgres/service.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const PROGRAMS: [(&str, &str); 4] = [
    ("mc_ctl", env!("CARGO_BIN_EXE_mc_ctl")),
    ("mc_arb", env!("CARGO_BIN_EXE_mc_arb")),
    ("mc_std", env!("CARGO_BIN_EXE_mc_std")),
    ("mc_web", env!("CARGO_BIN_EXE_mc_web")),
];

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(sample(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[track_caller]
fn run(program: &str, package: &str, set: impl FnOnce(&mut Command)) -> Output {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut command = Command::new(program);
    command.env("PATH", path);
    set(&mut command);
    command.output().unwrap_or_else(|e| panic!("{program}: {e} (apt-get install {package})"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn write_program(path: &Path, script: &str) {
    // A shell of its own writes it: a file that is open for writing in this process cannot be run by another thread's child.
    let write = r#"printf '#!/bin/sh\n%s\n' "$2" >"$1" && chmod 755 "$1""#;
    let written = Command::new("sh").args(["-c", write, "sh"]).arg(path).arg(script).status();
    assert!(written.unwrap().success());
}

// -------------------------------------------------------------------------------------------------------------- mc_std

/// An installation whose `mc_ctl` says what it was given, and ends with 5.
fn installation() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("bin")).unwrap();
    write_program(&dir.path().join("bin/mc_ctl"), "echo \"$#: $*\"\nexit 5");
    dir
}

fn mc_std(arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(PROGRAMS[2].1, "", |command| _ = command.args(arguments));
    (output.status.code(), said(&output))
}

#[test]
fn mc_std_becomes_mc_ctl_of_the_installation() {
    let dir = installation();
    let install = dir.path().to_str().unwrap();
    let check = |arguments: &[&str], expected: &str| {
        let given = [&arguments[..1], &[install, "/m c"], &arguments[1..]].concat();
        assert_eq!(mc_std(&given), (Some(5), format!("{expected}\n")), "{arguments:?}");
    };
    check(&["start"], "3: start -M /m c");
    check(&["start", "-W", "-f", "--async-connect-arbiter"], "6: start -W -f --async-connect-arbiter -M /m c");
    check(&["start", "-t", "5", "--local-server", "nd1"], "7: start -t 5 --local-server nd1 -M /m c");
    check(&["stop"], "3: stop -M /m c");
    check(&["stop", "-e"], "4: stop -e -M /m c");
}

#[test]
fn mc_std_refuses_what_the_guide_refuses() {
    let dir = installation();
    let install = dir.path().to_str().unwrap();
    let refused = |arguments: &[&str], why: &str| {
        let (code, said) = mc_std(arguments);
        assert!(code == Some(2) && said.contains(why), "{arguments:?}: {code:?} {said}");
    };
    refused(&["start", install, "/mc", "-M", "/x"], "-M is not allowed");
    refused(&["start", install, "/mc", "-fM/x"], "-M is not allowed");
    refused(&["stop", install, "/mc", "-a"], "-a is not allowed");
    refused(&["stop", install, "/mc", "--mc-only", "-at9"], "-a is not allowed");
    refused(&["start", install, "/mc", "--nonsense"], "unexpected argument '--nonsense'");
    refused(&["status", install, "/mc"], "invalid value 'status'");
    refused(&["start", install], "mcdir");
    refused(&[], "installDir");
}

/// In another place than the installation's `bin`: beside itself; and nowhere.
#[test]
fn mc_std_finds_mc_ctl() {
    let (code, told) = mc_std(&["stop", "/nowhere", "/nowhere"]);
    assert!(code == Some(2) && told.starts_with("mc_ctl: "), "mc_ctl beside it was not run: {code:?} {told}");
    let alone = tempfile::tempdir().unwrap();
    let copy = alone.path().join("mc_std");
    assert!(Command::new("cp").arg(PROGRAMS[2].1).arg(&copy).status().unwrap().success());
    let output = run(copy.to_str().unwrap(), "", |command| _ = command.args(["stop", "/nowhere", "/mc"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("there is no program \"/nowhere/bin/mc_ctl\""), "{}", said(&output));
    let sbin = tempfile::tempdir().unwrap();
    fs::create_dir(sbin.path().join("sbin")).unwrap();
    write_program(&sbin.path().join("sbin/mc_ctl"), "exit 4");
    assert_eq!(mc_std(&["stop", sbin.path().to_str().unwrap(), "/mc"]).0, Some(4));
}

// --------------------------------------------------------------------------------------------------------------- units

const UNITS: [&str; 3] = ["mirroring-controller.service", "mirroring-arbiter.service", "mcoi.service"];

#[test]
fn units_are_what_systemd_takes() {
    let dir = tempfile::tempdir().unwrap();
    for unit in UNITS.into_iter().chain(["mirroring-web.service"]) {
        let mut unit_text = text(unit);
        for (name, path) in PROGRAMS {
            unit_text = unit_text.replace(&format!("/usr/local/bin/{name}"), path);
        }
        let copy = dir.path().join(unit);
        fs::write(&copy, unit_text).unwrap();
        let output = run("systemd-analyze", "systemd", |command| _ = command.args(["verify", "--man=no"]).arg(&copy));
        assert!(output.status.success() && said(&output).is_empty(), "{unit}: {}", said(&output));
    }
}

/// What keeps an instance alive whose controller is not, and what the watchdog leans on.
#[test]
fn units_leave_the_instance_alone() {
    for unit in UNITS {
        let unit_text = text(unit);
        let has = |line: &str| assert!(unit_text.lines().any(|l| l == line), "{unit} lacks {line}");
        has("KillMode=process");
        if unit == "mcoi.service" {
            has("Type=forking");
            continue;
        }
        ["Type=notify", "NotifyAccess=main", "WatchdogSec=10", "WatchdogSignal=SIGKILL", "Restart=on-failure"]
            .into_iter()
            .for_each(has);
    }
    // The directory survives a restart after a crash and nothing else.
    let directory = ["RuntimeDirectory=%N", "RuntimeDirectoryPreserve=restart"];
    assert!(directory.iter().all(|line| text(UNITS[0]).lines().any(|l| l == *line)));
}

#[test]
fn what_units_and_scripts_type_is_understood() {
    use mirroring_controller::cli;
    let set =
        |name: &str, what: &str| text(name).lines().find_map(|l| l.strip_prefix(what).map(str::to_owned)).unwrap();
    let options = set("mirroring-controller.rc", "START_OPTIONS=");
    for (command, line) in [
        (cli::command(), set("mirroring-controller.service", "ExecStart=")),
        (cli::command(), set("mirroring-controller.service", "ExecReload=")),
        (cli::command(), format!("mc_ctl start {} -M /mc", options.trim_matches('"'))),
        (cli::command(), "mc_ctl stop -M /mc".into()),
        (cli::arb::command(), set("mirroring-arbiter.service", "ExecStart=")),
        (cli::web::command(), set("mirroring-web.service", "ExecStart=")),
        (cli::web::command(), "mc_web stop -M /mc".into()),
        (cli::mc_std::command(), set("mcoi.service", "ExecStart=")),
        (cli::mc_std::command(), set("mcoi.service", "ExecStop=")),
    ] {
        let parsed = command.try_get_matches_from(line.split(' '));
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
}

// ------------------------------------------------------------------------------------------------------------- scripts

#[test]
fn rc_scripts_are_clean() {
    for name in ["mirroring-controller.rc", "mirroring-arbiter.rc", "mirroring-web.rc"] {
        let output = run("shellcheck", "shellcheck", |command| _ = command.arg(sample(name)));
        assert!(output.status.success(), "{}", said(&output));
        let header = text(name);
        for key in ["### BEGIN INIT INFO", "# Provides:", "# Required-Start:", "# Default-Stop:", "### END INIT INFO"] {
            assert!(header.contains(key), "{name} lacks {key}");
        }
    }
}

/// The exit statuses of the LSB for what does not need a server: a wrong word, nothing installed, nothing configured.
#[test]
fn rc_scripts_end_as_the_lsb_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let me = said(&run("id", "coreutils", |command| _ = command.arg("-un")));
    for (name, variable, program) in
        [("mirroring-controller.rc", "MC", PROGRAMS[0]), ("mirroring-arbiter.rc", "ARB", PROGRAMS[1])]
    {
        let script = |install: &str, directory: &str| {
            let copy = dir.path().join(name);
            let adapted = text(name)
                .replace(&format!("=/usr/local/bin/{}", program.0), &format!("={install}"))
                .replace(
                    &format!("{variable}CONTROLDIR=/{}", if variable == "MC" { "mc" } else { "arb" }),
                    &format!("{variable}CONTROLDIR={directory}"),
                )
                .replace("_USER=postgres", &format!("_USER={}", me.trim()))
                .replace("_USER=mcarb", &format!("_USER={}", me.trim()));
            fs::write(&copy, adapted).unwrap();
            copy
        };
        let code =
            |copy: &Path, words: &[&str]| run("sh", "dash", |command| _ = command.arg(copy).args(words)).status.code();
        let none = script("/nowhere/program", "/nowhere");
        assert_eq!(code(&none, &[]), Some(2));
        assert_eq!(code(&none, &["dance"]), Some(2));
        assert_eq!(code(&none, &["start", "more"]), Some(2));
        assert_eq!(code(&none, &["reload"]), Some(if variable == "MC" { 5 } else { 3 }));
        assert_eq!(code(&none, &["start"]), Some(5));
        assert_eq!(code(&none, &["status"]), Some(4));
        let unconfigured = script(program.1, "/nowhere");
        assert_eq!(code(&unconfigured, &["start"]), Some(6));
        assert_eq!(code(&unconfigured, &["stop"]), Some(0));
        assert_eq!(code(&unconfigured, &["status"]), Some(3));
        let empty = dir.path().join("empty");
        let _ = fs::create_dir(&empty);
        assert_eq!(code(&script(program.1, empty.to_str().unwrap()), &["start"]), Some(6), "{name}");
    }
}

/// Each cron line is run as cron would, beside a `mc_ctl` that says what it is told to.
#[test]
fn cron_lines_run() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = dir.path().join("metrics");
    fs::create_dir(&metrics).unwrap();
    let sample = text("mirroring-controller.cron");
    assert!(!sample.lines().filter(|l| !l.starts_with('#')).any(|l| l.contains('%')), "cron makes a line end of it");
    let lines: Vec<String> = sample
        .lines()
        .filter(|line| line.starts_with('*') || line.starts_with(|c: char| c.is_ascii_digit()))
        .map(|line| {
            line.splitn(6, ' ').nth(5).unwrap().replace("/var/lib/prometheus/node-exporter", metrics.to_str().unwrap())
        })
        .collect();
    assert_eq!(lines.len(), 5);
    let cron = |line: &str, code: u8| {
        write_program(&dir.path().join("mc_ctl"), &format!("echo \"$1 is said\"\nexit {code}"));
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        let output = Command::new("sh").args(["-c", line]).env("PATH", path).output().unwrap();
        said(&output)
    };
    assert_eq!(cron(&lines[0], 0), "");
    assert_eq!(cron(&lines[0], 2), "status is said\n");
    assert_eq!(cron(&lines[1], 0), "");
    assert_eq!(cron(&lines[1], 1), "check is said\n");
    let files =
        || fs::read_dir(&metrics).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>();
    for line in [&lines[2], &lines[3]] {
        assert_eq!(cron(line, 0), "");
        assert_eq!(cron(line, 1), "backup is said\n");
    }
    assert_eq!(cron(&lines[4], 0), "");
    assert_eq!(files(), ["mirroring.prom"]);
    assert_eq!(fs::read_to_string(metrics.join("mirroring.prom")).unwrap(), "status is said\n");
    assert_eq!(cron(&lines[4], 3), "");
    assert_eq!(files(), [""; 0]);
}

// --------------------------------------------------------------------------------------------------------- other files

#[test]
fn the_logrotate_file_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("mirroring-controller");
    let log = dir.path().join("mirroring-controller.log");
    fs::write(&log, "x\n").unwrap();
    fs::write(
        &copy,
        text("mirroring-controller.logrotate").replace("/var/log/mirroring-controller.log", log.to_str().unwrap()),
    )
    .unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).unwrap();
    let output = run("logrotate", "logrotate", |command| {
        command.arg("-d").arg("-s").arg(dir.path().join("state")).arg(&copy);
    });
    let said = said(&output);
    assert!(output.status.success() && !said.contains("error") && said.contains("considering log"), "{said}");
}

/// Where rsyslog is installed.
#[test]
fn the_rsyslog_file_is_taken() {
    if !Path::new("/usr/sbin/rsyslogd").exists() {
        return;
    }
    let output = run("rsyslogd", "rsyslog", |command| {
        _ = command.arg("-N1").arg("-f").arg(sample("mirroring-controller.rsyslog"));
    });
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn the_tmpfiles_are_made() {
    let root = tempfile::tempdir().unwrap();
    let number = |flag: &str| said(&run("id", "coreutils", |command| _ = command.arg(flag))).trim().to_owned();
    let (user, group) = (number("-u"), number("-g"));
    fs::create_dir(root.path().join("etc")).unwrap();
    let users = ["root", "postgres", "mcarb"];
    let lines = |line: &dyn Fn(&str) -> String| users.iter().map(|name| line(name)).collect::<String>();
    fs::write(root.path().join("etc/passwd"), lines(&|name| format!("{name}:x:{user}:{group}::/:/bin/sh\n"))).unwrap();
    fs::write(root.path().join("etc/group"), lines(&|name| format!("{name}:x:{group}:\n"))).unwrap();
    let output = run("systemd-tmpfiles", "systemd", |command| {
        let root = format!("--root={}", root.path().display());
        command.arg("--create").arg(root).arg(sample("mirroring-controller.tmpfiles"));
    });
    assert!(output.status.success() && said(&output).is_empty(), "{}", said(&output));
    for (directory, mode) in [("srv/mc", 0o700), ("var/lib/prometheus/node-exporter", 0o775)] {
        let found = fs::metadata(root.path().join(directory)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{directory}");
    }
}

// --------------------------------------------------------------------------------------------------------- completions

/// What a shell offers for a line whose last word is being typed, with the built programs in the way.
fn bash_offers(program: &str, words: &[&str]) -> Vec<String> {
    let script = format!(
        "source '{}'\nCOMP_WORDS=({program} {}); COMP_CWORD={}\n_{program} {program} \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        sample(&format!("completions/{program}.bash")).display(),
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        words.len(),
    );
    let bin = Path::new(PROGRAMS[0].1).parent().unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let output = Command::new("bash").args(["--norc", "-c", &script]).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let offers = String::from_utf8_lossy(&output.stdout);
    offers.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes() {
    let mut verbs = bash_offers("mc_ctl", &["st"]);
    verbs.sort();
    assert_eq!(verbs, ["start", "status", "stop"]);
    assert_eq!(bash_offers("mc_ctl", &["status", "--format", "p"]), ["prometheus"]);
    assert_eq!(bash_offers("mc_ctl", &["rebuild", "--dr"]), ["--dry-run"]);
    assert_eq!(bash_offers("mc_arb", &["fo"]), ["forget"]);
    // Hidden verbs stay hidden.
    assert_eq!(bash_offers("mc_ctl", &["compl"]), [""]);
    let all = bash_offers("mc_ctl", &[""]);
    for verb in mirroring_controller::cli::command().get_subcommands() {
        assert_eq!(all.iter().any(|word| word == verb.get_name()), !verb.is_hide_set(), "{}: {all:?}", verb.get_name());
    }
}

/// Zsh and fish where they are installed.
#[test]
fn other_shells_complete() {
    let bin = Path::new(PROGRAMS[0].1).parent().unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let shell = |program: &str, script: &str| {
        if !Path::new("/usr/bin").join(program).exists() {
            return None;
        }
        Some(Command::new(program).args(["-c", script]).env("PATH", &path).output().unwrap())
    };
    let file = sample("completions/mc_ctl.fish");
    if let Some(output) = shell("fish", &format!("source {}; complete -C 'mc_ctl st'", file.display())) {
        let offers: Vec<_> = said(&output).lines().map(|l| l.split('\t').next().unwrap().to_owned()).collect();
        assert_eq!(offers, ["start", "status", "stop"], "{}", said(&output));
    }
    let file = sample("completions/_mc_ctl");
    let script = format!("autoload -U compinit && compinit -u -D; source {}; print $_comps[mc_ctl]", file.display());
    if let Some(output) = shell("zsh", &script) {
        assert_eq!(said(&output), "_mc_ctl\n");
    }
}

/// Programs in a directory that other users can write to are not run.
#[test]
fn quickstart_runs_nothing_from_a_directory_of_another_user() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, ran) = (parent.path().join("pair"), parent.path().join("ran"));
    fs::create_dir_all(dir.join("bin")).unwrap();
    fs::write(dir.join(".quickstart"), "").unwrap();
    write_program(&dir.join("bin/mc_arb"), &format!("touch {}", ran.display()));
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    let quickstart = |dir: &Path| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/quickstart.sh");
        Command::new("sh").arg(script).arg("--clean").arg("--dir").arg(dir).output().unwrap()
    };
    let refused = quickstart(&dir);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("other users can write to it"), "{text}");
    let link = parent.path().join("link");
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    assert!(!quickstart(&link).status.success());
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&dir, Some(65534), None).unwrap();
        let refused = quickstart(&dir);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && text.contains("belongs to another user"), "{text}");
    }
    assert!(dir.exists() && !ran.exists());
}
