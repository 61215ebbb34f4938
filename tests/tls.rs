//! TLS of a session to another host's instance: each setting does what it does in psql.

#[allow(dead_code, reason = "other tests need the rest of it")]
mod common;

use mirroring_controller::pg::connect::{Remote, Session};
use mirroring_controller::pg::follow::parse_conninfo;
use mirroring_controller::pg::tls::{Process, Tls};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// Two authorities, a server's certificate of the first with the name `localhost`, a client's of the first, and revocation
/// lists of the first; homes of users with default files.
const FILES: &str = r"
set -e
umask 077
for ca in a b; do
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca-$ca -keyout $ca.key -out $ca.crt
done
for name in server client; do
    openssl req -newkey rsa:2048 -nodes -subj /CN=$name -keyout $name.key -out $name.csr
    printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' > $name.ext
    openssl x509 -req -in $name.csr -CA a.crt -CAkey a.key -CAcreateserial -days 2 -extfile $name.ext -out $name.crt
done
cp client.key open.key
chmod 644 open.key
printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index\ncrlnumber=number\ndefault_md=sha256\ndefault_crl_days=2\n' > ca.conf
: > index
echo 01 > number
list() { openssl ca -config ca.conf -keyfile a.key -cert a.crt $*; }
list -gencrl -out empty.crl
list -revoke server.crt
list -gencrl -out revoked.crl
mkdir -p lists nothing home-empty home-a/.postgresql home-b/.postgresql home-revoked/.postgresql home-open/.postgresql
cp revoked.crl lists/$(openssl crl -hash -noout -in revoked.crl).r0
cp a.crt home-a/.postgresql/root.crt
cp b.crt home-b/.postgresql/root.crt
cp a.crt home-revoked/.postgresql/root.crt
cp revoked.crl home-revoked/.postgresql/root.crl
cp client.crt home-open/.postgresql/postgresql.crt
cp open.key home-open/.postgresql/postgresql.key
chmod 644 home-open/.postgresql/postgresql.key
";

struct Server {
    dir: tempfile::TempDir,
    port: u16,
}

impl Server {
    fn start() -> Server {
        let server = Server { dir: tempfile::tempdir().unwrap(), port: common::free_port() };
        let made = Command::new("sh").args(["-c", FILES]).current_dir(server.dir.path()).output().unwrap();
        assert!(made.status.success(), "these tests need openssl: {}", String::from_utf8_lossy(&made.stderr));
        let bin = common::bin_dir();
        let data = server.data();
        common::run(&bin.join("initdb"), &["-N", "-A", "trust", "-U", "postgres", "-D", data.to_str().unwrap()]);
        let dir = server.dir.path().display();
        let settings = format!(
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\nssl = on\n\
             ssl_cert_file = '{dir}/server.crt'\nssl_key_file = '{dir}/server.key'\nssl_ca_file = '{dir}/a.crt'\n",
            server.port
        );
        std::fs::write(data.join("postgresql.auto.conf"), settings).unwrap();
        let log = server.dir.path().join("log");
        let words = ["start", "-w", "-s", "-D", data.to_str().unwrap(), "-l", log.to_str().unwrap()];
        common::run(&bin.join("pg_ctl"), &words);
        server
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Whether psql connects, and what it said.
    fn psql(&self, host: &str, text: &str, home: &Path, variables: &[(&str, &str)]) -> (bool, String) {
        let conninfo = format!("host={host} port={} user=postgres dbname=postgres {text}", self.port);
        let mut psql = Command::new(common::bin_dir().join("psql"));
        psql.args(["-X", "-w", "-c", "SELECT 1", &conninfo]).env("HOME", home).envs(variables.iter().copied());
        let answer = psql.output().expect("psql is needed: apt-get install postgresql-client");
        (answer.status.success(), String::from_utf8_lossy(&answer.stderr).into_owned())
    }

    /// The same of the controller's session.
    fn session(&self, host: &str, text: &str, home: &Path, variables: &[(&str, &str)]) -> (bool, String) {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let process = Process { variable: &variable, home: Some(home.to_owned()), major: common::major() };
        let tls = match Tls::parse_in(&parse_conninfo(text).unwrap(), &process) {
            Ok(tls) => tls,
            Err(error) => return (false, error.to_string()),
        };
        let (user, dbname, host) = ("postgres".into(), "postgres".into(), host.to_owned());
        let remote = Remote { user, password: None, dbname, host, port: self.port, tls };
        match Session::open_remote(&remote, LIMIT, LIMIT, "a test") {
            Ok(_) => (true, String::new()),
            Err(refusal) => (false, refusal.to_string()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.data();
        common::run(
            &common::bin_dir().join("pg_ctl"),
            &["stop", "-s", "-m", "immediate", "-D", data.to_str().unwrap()],
        );
    }
}

/// Settings, the home of the user, environment variables, and whether a session is opened.
type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], bool);

const CASES: &[Case] = &[
    ("", "home-empty", &[], true),
    ("sslmode=require", "home-empty", &[], true),
    ("sslmode=require sslrootcert=DIR/a.crt", "home-empty", &[], true),
    // the authority of another certificate
    ("sslmode=require sslrootcert=DIR/b.crt", "home-empty", &[], false),
    ("sslmode=require sslrootcert=DIR/none", "home-b", &[], true),
    ("sslmode=require", "home-a", &[], true),
    ("sslmode=require", "home-b", &[], false),
    ("sslmode=verify-ca", "home-a", &[], true),
    ("sslmode=verify-ca", "home-b", &[], false),
    ("sslmode=verify-ca", "home-empty", &[], false),
    ("sslmode=verify-ca sslrootcert=DIR/none", "home-a", &[], false),
    ("sslmode=verify-full sslrootcert=DIR/a.crt", "home-empty", &[], false),
    // without TLS, after it has failed
    ("sslrootcert=DIR/b.crt", "home-empty", &[], true),
    ("sslmode=allow", "home-b", &[], true),
    ("sslmode=disable", "home-open", &[], true),
    // the environment
    ("", "home-b", &[("PGSSLMODE", "require")], false),
    ("", "home-a", &[("PGSSLMODE", "verify-ca")], true),
    ("sslmode=require", "home-empty", &[("PGSSLROOTCERT", "DIR/b.crt")], false),
    ("sslmode=disable", "home-b", &[("PGSSLMODE", "require")], true),
    // the client's certificate and key
    ("sslmode=require sslcert=DIR/client.crt sslkey=DIR/client.key", "home-empty", &[], true),
    ("sslmode=require sslcert=DIR/client.crt sslkey=DIR/open.key", "home-empty", &[], false),
    ("sslmode=require sslcert=DIR/client.crt sslkey=DIR/none", "home-empty", &[], false),
    ("sslmode=require sslcert=DIR/none sslkey=DIR/none", "home-empty", &[], true),
    ("sslmode=require", "home-open", &[], false),
    // revocation lists
    ("sslmode=require sslcrl=DIR/empty.crl", "home-a", &[], true),
    ("sslmode=require sslcrl=DIR/revoked.crl", "home-a", &[], false),
    ("sslmode=require sslcrl=DIR/revoked.crl", "home-empty", &[], true),
    ("sslmode=require sslcrldir=DIR/lists", "home-a", &[], false),
    ("sslmode=require sslcrldir=DIR/nothing", "home-a", &[], false),
    ("sslmode=require", "home-revoked", &[], false),
    ("sslmode=require sslcrl=DIR/empty.crl", "home-revoked", &[], true),
    // versions
    ("sslmode=require ssl_min_protocol_version=TLSv1.3", "home-a", &[], true),
    ("sslmode=require ssl_max_protocol_version=TLSv1.2", "home-b", &[], false),
];

/// A certificate of another authority is refused with `sslmode=require` where there is a file of root certificates, and so
/// on: each case is first tried with psql.
#[test]
fn settings_do_what_they_do_in_psql() {
    if !common::as_postgres("settings_do_what_they_do_in_psql") {
        return;
    }
    let server = Server::start();
    let dir = server.dir.path().to_str().unwrap();
    let mut wrong = Vec::new();
    for (text, home, variables, expected) in CASES {
        let text = text.replace("DIR", dir);
        let variables: Vec<_> = variables.iter().map(|(key, value)| (*key, value.replace("DIR", dir))).collect();
        let variables: Vec<_> = variables.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let home = server.dir.path().join(home);
        let psql = server.psql("127.0.0.1", &text, &home, &variables);
        let session = server.session("127.0.0.1", &text, &home, &variables);
        if (psql.0, session.0) != (*expected, *expected) {
            wrong.push(format!(
                "{text:?} {variables:?} in {}: {expected}; psql {psql:?}; session {session:?}",
                home.display()
            ));
        }
    }
    // The certificate names the host, and no address.
    for host in ["localhost", "127.0.0.1"] {
        let text = format!("sslmode=verify-full sslrootcert={dir}/a.crt");
        let home = server.dir.path().join("home-empty");
        let (psql, session) = (server.psql(host, &text, &home, &[]), server.session(host, &text, &home, &[]));
        if (psql.0, session.0) != (host == "localhost", host == "localhost") {
            wrong.push(format!("{host}: psql {psql:?}; session {session:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
