//! TLS of a session to another host's instance, by the keys that libpq knows: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`.
//!
//! As there (PostgreSQL documentation, "SSL Support" of libpq): `prefer` is the default and, as `require`, looks at no
//! certificate; `verify-ca` and `verify-full` do, by the authorities of `sslrootcert`.

use crate::error::{Error, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What of a certificate must fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Check {
    Nothing,
    Authority,
    AuthorityAndHost,
}

/// How a session is encrypted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    /// Whether the session is begun with it, and whether it may be without.
    pub mode: Mode,
    check: Check,
    authorities: Option<PathBuf>,
    own: Option<(PathBuf, PathBuf)>,
}

/// `sslmode`, as far as it is about whether.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Without.
    Disable,
    /// Without, and where the server refuses that, with.
    Allow,
    /// With where the server can, and where it refuses that, without.
    Prefer,
    /// With.
    Require,
}

impl Default for Tls {
    fn default() -> Tls {
        Tls { mode: Mode::Prefer, check: Check::Nothing, authorities: None, own: None }
    }
}

impl Tls {
    /// From the keys and values of a connection string; others are passed over.
    pub fn parse(keys: &[(String, String)]) -> Tls {
        let value = |name: &str| keys.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let (mode, check) = match value("sslmode") {
            Some("disable") => (Mode::Disable, Check::Nothing),
            Some("allow") => (Mode::Allow, Check::Nothing),
            Some("require") => (Mode::Require, Check::Nothing),
            Some("verify-ca") => (Mode::Require, Check::Authority),
            Some("verify-full") => (Mode::Require, Check::AuthorityAndHost),
            _ => (Mode::Prefer, Check::Nothing),
        };
        let path = |name: &str| value(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Tls { mode, check, authorities: path("sslrootcert"), own: path("sslcert").zip(path("sslkey")) }
    }

    /// What rustls needs to know.
    ///
    /// # Errors
    /// A file of certificates or the key cannot be read, or holds none.
    pub fn config(&self) -> Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let trusted = match (&self.authorities, self.check) {
            (_, Check::Nothing) => Vec::new(),
            (Some(path), _) => read("sslrootcert", path)?,
            (None, _) => {
                return Err(Error::new("sslmode verifies the server's certificate, and sslrootcert is not set")
                    .hint("Set sslrootcert in primary_conninfo to the file of the authority's certificate."));
            }
        };
        let inner = self.chains(&trusted, &provider)?;
        let verifier = Verifier { check: self.check, trusted, inner, provider: provider.clone() };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|cause| Error::new(format!("could not prepare TLS: {cause}")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let Some((certificates, key)) = &self.own else { return Ok(config.with_no_client_auth()) };
        let own_key = PrivateKeyDer::from_pem_file(key).map_err(|cause| unread("sslkey", key, &cause))?;
        config
            .with_client_auth_cert(read("sslcert", certificates)?, own_key)
            .map_err(|cause| unread("sslkey", key, &cause))
    }

    /// What follows a chain of certificates to one that is trusted.
    fn chains(
        &self,
        trusted: &[CertificateDer<'static>],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<WebPkiServerVerifier>>> {
        let Some(path) = self.authorities.as_ref().filter(|_| !trusted.is_empty()) else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for certificate in trusted {
            roots.add(certificate.clone()).map_err(|cause| unread("sslrootcert", path, &cause))?;
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map(Some)
            .map_err(|cause| unread("sslrootcert", path, &cause))
    }
}

fn read(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certificates: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|cause| unread(what, path, &cause))?.collect();
    certificates.map_err(|cause| unread(what, path, &cause))
}

fn unread(what: &str, path: &Path, cause: &dyn std::fmt::Display) -> Error {
    Error::new(format!("could not use {what} \"{}\": {cause}", path.display()))
        .hint("It stands in primary_conninfo, and must be a PEM file that this user can read.")
}

/// Looks at as much of the server's certificate as `sslmode` says; that the server holds its key is always looked at.
#[derive(Debug)]
struct Verifier {
    check: Check,
    trusted: Vec<CertificateDer<'static>>,
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
        if self.check == Check::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        // A certificate that signed itself, as PostgreSQL's documentation makes one, stands in sslrootcert itself.
        if self.trusted.contains(end_entity) {
            if self.check == Check::AuthorityAndHost {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let Some(inner) = &self.inner else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.check == Check::Authority => Ok(ServerCertVerified::assertion()),
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

    #[test]
    fn keys_of_libpq() {
        let parse = |text: &str| Tls::parse(&crate::pg::follow::parse_conninfo(text).unwrap());
        assert_eq!(parse("host=a port=1"), Tls::default());
        assert_eq!(parse("sslmode=disable").mode, Mode::Disable);
        let full = parse("sslmode=verify-full sslrootcert='/c a' sslcert=/c sslkey=/k");
        assert_eq!((full.mode, full.check), (Mode::Require, Check::AuthorityAndHost));
        assert_eq!((full.authorities, full.own), (Some("/c a".into()), Some(("/c".into(), "/k".into()))));
        let missing = parse("sslmode=verify-ca").config().unwrap_err();
        assert!(missing.message.contains("sslrootcert is not set"), "{missing}");
        let unread = parse("sslmode=verify-ca sslrootcert=/none").config().unwrap_err();
        assert!(unread.message.contains("could not use sslrootcert \"/none\""), "{unread}");
        assert!(parse("sslcert=/none sslkey=/none").config().is_err());
        assert!(parse("sslmode=require").config().is_ok());
    }
}
