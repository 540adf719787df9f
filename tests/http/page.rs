//! The page, in a real browser.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use chaos::browser::{self, Browser, View};
use reqwest::StatusCode;
use settle::engine::status::{Kind, Phase, Task, Unstable, Waiting};
use settle::http::{Rules, Services, Sink};
use tokio::task::spawn_blocking;

use crate::server::Server;

const DARK_PHONE: View = View {
    dark: true,
    ..View::PHONE
};

/// True when nothing reaches over the right edge.
const FITS: &str = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";

fn task(phase: Phase, position: i64, lag: i64) -> Task {
    Task {
        phase,
        position,
        lag: Some(lag),
        waiting: Waiting::default(),
        unstable: Unstable::default(),
        oldest: None,
    }
}

/// Half of the partitions, one of them restoring, and trouble with everything.
fn troubled(services: &mut Services) {
    services.sink = Some(Arc::new(|| Sink {
        problem: Some("connection refused <b>by</b> 10.0.0.9".into()),
        ..Sink::default()
    }));
    services.rules = Arc::new(|| Rules {
        calls: BTreeMap::from([("rule", 1200), ("timed_out", 34)]),
        in_flight: 2,
        outage: true,
        problem: Some("timed_out: no answer within 2s".into()),
    });
}

fn give_work(server: &Server) {
    let worker = &server.services.status.workers[0];
    // It never counts as stuck.
    worker.turn(u64::MAX);
    worker.set_connected(true);
    worker.set_assigned(true);
    worker.set_problem("queue a record: the queue stayed full".into());
    worker.set_tasks(BTreeMap::from([
        ((Kind::Ingest, 0), task(Phase::Running, 1_234_567, 7)),
        ((Kind::Settle, 0), task(Phase::WaitingForRule, 81, 3)),
        (
            (Kind::Settle, 1),
            task(Phase::Restoring { remaining: 4321 }, -1, 9),
        ),
    ]));
    server.own(&[0, 1], &BTreeMap::new(), usize::MAX);
    server.knows(&[2], "10.0.0.2:8080");
    let elsewhere = BTreeMap::from([
        (1, "10.0.0.2:8080".to_owned()),
        (2, "10.0.0.3:8080".to_owned()),
    ]);
    server
        .services
        .source_owners
        .set(settle::clock::now(), elsewhere);
}

/// Opens the page of a server and waits until it has asked.
fn open(browser: &mut Browser, server: &str, view: View) {
    browser.open(&format!("http://{server}/"), view).unwrap();
    browser
        .until("document.querySelector('main')?.dataset.polls > 1")
        .unwrap();
}

/// The texts of the cells of a table, row by row.
fn rows(browser: &mut Browser, table: &str) -> Vec<String> {
    let script = format!(
        "[...document.querySelectorAll('#{table} tbody tr')].map(row => [...row.cells].map(cell => cell.innerText).join(' | '))"
    );
    serde_json::from_value(browser.value(&script).unwrap()).unwrap()
}

/// Writes a picture where `PAGE_IMAGES` says; for whoever wants to see what the tests see.
fn picture(browser: &mut Browser, name: &str) {
    if let Some(directory) = std::env::var_os("PAGE_IMAGES") {
        browser
            .picture(&PathBuf::from(directory).join(name))
            .unwrap();
    }
}

/// Tables with names and heads, nothing to press without a name, and a way past the head.
fn without_eyes_and_mouse(browser: &mut Browser) {
    let spoken = browser.spoken().unwrap();
    let of = |role: &str| {
        spoken
            .iter()
            .filter(|(found, _)| found == role)
            .map(|(_, name)| name.as_str())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("table").len(), 7, "{spoken:?}");
    for role in ["table", "columnheader", "link", "heading", "image"] {
        assert!(
            !of(role).is_empty() && of(role).iter().all(|name| !name.is_empty()),
            "{role}: {spoken:?}"
        );
    }
    // The first key press offers the way past the head.
    browser.press("Tab").unwrap();
    assert_eq!(
        browser.value("document.activeElement.className").unwrap(),
        "skip"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_what_the_status_says_on_a_desk_and_on_a_phone() {
    if !browser::is_wanted() {
        return;
    }
    let server = Server::start(troubled).await;
    give_work(&server);
    let (address, here) = (server.address.to_string(), server.address.to_string());
    let looked = spawn_blocking(move || {
        let mut browser = Browser::start().unwrap();
        for (view, name) in [
            (View::DESK, "desk.png"),
            (View::PHONE, "phone.png"),
            (DARK_PHONE, "dark.png"),
        ] {
            open(&mut browser, &address, view);
            assert_eq!(browser.text("#state").unwrap(), "Not ready");
            assert_eq!(
                browser.text("#reasons").unwrap(),
                "1 partitions restoring, 4321 records left"
            );
            let ingest = [
                "0 | here | running | 1\u{202f}234\u{202f}567 | 7".to_owned(),
                "1 | 10.0.0.2:8080 | – | – | –".to_owned(),
                "2 | 10.0.0.3:8080 | – | – | –".to_owned(),
                "3 | nobody | – | – | –".to_owned(),
            ];
            assert_eq!(rows(&mut browser, "ingest"), ingest);
            let settle = rows(&mut browser, "settle");
            assert_eq!(settle[0], "0 | here | waits for a rule | 81 | 3");
            assert_eq!(settle[1], "1 | here | restoring, 4\u{202f}321 left | – | 9");
            let instances = [
                format!("{here} (this one) | 1 | 2"),
                "10.0.0.2:8080 | 1 | 1".to_owned(),
                "10.0.0.3:8080 | 1 | 0".to_owned(),
            ];
            assert_eq!(rows(&mut browser, "instances"), instances);
            let needs = rows(&mut browser, "needs");
            assert_eq!(needs[0], "Kafka | connected | 1 of 1 workers connected");
            assert!(
                needs[1].starts_with("Rule service | down | Payments of unknown rules wait."),
                "{needs:?}"
            );
            // What others wrote is text.
            assert_eq!(
                needs[2],
                "PostgreSQL | not connected | connection refused <b>by</b> 10.0.0.9"
            );
            let problems = rows(&mut browser, "problems");
            assert!(
                problems[0].ends_with(" ago | queue a record: the queue stayed full"),
                "{problems:?}"
            );
            assert_eq!(problems.len(), 3, "{problems:?}");

            assert_eq!(browser.value(FITS).unwrap(), true, "{view:?}");
            picture(&mut browser, name);
            let drawings = "[...document.querySelectorAll('svg')].filter(svg => svg.getBoundingClientRect().width > 0).length";
            assert_eq!(browser.value(drawings).unwrap(), 1);
            assert_eq!(browser.complaints(), [""; 0]);
        }
        // The check of the width can fail.
        let wider = "document.querySelector('.tiles').style.minWidth = '30rem'";
        browser.value(wider).unwrap();
        assert_eq!(browser.value(FITS).unwrap(), false);

        without_eyes_and_mouse(&mut browser);
    });
    looked.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_asks_for_the_token_and_keeps_it_in_its_tab_only() {
    if !browser::is_wanted() {
        return;
    }
    let server = Server::start(|services| services.token = Some("sesame".into())).await;
    give_work(&server);
    let address = server.address.to_string();
    let looked = spawn_blocking(move || {
        let mut browser = Browser::start().unwrap();
        open(&mut browser, &address, View::PHONE);
        // What is open to everybody is there.
        assert_eq!(browser.text("#state").unwrap(), "Not ready");
        assert_eq!(browser.text("[data-show=lag]").unwrap(), "19");
        let hidden = "document.querySelector('#ingest').getBoundingClientRect().height === 0";
        assert_eq!(browser.value(hidden).unwrap(), true);
        browser
            .until("document.activeElement.id === 'secret'")
            .unwrap();
        picture(&mut browser, "token.png");

        browser.write("simsalabim").unwrap();
        browser.press("Enter").unwrap();
        browser
            .until("document.querySelector('#token-error').innerText !== ''")
            .unwrap();
        assert_eq!(browser.value("sessionStorage.length").unwrap(), 0);
        browser.write("sesame").unwrap();
        browser.press("Enter").unwrap();
        browser
            .until("document.querySelector('#ingest tbody').rows.length === 4")
            .unwrap();
        browser
            .until("document.querySelector('#token').hidden")
            .unwrap();
        let kept = "[localStorage.length, document.cookie, sessionStorage.length, location.href.includes('sesame')].join()";
        assert_eq!(browser.value(kept).unwrap(), "0,,1,false");
        // A reload of the tab needs no token; another tab does.
        browser.reload().unwrap();
        browser
            .until("document.querySelector('#ingest tbody')?.rows.length === 4")
            .unwrap();
        for complaint in browser.complaints() {
            assert!(complaint.contains("401"), "{complaint}");
        }
        assert_eq!(
            browser.complaints().len(),
            2,
            "one without a token, one with a wrong one"
        );
        open(&mut browser, &address, View::PHONE);
        assert_eq!(
            browser
                .value("document.querySelector('#token').hidden")
                .unwrap(),
            false
        );
    });
    looked.await.unwrap();
}

#[tokio::test]
async fn the_page_is_whole_in_itself_and_takes_no_orders() {
    let server = Server::start(|services| services.token = Some("sesame".into())).await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/page.svg", "image/svg+xml"),
    ] {
        let response = server.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), kind);
        assert_eq!(header("x-content-type-options"), "nosniff");
        let policy = header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'; "),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        let url = format!("http://{}{path}", server.address);
        let posted = server.client.post(url).body("x").send().await.unwrap();
        assert_ne!(posted.status(), StatusCode::OK, "{path}");
    }
}
