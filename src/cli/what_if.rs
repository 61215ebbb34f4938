//! `mc_ctl what-if`: what the pair would do if something failed now. Asks the controller, which reckons it; changes nothing.

use super::args::{Common, ListFormat};
use super::{Ended, Exit, Failure, call, coloured, print, print_json, say};
use crate::fsm::types::Member;
use crate::status::{Snapshot, Status};
use crate::what_if::{Fault, MOST_FAULTS, Prediction, Verdict};
use clap::Args as Arguments;
use clap::builder::{PossibleValue, PossibleValuesParser};
use serde::Serialize;
use std::fmt::Write;

#[derive(Arguments, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// The faults, in succession, each after the effects of the preceding fault have ended; all: every fault, one per line
    #[arg(value_name = "FAULT", required = true, value_parser = words(), num_args = 1..)]
    faults: Vec<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t = ListFormat::Text, value_name = "FORMAT")]
    format: ListFormat,
}

/// Stands for every fault.
const ALL: &str = "all";
/// May stand between two faults.
const THEN: &str = "then";

fn words() -> PossibleValuesParser {
    let fault = |fault: &Fault| PossibleValue::new(fault.word()).help(fault.help());
    let all = PossibleValue::new(ALL).help("Every fault, a line each");
    let then = PossibleValue::new(THEN).help("No effect; can stand between two faults");
    PossibleValuesParser::new(Fault::ALL.iter().map(fault).chain([all, then]))
}

pub(super) fn run(args: &Args) -> Ended {
    let (faults, each) = parse(&args.faults).map_err(|why| Failure::new(Exit::Usage, why))?;
    let config = args.common.client_config()?;
    let snapshot = call::snapshot(&config)?;
    let predictions = call::what_if(&config, faults, each)?;
    match (args.format, predictions.as_slice()) {
        (ListFormat::Json, [one]) if !each => print_json(&row(one, &snapshot)),
        (ListFormat::Json, all) => print_json(&all.iter().map(|one| row(one, &snapshot)).collect::<Vec<_>>()),
        (ListFormat::Text, all) if each => print(&table(all)),
        (ListFormat::Text, all) => all.iter().for_each(|one| print(&text(one, &snapshot))),
    }
    // What every line leans on is said once.
    if each && args.format == ListFormat::Text {
        predictions
            .first()
            .into_iter()
            .flat_map(|one| &one.remarks)
            .for_each(|remark| say(&format!("NOTE: {remark}\n")));
    }
    match predictions.as_slice() {
        [one] if !each && one.verdict == Verdict::Impossible => Ok(Exit::Refused as u8),
        _ => Ok(0),
    }
}

/// The faults, and whether every one is to follow.
fn parse(words: &[String]) -> Result<(Vec<Fault>, bool), String> {
    let mut words: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != THEN).collect();
    let each = words.last() == Some(&ALL);
    if each {
        words.pop();
    }
    let faults = words.iter().map(|word| match *word {
        ALL => Err(format!("\"{ALL}\" must be the last argument")),
        word => word.parse(),
    });
    let faults: Vec<Fault> = faults.collect::<Result<_, _>>()?;
    match faults.len() {
        0 if !each => Err("give a fault".to_owned()),
        n if n + usize::from(each) > MOST_FAULTS => Err(format!("at most {MOST_FAULTS} faults can be specified")),
        _ => Ok((faults, each)),
    }
}

/// The status as it would be shown then.
fn status(of: &Prediction, snapshot: &Snapshot) -> Status {
    let (report, now) = (of.report.clone(), of.now);
    Status::new(&Snapshot {
        report,
        now,
        alive: now,
        noted: None,
        rebuild: None,
        checkpoint: None,
        space: Vec::new(),
        ledger_error: None,
        connections: Vec::new(),
        bin_dir: None,
        peer_failing: Vec::new(),
        backups: None,
        ..snapshot.clone()
    })
}

fn name(member: Option<Member>, snapshot: &Snapshot) -> &str {
    match member {
        None => "",
        Some(Member::Server(server)) => &snapshot.servers[server.index()].id,
        Some(Member::Arbiter) => snapshot.arbiter.as_ref().map_or("", |arbiter| &arbiter.id),
    }
}

// --------------------------------------------------------------------------------------------------------------- text

fn text(of: &Prediction, snapshot: &Snapshot) -> String {
    let mut out = format!("{}\n", of.summary);
    if !of.why.is_empty() {
        let _ = writeln!(out, "why: {}", of.why);
    }
    if !of.steps.is_empty() {
        out.push('\n');
    }
    let names = of.steps.iter().map(|step| name(step.who, snapshot).len()).max().unwrap_or(0);
    let mut fault = 0;
    for step in &of.steps {
        if step.fault != fault {
            out.push_str("then\n");
            fault = step.fault;
        }
        let (s, ms) = (step.at_ms / 1000, step.at_ms % 1000);
        let _ = writeln!(
            out,
            "{:>8}.{:02} s  {:names$}  {}",
            format!("+{s}"),
            ms / 10,
            name(step.who, snapshot),
            step.text
        );
    }
    if of.verdict != Verdict::Impossible {
        out.push('\n');
        out.push_str(&status(of, snapshot).text(false, coloured()));
    }
    for (what, lines) in [("then", &of.then), ("note", &of.remarks)] {
        if !lines.is_empty() {
            out.push('\n');
        }
        lines.iter().for_each(|line| _ = writeln!(out, "{what}: {line}"));
    }
    out
}

/// A line for each; the fault that was added last names it.
fn table(all: &[Prediction]) -> String {
    let word = |of: &Prediction| of.faults.last().map_or("", |fault| fault.word());
    let width = all.iter().map(|of| word(of).len()).max().unwrap_or(0);
    let line = |of: &Prediction| match of.verdict {
        Verdict::Impossible => format!("{:width$}  ({})\n", word(of), of.summary),
        _ => format!("{:width$}  {}\n", word(of), of.summary),
    };
    all.iter().map(line).collect()
}

// --------------------------------------------------------------------------------------------------------------- json

/// A prediction, for machines: field names are stable.
#[derive(Serialize)]
struct Row<'a> {
    faults: &'a [Fault],
    verdict: Verdict,
    summary: &'a str,
    why: &'a str,
    /// `null`: without end.
    interrupted_seconds: Option<f64>,
    without_consent: bool,
    steps: Vec<RowStep<'a>>,
    then: &'a [String],
    remarks: &'a [String],
    status: Status,
}

#[derive(Serialize)]
struct RowStep<'a> {
    fault: usize,
    seconds: f64,
    member: Option<&'a str>,
    text: &'a str,
    message: Option<String>,
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn row<'a>(of: &'a Prediction, snapshot: &'a Snapshot) -> Row<'a> {
    let steps = of.steps.iter().map(|step| RowStep {
        fault: step.fault,
        seconds: seconds(step.at_ms),
        member: step.who.map(|who| name(Some(who), snapshot)),
        text: &step.text,
        message: step.message.map(|number| format!("MCA{number:05}")),
    });
    Row {
        faults: &of.faults,
        verdict: of.verdict,
        summary: &of.summary,
        why: &of.why,
        interrupted_seconds: of.interrupted_ms.map(seconds),
        without_consent: of.without_consent,
        steps: steps.collect(),
        then: &of.then,
        remarks: &of.remarks,
        status: status(of, snapshot),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_follow_each_other() {
        let check = |words: &str, expected: Result<(Vec<Fault>, bool), &str>| {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            assert_eq!(parse(&words), expected.map_err(str::to_owned));
        };
        check("link", Ok((vec![Fault::Link], false)));
        check("all", Ok((vec![], true)));
        check("arbiter then primary-host back", Ok((vec![Fault::Arbiter, Fault::PrimaryHost, Fault::Back], false)));
        check("arbiter all", Ok((vec![Fault::Arbiter], true)));
        check("all arbiter", Err("\"all\" must be the last argument"));
        check("then", Err("give a fault"));
        check("link back link back link back link", Err("at most 6 faults can be specified"));
    }

    /// That state is of a time to come, and the controller does not stand still until then.
    #[test]
    fn what_is_foretold_is_not_stuck() {
        let snapshot = crate::status::tests::snapshot();
        let foretold = Prediction {
            faults: vec![Fault::Arbiter],
            verdict: Verdict::Unharmed,
            summary: String::new(),
            why: String::new(),
            interrupted_ms: Some(0),
            without_consent: false,
            steps: vec![],
            then: vec![],
            remarks: vec![],
            report: snapshot.report.clone(),
            now: snapshot.now.plus(60_000),
        };
        let status = status(&foretold, &snapshot);
        assert_eq!((status.health.primary, status.health.healthy), (true, true));
        assert_eq!(status.controller.decision_age_seconds, 0.0);
    }

    #[test]
    fn every_fault_has_a_word_of_its_own() {
        for fault in Fault::ALL {
            assert_eq!(fault.word().parse(), Ok(*fault));
            assert!(!fault.help().is_empty() && !fault.help().contains("  "), "{}", fault.help());
        }
    }
}
