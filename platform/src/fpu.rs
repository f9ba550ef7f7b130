//! The FPU state of a new program.
use core::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use crate::FpuState;

/// The size of the state in the standard format with everything that the kernel enabled: CPUID leaf 0DH, EBX.
pub(crate) fn size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| __cpuid_count(0xd, 0).ebx as usize)
}

/// Everything in its initial configuration. Protection keys are not among it: their initial configuration would allow
/// every key, Linux starts a program with the default key only.
pub(crate) fn initial() -> FpuState {
    let mut area = vec![0; size().max(576)];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = area.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, &0x37f_u16.to_le_bytes());
    put(24, &0x1f80_u32.to_le_bytes());
    // XSTATE_BV: x87 and SSE are here, all else is initial.
    put(512, &3_u64.to_le_bytes());
    if let Some(offset) = protection_keys() {
        put(offset, &0x5555_5554_u32.to_le_bytes());
        put(512, &(3_u64 | 1 << 9).to_le_bytes());
    }
    FpuState(area.into_boxed_slice())
}

/// Where the PKRU register is in the state, if the kernel uses protection keys.
fn protection_keys() -> Option<usize> {
    const OSPKE: u32 = 1 << 4;
    if __cpuid_count(7, 0).ecx & OSPKE == 0 {
        return None;
    }
    Some(__cpuid_count(0xd, 9).ebx as usize).filter(|offset| *offset >= 576)
}
