//! Sessions to the own instance, and for a rebuild to the other server's, every step of which ends within a time limit.
//!
//! A frozen postmaster accepts connections in its kernel and never answers; a frozen backend takes a query and never
//! answers. So the limit is set around the whole of an open and the whole of a query, authentication included, and a
//! session that has missed it is closed: no thread is left behind. It decides nothing, and passwords appear in no text
//! of its own. Called by the probe of the instance and by the runner.

use super::tls::{self, Tls};
use crate::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, NoTls, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The `application_name` of every session of the controller's.
pub const APPLICATION_NAME: &str = "mirroring_controller";

const CONNECT: &str = "could not connect to instance";

/// How often it is asked whether the answer of a query without a limit is still wanted.
const WANTED: Duration = Duration::from_millis(200);

/// Whom to connect as, and where the instance lives.
#[derive(Clone)]
pub struct Target {
    /// Database role.
    pub user: String,
    /// Its password, where one is configured.
    pub password: Option<String>,
    /// Database.
    pub dbname: String,
    /// Data directory. Port, socket directory and listen address are read from its `postmaster.pid`.
    pub data: PathBuf,
    /// The way that worked last, so that a server that lets us in by TCP alone does not log a refusal each time.
    way: Arc<AtomicUsize>,
}

impl Target {
    /// The instance of this data directory.
    pub fn new(
        user: impl Into<String>,
        password: Option<String>,
        dbname: impl Into<String>,
        data: impl Into<PathBuf>,
    ) -> Target {
        Target { user: user.into(), password, dbname: dbname.into(), data: data.into(), way: Arc::default() }
    }
}

impl Target {
    /// A connection string for PostgreSQL's programs, without the password: the way in which a session was opened last.
    ///
    /// # Errors
    /// The instance is not running.
    pub fn conninfo(&self) -> Result<String, Refusal> {
        let ways = Ways::read(&self.data)?;
        let list = ways.list();
        let way = list.get(self.way.load(Ordering::Relaxed)).or(list.first()).ok_or(Refusal::NotRunning)?;
        let host = match way {
            Way::Socket(path) => path.parent().unwrap_or(Path::new("/")).display().to_string(),
            Way::Address(address, _) => address.to_string(),
            Way::Name(name, _) => name.clone(),
        };
        let keys = [
            ("host", host),
            ("port", ways.port.to_string()),
            ("user", self.user.clone()),
            ("application_name", APPLICATION_NAME.to_owned()),
        ];
        Ok(super::follow::to_conninfo(&keys.map(|(key, value)| (key.to_owned(), value))))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target {{ user: {:?}, dbname: {:?}, data: {:?} }}", self.user, self.dbname, self.data)
    }
}

/// An instance that is reached over the network: the other server's.
#[derive(Clone)]
pub struct Remote {
    /// Database role.
    pub user: String,
    /// Its password, where one is configured.
    pub password: Option<String>,
    /// Database.
    pub dbname: String,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How it is encrypted.
    pub tls: Tls,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote {{ user: {:?}, dbname: {:?}, {}:{} }}", self.user, self.dbname, self.host, self.port)
    }
}

/// What to do if a server rejects the password.
pub const PASSWORD_HINT: &str = "Set db_instance_password in ID.conf of both servers to the password of the database user, and run \
                                 \"mc_ctl reload\" on both.";

/// Why there is no session, or no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Nobody listens: no `postmaster.pid`, no socket, or the kernel refuses.
    NotRunning,
    /// It is starting up, shutting down or recovering from a crash.
    Starting,
    /// It answers, but lets us not in: too many clients, authentication, a missing role or database, missing rights. Not
    /// a failure of the instance.
    Closed(String),
    /// The same because the password is wrong.
    Password(String),
    /// No answer within the time limit.
    Silent,
    /// Anything else: the session was lost, the server reports an internal or an I/O error.
    Other(String),
}

impl Refusal {
    /// The instance answers, but rejects this session.
    pub fn is_rejection(&self) -> bool {
        matches!(self, Refusal::Closed(_) | Refusal::Password(_))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotRunning => f.write_str("the instance is not running"),
            Refusal::Starting => f.write_str("the instance is starting up or shutting down"),
            Refusal::Closed(why) | Refusal::Password(why) => {
                write!(f, "the instance rejects the controller's connection: {why}")
            }
            Refusal::Silent => f.write_str("the instance does not respond within the time limit"),
            Refusal::Other(why) => f.write_str(why),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        let hint = match &refusal {
            Refusal::Password(_) => PASSWORD_HINT,
            Refusal::Closed(_) => {
                "Check db_instance_username, db_instance_password and target_db, pg_hba.conf, and max_connections."
            }
            _ => "",
        };
        Error::new(refusal.to_string()).hint(hint)
    }
}

/// A row of an answer, all columns as text.
pub type Row = Vec<Option<String>>;

/// A session. After [`Refusal::Silent`], or when the server has closed it, every further query is refused.
pub struct Session {
    live: Option<Live>,
    what: String,
}

struct Live {
    runtime: Runtime,
    client: Client,
}

impl Session {
    /// Opens a session within `timeout`, which is also its `statement_timeout` and `lock_timeout`. `what` says for what,
    /// in texts of errors. Tries the Unix socket, then TCP; one that is closed to us by `pg_hba.conf`, or is another
    /// instance's, leads to the next.
    /// A password that does not fit, or a server that is full, is so everywhere, and each attempt is a line in its log.
    ///
    /// # Errors
    ///
    /// See [`Refusal`]. With several ways tried, the first that was [`Refusal::Closed`], else the last.
    pub fn open(target: &Target, timeout: Duration, what: &str) -> Result<Session, Refusal> {
        let end = Instant::now() + timeout;
        let mut ways = Ways::read(&target.data)?.list();
        if ways.is_empty() {
            return Err(Refusal::NotRunning);
        }
        let count = ways.len();
        let first = target.way.load(Ordering::Relaxed) % count;
        ways.rotate_left(first);
        let mut refusal = Refusal::NotRunning;
        for (index, way) in ways.iter().enumerate() {
            let config = config(&target.user, target.password.as_deref(), &target.dbname, way, (timeout, timeout));
            let remaining = end.saturating_duration_since(Instant::now());
            let (answer, elsewhere) = match way {
                Way::Socket(path) => connect(over_socket(&config, path, &target.data), remaining),
                _ => connect(over_network(&config, NoTls), remaining),
            };
            if answer.is_ok() || !elsewhere {
                target.way.store((first + index) % count, Ordering::Relaxed);
            }
            match answer {
                Ok(live) => return Ok(Session { live: Some(live), what: what.to_owned() }),
                Err(Refusal::NotRunning) => {}
                Err(rejected) if rejected.is_rejection() && !elsewhere => return Err(rejected),
                Err(rejected) if rejected.is_rejection() && refusal == Refusal::NotRunning => refusal = rejected,
                Err(rejected) if rejected.is_rejection() => {}
                Err(other) if refusal == Refusal::NotRunning => return Err(other),
                Err(_) => {}
            }
        }
        Err(refusal)
    }

    /// Opens a session to another host's instance within `timeout`. `statement` is its `statement_timeout` and
    /// `lock_timeout`, zero for none; what ends a query in any case is the limit that is given with it.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    pub fn open_remote(
        remote: &Remote,
        timeout: Duration,
        statement: Duration,
        what: &str,
    ) -> Result<Session, Refusal> {
        let way = match remote.host.parse() {
            Ok(address) => Way::Address(address, remote.port),
            Err(_) => Way::Name(remote.host.clone(), remote.port),
        };
        let mut config = config(&remote.user, remote.password.as_deref(), &remote.dbname, &way, (timeout, statement));
        if let Some(required) = remote.tls.channel_binding {
            config.channel_binding(if required { ChannelBinding::Require } else { ChannelBinding::Disable });
        }
        let tls = remote.tls.config().map_err(|error| Refusal::Other(error.to_string()));
        // As libpq: what pg_hba.conf refuses in the one way is tried in the other, where sslmode leaves it open; and prefer does
        // without TLS where TLS fails.
        let ways = match remote.tls.mode {
            tls::Mode::Disable => &[SslMode::Disable][..],
            tls::Mode::Allow => &[SslMode::Disable, SslMode::Require],
            tls::Mode::Prefer => &[SslMode::Prefer, SslMode::Disable],
            tls::Mode::Require => &[SslMode::Require],
        };
        let end = Instant::now() + timeout;
        let mut first = None;
        for way in ways {
            let remaining = end.saturating_duration_since(Instant::now());
            let config = config.ssl_mode(*way);
            let opened = match (&tls, way) {
                (_, SslMode::Disable) => connect(over_network(config, NoTls), remaining),
                (Ok(tls), _) => connect(over_network(config, MakeRustlsConnect::new(tls.clone())), remaining),
                (Err(refusal), _) => (Err(refusal.clone()), true),
            };
            match opened {
                (Ok(live), _) => return Ok(Session { live: Some(live), what: what.to_owned() }),
                (Err(closed @ Refusal::Closed(_)), true) => first = first.or(Some(closed)),
                (Err(failed @ Refusal::Other(_)), true) if *way == SslMode::Prefer => first = first.or(Some(failed)),
                (Err(refusal), _) => return Err(first.unwrap_or(refusal)),
            }
        }
        Err(first.unwrap_or(Refusal::Silent))
    }

    /// Runs `sql` (one statement or several) in one round trip and returns the rows of all of them.
    ///
    /// # Errors
    ///
    /// [`Refusal::Silent`] where no answer came within `limit`; the session is closed then. [`Refusal::Closed`] for
    /// missing rights, [`Refusal::Other`] for any other error, with the server's text.
    pub fn query(&mut self, sql: &str, limit: Duration) -> Result<Vec<Row>, Refusal> {
        let Some(live) = &self.live else { return Err(self.closed()) };
        let answer = live.runtime.block_on(async { tokio::time::timeout(limit, live.client.simple_query(sql)).await });
        self.answered(answer.ok())
    }

    /// The same with no other limit than that `wanted` holds, which is asked a few times a second.
    ///
    /// # Errors
    ///
    /// See [`Session::query`].
    pub fn query_while(&mut self, sql: &str, wanted: impl Fn() -> bool) -> Result<Vec<Row>, Refusal> {
        let Some(live) = &self.live else { return Err(self.closed()) };
        let answer = live.runtime.block_on(async {
            let mut query = std::pin::pin!(live.client.simple_query(sql));
            while wanted() {
                if let Ok(answer) = tokio::time::timeout(WANTED, &mut query).await {
                    return Some(answer);
                }
            }
            None
        });
        self.answered(answer)
    }

    /// The rows of an answer; `None` is none in time.
    fn answered(
        &mut self,
        answer: Option<Result<Vec<SimpleQueryMessage>, tokio_postgres::Error>>,
    ) -> Result<Vec<Row>, Refusal> {
        match answer {
            None => {
                self.close();
                Err(Refusal::Silent)
            }
            Some(Err(error)) => {
                if self.is_closed() || error.as_db_error().is_none() {
                    self.close();
                }
                Err(classify(&error, &format!("could not query instance for {}", self.what)))
            }
            Some(Ok(messages)) => Ok(rows(messages)),
        }
    }

    fn closed(&self) -> Refusal {
        Refusal::Other(format!("could not query instance for {}: the session is closed", self.what))
    }

    /// Whether the session has been closed, by us or by the server.
    pub fn is_closed(&self) -> bool {
        self.live.as_ref().is_none_or(|live| live.client.is_closed())
    }

    fn close(&mut self) {
        if let Some(live) = self.live.take() {
            drop(live.client);
            // Not waited for: a name that is being resolved would keep us.
            live.runtime.shutdown_background();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(live) = self.live.take() {
            let Live { runtime, client } = live;
            drop(client);
            // One turn, in which the connection says good-bye, so that the server does not log a lost one.
            runtime
                .block_on(async { tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>()).await })
                .ok();
            runtime.shutdown_background();
        }
    }
}

fn rows(messages: Vec<SimpleQueryMessage>) -> Vec<Row> {
    messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        })
        .collect()
}

// -------------------------------------------------------------------------------------------------------------- ways

/// One address of the instance.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Way {
    Socket(PathBuf),
    Address(IpAddr, u16),
    Name(String, u16),
}

/// What `postmaster.pid` says of who the instance is and where it listens.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Ways {
    postmaster: i32,
    port: u16,
    socket_directory: String,
    listen_address: String,
}

impl Ways {
    fn read(data: &Path) -> Result<Ways, Refusal> {
        let path = data.join("postmaster.pid");
        match std::fs::read(&path) {
            Ok(bytes) => Ways::parse(&String::from_utf8_lossy(&bytes)).ok_or(Refusal::NotRunning),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Refusal::NotRunning),
            Err(error) => Err(Refusal::Other(Error::io("read file", &path, error).message)),
        }
    }

    /// Lines 1 and 4 to 6. `None` while a starting postmaster has not written them yet.
    fn parse(text: &str) -> Option<Ways> {
        let mut lines = text.lines();
        let postmaster = lines.next()?.trim().parse().ok()?;
        let mut lines = lines.skip(2);
        let port = lines.next()?.trim().parse().ok()?;
        let socket_directory = lines.next()?.trim().to_owned();
        let listen_address = lines.next()?.trim().to_owned();
        Some(Ways { postmaster, port, socket_directory, listen_address })
    }

    fn list(&self) -> Vec<Way> {
        let mut list = Vec::new();
        if !self.socket_directory.is_empty() {
            list.push(Way::Socket(Path::new(&self.socket_directory).join(format!(".s.PGSQL.{}", self.port))));
        }
        let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
        match self.listen_address.as_str() {
            "" => {}
            "*" | "localhost" => list.extend([Way::Address(v4, self.port), Way::Address(v6, self.port)]),
            "0.0.0.0" => list.push(Way::Address(v4, self.port)),
            "::" => list.push(Way::Address(v6, self.port)),
            name => list.push(match name.parse() {
                Ok(address) => Way::Address(address, self.port),
                Err(_) => Way::Name(name.to_owned(), self.port),
            }),
        }
        list
    }
}

// ------------------------------------------------------------------------------------------------------------ connect

/// Why there is no session, and whether another way may lead further.
type Failure = (Refusal, bool);

/// The session, or its failure, within the time limit.
fn connect(opening: impl Future<Output = Result<Client, Failure>>, limit: Duration) -> (Result<Live, Refusal>, bool) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return (Err(Refusal::Other(format!("could not prepare a session: {error}"))), true),
    };
    match runtime.block_on(async { tokio::time::timeout(limit, opening).await }) {
        Ok(Ok(client)) => (Ok(Live { runtime, client }), false),
        Ok(Err((refusal, elsewhere))) => {
            runtime.shutdown_background();
            (Err(refusal), elsewhere)
        }
        Err(_) => {
            runtime.shutdown_background();
            (Err(Refusal::Silent), true)
        }
    }
}

async fn over_network<T>(config: &Config, tls: T) -> Result<Client, Failure>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    config.connect(tls).await.map(served).map_err(failure)
}

/// A path does not say whose instance listens there: where hosts (containers) share the directory of the sockets, it is
/// that of the last one started, and a controller would take the other server's instance for its own. The kernel knows
/// who listens.
async fn over_socket(config: &Config, path: &Path, data: &Path) -> Result<Client, Failure> {
    let stream = UnixStream::connect(path).await.map_err(|error| (classify_io(&error, CONNECT), true))?;
    let listener = stream.peer_cred().ok().and_then(|its| its.pid());
    // Read after the connection: a postmaster is named there before it listens.
    let postmaster = Ways::read(data).map_err(|refusal| (refusal, true))?.postmaster;
    if listener != Some(postmaster) {
        let why = format!(
            "{CONNECT}: \"{}\" belongs to another instance, not to that of \"{}\" (process {postmaster}); set different \
             unix_socket_directories for each, and restart it",
            path.display(),
            data.display()
        );
        return Err((Refusal::Closed(why), true));
    }
    config.connect_raw(stream, NoTls).await.map(served).map_err(failure)
}

/// Ends when the client is dropped or the server closes; queries then say so themselves.
fn served<S, T>((client, connection): (Client, Connection<S, T>)) -> Client
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(connection);
    client
}

/// Which lines of pg_hba.conf apply depends on the way; a password, the role and the server do not.
fn failure(error: tokio_postgres::Error) -> Failure {
    let elsewhere = error.code().is_none_or(|code| *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    (classify(&error, CONNECT), elsewhere)
}

/// Everything is pinned by the startup packet, so that no setting of the role, the database or the server comes between,
/// and no further round trip is needed. `synchronous_commit = local`: the controller must never wait for the standby.
/// The limits are those of the connection and of a statement; zero is none.
fn config(user: &str, password: Option<&str>, dbname: &str, way: &Way, limits: (Duration, Duration)) -> Config {
    let mut config = Config::new();
    let (timeout, statement) = limits;
    let ms = if statement.is_zero() { 0 } else { statement.as_millis().max(1) };
    config
        .user(user)
        .dbname(dbname)
        .application_name(APPLICATION_NAME)
        .ssl_mode(SslMode::Disable)
        .connect_timeout(timeout)
        .tcp_user_timeout(timeout)
        .options(format!(
            "-c search_path=pg_catalog -c synchronous_commit=local -c standard_conforming_strings=on \
             -c client_encoding=UTF8 -c statement_timeout={ms} -c lock_timeout={ms} \
             -c idle_in_transaction_session_timeout={ms} -c default_transaction_isolation=read\\ committed"
        ));
    if let Some(password) = password {
        config.password(password);
    }
    match way {
        // It brings its own connection.
        Way::Socket(_) => &mut config,
        Way::Address(address, port) => config.host(address.to_string()).hostaddr(*address).port(*port),
        Way::Name(name, port) => config.host(name).port(*port),
    };
    config
}

fn classify(error: &tokio_postgres::Error, what: &str) -> Refusal {
    if let Some(db) = error.as_db_error() {
        return classify_state(db.code(), format!("{what}: {}", db.message()));
    }
    if let Some(io) = source_io(error) {
        return classify_io(io, what);
    }
    let mut text = error.to_string();
    // Its own text says what sort of error it is, the source which one.
    if let Some(source) = std::error::Error::source(error) {
        text = format!("{text}: {source}");
    }
    // What the client itself finds wanting: "password missing", an authentication method that it does not know.
    if text.contains("password missing") {
        return Refusal::Closed(format!("{what}: it requires a password, and db_instance_password is not set"));
    }
    if text.contains("authentication") || text.contains("invalid configuration") {
        return Refusal::Closed(format!("{what}: {text}"));
    }
    Refusal::Other(format!("{what}: {text}"))
}

fn classify_io(error: &std::io::Error, what: &str) -> Refusal {
    use std::io::ErrorKind::*;
    match error.kind() {
        ConnectionRefused | NotFound => Refusal::NotRunning,
        // A full queue of connections that nobody accepts.
        TimedOut | WouldBlock => Refusal::Silent,
        _ => Refusal::Other(format!("{what}: {error}")),
    }
}

fn source_io(error: &tokio_postgres::Error) -> Option<&std::io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(this) = cause {
        if let Some(io) = this.downcast_ref() {
            return Some(io);
        }
        cause = this.source();
    }
    None
}

/// By SQLSTATE (PostgreSQL documentation, appendix A).
fn classify_state(state: &SqlState, text: String) -> Refusal {
    let code = state.code();
    match code {
        // cannot_connect_now: starting up, shutting down, in recovery; then the notices of a shutdown to a session
        "57P03" | "57P01" | "57P02" => Refusal::Starting,
        // too_many_connections, invalid_catalog_name (no such database), insufficient_privilege,
        // object_not_in_prerequisite_state (a database that takes no connections), undefined_object
        "53300" | "3D000" | "42501" | "55000" | "42704" => Refusal::Closed(text),
        // invalid_password
        "28P01" => Refusal::Password(text),
        // invalid_authorization_specification: pg_hba.conf, role, LOGIN
        _ if code.starts_with("28") => Refusal::Closed(text),
        // query_canceled: the statement_timeout; lock_not_available
        "57014" | "55P03" => Refusal::Silent,
        _ => Refusal::Other(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_come_from_postmaster_pid() {
        let check = |lines: &str, expected: &[Way]| {
            let ways = Ways::parse(&format!("12345\n/data\n1700000000\n{lines}"));
            assert_eq!(ways.map(|ways| ways.list()).unwrap_or_default(), expected, "{lines:?}");
        };
        let socket = Way::Socket(PathBuf::from("/run/postgresql/.s.PGSQL.5432"));
        let v4 = Way::Address(IpAddr::V4(Ipv4Addr::LOCALHOST), 5432);
        let v6 = Way::Address(IpAddr::V6(Ipv6Addr::LOCALHOST), 5432);
        check("5432\n/run/postgresql\n*\n", &[socket.clone(), v4.clone(), v6.clone()]);
        check("5432\n/run/postgresql\n\n", &[socket]);
        check("5432\n\n0.0.0.0\n", &[v4]);
        check("5432\n\n::\n", &[v6]);
        check("5432\n\n192.0.2.1\n", &[Way::Address(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 5432)]);
        check("5432\n\ndb.example\n", &[Way::Name("db.example".into(), 5432)]);
        check("", &[]);
        check("port\n\n\n", &[]);
        check("99999\n/tmp\n\n", &[]);
    }

    #[test]
    fn refusals_are_told_apart_by_sqlstate() {
        let check = |code: &str, expected: Refusal| {
            assert_eq!(classify_state(&SqlState::from_code(code), "text".into()), expected, "{code}");
        };
        check("28P01", Refusal::Password("text".into()));
        for code in ["28000", "53300", "3D000", "42501"] {
            check(code, Refusal::Closed("text".into()));
        }
        check("57P03", Refusal::Starting);
        check("57014", Refusal::Silent);
        check("58030", Refusal::Other("text".into()));
        check("XX001", Refusal::Other("text".into()));
    }

    #[test]
    fn a_rejected_password_has_one_hint() {
        let hint = |refusal: Refusal| Error::from(refusal).hint;
        assert_eq!(hint(Refusal::Password("wrong".into())), PASSWORD_HINT);
        assert!(hint(Refusal::Closed("full".into())).contains("max_connections"));
        assert_eq!(hint(Refusal::Silent), "");
    }

    #[test]
    fn a_password_is_never_shown() {
        let target = Target::new("u", Some("secret".into()), "postgres", "/data");
        assert!(!format!("{target:?}").contains("secret"));
    }
}
