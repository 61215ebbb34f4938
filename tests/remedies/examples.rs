//! The examples of the README and of the man pages: lines after a prompt, and scripts. `tests/examples.txt` names for each program
//! the case that runs its lines as they are printed, or why none does.

use super::{body, parses, read, root};
use std::collections::BTreeSet;
use std::process::Command;

/// A literal block of a document.
struct Block {
    document: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let mut found = Vec::new();
    for part in read("README.md").split("\n```").skip(1).step_by(2) {
        let text = part.split_once('\n').map_or("", |(_, text)| text).to_owned();
        found.push(Block { document: "README.md".to_owned(), text });
    }
    for entry in std::fs::read_dir(root().join("man")).expect("man").flatten() {
        let document = entry.file_name().into_string().expect("ASCII");
        let page = read(&format!("man/{document}")).replace("\\e", "\\").replace("\\-", "-").replace("\\&", "");
        for part in page.split("\n.Bd -literal").skip(1) {
            let text = part.split_once('\n').map_or("", |(_, text)| text);
            let text = text.split("\n.Ed").next().unwrap_or_default().to_owned();
            found.push(Block { document: document.clone(), text });
        }
        for line in page.lines().filter_map(|line| line.strip_prefix(".Dl ")) {
            found.push(Block { document: document.clone(), text: line.to_owned() });
        }
    }
    found
}

/// The command after a prompt: of nd1, nd2, arb, or without the name of a host.
fn command_of(line: &str) -> Option<&str> {
    let rest = ["nd1", "nd2", "arb"].iter().find_map(|host| line.strip_prefix(host)).unwrap_or(line);
    rest.strip_prefix("$ ").or_else(|| rest.strip_prefix("# ")).filter(|command| !command.starts_with("..."))
}

/// The lines after a prompt, each with its document, and continued lines joined. `#` alone begins a comment in a file.
fn lines() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for block in blocks().iter().filter(|block| !block.text.starts_with("#!")) {
        let joined = block.text.replace("\\\n", " ");
        let commands = joined.lines().filter_map(command_of);
        found.extend(commands.map(|command| (block.document.clone(), command.to_owned())));
    }
    // What follows "Run" and the like in the section on development has no prompt.
    let readme = read("README.md");
    let development = readme.split("\n## Development\n").nth(1).expect("the section on development");
    let commands = development.lines().filter(|line| line.starts_with("cargo ") || line.starts_with("sh "));
    found.extend(commands.map(|command| ("README.md".to_owned(), command.to_owned())));
    found
}

fn is_valid_shell(text: &str) -> bool {
    let checked = Command::new("sh").args(["-n", "-c", text]).output().expect("could not run sh");
    checked.status.success() && checked.stderr.is_empty()
}

#[test]
fn every_example_is_valid_shell() {
    assert!(is_valid_shell("(umask 077; true) && echo 'a'") && !is_valid_shell("echo 'a") && !is_valid_shell("(true"));
    let scripts =
        blocks().into_iter().filter(|block| block.text.starts_with("#!/bin/sh")).map(|b| (b.document, b.text));
    let texts: Vec<(String, String)> = lines().into_iter().chain(scripts).collect();
    assert!(texts.len() > 200, "only {} examples were found", texts.len());
    let wrong: Vec<_> = texts.iter().filter(|(_, text)| !is_valid_shell(text)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The commands of a line, without its comment, parted where a shell parts them. What follows `>` is no part of a command.
fn commands_of(line: &str) -> Vec<String> {
    let line = line.split(" # ").next().unwrap_or_default();
    let (mut parts, mut part, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '|' | '&' | ';' | '(' | ')' | '>' | '<') => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// Commands of our own programs, also within a pipe or a list.
#[test]
fn every_command_of_an_example_parses() {
    assert_eq!(commands_of("(a; b 'x | y' | c) >f && d  # e"), ["a", "b 'x | y'", "c", "f", "d"]);
    let ours = |part: &String| ["mc_ctl ", "mc_arb ", "mc_std "].iter().any(|program| part.starts_with(program));
    let found: Vec<String> = lines().iter().flat_map(|(_, line)| commands_of(line)).filter(ours).collect();
    assert!(found.len() > 120, "only {} commands were found", found.len());
    let wrong: BTreeSet<String> =
        found.iter().filter_map(|line| Some(format!("{line}: {}", parses(line).err()?.lines().next()?))).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Units are those of `samples` or PostgreSQL's.
#[test]
fn every_unit_of_an_example_exists() {
    let units = ["mirroring-controller", "mirroring-arbiter"];
    assert!(units.iter().all(|unit| root().join(format!("samples/{unit}.service")).exists()));
    let known =
        |unit: &str| units.contains(&unit) || ["postgresql", "postgresql-15", "postgresql@15-main"].contains(&unit);
    let verbs = ["start", "stop", "restart", "reload", "status", "enable", "disable", "reset-failed", "daemon-reload"];
    let mut count = 0;
    for (document, line) in lines() {
        for command in commands_of(&line).iter().filter_map(|command| command.strip_prefix("systemctl ")) {
            let words: Vec<&str> = command.split_whitespace().filter(|word| *word != "--now").collect();
            assert!(verbs.contains(&words[0]) && words[1..].iter().all(|unit| known(unit)), "{document}: {line}");
            count += 1;
        }
    }
    assert!(count > 40, "only {count} commands were found");
}

/// The program that a command runs; `None` for assignments alone and for words of a shell.
fn program_of(command: &str) -> Option<&str> {
    let mut words = command.split_whitespace().skip_while(|word| {
        word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    });
    let program = words.next()?;
    let program = program.rsplit('/').next()?;
    let shell = ["cd", "echo", "export", "umask", "$MCCONTROLDIR"];
    (!shell.contains(&program) && !program.starts_with('#')).then_some(program)
}

#[test]
fn every_program_of_an_example_has_a_row() {
    let mut used = BTreeSet::new();
    for (_, line) in lines() {
        // The parts after a redirection are files.
        let redirected =
            |command: &String| !line.contains(&format!(">{command}")) && !line.contains(&format!("> {command}"));
        used.extend(
            commands_of(&line).iter().filter(|c| redirected(c)).filter_map(|c| program_of(c)).map(str::to_owned),
        );
    }
    used.retain(|program| !program.starts_with("mc_"));
    let text = read("tests/examples.txt");
    let rows: Vec<[&str; 3]> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            <[&str; 3]>::try_from(cells).unwrap_or_else(|cells| panic!("not three cells: {cells:?}"))
        })
        .collect();
    for [program, cases, reason] in &rows {
        assert!(*cases != "-" || !reason.is_empty(), "{program}: neither a case nor a reason");
        for case in cases.split(' ').filter(|case| *case != "-") {
            assert!(!body(case).is_empty());
        }
    }
    let listed: BTreeSet<String> = rows.iter().map(|[program, ..]| (*program).to_owned()).collect();
    assert_eq!(listed.len(), rows.len(), "two rows for a program");
    assert_eq!(used, listed);
}
