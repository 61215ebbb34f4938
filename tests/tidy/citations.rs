//! The comments cite the protocol by rule, section and invariant, and the manual by page: each of them exists.

use crate::{files, root};
use std::collections::BTreeSet;
use std::fs;

/// What can be cited: `R9`, `I1`, `section 6`.
fn defined() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("src/fsm/PROTOCOL.md")).unwrap();
    let number = |line: &str| line.chars().take_while(char::is_ascii_digit).collect::<String>();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        for (prefix, kind) in [("## ", "section "), ("**R", "R"), ("- **I", "I")] {
            let number = line.strip_prefix(prefix).map(number).unwrap_or_default();
            if !number.is_empty() {
                found.insert(format!("{kind}{number}"));
            }
        }
    }
    found
}

/// What a text cites after the word PROTOCOL, up to the end of the list: `PROTOCOL R1 to R4`, `PROTOCOL sections 5 and 6`.
fn cited(text: &str) -> Vec<String> {
    // A comment that continues on the next line is one text.
    let text =
        text.lines().map(|line| line.trim_start().trim_start_matches(['/', '!']).trim_start()).collect::<Vec<_>>();
    let mut found = Vec::new();
    for citation in text.join(" ").split("PROTOCOL ").skip(1) {
        let before = found.len();
        let mut section = false;
        for word in citation.split_whitespace() {
            let bare = word.trim_end_matches([',', '.', ';', ':', ')', '`']);
            let ends = bare.len() < word.trim_end_matches(',').len();
            match bare {
                "section" | "sections" => section = true,
                "and" | "to" | "a" | "b" | "c" | "d" => (),
                _ if section && bare.parse::<u32>().is_ok() => found.push(format!("section {bare}")),
                _ if bare.starts_with(['R', 'I']) && bare[1..].parse::<u32>().is_ok() => found.push(bare.to_owned()),
                _ => break,
            }
            if ends {
                break;
            }
        }
        if found.len() == before {
            found.push(format!("nothing ({})", citation.chars().take(30).collect::<String>()));
        }
    }
    found
}

#[test]
fn each_citation_of_the_protocol_resolves() {
    let defined = defined();
    for name in ["R1", "R13", "section 1", "section 8", "I1", "I5"] {
        assert!(defined.contains(name), "{name} is not defined in {defined:?}");
    }
    let mut count = 0;
    for (name, text) in
        files("src").into_iter().chain(files("tests")).filter(|(name, _)| !name.ends_with("citations.rs"))
    {
        for citation in cited(&text) {
            assert!(defined.contains(&citation), "{name}: src/fsm/PROTOCOL.md does not define {citation}");
            count += 1;
        }
        assert!(!text.contains("CONTRACT"), "{name}: cite the manual instead of CONTRACT");
    }
    assert!(count > 60, "{count} citations");
}

#[test]
fn citations_are_read() {
    assert_eq!(cited("// (PROTOCOL R1 to R4), R9"), ["R1", "R4"]);
    assert_eq!(cited("//! x (PROTOCOL\n//! sections 5 and 6)."), ["section 5", "section 6"]);
    assert_eq!(cited("/// PROTOCOL R13 d\n/// PROTOCOL I5, R2 hold"), ["R13", "I5", "R2"]);
    assert_eq!(cited("// as PROTOCOL says"), ["nothing (says)"]);
}
