//! `mc_ctl explain`: what a message or a finding of `mc_ctl check` means, and what to do.

use super::{Ended, Exit, Failure, print, service_form};
use crate::check::{self, remedies};
use crate::messages::catalogue;
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use std::ffi::OsStr;
use std::path::PathBuf;

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The number of a message, such as MCA00062, or the code of a finding, such as same-file-system
    #[arg(value_name = "MESSAGE|FINDING", required_unless_present = "list", value_parser = Word, hide_possible_values = true)]
    what: Option<String>,
    /// List all messages and findings, one per line
    #[arg(long, conflicts_with = "what")]
    list: bool,
}

/// Any word. Shells complete the codes of findings.
#[derive(Clone)]
struct Word;

impl TypedValueParser for Word {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(check::catalogue().map(|entry| PossibleValue::new(entry.code))))
    }
}

pub(super) fn run(args: &Args) -> Ended {
    let Some(what) = &args.what else {
        print(&list());
        return Ok(0);
    };
    let directory = std::env::var_os("MCCONTROLDIR").map(PathBuf::from);
    let form = || service_form::of_host(directory.as_deref());
    let message = || catalogue::parse_number(what).and_then(catalogue::find).map(|entry| entry.explain(&form()));
    let Some(text) = remedies::find(what).map(|entry| entry.explain()).or_else(message) else {
        return Err(Failure::new(Exit::Usage, format!("there is no message or finding \"{what}\"")).hint(
            "Specify the number at the end of a message, such as MCA00062, or the code of a finding, such as same-file-system. \
             Run \"mc_ctl explain --list\" for a list of all.",
        ));
    };
    print(&text);
    Ok(0)
}

fn list() -> String {
    let messages = catalogue::CATALOGUE.iter();
    let messages = messages.map(|entry| format!("MCA{:05}  {}: {}\n", entry.number, entry.kind.word(), entry.text));
    let findings = check::catalogue().map(|entry| format!("{}  {}\n", entry.code, entry.severity.word()));
    messages.chain(findings).collect()
}
