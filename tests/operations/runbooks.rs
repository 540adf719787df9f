//! What the pages of the documentation name is there: metrics, panels, log lines, other pages.

use std::collections::BTreeSet;
use std::fs;

use settle::metrics::ALL;

use crate::{dashboards, files};

/// The runbooks and the pages that lead to them.
fn pages() -> Vec<(String, String)> {
    let runbooks = files::list("docs/runbooks", "md");
    let paths = runbooks.into_iter().chain(files::list("docs", "md"));
    paths
        .map(|path| (path.clone(), files::read(&path)))
        .collect()
}

/// Words in code, outside of blocks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|part| part.split('`').skip(1).step_by(2))
}

#[test]
fn metrics_that_a_page_names_are_registered() {
    let mut named = 0;
    for (page, text) in pages() {
        for span in spans(&text).filter(|span| span.starts_with("settle_")) {
            let name = span.split('{').next().unwrap();
            assert!(
                ALL.iter().any(|metric| metric.name == name),
                "{page}: {span}"
            );
            named += 1;
        }
    }
    assert!(named > 25, "{named}");
}

#[test]
fn every_alternative_of_a_pattern_finds_a_metric() {
    for (page, text) in pages() {
        for (at, _) in text.match_indices("settle_") {
            let word = text[at..]
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap();
            let Some(inner) = text[at + word.len()..].strip_prefix('(') else {
                continue;
            };
            for end in inner.split_once(')').unwrap().0.split('|') {
                let begin = format!("{word}{end}");
                let begin = begin.trim_end_matches("_sum").trim_end_matches("_count");
                let found = ALL.iter().any(|metric| metric.name.starts_with(begin));
                assert!(found, "{page}: {begin}");
            }
        }
    }
}

#[test]
fn panels_that_a_page_names_are_on_a_dashboard() {
    let all = dashboards::generated();
    let titles: BTreeSet<_> = all
        .iter()
        .flat_map(dashboards::panels)
        .map(|panel| panel["title"].as_str().unwrap().to_owned())
        .collect();
    let mut named = 0;
    for (page, text) in pages() {
        let flat = text.replace('\n', " ");
        let mut ends = flat.match_indices("' on the ").map(|(at, _)| &flat[..at]);
        ends.try_for_each(|before| {
            let (_, title) = before.rsplit_once('\'')?;
            let found = titles.iter().any(|known| known.starts_with(title));
            assert!(found, "{page}: no panel is called {title}");
            named += 1;
            Some(())
        })
        .unwrap();
    }
    assert!(named > 10, "{named}");
}

#[test]
fn links_of_pages_lead_to_files() {
    for (page, text) in pages() {
        let directory = page.rsplit_once('/').unwrap().0;
        let targets = text
            .split("](")
            .skip(1)
            .map(|rest| rest.split_once(')').unwrap().0);
        for target in targets {
            let (path, wanted) = target.split_once('#').unwrap_or((target, ""));
            let path = match path {
                "" => files::path(&page),
                path => files::path(directory).join(path),
            };
            assert!(path.exists(), "{page}: {target}");
            if !wanted.is_empty() {
                let text = fs::read_to_string(&path).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let leads = headings
                    .any(|line| files::anchor(line.trim_start_matches(['#', ' '])) == wanted);
                assert!(leads, "{page}: {target}");
            }
        }
    }
}

#[test]
fn every_page_is_in_the_index() {
    let index = files::read("docs/README.md");
    for page in files::list("docs", "md") {
        let name = page.strip_prefix("docs/").unwrap();
        assert!(
            name == "README.md" || index.contains(&format!("]({name})")),
            "docs/README.md does not name {name}"
        );
    }
}
