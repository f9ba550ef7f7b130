//! The hand-off between the sentry and a guest thread, every interleaving of it: a model of `systrap/code.rs`, `thread.rs`
//! and `interrupt.rs`, step by step, on a machine whose stores wait in a buffer as those of x86-64 do.
//!
//! Three run at once: the sentry's thread, which resumes the guest so many times; the guest's thread, which makes a system
//! call each time or computes for ever; and one that interrupts it. Where nobody can go on, the sentry must have done all
//! its rounds, or the guest computes and nobody has asked it to stop.
#![cfg(test)]

use std::collections::{HashSet, VecDeque};

/// Words that they share.
const COMMAND: usize = 0;
const EVENT: usize = 1;
const SENTRY_ASLEEP: usize = 2;
const STUB_ASLEEP: usize = 3;
const INTERRUPT: usize = 4;
const KIND: usize = 5;
/// The interrupter's word, which the guest's thread does not have.
const STATE: usize = 6;

const RUNNING: u8 = 1;
const PENDING: u8 = 2;

const SYSCALL: u8 = 1;
const SIGNAL: u8 = 2;
const LEAVING: u8 = 3;

/// Who runs.
const SENTRY: usize = 0;
const STUB: usize = 1;
const OTHER: usize = 2;

/// What is left out of the protocol, to see that the model finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Nothing,
    /// The thread does not look at the command again before it sleeps.
    LastLookOfStub,
    /// The sentry tells that it sleeps by a plain store.
    BarrierOfSentry,
    /// The thread tells that it sleeps by a plain store.
    BarrierOfStub,
    /// The thread's event is a plain store.
    BarrierOfEvent,
    /// The thread does not look at the interrupt before it runs the guest.
    InterruptWord,
    /// A signal that comes on the way to the guest is forgotten.
    SignalOnTheWay,
    /// The sentry clears the word after it looked whether an interrupt is pending.
    OrderOfClearing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Sentry {
    Enter,
    Issue,
    MaybeWake,
    Wake,
    Spin,
    TellAsleep,
    LastLook,
    Sleep(u8),
    Awake,
    Look,
    ClearWord,
    IsPending,
    ClearWordLate,
    LeaveSeen,
    Leave(u8),
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stub {
    Wait,
    Compare(u8),
    TellAsleep(u8),
    LastLook(u8),
    Sleep(u8),
    Awake,
    Resume,
    Leave,
    Guest,
    Computes,
    Saved,
    Stay,
    Post,
    Exchange(u8),
    Notify,
    WakeSentry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Other {
    Ask,
    StoreWord,
    Send,
    Wake,
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    memory: [u8; 7],
    /// Stores that others do not see yet, by who made them.
    buffers: [VecDeque<(usize, u8)>; 3],
    sentry: Sentry,
    stub: Stub,
    other: Other,
    /// Who sleeps in futex(2), on which word.
    asleep: [Option<usize>; 3],
    /// The host's signal for the guest's thread.
    signal: bool,
    command: u8,
    rounds: u8,
    interrupts: u8,
}

impl World {
    fn load(&self, who: usize, word: usize) -> u8 {
        let own = self.buffers[who].iter().rev().find(|(at, _)| *at == word);
        own.map_or(self.memory[word], |(_, value)| *value)
    }

    fn store(&mut self, who: usize, word: usize, value: u8) {
        self.buffers[who].push_back((word, value));
    }

    /// Whether a locked instruction, or a host call, can be: its own stores come first.
    fn is_drained(&self, who: usize) -> bool {
        self.buffers[who].is_empty()
    }

    fn wake(&mut self, word: usize) {
        if let Some(sleeper) = self.asleep.iter_mut().find(|sleeper| **sleeper == Some(word)) {
            *sleeper = None;
        }
    }

    /// All that may come next.
    fn next(&self, without: Without) -> Vec<World> {
        let mut all = Vec::new();
        for who in [SENTRY, STUB, OTHER] {
            if let Some((word, value)) = self.buffers[who].front().copied() {
                let mut world = self.clone();
                world.buffers[who].pop_front();
                world.memory[word] = value;
                all.push(world);
            }
        }
        if self.asleep[SENTRY].is_none() {
            self.sentry_steps(without, &mut all);
        }
        if self.asleep[STUB].is_none() {
            self.stub_steps(without, &mut all);
        }
        self.other_steps(&mut all);
        self.signal_steps(without, &mut all);
        all
    }

    fn sentry_steps(&self, without: Without, all: &mut Vec<World>) {
        let mut w = self.clone();
        let drained = self.is_drained(SENTRY);
        let load = |word| self.load(SENTRY, word);
        match self.sentry {
            Sentry::Enter if self.rounds == 0 => w.sentry = Sentry::Done,
            Sentry::Enter if drained => {
                let pending = self.memory[STATE] & PENDING != 0;
                w.memory[STATE] |= RUNNING;
                w.sentry = if pending { Sentry::LeaveSeen } else { Sentry::Issue };
            }
            Sentry::Issue if drained => {
                w.command += 1;
                w.memory[COMMAND] = w.command;
                w.sentry = Sentry::MaybeWake;
            }
            Sentry::MaybeWake => {
                w.sentry = if load(STUB_ASLEEP) == 0 { Sentry::Spin } else { Sentry::Wake };
            }
            Sentry::Wake if drained => {
                w.wake(COMMAND);
                w.sentry = Sentry::Spin;
            }
            Sentry::Spin | Sentry::TellAsleep | Sentry::LastLook | Sentry::Sleep(_) | Sentry::Awake => {
                return self.sentry_waits(without, all);
            }
            Sentry::Look if load(KIND) == SYSCALL => w.sentry = Sentry::Leave(RUNNING),
            Sentry::Look if without == Without::OrderOfClearing => w.sentry = Sentry::IsPending,
            Sentry::Look => w.sentry = Sentry::ClearWord,
            Sentry::ClearWord if drained => {
                w.memory[INTERRUPT] = 0;
                w.sentry = Sentry::IsPending;
            }
            Sentry::IsPending => {
                let pending = load(STATE) & PENDING != 0;
                w.sentry = match (pending, without) {
                    (true, _) => Sentry::LeaveSeen,
                    (false, Without::OrderOfClearing) => Sentry::ClearWordLate,
                    (false, _) => Sentry::Issue,
                };
            }
            Sentry::ClearWordLate if drained => {
                w.memory[INTERRUPT] = 0;
                w.sentry = Sentry::Issue;
            }
            Sentry::LeaveSeen if drained => {
                w.memory[INTERRUPT] = 0;
                w.sentry = Sentry::Leave(RUNNING | PENDING);
            }
            Sentry::Leave(bits) if drained => {
                w.memory[STATE] &= !bits;
                w.rounds -= 1;
                w.sentry = Sentry::Enter;
            }
            _ => return,
        }
        all.push(w);
    }

    fn sentry_waits(&self, without: Without, all: &mut Vec<World>) {
        let mut w = self.clone();
        let drained = self.is_drained(SENTRY);
        let load = |word| self.load(SENTRY, word);
        let got = load(EVENT) == self.command;
        match self.sentry {
            Sentry::Spin if got => w.sentry = Sentry::Look,
            Sentry::Spin => w.sentry = Sentry::TellAsleep,
            Sentry::TellAsleep if without == Without::BarrierOfSentry => {
                w.store(SENTRY, SENTRY_ASLEEP, 1);
                w.sentry = Sentry::LastLook;
            }
            Sentry::TellAsleep if drained => {
                w.memory[SENTRY_ASLEEP] = 1;
                w.sentry = Sentry::LastLook;
            }
            Sentry::LastLook => w.sentry = if got { Sentry::Awake } else { Sentry::Sleep(load(EVENT)) },
            Sentry::Sleep(seen) if without == Without::BarrierOfSentry || drained => {
                if self.memory[EVENT] == seen {
                    w.asleep[SENTRY] = Some(EVENT);
                }
                w.sentry = Sentry::TellAsleep;
            }
            Sentry::Awake => {
                w.store(SENTRY, SENTRY_ASLEEP, 0);
                w.sentry = Sentry::Look;
            }
            _ => return,
        }
        all.push(w);
    }

    fn stub_steps(&self, without: Without, all: &mut Vec<World>) {
        let mut w = self.clone();
        let drained = self.is_drained(STUB);
        let load = |word| self.load(STUB, word);
        match self.stub {
            Stub::Wait => w.stub = Stub::Compare(load(EVENT)),
            Stub::Compare(event) if load(COMMAND) != event => w.stub = Stub::Resume,
            Stub::Compare(event) => w.stub = Stub::TellAsleep(event),
            Stub::TellAsleep(event) => {
                if without == Without::BarrierOfStub {
                    w.store(STUB, STUB_ASLEEP, 1);
                } else if drained {
                    w.memory[STUB_ASLEEP] = 1;
                } else {
                    return;
                }
                let last = without != Without::LastLookOfStub;
                w.stub = if last { Stub::LastLook(event) } else { Stub::Sleep(event) };
            }
            Stub::LastLook(event) if load(COMMAND) != event => w.stub = Stub::Awake,
            Stub::LastLook(event) => w.stub = Stub::Sleep(event),
            Stub::Sleep(event) => {
                // The host compares, too; what is shown here is that it need not be relied on for the order.
                let same = self.memory[COMMAND] == event || without == Without::LastLookOfStub;
                if same {
                    w.asleep[STUB] = Some(COMMAND);
                }
                w.stub = Stub::Awake;
            }
            Stub::Awake => {
                w.store(STUB, STUB_ASLEEP, 0);
                w.stub = Stub::Wait;
            }
            Stub::Resume => {
                let stay = load(INTERRUPT) != 0 && without != Without::InterruptWord;
                w.stub = if stay { Stub::Stay } else { Stub::Leave };
            }
            Stub::Leave => {
                let mut computes = self.clone();
                computes.stub = Stub::Computes;
                all.push(computes);
                w.stub = Stub::Guest;
            }
            Stub::Guest => w.stub = Stub::Saved,
            Stub::Saved => {
                w.store(STUB, KIND, SYSCALL);
                w.stub = Stub::Post;
            }
            Stub::Stay => {
                w.store(STUB, KIND, LEAVING);
                w.stub = Stub::Post;
            }
            Stub::Post => w.stub = Stub::Exchange(load(COMMAND)),
            Stub::Exchange(command) => {
                if without == Without::BarrierOfEvent {
                    w.store(STUB, EVENT, command);
                } else if drained {
                    w.memory[EVENT] = command;
                } else {
                    return;
                }
                w.stub = Stub::Notify;
            }
            Stub::Notify if load(SENTRY_ASLEEP) == 0 => w.stub = Stub::Wait,
            Stub::Notify => w.stub = Stub::WakeSentry,
            Stub::WakeSentry if drained => {
                w.wake(EVENT);
                w.stub = Stub::Wait;
            }
            Stub::Computes | Stub::WakeSentry => return,
        }
        all.push(w);
    }

    fn other_steps(&self, all: &mut Vec<World>) {
        let mut w = self.clone();
        match self.other {
            Other::Ask if self.interrupts == 0 => w.other = Other::Done,
            Other::Ask => {
                let before = self.memory[STATE];
                w.memory[STATE] |= PENDING;
                w.interrupts -= 1;
                w.other = if before == RUNNING { Other::StoreWord } else { Other::Ask };
            }
            Other::StoreWord => {
                w.memory[INTERRUPT] = 1;
                w.other = Other::Send;
            }
            Other::Send => {
                w.signal = true;
                w.other = Other::Wake;
            }
            Other::Wake => {
                w.wake(EVENT);
                w.other = Other::Ask;
            }
            Other::Done => return,
        }
        all.push(w);
    }

    /// The host takes the thread to its signal's entry, from wherever it is.
    fn signal_steps(&self, without: Without, all: &mut Vec<World>) {
        if !self.signal || !self.is_drained(STUB) {
            return;
        }
        let mut w = self.clone();
        (w.signal, w.asleep[STUB]) = (false, None);
        let (kind, stub) = match self.stub {
            Stub::Guest | Stub::Computes => (Some(SIGNAL), Stub::Post),
            Stub::Leave if without == Without::SignalOnTheWay => (None, Stub::Leave),
            Stub::Resume | Stub::Leave | Stub::Stay => (Some(LEAVING), Stub::Post),
            Stub::Saved => (None, Stub::Saved),
            Stub::Post | Stub::Exchange(_) => (None, Stub::Post),
            Stub::Wait
            | Stub::Compare(_)
            | Stub::TellAsleep(_)
            | Stub::LastLook(_)
            | Stub::Sleep(_)
            | Stub::Awake
            | Stub::Notify
            | Stub::WakeSentry => (None, Stub::Notify),
        };
        if let Some(kind) = kind {
            w.memory[KIND] = kind;
        }
        w.stub = stub;
        all.push(w);
    }

    /// Nobody can go on: is that as it should be?
    fn is_fine(&self) -> bool {
        let computes = self.stub == Stub::Computes && self.memory[STATE] & PENDING == 0;
        self.other == Other::Done && (self.sentry == Sentry::Done || computes)
    }
}

/// Goes through every interleaving; the first end that should not be, and how many states there are.
fn explore(without: Without, rounds: u8, interrupts: u8) -> (Option<World>, usize) {
    let start = World {
        memory: [0; 7],
        buffers: Default::default(),
        sentry: Sentry::Enter,
        stub: Stub::Wait,
        other: Other::Ask,
        asleep: [None; 3],
        signal: false,
        command: 0,
        rounds,
        interrupts,
    };
    let mut seen = HashSet::from([start.clone()]);
    let mut left = vec![start];
    while let Some(world) = left.pop() {
        let next = world.next(without);
        if next.is_empty() && !world.is_fine() {
            return (Some(world), seen.len());
        }
        left.extend(next.into_iter().filter(|world| seen.insert(world.clone())));
    }
    (None, seen.len())
}

#[test]
fn no_wake_up_and_no_interrupt_is_lost() {
    for (rounds, interrupts) in [(3, 0), (2, 1), (2, 2)] {
        let (bad, states) = explore(Without::Nothing, rounds, interrupts);
        assert_eq!(bad, None, "of {states}");
        assert!(states > 1000, "{states}");
    }
}

#[test]
fn what_is_left_out_is_missed() {
    for without in [
        Without::LastLookOfStub,
        Without::BarrierOfSentry,
        Without::BarrierOfStub,
        Without::BarrierOfEvent,
        Without::InterruptWord,
        Without::SignalOnTheWay,
        Without::OrderOfClearing,
    ] {
        assert!(explore(without, 2, 2).0.is_some(), "{without:?}");
    }
}
