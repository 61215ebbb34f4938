//! From what is said (by the core) and told (by the daemon) to messages of the catalogue.

use super::Message;
use crate::config::{Level, Remark};
use crate::error::Error;
use crate::fsm::event::{CoreMessage, OnSilence, Witness};
use crate::fsm::types::{Lsn, Method, Mode, Server, Timeline, View};

/// What the servers are called in messages: their ids in `network.conf`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    /// The ids, in the order of `network.conf`.
    pub ids: [String; 2],
    /// Which of them this server is.
    pub me: Server,
    /// The arbiter's id; empty without one.
    pub arbiter: String,
}

impl Names {
    /// The id of a server.
    pub fn id(&self, server: Server) -> &str {
        &self.ids[server.index()]
    }

    /// This server's id.
    pub fn me(&self) -> &str {
        self.id(self.me)
    }

    /// The other server's id.
    pub fn peer(&self) -> &str {
        self.id(self.me.other())
    }

    /// `Mirrored(nd1)@4`; `none` where there is no view.
    pub fn view(&self, view: Option<&View>) -> String {
        let Some(view) = view else { return "none".into() };
        let mode = match view.mode {
            Mode::Mirrored => "Mirrored",
            Mode::Degraded => "Degraded",
        };
        let forced = if view.forced { " (forced)" } else { "" };
        format!("{mode}({})@{}{forced}", self.id(view.primary), view.term.0)
    }
}

/// What the daemon itself tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tell {
    /// The controller is up: this server's id, the other's id.
    Started {
        /// This server's id.
        server: String,
        /// The program's version.
        version: String,
    },
    /// The controller ends as asked.
    Stopped {
        /// This server's id.
        server: String,
    },
    /// The watcher found the controller ended, and starts it again.
    ControllerDied {
        /// This server's id.
        server: String,
        /// Its exit status or signal.
        how: String,
    },
    /// The watcher ended a controller whose decision thread stood still, and starts it again.
    ControllerHung {
        /// This server's id.
        server: String,
        /// How long it was silent, ms.
        ms: u64,
    },
    /// The web console serves.
    WebStarted {
        /// Its address.
        at: String,
    },
    /// A user of the web console has logged in.
    WebLogin {
        /// The user's name.
        user: String,
        /// The user's address.
        from: String,
    },
    /// A login at the web console has failed.
    WebLoginFailed {
        /// The name that was given.
        user: String,
        /// From which address.
        from: String,
    },
    /// A user of the web console runs a command.
    WebAction {
        /// The user's name.
        user: String,
        /// The user's address.
        from: String,
        /// The command.
        command: String,
        /// The server on which it runs.
        server: String,
    },
    /// Such a command has ended.
    WebActionEnded {
        /// The user's name.
        user: String,
        /// The command.
        command: String,
        /// Its exit status.
        exit: u8,
    },
    /// The web console has rejected a connection to `peer_port`.
    WebPeerRefused {
        /// From which address.
        from: String,
        /// Why.
        why: String,
    },
    /// Automatic switch and disconnection are off (a start with neither -f nor -F, where it was not enabled before).
    FailoverOff,
    /// Something about the configuration; at every start.
    Remark(Remark),
    /// A connection with another member stands, authenticated in both directions.
    LinkUp {
        /// The other member's id.
        peer: String,
    },
    /// The connection with another member ended, or could not be made; on change only.
    LinkDown {
        /// The other member's id.
        peer: String,
        /// Why.
        why: String,
    },
    /// Somebody connected who does not hold the cluster's key, or speaks another protocol version.
    LinkRefused {
        /// The address from which the connection came, or the member's id.
        from: String,
        /// Why.
        why: String,
    },
    /// A host name does not resolve; on change only.
    NameFailed {
        /// The name.
        host: String,
        /// Why.
        why: String,
        /// Its last known addresses; empty where there are none.
        addresses: String,
    },
    /// A host name resolves again.
    NameResolves {
        /// The name.
        host: String,
        /// Its addresses.
        addresses: String,
    },
    /// An address of this host cannot be listened on yet.
    NotListening {
        /// Why.
        why: Error,
    },
    /// The address of [`Tell::NotListening`] is listened on now.
    Listening {
        /// Host and port.
        at: String,
    },
    /// A caller holds `mc.key` and does not prove the key that `network.conf` lists.
    KeyNotProved {
        /// The address from which the connection came.
        from: String,
        /// The ids of the members that may call, in quotation marks.
        members: String,
        /// What it proves instead.
        why: &'static str,
    },
    /// The instance lets the controller not in; the server's own words.
    Probe(String),
    /// An operator's request has come in.
    Request {
        /// As typed: `switch`.
        what: String,
    },
    /// What a program that was run for the instance wrote (`pg_ctl`).
    Output {
        /// The program.
        program: String,
        /// One line of it.
        line: String,
    },
    /// The configuration was read again.
    Reloaded {
        /// The parameters with a new value.
        changed: String,
    },
    /// The files contain a change that a reload cannot make.
    NeedsRestart {
        /// What has changed.
        what: String,
    },
    /// A reload has failed.
    NotReloaded {
        /// Why.
        why: Error,
    },
    /// A connection that this server needs fails.
    ConnectionFails {
        /// Which one, and why.
        failure: String,
    },
    /// The primary no longer has the WAL that this standby requires next.
    WalMissing {
        /// In a sentence.
        what: String,
    },
    /// It works again.
    ConnectionWorks {
        /// In a sentence.
        what: &'static str,
    },
    /// The file for PostgreSQL's log cannot be opened.
    NoLogFile {
        /// Why.
        why: Error,
        /// The file that is used in its place.
        instead: String,
    },
    /// The present password was written to `primary_conninfo`.
    PasswordWritten,
    /// `accept_startup_race = on` on a version of PostgreSQL named in PROTOCOL section 7.
    StartupRace {
        /// PostgreSQL's version.
        version: String,
    },
    /// The management directory lies on the data directory's filesystem.
    SameFilesystem {
        /// The management directory.
        directory: String,
        /// The data directory.
        data: String,
    },
    /// The filesystem of the ledger keeps no birth times of files.
    NoBirthTime {
        /// The ledger's file.
        path: String,
    },
    /// The two servers are set to different `heartbeat_error_action`s.
    ActionsDiffer {
        /// This server's.
        mine: OnSilence,
        /// The other server's id.
        peer: String,
        /// The other server's.
        theirs: OnSilence,
    },
    /// The arbiter could not be reached at a start, which is given up. MCA00152.
    NoArbiter {
        /// The arbiter's id.
        arbiter: String,
        /// `timeout` or `communication error`.
        event: &'static str,
    },
    /// Something did not succeed, and the controller continues as well as it can.
    Warning(Error),
    /// An operating error.
    Error(Error),
    /// The controller cannot continue and ends.
    Fatal(Error),
    /// A mistake in the controller itself; it ends, and its watcher starts it again.
    Panic(String),
    /// The log file could not take this many lines.
    MessagesLost(u64),
    /// A directory has no free space; no failure of the disk.
    Full {
        /// Its state in a sentence.
        what: String,
    },
    /// A directory has little free space.
    NearlyFull {
        /// Its state in a sentence.
        what: String,
    },
    /// A directory was nearly full and has enough free space.
    EnoughSpace {
        /// The directory.
        path: String,
        /// As in the status.
        place: String,
    },
    /// This process could not open a file to check a disk; no failure of the disk.
    NotChecked {
        /// The directory.
        path: String,
        /// As in the status: `data`, `tran_log`, `tablespace NAME`.
        place: String,
        /// The system's words.
        why: String,
    },
    /// A rebuild has made the data directory.
    Rebuilt {
        /// What was copied, in words.
        copied: String,
        /// Why by that method.
        why: String,
        /// How long that took.
        seconds: u64,
    },
    /// A rebuild found WAL that only this server had, and kept it.
    Lost {
        /// What it is.
        what: String,
        /// Where it is kept.
        kept: String,
    },
    /// A checkpoint that the controller waits for is still in progress.
    CheckpointRuns {
        /// Which of those that are needed.
        number: u32,
        /// How many are needed.
        count: u32,
        /// How far it is, in words.
        far: String,
    },
    /// A replication slot of the server's time as the primary was removed before its start as a standby.
    SlotRemoved {
        /// Its name.
        name: String,
        /// How much WAL it kept, in words.
        kept: String,
    },
    /// The filesystem of a ledger is full, and the ledger takes the space that is reserved for it.
    ReserveUsed {
        /// The file that holds the space.
        path: String,
    },
    /// The space for the ledger is reserved again.
    ReserveRestored {
        /// The file that holds the space.
        path: String,
    },
    /// The oldest changes of a history were removed.
    HistoryShortened {
        /// The file.
        path: String,
        /// How many.
        removed: usize,
    },
    /// What an earlier rebuild has saved was removed.
    LostRemoved {
        /// What it was.
        what: String,
        /// Where it was kept.
        kept: String,
    },
    /// There is room again.
    NotFull {
        /// The directory.
        path: String,
        /// As in the status.
        place: String,
    },
    /// The arbiter is up.
    ArbiterStarted {
        /// The program's version.
        version: String,
        /// How many clusters it serves.
        clusters: usize,
    },
    /// The arbiter ends as asked.
    ArbiterStopped,
    /// The watcher found the arbiter ended, and starts it again.
    ArbiterDied {
        /// Its exit status or signal.
        how: String,
    },
    /// The watcher ended an arbiter whose loop stood still, and starts it again.
    ArbiterHung {
        /// How long it was silent, ms.
        ms: u64,
    },
    /// A cluster has told the arbiter its first view.
    ClusterLearned {
        /// `cluster "x": `, or nothing where there is only one.
        cluster: String,
        /// Its system identifier.
        system: u64,
    },
    /// The arbiter does not serve a cluster, and why.
    ClusterNotServed {
        /// As above.
        cluster: String,
        /// Why.
        why: Error,
    },
    /// A server tells another system identifier than the cluster's ledger has.
    ClusterChanged {
        /// As above.
        cluster: String,
        /// The ledger's.
        ours: u64,
        /// The server's.
        theirs: u64,
    },
    /// What the arbiter knew of a cluster was removed (`mc_arb forget`).
    ClusterForgotten {
        /// Its system identifier.
        system: u64,
    },
}

fn position((timeline, lsn): (Timeline, Lsn)) -> String {
    format!("timeline {}, {lsn}", timeline.0)
}

/// For one of several clusters of an arbiter: the text begins with its title.
pub(super) fn titled(title: &str, message: Message) -> Message {
    let space = if title.is_empty() || title.ends_with(' ') { "" } else { " " };
    Message { text: format!("{title}{space}{}", message.text), ..message }
}

/// `message (hint)`, on one line.
fn one_line(error: &Error) -> String {
    if error.hint.is_empty() { error.message.clone() } else { format!("{}; {}", error.message, error.hint) }
}

pub(super) fn of_say(say: &CoreMessage, names: &Names) -> Message {
    let (me, peer) = (names.me(), names.peer());
    let m = Message::new;
    match say {
        CoreMessage::View { from, to, why } => {
            m(1000, &[&names.view(from.as_ref()), &names.view(Some(to)), &why.to_string()])
        }
        CoreMessage::HeartbeatLost { done } => m(19, &[peer, done]),
        CoreMessage::HeartbeatBack => m(1001, &[peer]),
        CoreMessage::PeerAlive => m(1002, &[peer]),
        CoreMessage::InstanceFailed { how } => m(1003, &[me, how]),
        CoreMessage::InstanceWell => m(1004, &[me]),
        CoreMessage::InstanceClosed => m(1005, &[me]),
        CoreMessage::DiskFailed(what) => m(1006, &[me, what]),
        CoreMessage::DiskWell => m(1007, &[me]),
        CoreMessage::StandbyStalled => m(1008, &[peer]),
        CoreMessage::WouldHave { what, why } => m(1009, &[why.text(), what]),
        CoreMessage::Decided { what, why } => m(1010, &[why.text(), what]),
        CoreMessage::PromotionStarted => m(1011, &[me]),
        CoreMessage::PromotionCompleted => m(62, &[]),
        CoreMessage::Disconnected => m(1012, &[peer, me]),
        CoreMessage::Mirrored => m(1013, &[peer]),
        CoreMessage::HandOverFailed(why) => m(1014, &[peer, why, me]),
        CoreMessage::JobFailed { job, why } => m(1015, &[me, job, why]),
        CoreMessage::Inactivated { clean: true } => m(1016, &[me, peer]),
        CoreMessage::Inactivated { clean: false } => m(1017, &[me, peer]),
        CoreMessage::RebuildNeeded => m(1018, &[me, peer]),
        CoreMessage::RebuildBegun(order) => m(1044, &[me, peer, method(order.method)]),
        CoreMessage::RebuildEnded => m(1045, &[me, peer]),
        CoreMessage::RebuildFailed(why) => m(1046, &[me, why]),
        CoreMessage::RebuildRetried { attempt, of, seconds } => {
            m(1181, &[me, &seconds.to_string(), &attempt.to_string(), &of.to_string()])
        }
        CoreMessage::RebuildAbandoned => m(1047, &[me]),
        CoreMessage::NotEligible(why) => m(1019, &[me, why.text()]),
        CoreMessage::LeftDown => m(1020, &[me]),
        CoreMessage::StartRetried => m(1180, &[me]),
        CoreMessage::WillNotStart(why) => m(1021, &[me, why]),
        CoreMessage::CommitsWait => m(1022, &[me, peer]),
        CoreMessage::NamesChanged => m(1023, &[me]),
        CoreMessage::Split { mine, theirs, stopped } => {
            let loser = if *stopped { me } else { peer };
            m(1024, &[me, &position(*mine), peer, &position(*theirs), loser])
        }
        CoreMessage::SplitElsewhere { mine, theirs } => {
            m(1038, &[&names.view(Some(mine)), peer, &names.view(Some(theirs))])
        }
        CoreMessage::Paused { ms } => m(1025, &[&ms.to_string()]),
        CoreMessage::FailoverSet(true) => m(1026, &[]),
        CoreMessage::FailoverSet(false) => m(1027, &[]),
        CoreMessage::StoreFailed(why) => m(1028, &[why]),
        CoreMessage::OtherSystem { server, mine, theirs } => {
            m(1029, &[names.id(*server), &theirs.0.to_string(), &mine.0.to_string()])
        }
        CoreMessage::ArbiterOfOtherSystem { mine, theirs } => {
            m(1220, &[&names.arbiter, &theirs.0.to_string(), &mine.0.to_string()])
        }
        CoreMessage::DataReplaced { why, .. } => m(1030, &[me, why]),
        CoreMessage::WentBack { witness, had, has, .. } => {
            m(1053, &[me, &has.to_string(), &had.lsn.to_string(), witnessed(*witness)])
        }
        CoreMessage::NotContained { mine } => m(1054, &[peer, &mine.lsn.to_string(), me]),
        CoreMessage::NoneHoldsAll { had, theirs } => {
            let theirs = theirs.map_or("an unknown position".to_owned(), |point| point.lsn.to_string());
            m(1055, &[me, &had.lsn.to_string(), peer, &theirs])
        }
        CoreMessage::CannotHandOver => m(1056, &[me, peer]),
        CoreMessage::Detached(true) => m(1031, &[]),
        CoreMessage::Detached(false) => m(1032, &[]),
        CoreMessage::Isolated => m(1033, &[me]),
        CoreMessage::AwaitsMember => m(1185, &[me]),
        CoreMessage::AsksArbiterLater { seconds } => m(1250, &[peer, &seconds.to_string(), me]),
        CoreMessage::Weakened(found) if found.is_empty() => m(1187, &[me]),
        CoreMessage::Weakened(found) => m(1186, &[me, &found.join("; ")]),
        CoreMessage::Calling(command) => {
            m(1034, &[command.purpose.parameter(), names.id(command.target), &command.reason])
        }
        CoreMessage::Called(command) => m(1035, &[command.purpose.parameter(), names.id(command.target)]),
        CoreMessage::CallFailed { command, why } => {
            m(1036, &[command.purpose.parameter(), names.id(command.target), why])
        }
        CoreMessage::HookCalled(command) => m(1048, &[command.purpose.parameter(), &command.reason]),
        CoreMessage::HookDone(command) => m(1049, &[command.purpose.parameter()]),
        CoreMessage::HookCalledOff(command) => m(1050, &[command.purpose.parameter()]),
        CoreMessage::HookFailed { command, why } => m(1051, &[command.purpose.parameter(), why]),
        CoreMessage::ArbiterLost => m(157, &[&names.arbiter]),
        CoreMessage::ArbiterBack => m(1037, &[&names.arbiter]),
        CoreMessage::Renamed { was, now } => m(1042, &[&now.to_string(), &was.to_string()]),
        CoreMessage::NotConsented => m(1043, &[&names.arbiter, me]),
        CoreMessage::NotGranted { server, why } => m(1039, &[names.id(*server), why.text()]),
        CoreMessage::ServerHeard { server, heard: true } => m(1040, &[names.id(*server)]),
        CoreMessage::ServerHeard { server, heard: false } => m(1041, &[names.id(*server)]),
    }
}

/// How it is known that WAL is missing.
fn witnessed(witness: Witness) -> &'static str {
    match witness {
        Witness::Own => "this controller has noted that position",
        Witness::Peer => "the other server holds it, or has received that position from this server",
        Witness::Arbiter => "the arbiter has received that position from this server",
    }
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Auto => "by the cheapest way that works",
        Method::Rewind => "by pg_rewind",
        Method::BaseBackup => "by pg_basebackup",
    }
}

pub(super) fn of_tell(tell: &Tell) -> Message {
    let m = Message::new;
    match tell {
        Tell::Started { server, version } => m(1100, &[version, server]),
        Tell::Stopped { server } => m(1101, &[server]),
        Tell::ControllerDied { server, how } => m(1102, &[server, how]),
        Tell::ControllerHung { server, ms } => m(1103, &[server, &ms.to_string()]),
        Tell::WebStarted { at } => m(1300, &[at]),
        Tell::WebLogin { user, from } => m(1301, &[user, from]),
        Tell::WebLoginFailed { user, from } => m(1302, &[user, from]),
        Tell::WebAction { user, from, command, server } => m(1303, &[user, from, command, server]),
        Tell::WebActionEnded { user, command, exit: 0 } => m(1304, &[command, user]),
        Tell::WebActionEnded { user, command, exit } => m(1305, &[command, user, &exit.to_string()]),
        Tell::WebPeerRefused { from, why } => m(1306, &[from, why]),
        Tell::FailoverOff => m(1105, &[]),
        Tell::Remark(remark) => {
            let text = one_line(&Error::new(&remark.text).hint(&remark.hint));
            let fallback = Remark::fallback(false, OnSilence::Fallback);
            match remark.level {
                _ if Some(remark) == fallback.as_ref() => m(1104, &[&text]),
                Level::Notice => m(1106, &[&text]),
                Level::Warning => m(1116, &[&text]),
            }
        }
        Tell::LinkUp { peer } => m(1107, &[peer]),
        Tell::LinkDown { peer, why } => m(1108, &[peer, why]),
        Tell::LinkRefused { from, why } => m(1109, &[from, why]),
        Tell::NameFailed { host, why, addresses } => {
            let known = match addresses.as_str() {
                "" => "no address of it is known yet".to_owned(),
                addresses => format!("the last known address remains in use: {addresses}"),
            };
            m(1140, &[host, why, &known])
        }
        Tell::NameResolves { host, addresses } => m(1141, &[host, addresses]),
        Tell::NotListening { why } => m(1142, &[&one_line(why)]),
        Tell::Listening { at } => m(1143, &[at]),
        Tell::KeyNotProved { from, members, why } => m(1150, &[from, members, why]),
        Tell::Probe(text) => m(1110, &[text]),
        Tell::Request { what } => m(1111, &[what]),
        Tell::Output { program, line } => m(1112, &[program, line]),
        Tell::Reloaded { changed } => m(1230, &[changed]),
        Tell::NeedsRestart { what } => m(1231, &[what]),
        Tell::NotReloaded { why } => m(1232, &[&why.to_string()]),
        Tell::ConnectionFails { failure } => m(1233, &[failure]),
        Tell::WalMissing { what } => m(1237, &[what]),
        Tell::ConnectionWorks { what } => m(1234, &[what]),
        Tell::NoLogFile { why, instead } => m(1236, &[&why.message, instead]),
        Tell::PasswordWritten => m(1235, &[]),
        Tell::StartupRace { version } => m(1113, &[version]),
        Tell::SameFilesystem { directory, data } => m(1114, &[directory, data]),
        Tell::NoBirthTime { path } => m(1115, &[path]),
        Tell::ActionsDiffer { mine, peer, theirs } => m(1123, &[mine.text(), theirs.text(), peer]),
        Tell::NoArbiter { arbiter, event } => m(152, &[arbiter, event]),
        Tell::Warning(error) => m(1116, &[&one_line(error)]),
        Tell::Error(error) => m(1117, &[&one_line(error)]),
        Tell::Fatal(error) => m(1118, &[&one_line(error)]),
        Tell::Panic(text) => m(1119, &[text]),
        Tell::MessagesLost(lines) => m(1120, &[&lines.to_string()]),
        Tell::NotChecked { path, place, why } => m(1121, &[path, place, why]),
        Tell::Full { what } => m(1240, &[what]),
        Tell::NearlyFull { what } => m(1241, &[what]),
        Tell::EnoughSpace { path, place } => m(1242, &[path, place]),
        Tell::Rebuilt { copied, why, seconds } => m(1124, &[&seconds.to_string(), copied, why]),
        Tell::Lost { what, kept } => m(1125, &[what, kept]),
        Tell::CheckpointRuns { number, count, far } => m(1200, &[&number.to_string(), &count.to_string(), far]),
        Tell::SlotRemoved { name, kept } => m(1170, &[name, kept]),
        Tell::ReserveUsed { path } => m(1171, &[path]),
        Tell::ReserveRestored { path } => m(1172, &[path]),
        Tell::HistoryShortened { path, removed } => m(1173, &[&removed.to_string(), path]),
        Tell::LostRemoved { what, kept } => m(1174, &[kept, what]),
        Tell::NotFull { path, place } => m(1122, &[path, place]),
        Tell::ArbiterStarted { version, clusters } => m(1130, &[version, &clusters.to_string()]),
        Tell::ArbiterStopped => m(1131, &[]),
        Tell::ArbiterDied { how } => m(1132, &[how]),
        Tell::ArbiterHung { ms } => m(1133, &[&ms.to_string()]),
        Tell::ClusterLearned { cluster, system } => titled(cluster, m(1134, &[&system.to_string()])),
        Tell::ClusterNotServed { cluster, why } => titled(cluster, m(1135, &[&one_line(why)])),
        Tell::ClusterChanged { cluster, ours, theirs } => {
            titled(cluster, m(1136, &[&theirs.to_string(), &ours.to_string()]))
        }
        Tell::ClusterForgotten { system } => m(1137, &[&system.to_string()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::cause::Cause;
    use crate::fsm::event::{Purpose, UserCommand};
    use crate::fsm::reason::Reason;
    use crate::fsm::types::{DataIdentity, RebuildOrder, SystemId, Term};

    const NAMES: fn() -> Names =
        || Names { ids: ["nd1".into(), "nd2".into()], me: Server::Second, arbiter: "arb".into() };

    fn view(primary: Server, mode: Mode, term: u64) -> View {
        View { term: Term(term), primary, mode, data: Default::default(), arbiter: None, forced: false }
    }

    #[test]
    fn transitions_have_one_grammar() {
        let say = CoreMessage::View {
            from: Some(view(Server::First, Mode::Mirrored, 4)),
            to: view(Server::Second, Mode::Degraded, 6),
            why: Reason::own("nd1 reported its instance dead"),
        };
        let text = "LOG: view: Mirrored(nd1)@4 -> Degraded(nd2)@6: nd1 reported its instance dead (MCA01000)";
        assert_eq!(of_say(&say, &NAMES()).to_string(), text);
    }

    #[test]
    fn every_message_is_in_the_catalogue_and_gets_all_its_values() {
        let s = || String::from("x");
        let to = view(Server::First, Mode::Degraded, 1);
        let error = || Error::new("x").hint("y");
        let command = || {
            let (purpose, aim, target) = (Purpose::Fencing, crate::fsm::event::Aim::Switch, Server::First);
            Box::new(UserCommand { purpose, by_operator: false, aim, target, term: Term(1), reason: s() })
        };
        let said = [
            CoreMessage::View { from: None, to, why: Reason::own(s()) },
            CoreMessage::HeartbeatLost { done: "x" },
            CoreMessage::HeartbeatBack,
            CoreMessage::PeerAlive,
            CoreMessage::InstanceFailed { how: "its postmaster has ended" },
            CoreMessage::InstanceWell,
            CoreMessage::InstanceClosed,
            CoreMessage::DiskFailed(s()),
            CoreMessage::DiskWell,
            CoreMessage::StandbyStalled,
            CoreMessage::WouldHave { what: "x", why: Cause::Mirrored },
            CoreMessage::Decided { what: "x", why: Cause::Mirrored },
            CoreMessage::PromotionStarted,
            CoreMessage::PromotionCompleted,
            CoreMessage::Disconnected,
            CoreMessage::Mirrored,
            CoreMessage::HandOverFailed(s()),
            CoreMessage::JobFailed { job: "x", why: s() },
            CoreMessage::Inactivated { clean: true },
            CoreMessage::Inactivated { clean: false },
            CoreMessage::RebuildNeeded,
            CoreMessage::RebuildBegun(RebuildOrder::default()),
            CoreMessage::RebuildEnded,
            CoreMessage::RebuildFailed(s()),
            CoreMessage::RebuildAbandoned,
            CoreMessage::NotEligible(Cause::DemotedByHand),
            CoreMessage::LeftDown,
            CoreMessage::RebuildRetried { attempt: 2, of: 10, seconds: 10 },
            CoreMessage::StartRetried,
            CoreMessage::WillNotStart(s()),
            CoreMessage::CommitsWait,
            CoreMessage::NamesChanged,
            CoreMessage::Split { mine: (Timeline(1), Lsn(1)), theirs: (Timeline(2), Lsn(2)), stopped: true },
            CoreMessage::SplitElsewhere { mine: to, theirs: to },
            CoreMessage::Paused { ms: 1 },
            CoreMessage::FailoverSet(true),
            CoreMessage::FailoverSet(false),
            CoreMessage::StoreFailed(s()),
            CoreMessage::OtherSystem { server: Server::First, mine: SystemId(1), theirs: SystemId(2) },
            CoreMessage::ArbiterOfOtherSystem { mine: SystemId(1), theirs: SystemId(2) },
            CoreMessage::DataReplaced { why: "x", data: DataIdentity::default() },
            CoreMessage::CannotHandOver,
            CoreMessage::Detached(true),
            CoreMessage::Detached(false),
            CoreMessage::Isolated,
            CoreMessage::AwaitsMember,
            CoreMessage::AsksArbiterLater { seconds: 7 },
            CoreMessage::Weakened(vec![s()]),
            CoreMessage::Weakened(Vec::new()),
            CoreMessage::Calling(command()),
            CoreMessage::Called(command()),
            CoreMessage::CallFailed { command: command(), why: s() },
            CoreMessage::HookCalled(command()),
            CoreMessage::HookDone(command()),
            CoreMessage::HookCalledOff(command()),
            CoreMessage::HookFailed { command: command(), why: s() },
            CoreMessage::ArbiterLost,
            CoreMessage::ArbiterBack,
            CoreMessage::Renamed { was: Term(2), now: Term(1) },
            CoreMessage::NotConsented,
            CoreMessage::NotGranted { server: Server::First, why: Cause::NoView },
            CoreMessage::ServerHeard { server: Server::First, heard: true },
            CoreMessage::ServerHeard { server: Server::First, heard: false },
        ];
        let told = [
            Tell::Started { server: s(), version: s() },
            Tell::Stopped { server: s() },
            Tell::ControllerDied { server: s(), how: s() },
            Tell::ControllerHung { server: s(), ms: 1 },
            Tell::FailoverOff,
            Tell::Remark(Remark::notice("x", "y")),
            Tell::LinkUp { peer: s() },
            Tell::LinkDown { peer: s(), why: s() },
            Tell::LinkRefused { from: s(), why: s() },
            Tell::NameFailed { host: s(), why: s(), addresses: s() },
            Tell::NameResolves { host: s(), addresses: s() },
            Tell::NotListening { why: error() },
            Tell::Listening { at: s() },
            Tell::KeyNotProved { from: s(), members: s(), why: "x" },
            Tell::Probe(s()),
            Tell::Request { what: s() },
            Tell::Output { program: s(), line: s() },
            Tell::Reloaded { changed: s() },
            Tell::NeedsRestart { what: s() },
            Tell::NotReloaded { why: error() },
            Tell::ConnectionFails { failure: s() },
            Tell::WalMissing { what: s() },
            Tell::ConnectionWorks { what: "works" },
            Tell::PasswordWritten,
            Tell::NoLogFile { why: error(), instead: s() },
            Tell::StartupRace { version: s() },
            Tell::SameFilesystem { directory: s(), data: s() },
            Tell::NoBirthTime { path: s() },
            Tell::ActionsDiffer { mine: OnSilence::Switch, peer: s(), theirs: OnSilence::Fallback },
            Tell::NoArbiter { arbiter: s(), event: "x" },
            Tell::Warning(error()),
            Tell::Error(error()),
            Tell::Fatal(error()),
            Tell::Panic(s()),
            Tell::MessagesLost(1),
            Tell::NotChecked { path: s(), place: s(), why: s() },
            Tell::Full { what: s() },
            Tell::NearlyFull { what: s() },
            Tell::EnoughSpace { path: s(), place: s() },
            Tell::NotFull { path: s(), place: s() },
            Tell::Rebuilt { copied: s(), why: s(), seconds: 1 },
            Tell::Lost { what: s(), kept: s() },
            Tell::CheckpointRuns { number: 1, count: 2, far: s() },
            Tell::SlotRemoved { name: s(), kept: s() },
            Tell::ReserveUsed { path: s() },
            Tell::ReserveRestored { path: s() },
            Tell::HistoryShortened { path: s(), removed: 1 },
            Tell::LostRemoved { what: s(), kept: s() },
            Tell::ArbiterStarted { version: s(), clusters: 2 },
            Tell::ArbiterStopped,
            Tell::ArbiterDied { how: s() },
            Tell::ArbiterHung { ms: 1 },
            Tell::ClusterLearned { cluster: s(), system: 1 },
            Tell::ClusterNotServed { cluster: s(), why: error() },
            Tell::ClusterChanged { cluster: s(), ours: 1, theirs: 2 },
            Tell::ClusterForgotten { system: 1 },
            Tell::WebStarted { at: s() },
            Tell::WebLogin { user: s(), from: s() },
            Tell::WebLoginFailed { user: s(), from: s() },
            Tell::WebAction { user: s(), from: s(), command: s(), server: s() },
            Tell::WebActionEnded { user: s(), command: s(), exit: 0 },
            Tell::WebActionEnded { user: s(), command: s(), exit: 1 },
            Tell::WebPeerRefused { from: s(), why: s() },
        ];
        let messages: Vec<_> = said.iter().map(|x| of_say(x, &NAMES())).chain(told.iter().map(of_tell)).collect();
        for message in &messages {
            let entry = crate::messages::catalogue::find(message.number).expect("in the catalogue");
            let (shape, wanted) = (message.text.contains('?'), message.text.contains('{'));
            assert!(!shape && !wanted, "{message}: of {}", entry.text);
        }
        let mut numbers: Vec<_> = messages.iter().map(|m| m.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), messages.len(), "one number, one message");
    }

    #[test]
    fn the_fallback_warning_has_a_number_of_its_own() {
        let remark = Remark::fallback(false, OnSilence::Fallback).expect("a remark");
        assert_eq!(of_tell(&Tell::Remark(remark)).number, 1104);
    }
}
