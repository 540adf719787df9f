//! Failpoints of a running instance, through its socket.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use chaos::cluster::instance::InstanceOptions;
use chaos::cluster::wait;
use settle::failpoint::Point;

use crate::crash::{RATE, name};
use crate::line::{LIMIT, Line};
use crate::moving::{progress, under_load_of};

/// The socket of an instance's failpoints.
pub struct Remote(PathBuf);

impl Remote {
    /// Gives the instance a socket.
    pub fn of(options: InstanceOptions) -> (Self, InstanceOptions) {
        let path = options.directory.join("failpoints");
        let options = options.env("FAILPOINT_SOCKET", path.to_str().unwrap());
        (Self(path), options)
    }

    fn ask(&self, request: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&self.0)?;
        stream.write_all(request.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    pub fn arm(&self, specification: &str) {
        assert_eq!(self.ask(&format!("arm {specification}")).unwrap(), "ok");
    }

    pub fn resume(&self, point: Point) {
        let answer = self.ask(&format!("resume {}", name(point))).unwrap();
        assert_eq!(answer, "ok");
    }

    /// How often a point was reached and how often it acted; an error when the instance is gone.
    pub fn hits(&self, point: Point) -> std::io::Result<(u64, u64)> {
        let answer = self.ask("hits")?;
        let line = answer
            .lines()
            .find_map(|line| line.strip_prefix(name(point))?.strip_prefix(' '));
        let (hits, fired) = line.unwrap().split_once(' ').unwrap();
        Ok((hits.parse().unwrap(), fired.parse().unwrap()))
    }
}

#[test]
fn a_worker_that_waits_inside_a_transaction_goes_on_and_one_that_waits_too_long_takes_up_again() {
    let mut line = Line::new("crash-pause").with_database();
    let (remote, options) = Remote::of(line.options(0));
    line.launch(options);
    line.wait_ready();
    let tail = line.tail();
    // The second is longer than `transaction.timeout.ms`.
    for pause in [Duration::from_millis(500), Duration::from_secs(13)] {
        under_load_of(&mut line, 90 + pause.as_secs(), RATE, |_| {
            remote.arm("commit.before=pause");
            wait::until("the pause", LIMIT, || {
                Ok((remote.hits(Point::CommitBefore)?.1 > 0).then_some(()))
            })
            .unwrap();
            let before = remote.hits(Point::ApplyAfter).unwrap();
            std::thread::sleep(pause);
            assert_eq!(remote.hits(Point::ApplyAfter).unwrap(), before);
            remote.resume(Point::CommitBefore);
            progress(&tail, "the pause");
        });
        line.prove();
    }
    assert!(line.log(0).contains("taking up again"));
}

#[test]
fn what_is_no_specification_is_refused() {
    let mut line = Line::new("crash-words");
    let (remote, options) = Remote::of(line.options(0));
    line.launch(options);
    line.wait_ready();
    for request in [
        "arm commit.before=explode",
        "arm commit.before=kill@0",
        "arm no.such.point=kill",
        "arm commit.before",
        "resume no.such.point",
        "forget",
    ] {
        let answer = remote.ask(request).unwrap();
        assert!(answer.contains(" is no "), "{request}: {answer}");
    }
    assert!(remote.hits(Point::FileOpen).unwrap().0 >= 8);
}
