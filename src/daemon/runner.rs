//! Does the decision thread's jobs on the instance, one at a time, on a thread of its own, and answers each by
//! [`Event::Done`]. It decides nothing. [`super::jobs`] holds what each job does.
//!
//! A newer order cancels the one that runs (only [`Job::Stop`] is ordered so): every wait of a job looks at its cancel
//! flag, and the cancelled job answers [`Outcome::Failed`] first. Calls that may hang on a dying disk or a frozen
//! instance are made on threads that can be abandoned, so that an order to stop is always heard.

use super::jobs::Jobs;
pub use super::jobs::Setup;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::fsm::event::{Event, Job, JobId, Outcome};
use crate::pg::bounded::{Cancel, Canceller};
use crate::rebuild;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::time::Duration;

/// How long the password may take to be written.
const WRITE: Duration = Duration::from_secs(3);

enum Order {
    Run(JobId, Job, Cancel),
    AnswerAgain(JobId),
    /// This password, if it is the present one, is written to `primary_conninfo` of a standby.
    WritePassword(String, Cancel, Sender<Result<bool>>),
    /// The instance is connected to by this configuration from now on.
    Connect(Box<Config>),
}

/// The handle of the decision thread. When it is dropped, the running job is cancelled and the thread ends.
#[derive(Debug)]
pub struct Runner {
    orders: Sender<Order>,
    current: Option<(JobId, bool, Canceller)>,
}

impl Runner {
    /// Starts the thread. `report` takes each [`Event::Done`] into the inbox; rebuilds write on `board` how far they are.
    pub fn start(setup: Setup, board: rebuild::Board, report: Box<dyn Fn(Event) + Send>) -> Result<Runner> {
        let (orders, inbox) = unbounded();
        let mut jobs = Jobs::new(setup, board);
        let work = move || run(&mut jobs, &inbox, &*report);
        let spawned = std::thread::Builder::new().name("runner".into()).spawn(work);
        spawned.map_err(|e| Error::new(format!("could not start a thread: {e}")))?;
        Ok(Runner { orders, current: None })
    }

    /// Orders a job; what runs is cancelled.
    pub fn run(&mut self, id: JobId, job: Job) {
        let (canceller, cancel) = Cancel::new();
        // Dropping the old canceller cancels.
        self.current = Some((id, matches!(job, Job::Stop { .. }), canceller));
        // The thread ends only after this sender is gone.
        let _ = self.orders.send(Order::Run(id, job, cancel));
    }

    /// How a reload tells the thread as whom to connect: from the next job on.
    pub fn connections(&self) -> impl Fn(&Config) + Send + Sync + 'static {
        let orders = self.orders.clone();
        move |config| _ = orders.send(Order::Connect(Box::new(config.clone())))
    }

    /// How the probe of connections has the password written.
    pub fn password_writer(&self) -> PasswordWriter {
        PasswordWriter(self.orders.clone())
    }

    /// Asks for the answer to a job again; if it still runs, it is cancelled first (but for a stop, which ends by itself).
    pub fn nudge(&mut self, id: JobId) {
        if self.current.as_ref().is_some_and(|(current, stops, _)| *current == id && !stops) {
            self.current = None;
        }
        let _ = self.orders.send(Order::AnswerAgain(id));
    }
}

/// Has the runner write the password between two jobs: a rebuild or a start changes the same file.
pub struct PasswordWriter(Sender<Order>);

impl PasswordWriter {
    /// Writes the password that the primary accepts, unless the configuration has another one by then. Returns whether the file
    /// has changed. An order is not begun after this call has given up waiting.
    ///
    /// # Errors
    /// It cannot be changed, or the runner is busy.
    pub fn write(&self, password: &str) -> Result<bool> {
        self.write_within(password, WRITE)
    }

    fn write_within(&self, password: &str, limit: Duration) -> Result<bool> {
        let (sender, answer) = crossbeam_channel::bounded(1);
        let (_canceller, cancel) = Cancel::new();
        let _ = self.0.send(Order::WritePassword(password.to_owned(), cancel, sender));
        answer
            .recv_timeout(limit)
            .unwrap_or_else(|_| Err(Error::new("the controller is busy with another operation on the instance")))
    }
}

fn run(jobs: &mut Jobs, inbox: &Receiver<Order>, report: &dyn Fn(Event)) {
    let mut last: Option<(JobId, Outcome)> = None;
    for order in inbox {
        match order {
            Order::Run(id, job, cancel) => {
                let outcome = jobs.perform(&job, &cancel).unwrap_or_else(|e| Outcome::Failed(e.to_string()));
                log::debug!("job {}: {job:?}: {outcome:?}", id.0);
                last = Some((id, outcome.clone()));
                report(Event::Done(id, outcome));
            }
            Order::Connect(config) => jobs.connect_by(&config),
            Order::WritePassword(password, cancel, answer) => _ = answer.send(jobs.write_password(&password, &cancel)),
            Order::AnswerAgain(id) => {
                let known = last.clone().filter(|(last_id, _)| *last_id == id);
                let unknown = || (id, Outcome::Failed("the request did not reach the runner".into()));
                let (id, outcome) = known.unwrap_or_else(unknown);
                report(Event::Done(id, outcome));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::Place;
    use crate::pg::connect::Target;

    /// The order for the password `tested`, of which the caller has given up waiting or not, reaches a runner whose
    /// configuration has `present`. Returns `primary_conninfo` after that.
    fn written(tested: &str, present: &str, given_up: bool) -> String {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().canonicalize().unwrap();
        let auto = data.join("postgresql.auto.conf");
        for (name, text) in [
            ("standby.signal", ""),
            ("postgresql.conf", ""),
            ("postgresql.auto.conf", "primary_conninfo = 'user=rep password=old host=a'\n"),
        ] {
            std::fs::write(data.join(name), text).unwrap();
        }
        let log = data.join("log");
        let place = Place {
            config_file: data.join("postgresql.conf"),
            bin_dir: data.clone(),
            major: 15,
            log_file: log.clone(),
            startup_log: log,
            data: data.clone(),
        };
        let rebuild = rebuild::Setup {
            place: place.clone(),
            user: "rep".into(),
            password: Some(present.into()),
            dbname: "postgres".into(),
            name: "nd2".into(),
            host: "127.0.0.1".into(),
            run_dir: data.clone(),
            archive: None,
        };
        let setup = Setup {
            target: Target::new("rep", None, "postgres", &data),
            name: "nd2".into(),
            place,
            rebuild,
            checkpoint_patience: Duration::from_secs(60),
            checkpoints: Default::default(),
        };
        let (orders, inbox) = unbounded();
        let writer = PasswordWriter(orders);
        let mut jobs = Jobs::new(setup, rebuild::Board::default());
        if given_up {
            writer.write_within(tested, Duration::ZERO).unwrap_err();
            drop(writer);
            run(&mut jobs, &inbox, &|_| ());
        } else {
            let runner = std::thread::spawn(move || run(&mut jobs, &inbox, &|_| ()));
            writer.write_within(tested, Duration::from_secs(60)).unwrap();
            drop(writer);
            runner.join().unwrap();
        }
        std::fs::read_to_string(auto).unwrap()
    }

    #[test]
    fn a_password_is_written_only_while_it_is_waited_for() {
        assert!(written("new", "new", false).contains("password=new"));
        assert!(written("new", "new", true).contains("password=old"));
    }

    #[test]
    fn a_password_that_was_replaced_meanwhile_is_not_written() {
        assert!(written("new", "newer", false).contains("password=old"));
    }
}
