//! The time, as the host tells it.
use nix::time::{ClockId, clock_gettime};
use sync::Clock;

/// The host's clocks, not counted from the start of the sandbox: programs read the same clocks by the vDSO without asking.
#[derive(Debug)]
pub(super) struct HostTime;

fn read(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).expect("every Linux has this clock");
    let (seconds, ns) = (u64::try_from(now.tv_sec()).unwrap_or(0), u64::try_from(now.tv_nsec()).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(ns)
}

impl Clock for HostTime {
    fn monotonic_ns(&self) -> u64 {
        read(ClockId::CLOCK_MONOTONIC)
    }
    fn realtime_ns(&self) -> u64 {
        read(ClockId::CLOCK_REALTIME)
    }
    fn other_ns(&self, clock: i32) -> Option<u64> {
        let other = [
            ClockId::CLOCK_MONOTONIC_RAW,
            ClockId::CLOCK_REALTIME_COARSE,
            ClockId::CLOCK_MONOTONIC_COARSE,
            ClockId::CLOCK_BOOTTIME,
            ClockId::CLOCK_TAI,
        ];
        other.into_iter().find(|known| known.as_raw() == clock).map(read)
    }
}
