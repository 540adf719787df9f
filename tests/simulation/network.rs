//! Requests and what happens to them on their way; the moments at which a process dies, freezes,
//! or others run.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::cluster::{self, Slot};
use crate::world::{Code, Event, World};

/// Longest wait for a call, as the real client has it.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const SOCKET_TIMEOUT: Duration = Duration::from_secs(3);
/// A run that asks the world more often than this goes round in circles.
const CALLS_MAX: u64 = 3_000_000;
/// Processes that stand inside each other's requests.
const DEPTH_MAX: usize = 3;

/// Work that a process does on another thread than its worker's.
pub struct Aside {
    pub process: usize,
    /// Transactional ids of the group's members, as the process knew them.
    members: BTreeSet<String>,
    work: Box<dyn FnOnce() + Send>,
}

/// What all processes share.
pub struct Shared {
    world: Mutex<World>,
    pub slots: Mutex<Vec<Slot>>,
    asides: Mutex<Vec<Aside>>,
    /// Who was a member when the work began that is being done aside, as its process knew; innermost last.
    members: Mutex<Vec<BTreeSet<String>>>,
    depth: Mutex<usize>,
}

/// One process's way to the world.
#[derive(Clone)]
pub struct Sim {
    pub shared: Arc<Shared>,
    pub process: usize,
}

/// Unwinds a worker whose process dies.
pub struct Crash;

/// One kind of request.
#[derive(Clone, Copy)]
pub struct Request {
    pub name: &'static str,
    pub timeout: Duration,
    /// Before it is sent again after the connection broke.
    pub backoff: Duration,
    /// Goes to the coordinator of transactions.
    pub to_coordinator: bool,
    /// Is given up when connections have broken more often than this.
    pub breaks: Option<u64>,
}

enum Passing {
    On,
    Crash,
    Freeze(Duration),
    Others(u32),
}

enum Trouble {
    None,
    LostRequest,
    LostAnswer,
    Held(Duration),
}

impl Shared {
    pub fn new(world: World) -> Arc<Self> {
        Arc::new(Self {
            world: Mutex::new(world),
            slots: Mutex::default(),
            asides: Mutex::default(),
            members: Mutex::default(),
            depth: Mutex::new(0),
        })
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put_aside(&self, process: usize, work: Box<dyn FnOnce() + Send>) {
        let members = self.world().processes[process].told.clone();
        let mut asides = self.asides.lock().expect("one thread");
        asides.push(Aside {
            process,
            members,
            work,
        });
    }

    /// The oldest work that was put aside.
    pub fn take_aside(&self) -> Option<Aside> {
        let mut asides = self.asides.lock().expect("one thread");
        (!asides.is_empty()).then(|| asides.remove(0))
    }

    /// Does it; what it panics with is given back.
    pub fn do_aside(&self, aside: Aside) -> thread::Result<()> {
        let members = || self.members.lock().expect("one thread");
        members().push(aside.members);
        let done = catch_unwind(AssertUnwindSafe(aside.work));
        members().pop();
        done
    }

    /// Whether it was a member of the group when the work began that is being done aside.
    pub fn was_member(&self, transactional_id: &str) -> bool {
        let members = self.members.lock().expect("one thread");
        members
            .last()
            .is_some_and(|known| known.contains(transactional_id))
    }

    /// What a dead process had put aside.
    pub fn take_asides_of(&self, process: usize) -> Vec<Aside> {
        let mut asides = self.asides.lock().expect("one thread");
        asides
            .extract_if(.., |aside| aside.process == process)
            .collect()
    }
}

impl Sim {
    /// The world, at the time that the engine has come to.
    pub fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.shared.world();
        world.catch_up();
        world.calls += 1;
        assert!(world.calls < CALLS_MAX, "the run does not end");
        world
    }

    /// A moment at which this process is not the only one to go on.
    pub fn pass(&self) {
        let passing = self.passing();
        match passing {
            Passing::On => {}
            Passing::Crash => resume_unwind(Box::new(Crash)),
            Passing::Freeze(duration) => self.freeze(duration),
            Passing::Others(turns) => {
                for _ in 0..turns {
                    self.run_others();
                }
            }
        }
    }

    fn passing(&self) -> Passing {
        let mut world = self.world();
        let faults = world.faults;
        let dies = world.processes[self.process].doomed || world.chance(faults.crash);
        // A repair that commits and is cut short together with its process can tear what it repairs:
        // the one thing that is left out here (docs/kafka.md, section 7).
        if dies && !world.is_mending(self.process) {
            world.trouble("crash", || format!("process {}", self.process));
            return Passing::Crash;
        }
        if world.chance(faults.freeze) {
            let duration = world.millis(20..9000);
            world.trouble("freeze", || {
                format!("process {} for {duration:?}", self.process)
            });
            return Passing::Freeze(duration);
        }
        if world.chance(faults.interleave) {
            return Passing::Others(world.dice.u32(1..6));
        }
        Passing::On
    }

    fn freeze(&self, duration: Duration) {
        let until = {
            let mut world = self.world();
            world.processes[self.process].frozen = true;
            world.now + duration
        };
        while self.world().now < until {
            if !self.run_others() {
                let mut world = self.world();
                let step = world.next_event_at().min(until);
                world.advance_to(step);
            }
        }
        let mut world = self.world();
        world.processes[self.process].frozen = false;
        if world.dice.bool() {
            world.notice_break(self.process);
        }
    }

    fn run_others(&self) -> bool {
        {
            let mut depth = self.shared.depth.lock().expect("one thread");
            if *depth == DEPTH_MAX {
                return false;
            }
            *depth += 1;
        }
        let ran = cluster::step_any(&self.shared);
        *self.shared.depth.lock().expect("one thread") -= 1;
        ran
    }

    /// Sends a request until it is answered or its time is over. `suspect` is set when a copy of
    /// it may still be on its way, exactly as the interceptor of the real client sees it.
    pub fn call<T>(
        &self,
        request: Request,
        suspect: &mut bool,
        execute: impl Fn(&mut World) -> Result<T, Code> + Clone + Send + 'static,
    ) -> Result<T, Code> {
        let deadline = self.world().now + request.timeout;
        loop {
            let deaths = self.world().broker.deaths;
            self.pass();
            if self.is_given_up(request) {
                return Err(Code::Broken);
            }
            let trouble = self.send();
            let mut world = self.world();
            let again = match trouble {
                Trouble::None => {
                    let gone = request.to_coordinator && world.now < world.coordinator_gone_until;
                    let answer = if gone {
                        Err(Code::NotCoordinator)
                    } else {
                        execute(&mut world)
                    };
                    let latency = world.millis(0..1);
                    world.advance(latency);
                    let answer = if world.broker.deaths == deaths {
                        answer
                    } else {
                        *suspect = true;
                        Err(Code::NotCoordinator)
                    };
                    match answer {
                        Err(Code::Concurrent) => Duration::from_millis(20),
                        Err(Code::NotCoordinator) => request.backoff,
                        answer => {
                            drop(world);
                            self.pass();
                            return answer;
                        }
                    }
                }
                Trouble::LostRequest => {
                    world.trouble("lost request", || request.name.to_owned());
                    *suspect = true;
                    backoff(&mut world, request)
                }
                Trouble::LostAnswer => {
                    world.trouble("lost answer", || request.name.to_owned());
                    let _ = execute(&mut world);
                    *suspect = true;
                    backoff(&mut world, request)
                }
                Trouble::Held(delay) => {
                    world.trouble("held", || format!("{} for {delay:?}", request.name));
                    let late = execute.clone();
                    let name = request.name;
                    let arrive = move |world: &mut World| {
                        // It does not outlive the connection.
                        // Nor is a repair that commits cut short by a late initialisation: the same
                        // window as above.
                        let is_left_out = name == "InitProducerId" && world.is_anyone_mending();
                        if world.broker.deaths == deaths && !is_left_out {
                            let answer = late(world).err();
                            world.note(|| format!("late {name} arrives: {answer:?}"));
                        }
                    };
                    world.schedule(delay, Event::Late(Box::new(arrive)));
                    *suspect = true;
                    backoff(&mut world, request)
                }
            };
            let next = world.now + again;
            if next >= deadline {
                world.advance_to(deadline);
                world.note(|| format!("{} has timed out", request.name));
                return Err(Code::TimedOut);
            }
            world.advance_to(next);
        }
    }

    fn is_given_up(&self, request: Request) -> bool {
        let mut world = self.world();
        let breaks = world.processes[self.process].breaks;
        let is_given_up = request.breaks.is_some_and(|known| breaks != known);
        if is_given_up {
            world.note(|| format!("{} is given up: the connection broke", request.name));
        }
        is_given_up
    }

    /// What becomes of a request on its way.
    fn send(&self) -> Trouble {
        let mut world = self.world();
        let faults = world.faults;
        let latency = if world.chance(faults.slow) {
            world.millis(5..1500)
        } else {
            Duration::from_micros(world.dice.u64(50..900))
        };
        let deaths = world.broker.deaths;
        world.advance(latency);
        let is_lost = world.broker.deaths != deaths;
        let is_reachable = world.is_reachable(self.process) && !is_lost;
        if is_reachable && world.notice_break(self.process) {
            return Trouble::LostRequest;
        }
        if !is_reachable || world.chance(faults.lost_request) {
            return Trouble::LostRequest;
        }
        if world.chance(faults.moved) {
            let gone = world.millis(1..400);
            world.coordinator_gone_until = world.now + gone;
            return Trouble::LostAnswer;
        }
        if world.chance(faults.lost_answer) {
            return Trouble::LostAnswer;
        }
        if world.chance(faults.held) {
            let delay = if world.dice.bool() {
                world.millis(90..400)
            } else {
                world.millis(100..6000)
            };
            return Trouble::Held(delay);
        }
        Trouble::None
    }
}

/// How long a client waits before it sends a request again.
fn backoff(world: &mut World, request: Request) -> Duration {
    // A stalled connection is given up later than a broken one.
    if world.chance(0.2) {
        SOCKET_TIMEOUT
    } else {
        request.backoff
    }
}
