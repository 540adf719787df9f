//! Clients that hold connections and send nothing, and HTTPS.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use chaos::cluster::certificates::Authority;
use reqwest::{Certificate, Client, StatusCode};
use settle::config::HttpTls;
use settle::http::Tls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::{Server, body};
use crate::{ONE_KEY, keys};

/// More than twice the connections that a server holds, and few enough for the usual limit of open files.
const IDLE: usize = 600;
const LIMIT: Duration = Duration::from_secs(10);
/// Less than the oldest of them would be kept for anyway.
const SOON: Duration = Duration::from_secs(8);

#[tokio::test]
async fn idle_connections_keep_nobody_out() {
    let server = Server::start(|_| {}).await;
    let mut held = Vec::new();
    for number in 0..IDLE {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        if number % 2 == 0 {
            // A head that never ends.
            stream
                .write_all(b"GET /livez HTTP/1.1\r\nX-")
                .await
                .unwrap();
        }
        held.push(stream);
    }
    let answer = timeout(SOON, server.get("/livez")).await;
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
    // The oldest had to go.
    let closed = timeout(LIMIT, held[1].read(&mut [0; 64])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
}

#[tokio::test]
async fn a_head_that_is_too_long_and_a_method_that_changes_things_are_refused() {
    let server = Server::start(|_| {}).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let long = format!("GET /livez HTTP/1.1\r\nX: {}", "x".repeat(64 * 1024));
    // It may be closed before all of it is taken.
    let _ = stream.write_all(long.as_bytes()).await;
    let mut said = Vec::new();
    let _ = timeout(LIMIT, stream.read_to_end(&mut said)).await.unwrap();
    assert!(!said.starts_with(b"HTTP/1.1 200"), "{said:?}");
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = b"POST /api/status HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut said = [0; 12];
    timeout(LIMIT, stream.read_exact(&mut said))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&said, b"HTTP/1.1 405");
}

fn files(authority: &Authority, name: &str, hosts: &[&str], ca_file: PathBuf) -> Tls {
    let issued = authority.issue(name, hosts).unwrap();
    Tls::new(&HttpTls {
        certificate_file: issued.certificate,
        key_file: issued.key,
        ca_file: Some(ca_file),
    })
    .unwrap()
}

fn client(ca: &Authority) -> Client {
    let pem = std::fs::read(ca.file()).unwrap();
    Client::builder()
        .tls_built_in_root_certs(false)
        .add_root_certificate(Certificate::from_pem(&pem).unwrap())
        .build()
        .unwrap()
}

#[tokio::test]
async fn instances_with_certificates_ask_each_other_over_https() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path(), "authority").unwrap();
    let other = Authority::new(&directory.path().join("other"), "other").unwrap();
    let hosts = ["127.0.0.1"];
    let trusted = || authority.file().to_owned();
    let tls = files(&authority, "one", &hosts, trusted());
    let one = Server::start(|services| services.tls = Some(tls)).await;
    let tls = files(&authority, "two", &hosts, trusted());
    let two = Server::start(|services| services.tls = Some(tls)).await;
    // Signed by the right one, for another host.
    let tls = files(&authority, "elsewhere", &["elsewhere.example"], trusted());
    let elsewhere = Server::start(|services| services.tls = Some(tls)).await;
    // Believes nobody that the others know.
    let tls = files(&authority, "doubter", &hosts, other.file().to_owned());
    let doubter = Server::start(|services| services.tls = Some(tls)).await;
    let keys: BTreeMap<_, _> = keys(3);
    for owner in [&two, &elsewhere] {
        owner.own(&[0, 1, 2, 3], &keys, usize::MAX);
    }
    let ask = async |server: &Server, owner: &Server| {
        server.knows(&[0, 1, 2, 3], &owner.address.to_string());
        let url = format!("https://{}{ONE_KEY}", server.address);
        client(&authority).get(url).send().await.unwrap()
    };
    let answer = ask(&one, &two).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(body(answer).await["count"], 2);
    for (server, owner) in [(&one, &elsewhere), (&doubter, &two)] {
        let answer = ask(server, owner).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let said = body(answer).await["error"].to_string();
        assert!(said.contains("certificate"), "{said}");
    }
    // In the clear there is no answer.
    let clear = Client::new().get(format!("http://{}/livez", one.address));
    assert!(clear.send().await.is_err());
    let doubted = client(&other).get(format!("https://{}/livez", one.address));
    assert!(doubted.send().await.is_err());
}
