//! An instance that stands still again and again, while another one takes its partitions over and ends what it may have
//! left. It is fenced each time, and by nobody who has its identity.

use std::sync::Arc;
use std::time::Duration;

use settle::broker::Topic;

use crate::cluster;
use crate::group::SESSION;
use crate::network::Shared;
use crate::run::{go_on, to_rest};
use crate::world::World;

const WINDOW: Duration = Duration::from_secs(7 * 24 * 3600);
/// Enough for a takeover while the process stands still, and for its return.
const FROZEN: Duration = SESSION.saturating_mul(2);
const RETURN: Duration = Duration::from_secs(6);
/// All within the minute in which takeovers count together.
const TIMES: usize = 3;

fn freeze(shared: &Arc<Shared>, frozen: usize, other: usize) {
    shared.world().processes[frozen].frozen = true;
    let until = shared.world().now + FROZEN;
    while shared.world().now < until {
        if let Some(aside) = shared.take_aside() {
            shared.do_aside(aside).expect("nobody dies");
        }
        cluster::step(shared, other);
        let mut world = shared.world();
        let next = world.next_event_at();
        world.advance_to(next);
    }
    shared.world().processes[frozen].frozen = false;
}

#[test]
fn who_stands_still_again_and_again_is_no_rival_of_itself() {
    let parent = crate::directory();
    let mut world = World::new(3, &Topic::ALL.map(|topic| (topic, 2)).into(), true);
    world.feed.left = 3000;
    let shared = Shared::new(world);
    for _ in 0..2 {
        cluster::add(&shared, parent.path(), WINDOW);
    }
    let go_on_for = |duration: Duration| {
        let until = shared.world().now + duration;
        while shared.world().now < until {
            go_on(&shared).expect("nothing goes wrong");
        }
    };
    go_on_for(RETURN);
    for _ in 0..TIMES {
        freeze(&shared, 0, 1);
        go_on_for(RETURN);
    }
    to_rest(&shared, WINDOW).expect("every promise holds, and the lag reaches zero");
    let slots = std::mem::take(&mut *shared.slots.lock().expect("one thread"));
    drop(slots);
}
