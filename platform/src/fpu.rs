//! The FPU state of a new program.
use core::arch::x86_64::{__cpuid_count, _xgetbv};
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

/// Tells whether the processor takes a state: one of the right size, in the standard format, with nothing in it that is
/// not enabled, and no reserved bit set in MXCSR or the header (Intel SDM volume 1, section 13.8).
pub(crate) fn is_loadable(state: &[u8]) -> bool {
    let word =
        |at: usize| state.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    let (Some(mxcsr), Some(present)) = (word(24), word(512)) else { return false };
    let reserved = (520..576).step_by(8).any(|at| word(at) != Some(0));
    state.len() >= size()
        && mxcsr & 0xffff_ffff & !mxcsr_mask() == 0
        && present & !enabled() == 0
        && !reserved
}

/// Says in a state that was just saved which components there are, as the host's regset has it: in the first of the bytes
/// that are left to software.
pub(crate) fn mark(state: &mut [u8]) {
    if let Some(software) = state.get_mut(464..512) {
        software.fill(0);
    }
    if let Some(place) = state.get_mut(464..472) {
        place.copy_from_slice(&enabled().to_le_bytes());
    }
}

/// XCR0: the states that the kernel enabled.
fn enabled() -> u64 {
    #[target_feature(enable = "xsave")]
    fn read() -> u64 {
        // SAFETY: XCR0 exists wherever the instruction does.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: no back end starts on a processor without XSAVE.
    unsafe { read() }
}

/// The bits that MXCSR may have, from an image of this thread's own state.
fn mxcsr_mask() -> u64 {
    #[repr(align(16))]
    struct Area([u8; 512]);
    static MASK: OnceLock<u64> = OnceLock::new();
    *MASK.get_or_init(|| {
        let mut area = Area([0; 512]);
        // SAFETY: FXSAVE writes 512 bytes to an aligned place.
        unsafe { core::arch::x86_64::_fxsave64(area.0.as_mut_ptr()) };
        let [.., a, b, c, d] = *area.0.first_chunk::<32>().unwrap_or(&[0; 32]);
        match u32::from_le_bytes([a, b, c, d]) {
            0 => 0xffbf,
            mask => mask.into(),
        }
    })
}
