//! `mc_ctl history`: every change of view that this server has noted. Works without a running controller.

use super::args::{History, ListFormat};
use super::{Ended, Failure, print, say};
use crate::daemon::store::{self, Change};
use crate::fsm::types::{Mode, View};
use crate::messages::{Names, utc};
use serde::Serialize;
use std::time::{Duration, UNIX_EPOCH};

/// A change, for machines: field names are stable.
#[derive(Serialize)]
struct Row<'a> {
    time: String,
    from: Option<RowView<'a>>,
    to: RowView<'a>,
    reason: &'a str,
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
    let changes = store::history(&config.run_dir()).map_err(Failure::failed)?;
    match args.format {
        ListFormat::Text => print(&changes.iter().map(|c| text(c, &names)).collect::<String>()),
        ListFormat::Json => {
            let rows: Vec<Row> = changes.iter().map(|c| row(c, &names)).collect();
            print(&(serde_json::to_string_pretty(&rows).unwrap_or_default() + "\n"));
        }
    }
    if changes.is_empty() {
        say("mc_ctl: there is no history yet\n");
    }
    Ok(0)
}

fn time(change: &Change) -> String {
    utc(UNIX_EPOCH + Duration::from_millis(change.time_ms.min(1 << 47)))
}

fn text(change: &Change, names: &Names) -> String {
    let Change { from, to, reason, .. } = change;
    format!("{}  {} -> {}: {reason}\n", time(change), names.view(from.as_ref()), names.view(Some(to)))
}

fn row<'a>(change: &'a Change, names: &'a Names) -> Row<'a> {
    let view = |view: &View| RowView {
        term: view.term.0,
        mode: match view.mode {
            Mode::Mirrored => "mirrored",
            Mode::Degraded => "degraded",
        },
        primary: names.id(view.primary),
        forced: view.forced,
    };
    Row { time: time(change), from: change.from.as_ref().map(view), to: view(&change.to), reason: &change.reason }
}
