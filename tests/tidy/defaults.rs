//! The pages of the configuration files and programs: tables of defaults, the usual sections, the environment of hooks.

use super::{holds, root};
use mirroring_controller::config::Network;
use mirroring_controller::config::arbiter;
use mirroring_controller::config::params::{Kind, Preset, Row, TABLE};
use mirroring_controller::daemon::reload::{CHANGEABLE, PROGRAMS};
use std::path::Path;

/// Defaults that are worked out when the file is read.
const OTHERS: &[(&str, &str)] = &[
    ("db_instance_username", "the OS user"),
    ("db_instance_password", "none"),
    ("config_file", "found"),
    ("bin_dir", "found"),
    ("log_file", "found"),
    ("client_address", "first host"),
    ("replication_address", "first host"),
    ("heartbeat_error_action", "depends on the arbiter"),
    ("fencing_command", "none"),
    ("arbitration_command", "none"),
    ("post_switch_command", "none"),
    ("pre_detach_command", "none"),
    ("post_attach_command", "none"),
    ("health_check_address", "none"),
    ("backup_command", "none"),
    ("recover_command", "none"),
    ("backup_destination", "none"),
    ("backup_max_rate", "no limit"),
    ("core_file_path", "management directory"),
];

/// The same of `arbitration.conf`.
const OF_ARBITER: &[(&str, &str)] = &[
    ("port", "that in network.conf"),
    ("my_address", "first host"),
    ("core_file_path", "the arbiter's directory"),
    ("fencing_command", "none"),
];

fn default(row: &Row, others: &[(&str, &str)]) -> String {
    let other = || others.iter().find(|(name, _)| *name == row.name).map(|(_, text)| (*text).to_owned());
    match row.preset {
        Preset::Required => "required".into(),
        Preset::Is(text) => row.show(&row.read(text).expect("a default")),
        Preset::Like(name) => format!("Cm {name}"),
        Preset::Elsewhere if row.kind == Kind::Windows => "no effect".into(),
        Preset::Elsewhere => other().unwrap_or_else(|| panic!("state the default of {} in this test", row.name)),
    }
}

#[test]
fn the_defaults_of_a_server() {
    let change = |row: &Row| match row.kind {
        Kind::Windows => "none",
        _ if CHANGEABLE.contains(&row.name) || PROGRAMS.contains(&row.name) => "reload",
        _ => "restart",
    };
    let row = |row: &Row| format!(".It Cm {} Ta {} Ta {}\n", row.name, default(row, OTHERS), change(row));
    let rows: String = TABLE.iter().map(row).collect();
    let table = format!(
        ".Bl -column \"shutdown_detached_synchronous_standby\" \"MirroringControllerOpen\"\n\
         .It Sy Parameter Ta Sy Default Ta Sy Effect\n{rows}.El\n"
    );
    holds("man/mc_server.conf.5", ".\\\" defaults begin", ".\\\" defaults end", &table);
}

#[test]
fn the_defaults_of_an_arbiter() {
    let row = |row: &Row| format!(".It Cm {} Ta {}\n", row.name, default(row, OF_ARBITER));
    let rows: String = arbiter::TABLE.iter().map(row).collect();
    let table =
        format!(".Bl -column \"fencing_command_timeout\" \"Default\"\n.It Sy Parameter Ta Sy Default\n{rows}.El\n");
    holds("man/arbitration.conf.5", ".\\\" defaults begin", ".\\\" defaults end", &table);
}

/// What a line of `network.conf` leaves out.
#[test]
fn the_defaults_of_the_members() {
    let short =
        Network::parse(Path::new("network.conf"), "a 192.0.2.1 27540\nb 192.0.2.2 27540\n").expect("two servers");
    let text = "a 192.0.2.1,192.0.3.1 27540 server\nb 192.0.2.2 27540,27541 server\n";
    let long = Network::parse(Path::new("network.conf"), text).expect("two servers");
    let [a, b] = &long.servers;
    assert!(short.arbiter.is_none() && short.servers.iter().all(|line| line.key.is_none()));
    assert_eq!(a.addresses(), [("192.0.2.1".to_owned(), 27540), ("192.0.3.1".to_owned(), 27540)]);
    assert_eq!(b.addresses(), [("192.0.2.2".to_owned(), 27540), ("192.0.2.2".to_owned(), 27541)]);
    let page = std::fs::read_to_string(root().join("man/network.conf.5")).expect("the page");
    for row in ["host2 Ta that of the first", "port2 Ta that of the first", "server | arbiter Ta server", "key Ta none"]
    {
        assert!(
            page.lines().any(|line| line.replace(".It Ar ", "").replace(".It Cm ", "") == *row),
            "no row \"{row}\""
        );
    }
}

/// What a reader of OpenBSD's manual looks for is there, in its place.
#[test]
fn the_pages_of_files_and_programs_have_the_usual_sections() {
    let pages = std::fs::read_dir(root().join("man")).expect("the manual").map(|entry| entry.expect("a page").path());
    let pages: Vec<_> = pages.filter(|path| path.extension().is_some_and(|e| e == "5" || e == "8")).collect();
    assert!(pages.len() >= 8, "{pages:?}");
    for path in pages {
        let text = std::fs::read_to_string(&path).expect("a page");
        let mut at = 0;
        for section in ["EXAMPLES", "SEE ALSO", "STANDARDS", "CAVEATS", "SECURITY"] {
            let found = text[at..].find(&format!("\n.Sh {section}\n"));
            at += found.unwrap_or_else(|| panic!("{} has no section {section} after the ones before", path.display()));
        }
    }
}

/// Each variable that a command of the operator's gets is explained.
#[test]
fn the_page_of_the_hooks_lists_their_environment() {
    let text = |name: &str| std::fs::read_to_string(root().join(name)).expect("a file");
    let page = text("man/mc_hooks.5");
    let code = text("src/daemon/calls.rs")
        + &text("src/daemon/arbiter/fencing.rs")
        + &text("src/cli/backup_command.rs")
        + &text("src/cli/recover/program.rs");
    let names: std::collections::BTreeSet<&str> =
        code.split('"').filter(|word| word.starts_with("MC_") && !word.contains(' ')).collect();
    assert!(names.len() >= 5, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("\n.It Ev {name}\n")), "mc_hooks(5) does not explain {name}");
    }
    for row in TABLE.iter().filter(|row| row.kind == Kind::Command) {
        assert!(page.contains(&format!("\n.It Cm {} Ta", row.name)), "mc_hooks(5) does not describe {}", row.name);
    }
}
