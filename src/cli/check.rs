//! `mc_ctl check`: every prerequisite, on both servers and the arbiter. Changes nothing, and needs no running controller: this
//! server alone is looked at then.

use super::args::{Common, ListFormat};
use super::{Ended, coloured, print, print_json};
use crate::check::{self, Finding, Severity, pace};
use crate::config::Config;
use crate::daemon::inspect;
use crate::error::Error;
use crate::status::Colour;
use clap::Args as Arguments;
use serde::Serialize;
use std::time::{Duration, Instant};

#[derive(Arguments, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Output format
    #[arg(long, value_enum, default_value_t = ListFormat::Text, value_name = "FORMAT")]
    format: ListFormat,
    /// Also show every parameter of ID.conf, with its value and the source of the value
    #[arg(long)]
    parameters: bool,
    /// Time limit in seconds
    #[arg(short = 't', value_name = "SEC", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

/// How long a line of a finding may be.
const COLUMNS: usize = 120;

/// The outcome as monitoring systems count it (mc_ctl(8), EXIT STATUS).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

/// All that is told, for machines: field names are stable.
#[derive(Serialize)]
struct Report {
    outcome: Outcome,
    /// Of this server; empty where the configuration does not tell.
    server: String,
    /// The servers that were looked at.
    seen: Vec<String>,
    findings: Vec<Finding>,
    /// How quickly heartbeats and probes were answered.
    pace: serde_json::Value,
    /// The same as lines.
    #[serde(skip)]
    times: Vec<String>,
    parameters: Vec<Parameter>,
    /// Why nothing could be checked.
    unknown: Option<String>,
}

#[derive(Serialize)]
struct Parameter {
    name: &'static str,
    value: String,
    source: String,
}

pub(super) fn run(args: &Args) -> Ended {
    let report = make(args);
    match args.format {
        ListFormat::Text => print(&report.text(args.parameters, coloured())),
        ListFormat::Json => print_json(&report),
    }
    Ok(report.outcome as u8)
}

/// Whatever is wrong with the question itself is UNKNOWN; a configuration that does not load is a finding.
fn make(args: &Args) -> Report {
    let deadline = Instant::now() + Duration::from_secs(args.seconds);
    if rustix::process::geteuid().is_root() {
        return Report::unknown("mc_ctl cannot be run as root, but as the instance administrator user");
    }
    let directory = match args.common.directory() {
        Ok(directory) => directory,
        Err(failure) => return Report::unknown(&failure.error.message),
    };
    match Config::load(&directory, args.common.local_server.as_deref()) {
        Ok(config) => look(&config, deadline),
        Err(error) => Report::unloadable(&error),
    }
}

fn look(config: &Config, deadline: Instant) -> Report {
    let seen = inspect::look(config, deadline.saturating_duration_since(Instant::now()));
    let parameters = config.parameters().into_iter();
    let parameters = parameters.map(|p| Parameter { name: p.name, value: p.value, source: p.source }).collect();
    let findings = check::examine(&seen);
    Report {
        outcome: outcome(&findings),
        server: config.id.clone(),
        seen: seen.servers().map(|facts| facts.id.clone()).collect(),
        findings,
        pace: pace::json(&seen),
        times: pace::table(&seen),
        parameters,
        unknown: None,
    }
}

fn outcome(findings: &[Finding]) -> Outcome {
    match findings.iter().map(|finding| finding.severity).max() {
        Some(Severity::Error) => Outcome::Critical,
        Some(Severity::Warning) => Outcome::Warning,
        Some(Severity::Notice) | None => Outcome::Ok,
    }
}

impl Report {
    fn unknown(why: &str) -> Report {
        Report {
            outcome: Outcome::Unknown,
            server: String::new(),
            seen: Vec::new(),
            findings: Vec::new(),
            pace: serde_json::Value::Array(Vec::new()),
            times: Vec::new(),
            parameters: Vec::new(),
            unknown: Some(why.to_owned()),
        }
    }

    fn unloadable(error: &Error) -> Report {
        let findings = vec![check::general::unloadable(error)];
        Report { outcome: Outcome::Critical, findings, unknown: None, ..Report::unknown("") }
    }

    /// The findings, the worst first, then how quickly answers came, and the summary in the last line.
    fn text(&self, parameters: bool, colour: Colour) -> String {
        let mut text = String::new();
        for finding in &check::listed(&self.findings) {
            let line = finding.text(COLUMNS);
            let word = finding.severity.word();
            let (begin, end) = match (colour, finding.severity) {
                (Colour::Never, _) | (_, Severity::Notice) => ("", ""),
                (Colour::Always, Severity::Warning) => ("\x1b[33m", "\x1b[0m"),
                (Colour::Always, Severity::Error) => ("\x1b[31m", "\x1b[0m"),
            };
            text += &format!("{begin}{word}{end}{}\n", &line[word.len()..]);
        }
        for Parameter { name, value, source } in self.parameters.iter().filter(|_| parameters) {
            let value = if value.is_empty() { "none" } else { value };
            text += &format!("parameter {name} = {value} ({source})\n");
        }
        for line in &self.times {
            text += &format!("{line}\n");
        }
        text + &self.summary()
    }

    fn summary(&self) -> String {
        let count = |severity, one: &str| {
            let count = self.findings.iter().filter(|finding| finding.severity == severity).count();
            format!("{count} {one}{}", if count == 1 { "" } else { "s" })
        };
        let word = match self.outcome {
            Outcome::Ok => "OK",
            Outcome::Warning => "WARNING",
            Outcome::Critical => "CRITICAL",
            Outcome::Unknown => "UNKNOWN",
        };
        let told = match &self.unknown {
            Some(why) => why.replace(['|', '\n'], " "),
            None => {
                let counts = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Notice, "notice")];
                let counts = counts.map(|(severity, one)| count(severity, one)).join(", ");
                match self.seen.is_empty() {
                    true => counts,
                    false => format!("{counts} on {}", self.seen.join(" and ")),
                }
            }
        };
        format!("CHECK {word} - {told}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_of_both_servers_is_listed_once_and_lines_fit() {
        let entry = |severity| check::Entry { code: "x", severity, about: "" };
        let of = |severity, id: &str| {
            entry(severity).found(id, "word ".repeat(30).trim(), "do this").at(format!("/{id}.conf"), 0)
        };
        let both = |severity| vec![of(severity, "nd1"), of(severity, "nd2")];
        let text = |findings| Report { findings, unknown: None, ..Report::unknown("") }.text(false, Colour::Never);
        let notices = text(both(Severity::Notice));
        let word = |count: usize| "word ".repeat(count).trim_end().to_owned();
        let head = format!("NOTICE x nd1, nd2: {}", word(20));
        let expected = format!("{head}\n    {} (/nd1.conf, /nd2.conf)\n    -> do this\n", word(10));
        assert_eq!(notices.split_once("CHECK").unwrap().0, expected);
        assert!(notices.lines().all(|line| line.chars().count() <= COLUMNS), "{notices}");
        assert_eq!(text(both(Severity::Warning)).matches("WARNING x nd").count(), 2);
    }

    #[test]
    fn the_worst_finding_decides() {
        let finding = |severity| check::Entry { code: "x", severity, about: "" }.found("nd1", "a\nb", "c").at("/f", 3);
        assert_eq!(outcome(&[]), Outcome::Ok);
        assert_eq!(outcome(&[finding(Severity::Notice)]), Outcome::Ok);
        assert_eq!(outcome(&[finding(Severity::Notice), finding(Severity::Warning)]), Outcome::Warning);
        let findings = vec![finding(Severity::Error), finding(Severity::Warning)];
        let report = Report { outcome: outcome(&findings), findings, seen: vec!["nd1".into()], ..Report::unknown("") };
        let report = Report { unknown: None, ..report };
        let text = "ERROR x nd1: a b (/f:3) -> c\nWARNING x nd1: a b (/f:3) -> c\n\
                    CHECK CRITICAL - 1 error, 1 warning, 0 notices on nd1\n";
        assert_eq!(report.text(true, Colour::Never), text);
        assert!(report.text(false, Colour::Always).starts_with("\x1b[31mERROR\x1b[0m x nd1"));
        assert_eq!(Report::unknown("a|b").text(false, Colour::Never), "CHECK UNKNOWN - a b\n");
    }
}
