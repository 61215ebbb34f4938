//! `mc_ctl status`.

use super::args::{Format, Status as Args};
use super::{Ended, Exit, Failure, call, coloured, print, recover, say, service_form};
use crate::config::Config;
use crate::error::Error;
use crate::status::Status;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

pub(super) fn run(args: &Args) -> Ended {
    if args.check {
        return Ok(check(args));
    }
    let (config, mistake) = args.common.client_config_and_mistake()?;
    let Some(seconds) = args.watch else {
        show(args, &config, mistake.as_ref(), &mut None)?;
        return Ok(0);
    };
    let mut marks = Some(Marks::default());
    loop {
        if std::io::stdout().is_terminal() {
            print("\x1b[H\x1b[2J");
        }
        if matches!(args.format, Format::Text) {
            print(&format!("{}\n", crate::messages::utc(std::time::SystemTime::now())));
        }
        if let Err(failure) = show(args, &config, mistake.as_ref(), &mut marks) {
            // It may be started meanwhile.
            say(&format!("mc_ctl: {}\n", failure.error));
        }
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

/// The lines of the last display, each with the time since when it is shown; `None` for those of the first display. A line in
/// which only an age has changed is the same line.
#[derive(Default)]
struct Marks(HashMap<String, Option<String>>);

/// The line without the age in it: `4 s ago`, `1 h 2 min ago`.
fn without_age(line: &str) -> String {
    let Some((begin, end)) = line.split_once(" ago") else { return line.to_owned() };
    let of_age = |word: &str| word.parse::<u64>().is_ok() || ["s", "min", "h"].contains(&word);
    let mut words: Vec<&str> = begin.split(' ').collect();
    while words.pop_if(|word| of_age(word)).is_some() {}
    format!("{} ago{end}", words.join(" "))
}

impl Marks {
    /// The text with a mark at the end of each line that has changed since the first display.
    fn mark(&mut self, text: &str, time: &str) -> String {
        let since = |line: &str| match self.0.get(&without_age(line)) {
            Some(since) => since.clone(),
            None => (!self.0.is_empty()).then(|| time.to_owned()),
        };
        let lines: Vec<(&str, Option<String>)> = text.lines().map(|line| (line, since(line))).collect();
        self.0 = lines.iter().map(|(line, since)| (without_age(line), since.clone())).collect();
        let marked = |(line, since): (&str, Option<String>)| match since {
            Some(since) => format!("{line}  * since {since}\n"),
            None => format!("{line}\n"),
        };
        lines.into_iter().map(marked).collect()
    }
}

/// The status that the controller reports. `mistake`: the mistake in the files, which the controller does not know.
pub(super) fn status(config: &Config, mistake: Option<&Error>) -> Result<Status, Failure> {
    let configuration_error = mistake.map(|mistake| mistake.message.clone());
    let form = || service_form::when_running(&config.dir);
    let mut snapshot = call::status(config)?;
    snapshot.report.advice.extend(recover::in_progress(config));
    Ok(Status { configuration_error, ..Status::in_form(&snapshot, form) })
}

fn show(args: &Args, config: &Config, mistake: Option<&Error>, marks: &mut Option<Marks>) -> Result<(), Failure> {
    let status = status(config, mistake)?;
    match args.format {
        Format::Text => {
            let text = status.text(args.arbiter, coloured());
            let utc = crate::messages::utc(std::time::SystemTime::now());
            let time = utc.split(['T', '.']).nth(1).unwrap_or_default();
            print(&marks.as_mut().map_or(text.clone(), |marks| marks.mark(&text, time)));
            for advice in &status.advice {
                say(&format!("HINT: {advice}\n"));
            }
        }
        Format::Json => print(&status.json()),
        Format::Prometheus => print(&status.prometheus()),
    }
    Ok(())
}

/// The monitoring-plugin convention: whatever is wrong with the question itself is UNKNOWN, on the one line.
fn check(args: &Args) -> u8 {
    if rustix::process::geteuid().is_root() {
        print("MIRRORING UNKNOWN - mc_ctl cannot be run as root, but as the instance administrator user\n");
        return Exit::NotRunning as u8;
    }
    let found = args.common.client_config_and_mistake();
    match found.and_then(|(config, mistake)| status(&config, mistake.as_ref())) {
        Ok(status) => {
            let (line, code) = status.check();
            print(&line);
            code
        }
        Err(failure) => {
            let text = failure.error.message.replace(['|', '\n'], " ");
            print(&format!("MIRRORING UNKNOWN - {text}\n"));
            Exit::NotRunning as u8
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_lines_are_marked() {
        let mut marks = Marks::default();
        assert_eq!(marks.mark("switchable\nnd1  primary\n", "10:00:00"), "switchable\nnd1  primary\n");
        let switched = "switched\nnd1  primary\n";
        let marked = "switched  * since 10:00:05\nnd1  primary\n";
        assert_eq!(marks.mark(switched, "10:00:05"), marked);
        assert_eq!(marks.mark(switched, "10:00:10"), marked);
        assert_eq!(
            marks.mark("switchable\nnd1  primary\n", "10:00:15"),
            "switchable  * since 10:00:15\nnd1  primary\n"
        );
        let detached = |age| format!("switchable\nnd1  primary\nWARNING: detached {age} ago\n");
        for (age, time) in [("58 s", "10:01:00"), ("1 min 3 s", "10:01:05"), ("1 h 0 min", "11:00:02")] {
            let marked = marks.mark(&detached(age), time);
            assert!(marked.ends_with(&format!("WARNING: detached {age} ago  * since 10:01:00\n")), "{marked}");
        }
    }
}
