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

/// A connection that fails.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConnectionFailure {
    /// What it is for.
    pub purpose: Purpose,
    /// The error of the server or of libpq.
    pub error: String,
}

impl ConnectionFailure {
    /// How to repair it; `None` where the network or the server is at fault, not what the two authenticate with.
    pub fn hint(&self, form: &Form) -> Option<String> {
        let words = ["authentication", "password", "certificate", "pg_hba.conf", "SSL error", "support SSL", "role \""];
        words.iter().any(|word| self.error.contains(word)).then(|| self.purpose.hint(form))
    }

    /// In a sentence.
    pub fn sentence(&self) -> String {
        format!("{}: {}", self.purpose.what_fails(), self.error)
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

    /// How to repair it, with the command in this form.
    pub fn hint(self, form: &Form) -> String {
        let reload = form.command(Verb::Reload);
        match self {
            Purpose::OwnInstance | Purpose::OtherInstance => format!(
                "if the password is wrong, set db_instance_password in ID.conf to the password of the database user, and run \
                 \"{reload}\""
            ),
            Purpose::Replication => format!(
                "correct what the error names (password, certificate, pg_hba.conf of the primary), and run \"{reload}\" here"
            ),
        }
    }
}
