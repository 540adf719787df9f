//! Every way into the cluster, with exactly the rights that `settle acls` prints.

use chaos::cluster::certificates::Authority;
use chaos::cluster::instance::Instance;

use crate::site::{LIMIT, Login, Site, cluster, grant, needed, settle, text};

/// Two instances settle a day with the rights of `settle acls`, and the tools work with them.
fn settles(name: &str, login: &Login) {
    let site = Site::new(name);
    let database = site.database();
    let options = |index| {
        site.instance(index, login)
            .set("postgres.url", database.as_str())
    };
    grant(&needed(&options(0), &login.principal), &options(0));
    let start = |index| Instance::start(options(index)).unwrap();
    let mut instances = vec![start(0), start(1)];
    for instance in &instances {
        instance.wait_ready(LIMIT).unwrap();
    }
    site.send(1, 3000);
    // Who takes over looks into every topic.
    instances[0].restart().unwrap();
    instances[0].wait_ready(LIMIT).unwrap();
    site.send(2, 1000);
    site.prove(&instances, Some(database.clone()));
    for arguments in [
        &["topics", "plan"][..],
        &["verify"],
        &["dead-letters", "list"],
    ] {
        let output = settle(&options(0), arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    }
}

#[test]
fn a_name_and_a_password_let_the_service_in() {
    settles("scram", &Login::scram("user-0"));
}

#[test]
fn a_certificate_lets_the_service_in() {
    settles("mtls", &Login::certificate("settle-by-certificate"));
}

#[test]
fn a_token_lets_the_service_in() {
    settles("token", &Login::token("settle-by-token"));
}

/// How the process ends that logs in so, and what it says.
fn refused(login: &Login, code: i32, words: &[&str]) {
    let site = Site::new("refused");
    let output = settle(&site.instance(0, login), &["run"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn a_wrong_password_is_told_at_once() {
    let other = Login::scram("user-2");
    let login = Login::scram("user-1")
        .without("sasl.password_file")
        .with("sasl.password", "none of the passwords");
    refused(&login, 77, &["log in", "credentials"]);
    // Whose password it is decides.
    let mixed = other.with("sasl.username", "user-1");
    refused(&mixed, 77, &["log in", "credentials"]);
}

#[test]
fn a_broker_that_another_authority_signed_is_not_believed() {
    let other = Authority::new(&cluster().directory().join("other"), "other").unwrap();
    let file = other.file().to_str().unwrap();
    for login in [Login::scram("user-1"), Login::certificate("believer")] {
        refused(&login.with("ssl.ca.location", file), 69, &["certificate"]);
    }
}

#[test]
fn a_client_without_a_certificate_or_with_one_of_another_authority_stays_out() {
    let login = Login::certificate("stranger");
    let without = login
        .clone()
        .without("ssl.certificate.location")
        .without("ssl.key.location");
    refused(&without, 69, &["certificate"]);
    let other = Authority::new(&cluster().directory().join("forger"), "forger").unwrap();
    let forged = other.issue("stranger", &[]).unwrap();
    let forged = login
        .with(
            "ssl.certificate.location",
            forged.certificate.to_str().unwrap(),
        )
        .with("ssl.key.location", forged.key.to_str().unwrap());
    refused(&forged, 69, &[]);
}
