//! Failpoints in a build that has them: counts every hit, and does at the k-th one what it was
//! told to.
//!
//! A specification is `name=action@k`, the first hit when `@k` is left out; the actions are `kill`
//! (SIGKILL of this process), `pause` (until it is resumed), `error` (at steps that can fail) and
//! `delay:<milliseconds>`. Specifications come, separated by commas, from the environment variable
//! `FAILPOINTS`, and at any time through the Unix socket that `FAILPOINT_SOCKET` names, one request
//! to a connection: `arm <specification>`, `resume <name>`, `hits`. `hits` answers a line
//! `name hits fired` for every point, the others with `ok` or what was wrong.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::failpoint::Point;

#[derive(Clone, Copy, PartialEq)]
enum Action {
    Kill,
    Pause,
    Error,
    Delay(Duration),
}

/// One point: how often it was reached and acted, and what is to happen.
#[derive(Clone, Copy)]
struct Place {
    hits: u64,
    fired: u64,
    armed: Option<Armed>,
}

#[derive(Clone, Copy)]
struct Armed {
    action: Action,
    /// Hits that are still left until it acts, this one included.
    left: u64,
}

const UNTOUCHED: Place = Place {
    hits: 0,
    fired: 0,
    armed: None,
};

static PLACES: Mutex<[Place; Point::ALL.len()]> = Mutex::new([UNTOUCHED; Point::ALL.len()]);
static RESUMED: Condvar = Condvar::new();

fn places() -> MutexGuard<'static, [Place; Point::ALL.len()]> {
    PLACES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Arms what the environment says and opens the socket.
///
/// # Panics
///
/// When a specification or the socket is of no use: a test would prove nothing.
pub fn listen() {
    for specification in variable("FAILPOINTS").split(',').filter(|s| !s.is_empty()) {
        arm(specification).unwrap_or_else(|wrong| panic!("FAILPOINTS: {wrong}"));
    }
    let path = variable("FAILPOINT_SOCKET");
    if path.is_empty() {
        return;
    }
    // Left by a predecessor that was killed.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Who asks may be gone.
            let _ = serve(&stream);
        }
    });
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn serve(mut stream: &UnixStream) -> std::io::Result<()> {
    let mut request = String::new();
    BufReader::new(stream).read_line(&mut request)?;
    let answer = match request.trim().split_once(' ') {
        Some(("arm", specification)) => arm(specification),
        Some(("resume", name)) => index(name).map(resume),
        None if request.trim() == "hits" => Ok(hits()),
        _ => Err(format!("{request:?} is no request")),
    };
    stream.write_all(answer.unwrap_or_else(|wrong| wrong).as_bytes())
}

fn index(name: &str) -> Result<usize, String> {
    let place = Point::ALL.iter().position(|(_, known)| *known == name);
    place.ok_or_else(|| format!("{name:?} is no failpoint"))
}

fn arm(specification: &str) -> Result<String, String> {
    let wrong = || format!("{specification:?} is no specification");
    let (name, action) = specification.split_once('=').ok_or_else(wrong)?;
    let (action, at) = action.split_once('@').unwrap_or((action, "1"));
    let left = at.parse().ok().filter(|at| *at > 0).ok_or_else(wrong)?;
    let action = match (action, action.strip_prefix("delay:")) {
        ("kill", _) => Action::Kill,
        ("pause", _) => Action::Pause,
        ("error", _) => Action::Error,
        (_, Some(milliseconds)) => Action::Delay(Duration::from_millis(
            milliseconds.parse().map_err(|_| wrong())?,
        )),
        _ => return Err(wrong()),
    };
    places()[index(name)?].armed = Some(Armed { action, left });
    Ok("ok".to_owned())
}

fn resume(index: usize) -> String {
    places()[index].armed = None;
    RESUMED.notify_all();
    "ok".to_owned()
}

fn hits() -> String {
    let places = places();
    let line = |((_, name), place): (&(Point, &str), &Place)| {
        format!("{name} {} {}\n", place.hits, place.fired)
    };
    let lines: Vec<String> = Point::ALL.iter().zip(places.iter()).map(line).collect();
    lines.concat()
}

/// Counts the hit and acts; `true` when the step is to fail.
pub fn reach(point: Point) -> bool {
    let index = point as usize;
    let mut places = places();
    let place = &mut places[index];
    place.hits += 1;
    let Some(armed) = &mut place.armed else {
        return false;
    };
    armed.left -= 1;
    if armed.left > 0 {
        return false;
    }
    let action = armed.action;
    place.fired += 1;
    match action {
        Action::Kill => kill(),
        Action::Pause => {
            // Every thread that comes here waits too.
            armed.left = 1;
            drop(RESUMED.wait_while(places, |places| places[index].armed.is_some()));
        }
        Action::Error => place.armed = None,
        Action::Delay(time) => {
            place.armed = None;
            drop(places);
            thread::sleep(time);
        }
    }
    action == Action::Error
}

/// The end of this process, with no destructor and no other thread going on.
#[expect(unsafe_code, reason = "kill(2) takes two integers")]
fn kill() -> ! {
    // SAFETY: no pointers.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGKILL);
    }
    loop {
        thread::park();
    }
}
