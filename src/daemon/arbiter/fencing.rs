//! Calls the operator's `fencing_command` for a core, on a thread of its own for each call.

use super::cluster::Cluster;
use super::{News, Notifier};
use crate::daemon::{spawn, user_command};
use crate::fsm::event::{Aim, JobId, UserCommand};
use crate::messages::Names;
use crate::pg::bounded::Cancel;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Calls that may be out at a time, over all clusters.
const MAX_CALLS: usize = 256;

/// The command, as configured.
#[derive(Clone)]
pub struct Fencing {
    /// The program.
    pub command: PathBuf,
    /// `fencing_command_timeout`.
    pub limit: Duration,
    /// Calls that are out.
    pub out: Arc<AtomicUsize>,
}

impl Fencing {
    /// Calls it for the cluster of this number. Answered by [`News::Called`].
    pub fn call(&self, number: usize, cluster: &Cluster, id: JobId, command: &UserCommand, notifier: &Notifier) {
        let arguments = arguments(&cluster.names, command);
        let environment = [
            ("MC_TERM".to_owned(), command.term.to_string()),
            ("MC_REASON".to_owned(), command.reason.to_owned()),
            // There is none here, but a script for servers and arbiter alike may look.
            ("MC_DATA_DIRECTORY".to_owned(), String::new()),
            ("MC_CLUSTER".to_owned(), cluster.name.clone()),
        ];
        let generation = cluster.generation;
        let done = move |result| News::Called(number, generation, id, result);
        if self.out.fetch_add(1, Ordering::SeqCst) >= MAX_CALLS {
            self.out.fetch_sub(1, Ordering::SeqCst);
            return notifier.tell(done(Err(format!("{MAX_CALLS} calls are already in progress"))));
        }
        let (this, teller) = (self.clone(), notifier.clone());
        let spawned = spawn("fencing", move || {
            let result = user_command::run(&this.command, &arguments, &environment, this.limit, &Cancel::never());
            this.out.fetch_sub(1, Ordering::SeqCst);
            teller.tell(done(result.map_err(|error| error.to_string())));
        });
        if let Err(error) = spawned {
            self.out.fetch_sub(1, Ordering::SeqCst);
            notifier.tell(done(Err(error.to_string())));
        }
    }
}

/// `monitor|command switch|detach CALLER TARGET primarycenter` (mc_hooks(5)).
fn arguments(names: &Names, command: &UserCommand) -> [String; 5] {
    let mode = if command.by_operator { "command" } else { "monitor" };
    let aim = match command.aim {
        Aim::Switch => "switch",
        Aim::Detach => "detach",
        Aim::Attach => "attach",
    };
    [mode, aim, &names.arbiter, names.id(command.target), "primarycenter"].map(str::to_owned)
}
