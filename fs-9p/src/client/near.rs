//! From which CPU requests come, as the server is told.

use nix::sched::sched_getcpu;

/// No CPU in particular.
const ANY: u32 = u32::MAX;
/// How many requests in a row must come from elsewhere before the server is told: moving costs it more than some of them.
const STEADY: u32 = 8;

/// What the server was told, and what has been seen since.
#[derive(Debug)]
pub(super) struct Near {
    told: u32,
    seen: u32,
    times: u32,
}

impl Near {
    pub(super) const fn new() -> Self {
        Self { told: ANY, seen: ANY, times: 0 }
    }

    /// The CPU of the calling thread.
    pub(super) fn here() -> u32 {
        sched_getcpu().ok().and_then(|cpu| u32::try_from(cpu).ok()).unwrap_or(ANY)
    }

    /// A request comes from this CPU, `alone` or while others are on their way; gives what the server is to be told now.
    pub(super) const fn note(&mut self, cpu: u32, alone: bool) -> Option<u32> {
        let now = if alone { cpu } else { ANY };
        if now != self.seen {
            (self.seen, self.times) = (now, 0);
        }
        if now == self.told {
            return None;
        }
        self.times += 1;
        if self.times < STEADY {
            return None;
        }
        self.told = now;
        Some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_told_of_what_stays() {
        let mut near = Near::new();
        let mut told = |cpu, alone, times| (0..times).find_map(|_| near.note(cpu, alone));
        assert_eq!(told(1, true, STEADY - 1), None);
        assert_eq!(told(0, true, 1), None);
        assert_eq!(told(1, true, STEADY - 1), None);
        assert_eq!(told(1, true, 1), Some(1));
        assert_eq!(told(1, true, 100), None);
        // Now and then from elsewhere, or with others, is not yet elsewhere.
        assert_eq!((told(0, true, 3), told(1, false, 3), told(1, true, 3)), (None, None, None));
        assert_eq!(told(1, false, 100), Some(ANY));
        assert_eq!(told(0, true, 100), Some(0));
    }
}
