//! A failure at every step that can fail, of the kind that comes there, and no death.

use settle::failpoint::Point;

use chaos::cluster::wait;

use crate::crash::by::{By, by};
use crate::crash::remote::Remote;
use crate::crash::{RATE, assert_undamaged, name, restart_armed};
use crate::line::{LIMIT, Line};
use crate::moving::under_load_of;

/// Steps that can fail by the broker's doing or by the database's: the instance goes on by itself.
const WEATHER: [Point; 24] = [
    Point::StageBegin,
    Point::BeginBefore,
    Point::BeginAfter,
    Point::Send,
    Point::FlushBefore,
    Point::FlushAfter,
    Point::OffsetsBefore,
    Point::OffsetsAfter,
    Point::CommitBefore,
    Point::CommitAfter,
    Point::ProducerInitBefore,
    Point::ProducerInitAfter,
    Point::LookOut,
    Point::RestoreOffsets,
    Point::RestoreOpened,
    Point::RestoreBounds,
    Point::RestoreDecided,
    Point::RestoreRunning,
    Point::RestoreWindow,
    Point::SinkBegin,
    Point::SinkMoved,
    Point::SinkRows,
    Point::SinkCommitBefore,
    Point::SinkCommitAfter,
];

/// Steps at which the disk fails: the process ends, and the next one begins from what is certain.
const DISK: [Point; 3] = [
    Point::FileOpen,
    Point::CheckpointWrite,
    Point::CheckpointDone,
];

/// `sysexits.h`: the state directory cannot be used.
const EXIT_STATE: i32 = 74;

#[test]
fn an_error_at_any_step_changes_no_outcome_and_no_total() {
    let mut line = Line::new("crash-errors").with_database();
    let (remote, options) = Remote::of(line.options(0));
    line.launch(options.clone());
    line.wait_ready();
    under_load_of(&mut line, 95, RATE, |line| {
        for point in WEATHER {
            // On an empty directory everything there is to restore is restored.
            line.instances[0].kill();
            std::fs::remove_dir_all(options.state_directory()).unwrap();
            let hit = if by(point) == By::Life { 1 } else { 2 };
            let specification = format!("{}=error@{hit}", name(point));
            restart_armed(line, 0, &specification);
            wait::until(&specification, LIMIT, || {
                assert_eq!(line.instances[0].exit_status(), None, "{specification}");
                // It has no socket yet when it has just started.
                Ok(remote.hits(point).ok().filter(|hits| hits.1 > 0))
            })
            .unwrap();
            line.instances[0].wait_ready(LIMIT).unwrap();
        }
        for point in DISK {
            restart_armed(line, 0, &format!("{}=error@3", name(point)));
            let status = line.instances[0].wait_exit(LIMIT).unwrap();
            let code = status.code();
            assert_eq!(code, Some(EXIT_STATE), "{}", line.instances[0].tail());
        }
    });
    restart_armed(&mut line, 0, "");
    line.wait_ready();
    line.prove();
    assert_undamaged(&line);
}
