//! What is valid and yet worth a thought before it runs where money is.

use std::net::SocketAddr;

use super::Config;

pub fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |holds: bool, text: String| {
        if holds {
            warnings.push(text);
        }
    };
    let topics = &config.topics;
    warn(
        topics.create && topics.replication_factor == 1,
        "topics.replication_factor is 1: topics created so are lost with one broker".to_owned(),
    );
    warn(
        config.postgres.is_none(),
        "no [postgres]: runs without a database".to_owned(),
    );
    let http = &config.http;
    warn(
        http.token.is_none() && !http.listen.ip().is_loopback(),
        format!(
            "http.listen is {} and there is no http.token: everyone who reaches it may query",
            http.listen
        ),
    );
    warn(
        http.token.is_some() && http.tls.is_none() && !http.listen.ip().is_loopback(),
        format!(
            "http.listen is {} and there is no http.certificate_file: the token passes in the clear",
            http.listen
        ),
    );
    warn(
        http.advertise
            .parse()
            .is_ok_and(|address: SocketAddr| address.ip().is_unspecified() || address.port() == 0),
        format!(
            "http.advertise is {}: other instances cannot reach this one there",
            http.advertise
        ),
    );
    warn(
        http.generator,
        "http.generator is true: payments can be made up through HTTP".to_owned(),
    );
    warn(
        config.dedup.accept_shorter_window,
        "dedup.accept_shorter_window is true: repeats of what retention removed settle twice"
            .to_owned(),
    );
    let exclude = &config.exclude;
    warn(
        exclude.merchants.iter().any(|merchant| merchant == "*"),
        "exclude.merchants holds \"*\": nothing is settled".to_owned(),
    );
    let starred = exclude.test_merchants.iter().find(|it| it.ends_with('*'));
    warn(
        starred.is_some(),
        format!(
            "exclude.test_merchants holds {:?}: numbers are compared whole there, * is no prefix",
            starred.map_or("", String::as_str)
        ),
    );
    warnings
}
