//! What a service manager sees and does: start, signs of life, reload, stop.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use chaos::cluster::process;
use chaos::cluster::rule_faults::Fault;
use chaos::cluster::service_manager::ServiceManager;
use chaos::cluster::stuck::Stuck;
use chaos::cluster::wait;

use crate::http::get;
use crate::line::{LIMIT, Line, day};
use crate::payments::{home, payment, rule_key};

/// A sign of life comes four times as often.
const WATCHDOG: Duration = Duration::from_secs(2);

#[test]
fn the_service_manager_hears_of_start_life_and_stop_and_nothing_of_life_while_one_loop_is_stuck() {
    let mut line = Line::new("life");
    let manager = ServiceManager::start().unwrap();
    let options = manager.of(line.options(0), WATCHDOG);
    line.launch(options.set("pipeline.workers", 2));
    manager.hear("READY=1", LIMIT).unwrap();
    let ready = manager.hear("STATUS=ready; ", LIMIT).unwrap();
    assert!(ready.ends_with("partitions, 0 records behind"), "{ready}");
    manager.hear("WATCHDOG=1", LIMIT).unwrap();
    let instance = &line.instances[0];

    let stuck = Stuck::stop(instance.pid(), "worker-1").unwrap();
    // What was earned before comes within the time between two.
    thread::sleep(WATCHDOG / 4);
    manager.heard();
    let silence = Instant::now();
    while silence.elapsed() < WATCHDOG {
        let heard = manager.heard();
        let alive = heard.iter().any(|line| line == "WATCHDOG=1");
        assert!(
            !alive,
            "a sign of life from a worker that is stuck: {heard:?}"
        );
        // The rest of the process lives.
        assert_eq!(get(&instance.http(), "/livez").status, 200);
        thread::sleep(Duration::from_millis(50));
    }
    drop(stuck);
    manager.hear("WATCHDOG=1", LIMIT).unwrap();
    line.send(day(71, 500));
    line.prove();
    line.terminate(0);
    manager.hear("STOPPING=1", LIMIT).unwrap();
}

#[test]
fn a_hangup_takes_the_filter_of_the_log_over_and_never_ends_the_service() {
    let mut line = Line::new("reload");
    // One that never reads must not keep the service from anything.
    let manager = ServiceManager::deaf().unwrap();
    let options = manager.of(line.options(0), WATCHDOG / 10);
    line.launch(options);
    line.wait_ready();
    let hang_up = |config: &str, told: &str| {
        let instance = &line.instances[0];
        fs::write(instance.options().config_file(), config).unwrap();
        let seen = line.log(0).matches(told).count();
        process::send(instance.pid(), libc::SIGHUP);
        wait::until(told, LIMIT, || {
            Ok((line.log(0).matches(told).count() > seen).then_some(()))
        })
        .unwrap();
    };
    let file = line.instances[0].options().config_file();
    let config = fs::read_to_string(file).unwrap();
    let debug = "\"level\":\"DEBUG\"";
    assert!(!line.log(0).contains(debug));
    let louder =
        format!("{config}\n[log]\nfilter = \"info,settle::http=off,settle::broker=debug\"\n");
    hang_up(
        &louder,
        "\"filter\":\"info,settle::http=off,settle::broker=debug\"",
    );
    assert!(!line.log(0).contains("are read at start only"));

    hang_up(
        &louder.replace("=debug", "=loud"),
        "is not a filter for logs",
    );
    hang_up("[log]\ncolour = true\n", "unknown key");
    hang_up(
        &format!("{config}\n[shutdown]\ngrace = \"9s\"\n"),
        "are read at start only",
    );
    hang_up(&config, "\"filter\":\"info\"");
    line.send(day(72, 500));
    line.prove();
    line.terminate(0);
}

/// Stands in everything that the next test sends, and nowhere else.
const MARK: &str = "vermilion";

#[test]
fn no_record_and_no_answer_is_ever_quoted_in_the_log() {
    let mut line = Line::new("quoted").with_database();
    let options = line.options(0);
    line.launch(options.set("log.filter", "settle=debug"));
    line.wait_ready();
    let source = line.names.source.clone();
    let payment = |from: &str, to: &str| {
        let value = String::from_utf8(payment(MARK, "shop-1", 5).value.unwrap()).unwrap();
        assert!(value.contains(from), "{from}");
        value.replace(from, to)
    };
    let long = MARK.repeat(40);
    for (key, value) in [
        (MARK, format!("{MARK} is no JSON")),
        (MARK, format!("{{\"channel\":\"{MARK}\"}}")),
        (MARK, payment("\"MONEY\"", &format!("\"{MARK}\""))),
        (MARK, payment("2025-05-26T", &format!("{MARK}T"))),
        (
            MARK,
            payment("\"amount\":5", &format!("\"amount\":\"{MARK}\"")),
        ),
        (MARK, payment("shop-1", &long)),
        (
            MARK,
            payment("\"amount\":5", &format!("\"amount\":5,\"{MARK}\":1e200000")),
        ),
        (long.as_str(), payment("\"amount\":5", "\"amount\":6")),
        (
            "",
            payment("\"amount\":5", &format!("\"amount\":7,\"x\":\"{MARK}\"")),
        ),
    ] {
        line.produce(&source, 0, key, Some(&value));
    }
    // A record of the rules topic that is none, and answers of the rule service that are none.
    line.produce(
        &line.names.rules,
        0,
        MARK,
        Some(&format!("{{\"ruleId\":\"{MARK}\"}}")),
    );
    let key = rule_key("shop-1").to_string();
    let no_rule = format!("{{\"ruleId\":\"{MARK}\",\"payoutDate\":\"{MARK}\"}}");
    line.produce(&line.names.rules, home("shop-1"), &key, Some(&no_rule));
    line.rules.set_fault(Fault::Garbage);
    line.send(day(73, 500));
    let wrong = "wrong answer";
    wait::until(wrong, LIMIT, || {
        Ok(line.log(0).contains(wrong).then_some(()))
    })
    .unwrap();
    line.rules.set_fault(Fault::Healthy);
    line.settle();
    line.instances[0].kill();
    line.restart(0);
    line.settle();
    line.terminate(0);

    let log = line.log(0);
    assert!(log.contains("a record of the rules topic is ignored"));
    for line in log.lines() {
        assert!(!line.contains(MARK), "{line}");
        // Payments, rules and the bodies of wrong answers, as JSON in a text of JSON.
        for name in ["payoutDate", "paymentType", "merchantNumber", "amount"] {
            let quoted = format!("{name}\\\":");
            assert!(!line.contains(&quoted), "{line}");
        }
    }
}
