//! `tests/remedies.txt`: for each state of `mc_ctl status` that is not healthy, and each message of type ERROR and above, the
//! command that an operator pastes, and the case that provokes it and runs the command as the output names it.

use mirroring_controller::messages::Type;
use mirroring_controller::messages::catalogue::CATALOGUE;
use mirroring_controller::messages::commands::Form;
use mirroring_controller::{check, cli, messages};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[path = "remedies/examples.rs"]
mod examples;

struct Row {
    what: String,
    command: String,
    case: String,
    reason: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("could not read {name}: {e}"))
}

fn rows() -> Vec<Row> {
    let text = read("tests/remedies.txt");
    let rows = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [what, command, case, reason] = cells[..] else { panic!("not four cells: {line}") };
        let [what, command, case, reason] = [what, command, case, reason].map(str::to_owned);
        Row { what, command, case, reason }
    });
    rows.collect()
}

/// The text of the function of a test, up to its closing brace.
fn body(case: &str) -> String {
    let (file, name) = case.rsplit_once("::").unwrap_or_else(|| panic!("{case} names no file"));
    let text = read(&format!("tests/{}.rs", file.replace("::", "/")));
    let start = text.find(&format!("\nfn {name}(")).unwrap_or_else(|| panic!("there is no function {case}"));
    text[start..].split("\n}\n").next().expect("a part").to_owned()
}

/// Whether a command line is one of our programs' own. Words in capital letters stand for a value.
fn parses(line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let command = match words[0] {
        "mc_ctl" => cli::command(),
        "mc_arb" => cli::arb::command(),
        "mc_std" => cli::mc_std::command(),
        _ => return Ok(()),
    };
    let value = |word: &&str| match *word {
        "MESSAGE" | "FINDING" => "MCA00062".to_owned(),
        word if word.chars().all(|c| c.is_ascii_uppercase()) => "1".to_owned(),
        word => word.to_owned(),
    };
    match command.try_get_matches_from(words.iter().map(value)) {
        // --help and --version are errors to clap, which prints them on standard output.
        Err(why) if why.use_stderr() => Err(why.to_string()),
        _ => Ok(()),
    }
}

/// A new message of type ERROR or above needs a row, and a row the command that `mc_ctl explain` prints.
#[test]
fn every_error_has_a_row_with_its_command() {
    let rows = rows();
    let of = |number: u32| rows.iter().filter(move |row| row.what == format!("MCA{number:05}"));
    let errors: Vec<_> = CATALOGUE.iter().filter(|entry| entry.kind >= Type::Error).collect();
    for entry in &errors {
        let found: Vec<&Row> = of(entry.number).collect();
        let [row] = found[..] else { panic!("{} rows for MCA{:05}", found.len(), entry.number) };
        let line = format!("\nCommand:        {}\n", row.command);
        let explained = entry.explain(&Form::Direct);
        assert!(explained.contains(&line), "{line:?} is not in {explained}");
    }
    assert_eq!(rows.iter().filter(|row| row.what.starts_with("MCA")).count(), errors.len(), "a row without a message");
}

/// Every word of the status but `switchable` has a row.
#[test]
fn every_state_has_a_row() {
    let rows = rows();
    for word in
        ["switching", "switched", "not-switchable", "failover-disabled", "split-brain", "unknown", "no controller"]
    {
        assert!(rows.iter().any(|row| row.what.split(':').next() == Some(word)), "no row for {word}");
    }
}

/// The case takes the command from the output: it names the number, or a part of the hint. A row without a case has a reason.
#[test]
fn every_case_runs_its_command() {
    let mut seen = BTreeSet::new();
    for row in rows() {
        assert!(seen.insert(row.what.clone()), "two rows for {}", row.what);
        assert!(row.case != "-" || !row.reason.is_empty(), "{}: neither a case nor a reason", row.what);
        if row.case == "-" {
            continue;
        }
        let body = body(&row.case);
        let calls = match row.what.strip_prefix("MCA") {
            Some(number) => {
                let number = number.trim_start_matches('0');
                body.contains(&format!(", {number})")) && body.contains("explained(")
            }
            None => body.contains("hinted(") || body.contains("hint_of("),
        };
        assert!(calls, "{} does not run the command for {}", row.case, row.what);
    }
}

/// Commands in quotation marks in a text.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.match_indices('"').filter_map(|(at, _)| text[at + 1..].split('"').next());
    parts.filter(|part| {
        ["mc_ctl ", "mc_arb ", "mc_std "].iter().any(|start| part.starts_with(start)) && !part.contains('{')
    })
}

fn sources(directory: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(std::fs::read_to_string(&path).expect("readable"));
        }
    }
}

/// Every command in remedies, hints and messages is accepted by the parser of its program.
#[test]
fn every_quoted_command_parses() {
    let mut texts = Vec::new();
    sources(&root().join("src"), &mut texts);
    // A string that continues on the next line, and its quotation marks.
    let joined = |text: &str| {
        let lines: Vec<&str> = text.split("\\\n").collect();
        let rest = lines.iter().skip(1).map(|line| line.trim_start());
        [lines[0]]
            .into_iter()
            .chain(rest)
            .collect::<String>()
            .replace("\\\"", "\u{1}")
            .replace('"', "\u{2}")
            .replace('\u{1}', "\"")
    };
    let mut texts: Vec<String> = texts.iter().map(|text| joined(text)).collect();
    texts.extend(rows().into_iter().map(|row| format!("\"{}\"", row.command)));
    texts.extend(messages::commands::COMMANDS.iter().map(|command| format!("\"{}\"", command.line)));
    texts.extend(check::catalogue().map(|entry| entry.explain()));
    let mut count = 0;
    let mut wrong = BTreeSet::new();
    for line in texts.iter().flat_map(|text| quoted(text)).filter(|line| !line.contains(['\u{2}', '\n', '%', '<', '…']))
    {
        count += 1;
        if let Err(why) = parses(line) {
            wrong.insert(format!("{line}: {}", why.lines().next().unwrap_or_default()));
        }
    }
    assert!(count > 60, "only {count} commands were found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The list of renamed codes of findings: the old ones are gone, the new ones exist.
#[test]
fn renamed_findings_are_listed() {
    let page = read("man/mc_ctl.8");
    let (_, list) = page.split_once("codes of findings were renamed").expect("the list");
    let rows = list.split(".El").next().unwrap_or_default().lines().filter_map(|line| line.strip_prefix(".It Li "));
    let rows: Vec<(&str, &str)> = rows.map(|row| row.split_once(" Ta Li ").expect("two codes")).collect();
    let is_code = |code: &str| check::catalogue().any(|entry| entry.code == code);
    assert!(rows.len() > 10 && rows.iter().all(|(old, new)| !is_code(old) && is_code(new)), "{rows:?}");
}
