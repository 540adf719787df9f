//! Secrets stand nowhere but in the files that hold them.

use std::path::{Path, PathBuf};

use chaos::cluster::certificates::{Authority, Issued};
use chaos::cluster::instance::{Instance, InstanceOptions};
use chaos::cluster::postgres::Postgres;
use chaos::cluster::wait;
use reqwest::Certificate;
use reqwest::blocking::{Client, RequestBuilder};
use settle::config::Config;

use crate::site::{LIMIT, Login, Site, cluster, grant, needed, password, settle, text};

const USER: &str = "user-39";
const TOKEN: &str = "token-that-nobody-must-see";
const DATABASE: &str = "database-password-that-nobody-must-see";
const RULES: &str = "rules-password-that-nobody-must-see";
/// `ruler:` and the password, as HTTP sends them.
const RULES_ENCODED: &str = "cnVsZXI6cnVsZXMtcGFzc3dvcmQtdGhhdC1ub2JvZHktbXVzdC1zZWU=";

/// A place with its text.
type Said = Vec<(String, String)>;

struct Parts {
    authority: Authority,
    issued: Issued,
    postgres: Postgres,
    directory: PathBuf,
}

impl Parts {
    fn start() -> Self {
        let directory = cluster().directory().join("secrets");
        let authority = Authority::new(&directory, "authority").unwrap();
        let issued = authority.issue("own", &["127.0.0.1"]).unwrap();
        let postgres = Postgres::start(&directory.join("postgres")).unwrap();
        postgres.serve_tls(&issued, "service", DATABASE).unwrap();
        Self {
            authority,
            issued,
            postgres,
            directory,
        }
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.directory.join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// Every secret there is, and logs that hold all that there is to say.
    fn options(&self, site: &Site, login: &Login) -> InstanceOptions {
        let rules = cluster().rules.url();
        let (_, rules) = rules.split_once("://").unwrap();
        let database = self.postgres.address();
        let path = |path: &Path| path.display().to_string();
        let noisy = login.clone().with("debug", "all").with("log_level", "7");
        site.instance(0, &noisy)
            .set("rules.url", format!("http://ruler:{RULES}@{rules}"))
            .set(
                "postgres.url",
                format!("postgres://service@{database}/settle"),
            )
            .set("postgres.password_file", self.file("database", DATABASE))
            .set("postgres.ca_file", path(self.authority.file()))
            .set("http.token_file", self.file("token", TOKEN))
            .set("http.certificate_file", path(&self.issued.certificate))
            .set("http.key_file", path(&self.issued.key))
            .set("http.ca_file", path(self.authority.file()))
            .env("RUST_LOG", "trace")
    }
}

/// Asks over HTTPS, with a token where there is one.
struct Asker<'a> {
    client: Client,
    instance: &'a Instance,
}

impl<'a> Asker<'a> {
    fn new(parts: &Parts, instance: &'a Instance) -> Self {
        let pem = std::fs::read(parts.authority.file()).unwrap();
        let client = Client::builder().add_root_certificate(Certificate::from_pem(&pem).unwrap());
        Self {
            client: client.build().unwrap(),
            instance,
        }
    }

    fn get(&self, path: &str, token: Option<&str>) -> Option<(u16, String)> {
        let url = format!("https://{}{path}", self.instance.address());
        let request = self.client.get(url);
        let request = token.into_iter().fold(request, RequestBuilder::bearer_auth);
        let answer = request.send().ok()?;
        Some((answer.status().as_u16(), answer.text().ok()?))
    }

    fn wait(&self) {
        wait::until("readiness over HTTPS", LIMIT, || {
            let instance = self.instance;
            assert!(instance.exit_status().is_none(), "{}", instance.tail());
            let answer = self.get("/readyz", None);
            Ok(answer.filter(|(status, _)| *status == 200))
        })
        .unwrap();
    }

    /// Until settlements are in the database.
    fn wait_for_rows(&self) {
        wait::until("rows in the database", LIMIT, || {
            let (_, metrics) = self.get("/metrics", None).unwrap();
            let is_row = |line: &&str| line.contains("table=\"settlement\"");
            let rows = metrics.lines().find(is_row);
            Ok(rows.filter(|line| !line.ends_with(" 0")).map(|_| ()))
        })
        .unwrap();
    }

    fn tell(&self, said: &mut Said) {
        assert_eq!(self.get("/api/status", None).unwrap().0, 401);
        // It may be busy with all that it logs.
        self.wait();
        for path in ["/api/status", "/metrics", "/readyz", "/livez"] {
            let (status, answer) = self.get(path, Some(TOKEN)).unwrap();
            assert_eq!(status, 200, "{path}");
            said.push((path.to_owned(), answer));
        }
        // What the kernel shows of the process to everybody.
        let arguments = format!("/proc/{}/cmdline", self.instance.pid());
        let arguments = std::fs::read_to_string(arguments).unwrap();
        said.push(("arguments".to_owned(), arguments));
    }
}

/// Commands, of which some fail over a secret.
fn tell_of_commands(options: &InstanceOptions, said: &mut Said) {
    let odd = format!("postgres://service:{DATABASE}@db:port/settle");
    let changed = |path: &str, value: &str| options.clone().set(path, value);
    let twice = changed("http.token", TOKEN).set("state.cash", 1);
    let odd_alone = changed("postgres.url", &odd).without("postgres.password_file");
    let mixed = changed("rules.url", &format!("htp://ruler:{RULES}@nowhere/"));
    for (arguments, options) in [
        (&["config", "dump"][..], options.clone()),
        (&["config", "check"], options.clone()),
        (&["verify"], options.clone()),
        (&["status"], options.clone()),
        (&["acls"], options.clone()),
        (&["config", "check"], twice),
        (&["config", "check"], changed("postgres.url", &odd)),
        (&["run"], odd_alone),
        (&["config", "check"], mixed),
    ] {
        let output = settle(&options, arguments);
        said.push((format!("{arguments:?}"), text(&output)));
    }
    let file = options.config_file();
    let written = toml::to_string(&options.config).unwrap();
    std::fs::write(&file, written).unwrap();
    let config = Config::load(Some(&file), std::iter::empty()).unwrap();
    said.push(("Debug".to_owned(), format!("{config:?}")));
}

#[test]
fn no_secret_is_printed_by_a_run_that_says_everything() {
    let site = Site::new("secrets");
    let parts = Parts::start();
    let login = Login::scram(USER);
    let options = parts.options(&site, &login);
    let rights = needed(&options, &login.principal);
    grant(&rights, &site.instance(0, &login));
    let instance = Instance::start(options.clone()).unwrap();
    let asker = Asker::new(&parts, &instance);
    asker.wait();
    site.send(1, 500);
    site.prove(&[], None);
    asker.wait_for_rows();

    let mut said = Said::new();
    asker.tell(&mut said);
    let ended = instance.terminate(LIMIT).unwrap();
    assert_eq!(ended.code(), Some(0), "{}", instance.tail());
    let log = std::fs::read_to_string(instance.log()).unwrap();
    assert!(
        log.contains("TRACE") && log.contains("SASL"),
        "it says little"
    );
    said.push(("log".to_owned(), log));
    tell_of_commands(&options, &mut said);

    let password = password(USER);
    for (place, text) in &said {
        for secret in [TOKEN, DATABASE, RULES, RULES_ENCODED, password.as_str()] {
            let line = text.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{place}: {line:?}");
        }
    }
}
