//! `mirroring-controller-guide(7)` is complete, and what it gives as ours exists: parameters, commands with their options,
//! messages, samples and sections of the manual.

use super::root;
use clap::error::ErrorKind;
use mirroring_controller::cli;
use mirroring_controller::config::{arbiter, params};
use mirroring_controller::messages::catalogue;
use std::collections::BTreeSet;
use std::fs;

const PAGE: &str = "mirroring-controller-guide.7";

/// Options of the guide for version 9.5 and of its later editions.
const OPTIONS: &str = "M w f a e -mc-only -local-server W F -async-connect-arbiter -arbiter -force -no-fencing";

/// Verbs of `mc_ctl` in the guide.
const VERBS: &str = "start stop status switch enable-failover disable-failover";

/// Its other names: parameters of PostgreSQL, commands and sample files.
const OTHERS: &str = "wal_level max_wal_senders synchronous_standby_names hot_standby wal_keep_segments wal_sender_timeout \
    wal_receiver_timeout archive_mode archive_command backup_destination listen_addresses max_connections \
    max_standby_archive_delay hot_standby_feedback vacuum_defer_cleanup_age max_wal_size recovery.conf pg_hba.conf .pgpass \
    register unregister pgx_dmpall pgx_rcvall pgx_xlogcopy.cmd pg_basebackup pg_rewind chkconfig systemctl \
    serverIdentifier hostName portNumber mc_network.conf.sample mc_server.conf.sample mcoi.service.sample rc_mcoi.sample";

/// Its sections: the edition for Linux, and those that only the edition for Windows has.
const SECTIONS: &str = "1.1 1.2 2.1 2.2 2.2.1 2.2.2 2.2.3 2.2.4 2.3 2.3.1 2.3.2 3.1 3.2 3.3.1 3.3.2 3.4.1 3.4.2 3.5 3.6.1 \
    3.6.2 3.7 3.8.1 3.8.2 3.8.3 3.8.4 3.9 3.10.1 3.10.2 4.1 4.2 4.3 4.4 4.5 4.6.1 4.6.2 4.7.1 4.7.2 4.7.3 5.1 5.1.1 5.1.1.1 \
    5.1.1.1.1 5.1.1.1.2 5.1.1.1.3 5.1.1.2 5.1.1.3 5.1.2 5.1.2.1 5.1.2.2 5.1.3 5.2 5.3 5.4 5.5 6.1 6.2 6.3 6.4 6.5 6.6 6.7 \
    6.8 A.1 A.2 A.3 A.4 B B.1 B.2 3.2.2 3.2.3 4.1.1 4.1.2 4.7.4 B.3 C.1 C.2";

fn page(name: &str) -> String {
    let path = root().join("man").join(name);
    fs::read_to_string(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()))
}

fn programs() -> [clap::Command; 3] {
    [cli::command(), cli::arb::command(), cli::mc_std::command()].map(|mut command| {
        command.build();
        command
    })
}

fn parameters() -> BTreeSet<&'static str> {
    params::TABLE.iter().chain(arbiter::TABLE).map(|row| row.name).collect()
}

/// The argument of each macro of this name, anywhere on the page.
fn arguments(text: &str, name: &str) -> BTreeSet<String> {
    let requests = text.lines().filter_map(|line| line.strip_prefix('.'));
    let words: Vec<Vec<&str>> = requests.map(|line| line.split_whitespace().collect()).collect();
    let pairs = words.iter().flat_map(|line| line.windows(2));
    pairs.filter(|pair| pair[0] == name).map(|pair| pair[1].to_owned()).collect()
}

/// The first cell of each row of a table.
fn rows(text: &str) -> BTreeSet<String> {
    let cell =
        |line: &str| line.strip_prefix(".It ").and_then(|row| row.split_once(" Ta")).map(|(cell, _)| cell.to_owned());
    text.lines().filter_map(cell).collect()
}

#[test]
fn the_guide_page_is_complete() {
    let text = page(PAGE);
    let (bold, flags, rows) = (arguments(&text, "Cm"), arguments(&text, "Fl"), rows(&text));
    let first: BTreeSet<&str> = rows.iter().flat_map(|cell| cell.split([' ', ','])).collect();
    for name in parameters().into_iter().chain(VERBS.split(' ')) {
        assert!(bold.contains(name), "{PAGE} does not mention {name}");
    }
    for verb in programs()[..2].iter().flat_map(|program| program.get_subcommands()).filter(|verb| !verb.is_hide_set())
    {
        assert!(
            ["completions", "help"].contains(&verb.get_name()) || bold.contains(verb.get_name()),
            "{}",
            verb.get_name()
        );
    }
    for flag in OPTIONS.split(' ') {
        assert!(flags.contains(flag), "{PAGE} does not mention {flag}");
    }
    for name in OTHERS.split_whitespace().chain(SECTIONS.split_whitespace()) {
        assert!(first.contains(name), "{PAGE} has no row of {name}");
    }
    for entry in catalogue::CATALOGUE.iter().filter(|entry| entry.number < 1000) {
        assert!(rows.contains(&format!("MCA{:05}", entry.number)), "{PAGE} has no row of MCA{:05}", entry.number);
    }
}

/// A line of a shell is accepted by the program that it names, but for arguments that are missing.
fn is_accepted(line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split(' ').collect();
    let program = match words[0] {
        "mc_ctl" => cli::command(),
        "mc_arb" => cli::arb::command(),
        _ => return Ok(()),
    };
    match program.try_get_matches_from(&words) {
        Ok(_) => Ok(()),
        Err(cause) if cause.kind() == ErrorKind::MissingRequiredArgument => Ok(()),
        Err(cause) => Err(cause.to_string()),
    }
}

#[test]
fn what_the_guide_page_gives_as_ours_exists() {
    let text = page(PAGE);
    let programs = programs();
    let verbs = || programs.iter().flat_map(|program| program.get_subcommands());
    let ours: BTreeSet<&str> =
        parameters().into_iter().chain(verbs().map(|verb| verb.get_name())).chain(["server", "arbiter"]).collect();
    for name in arguments(&text, "Cm") {
        assert!(ours.contains(name.as_str()), "{PAGE}: there is no parameter and no verb \"{name}\"");
    }
    let flag = |arg: &clap::Arg| [arg.get_short().map(String::from), arg.get_long().map(|long| format!("-{long}"))];
    let flags: BTreeSet<String> = verbs().flat_map(|verb| verb.get_arguments()).flat_map(flag).flatten().collect();
    for name in arguments(&text, "Fl") {
        assert!(flags.contains(&name), "{PAGE}: there is no option \"{name}\"");
    }
    for line in text.lines().filter_map(|line| line.strip_prefix(".Ql ")) {
        let line = line.trim_end_matches([' ', '.', ',', ';', ':']);
        is_accepted(line).unwrap_or_else(|why| panic!("{PAGE}: {line}: {why}"));
        if let Some((key, value)) = line.split_once(" = ") {
            let row = params::Row::find(key).unwrap_or_else(|| panic!("{PAGE}: there is no parameter {key}"));
            assert!(row.read(value.trim_matches('\'')).is_some(), "{PAGE}: {line}");
        }
    }
    for digits in text.split("MCA").skip(1).filter_map(|rest| rest.get(..5)) {
        if let Ok(number) = digits.parse() {
            assert!(number == 0 || catalogue::find(number).is_some(), "{PAGE}: there is no message MCA{digits}");
        }
    }
    for path in arguments(&text, "Pa").iter().filter(|path| path.starts_with("samples/")) {
        assert!(root().join(path).exists(), "{PAGE}: there is no {path}");
    }
}

/// A quoted title is that of a section of the page named on the line before, else of `mirroring-controller(7)`.
#[test]
fn the_sections_that_the_guide_page_names_exist() {
    let text = page(PAGE);
    let lines: Vec<&str> = text.lines().collect();
    let mut seen = 0;
    for pair in lines.windows(2) {
        let Some(title) = pair[1].strip_prefix(".Dq ") else { continue };
        let title = title.trim_end_matches([' ', '.', ',', ';', ':']);
        let named = pair[0].strip_prefix(".Xr ").and_then(|xr| xr.strip_suffix(" ,"));
        let name = named.map_or("mirroring-controller.7".to_owned(), |xr| xr.replace(' ', "."));
        let heads = [format!(".Sh {title}"), format!(".Ss {title}")];
        assert!(
            page(&name).lines().any(|line| heads.contains(&line.replace('"', ""))),
            "{name} has no section \"{title}\""
        );
        seen += 1;
    }
    assert!(seen > 30, "{seen}");
}
