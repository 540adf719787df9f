//! How the database is reached: the URL, what stands beside it, and what `sslmode` means.

use std::path::PathBuf;

use super::secret::Secret;

/// What `sslmode` in the URL asks for. As libpq has it, but `require` checks the certificate too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    Disable,
    /// TLS when the server offers it, whoever the server is.
    Prefer,
    VerifyCa,
    VerifyFull,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postgres {
    /// Without `sslmode`.
    pub url: Secret,
    /// Instead of one in the URL.
    pub password: Option<Secret>,
    pub tls: TlsMode,
    /// Trusted authorities, in PEM; those of the system when there is none.
    pub ca_file: Option<PathBuf>,
}

impl Postgres {
    /// From a URL that passed [`check`].
    pub fn new(url: &str, password: Option<Secret>, ca_file: Option<PathBuf>) -> Self {
        let (rest, mode) = split(url).expect("checked when read");
        let default = match ca_file {
            Some(_) => TlsMode::VerifyFull,
            None => TlsMode::Prefer,
        };
        Self {
            url: Secret::new(rest),
            password,
            tls: mode.unwrap_or(default),
            ca_file,
        }
    }

    /// A database that is reached by its URL alone.
    pub fn at(url: &str) -> Self {
        Self::new(url, None, None)
    }
}

/// The URL without `sslmode`, and what that says. The error never repeats the URL.
fn split(url: &str) -> Result<(String, Option<TlsMode>), String> {
    let Some((base, query)) = url.split_once('?') else {
        return Ok((url.to_owned(), None));
    };
    let mut mode = None;
    let mut rest = Vec::new();
    for pair in query.split('&') {
        match pair.strip_prefix("sslmode=") {
            None => rest.push(pair),
            Some("disable") => mode = Some(TlsMode::Disable),
            Some("prefer") => mode = Some(TlsMode::Prefer),
            Some("verify-ca") => mode = Some(TlsMode::VerifyCa),
            Some("require" | "verify-full") => mode = Some(TlsMode::VerifyFull),
            Some(_) => {
                return Err(
                    "sslmode must be disable, prefer, require, verify-ca or verify-full".to_owned(),
                );
            }
        }
    }
    let rest = if rest.is_empty() {
        base.to_owned()
    } else {
        format!("{base}?{}", rest.join("&"))
    };
    Ok((rest, mode))
}

/// What is wrong with the `sslmode` of a URL.
pub fn check(url: &str) -> Result<(), String> {
    split(url).map(|_| ())
}

/// Whether the URL says that nobody's certificate is looked at.
pub fn checks_nothing(url: &str) -> bool {
    let mode = split(url).ok().and_then(|(_, mode)| mode);
    matches!(mode, Some(TlsMode::Disable | TlsMode::Prefer))
}

/// Whether the URL holds a password.
pub fn has_password(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| url.password().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sslmode_is_taken_out_of_the_url() {
        let of = |url: &str, ca_file: Option<&str>| {
            let postgres = Postgres::new(url, None, ca_file.map(PathBuf::from));
            (postgres.url.expose().to_owned(), postgres.tls)
        };
        let url = |rest: &str| format!("postgres://settle@db/settle{rest}");
        assert_eq!(of(&url(""), None), (url(""), TlsMode::Prefer));
        assert_eq!(of(&url(""), Some("ca")), (url(""), TlsMode::VerifyFull));
        for (text, mode) in [
            ("disable", TlsMode::Disable),
            ("prefer", TlsMode::Prefer),
            ("require", TlsMode::VerifyFull),
            ("verify-ca", TlsMode::VerifyCa),
            ("verify-full", TlsMode::VerifyFull),
        ] {
            let alone = url(&format!("?sslmode={text}"));
            assert_eq!(of(&alone, None), (url(""), mode));
            let among = url(&format!("?a=1&sslmode={text}&b=2"));
            assert_eq!(of(&among, None), (url("?a=1&b=2"), mode));
        }
        assert!(check(&url("?sslmode=allow")).is_err());
    }
}
