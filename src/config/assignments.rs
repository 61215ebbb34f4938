//! The form of `ID.conf`: `key = value` lines of TOML in which, as in the guide, words and paths need no quotes.
//!
//! Each bare value is put into quotes, on its line, and the whole is then read as TOML, so that quotes, escapes,
//! comments and duplicate keys are TOML's. Text in, assignments out; knows no key.

use super::network::in_line;
use crate::error::Result;
use std::borrow::Cow;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// One `key = value`, of whatever kind: numbers and words come as the text that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// The key.
    pub key: String,
    /// The value's text.
    pub value: String,
    /// Line number in the file, from 1.
    pub line: usize,
}

/// Reads the text of a file, in the order of its lines; `path` is for the errors, which never quote a value.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Assignment>> {
    let quoted: String = text.split_inclusive('\n').map(quote_bare_value).collect();
    let line_of = |at: usize| quoted.bytes().take(at).filter(|b| *b == b'\n').count() + 1;
    let table = DeTable::parse(&quoted).map_err(|error| {
        let line = line_of(error.span().map_or(0, |span| span.start));
        // TOML's messages are several lines where they explain.
        let mut what = error.message().lines().collect::<Vec<_>>().join("; ");
        if what == "duplicate key"
            && let Some(key) = error.span().and_then(|span| quoted.get(span))
        {
            what = format!("duplicate key: {key} is already set in an earlier line");
            return in_line(path, line, what).hint("Remove one of the two lines.");
        }
        in_line(path, line, what).hint(
            "A line is: key = value, or key = 'value'; a value with a ' in it is put between \", and then each \\ of it \
             is doubled. A comment begins with #.",
        )
    })?;
    let mut assignments = Vec::new();
    for (key, value) in table.get_ref().iter() {
        let line = line_of(key.span().start);
        let DeValue::String(text) = value.get_ref() else {
            let what = format!("{} is not one value but {}", key.get_ref(), kind(value.get_ref()));
            return Err(in_line(path, line, what));
        };
        assignments.push(Assignment { key: key.get_ref().to_string(), value: text.to_string(), line });
    }
    assignments.sort_by_key(|assignment| assignment.line);
    Ok(assignments)
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
        _ => "of another kind",
    }
}

/// One line, its end included, with quotes around a value that has none.
fn quote_bare_value(line: &str) -> Cow<'_, str> {
    let Some((key, rest)) = line.split_once('=') else { return line.into() };
    let is_key = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if key.trim().is_empty() || !key.trim().bytes().all(is_key) {
        return line.into();
    }
    let value = rest.split('#').next().unwrap_or("").trim();
    if value.is_empty() || value.starts_with(['\'', '"', '[', '{']) || value.contains('\'') {
        return line.into();
    }
    let start = line.len() - rest.trim_start().len();
    let (before, after) = (&line[..start], &line[start + value.len()..]);
    format!("{before}'{value}'{after}").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The assignments as `line key=value`, or a part of the error.
    fn check(text: &str, expected: std::result::Result<&[&str], &str>) {
        match (parse(Path::new("/mc/a.conf"), text), expected) {
            (Ok(got), Ok(wanted)) => {
                let got: Vec<String> = got.iter().map(|a| format!("{} {}={}", a.line, a.key, a.value)).collect();
                assert_eq!(got, wanted);
            }
            (Err(error), Err(part)) => assert!(error.message.contains(part), "{error}"),
            (got, wanted) => panic!("{text:?}: got {got:?}, wanted {wanted:?}"),
        }
    }

    #[test]
    fn forms() {
        check("", Ok(&[]));
        check("db_instance = '/database1/inst1'\n", Ok(&["1 db_instance=/database1/inst1"]));
        check("\n# x = 1\na=800 # trailing\r\n\tb = LOCAL0\r\n", Ok(&["3 a=800", "4 b=LOCAL0"]));
        check("a = /mc/core#c\nb = 'x#y' # c\nc = \"it's\"", Ok(&["1 a=/mc/core", "2 b=x#y", "3 c=it's"]));
        check(
            "a = on\nb = true\nc = 0800\nd = 500ms\ne = 1.5",
            Ok(&["1 a=on", "2 b=true", "3 c=0800", "4 d=500ms", "5 e=1.5"]),
        );
        check("a = 'C:\\dir'\nb = \"\\u0041\"", Ok(&["1 a=C:\\dir", "2 b=A"]));
        check("a = two words", Ok(&["1 a=two words"]));
        check("# \u{fffd} é\na = é", Ok(&["2 a=é"]));
    }

    #[test]
    fn errors_name_the_line() {
        check("a = 1\n\na = 2", Err("line 3: duplicate key"));
        check("a = 1\nb\n", Err("line 2: "));
        check("a = \n", Err("line 1: "));
        check("a = 1\nb = 'x\n", Err("line 2: "));
        check("a = 1\nb = 'x' y\n", Err("line 2: "));
        check("a = it's", Err("line 1: "));
        check("a = 1\n[section]\nb = 2", Err("line 2: section is not one value but a section"));
        check("a.b = 1", Err("line 1: "));
        check("a = [1]", Err("line 1: a is not one value but a list"));
        check("a = 1\nb = \u{1}", Err("line 2: "));
    }

    #[test]
    fn errors_do_not_quote_values() {
        for text in ["p = 'sesame", "p = \"ses\\ame\"", "p = 'ses'ame'", "p = ses'ame", "p = 'sesame'\np = 'sesame'"] {
            let error = parse(Path::new("f"), text).unwrap_err().to_string();
            assert!(!error.contains("ame"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn junk_never_panics(text in "(?s).{0,200}") {
            let _ = parse(Path::new("f"), &text);
        }

        #[test]
        fn near_misses_never_panic(text in "([a-c_.]{0,3} ?[=#]? ?['\"\\[\\]{}\\\\0-9a-z/é]{0,6}[\r\n]{0,2}){0,8}") {
            let _ = parse(Path::new("f"), &text);
        }

        #[test]
        fn bare_and_quoted_are_the_same(value in "[!$-&(-Z\\\\^-z|~][!$-&(-~]{0,20}") {
            let bare = parse(Path::new("f"), &format!("k = {value} # c\n"));
            let quoted = parse(Path::new("f"), &format!("k = '{value}'"));
            prop_assert_eq!(bare, quoted);
        }
    }
}
