//! Edits of `postgresql.conf`, text to text: only the line that sets `synchronous_standby_names` changes.
//!
//! Text is bytes, since a configuration file may be in any encoding. Nothing here reads or writes files, but for
//! [`elsewhere`], which looks for other places that set the parameter; [`super::files`] writes. Called by the runner.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The parameter whose line is owned by the controller.
pub const NAMES: &str = "synchronous_standby_names";

/// PostgreSQL's port where none is set.
pub const PORT: u16 = 5432;

/// How deep includes may nest; PostgreSQL's own limit.
const MAX_INCLUDE_DEPTH: u32 = 10;

/// One line of a configuration file as PostgreSQL's parser sees it (`guc-file.l`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// The parameter's name, in lower case.
    pub name: String,
    /// The value as it stands there, quotes included.
    pub raw: Vec<u8>,
    /// What follows the value: white space, a comment, a carriage return.
    pub rest: Vec<u8>,
}

impl Setting {
    /// The value without its quotes.
    pub fn value(&self) -> String {
        unquote(&self.raw)
    }
}

/// Parses one line without its newline. `None`: empty, a comment, or not in PostgreSQL's syntax.
pub fn parse_line(line: &[u8]) -> Option<Setting> {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\r');
    let skip = |at: usize| at + line[at..].iter().take_while(|b| blank(b)).count();
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_' || b >= 0x80;
    let start = skip(0);
    if !letter(*line.get(start)?) {
        return None;
    }
    let in_name = |b: &u8| letter(*b) || b.is_ascii_digit() || matches!(b, b'$' | b'.');
    let name_end = start + line[start..].iter().take_while(|b| in_name(b)).count();
    let name = String::from_utf8_lossy(&line[start..name_end]).to_ascii_lowercase();
    let mut at = skip(name_end);
    if line.get(at) == Some(&b'=') {
        at = skip(at + 1);
    }
    let value_end = at + value_length(&line[at..])?;
    let after = skip(value_end);
    if !matches!(line.get(after), None | Some(b'#')) {
        return None;
    }
    Some(Setting { name, raw: line[at..value_end].to_vec(), rest: line[value_end..].to_vec() })
}

/// The length of the value that `text` begins with: quoted, or one bare word.
fn value_length(text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'\'') {
        let length = text.iter().take_while(|b| !matches!(b, b' ' | b'\t' | b'\r' | b'#' | b'\'' | b'=')).count();
        return (length > 0).then_some(length);
    }
    let mut at = 1;
    loop {
        match *text.get(at)? {
            b'\\' => at += 2,
            b'\'' if text.get(at + 1) == Some(&b'\'') => at += 2,
            b'\'' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// The value behind the quotes (`''`, and backslash escapes but for octal numbers, which names do not need).
fn unquote(raw: &[u8]) -> String {
    let Some(inner) = raw.strip_prefix(b"'").and_then(|r| r.strip_suffix(b"'")) else {
        return String::from_utf8_lossy(raw).into_owned();
    };
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied();
    while let Some(b) = bytes.next() {
        match b {
            b'\'' => out.extend(bytes.next()),
            b'\\' => out.extend(bytes.next().map(|escaped| match escaped {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                other => other,
            })),
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A boolean as PostgreSQL reads it, which takes any beginning of a word that is not also another's; `None` for what is none.
pub fn truth(value: &str) -> Option<bool> {
    let value = value.trim().to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    if value == "1" || begins("on", 2) || begins("true", 1) || begins("yes", 1) {
        return Some(true);
    }
    (value == "0" || begins("off", 2) || begins("false", 1) || begins("no", 1)).then_some(false)
}

/// A string in a configuration file's quotes.
///
/// # Errors
/// It contains a line break, which would end the line, or a zero byte.
pub fn quote(value: &str) -> Result<String> {
    if value.contains(['\n', '\r', '\0']) {
        return Err(Error::new(format!(
            "{value:?} cannot be written to a configuration file: it contains a line break"
        )));
    }
    Ok(format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''")))
}

/// The value of `synchronous_standby_names` for one standby: the name, in double quotes where PostgreSQL needs them
/// (`syncrep_scanner.l`; PROTOCOL R9).
pub fn names_value(application_name: &str) -> String {
    let bytes = application_name.as_bytes();
    let first = |b: &u8| b.is_ascii_alphabetic() || *b == b'_';
    let plain = bytes.first().is_some_and(first)
        && bytes.iter().all(|b| first(b) || b.is_ascii_digit() || *b == b'$')
        && !["any", "first"].contains(&application_name.to_ascii_lowercase().as_str());
    if plain { application_name.to_owned() } else { format!("\"{}\"", application_name.replace('"', "\"\"")) }
}

/// The value of `synchronous_standby_names` in this text, commented out or not; the last uncommented line counts, else
/// the last commented one that is not empty. `None` where there is none.
pub fn present_value(text: &[u8]) -> Option<String> {
    let lines: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
    let set = lines.iter().rev().find_map(|line| active(line));
    let kept = || lines.iter().rev().find_map(|line| commented(line).filter(|s| !s.value().is_empty()));
    set.or_else(kept).map(|setting| setting.value())
}

/// Comments every line out that sets `synchronous_standby_names`: `#synchronous_standby_names = 'x'`.
pub fn comment_out(text: &[u8]) -> Vec<u8> {
    map_lines(text, |_, line| active(line).map(|setting| write_line("#", &as_quoted(&setting.raw), &setting.rest)))
}

/// The same where the text must not grow: one byte of each line becomes `#`, the last blank before the name, or the first
/// letter of the name.
pub fn comment_out_in_place(text: &[u8]) -> Vec<u8> {
    map_lines(text, |_, line| {
        active(line)?;
        let mut line = line.to_vec();
        let blank = line.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        line[blank.saturating_sub(1)] = b'#';
        Some(line)
    })
}

/// Sets `synchronous_standby_names` to this value (see [`names_value`]): in its last uncommented line (earlier ones are
/// commented out), else in the line that [`comment_out`] left, else in the commented line of the default file, else in
/// a new line at the end.
///
/// # Errors
/// The value contains a line break.
pub fn set(text: &[u8], value: &str) -> Result<Vec<u8>> {
    let lines: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
    let last = |test: &dyn Fn(&[u8]) -> bool| lines.iter().rposition(|line| test(line));
    let is_it = |setting: &Setting| setting.value() == value;
    let target = last(&|line| active(line).is_some())
        .or_else(|| last(&|line| commented(line).as_ref().is_some_and(is_it)))
        .or_else(|| last(&|line| commented(line).is_some_and(|s| !s.value().is_empty())))
        .or_else(|| last(&|line| commented(line).is_some()));
    let quoted = quote(value)?;
    let Some(target) = target else {
        return Ok(append_line(text, &write_line("", quoted.as_bytes(), b"")));
    };
    Ok(map_lines(text, |index, line| match active(line) {
        Some(setting) if index == target && setting.value() == value => None,
        Some(setting) if index == target => Some(write_line("", quoted.as_bytes(), &setting.rest)),
        Some(setting) => Some(write_line("#", &as_quoted(&setting.raw), &setting.rest)),
        None if index == target => commented(line).map(|old| write_line("", quoted.as_bytes(), &old.rest)),
        None => None,
    }))
}

/// Sets any parameter, to a value as it stands in the file (quoted where it must be): in the last uncommented line that sets it,
/// whose comment stays, or where there is none, or `at_end`, in a new line at the end, which wins over all before it.
pub fn assign(text: &[u8], name: &str, value: &str, at_end: bool) -> Vec<u8> {
    let sets = |line: &[u8]| parse_line(line).filter(|setting| setting.name == name);
    let last = text.split(|b| *b == b'\n').collect::<Vec<_>>().iter().rposition(|line| sets(line).is_some());
    let Some(last) = last.filter(|_| !at_end) else {
        return append_line(text, format!("{name} = {value}").as_bytes());
    };
    map_lines(text, |index, line| {
        let setting = sets(line).filter(|_| index == last)?;
        Some([name.as_bytes(), b" = ", value.as_bytes(), &setting.rest].concat())
    })
}

/// A text with one more line, in the line ends of the text.
pub fn append_line(text: &[u8], line: &[u8]) -> Vec<u8> {
    let crlf = text.windows(2).any(|pair| pair == b"\r\n");
    let end: &[u8] = if crlf { b"\r\n" } else { b"\n" };
    let mut out = text.to_vec();
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.extend_from_slice(end);
    }
    out.extend_from_slice(line);
    out.extend_from_slice(end);
    out
}

/// The text with those lines replaced for which `edit` gives another one. Everything else stays byte for byte.
pub fn map_lines(text: &[u8], mut edit: impl FnMut(usize, &[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let edited =
        text.split(|b| *b == b'\n').enumerate().map(|(i, line)| edit(i, line).unwrap_or_else(|| line.to_vec()));
    edited.collect::<Vec<_>>().join(&b'\n')
}

fn active(line: &[u8]) -> Option<Setting> {
    parse_line(line).filter(|setting| setting.name == NAMES)
}

/// A line that would set the parameter except for its `#`, which may stand for the first letter ([`comment_out_in_place`]).
fn commented(line: &[u8]) -> Option<Setting> {
    let blank = line.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let rest = line[blank..].strip_prefix(b"#")?;
    active(rest).or_else(|| active(&[&NAMES.as_bytes()[..1], rest].concat()))
}

fn as_quoted(raw: &[u8]) -> Vec<u8> {
    if raw.starts_with(b"'") { raw.to_vec() } else { [b"'", raw, b"'"].concat() }
}

fn write_line(mark: &str, quoted: &[u8], rest: &[u8]) -> Vec<u8> {
    [mark.as_bytes(), NAMES.as_bytes(), b" = ", quoted, rest].concat()
}

// ------------------------------------------------------------------------------------------------ what is in the way

/// A line outside the edited file that sets the parameter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Elsewhere {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: usize,
    /// The value there, without quotes.
    pub value: String,
    /// It comes after every line of the edited file that sets the parameter, and so wins.
    pub wins: bool,
}

/// Every line that sets `name` in a file included by `config_file`, or in `postgresql.auto.conf`, in the order in which
/// PostgreSQL reads them. Files that cannot be read are passed over: PostgreSQL itself reports them.
pub fn elsewhere(name: &str, config_file: &Path, data: &Path) -> Vec<Elsewhere> {
    let mut found = Vec::new();
    read_settings(name, config_file, 0, &mut found);
    read_settings(name, &data.join("postgresql.auto.conf"), 0, &mut found);
    let own = found.iter().rposition(|entry| entry.file == config_file);
    let mut index = 0;
    found.retain_mut(|entry| {
        entry.wins = own.is_none_or(|own| index > own);
        index += 1;
        entry.file != config_file
    });
    found
}

/// The value of `name` that applies after a start, of all these files; `None` where none sets it.
pub fn effective(name: &str, config_file: &Path, data: &Path) -> Option<String> {
    let mut found = Vec::new();
    read_settings(name, config_file, 0, &mut found);
    read_settings(name, &data.join("postgresql.auto.conf"), 0, &mut found);
    found.pop().map(|entry| entry.value)
}

/// The port that applies after a start.
pub fn port(config_file: &Path, data: &Path) -> u16 {
    effective("port", config_file, data).and_then(|port| port.parse().ok()).unwrap_or(PORT)
}

/// What the configuration consists of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sources {
    /// Every file that PostgreSQL reads, there or not: `config_file`, what it includes, `postgresql.auto.conf`.
    pub files: Vec<PathBuf>,
    /// The directories of which it reads every `*.conf`.
    pub dirs: Vec<PathBuf>,
}

/// The files and directories of which the configuration consists.
pub fn sources(config_file: &Path, data: &Path) -> Sources {
    let mut found = Sources::default();
    find_sources(config_file, 0, &mut found);
    found.files.push(data.join("postgresql.auto.conf"));
    found
}

fn find_sources(file: &Path, depth: u32, found: &mut Sources) {
    found.files.push(file.to_path_buf());
    let Ok(text) = std::fs::read(file) else { return };
    if depth > MAX_INCLUDE_DEPTH {
        return;
    }
    for setting in text.split(|b| *b == b'\n').filter_map(parse_line) {
        let target = || file.parent().unwrap_or(Path::new("/")).join(setting.value());
        match setting.name.as_str() {
            "include" | "include_if_exists" => find_sources(&target(), depth + 1, found),
            "include_dir" => {
                found.dirs.push(target());
                for included in conf_files(&target()) {
                    find_sources(&included, depth + 1, found);
                }
            }
            _ => {}
        }
    }
}

fn read_settings(name: &str, file: &Path, depth: u32, found: &mut Vec<Elsewhere>) {
    walk(file, depth, &mut |file, line, text| {
        if let Some(setting) = parse_line(text).filter(|setting| setting.name == name) {
            found.push(Elsewhere { file: file.to_path_buf(), line, value: setting.value(), wins: false });
        }
    });
}

/// Every line of a file and of those that it includes, in the order in which PostgreSQL reads them.
fn walk(file: &Path, depth: u32, each: &mut dyn FnMut(&Path, usize, &[u8])) {
    let Ok(text) = std::fs::read(file) else { return };
    if depth > MAX_INCLUDE_DEPTH {
        return;
    }
    for (index, line) in text.split(|b| *b == b'\n').enumerate() {
        let setting = parse_line(line);
        let target = |setting: &Setting| file.parent().unwrap_or(Path::new("/")).join(setting.value());
        match setting.as_ref().map(|setting| (setting.name.as_str(), setting)) {
            Some(("include" | "include_if_exists", setting)) => walk(&target(setting), depth + 1, each),
            Some(("include_dir", setting)) => {
                for included in conf_files(&target(setting)) {
                    walk(&included, depth + 1, each);
                }
            }
            _ => each(file, index + 1, line),
        }
    }
}

/// A line of the configuration that sets a parameter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assigned {
    /// The parameter, in lower case.
    pub name: String,
    /// Its value, without quotes.
    pub value: String,
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: usize,
}

/// Every line that sets a parameter, of all files of the configuration, in the order in which PostgreSQL reads them: of one
/// parameter the last one counts.
pub fn assigned(config_file: &Path, data: &Path) -> Vec<Assigned> {
    let mut found = Vec::new();
    for file in [config_file, &data.join("postgresql.auto.conf")] {
        walk(file, 0, &mut |file, line, text| {
            if let Some(setting) = parse_line(text) {
                let value = setting.value();
                found.push(Assigned { name: setting.name, value, file: file.to_path_buf(), line });
            }
        });
    }
    found
}

/// The files of an `include_dir`: names that end in `.conf` and do not begin with a dot, in the order of their bytes.
pub fn conf_files(dir: &Path) -> Vec<PathBuf> {
    let wanted = |path: &PathBuf| {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        name.ends_with(".conf") && !name.starts_with('.')
    };
    super::files::entries(dir).into_iter().filter(wanted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check_set(text: &str, value: &str, expected: &str) {
        assert_eq!(String::from_utf8_lossy(&set(text.as_bytes(), value).unwrap()), expected);
    }

    fn check_out(text: &str, expected: &str) {
        assert_eq!(String::from_utf8_lossy(&comment_out(text.as_bytes())), expected);
    }

    #[test]
    fn comments_out() {
        check_out(
            "a = 1\nsynchronous_standby_names = 'x'\nb = 2\n",
            "a = 1\n#synchronous_standby_names = 'x'\nb = 2\n",
        );
        check_out("  Synchronous_Standby_NAMES 'x'  # why", "#synchronous_standby_names = 'x'  # why");
        check_out("synchronous_standby_names=x\r\n", "#synchronous_standby_names = 'x'\r\n");
        check_out("synchronous_standby_names = 'it''s'#c", "#synchronous_standby_names = 'it''s'#c");
        check_out(
            "synchronous_standby_names = 'a'\nsynchronous_standby_names = 'b'",
            "#synchronous_standby_names = 'a'\n#synchronous_standby_names = 'b'",
        );
        check_out("#synchronous_standby_names = 'x'\n", "#synchronous_standby_names = 'x'\n");
        check_out("synchronous_standby_names = 'x\n", "synchronous_standby_names = 'x\n");
        check_out("synchronous_standby_namesx = 'x'\n", "synchronous_standby_namesx = 'x'\n");
        check_out("", "");
    }

    #[test]
    fn comments_out_in_place() {
        for (text, expected) in [
            ("a=1\nsynchronous_standby_names = 'x' # y\n", "a=1\n#ynchronous_standby_names = 'x' # y\n"),
            ("  SYNCHRONOUS_standby_names=x\r\n", " #SYNCHRONOUS_standby_names=x\r\n"),
            ("#synchronous_standby_names = 'x'\n", "#synchronous_standby_names = 'x'\n"),
        ] {
            assert_eq!(String::from_utf8_lossy(&comment_out_in_place(text.as_bytes())), expected);
        }
        check_set("#ynchronous_standby_names = 'x' # y\n", "x", "synchronous_standby_names = 'x' # y\n");
    }

    #[test]
    fn sets() {
        check_set("a = 1", "x", "a = 1\nsynchronous_standby_names = 'x'\n");
        check_set("a = 1\r\n", "x", "a = 1\r\nsynchronous_standby_names = 'x'\r\n");
        check_set("", "x", "synchronous_standby_names = 'x'\n");
        check_set("#synchronous_standby_names = 'y'\nb=1\n", "x", "synchronous_standby_names = 'x'\nb=1\n");
        check_set(
            "#synchronous_standby_names = ''\t# standby servers\nb=1\n",
            "\"a-b\"",
            "synchronous_standby_names = '\"a-b\"'\t# standby servers\nb=1\n",
        );
        check_set(
            "#synchronous_standby_names = 'y'\n#synchronous_standby_names = ''\n",
            "x",
            "synchronous_standby_names = 'x'\n#synchronous_standby_names = ''\n",
        );
        check_set(
            "synchronous_standby_names = 'a'\nsynchronous_standby_names = 'b'",
            "x",
            "#synchronous_standby_names = 'a'\nsynchronous_standby_names = 'x'",
        );
        check_set("SYNCHRONOUS_STANDBY_NAMES x # as it is", "x", "SYNCHRONOUS_STANDBY_NAMES x # as it is");
        check_set("# synchronous_standby_names is set by hand\n", "x", {
            "# synchronous_standby_names is set by hand\nsynchronous_standby_names = 'x'\n"
        });
    }

    #[test]
    fn assigns() {
        let check = |text: &str, at_end: bool, expected: &str| {
            assert_eq!(String::from_utf8_lossy(&assign(text.as_bytes(), "wal_level", "replica", at_end)), expected);
        };
        check("a = 1", false, "a = 1\nwal_level = replica\n");
        check("#wal_level = logical\r\n", false, "#wal_level = logical\r\nwal_level = replica\r\n");
        check("WAL_level minimal # why\nb = 1\n", false, "wal_level = replica # why\nb = 1\n");
        check("wal_level = a\nwal_level = 'b'\r\n", false, "wal_level = a\nwal_level = replica\r\n");
        check("wal_level = a\ninclude 'x'\n", true, "wal_level = a\ninclude 'x'\nwal_level = replica\n");
    }

    #[test]
    fn names() {
        for (name, value) in [("nd1", "nd1"), ("a-b", "\"a-b\""), ("any", "\"any\""), ("1a", "\"1a\""), ("*", "\"*\"")]
        {
            assert_eq!(names_value(name), value);
        }
    }

    #[test]
    fn reads_the_present_value() {
        let check =
            |text: &str, expected: Option<&str>| assert_eq!(present_value(text.as_bytes()).as_deref(), expected);
        check(
            "synchronous_standby_names = a\nsynchronous_standby_names = 'b'\n#synchronous_standby_names='c'",
            Some("b"),
        );
        check(
            "#synchronous_standby_names = ''\n#synchronous_standby_names='c'\n#synchronous_standby_names = ''",
            Some("c"),
        );
        check("#synchronous_standby_names = ''", None);
    }

    #[test]
    fn finds_other_places() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("conf.d")).unwrap();
        std::fs::write(at("conf.d/10.conf"), "\nsynchronous_standby_names = 'i'\n").unwrap();
        std::fs::write(at("conf.d/.20.conf"), "synchronous_standby_names = 'hidden'\n").unwrap();
        std::fs::write(at("early.conf"), "synchronous_standby_names = 'e'\n").unwrap();
        let main = "include = 'early.conf'\nsynchronous_standby_names = 'm'\ninclude_dir 'conf.d'\n";
        std::fs::write(at("postgresql.conf"), main).unwrap();
        std::fs::write(at("postgresql.auto.conf"), "# x\nsynchronous_standby_names = 'auto'\n").unwrap();
        let found = elsewhere(NAMES, &at("postgresql.conf"), dir.path());
        let seen: Vec<_> = found.iter().map(|e| (e.value.as_str(), e.line, e.wins)).collect();
        assert_eq!(seen, [("e", 1, false), ("i", 2, true), ("auto", 2, true)]);
    }

    fn any_line() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~]{0,30}",
            "[ \t]{0,2}#?[sS]ynchronous_standby_names[ \t]{0,2}=?[ \t]{0,2}('[a-z\",*]{0,5}'|[a-z]{1,4})[ \t]{0,2}(#[ -~]{0,8})?",
            "[a-z_]{1,9} = '[ -~&&[^'\\\\]]{0,9}'",
        ]
    }

    fn any_text() -> impl Strategy<Value = String> {
        (proptest::collection::vec(any_line(), 0..8), prop_oneof!["\n", "\r\n"], any::<bool>())
            .prop_map(|(lines, end, closed)| lines.join(&end) + if closed { &end } else { "" })
    }

    fn foreign(text: &[u8]) -> Vec<Vec<u8>> {
        let lines = text.split(|b| *b == b'\n').filter(|l| active(l).is_none() && commented(l).is_none());
        lines.map(|l| l.strip_suffix(b"\r").unwrap_or(l).to_vec()).filter(|l| !l.is_empty()).collect()
    }

    #[test]
    fn line_breaks_are_rejected() {
        for value in ["a\nfsync = off", "a\r", "a\0b"] {
            assert!(quote(value).unwrap_err().message.contains("line break"));
            assert!(set(b"a = 1\n", value).is_err());
        }
        assert_eq!(quote("it's \\").as_deref(), Ok("'it''s \\\\'"));
    }

    proptest! {
        #[test]
        fn edits_are_in_effect_and_touch_nothing_else(text in any_text(), name in "[a-z\"'\\\\-]{1,6}") {
            let value = names_value(&name);
            let effective = |t: &[u8]| t.split(|b| *b == b'\n').rev().find_map(active).map(|s| s.value());
            let on = set(text.as_bytes(), &value).unwrap();
            prop_assert_eq!(effective(&on), Some(value.clone()));
            prop_assert_eq!(on.split(|b| *b == b'\n').filter(|l| active(l).is_some()).count(), 1);
            prop_assert_eq!(foreign(&on), foreign(text.as_bytes()));
            prop_assert_eq!(set(&on, &value).unwrap(), on.clone());
            let off = comment_out(&on);
            prop_assert_eq!(effective(&off), None);
            prop_assert_eq!(foreign(&off), foreign(text.as_bytes()));
            prop_assert_eq!(comment_out(&off), off.clone());
            let in_place = comment_out_in_place(&on);
            prop_assert_eq!(in_place.len(), on.len());
            prop_assert_eq!(effective(&in_place), None);
            let on_again = set(&in_place, &value).unwrap();
            prop_assert_eq!(effective(&on_again), Some(value.clone()));
            prop_assert_eq!(foreign(&on_again), foreign(text.as_bytes()));
            let again = set(&off, &value).unwrap();
            prop_assert_eq!(effective(&again), Some(value.clone()));
            prop_assert_eq!(foreign(&again), foreign(text.as_bytes()));
            // Old commented lines with a value of their own are ambiguous, and a line that somebody else wrote and that is right
            // is left as it is; without them every edit undoes the other.
            let ours = on.split(|b| *b == b'\n').any(|l| l.starts_with(b"synchronous_standby_names = '"));
            if ours && !text.split('\n').any(|l| commented(l.as_bytes()).is_some_and(|s| !s.value().is_empty())) {
                prop_assert_eq!(present_value(&off), Some(value));
                prop_assert_eq!(&again, &on);
                prop_assert_eq!(comment_out(&again), off);
            }
        }

        #[test]
        fn junk_is_kept(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            if text.split(|b| *b == b'\n').all(|l| active(l).is_none()) {
                prop_assert_eq!(comment_out(&text), text);
            }
        }
    }
}
