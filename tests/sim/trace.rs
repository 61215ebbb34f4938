//! The transcript: what a reader needs to follow a run, without ticks, routine heartbeats and routine probes.

use crate::note;
use crate::world::{NAMES, World};
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::types::*;

/// A view in a few characters: `D(one)@3`.
pub fn view(v: &View) -> String {
    let mode = if v.mode == Mode::Mirrored { "M" } else { "D" };
    let forced = if v.forced { "!" } else { "" };
    let data = v.data.map(|d| format!("{:04x}", d.map_or(0, |d| d.0) & 0xffff)).join("/");
    format!(
        "{mode}({}){forced}@{} data {data} arb {:04x}",
        NAMES[v.primary.index()],
        v.term,
        v.arbiter.map_or(0, |id| id.0) & 0xffff
    )
}

fn ledger(l: &Ledger) -> String {
    format!("[{} promised {} own data {:04x}]", view(&l.view), l.promised, l.data.id.0 & 0xffff)
}

fn message(m: &Message) -> Option<String> {
    Some(match m {
        Message::Heartbeat(_) => return None,
        Message::Propose { base, view: v, received, .. } => {
            format!("Propose {} from {} received {received}", view(v), ledger(base))
        }
        Message::Answer { ledger: l } => format!("Answer {}", l.as_ref().map_or("none".to_string(), ledger)),
        other => format!("{other:?}"),
    })
}

impl World {
    /// What reaches a core.
    pub fn trace_event(&mut self, m: usize, event: &Event) {
        if !self.tracing {
            return;
        }
        match event {
            Event::Tick | Event::Disk(Disk::Good) => {}
            Event::Heard(from, what) => {
                if let Some(text) = message(what) {
                    note!(self, "{} <- {}: {text}", NAMES[m], NAMES[from.index()]);
                }
            }
            Event::Instance(_) | Event::PeerInstance(_) | Event::Refused(_) => {
                let text = format!("{event:?}");
                let what = std::mem::discriminant(event);
                let brief: String = match event {
                    Event::Instance(Instance::Primary { names, waiting, standby, .. }) => {
                        format!(
                            "Primary names {names:?} waiting {waiting} streaming {:?}",
                            standby.map(|r| r.streaming)
                        )
                    }
                    Event::Instance(Instance::Standby { streaming, .. }) => format!("Standby streaming {streaming}"),
                    _ => text,
                };
                self.note_change(m, what, brief);
            }
            Event::Boot(boot) => {
                let ledger =
                    boot.durable.map_or("none".to_string(), |d| format!("{} {:?}", ledger(&d.ledger), d.notes));
                note!(self, "{} boots: ledger {ledger} data {:?}", NAMES[m], boot.data);
            }
            other => note!(self, "{} <= {other:?}", NAMES[m]),
        }
    }

    fn note_change(&mut self, m: usize, what: std::mem::Discriminant<Event>, text: String) {
        let place = self.seen.iter().position(|(who, kind, _)| *who == m && *kind == what);
        match place {
            Some(i) if self.seen[i].2 == text => {}
            Some(i) => {
                self.seen[i].2.clone_from(&text);
                note!(self, "{} sees {text}", NAMES[m]);
            }
            None => {
                self.seen.push((m, what, text.clone()));
                note!(self, "{} sees {text}", NAMES[m]);
            }
        }
    }

    /// What a core orders.
    pub fn trace_action(&mut self, m: usize, action: &Action) {
        if !self.tracing {
            return;
        }
        match action {
            Action::Send(to, what) => {
                if let Some(text) = message(what) {
                    note!(self, "{} -> {}: {text}", NAMES[m], NAMES[to.index()]);
                }
            }
            Action::Store(n, durable, why) => {
                let l = ledger(&durable.ledger);
                let d = &durable.notes;
                let notes = format!(
                    "wanted {} detached {} handed_over {:?} promoted {} failover {} owed {:?} {:?} {:?}",
                    d.wanted,
                    d.detached.is_some(),
                    d.handed_over,
                    d.promoted,
                    d.failover.enabled,
                    d.owed.switched,
                    d.owed.detached,
                    d.owed.attached
                );
                let why = why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
                note!(self, "{} stores {n}: {l} {notes}{why}", NAMES[m]);
            }
            other => note!(self, "{} => {other:?}", NAMES[m]),
        }
    }
}
