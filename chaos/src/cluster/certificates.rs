//! A certificate authority, and what it signs: made for one test, valid for a day.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};

/// Signs certificates. Its own is `<directory>/<name>.pem`.
#[derive(Debug)]
pub struct Authority {
    certificate: X509,
    key: PKey<Private>,
    directory: PathBuf,
    file: PathBuf,
}

/// A certificate and its key, each in a PEM file.
#[derive(Debug, Clone)]
pub struct Issued {
    pub certificate: PathBuf,
    /// PKCS #8, not encrypted.
    pub key: PathBuf,
    /// Both in one file, the key first, as Kafka wants a key store.
    pub store: PathBuf,
}

impl Authority {
    /// Makes one that keeps its files in `directory`.
    pub fn new(directory: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        let key = key()?;
        let subject = subject(name)?;
        let mut builder = builder(&subject, &subject, &key)?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().build()?)?;
        builder.sign(&key, MessageDigest::sha256())?;
        let certificate = builder.build();
        let file = directory.join(format!("{name}.pem"));
        fs::write(&file, certificate.to_pem()?)?;
        Ok(Self {
            certificate,
            key,
            directory: directory.to_owned(),
            file,
        })
    }

    /// Its own certificate, in PEM.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Signs a certificate of `CN=<name>` for these host names and addresses. A server with the
    /// keys in its files must be able to read them: everybody may.
    pub fn issue(&self, name: &str, hosts: &[&str]) -> Result<Issued> {
        let key = key()?;
        let subject = subject(name)?;
        let mut builder = builder(&subject, self.certificate.subject_name(), &key)?;
        if !hosts.is_empty() {
            let mut names = SubjectAlternativeName::new();
            for host in hosts {
                match host.parse::<IpAddr>() {
                    Ok(_) => names.ip(host),
                    Err(_) => names.dns(host),
                };
            }
            let context = builder.x509v3_context(Some(&self.certificate), None);
            let extension = names.build(&context)?;
            builder.append_extension(extension)?;
        }
        builder.sign(&self.key, MessageDigest::sha256())?;
        let certificate = builder.build().to_pem()?;
        let key = key.private_key_to_pem_pkcs8()?;
        let file = |ending: &str| self.directory.join(format!("{name}.{ending}"));
        let issued = Issued {
            certificate: file("crt"),
            key: file("key"),
            store: file("store"),
        };
        fs::write(&issued.certificate, &certificate)?;
        fs::write(&issued.key, &key)?;
        fs::write(&issued.store, [key, certificate].concat())?;
        Ok(issued)
    }
}

fn key() -> Result<PKey<Private>> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    Ok(PKey::from_ec_key(EcKey::generate(&group)?)?)
}

fn subject(name: &str) -> Result<X509Name> {
    let mut builder = X509NameBuilder::new()?;
    builder.append_entry_by_nid(Nid::COMMONNAME, name)?;
    Ok(builder.build())
}

fn builder(
    subject: &openssl::x509::X509NameRef,
    issuer: &openssl::x509::X509NameRef,
    key: &PKey<Private>,
) -> Result<X509Builder> {
    const VERSION_3: i32 = 2;
    let mut serial = BigNum::new()?;
    serial.rand(64, MsbOption::MAYBE_ZERO, false)?;
    let mut builder = X509::builder()?;
    builder.set_version(VERSION_3)?;
    builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
    builder.set_not_after(Asn1Time::days_from_now(1)?.as_ref())?;
    Ok(builder)
}
