//! Messages between the members as bytes: total (junk is an error, never a panic), versioned and bounded.
//!
//! A body is JSON. What a newer minor version adds is ignored here, and what an older one does not know to say is filled
//! in from [`Heartbeat::blank`], so that members one minor version apart work together; a ledger is
//! whole or none, and nothing inside it is ever filled in. A message of an unknown kind is an error for that message
//! alone. Only `daemon::links` and `daemon::arbiter` call this; encryption and framing are their work.

use crate::error::{Error, Result};
use crate::fsm::event::{Heartbeat, Message};
use crate::fsm::types::Member;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

/// Members of different major versions do not talk: the handshake fails.
pub const MAJOR: u8 = 1;

/// Told in [`Hello`]; grows whenever a field or a kind of message is added.
pub const MINOR: u16 = 6;

/// From this [`MINOR`] on a member answers [`Aside::Inspect`].
pub const MINOR_OF_ASIDES: u16 = 2;

/// From this [`MINOR`] on a member answers [`Aside::Read`].
pub const MINOR_OF_ARCHIVES: u16 = 4;

/// The longest body, in bytes: a Noise message is at most 65535 bytes with its 16-byte tag.
pub const MAX_BODY: usize = 65535 - 16;

/// The first message on a connection: who talks, and to whom.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The sender's [`MINOR`].
    pub version: u16,
    /// The sender, by its line in `network.conf`: both members must number the lines alike, or they would propose with
    /// the same terms (PROTOCOL R1).
    pub member: Member,
    /// The sender's identifier in `network.conf`.
    pub id: String,
    /// The identifier of the member that it means to talk to.
    pub to: String,
}

impl Hello {
    /// As a body.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From a body.
    ///
    /// # Errors
    /// Whatever is not a `Hello`.
    pub fn decode(body: &[u8]) -> Result<Hello> {
        bounded(body)?;
        serde_json::from_slice(body).map_err(malformed)
    }
}

/// A message as a body.
///
/// # Errors
/// Longer than [`MAX_BODY`].
pub fn encode(message: &Message) -> Result<Vec<u8>> {
    let body = serde_json::to_vec(message).map_err(malformed)?;
    bounded(&body)?;
    Ok(body)
}

/// A body as a message.
///
/// # Errors
/// Whatever is not a message, or one of a kind that this version does not know.
pub fn decode(body: &[u8]) -> Result<Message> {
    bounded(body)?;
    // What a member of the same version says is whole.
    if let Ok(message) = serde_json::from_slice(body) {
        return Ok(message);
    }
    let mut value: Value = serde_json::from_slice(body).map_err(malformed)?;
    if let Some(Value::Object(told)) = value.get_mut("Heartbeat")
        && let Ok(Value::Object(defaults)) = serde_json::to_value(Heartbeat::blank())
    {
        for (field, default) in defaults {
            told.entry(field).or_insert(default);
        }
    }
    serde_json::from_value(value).map_err(malformed)
}

/// What members say to each other beside the protocol, for `mc_ctl check`. The core is not told of it: an aside is no
/// [`Message`] and becomes no event, so that nothing that is said here can bear on a decision. A member of a version before
/// [`MINOR_OF_ASIDES`] takes it for a message of an unknown kind, and continues.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Aside {
    /// Asks what the receiver is like, for one part of the answer at a time: however long the whole is, a heartbeat waits for
    /// one part at most. Asked again where no answer comes.
    Inspect {
        /// Names the whole question.
        id: u64,
        /// Which part of the answer, from 0.
        part: u32,
        /// How long the asker waits for the whole, ms.
        limit_ms: u64,
    },
    /// The answer to [`Aside::Inspect`].
    Inspected {
        /// Of the question.
        id: u64,
        /// The answerer's clock when this was sent, ms since the epoch.
        wall_ms: u64,
        /// Which part this is.
        part: u32,
        /// Of how many; 0 where there is nothing to tell yet, or nothing at all: `text` then says why.
        of: u32,
        /// This part of the answer: joined, they are a JSON value that the members' links do not look into.
        text: String,
    },
    /// Asks a server for a part of what it has archived. Asked again where no answer comes.
    Read {
        /// Names the question.
        id: u64,
        /// What.
        what: Archived,
        /// From which byte on.
        offset: u64,
    },
    /// The answer to [`Aside::Read`], or why there is none.
    Part {
        /// Of the question.
        id: u64,
        /// The part.
        part: std::result::Result<Part, String>,
    },
    /// Connections that the sender needs and that fail, a sentence each; repeated as long as one fails. An empty list ends it.
    Failing {
        /// The sentences.
        failures: Vec<String>,
    },
}

/// What a server has in its `backup_destination`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Archived {
    /// The file with this name in its WAL archive.
    Wal(String),
    /// The list of its backups and of the files in its archive, as JSON.
    Contents,
    /// Has the server rebuilt from the asker, after a recovery: as an operator orders it there. Nothing is answered.
    Rebuild {
        /// By a full copy, else by `pg_rewind`.
        copy: bool,
    },
    /// How the rebuild goes, as JSON.
    Rebuilding,
    /// The list of the files of the backup with this name, as JSON.
    Files(String),
    /// A file of a backup.
    File {
        /// The name of the backup.
        backup: String,
        /// The path in its directory.
        path: PathBuf,
    },
}

/// A part of what a server has archived.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// How many bytes the whole has; `None` if it is not there.
    pub total: Option<u64>,
    /// The bytes in base64.
    pub data: String,
}

impl Aside {
    /// As a body.
    ///
    /// # Errors
    /// Longer than [`MAX_BODY`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        let body = serde_json::to_vec(self).map_err(malformed)?;
        bounded(&body)?;
        Ok(body)
    }

    /// From a body; called for one that [`decode`] does not take.
    ///
    /// # Errors
    /// Whatever is not an aside.
    pub fn decode(body: &[u8]) -> Result<Aside> {
        bounded(body)?;
        serde_json::from_slice(body).map_err(malformed)
    }
}

fn bounded(body: &[u8]) -> Result<()> {
    if body.len() > MAX_BODY {
        return Err(Error::new(format!("message of {} bytes is longer than {MAX_BODY}", body.len())));
    }
    Ok(())
}

fn malformed(cause: serde_json::Error) -> Error {
    Error::new(format!("malformed message: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::event::{Reply, Request, Role};
    use crate::fsm::types::*;
    use proptest::prelude::*;

    fn ledger(term: u64) -> Ledger {
        Ledger {
            system: SystemId(u64::MAX),
            id: LedgerId(u64::MAX - 1),
            data: DataIdentity { id: DataId(7), fingerprint: 8, inode_print: 0, checkpoint: Lsn(9) },
            view: View {
                term: Term(term),
                primary: Server::Second,
                mode: Mode::Mirrored,
                data: [Some(DataId(1)), Some(DataId(2))],
                arbiter: Some(LedgerId(3)),
                forced: false,
            },
            promised: Term(term + 1),
        }
    }

    fn messages(term: u64, text: String) -> Vec<Message> {
        let heartbeat = Heartbeat {
            seq: term,
            ledger: Some(ledger(term)),
            disk: text.clone(),
            name: text.clone(),
            arbiter: ((term != 0).then_some(LedgerId(term)), Term(term)),
            ..Heartbeat::blank()
        };
        vec![
            Message::Heartbeat(Box::new(heartbeat)),
            Message::Propose {
                base: ledger(term),
                view: ledger(term).view,
                received: Lsn(u64::MAX),
                point: None,
                known: (Some(LedgerId(1)), Term(term)),
                why: text.clone(),
            },
            Message::Answer { ledger: None },
            Message::Answer { ledger: Some(ledger(term)) },
            Message::Ask { id: term, request: Request::Stop { instance: true, all: false }, limit_ms: 5 },
            Message::Told { id: term, reply: Reply::Refused(text) },
        ]
    }

    proptest! {
        #[test]
        fn every_message_comes_back(term in 0..u64::MAX - 1, text in ".*") {
            for message in messages(term, text) {
                prop_assert_eq!(decode(&encode(&message).unwrap()).unwrap(), message);
            }
        }

        #[test]
        fn junk_is_an_error(body in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(decode(&body).is_err());
            prop_assert!(Aside::decode(&body).is_err());
            prop_assert!(Hello::decode(&body).is_err());
        }

        #[test]
        fn a_damaged_message_never_panics(term in 0..9u64, kind in 0..6usize, cut in 0..900usize, at in 0..900usize, byte: u8) {
            let mut body = encode(&messages(term, "x".into())[kind]).unwrap();
            let at = at % body.len();
            body[at] = byte;
            let _ = decode(&body);
            body.truncate(cut);
            let _ = decode(&body);
        }
    }

    #[test]
    fn an_aside_is_no_message_and_no_message_an_aside() {
        let asides = [
            Aside::Inspect { id: 7, part: 1, limit_ms: 5 },
            Aside::Inspected { id: 7, wall_ms: 9, part: 1, of: 2, text: "{\"".repeat(12 * 1024) },
        ];
        for aside in asides {
            let body = aside.encode().unwrap();
            assert!(decode(&body).is_err());
            assert_eq!(Aside::decode(&body).unwrap(), aside);
        }
        for message in messages(3, "x".into()) {
            assert!(Aside::decode(&encode(&message).unwrap()).is_err());
        }
        let long = Aside::Inspected { id: 0, wall_ms: 0, part: 0, of: 1, text: "x".repeat(MAX_BODY) };
        assert!(long.encode().is_err());
    }

    #[test]
    fn an_older_and_a_newer_minor_version_are_understood() {
        let older = br#"{"Heartbeat":{"seq":5,"role":"Primary","ledger":null}}"#;
        let Message::Heartbeat(heartbeat) = decode(older).unwrap() else { panic!("no heartbeat") };
        assert_eq!(*heartbeat, Heartbeat { seq: 5, role: Role::Primary, ..Heartbeat::blank() });
        let newer = br#"{"Heartbeat":{"seq":5,"role":"Primary","ledger":null,"colour":{"of":["the","sky"]}}}"#;
        assert_eq!(decode(newer).unwrap(), Message::Heartbeat(heartbeat));
    }

    #[test]
    fn a_heartbeat_of_the_version_before_the_arbiter_is_understood() {
        let told = |arbiter: &str| {
            format!(
                r#"{{"Heartbeat":{{"seq":7,"echo":6,"start_id":3,"system":7,"ledger":null,"role":"Standby","instance":"Well","disk":"","streaming":true,"timeline":1,"lsn":5,"replayed":4,"take_over":false,"shutdown_checkpoint":0,"failover":{{"version":2,"enabled":true}},"on_silence":"Message","detection_ms":5400,"promoted":false,"arbiter":{arbiter},"name":"nd2","address":"h:1"}}}}"#
            )
        };
        for arbiter in ["null", "17"] {
            let Ok(Message::Heartbeat(heartbeat)) = decode(told(arbiter).as_bytes()) else { panic!("{arbiter}") };
            assert_eq!((heartbeat.seq, heartbeat.role), (7, Role::Standby));
            assert_eq!((heartbeat.arbiter, heartbeat.would_grant), ((None, Term(0)), false));
        }
        // What that version knows is still said under the names that it knows.
        let ours = serde_json::to_value(&messages(3, String::new())[0]).unwrap();
        let fields = ours["Heartbeat"].as_object().unwrap();
        let old: Value = serde_json::from_str(&told("null")).unwrap();
        let known = old["Heartbeat"].as_object().unwrap().keys().filter(|field| *field != "arbiter");
        assert_eq!(known.filter(|field| !fields.contains_key(*field)).count(), 0);
        assert!(!fields.contains_key("arbiter"));
    }

    /// Minor version 0, whose `arbiter` was a number or null, as it encoded them.
    #[test]
    fn what_the_version_before_says_is_understood() {
        let ledger = r#"{"system":7000000000000000001,"id":5,"data":{"id":7,"fingerprint":8,"checkpoint":9},"view":{"term":3,"primary":"First","mode":"Mirrored","data":[1,2],"arbiter":6,"forced":false},"promised":3}"#;
        for arbiter in ["null", "6"] {
            let body = format!(
                r#"{{"Heartbeat":{{"seq":5,"echo":4,"start_id":3,"system":7000000000000000001,"ledger":{ledger},"role":"Primary","instance":"Well","disk":"","streaming":false,"timeline":1,"lsn":100,"replayed":0,"take_over":false,"shutdown_checkpoint":0,"failover":{{"version":1,"enabled":true}},"on_silence":"Fallback","detection_ms":5400,"promoted":false,"arbiter":{arbiter},"name":"nd1","address":"h:5432"}}}}"#
            );
            let Message::Heartbeat(heartbeat) = decode(body.as_bytes()).unwrap() else { panic!("no heartbeat") };
            assert_eq!((heartbeat.seq, heartbeat.detection_ms, heartbeat.name.as_str()), (5, 5400, "nd1"));
            assert_eq!(heartbeat.ledger.map(|ledger| ledger.promised), Some(Term(3)));
        }
        let body = format!(
            r#"{{"Propose":{{"base":{ledger},"view":{{"term":4,"primary":"Second","mode":"Degraded","data":[1,2],"arbiter":6,"forced":false}},"received":100}}}}"#
        );
        assert!(matches!(decode(body.as_bytes()), Ok(Message::Propose { received: Lsn(100), .. })));
        // What was another type under the same name would deafen it to every heartbeat of ours.
        let ours: Value = serde_json::from_slice(&encode(&messages(3, String::new())[0]).unwrap()).unwrap();
        assert_eq!(ours["Heartbeat"].get("arbiter"), None);
    }

    #[test]
    fn a_ledger_is_whole_or_none() {
        let mut value = serde_json::to_value(&messages(3, String::new())[0]).unwrap();
        value["Heartbeat"]["ledger"].as_object_mut().unwrap().remove("promised");
        assert!(decode(&serde_json::to_vec(&value).unwrap()).is_err());
    }

    #[test]
    fn bounds_and_depth() {
        let long = Message::Told { id: 1, reply: Reply::Failed("x".repeat(MAX_BODY)) };
        assert!(encode(&long).is_err());
        assert!(decode(&vec![b' '; MAX_BODY + 1]).is_err());
        assert!(decode("[".repeat(60_000).as_bytes()).is_err());
        assert!(decode(br#"{"Sing":{"song":1}}"#).is_err());
    }
}
