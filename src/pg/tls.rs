//! TLS of a session to another host's instance, by the keys and environment variables of libpq.
//!
//! It follows libpq (PostgreSQL documentation, "SSL Support"; `fe-secure-openssl.c`): where a file of root certificates
//! exists, the server's certificate is verified in every `sslmode` that uses TLS, and `verify-ca` and `verify-full` require
//! that file. Settings that this program cannot honour are errors; none is ignored. It is stricter than libpq where a file
//! of `sslcrl` cannot be read, and where a certificate has no subject alternative name or is of X.509 version 1.

use crate::error::{Error, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_cert::der::Decode;

/// How a session is encrypted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    /// Whether the session is begun with it, and whether it may be without.
    pub mode: Mode,
    /// `channel_binding = require`, or `disable`; `None` for `prefer`.
    pub channel_binding: Option<bool>,
    /// `verify-ca` or `verify-full`: the root certificates must be there.
    must_verify: bool,
    /// `verify-full`: the certificate must name the host.
    host: bool,
    roots: Roots,
    /// `sslcrl`, `sslcrldir`, and the default file.
    revoked: [Option<PathBuf>; 3],
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    /// TLS 1.2, TLS 1.3.
    versions: [bool; 2],
    indication: bool,
}

/// `sslmode`, as far as it is about whether.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Without.
    Disable,
    /// Without, and where the server refuses that, with.
    Allow,
    /// With where the server can, and where that fails, without.
    Prefer,
    /// With.
    Require,
}

/// Where the root certificates are.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Roots {
    File(Option<PathBuf>),
    System,
}

/// What libpq takes from the process that uses it.
pub struct Process<'a> {
    /// The value of an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// The major version of the instance, whose libpq the other sessions use.
    pub major: u32,
}

/// Keys whose other values this program cannot honour, and the values that change nothing.
const LIMITS: [(&str, &str, &[&str]); 5] = [
    ("sslcertmode", "PGSSLCERTMODE", &["allow", "disable"]),
    ("sslnegotiation", "PGSSLNEGOTIATION", &["postgres"]),
    ("gssencmode", "PGGSSENCMODE", &["prefer", "disable"]),
    ("require_auth", "PGREQUIREAUTH", &[]),
    ("service", "PGSERVICE", &[]),
];

impl Tls {
    /// From the keys and values of a connection string, as libpq reads them in this process.
    ///
    /// # Errors
    /// A value is invalid, or asks for what this program cannot do.
    pub fn parse(keys: &[(String, String)], major: u32) -> Result<Tls> {
        let variable = |name: &str| std::env::var(name).ok();
        Tls::parse_in(keys, &Process { variable: &variable, home: std::env::home_dir(), major })
    }

    /// The same in another process.
    ///
    /// # Errors
    /// See [`Tls::parse`].
    pub fn parse_in(keys: &[(String, String)], process: &Process<'_>) -> Result<Tls> {
        let given = |key: &str| keys.iter().rfind(|(name, _)| name == key).map(|(_, value)| value.clone());
        let value = |key: &str, variable: &str| {
            given(key).or_else(|| (process.variable)(variable)).filter(|value| !value.is_empty())
        };
        for (key, variable, known) in LIMITS {
            if let Some(value) = value(key, variable).filter(|value| !known.contains(&value.as_str())) {
                return Err(refused(key, &value, "the controller's session to the other server does not support it"));
            }
        }
        let path = |key: &str, variable: &str| value(key, variable).map(PathBuf::from);
        let home = |name: &str| Some(process.home.as_ref()?.join(".postgresql").join(name));
        let roots = match path("sslrootcert", "PGSSLROOTCERT") {
            Some(word) if process.major >= 16 && word == Path::new("system") => Roots::System,
            file => Roots::File(file.or_else(|| home("root.crt"))),
        };
        let required = (process.variable)("PGREQUIRESSL").is_some_and(|value| value.starts_with('1'));
        let default = if roots == Roots::System { "verify-full" } else { "prefer" };
        let default = if required && roots != Roots::System { "require" } else { default };
        let mode = value("sslmode", "PGSSLMODE").unwrap_or_else(|| default.to_owned());
        let (must_verify, host) = (mode.starts_with("verify-"), mode == "verify-full");
        if roots == Roots::System && !host {
            return Err(refused("sslmode", &mode, "sslrootcert=system requires sslmode=verify-full"));
        }
        let mode = match mode.as_str() {
            "disable" => Mode::Disable,
            "allow" => Mode::Allow,
            "prefer" => Mode::Prefer,
            "require" | "verify-ca" | "verify-full" => Mode::Require,
            _ => return Err(refused("sslmode", &mode, "it is not an sslmode")),
        };
        let revoked = [path("sslcrl", "PGSSLCRL"), path("sslcrldir", "PGSSLCRLDIR")];
        if roots == Roots::System && revoked.iter().any(Option::is_some) {
            return Err(refused("sslrootcert", "system", "it cannot be used with sslcrl or sslcrldir"));
        }
        let [file, directory] = revoked;
        let default = if file.is_none() && directory.is_none() { home("root.crl") } else { None };
        let binding = value("channel_binding", "PGCHANNELBINDING").unwrap_or_default();
        let channel_binding = match binding.as_str() {
            "require" => Some(true),
            "disable" => Some(false),
            "" | "prefer" => None,
            _ => return Err(refused("channel_binding", &binding, "it is not valid")),
        };
        let no_certificate = value("sslcertmode", "PGSSLCERTMODE").is_some_and(|value| value == "disable");
        let certificate = path("sslcert", "PGSSLCERT").or_else(|| home("postgresql.crt"));
        Ok(Tls {
            mode,
            channel_binding,
            must_verify,
            host,
            roots,
            revoked: [file, directory, default],
            certificate: certificate.filter(|_| !no_certificate),
            key: path("sslkey", "PGSSLKEY").or_else(|| home("postgresql.key")),
            versions: versions(&value)?,
            indication: value("sslsni", "PGSSLSNI").is_none_or(|value| !value.starts_with('0')),
        })
    }

    /// What rustls needs to know.
    ///
    /// # Errors
    /// A file of certificates, the key or a revocation list cannot be used.
    pub fn config(&self) -> Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let verifier = self.verifier(&provider)?;
        let [v12, v13] = self.versions.map(|used| used.then_some(()));
        let versions = [v12.map(|()| &rustls::version::TLS12), v13.map(|()| &rustls::version::TLS13)];
        let versions: Vec<_> = versions.into_iter().flatten().collect();
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|cause| Error::new(format!("could not prepare TLS: {cause}")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match self.own()? {
            None => config.with_no_client_auth(),
            Some((chain, key, path)) => {
                config.with_client_auth_cert(chain, key).map_err(|cause| unread("sslkey", &path, &cause))?
            }
        };
        config.enable_sni = self.indication;
        Ok(config)
    }

    /// What verifies the server's certificate. Without root certificates nothing is verified, which `verify-ca` and
    /// `verify-full` do not allow.
    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Verifier> {
        let host = self.host;
        let verifier = |trusted, inner| Verifier { host, trusted, inner, provider: provider.clone() };
        let (roots, name) = match &self.roots {
            Roots::System => (system_roots()?, PathBuf::from("system")),
            Roots::File(Some(path)) if path.metadata().is_ok() => (read("sslrootcert", path)?, path.clone()),
            Roots::File(path) if self.must_verify => {
                let path = path.clone().unwrap_or_default();
                return Err(Error::new(format!("root certificate file \"{}\" does not exist", path.display())).hint(
                    "Provide the file, or set sslrootcert in primary_conninfo, or change sslmode so that the server's \
                     certificate is not verified.",
                ));
            }
            Roots::File(_) => return Ok(verifier(None, None)),
        };
        let now = UnixTime::now();
        let mut store = RootCertStore::empty();
        let mut trusted = Trusted { roots: Vec::new(), others: Vec::new(), leaves: true };
        for certificate in roots {
            // As OpenSSL: a chain ends at a certificate that is signed by itself, and whose time has not run out.
            match self_signed_and_valid(&certificate, now) {
                Ok((true, true)) => {
                    store.add(certificate.clone()).map_err(|cause| unread("sslrootcert", &name, &cause))?;
                    trusted.roots.push(certificate);
                }
                Ok((false, _)) => trusted.others.push(certificate),
                Ok((true, false)) => (),
                // Of the many of a system, some may be such that nobody can read.
                Err(_) if self.roots == Roots::System => (),
                Err(cause) => return Err(unread("sslrootcert", &name, &cause)),
            }
        }
        if trusted.roots.is_empty() {
            return Err(unread("sslrootcert", &name, &"it has no root certificate that is valid now"));
        }
        let revoked = self.revocations()?;
        trusted.leaves = revoked.is_empty();
        let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone());
        if !revoked.is_empty() {
            builder = builder.with_crls(revoked).enforce_revocation_expiration();
        }
        let inner = builder.build().map_err(|cause| unread("sslrootcert", &name, &cause))?;
        Ok(verifier(Some(trusted), Some(inner)))
    }

    /// The certificate revocation lists.
    fn revocations(&self) -> Result<Vec<CertificateRevocationListDer<'static>>> {
        let [file, directory, default] = &self.revoked;
        let mut files: Vec<(&str, PathBuf)> = file.iter().map(|path| ("sslcrl", path.clone())).collect();
        files.extend(default.iter().filter(|path| path.exists()).map(|path| ("sslcrl", path.clone())));
        if let Some(directory) = directory {
            let entries = super::files::entries(directory);
            // `HASH.rN`
            let list = |path: &PathBuf| path.extension().is_some_and(|e| e.as_encoded_bytes().starts_with(b"r"));
            let before = files.len();
            files.extend(entries.into_iter().filter(list).map(|path| ("sslcrldir", path)));
            if files.len() == before {
                return Err(unread("sslcrldir", directory, &"it has no certificate revocation list"));
            }
        }
        let mut lists = Vec::new();
        for (key, path) in files {
            let found = CertificateRevocationListDer::pem_file_iter(&path)
                .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
            let found = found.map_err(|cause| unread(key, &path, &cause))?;
            if found.is_empty() {
                return Err(unread(key, &path, &"it has no certificate revocation list"));
            }
            lists.extend(found);
        }
        Ok(lists)
    }

    /// This server's own certificates and key, and the file of the key.
    fn own(&self) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, PathBuf)>> {
        let Some(certificate) = &self.certificate else { return Ok(None) };
        match certificate.metadata() {
            Ok(_) => (),
            Err(cause) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&cause.kind()) => return Ok(None),
            Err(cause) => return Err(unread("sslcert", certificate, &cause)),
        }
        let chain = read("sslcert", certificate)?;
        let path = self.key.clone().unwrap_or_default();
        let stat = path.metadata().map_err(|cause| unread("sslkey", &path, &cause))?;
        if !stat.is_file() {
            return Err(unread("sslkey", &path, &"it is not a regular file"));
        }
        let others = if stat.uid() == 0 { 0o037 } else { 0o077 };
        if stat.mode() & others != 0 {
            let why = "it has group or world access; its permissions must be u=rw (0600) or less, or u=rw,g=r (0640) or less \
                       if it is owned by root";
            return Err(unread("sslkey", &path, &why));
        }
        let key = PrivateKeyDer::from_pem_file(&path).map_err(|cause| unread("sslkey", &path, &cause))?;
        Ok(Some((chain, key, path)))
    }
}

/// The versions of TLS between `ssl_min_protocol_version` and `ssl_max_protocol_version`. Versions below 1.2 are not spoken.
fn versions(value: &dyn Fn(&str, &str) -> Option<String>) -> Result<[bool; 2]> {
    let number = |key: &str, variable: &str| {
        let Some(name) = value(key, variable) else { return Ok(None) };
        let known = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
        let place = known.iter().position(|known| known.eq_ignore_ascii_case(&name));
        place.map(Some).ok_or_else(|| refused(key, &name, "it is not valid"))
    };
    let least = number("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION")?.unwrap_or(2);
    let most = number("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION")?.unwrap_or(3);
    let used = [2, 3].map(|version| (least..=most).contains(&version));
    if used == [false, false] {
        return Err(Error::new(
            "ssl_min_protocol_version and ssl_max_protocol_version allow neither TLS 1.2 nor TLS 1.3",
        ));
    }
    Ok(used)
}

/// The root certificates of this host, as OpenSSL finds them (`SSL_CERT_FILE`, `SSL_CERT_DIR`).
fn system_roots() -> Result<Vec<CertificateDer<'static>>> {
    let found = rustls_native_certs::load_native_certs();
    match found.errors.into_iter().next() {
        Some(cause) if found.certs.is_empty() => {
            Err(Error::new(format!("could not use sslrootcert \"system\": {cause}")))
        }
        _ => Ok(found.certs),
    }
}

/// Whether a certificate is signed by itself, and whether it is valid now.
fn self_signed_and_valid(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(bool, bool)> {
    let parsed = x509_cert::Certificate::from_der(certificate)
        .map_err(|cause| Error::new(format!("could not read a certificate: {cause}")))?;
    let body = parsed.tbs_certificate;
    let time = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
    let valid = (time(body.validity.not_before)..=time(body.validity.not_after)).contains(&now.as_secs());
    Ok((body.issuer == body.subject, valid))
}

fn read(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certificates: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|cause| unread(what, path, &cause))?.collect();
    let certificates = certificates.map_err(|cause| unread(what, path, &cause))?;
    if certificates.is_empty() { Err(unread(what, path, &"it has no certificate")) } else { Ok(certificates) }
}

fn unread(what: &str, path: &Path, cause: &dyn std::fmt::Display) -> Error {
    Error::new(format!("could not use {what} \"{}\": {cause}", path.display())).hint(
        "The file is named in primary_conninfo or in the environment, or is libpq's default in ~/.postgresql. It must be in \
         PEM format, and the user of the controller must be able to read it.",
    )
}

fn refused(key: &str, value: &str, why: &str) -> Error {
    Error::new(format!("could not use {key} \"{value}\": {why}"))
        .hint("It is set in primary_conninfo, or in the environment of the controller.")
}

/// The certificates of `sslrootcert`.
#[derive(Debug)]
struct Trusted {
    /// Those that a chain may end with.
    roots: Vec<CertificateDer<'static>>,
    /// Others, which may be a part of the chain.
    others: Vec<CertificateDer<'static>>,
    /// Whether a server may use a root itself; not where revocation lists are used, which would have to cover it.
    leaves: bool,
}

/// Verifies the server's certificate where there are root certificates. That the server holds its key is always verified.
#[derive(Debug)]
struct Verifier {
    host: bool,
    trusted: Option<Trusted>,
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let (Some(trusted), Some(inner)) = (&self.trusted, &self.inner) else {
            return Ok(ServerCertVerified::assertion());
        };
        // A certificate that signed itself, as PostgreSQL's documentation makes one, stands in sslrootcert itself.
        if trusted.leaves && trusted.roots.contains(end_entity) {
            if self.host {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let chain: Vec<_> = intermediates.iter().chain(&trusted.others).cloned().collect();
        match inner.verify_server_cert(end_entity, &chain, server_name, ocsp_response, now) {
            // The name is looked at last.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.host => Ok(ServerCertVerified::assertion()),
            answer => answer,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, environment: &[(&str, &str)], major: u32) -> Result<Tls> {
        let variable =
            |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let process = Process { variable: &variable, home: Some("/none".into()), major };
        Tls::parse_in(&crate::pg::follow::parse_conninfo(text).unwrap(), &process)
    }

    #[test]
    fn keys_and_variables_of_libpq() {
        let plain = parse("host=a port=1", &[], 15).unwrap();
        assert_eq!((plain.mode, plain.must_verify, plain.host), (Mode::Prefer, false, false));
        assert_eq!(plain.roots, Roots::File(Some("/none/.postgresql/root.crt".into())));
        assert_eq!(plain.key, Some("/none/.postgresql/postgresql.key".into()));
        assert_eq!(parse("sslmode=disable", &[], 15).unwrap().mode, Mode::Disable);
        let full = parse("sslmode=verify-full sslrootcert='/c a' sslcert=/c sslkey=/k", &[], 15).unwrap();
        assert_eq!((full.mode, full.must_verify, full.host), (Mode::Require, true, true));
        assert_eq!((full.roots, full.certificate), (Roots::File(Some("/c a".into())), Some("/c".into())));
        let variables = [("PGSSLMODE", "verify-ca"), ("PGSSLROOTCERT", "/r"), ("PGREQUIRESSL", "1")];
        let ca = parse("", &variables, 15).unwrap();
        assert_eq!((ca.mode, ca.must_verify, ca.host), (Mode::Require, true, false));
        assert_eq!(ca.roots, Roots::File(Some("/r".into())));
        assert_eq!(parse("sslmode=allow", &variables, 15).unwrap().mode, Mode::Allow);
        assert_eq!(parse("", &variables[2..], 15).unwrap().mode, Mode::Require);
        let newest = parse("ssl_min_protocol_version=TLSv1.3", &[], 15).unwrap();
        assert_eq!(newest.versions, [false, true]);
        assert_eq!(parse("sslcertmode=disable sslcert=/c", &[], 16).unwrap().certificate, None);
        let system = parse("sslrootcert=system", &[], 16).unwrap();
        assert_eq!((system.mode, system.host, system.roots), (Mode::Require, true, Roots::System));
        assert_eq!(parse("sslrootcert=system", &[], 15).unwrap().roots, Roots::File(Some("system".into())));
        assert_eq!(parse("channel_binding=require", &[], 15).unwrap().channel_binding, Some(true));
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for (text, major) in [
            ("sslmode=verify", 15),
            ("sslrootcert=system sslmode=require", 16),
            ("sslrootcert=system sslcrl=/c", 16),
            ("sslcertmode=require", 16),
            ("sslnegotiation=direct", 17),
            ("gssencmode=require", 15),
            ("require_auth=scram-sha-256", 16),
            ("service=x", 15),
            ("channel_binding=x", 15),
            ("ssl_max_protocol_version=TLSv1.1", 15),
            ("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", 15),
        ] {
            assert!(parse(text, &[], major).is_err(), "{text}");
        }
        assert!(parse("", &[("PGREQUIREAUTH", "none")], 16).is_err());
    }

    #[test]
    fn files_that_are_needed_must_be_there() {
        let failure = |text: &str| parse(text, &[], 15).unwrap().config().unwrap_err().message;
        assert!(failure("sslmode=verify-ca").contains("/none/.postgresql/root.crt\" does not exist"));
        assert!(failure("sslmode=verify-full sslrootcert=/none").contains("\"/none\" does not exist"));
        for text in ["sslmode=require", "sslmode=require sslrootcert=/none", "sslcert=/none sslkey=/none"] {
            assert!(parse(text, &[], 15).unwrap().config().is_ok(), "{text}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "no certificate").unwrap();
        assert!(failure(&format!("sslrootcert={}", file.display())).contains("it has no certificate"));
        assert!(failure(&format!("sslcert={}", file.display())).contains("it has no certificate"));
    }
}
