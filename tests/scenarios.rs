//! Stories of two nodes and an arbiter: a paragraph of intent, the commands of a script, and what the members said and
//! ordered, in one file each under `tests/scenarios/`.
//!
//! Lines that begin with `#` are prose, lines that begin with `>` are commands ([`script`]), all others are what came of
//! them. `UPDATE_GOLDEN=1 cargo test --test scenarios` writes the answers anew: read the difference before committing it.
//! `STORY=name` runs the stories whose file names contain it.
//!
//! The cores are the real ones. Around them is a small world without chance ([`world`]): messages, ledger writes, jobs and
//! looks at instances ([`instance`]) come one step of 50 ms later unless the script holds or loses them.

#[path = "scenarios/advice.rs"]
mod advice;
#[path = "scenarios/instance.rs"]
mod instance;
#[path = "scenarios/script.rs"]
mod script;
#[path = "scenarios/words.rs"]
mod words;
#[path = "scenarios/world.rs"]
mod world;

use std::fs;
use std::path::{Path, PathBuf};

fn stories() -> Vec<PathBuf> {
    let only = std::env::var("STORY").unwrap_or_default();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut found: Vec<PathBuf> = fs::read_dir(directory)
        .expect("the stories are there")
        .map(|entry| entry.expect("the directory can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(&only)))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no story is called {only}");
    found
}

/// The story with the answers that the members give now, up to the first command that cannot be followed, and why.
fn tell(name: &str, story: &str) -> (String, Option<String>) {
    let mut world = None;
    let mut told = String::new();
    for (number, line) in story.lines().enumerate() {
        let command = line.strip_prefix("> ");
        if command.is_some() || line.starts_with('#') || line.is_empty() {
            told.push_str(line);
            told.push('\n');
        }
        match command.map(|command| script::run(&mut world, command)) {
            None => {}
            Some(Ok(answer)) => {
                told.push_str(&answer);
                if let Some(why) = world.as_ref().and_then(advice::mistake) {
                    return (told, Some(format!("{name}:{}: {why}", number + 1)));
                }
            }
            Some(Err(why)) => return (told, Some(format!("{name}:{}: {why}", number + 1))),
        }
    }
    (told, world.is_none().then(|| format!("{name}: no pair")))
}

/// The first line that differs, with its neighbours.
fn difference(name: &str, was: &str, is: &str) -> Option<String> {
    let (was, is): (Vec<&str>, Vec<&str>) = (was.lines().collect(), is.lines().collect());
    let at = (0..was.len().max(is.len())).find(|at| was.get(*at) != is.get(*at))?;
    let before = at.checked_sub(1).map_or("", |before| was[before]);
    let some = |lines: &[&str], sign: char| {
        lines.iter().skip(at).take(3).map(|line| format!("{sign}{line}\n")).collect::<String>()
    };
    Some(format!("{name}:{}\n {before}\n{}{}", at + 1, some(&was, '-'), some(&is, '+')))
}

#[test]
fn every_story_goes_as_told() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differences = Vec::new();
    for path in stories() {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let was = fs::read_to_string(&path).expect("the story can be read");
        let (is, stuck) = tell(&name, &was);
        let followed = stuck.is_none();
        differences.extend(stuck);
        if update && followed {
            fs::write(&path, &is).expect("the story can be written");
        } else if !update {
            differences.extend(difference(&name, &was, &is));
        }
    }
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}
