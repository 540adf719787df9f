//! Secrets stand nowhere but in the files that hold them.

use std::path::PathBuf;

use chaos::cluster::certificates::Authority;
use chaos::cluster::instance::Instance;
use chaos::cluster::postgres::Postgres;
use chaos::cluster::wait;
use reqwest::Certificate;
use reqwest::blocking::Client;
use settle::config::Config;

use crate::site::{LIMIT, Login, Site, cluster, grant, needed, password, settle, text};

const TOKEN: &str = "token-that-nobody-must-see";
const DATABASE: &str = "database-password-that-nobody-must-see";
const RULES: &str = "rules-password-that-nobody-must-see";
/// `ruler:` and the password, as HTTP sends them.
const RULES_ENCODED: &str = "cnVsZXI6cnVsZXMtcGFzc3dvcmQtdGhhdC1ub2JvZHktbXVzdC1zZWU=";

#[test]
fn no_secret_is_printed_by_a_run_that_says_everything() {
    let site = Site::new("secrets");
    let directory = cluster().directory().join("secrets");
    let authority = Authority::new(&directory, "authority").unwrap();
    let issued = authority.issue("own", &["127.0.0.1"]).unwrap();
    let postgres = Postgres::start(&directory.join("postgres")).unwrap();
    postgres.serve_tls(&issued, "service", DATABASE).unwrap();
    let file = |name: &str, content: &str| -> String {
        let path: PathBuf = directory.join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let login = Login::scram("user-39");
    let rules = cluster().rules.url();
    let (_, rules) = rules.split_once("://").unwrap();
    let path = |path: &std::path::Path| path.display().to_string();
    let options = site
        .instance(
            0,
            &login.clone().with("debug", "all").with("log_level", "7"),
        )
        .set("rules.url", format!("http://ruler:{RULES}@{rules}"))
        .set(
            "postgres.url",
            format!("postgres://service@{}/settle", postgres.address()),
        )
        .set("postgres.password_file", file("database", DATABASE))
        .set("postgres.ca_file", path(authority.file()))
        .set("http.token_file", file("token", TOKEN))
        .set("http.certificate_file", path(&issued.certificate))
        .set("http.key_file", path(&issued.key))
        .set("http.ca_file", path(authority.file()))
        .env("RUST_LOG", "trace");
    let quiet = site.instance(0, &login);
    grant(&needed(&options, &login.principal), &quiet);

    let instance = Instance::start(options.clone()).unwrap();
    let pem = std::fs::read(authority.file()).unwrap();
    let client = Client::builder()
        .add_root_certificate(Certificate::from_pem(&pem).unwrap())
        .build()
        .unwrap();
    let get = |path: &str, token: Option<&str>| {
        let request = client.get(format!("https://{}{path}", instance.address()));
        let request = token
            .into_iter()
            .fold(request, |request, token| request.bearer_auth(token));
        let answer = request.send().ok()?;
        Some((answer.status().as_u16(), answer.text().ok()?))
    };
    wait::until("readiness over HTTPS", LIMIT, || {
        assert!(instance.exit_status().is_none(), "{}", instance.tail());
        Ok(get("/readyz", None).filter(|(status, _)| *status == 200))
    })
    .unwrap();
    site.send(1, 500);
    site.prove(&[], None);
    wait::until("rows in the database", LIMIT, || {
        let (_, metrics) = get("/metrics", None).unwrap();
        let rows = metrics
            .lines()
            .filter(|line| line.contains("table=\"settlement\""));
        Ok(rows
            .last()
            .is_some_and(|line| !line.ends_with(" 0"))
            .then_some(()))
    })
    .unwrap();

    let mut said: Vec<(String, String)> = Vec::new();
    assert_eq!(get("/api/status", None).unwrap().0, 401);
    for path in ["/api/status", "/metrics", "/readyz", "/livez"] {
        let (status, answer) = get(path, Some(TOKEN)).unwrap();
        assert_eq!(status, 200, "{path}");
        said.push((path.to_owned(), answer));
    }
    // What the kernel shows of the process to everybody.
    let cmdline = format!("/proc/{}/cmdline", instance.pid());
    said.push(("argv".to_owned(), std::fs::read_to_string(cmdline).unwrap()));
    assert_eq!(
        instance.terminate(LIMIT).unwrap().code(),
        Some(0),
        "{}",
        instance.tail()
    );
    let log = std::fs::read_to_string(instance.log()).unwrap();
    assert!(
        log.contains("TRACE") && log.contains("SASL"),
        "it says little"
    );
    said.push(("log".to_owned(), log));

    for (arguments, options) in [
        (&["config", "dump"][..], options.clone()),
        (&["config", "check"], options.clone()),
        (&["verify"], options.clone()),
        (
            &["config", "check"],
            options
                .clone()
                .set("http.token", TOKEN)
                .set("state.cash", 1),
        ),
        (
            &["config", "check"],
            options.clone().set(
                "postgres.url",
                format!("postgres://service:{DATABASE}@db:port/x"),
            ),
        ),
        (
            &["run"],
            options
                .clone()
                .set(
                    "postgres.url",
                    format!("postgres://service:{DATABASE}@db:port/x"),
                )
                .without("postgres.password_file"),
        ),
        (
            &["run"],
            options.clone().set(
                "rules.url",
                format!("http://ruler:{RULES}@nowhere.invalid:0/x y"),
            ),
        ),
    ] {
        let output = settle(&options, arguments);
        said.push((format!("{arguments:?}"), text(&output)));
    }
    let config = Config::load(Some(&options.config_file()), std::iter::empty());
    said.push(("Debug".to_owned(), format!("{config:?}")));

    let password = password("user-39");
    for (place, text) in &said {
        for secret in [TOKEN, DATABASE, RULES, RULES_ENCODED, password.as_str()] {
            let line = text.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{place}: {line:?}");
        }
    }
}
