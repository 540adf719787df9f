//! PostgreSQL over TLS.

use std::path::Path;

use chaos::cluster::certificates::Authority;
use chaos::cluster::postgres::Postgres;
use chaos::cluster::scratch::Scratch;
use settle::config::Config;
use settle::sink::read::Snapshot;

/// Connects with these settings; the error as an operator reads it.
fn connect(url: &str, password: &Path, ca_file: Option<&Path>) -> Result<(), String> {
    let mut environment = vec![
        ("SETTLE_POSTGRES__URL".to_owned(), url.to_owned()),
        (
            "SETTLE_POSTGRES__PASSWORD_FILE".to_owned(),
            password.display().to_string(),
        ),
    ];
    if let Some(file) = ca_file {
        let path = file.display().to_string();
        environment.push(("SETTLE_POSTGRES__CA_FILE".to_owned(), path));
    }
    let config = Config::load(None, environment.into_iter());
    let config = config.map_err(|errors| errors.to_string())?;
    let taken = Snapshot::take(&config.postgres.unwrap());
    taken.map(drop).map_err(|error| error.to_string())
}

#[test]
fn the_database_is_believed_only_with_the_right_certificate() {
    let scratch = Scratch::new().unwrap();
    let postgres = Postgres::start(&scratch.path().join("postgres")).unwrap();
    let authority = Authority::new(&scratch.path().join("certificates"), "authority").unwrap();
    let other = Authority::new(&scratch.path().join("others"), "other").unwrap();
    let password = scratch.path().join("password");
    std::fs::write(&password, "let the service in\n").unwrap();
    let (right, wrong) = (Some(authority.file()), Some(other.file()));
    let serve = |name: &str, hosts: &[&str]| {
        let issued = authority.issue(name, hosts).unwrap();
        let password = "let the service in";
        postgres.serve_tls(&issued, "service", password).unwrap();
    };
    let url = |mode: &str| format!("postgres://service@{}/settle{mode}", postgres.address());
    let expect_refusal = |mode: &str, ca_file: Option<&Path>, words: &str| {
        let error = connect(&url(mode), &password, ca_file).unwrap_err();
        assert!(error.contains(words), "{mode}: {error}");
        assert!(!error.contains("let the service in"), "{error}");
    };

    serve("database", &["127.0.0.1"]);
    for mode in [
        "",
        "?sslmode=require",
        "?sslmode=verify-full",
        "?sslmode=verify-ca",
    ] {
        connect(&url(mode), &password, right).unwrap();
        expect_refusal(mode, wrong, "certificate verify failed");
    }
    // The system knows nothing of this authority.
    expect_refusal("?sslmode=verify-full", None, "certificate verify failed");
    for mode in ["", "?sslmode=prefer"] {
        connect(&url(mode), &password, None).unwrap();
    }
    expect_refusal("?sslmode=disable", None, "pg_hba.conf");
    expect_refusal("?sslmode=disable", right, "postgres.ca_file");
    expect_refusal("?sslmode=allow", None, "sslmode must be");

    serve("elsewhere", &["elsewhere.example"]);
    connect(&url("?sslmode=verify-ca"), &password, right).unwrap();
    for mode in ["", "?sslmode=require", "?sslmode=verify-full"] {
        expect_refusal(mode, right, "mismatch");
    }
    std::fs::write(&password, "another one\n").unwrap();
    expect_refusal(
        "?sslmode=verify-ca",
        right,
        "password authentication failed",
    );
}
