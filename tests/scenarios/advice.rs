//! What every state must offer to an operator: a command that can be pasted and that the controller does not refuse.

use crate::words;
use crate::world::World;
use mirroring_controller::fsm::event::{Action, Event, Reply, Transient};
use mirroring_controller::fsm::node::Node;
use mirroring_controller::fsm::report::Word;
use mirroring_controller::fsm::types::Time;

/// How a command continues that is run on another host, or later.
const ELSEWHERE: [&str; 6] = [" on it", " on that", " on the ", " on server", " on its", " and"];

/// What precedes a command that is run later.
const LATER: &str = "when the other server runs as the primary (\"mc_ctl status\" there), run \"mc_ctl rebuild\" here";

/// Why a command is refused while another one is carried out.
const BUSY: &str = "mc_ctl command is being executed";

/// The first server whose advice is not usable, and why.
pub fn mistake(world: &World) -> Option<String> {
    (0..2).find_map(|m| {
        let why = mistake_of(world.node(m)?, world.time())?;
        Some(format!("on nd{}: {why}", m + 1))
    })
}

fn mistake_of(node: &Node, now: Time) -> Option<String> {
    let report = node.report(now);
    // `mc_ctl status` names the command that attaches a disconnected standby.
    if report.word != Word::Switchable && report.disconnected.is_none() && report.advice.is_empty() {
        return Some(format!("{:?} without advice", report.word));
    }
    report.advice.iter().find_map(|advice| {
        let found: Vec<(&str, &str)> = commands(advice).collect();
        if found.is_empty() {
            return Some(format!("no command: {advice}"));
        }
        if let Some((command, _)) = found.iter().find(|(command, _)| !parses(command)) {
            return Some(format!("{command} is no command: {advice}"));
        }
        let advice_now = advice.replace(LATER, "");
        let here = commands(&advice_now).filter(|(_, after)| !ELSEWHERE.iter().any(|on| after.starts_with(on)));
        here.filter_map(|(command, _)| Some((command, refusal(node, now, command)?)))
            .map(|(command, why)| format!("{command} is refused ({why}): {advice}"))
            .next()
    })
}

/// The commands in quotation marks, each with the text after it.
fn commands(advice: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = advice.match_indices('"').step_by(2).map(|(at, _)| &advice[at + 1..]);
    parts
        .filter_map(|part| part.split_once('"'))
        .filter(|(quoted, _)| ["mc_ctl ", "mc_arb ", "psql "].iter().any(|program| quoted.starts_with(program)))
}

fn parses(command: &str) -> bool {
    use mirroring_controller::cli;
    let parse = |program: clap::Command| program.try_get_matches_from(command.split_whitespace()).is_ok();
    match command.split_once(' ') {
        Some(("mc_ctl", _)) => parse(cli::command()),
        Some(("mc_arb", _)) => parse(cli::arb::command()),
        _ => true,
    }
}

/// Why a copy of the controller refuses the command.
fn refusal(node: &Node, now: Time, command: &str) -> Option<String> {
    let words: Vec<&str> = command.strip_prefix("mc_ctl ")?.split(' ').collect();
    let request = words::request(&words)?;
    let mut node = node.clone();
    let actions = node.step(now, Event::Request { id: u64::MAX, request, limit_ms: 30_000 });
    let later = node.step(now.plus(50), Event::Tick);
    actions.into_iter().chain(later).find_map(|action| match action {
        Action::Reply(u64::MAX, Reply::Refused(why)) if Transient::of(&why).is_none() && why != BUSY => Some(why),
        _ => None,
    })
}
