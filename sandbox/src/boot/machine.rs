//! What the container's kernel is made of.
use std::io::Read;
use std::sync::Arc;

use kernel::{HostAuxv, Kernel, KernelArgs};
use memmap::MemoryFile;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use platform::Platform;
use vfs::tty::Devpts;

use super::clock::HostTime;
use super::{BootArgs, report};
use crate::sys;

/// As much of the host's /proc/cpuinfo as one processor may take.
const CPU_INFO: u64 = 16 << 10;
/// The memory of a machine that does not tell.
const MEMORY: u64 = 2 << 30;
/// How many bytes of a buffer strace shows.
const STRACE_BYTES: usize = 64;

/// What the host says about itself; looked up while its files are still there.
#[derive(Debug)]
pub(super) struct Machine {
    auxv: platform::HostAuxv,
    cpus: u32,
    cpu_info: String,
    /// Bytes of memory.
    memory: u64,
}

impl Machine {
    /// Looks.
    pub(super) fn look() -> Self {
        let mut text = Vec::new();
        let file = std::fs::File::open("/proc/cpuinfo");
        // Without it programs see less.
        let _unknown = file.and_then(|file| file.take(CPU_INFO).read_to_end(&mut text));
        let text = String::from_utf8_lossy(&text);
        let first = text.split("\n\n").next().unwrap_or_default();
        let lines = first.lines().filter(|line| !line.starts_with("processor"));
        let cpu_info = lines.map(|line| format!("{line}\n")).collect();
        let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
        let count = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).count();
        let cpus = u32::try_from(count).unwrap_or(1).max(1);
        let memory = nix::sys::sysinfo::sysinfo().map_or(MEMORY, |info| info.ram_total());
        Self { auxv: platform::host_auxv(), cpus, cpu_info, memory }
    }

    /// Makes the kernel.
    pub(super) fn kernel(
        &self,
        platform: Arc<dyn Platform>,
        memory_file: Arc<MemoryFile>,
        args: &BootArgs,
    ) -> Arc<Kernel> {
        let host = HostAuxv {
            hwcap: self.auxv.hwcap,
            hwcap2: self.auxv.hwcap2,
            min_signal_stack: self.auxv.min_signal_stack,
            vdso: platform.vdso(),
        };
        memory_file.set_limit(self.memory);
        let kernel = Kernel::new(KernelArgs {
            memory_file,
            clock: Arc::new(HostTime),
            host,
            hostname: args.hostname.clone().into_bytes(),
            cpus: self.cpus,
            random: Box::new(sys::random),
            platform,
        });
        if let Some(name) = &args.domainname {
            kernel.uts().set_domainname(name.as_bytes());
        }
        kernel.platform().on_stub_death(Box::new(|error| report::die(&error.to_string())));
        kernel
    }

    /// Registers what other crates add to the kernel.
    pub(super) fn register(&self, kernel: &Arc<Kernel>, args: &BootArgs) -> Arc<Devpts> {
        let strace = args.strace.as_ref().map(|only| syscalls::strace::StraceOptions {
            only: only.clone(),
            max_bytes: STRACE_BYTES,
            sink: Box::new(report::line),
        });
        syscalls::install(kernel, syscalls::Options { strace });
        fs_proc::register(kernel, &self.cpu_info);
        vfs::tmpfs::register(kernel.memory_file(), self.memory / 2);
        vfs::devices::register(kernel);
        net::unix::register();
        vfs::tty::register(kernel)
    }
}
