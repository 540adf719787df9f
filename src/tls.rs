//! Transport security of the service's own connections: to PostgreSQL, and of HTTP. The only place
//! that names native-tls. Kafka's is librdkafka's (`kafka.properties`).

use std::path::Path;

use native_tls::{Certificate, Identity, TlsAcceptor, TlsConnector};

/// What a client asks of a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Nothing: nobody can listen in, but anybody can answer.
    Nothing,
    /// That a trusted authority signed it.
    Authority,
    /// That it is for the name or address that was asked for, too.
    AuthorityAndHost,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {file}: {error}")]
    File { file: String, error: std::io::Error },
    #[error("{file} holds no certificate in PEM")]
    NoCertificate { file: String },
    #[error(
        "{certificate} and {key} are no certificate with its key, both in PEM, the key in PKCS #8: {error}"
    )]
    Identity {
        certificate: String,
        key: String,
        error: native_tls::Error,
    },
    #[error("make ready for TLS: {0}")]
    Library(#[from] native_tls::Error),
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|error| Error::File {
        file: file.display().to_string(),
        error,
    })
}

/// The client's side. With a file of authorities those are trusted and no others, else those of the
/// system.
pub fn connector(check: Check, authorities: Option<&Path>) -> Result<TlsConnector, Error> {
    let mut builder = TlsConnector::builder();
    if let Some(file) = authorities {
        let no_certificate = || Error::NoCertificate {
            file: file.display().to_string(),
        };
        let certificates = Certificate::stack_from_pem(&read(file)?);
        let certificates = certificates.map_err(|_| no_certificate())?;
        if certificates.is_empty() {
            return Err(no_certificate());
        }
        builder.disable_built_in_roots(true);
        for certificate in certificates {
            builder.add_root_certificate(certificate);
        }
    }
    builder
        .danger_accept_invalid_certs(check == Check::Nothing)
        .danger_accept_invalid_hostnames(check != Check::AuthorityAndHost);
    Ok(builder.build()?)
}

/// The server's side: a certificate with the chain behind it, and its key.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, Error> {
    let identity = Identity::from_pkcs8(&read(certificate)?, &read(key)?);
    let identity = identity.map_err(|error| Error::Identity {
        certificate: certificate.display().to_string(),
        key: key.display().to_string(),
        error,
    })?;
    Ok(TlsAcceptor::new(identity)?)
}
