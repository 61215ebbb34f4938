//! House rules: what the core may not touch, which module may use which, and what the manual must mention.

#[path = "tidy/citations.rs"]
mod citations;
#[path = "tidy/defaults.rs"]
mod defaults;
#[path = "tidy/guide.rs"]
mod guide;
#[path = "tidy/vocabulary.rs"]
mod vocabulary;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under a directory of the project: its name from the project's root, and its text.
fn files(under: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().join(under)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no sources under {under}");
    found
}

/// The program text of each: without comments, and without the unit tests that end a file.
fn sources(under: &str) -> Vec<(String, String)> {
    let code = |text: &str| {
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
    };
    files(under).into_iter().map(|(name, text)| (name, code(&text))).collect()
}

/// `fsm` of `src/fsm/node.rs`.
fn module(name: &str) -> &str {
    name.strip_prefix("src/").unwrap().split(['/', '.']).next().unwrap()
}

#[test]
fn the_core_is_pure() {
    let forbidden = [
        "Instant",
        "SystemTime",
        "std::thread",
        "std::fs",
        "std::net",
        "std::io",
        "std::env",
        "std::process",
        "std::sync",
        "HashMap",
        "HashSet",
        "RandomState",
        "rustix",
        "crossbeam",
        "postgres::",
        "log::",
        "println!",
        "rand::",
        "cfg(",
    ];
    for (name, text) in sources("src/fsm").into_iter().chain(sources("src/what_if")) {
        for word in forbidden {
            assert!(!text.contains(word), "{name} uses {word}: the core does no I/O and is the same everywhere");
        }
    }
}

/// Which of our modules each module's program text names.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let word = |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned();
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, text) in sources("src") {
        let used = arrows.entry(module(&name).to_owned()).or_default();
        for prefix in ["crate::", "mirroring_controller::"] {
            for after in text.split(prefix).skip(1) {
                match after.strip_prefix('{') {
                    // `use crate::{a, b::c}`: the first word of each part.
                    Some(list) => used.extend(list.split('}').next().unwrap().split(',').map(|part| word(part.trim()))),
                    None => drop(used.insert(word(after))),
                }
            }
        }
        used.remove(module(&name));
        used.remove("");
    }
    arrows
}

/// The arrows of the architecture: who may use whom.
const ALLOWED: &[(&str, &[&str])] = &[
    ("backup", &["error", "fsm", "optional_text", "pg", "rebuild"]),
    ("bin", &["cli", "daemon"]),
    ("check", &["backup", "config", "error", "fsm", "optional_text", "pg", "rebuild", "status"]),
    (
        "cli",
        &[
            "backup", "check", "config", "daemon", "error", "fsm", "init", "messages", "pg", "rebuild", "recover",
            "status", "web", "what_if", "wire",
        ],
    ),
    ("config", &["error", "fsm"]),
    (
        "daemon",
        &[
            "backup", "check", "config", "error", "fsm", "messages", "pg", "random", "rebuild", "recover", "shared",
            "status", "what_if", "wire",
        ],
    ),
    ("error", &[]),
    ("fsm", &[]),
    ("init", &["config", "error", "fsm", "pg", "random"]),
    ("random", &["error"]),
    ("lib", &[]),
    ("messages", &["config", "error", "fsm"]),
    ("optional_text", &[]),
    ("pg", &["config", "error", "fsm"]),
    ("rebuild", &["error", "fsm", "pg", "shared"]),
    ("recover", &["backup", "error", "fsm", "pg", "rebuild"]),
    ("shared", &[]),
    ("status", &["backup", "fsm", "messages", "optional_text", "rebuild"]),
    ("web", &["check", "config", "daemon", "error", "fsm", "messages", "random", "status", "wire"]),
    ("what_if", &["fsm"]),
    ("wire", &["error", "fsm"]),
];

#[test]
fn modules_use_each_other_in_one_direction() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    for (module, used) in arrows() {
        let may = allowed.get(module.as_str()).unwrap_or_else(|| panic!("module {module} has no row in ALLOWED"));
        for other in used {
            assert!(may.contains(&other.as_str()), "{module} must not use {other}");
        }
    }
}

#[test]
fn the_allowed_arrows_make_no_cycle() {
    fn visit<'a>(at: &'a str, allowed: &BTreeMap<&'a str, &'a [&'a str]>, path: &mut Vec<&'a str>) {
        assert!(!path.contains(&at), "cycle: {path:?} -> {at}");
        path.push(at);
        allowed[at].iter().for_each(|next| visit(next, allowed, path));
        path.pop();
    }
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    allowed.keys().for_each(|module| visit(module, &allowed, &mut Vec::new()));
}

#[test]
fn wire_and_files_see_only_the_nouns_of_the_core() {
    for (name, text) in sources("src") {
        if !["wire", "pg", "config", "messages"].contains(&module(&name)) {
            continue;
        }
        for after in text.split("crate::fsm::").skip(1) {
            let noun = ["types", "event", "report"].iter().any(|m| after.starts_with(m));
            assert!(noun, "{name} uses crate::fsm::{}", after.lines().next().unwrap());
        }
    }
}

#[test]
fn modules_say_what_they_are_for() {
    for (name, text) in files("src").into_iter().chain(files("tests")) {
        assert!(text.starts_with("//!"), "{name} does not open with what it is for");
    }
}

fn manual() -> String {
    fs::read_to_string(root().join("man/mc_ctl.8")).unwrap()
}

/// Flags as mdoc writes them: `-t` is `Fl t`, `--mc-only` is `Fl -mc-only`.
fn flags(command: &clap::Command, found: &mut BTreeSet<String>) {
    for arg in command.get_arguments().filter(|a| !a.is_hide_set()) {
        found.extend(arg.get_short().map(|c| format!("Fl {c}")));
        found.extend(arg.get_long().map(|l| format!("Fl -{l}")));
    }
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        flags(sub, found);
    }
}

/// Every verb and flag of a program, in the manual page of its name.
fn mentions_every_verb_and_flag(mut command: clap::Command, page: &str, at_least: usize) {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let pairs = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.windows(2).map(|pair| pair.join(" ")).collect::<Vec<_>>()
    };
    let words: BTreeSet<String> = text.lines().flat_map(pairs).collect();
    command.build();
    let mut found = BTreeSet::new();
    flags(&command, &mut found);
    found.extend(command.get_subcommands().filter(|s| !s.is_hide_set()).map(|s| format!("Cm {}", s.get_name())));
    assert!(found.len() >= at_least, "{found:?}");
    for item in found {
        assert!(words.contains(&item), "{page} does not mention \"{item}\"");
    }
}

#[test]
fn every_verb_and_flag_is_in_the_manual() {
    mentions_every_verb_and_flag(mirroring_controller::cli::command(), "man/mc_ctl.8", 20);
    mentions_every_verb_and_flag(mirroring_controller::cli::arb::command(), "man/mc_arb.8", 10);
    mentions_every_verb_and_flag(mirroring_controller::cli::mc_std::command(), "man/mc_std.8", 4);
    mentions_every_verb_and_flag(mirroring_controller::cli::web::command(), "man/mc_web.8", 8);
}

#[test]
fn every_parameter_of_the_arbiter_is_in_its_manual_and_sample() {
    let text = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (manual, sample) = (text("man/arbitration.conf.5"), text("samples/arbitration.conf"));
    for row in mirroring_controller::config::arbiter::TABLE {
        let item =
            manual.lines().any(|line| line.starts_with(".It Cm ") && line.split([' ', ',']).any(|w| w == row.name));
        assert!(item, "man/arbitration.conf.5 does not explain {}", row.name);
        // Those of other products' files have no place in ours.
        let of_ours = !row.name.starts_with("heartbeat_");
        assert_eq!(sample.contains(&format!("#{} =", row.name)), of_ours, "samples/arbitration.conf: {}", row.name);
    }
}

/// The part of a file between `begin` (to the end of its line) and `end` is what the code says, or with `UPDATE_MANUAL`
/// set becomes it.
fn holds(name: &str, begin: &str, end: &str, text: &str) {
    let path = root().join(name);
    let all = fs::read_to_string(&path).unwrap();
    let (before, rest) = all.split_once(begin).unwrap_or_else(|| panic!("{name} has no line {begin}"));
    let (line, rest) = rest.split_once('\n').unwrap();
    let (found, after) = rest.split_once(end).unwrap_or_else(|| panic!("{name} has no line {end}"));
    if std::env::var_os("UPDATE_MANUAL").is_some() {
        fs::write(&path, format!("{before}{begin}{line}\n{text}{end}{after}")).unwrap();
    } else {
        assert_eq!(found, text, "{name} does not say what the code says: UPDATE_MANUAL=1 cargo test --test tidy");
    }
}

#[test]
fn the_manual_lists_every_message() {
    let list = mirroring_controller::messages::catalogue::manual();
    holds("man/mc_messages.7", ".\\\" messages begin", ".\\\" messages end", &list);
}

#[test]
fn the_manual_lists_every_finding_of_the_check() {
    use mirroring_controller::{check, messages::catalogue::mdoc};
    let item = |e: &check::Entry| {
        format!(".It Li {} Pq {}\n{}", e.code, format!("{:?}", e.severity).to_lowercase(), mdoc(e.about))
    };
    let items: String = check::catalogue().map(item).collect();
    let list = if items.is_empty() { items } else { format!(".Bl -tag -width Ds\n{items}.El\n") };
    holds("man/mc_messages.7", ".\\\" findings begin", ".\\\" findings end", &list);
}

/// The rows of the only table of a document in `tests/postgres`, as cells; the last one is the name of the row's case.
fn measured(document: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("tests/postgres").join(document)).unwrap();
    let (_, rest) = text.split_once("<!-- table -->\n").expect("the begin of the table");
    let (table, _) = rest.split_once("<!-- /table -->").expect("the end of the table");
    let cells = |line: &str| line.trim_matches(['|', ' ']).split(" | ").map(|cell| cell.trim().to_owned()).collect();
    table.lines().skip(2).map(cells).collect()
}

/// The rows of `FAULTS.md` are the cases of `tests/postgres/faults.rs`, in their order.
#[test]
fn the_fault_matrix_has_a_row_for_each_case() {
    let code = fs::read_to_string(root().join("tests/postgres/faults.rs")).unwrap();
    let mut cases = Vec::new();
    for text in code.split("\n#[test]\n").skip(1) {
        let name = text.split_once("fn ").unwrap().1.split('(').next().unwrap();
        assert!(text.contains(&format!("\"{name}\"")), "{name} gives another name to its row");
        cases.push((format!("`{name}`"), text));
    }
    let rows = measured("FAULTS.md");
    let names = |row: &Vec<String>| row.last().unwrap().clone();
    let expected: Vec<String> = cases.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(rows.iter().map(names).collect::<Vec<_>>(), expected, "run the cases with UPDATE_FAULTS=1");
    for (row, (name, text)) in rows.iter().zip(&cases) {
        assert!(row.len() == 6 && row[3].starts_with("0 of "), "{row:?}");
        assert!(text.contains(&format!("\"{}\"", row[0])), "{name} describes its fault in other words: {row:?}");
    }
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(&format!("lists {} faults", rows.len())), "README.md gives another number of faults");
}

/// Each case of `tests/postgres/bench.rs` has its rows in `BENCH.md`, in the order of the cases, under its present title.
#[test]
fn the_measurements_have_a_row_for_each_case() {
    let code = fs::read_to_string(root().join("tests/postgres/bench.rs")).unwrap();
    let quoted = |text: &str, key: &str| {
        let (_, rest) = text.split_once(&format!("{key}: \"")).unwrap_or_else(|| panic!("no {key} in {text}"));
        rest.split_once('"').unwrap().0.to_owned()
    };
    let mut cases: Vec<[String; 2]> = code
        .split("Case {")
        .filter(|text| text.contains("title: \""))
        .map(|text| [quoted(text, "title"), format!("`{}`", quoted(text, "key"))])
        .collect();
    assert!(cases.len() >= 20, "{cases:?}");
    // each fault for each product
    let code = fs::read_to_string(root().join("tests/postgres/bench_peers.rs")).unwrap();
    let products: Vec<&str> = code.split(" Product {").filter(|text| text.contains("name: \"")).collect();
    for fault in code.split(" Fault {").filter(|text| text.contains("title: \"")) {
        for product in &products {
            let title = format!("{}: {}", quoted(product, "name"), quoted(fault, "title"));
            cases.push([title, format!("`{}-{}`", quoted(product, "key"), quoted(fault, "key"))]);
        }
    }
    assert_eq!(products.len(), 4, "{products:?}");
    let rows = measured("BENCH.md");
    let first = |row: &&Vec<String>| !row[0].starts_with('…');
    let found: Vec<[String; 2]> =
        rows.iter().filter(first).map(|row| [row[0].clone(), row.last().unwrap().clone()]).collect();
    assert_eq!(found, cases, "run the cases with UPDATE_BENCH=1 sh tests/bench.sh");
    for row in &rows {
        // only repmgr replicates asynchronously
        assert!(row.len() == 8 && (row[6] == "0" || row[7].starts_with("`repmgr-")), "{row:?}");
    }
}

/// The README shows figures that were measured: each median and maximum is in `BENCH.md`, and so are the lost rows.
#[test]
fn the_figures_of_the_readme_are_those_of_the_measurements() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Figures\n").expect("its section");
    let table: Vec<&str> =
        section.lines().skip_while(|l| !l.starts_with('|')).skip(2).take_while(|l| l.starts_with('|')).collect();
    let rows = measured("BENCH.md");
    let faults = ["postmaster", "host", "host-fast", "standby", "switch"];
    assert_eq!(table.len(), faults.len() + 1, "{table:?}");
    for (n, product) in ["mc", "patroni", "auto-failover", "repmgr"].into_iter().enumerate() {
        let cell = |line: &str| line.split('|').nth(n + 2).expect("a cell").trim().to_owned();
        let mut lost = 0;
        for (line, fault) in table.iter().zip(faults) {
            let case = format!("`{product}-{fault}`");
            let row = rows.iter().find(|row| *row.last().unwrap() == case).unwrap_or_else(|| panic!("no row {case}"));
            assert_eq!(cell(line), format!("{} / {}", row[3].trim_end_matches(" s"), row[4]), "{row:?}");
            lost += row[6].parse::<u32>().unwrap();
        }
        assert_eq!(cell(table[faults.len()]), lost.to_string(), "lost by {product}");
    }
}

/// The manual and the samples use one management directory: `/srv/mc`. `/data/mc` is that of the procedure that moves it.
#[test]
fn one_management_directory() {
    let mut found = 0;
    let names = ["README.md".into(), "man".into(), "samples".into()].map(|name: PathBuf| root().join(name));
    let files = |name: &PathBuf| match name.is_dir() {
        true => fs::read_dir(name).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect(),
        false => vec![name.clone()],
    };
    for file in names.iter().flat_map(files) {
        let text = fs::read_to_string(&file).unwrap();
        for before in ["CONTROLDIR=/", " -M /"] {
            for place in text.split(before).skip(1) {
                let end =
                    place.find(|c: char| !c.is_ascii_alphanumeric() && !"/._-".contains(c)).unwrap_or(place.len());
                let directory = format!("/{}", &place[..end]);
                assert!(
                    ["/srv/mc", "/data/mc"].contains(&directory.as_str()),
                    "{}: {before}{directory}",
                    file.display()
                );
                found += 1;
            }
        }
    }
    assert!(found > 10, "{found}");
}

/// The README is short enough to be read at once, and no table needs a wide window.
#[test]
fn the_documents_are_short_and_their_tables_narrow() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.len() <= 15 * 1024, "README.md has {} bytes; at most 15360 are allowed", readme.len());
    for name in ["README.md", "tests/postgres/FAULTS.md", "tests/postgres/BENCH.md"] {
        let text = fs::read_to_string(root().join(name)).unwrap();
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert!(rows.len() > 2, "{name} has no table");
        for line in rows {
            let length = line.chars().count();
            assert!(length <= 200, "a line of a table in {name} has {length} characters: {line}");
        }
    }
}

#[test]
fn every_finding_of_check_has_a_code_of_its_own_and_a_test() {
    let others = ["/disk_space.rs", "/recover_again.rs"];
    let of_check =
        |(name, _): &(String, String)| name.contains("/check") || others.iter().any(|other| name.ends_with(other));
    let tests: String = files("tests/postgres").into_iter().filter(of_check).map(|(_, text)| text).collect();
    let mut seen = BTreeSet::new();
    for entry in mirroring_controller::check::catalogue() {
        assert!(
            entry
                .code
                .split('-')
                .all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
        );
        assert!(seen.insert(entry.code), "two findings have the code {}", entry.code);
        assert!(
            tests.contains(&format!("\"{}\"", entry.code)),
            "no test of mc_ctl check in tests/postgres provokes {}",
            entry.code
        );
    }
}

#[test]
fn the_manual_explains_every_word_of_the_status() {
    let text = manual();
    let words = "switchable switching switched not-switchable failover-disabled split-brain unknown primary standby \
                 none(unknown) abnormal(postmaster) abnormal(wal_sender) abnormal(wal_receiver) abnormal(data) \
                 abnormal(tran_log) online offline";
    for word in words.split(' ').chain(["none(inactivated primary)", "none(inactivated standby)"]) {
        let item = text.lines().any(|line| line.starts_with(".It Li ") && line.replace('"', "").contains(word));
        assert!(item, "man/mc_ctl.8 does not explain {word}");
    }
}

/// A page that another one names is there; each leads to `mirroring-controller(7)`, which names them all, as the README does.
#[test]
fn manual_pages_know_each_other() {
    let names: BTreeSet<String> =
        fs::read_dir(root().join("man")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for name in &names {
        let text = fs::read_to_string(root().join("man").join(name)).unwrap();
        let (title, section) = name.rsplit_once('.').unwrap();
        assert!(readme.contains(&format!("`{title}({section})`")), "README.md does not name {name}");
        let (_, see_also) = text.split_once("\n.Sh SEE ALSO\n").unwrap_or_else(|| panic!("{name} has no SEE ALSO"));
        let overview = see_also.contains(".Xr mirroring-controller 7") || title == "mirroring-controller";
        assert!(overview, "{name} does not lead to mirroring-controller(7)");
        for line in text.lines().filter_map(|line| line.strip_prefix(".Xr ")) {
            let mut words = line.split(' ');
            let (title, section) = (words.next().unwrap(), words.next().unwrap());
            let ours = title.starts_with("mc_") || title.starts_with("mirroring") || title.ends_with(".conf");
            assert!(!ours || names.contains(&format!("{title}.{section}")), "{name} names {title}({section})");
        }
    }
    let overview = fs::read_to_string(root().join("man/mirroring-controller.7")).unwrap();
    for name in names.iter().filter(|name| *name != "mirroring-controller.7") {
        let (title, section) = name.rsplit_once('.').unwrap();
        assert!(overview.contains(&format!(".Xr {title} {section}")), "mirroring-controller(7) does not name {name}");
    }
}

/// The table that opens the chapter of failures has each status word, and each message of an error, with a section.
#[test]
fn the_table_of_symptoms_is_complete() {
    let page = fs::read_to_string(root().join("man/mirroring-controller.7")).unwrap();
    let (_, failures) = page.split_once("\n.Sh FAILURES\n").expect("a chapter of failures");
    let (table, _) = failures.split_once("\n.El\n").expect("its table");
    let rows: Vec<(&str, &str)> =
        table.lines().filter_map(|row| row.strip_prefix(".It ")?.split_once(" Ta Sx ")).collect();
    let messages = mirroring_controller::messages::catalogue::manual();
    let errors = messages.lines().filter_map(|line| {
        let (number, kind) = line.strip_prefix(".It ")?.split_once(' ')?;
        matches!(kind, "ERROR" | "FATAL" | "PANIC").then_some(number)
    });
    let words = ["switching", "switched", "not-switchable", "failover-disabled", "split-brain", "unknown"];
    let mut count = 0;
    for symptom in errors.chain(words) {
        count += 1;
        assert!(rows.iter().any(|(seen, _)| seen.contains(symptom)), "no row of the table of symptoms has {symptom}");
    }
    assert!(count > 30, "{count}");
}

/// A section that a page refers to is there, on that page or on the one that the next lines name.
#[test]
fn sections_that_manual_pages_refer_to_exist() {
    let pages = fs::read_dir(root().join("man")).unwrap().map(|entry| entry.unwrap().path());
    let pages: BTreeMap<String, String> = pages
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
        .collect();
    let mut count = 0;
    for (name, text) in &pages {
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            let Some(title) = line.strip_prefix(".Sx ").or_else(|| Some(line.split_once(" Ta Sx ")?.1)) else {
                continue;
            };
            let title = title.trim_end_matches([' ', '.', ',', ';', ':']);
            let elsewhere = (lines.get(n + 1) == Some(&"in")).then(|| lines[n + 2].strip_prefix(".Xr ").unwrap_or(""));
            let page = elsewhere.map_or(name.clone(), |page| page.split(' ').take(2).collect::<Vec<_>>().join("."));
            let found = [".Ss", ".Sh"].iter().any(|kind| pages[&page].contains(&format!("\n{kind} {title}\n")));
            assert!(found, "{name} refers to a section \"{title}\", which {page} does not have");
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
}

#[test]
fn manual_pages_are_clean() {
    let pages: Vec<PathBuf> = fs::read_dir(root().join("man")).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(!pages.is_empty());
    for page in pages {
        let lint = std::process::Command::new("mandoc").args(["-T", "lint", "-W", "style"]).arg(&page).output();
        let lint = lint.expect("these tests need mandoc: apt-get install mandoc");
        let told = String::from_utf8_lossy(&lint.stdout).into_owned() + &String::from_utf8_lossy(&lint.stderr);
        // Which other manuals are installed, and indexed, is not the page's fault.
        let foreign = |line: &&str| line.contains("referenced manual not found") || line.contains("outdated mandoc.db");
        let faults: Vec<&str> = told.lines().filter(|line| !foreign(line)).collect();
        assert!(faults.is_empty(), "{faults:#?}");
    }
}
