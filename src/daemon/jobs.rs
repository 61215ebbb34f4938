//! What each job does to the instance. Called by the runner's thread, one at a time; decides nothing.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::fsm::event::{Job, Outcome};
use crate::pg::bounded::Cancel;
use crate::pg::{Place, control};

/// What the jobs need to know.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where the instance lives.
    pub place: Place,
    /// Database user for `primary_conninfo`.
    pub user: String,
    /// This server's `application_name`.
    pub name: String,
}

impl Setup {
    /// From the configuration; `name` is this server's `application_name`.
    pub fn new(config: &Config, name: &str) -> Setup {
        Setup { place: Place::new(config), user: config.server.db_instance_username.clone(), name: name.to_owned() }
    }
}

/// Does one job.
pub fn perform(setup: &Setup, job: &Job, cancel: &Cancel) -> Result<Outcome> {
    cancel.check()?;
    match job {
        Job::Inspect => control::inspect(&setup.place).map(Outcome::Data),
        _ => Err(Error::new("not yet")),
    }
}
