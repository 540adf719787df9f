//! Laws of loading: what wins, what is refused, what is printed.

use std::path::Path;
use std::time::Duration;

use super::{Config, Errors, Loaded, Users, default_file};

fn load(file: &str, environment: &[(&str, &str)]) -> Result<Loaded, Errors> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("settle.toml");
    std::fs::write(&path, file).unwrap();
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Loaded::load(Some(&path), environment, Users::NONE)
}

fn config(file: &str, environment: &[(&str, &str)]) -> Config {
    load(file, environment)
        .map_err(|errors| errors.to_string())
        .unwrap()
        .config
}

/// The problems without the directory of the file.
fn problems(file: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let errors = load(file, environment)
        .err()
        .expect("the configuration is refused");
    let strip = |problem: String| match problem.find("settle.toml") {
        Some(start) => problem[start..].to_owned(),
        None => problem,
    };
    errors
        .iter()
        .map(|problem| strip(problem.to_string()))
        .collect()
}

#[test]
fn without_a_file_the_defaults_hold() {
    let config = Config::load(None, std::iter::empty()).unwrap();
    assert_eq!(config.kafka.bootstrap_servers, "127.0.0.1:9092");
    assert_eq!(config.kafka.application_id, "settle");
    assert_eq!(config.kafka.instance_id, "settle-0");
    assert_eq!(config.topics.source, "payments");
    assert_eq!(
        config.topics.ingest_changelog,
        "settlement-ingest-changelog"
    );
    assert!(config.topics.create);
    assert_eq!(
        (config.topics.partitions, config.topics.replication_factor),
        (4, 1)
    );
    assert_eq!(
        (config.pipeline.workers, config.pipeline.max_batch_records),
        (1, 10_000)
    );
    assert_eq!(config.pipeline.commit_interval, Duration::from_millis(100));
    assert_eq!(config.dedup.window, Duration::from_secs(7 * 86_400));
    assert!(!config.dedup.accept_shorter_window);
    assert!(config.exclude.merchants.is_empty() && config.exclude.test_merchants.is_empty());
    assert_eq!(
        (config.state.directory.as_path(), config.state.cache),
        (Path::new("data"), 64 << 20)
    );
    assert_eq!(config.rules.url, "http://127.0.0.1:8090/payout-rules");
    assert_eq!(
        (
            config.rules.max_concurrent,
            config.rules.default_payout_days
        ),
        (64, 2)
    );
    assert_eq!(
        (config.rules.timeout, config.rules.absent_ttl),
        (Duration::from_secs(2), Duration::from_secs(60))
    );
    assert_eq!(config.postgres, None);
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(
        (config.http.advertise.as_str(), &config.http.token),
        ("127.0.0.1:8080", &None)
    );
    assert!(!config.http.generator);
    assert_eq!(
        (config.log.filter.as_str(), config.log.format.as_str()),
        ("info", "auto")
    );
    assert_eq!(config.shutdown.grace, Duration::from_secs(10));
}

#[test]
fn the_default_file_loads_and_equals_the_defaults() {
    assert_eq!(
        config(&default_file(), &[]),
        Config::load(None, std::iter::empty()).unwrap()
    );
}

#[test]
fn the_environment_wins_over_the_file() {
    let file = "[pipeline]\nworkers = 2\nmax_batch_records = 5\n[exclude]\nmerchants = [\"a\"]\n";
    let environment = [
        ("SETTLE_PIPELINE__WORKERS", "3"),
        ("SETTLE_EXCLUDE__MERCHANTS", "b,c*"),
        ("HOME", "/root"),
    ];
    let config = config(file, &environment);
    assert_eq!(
        (config.pipeline.workers, config.pipeline.max_batch_records),
        (3, 5)
    );
    assert_eq!(config.exclude.merchants, ["b", "c*"]);
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_their_places() {
    let file = "\
[kafka]
instance_id = \"a b\"
[kafka.properties]
acks = \"1\"
\"max.in.flight.requests.per.connection\" = 9
[topics]
bases = \"payments\"
[pipeline]
workers = \"two\"
commit_interval = \"soon\"
[state]
cache = 64
cash = 1
[http]
listen = \"here\"
";
    let environment = [
        ("SETTLE_RULES__URL", "ftp://x"),
        ("SETTLE_PIPELINE__MAX_BATCH_RECORDS", "0"),
    ];
    let starts = [
        "settle.toml:2: kafka.instance_id: must be 1 to 64",
        "settle.toml:4: kafka.properties.acks: cannot be set: ",
        "settle.toml:5: kafka.properties.max.in.flight.requests.per.connection: cannot be set: ",
        "settle.toml:7: topics.bases: \"payments\" is already topics.source",
        "settle.toml:9: pipeline.workers: must be an integer, not a string",
        "settle.toml:10: pipeline.commit_interval: must be a duration such as",
        "settle.toml:12: state.cache: must be a size in quotes",
        "settle.toml:13: state.cash: unknown key; did you mean state.cache?",
        "settle.toml:15: http.listen: must be an IP address and a port",
        "SETTLE_PIPELINE__MAX_BATCH_RECORDS: pipeline.max_batch_records: must be between 1 and 1000000, not 0",
        "SETTLE_RULES__URL: rules.url: must be a URL that begins with",
    ];
    let problems = problems(file, &environment);
    assert_eq!(problems.len(), starts.len(), "{problems:#?}");
    for (problem, start) in problems.iter().zip(starts) {
        assert!(problem.starts_with(start), "{problem}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let errors =
        Config::load(Some(Path::new("/nowhere/settle.toml")), std::iter::empty()).unwrap_err();
    assert!(
        errors
            .to_string()
            .contains("/nowhere/settle.toml: cannot be read: "),
        "{errors}"
    );
}

#[test]
fn the_address_for_others_follows_the_one_listened_on() {
    assert_eq!(
        config("[http]\nlisten = \"10.0.0.1:99\"\n", &[])
            .http
            .advertise,
        "10.0.0.1:99"
    );
    let file = "[http]\nlisten = \"0.0.0.0:99\"\nadvertise = \"settle-0.settle:99\"\n";
    assert_eq!(config(file, &[]).http.advertise, "settle-0.settle:99");
}

#[test]
fn an_empty_postgres_table_is_refused() {
    let problems = problems("[postgres]\n", &[]);
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("settle.toml:1: postgres.url: is missing"),
        "{problems:?}"
    );
    let environment = [("SETTLE_POSTGRES__URL", "postgres://a@b/c")];
    assert_eq!(
        config("[postgres]\n", &environment)
            .postgres
            .unwrap()
            .url
            .expose(),
        "postgres://a@b/c"
    );
}

#[test]
fn a_secret_can_stand_in_a_file_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, "hunter2\n").unwrap();
    let path = path.display();
    let file = format!(
        "[http]\ntoken_file = \"{path}\"\n[kafka.properties]\n\"sasl.password_file\" = \"{path}\"\n"
    );
    let config = config(&file, &[]);
    assert_eq!(config.http.token.unwrap().expose(), "hunter2");
    assert_eq!(
        config.kafka.properties.get("sasl.password"),
        Some("hunter2")
    );
}

#[test]
fn a_secret_is_not_given_twice() {
    let file = "[http]\ntoken = \"a\"\ntoken_file = \"/b\"\n[kafka.properties]\nsasl.password = \"a\"\nsasl.password_file = \"/b\"\n";
    let problems = problems(file, &[]);
    assert_eq!(
        problems,
        [
            "settle.toml:3: http.token_file: give either http.token or http.token_file, not both",
            "settle.toml:6: kafka.properties.sasl.password_file: give either kafka.properties.sasl.password or \
             kafka.properties.sasl.password_file, not both",
        ]
    );
}

#[test]
fn an_empty_secret_is_refused_and_an_empty_path_is_none() {
    assert_eq!(config("[http]\ntoken_file = \"\"\n", &[]).http.token, None);
    assert_eq!(problems("", &[("SETTLE_HTTP__TOKEN", "")]).len(), 1);
    assert_eq!(problems("", &[("SETTLE_POSTGRES__URL", "")]).len(), 1);
    assert!(
        problems("[http]\ntoken_file = \"/nowhere/token\"\n", &[])[0]
            .contains("/nowhere/token cannot be read")
    );
}

#[test]
fn halves_and_contradictions_are_refused_all_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("some.pem");
    std::fs::write(&path, "some").unwrap();
    let some = path.display();
    let file = format!(
        "[postgres]\nurl = \"postgres://a:hunter2@b/c?sslmode=disable\"\npassword = \"hunter2\"\nca_file = \"{some}\"\n\
         [http]\nkey_file = \"{some}\"\nca_file = \"/nowhere/ca.pem\"\n"
    );
    let problems = problems(&file, &[]);
    assert_eq!(
        problems,
        [
            "settle.toml:3: postgres.password: the URL holds a password too; give one",
            "settle.toml:4: postgres.ca_file: sslmode in the URL says that no certificate is checked; leave it out, or \
             set verify-full",
            "settle.toml:6: http.key_file: needs http.certificate_file, which is not set",
            "settle.toml:7: http.ca_file: /nowhere/ca.pem cannot be read: No such file or directory (os error 2)",
        ]
    );
    let alone = [("SETTLE_POSTGRES__PASSWORD", "hunter2")];
    let alone = load("", &alone).err().unwrap().to_string();
    assert!(
        alone.contains("postgres.password: needs postgres.url"),
        "{alone}"
    );
    assert!(!alone.contains("hunter2"), "{alone}");
}

#[test]
fn properties_come_from_the_environment_too() {
    let file = "[kafka.properties]\nsession.timeout.ms = 9000\nlinger.ms = 1\n";
    let config = config(
        file,
        &[("SETTLE_KAFKA__PROPERTIES__SESSION_TIMEOUT_MS", "7000")],
    );
    assert_eq!(
        config.kafka.properties.session_timeout(),
        Duration::from_secs(7)
    );
    let pairs: Vec<_> = config.kafka.properties.iter().collect();
    assert_eq!(pairs, [("linger.ms", "1"), ("session.timeout.ms", "7000")]);
}

#[test]
fn the_dump_shows_origins_and_no_secrets() {
    let file = "\
[kafka.properties]
sasl.password = \"hunter2\"
sasl.username = \"settle\"
[postgres]
url = \"postgres://settle:hunter2@127.0.0.1/settle\"
[rules]
url = \"http://settle:hunter2@127.0.0.1/rules\"
";
    let dump = load(
        file,
        &[
            ("SETTLE_HTTP__TOKEN", "hunter2"),
            ("SETTLE_PIPELINE__WORKERS", "2"),
        ],
    )
    .ok()
    .unwrap()
    .dump();
    assert!(!dump.contains("hunter2"), "{dump}");
    assert!(
        dump.contains("workers = 2 # SETTLE_PIPELINE__WORKERS\n"),
        "{dump}"
    );
    assert!(
        dump.contains("commit_interval = \"100ms\" # default\n"),
        "{dump}"
    );
    assert!(dump.contains("\"sasl.username\" = \"settle\" # "), "{dump}");
    assert!(
        dump.contains("settle.toml:5\n") && dump.contains("***@127.0.0.1"),
        "{dump}"
    );
    assert!(toml::from_str::<toml::Table>(&dump).is_ok(), "{dump}");
}

#[test]
fn a_dump_without_secrets_loads_to_the_same_configuration() {
    let loaded = load(
        "[pipeline]\nworkers = 2\n[exclude]\nmerchants = [\"a\", \"b*\"]\n",
        &[],
    )
    .ok()
    .unwrap();
    assert_eq!(config(&loaded.dump(), &[]), loaded.config);
}

#[test]
fn a_star_among_test_merchants_is_no_prefix_and_is_warned_of() {
    let warned = |file: &str| {
        let warnings = load(file, &[]).ok().unwrap().warnings();
        let of_merchants = warnings.into_iter().filter(|it| it.contains("exclude."));
        of_merchants.collect::<Vec<_>>()
    };
    assert!(warned("[exclude]\nmerchants = [\"a*\"]\ntest_merchants = [\"b\"]\n").is_empty());
    assert_eq!(
        warned("[exclude]\nmerchants = [\"*\"]\n"),
        ["exclude.merchants holds \"*\": nothing is settled"]
    );
    assert_eq!(
        warned("[exclude]\ntest_merchants = [\"b\", \"*\"]\n"),
        ["exclude.test_merchants holds \"*\": numbers are compared whole there, * is no prefix"]
    );
}

#[test]
fn a_line_that_cannot_be_read_hides_no_other_mistake() {
    let file = "[pipeline]\nworkers = \ncommit_interval = \"soon\"\n\n[postgres]\nurl = \"\npassword = \"a\"\n\n[kafak]\n";
    let problems = problems(file, &[("SETTLE_RULES__TIMEOUT", "2")]);
    let places: Vec<_> = problems
        .iter()
        .map(|problem| problem.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "settle.toml:2",
            "settle.toml:3",
            "settle.toml:6",
            "settle.toml:9",
            "SETTLE_RULES__TIMEOUT"
        ],
        "{problems:#?}"
    );
}
