//! Words that the text for people avoids: `tests/vocabulary.txt` lists them with what to use instead. The texts are the
//! README, the manual pages, the samples, the help of the programs, and every string of the program, of which messages,
//! hints and findings are made. The guide's own messages are excepted.

use super::{files, root};
use mirroring_controller::cli;
use mirroring_controller::messages::catalogue::CATALOGUE;
use std::collections::BTreeSet;
use std::fs;

/// A line of the list.
struct Rule {
    /// The forms of the word, or a phrase, as lower-case words.
    forms: Vec<Vec<String>>,
    instead: String,
    /// Texts within which the word is allowed.
    allowed: Vec<String>,
}

fn words(text: &str) -> Vec<(usize, String)> {
    let lower = text.to_ascii_lowercase();
    let mut found = Vec::new();
    let mut begin = None;
    for (at, c) in lower.char_indices().chain([(lower.len(), ' ')]) {
        let inside = c.is_alphanumeric() || c == '_';
        match begin {
            None if inside => begin = Some(at),
            Some(from) if !inside => {
                found.push((from, lower[from..at].to_owned()));
                begin = None;
            }
            _ => (),
        }
    }
    found
}

fn rules(text: &str) -> Vec<Rule> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rule = |line: &str| {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [forms, instead, allowed] = columns[..] else { panic!("three columns are required: {line}") };
        assert!(!instead.is_empty(), "the word to use instead is missing: {line}");
        let form = |form: &str| words(form).into_iter().map(|(_, word)| word).collect();
        Rule {
            forms: forms.split(", ").map(form).collect(),
            instead: instead.to_owned(),
            allowed: allowed.to_ascii_lowercase().split(';').filter(|a| !a.is_empty()).map(str::to_owned).collect(),
        }
    };
    lines.map(rule).collect()
}

fn list() -> Vec<Rule> {
    rules(&fs::read_to_string(root().join("tests/vocabulary.txt")).unwrap())
}

/// The words of the list in a text, each with its line and what to use instead. Words of a phrase have nothing between them
/// but white space, line breaks of mdoc and marks of comments.
fn avoided(text: &str, list: &[Rule]) -> Vec<String> {
    let lower = text.to_ascii_lowercase();
    let words = words(text);
    let adjacent = |pair: &[(usize, String)]| {
        text[pair[0].0 + pair[0].1.len()..pair[1].0].chars().all(|c| c.is_whitespace() || c == '#')
    };
    let mut found = Vec::new();
    for rule in list {
        for form in &rule.forms {
            for place in words.windows(form.len()) {
                let same = place.iter().zip(form).all(|((_, word), wanted)| word == wanted);
                if !same || !place.windows(2).all(adjacent) {
                    continue;
                }
                let (begin, last) = (place[0].0, place.last().unwrap());
                let end = last.0 + last.1.len();
                let allowed = rule.allowed.iter().any(|context| {
                    lower.match_indices(context).any(|(at, _)| at <= begin && end <= at + context.len())
                });
                if !allowed {
                    let line = text[..begin].matches('\n').count() + 1;
                    found.push(format!("line {line}: \"{}\"; use: {}", &text[begin..end], rule.instead));
                }
            }
        }
    }
    found
}

/// The end of a literal whose text begins at `from`, and its text without escapes and `{placeholders}`.
fn literal(code: &str, from: usize, end: &str) -> (usize, String) {
    let raw = end.len() > 1;
    let mut text = String::new();
    let mut at = from;
    while !code[at..].starts_with(end) {
        let c = code[at..].chars().next().expect("the end of a literal");
        at += c.len_utf8();
        match c {
            '\\' if !raw => {
                let escaped = code[at..].chars().next().unwrap();
                at += escaped.len_utf8();
                match escaped {
                    // A line break, and the indentation of the next line.
                    '\n' => at += code[at..].len() - code[at..].trim_start().len(),
                    'n' | 't' | 'r' => text.push('\n'),
                    c => text.push(c),
                }
            }
            '{' if code[at..].find('}').is_some_and(|n| code[at..at + n].chars().all(|c| c != '"' && c != ' ')) => {
                at += code[at..].find('}').unwrap() + 1;
                text.push('_');
            }
            c => text.push(c),
        }
    }
    (at + end.len(), text)
}

/// The string literals of a Rust file, without those of its unit tests, each with its line.
fn literals(code: &str) -> Vec<(usize, String)> {
    let code = code.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = code[at..].chars().next() {
        let rest = &code[at..];
        let line = |at: usize| code[..at].matches('\n').count() + 1;
        let mut take = |prefix: usize, end: &str| {
            let (next, text) = literal(code, at + prefix, end);
            found.push((line(at), text));
            next
        };
        at = if rest.starts_with("//") {
            at + rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("r\"") && !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            // One that ends with `"` alone has no escapes either; none of ours has a `\`.
            take(2, "\"")
        } else if rest.starts_with("r#\"") {
            take(3, "\"#")
        } else if c == '"' {
            take(1, "\"")
        } else if c == '\'' {
            let ends = |n: usize| rest.chars().nth(n) == Some('\'');
            let length = match rest.chars().nth(1) {
                Some('\\') => rest[2..].find('\'').map_or(1, |n| n + 3 + usize::from(rest.starts_with("'\\''"))),
                Some(c) if ends(2) => 2 + c.len_utf8(),
                _ => 1,
            };
            at + length
        } else {
            at + c.len_utf8()
        };
    }
    found
}

/// The strings of the program that people may read: `file:line`, and the text.
fn strings() -> Vec<(String, String)> {
    let of_the_guide: BTreeSet<String> =
        CATALOGUE.iter().filter(|e| e.number < 1000).map(|e| literal(&format!("{}\0", e.text), 0, "\0").1).collect();
    let mut found = Vec::new();
    for (name, code) in files("src") {
        let of_file = literals(&code).into_iter().filter(|(_, text)| !of_the_guide.contains(text));
        found.extend(of_file.map(|(line, text)| (format!("{name}:{line}"), text)));
    }
    assert!(found.len() > 2000, "{} strings", found.len());
    found
}

/// The README, the pages, the samples and the protocol: the name of the file, and its text.
fn documents() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = ["README.md", "man", "samples", "src/fsm/PROTOCOL.md"].map(|name| root().join(name)).to_vec();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

/// The help of a command and of its subcommands, in the long form.
fn helps(command: &mut clap::Command, found: &mut Vec<(String, String)>) {
    found.push((format!("{} --help", command.get_name()), command.render_long_help().to_string()));
    command.get_subcommands_mut().for_each(|sub| helps(sub, found));
}

fn all_helps() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for mut command in [cli::command(), cli::arb::command(), cli::mc_std::command()] {
        command.build();
        helps(&mut command, &mut found);
    }
    assert!(found.len() > 25, "{}", found.len());
    found
}

#[test]
fn no_text_for_people_has_a_word_to_avoid() {
    let list = list();
    let texts = documents().into_iter().chain(all_helps()).chain(strings());
    let found: Vec<String> = texts
        .flat_map(|(name, text)| avoided(&text, &list).into_iter().map(move |fault| format!("{name}: {fault}")))
        .collect();
    assert!(found.is_empty(), "tests/vocabulary.txt lists words to avoid:\n{}", found.join("\n"));
}

#[test]
fn a_planted_word_of_each_kind_is_found() {
    let list = list();
    let found = |text: &str| avoided(text, &list).join("\n");
    // the README, a page with a phrase over two lines, a sample, the help of a subcommand, a message over two lines
    assert_eq!(found("All works.\nThe server\nsays so."), "line 3: \"says\"; use: report, print, state, require");
    assert!(found(".Pp\nCopy it from the other\none and start it.").starts_with("line 2: \"the other\none\""));
    assert!(found("# then\n# type the command").contains("line 1: \"then\n# type\""));
    let mut command = clap::Command::new("mc").subcommand(clap::Command::new("x").about("Mend the pair"));
    let mut planted = Vec::new();
    helps(&mut command, &mut planted);
    assert!(planted.iter().any(|(_, text)| found(text).contains("\"Mend\"")), "{planted:?}");
    let code = "// it says\nlet a = '\"'; f(\"no\", \"the standby was not \\\n        heard\", \"{said}\");\n\
                #[cfg(test)]\nmod tests {\n  f(\"it tells\") }";
    let texts = literals(code);
    assert_eq!(texts.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 2, 3]);
    let faults: Vec<String> = texts.iter().map(|(_, text)| found(text)).filter(|fault| !fault.is_empty()).collect();
    assert_eq!(faults, ["line 1: \"heard\"; use: receive, respond"]);
    // case, whole words, contexts
    assert!(found("SAYS").contains("SAYS") && found("essays, hearsay_1, retold").is_empty());
    assert!(found("the code same-filesystem").is_empty() && !found("same filesystem").is_empty());
}

#[test]
fn the_list_has_each_word_once() {
    let list = list();
    let forms: Vec<&Vec<String>> = list.iter().flat_map(|rule| &rule.forms).collect();
    let different: BTreeSet<_> = forms.iter().collect();
    assert_eq!(forms.len(), different.len());
    assert!(forms.len() > 90 && forms.iter().all(|form| !form.is_empty()), "{}", forms.len());
}

/// Each `"TITLE" in PAGE(N)` of a text, where the page is ours.
fn sections_named(text: &str) -> Vec<(String, String)> {
    let text = text
        .replace("\\\"", "\"")
        .replace("\\&", "")
        .split_whitespace()
        .filter(|word| *word != "#")
        .collect::<Vec<_>>()
        .join(" ");
    let parts: Vec<&str> = text.split('"').collect();
    let named = parts.windows(2).filter_map(|pair| {
        let (page, rest) = pair[1].strip_prefix(" in ")?.split_once('(')?;
        let (section, _) = rest.split_once(')')?;
        let page = format!("{page}.{section}");
        root().join("man").join(&page).exists().then(|| (pair[0].to_owned(), page))
    });
    named.collect()
}

/// A section of the manual that a message, a hint, a finding, a help or a sample names is there.
#[test]
fn sections_that_messages_name_exist() {
    let heads = |page: &str, title: &str| {
        let text = fs::read_to_string(root().join("man").join(page)).unwrap();
        [".Ss", ".Sh"].iter().any(|kind| text.contains(&format!("\n{kind} {title}\n")))
    };
    let planted = sections_named("HINT: See \"A disk is\n# full\" in mirroring-controller(7).");
    assert_eq!(planted, [("A disk is full".to_owned(), "mirroring-controller.7".to_owned())]);
    assert!(!heads("mirroring-controller.7", "A disk is empty") && heads("mirroring-controller.7", "FAILURES"));
    let mut count = 0;
    for (name, text) in strings().into_iter().chain(all_helps()).chain(documents()) {
        for (title, page) in sections_named(&text) {
            assert!(heads(&page, &title), "{name} names a section \"{title}\", which {page} does not have");
            count += 1;
        }
    }
    assert!(count >= 4, "{count}");
}
