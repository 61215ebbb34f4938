//! Writes measured rows into the tables of `FAULTS.md` and `BENCH.md`, in this directory's parent.
//!
//! Each document has one table, between `<!-- table -->` and `<!-- /table -->`. The last cell of a row is the name of its
//! case.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Replaces the rows of the case `name` in the document. The rows keep the order of `cases`; rows of other names are removed.
pub fn put(document: &str, cases: &[&str], name: &str, rows: &[String]) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/postgres").join(document);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("could not read {}: {e}", path.display()));
    let (before, rest) = text.split_once("<!-- table -->\n").expect("the begin of the table");
    let (table, after) = rest.split_once("<!-- /table -->").expect("the end of the table");
    let (head, old) = table.split_at(table.match_indices('\n').nth(1).map_or(table.len(), |(n, _)| n + 1));
    let of = |case: &str| -> Vec<String> {
        let last = format!("| `{case}` |");
        old.lines().filter(|line| line.ends_with(&last)).map(str::to_owned).collect()
    };
    let all: Vec<String> = cases.iter().flat_map(|case| if *case == name { rows.to_vec() } else { of(case) }).collect();
    let text = format!("{before}<!-- table -->\n{head}{}\n<!-- /table -->{after}", all.join("\n"));
    std::fs::write(&path, text).unwrap_or_else(|e| panic!("could not write {}: {e}", path.display()));
}
