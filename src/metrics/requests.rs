//! Handles of the HTTP requests, one per route and status code, resolved before the first request.

use std::collections::BTreeMap;

use ::metrics::Counter;

use crate::metrics::HTTP_REQUESTS;

/// What these routes answer as a rule; their series stand at 0 from the start.
const CODES: [u16; 5] = [200, 400, 401, 404, 503];

/// Answered requests by route and status code.
#[derive(Debug)]
pub struct Requests(BTreeMap<&'static str, BTreeMap<u16, Counter>>);

impl Requests {
    /// `routes` are the templates of the paths, whatever is in the place of their parameters.
    pub fn new(routes: &[&'static str]) -> Self {
        let of_route = |route| CODES.map(|code| (code, counter(route, code)));
        Self(
            routes
                .iter()
                .map(|route| (*route, of_route(route).into()))
                .collect(),
        )
    }

    pub fn answered(&self, route: &str, code: u16) {
        match self.0.get(route).and_then(|codes| codes.get(&code)) {
            Some(counter) => counter.increment(1),
            None => counter(route, code).increment(1),
        }
    }
}

fn counter(route: &str, code: u16) -> Counter {
    HTTP_REQUESTS.counter(&[route, &code.to_string()])
}

#[cfg(test)]
mod tests {
    use ::metrics::with_local_recorder;

    use super::*;
    use crate::metrics::exporter::recorder;

    #[test]
    fn routes_stand_at_zero_and_other_codes_are_counted_too() {
        let recorder = recorder();
        with_local_recorder(&recorder, || {
            let requests = Requests::new(&["/a", "/b"]);
            requests.answered("/b", 200);
            requests.answered("/b", 405);
        });
        let text = recorder.handle().render();
        for (route, code, count) in [
            ("/a", 200, 0),
            ("/b", 200, 1),
            ("/b", 405, 1),
            ("/b", 503, 0),
        ] {
            let name = HTTP_REQUESTS.name;
            let line = format!("{name}{{route=\"{route}\",code=\"{code}\"}} {count}\n");
            assert!(text.contains(&line), "{line}{text}");
        }
    }
}
