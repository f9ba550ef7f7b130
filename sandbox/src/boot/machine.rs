//! What the container's kernel is made of.
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kernel::{HostAuxv, Kernel, KernelArgs};
use memmap::MemoryFile;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use platform::Platform;

use super::clock::HostTime;
use super::{BootArgs, report};
use crate::sys;

/// As much of the host's /proc/cpuinfo as one processor may take.
const CPU_INFO: u64 = 16 << 10;
/// The memory of a machine that does not tell.
const MEMORY: u64 = 2 << 30;
/// The most bytes of a buffer that a report of a system call shows.
const MAX_STRACE_BYTES: usize = 64 << 10;

/// What the host says about itself; looked up while its files are still there.
#[derive(Debug)]
pub(super) struct Machine {
    auxv: platform::HostAuxv,
    cpus: u32,
    cpu_info: String,
    /// Bytes of memory.
    memory: u64,
    /// Whether system calls are reported now.
    pub(super) traced: Arc<AtomicBool>,
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
        Self { auxv: platform::host_auxv(), cpus, cpu_info, memory, traced: Arc::default() }
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
        kernel.quota().set_memory(args.memory_limit.unwrap_or(u64::MAX).min(self.memory));
        if let Some(limit) = args.task_limit {
            kernel.quota().set_tasks(limit);
        }
        kernel.quota().set_cpu(args.cpu_limit);
        if let Some(name) = &args.domainname {
            kernel.uts().set_domainname(name.as_bytes());
        }
        Self::set_parameters(&kernel, args);
        kernel.platform().on_stub_death(Box::new(|error| report::killed(&error.to_string())));
        kernel
    }

    /// Sets the kernel parameters that are names.
    pub(super) fn set_parameters(kernel: &Kernel, args: &BootArgs) {
        for (name, value) in &args.sysctl {
            match name.as_str() {
                "kernel.hostname" => kernel.uts().set_hostname(value.as_bytes()),
                "kernel.domainname" => kernel.uts().set_domainname(value.as_bytes()),
                // The others are set in the container's tree.
                _ => {}
            }
        }
    }

    /// Registers what other crates add to the kernel, once a sandbox.
    pub(super) fn register(&self, kernel: &Arc<Kernel>, args: &BootArgs) {
        let strace = Some(syscalls::strace::StraceOptions {
            only: args.strace.clone().unwrap_or_default(),
            max_bytes: args.strace_bytes.min(MAX_STRACE_BYTES),
            sink: Box::new(report::line),
        });
        self.traced.store(args.strace.is_some(), Ordering::Relaxed);
        syscalls::install(kernel, syscalls::Options { strace, traced: Arc::clone(&self.traced) });
        fs_mqueue::register();
        fs_proc::register(&self.cpu_info);
        vfs::tmpfs::register(kernel.memory_file(), kernel.quota().memory() / 2);
        vfs::devices::register(kernel);
        net::unix::register();
        vfs::tty::register();
    }
}
