//! `mc_ctl history`: every change of view that this server has noted, or that its ledger shows, and what rebuilds found that only
//! this server had. Works without a running controller.

use super::args::{History, ListFormat};
use super::{Ended, Failure, print, print_json, say, say_remark};
use crate::config::Remark;
use crate::daemon::store::{self, Loaded};
use crate::fsm::types::View;
use crate::messages::{Names, utc};
use crate::rebuild::{self, Lost};
use crate::status::Change;
use serde::Serialize;
use std::time::{Duration, UNIX_EPOCH};

/// What has happened.
enum Event {
    Change(Change),
    /// Something that only this server had was kept aside.
    Lost(Lost),
}

/// One event, for machines: field names are stable. A change of view has `to`; what was lost has `lost`.
#[derive(Serialize)]
struct Row<'a> {
    time: String,
    from: Option<RowView<'a>>,
    to: Option<RowView<'a>>,
    reason: &'a str,
    lost: Option<&'a Lost>,
}

#[derive(Serialize)]
struct RowView<'a> {
    term: u64,
    mode: &'static str,
    primary: &'a str,
    forced: bool,
}

pub(super) fn run(args: &History) -> Ended {
    let config = args.common.client_config()?;
    let names =
        Names { ids: config.network.servers.clone().map(|line| line.id), me: config.me, arbiter: String::new() };
    let run_dir = config.run_dir();
    let mut changes = store::history(&run_dir).map_err(Failure::failed)?;
    let warn = |why: &str| {
        say_remark("mc_ctl", &Remark::warning(format!("the last change may be missing: {why}"), ""));
    };
    match store::load(&run_dir) {
        Ok(Loaded { durable: Some(durable), .. }) => {
            changes.extend(store::not_noted(&run_dir, &durable.ledger.view, &changes))
        }
        Ok(Loaded { durable: None, .. }) if changes.is_empty() => (),
        Ok(Loaded { durable: None, .. }) => warn("there is no ledger"),
        Err(error) => warn(&error.message),
    }
    let events = match args.last {
        true => changes.pop().into_iter().map(Event::Change).collect(),
        false => merge(changes, rebuild::list_lost(&run_dir).map_err(Failure::failed)?),
    };
    match args.format {
        ListFormat::Text => print(&events.iter().map(|event| text(event, &names)).collect::<String>()),
        ListFormat::Json => print_json(&events.iter().map(|event| row(event, &names)).collect::<Vec<Row>>()),
    }
    if events.is_empty() {
        say("mc_ctl: there is no history yet\n");
    }
    Ok(0)
}

/// By time. The changes stay in the order in which they were made, whatever the clock did meanwhile.
fn merge(changes: Vec<Change>, lost: Vec<Lost>) -> Vec<Event> {
    let mut events = Vec::with_capacity(changes.len() + lost.len());
    let mut lost = lost.into_iter().peekable();
    for change in changes {
        while let Some(kept) = lost.next_if(|kept| kept.time_ms < change.time_ms) {
            events.push(Event::Lost(kept));
        }
        events.push(Event::Change(change));
    }
    events.extend(lost.map(Event::Lost));
    events
}

fn time(ms: u64) -> String {
    utc(UNIX_EPOCH + Duration::from_millis(ms.min(1 << 47)))
}

fn text(event: &Event, names: &Names) -> String {
    match event {
        Event::Change(Change { time_ms, from, to, reason }) => {
            let from = from.as_ref().map_or("no view".to_owned(), |view| state(view, names));
            format!("{}  {from} -> {}, term {}: {reason}\n", time(*time_ms), state(to, names), to.term.0)
        }
        Event::Lost(lost) => format!(
            "{}  rebuild of {}: only this server had {}; saved in \"{}\"\n",
            time(lost.time_ms),
            names.me(),
            lost.in_words(),
            lost.kept.display()
        ),
    }
}

/// Who serves under a view.
fn state(view: &View, names: &Names) -> String {
    view.mode.state(names.id(view.primary), view.forced)
}

fn row<'a>(event: &'a Event, names: &'a Names) -> Row<'a> {
    let view = |view: &View| RowView {
        term: view.term.0,
        mode: view.mode.word(),
        primary: names.id(view.primary),
        forced: view.forced,
    };
    match event {
        Event::Change(change) => Row {
            time: time(change.time_ms),
            from: change.from.as_ref().map(view),
            to: Some(view(&change.to)),
            reason: &change.reason,
            lost: None,
        },
        Event::Lost(lost) => Row {
            time: time(lost.time_ms),
            from: None,
            to: None,
            reason: "a rebuild removed WAL that only this server had, and saved it",
            lost: Some(lost),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::types::{Mode, Server, Term};

    fn change(time_ms: u64, term: u64) -> Change {
        let (primary, mode) = (Server::Second, Mode::Degraded);
        let to = View { term: Term(term), primary, mode, data: Default::default(), arbiter: None, forced: false };
        Change { time_ms, from: None, to, reason: "so".into() }
    }

    fn lost(time_ms: u64) -> Lost {
        Lost {
            time_ms,
            timeline: 1,
            from: "0/3000000".into(),
            to: "0/3001000".into(),
            transactions: 1,
            first_commit: String::new(),
            last_commit: String::new(),
            relations: vec![],
            more_relations: false,
            maybe_acknowledged: false,
            doubt: Default::default(),
            kept: "/mc/nd1/lost/x".into(),
        }
    }

    #[test]
    fn by_time_and_in_order() {
        let events = merge(vec![change(1000, 2), change(3000, 4), change(2500, 6)], vec![lost(2000), lost(4000)]);
        let times: Vec<u64> = events
            .iter()
            .map(|event| match event {
                Event::Change(change) => change.time_ms,
                Event::Lost(lost) => lost.time_ms,
            })
            .collect();
        assert_eq!(times, [1000, 2000, 3000, 2500, 4000]);
        let names = Names { ids: ["nd1".into(), "nd2".into()], me: Server::First, arbiter: String::new() };
        let shown: String = events[..2].iter().map(|event| text(event, &names)).collect();
        assert_eq!(
            shown,
            "1970-01-01T00:00:01.000Z  no view -> nd2 serves alone, term 2: so\n1970-01-01T00:00:02.000Z  rebuild of nd1: only this server had 1 committed \
             transaction; none was acknowledged with synchronous_commit on (timeline 1, 0/3000000 to 0/3001000); saved in \"/mc/nd1/lost/x\"\n"
        );
        let rows = serde_json::to_value([row(&events[0], &names), row(&events[1], &names)]).unwrap();
        assert_eq!((&rows[0]["to"]["term"], &rows[0]["lost"]), (&2.into(), &serde_json::Value::Null));
        assert_eq!((&rows[1]["to"], &rows[1]["lost"]["kept"]), (&serde_json::Value::Null, &"/mc/nd1/lost/x".into()));
    }
}
