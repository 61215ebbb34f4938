//! Connections that the answering server needs and that fail, as `mc_ctl status` shows them.

use crate::messages::commands::{Form, Verb};
use serde::{Deserialize, Serialize};

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A new session of the controller on this server's instance.
    OwnInstance,
    /// A session of the controller on the other server's instance, which a rebuild needs.
    OtherInstance,
    /// The replication connection of this standby, by `primary_conninfo`.
    Replication,
}

/// Why a connection fails, as far as that decides the remedy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// What the two sides authenticate with: a password, a certificate, `pg_hba.conf`, a role.
    Authentication,
    /// The primary no longer has the WAL that this standby requires next.
    MissingWal,
    /// The network or the server.
    #[default]
    #[serde(other)]
    Other,
}

impl Cause {
    /// The cause that an error of libpq or of a server names. libpq reports nothing but text.
    pub fn of(error: &str) -> Cause {
        let words = ["authentication", "password", "certificate", "pg_hba.conf", "SSL error", "support SSL", "role \""];
        if words.iter().any(|word| error.contains(word)) { Cause::Authentication } else { Cause::Other }
    }
}

/// A connection that fails.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConnectionFailure {
    /// What it is for.
    pub purpose: Purpose,
    /// Why it fails. A controller of an older version reports none.
    #[serde(default)]
    pub cause: Cause,
    /// The error of the server or of libpq.
    pub error: String,
}

impl ConnectionFailure {
    /// A failure with this error of libpq or of a server.
    pub fn new(purpose: Purpose, error: String) -> ConnectionFailure {
        ConnectionFailure { purpose, cause: Cause::of(&error), error }
    }

    /// The standby can connect, and the primary no longer has this WAL segment.
    pub fn missing_wal(segment: &str) -> ConnectionFailure {
        let error = format!("the primary no longer has WAL segment {segment}, which this standby requires next");
        ConnectionFailure { purpose: Purpose::Replication, cause: Cause::MissingWal, error }
    }

    /// How to repair it on this server; `None` if the network or the server is the cause.
    pub fn hint(&self, form: &Form) -> Option<String> {
        match self.cause {
            Cause::Authentication => Some(self.hint_on(form, "here")),
            Cause::MissingWal => Some(format!("{}: run \"mc_ctl rebuild\" on this server", self.error)),
            Cause::Other => None,
        }
    }

    /// How to repair a rejected connection on the server at this place.
    pub fn hint_on(&self, form: &Form, place: &str) -> String {
        let reload = form.command(Verb::Reload);
        let set = format!(
            "set db_instance_password in ID.conf of both servers to the password of the database user, and run \"{reload}\" on both"
        );
        match self.purpose {
            Purpose::OwnInstance => format!("if the password is wrong, {set}"),
            Purpose::OtherInstance => set,
            // libpq reports nothing but text.
            Purpose::Replication if self.error.contains("password authentication failed") => {
                format!("{set}; if primary_conninfo has another user, correct its password there")
            }
            Purpose::Replication => format!(
                "correct what the error names (password, certificate, pg_hba.conf of the primary), and run \"{reload}\" {place}"
            ),
        }
    }

    /// In a sentence.
    pub fn sentence(&self) -> String {
        match self.cause {
            Cause::MissingWal => self.error.clone(),
            Cause::Authentication | Cause::Other => format!("{}: {}", self.purpose.what_fails(), self.error),
        }
    }
}

impl Purpose {
    fn what_fails(self) -> &'static str {
        match self {
            Purpose::OwnInstance => "this server's instance rejects new sessions of the controller",
            Purpose::OtherInstance => "the other server's instance rejects the password of this server's controller",
            Purpose::Replication => "this standby cannot connect to the primary",
        }
    }

    /// What is reported when the connection works again.
    pub fn works(self) -> &'static str {
        match self {
            Purpose::OwnInstance => "this server's instance accepts sessions of the controller",
            Purpose::OtherInstance => "the other server's instance accepts the password of this server's controller",
            Purpose::Replication => "this standby can connect to the primary",
        }
    }
}
