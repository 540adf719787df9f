//! Listeners of a broker with TLS, mutual TLS and SASL, and the access rights that hold there.
//!
//! The plain listener stays as it is: whoever comes through it is the super user, which makes it
//! the door of the test itself.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use crate::cluster::certificates::{Authority, Issued};
use crate::cluster::ports;

/// How a secured cluster is made.
#[derive(Debug, Clone, Default)]
pub struct Security {
    /// Name and password of those who log in with SCRAM-SHA-512.
    pub users: Vec<(String, String)>,
}

/// Ports of the secured listeners of a broker.
#[derive(Debug, Clone, Copy)]
pub struct SecuredPorts {
    pub sasl: u16,
    pub tls: u16,
}

impl SecuredPorts {
    pub(super) fn free() -> Result<Self> {
        Ok(Self {
            sasl: ports::free()?,
            tls: ports::free()?,
        })
    }
}

/// The secured side of a running cluster.
#[derive(Debug)]
pub struct Secured {
    /// Who signed the brokers' certificate, and whose certificates they accept from clients.
    pub authority: Authority,
    /// `SASL_SSL`: SCRAM-SHA-512 and OAUTHBEARER with unsecured tokens.
    pub sasl: String,
    /// `SSL`: a client must show a certificate; its principal is `User:CN=<name>`.
    pub tls: String,
    broker: Issued,
}

impl Secured {
    pub(super) fn new(directory: &Path, ports: &[SecuredPorts]) -> Result<Self> {
        let authority = Authority::new(&directory.join("certificates"), "authority")?;
        let broker = authority.issue("broker", &["localhost", "127.0.0.1"])?;
        let addresses = |port: fn(&SecuredPorts) -> u16| {
            let addresses = ports.iter().map(|of| format!("127.0.0.1:{}", port(of)));
            addresses.collect::<Vec<_>>().join(",")
        };
        Ok(Self {
            sasl: addresses(|ports| ports.sasl),
            tls: addresses(|ports| ports.tls),
            authority,
            broker,
        })
    }

    /// What a broker's properties hold besides the plain ones.
    pub(super) fn properties(&self, ports: SecuredPorts) -> BTreeMap<String, String> {
        let listeners = format!(
            "SASL_SSL://127.0.0.1:{},SSL://127.0.0.1:{}",
            ports.sasl, ports.tls
        );
        let store = self.broker.store.display().to_string();
        let trusted = self.authority.file().display().to_string();
        let pairs = [
            ("listeners", listeners.as_str()),
            ("advertised.listeners", &listeners),
            (
                "listener.security.protocol.map",
                "SASL_SSL:SASL_SSL,SSL:SSL",
            ),
            ("ssl.keystore.type", "PEM"),
            ("ssl.keystore.location", &store),
            ("ssl.truststore.type", "PEM"),
            ("ssl.truststore.location", &trusted),
            ("listener.name.ssl.ssl.client.auth", "required"),
            ("sasl.enabled.mechanisms", "SCRAM-SHA-512,OAUTHBEARER"),
            (
                "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config",
                "org.apache.kafka.common.security.scram.ScramLoginModule required;",
            ),
            (
                "listener.name.sasl_ssl.oauthbearer.sasl.jaas.config",
                "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
                 unsecuredLoginStringClaim_sub=\"broker\";",
            ),
            (
                "listener.name.sasl_ssl.oauthbearer.sasl.server.callback.handler.class",
                "org.apache.kafka.common.security.oauthbearer.internals.unsecured.\
                 OAuthBearerUnsecuredValidatorCallbackHandler",
            ),
            (
                "listener.name.sasl_ssl.oauthbearer.sasl.login.callback.handler.class",
                "org.apache.kafka.common.security.oauthbearer.internals.unsecured.\
                 OAuthBearerUnsecuredLoginCallbackHandler",
            ),
            (
                "authorizer.class.name",
                "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            ),
            ("super.users", "User:ANONYMOUS"),
        ];
        pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }
}

impl Security {
    /// Arguments of the storage tool that make the users known.
    pub(super) fn format_arguments(&self) -> Vec<String> {
        let users = self.users.iter();
        users
            .flat_map(|(name, password)| {
                let user = format!("SCRAM-SHA-512=[name={name},password={password}]");
                ["--add-scram".to_owned(), user]
            })
            .collect()
    }
}
