//! What the text of a value must look like. Each check says what it wants, so that the message stands alone.

use std::net::SocketAddr;

/// Says what is wrong with a text, or nothing.
pub type Check = fn(&str) -> Result<(), String>;

const LONGEST_IDENTIFIER: usize = 64;
const LONGEST_ADDRESS: usize = 128;
const LONGEST_TOPIC: usize = 249;
const LONGEST_MERCHANT: usize = 64;

fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Part of group names, transactional ids and client ids.
pub fn identifier(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > LONGEST_IDENTIFIER || !is_plain(text) {
        return Err(format!(
            "must be 1 to {LONGEST_IDENTIFIER} of the characters A-Z a-z 0-9 . _ -, not {text:?}"
        ));
    }
    Ok(())
}

pub fn topic(text: &str) -> Result<(), String> {
    if text.is_empty()
        || text.len() > LONGEST_TOPIC
        || !is_plain(text)
        || text == "."
        || text == ".."
    {
        return Err(format!(
            "must be a topic name, 1 to {LONGEST_TOPIC} of the characters A-Z a-z 0-9 . _ -, not {text:?}"
        ));
    }
    Ok(())
}

/// `host:port` with a name, an IPv4 address or an IPv6 address in brackets.
pub fn host_and_port(text: &str) -> Result<(), String> {
    let wrong =
        || format!("must be host:port, such as \"127.0.0.1:8080\" or \"[::1]:8080\", not {text:?}");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port_fits = port.parse::<u16>().is_ok();
    let host_fits = match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && is_plain(host),
    };
    if port_fits && host_fits && text.len() <= LONGEST_ADDRESS {
        Ok(())
    } else {
        Err(wrong())
    }
}

/// A comma separated list of `host:port`, each with a protocol in front (`SASL_SSL://`) where wanted.
pub fn brokers(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("must name at least one broker, such as \"127.0.0.1:9092\"".to_owned());
    }
    for broker in text.split(',') {
        let address = broker
            .split_once("://")
            .map_or(broker, |(_, address)| address)
            .trim();
        host_and_port(address).map_err(|_| {
            format!("must be a comma separated list of host:port, such as \"127.0.0.1:9092\"; {broker:?} is not one")
        })?;
    }
    Ok(())
}

pub fn listen(text: &str) -> Result<(), String> {
    text.parse::<SocketAddr>().map(|_| ()).map_err(|_| {
        format!("must be an IP address and a port, such as \"127.0.0.1:8080\", not {text:?}")
    })
}

pub fn http_url(text: &str) -> Result<(), String> {
    match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(()),
        Ok(_) => Err("must be a URL that begins with http:// or https://".to_owned()),
        Err(error) => Err(format!(
            "must be a URL such as \"http://127.0.0.1:8090/payout-rules\": {error}"
        )),
    }
}

/// The value is a secret: the message never repeats it.
pub fn postgres_url(text: &str) -> Result<(), String> {
    let rest = text
        .strip_prefix("postgres://")
        .or_else(|| text.strip_prefix("postgresql://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => {
            super::postgres::check(text)
        }
        _ => Err(
            "must be a URL such as \"postgres://user:password@127.0.0.1:5432/database\"".to_owned(),
        ),
    }
}

/// The value is a secret: the message never repeats it.
pub fn token(text: &str) -> Result<(), String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must be visible ASCII characters without spaces, at least one".to_owned());
    }
    Ok(())
}

/// The value is a secret: the message never repeats it.
pub fn password(text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains('\0') {
        return Err("must be a password, not empty".to_owned());
    }
    Ok(())
}

/// A file that is there and can be read.
pub fn file(text: &str) -> Result<(), String> {
    match std::fs::File::open(text).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_dir() => Err(format!("{text} is a directory")),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{text} cannot be read: {error}")),
    }
}

pub fn path(text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains('\0') {
        return Err("must be a path".to_owned());
    }
    Ok(())
}

/// Whether it is a filter is known to the library alone.
pub fn log_filter(text: &str) -> Result<(), String> {
    if text.contains(char::is_control) {
        return Err("must be one line".to_owned());
    }
    Ok(())
}

pub fn log_format(text: &str) -> Result<(), String> {
    match text {
        "auto" | "text" | "json" => Ok(()),
        _ => Err(format!("must be auto, text or json, not {text:?}")),
    }
}

/// A merchant number, or its beginning followed by `*`.
pub fn merchant(text: &str) -> Result<(), String> {
    let number = text.strip_suffix('*').unwrap_or(text);
    let odd = |character: char| character == '/' || character == '*' || character.is_control();
    if text.is_empty() || number.len() > LONGEST_MERCHANT || number.contains(odd) {
        return Err(format!(
            "must hold merchant numbers of 1 to {LONGEST_MERCHANT} bytes without / or control characters, \
             or the beginning of one with * at its end; {text:?} is neither"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{brokers, host_and_port, http_url, identifier, merchant, postgres_url, topic};

    #[test]
    fn identifiers_are_plain_and_bounded() {
        assert!(identifier("settle-0_a.b").is_ok());
        for wrong in ["", "a b", "a/b", "é", &"x".repeat(65)] {
            assert!(identifier(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn topic_names_are_those_kafka_allows() {
        assert!(topic("settlement-bases").is_ok());
        for wrong in ["", ".", "..", "a b", &"x".repeat(250)] {
            assert!(topic(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for right in [
            "localhost:80",
            "127.0.0.1:0",
            "[::1]:9092",
            "kafka-0.kafka:9092",
        ] {
            assert!(host_and_port(right).is_ok(), "{right}");
        }
        for wrong in ["", "localhost", ":80", "a:b", "a:70000", "::1:80", "[x]:1"] {
            assert!(host_and_port(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn several_brokers_are_separated_by_commas() {
        assert!(brokers("a:1,b:2, c:3").is_ok());
        assert!(brokers("SASL_SSL://a:1").is_ok());
        assert!(brokers("a:1,,b:2").is_err());
        assert!(brokers("  ").is_err());
    }

    #[test]
    fn urls_need_the_right_scheme() {
        assert!(http_url("https://rules.example/v1").is_ok());
        assert!(http_url("ftp://rules.example").is_err());
        assert!(http_url("rules.example").is_err());
        assert!(postgres_url("postgresql://a@b/c").is_ok());
        let message = postgres_url("mysql://root:hunter2@b/c").unwrap_err();
        assert!(!message.contains("hunter2"));
    }

    #[test]
    fn a_star_stands_only_at_the_end_of_a_merchant() {
        assert!(merchant("merchant-1").is_ok());
        assert!(merchant("test-*").is_ok());
        assert!(merchant("te*st").is_err());
        assert!(merchant("a/b").is_err());
        assert!(merchant("").is_err());
    }
}
