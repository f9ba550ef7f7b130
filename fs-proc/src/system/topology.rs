//! How the processors of the sandbox are laid out, as `/sys/devices/system/cpu` and `/proc/cpuinfo` tell it: one package, one
//! node, and each processor a core of its own, for the host decides which of its processors they are at any time.
use kernel::Kernel;

/// What is in the directory of one processor.
#[derive(Debug)]
pub(crate) enum PerCpu {
    /// A file, made for the processor with this number.
    File(fn(&Kernel, u32) -> String),
    /// A directory.
    Dir(CpuTable),
}

/// A directory of one processor.
pub(crate) type CpuTable = &'static [(&'static str, PerCpu)];

/// How many processors there are.
fn count(kernel: &Kernel) -> u32 {
    kernel.cpus().max(1)
}

/// What a line of `/proc/cpuinfo` says of one processor, if it tells of the layout: the sandbox's, not the host's.
pub(crate) fn layout_line(kernel: &Kernel, cpu: u32, name: &str) -> Option<u32> {
    Some(match name {
        "physical id" => 0,
        "siblings" | "cpu cores" => count(kernel),
        "core id" | "apicid" | "initial apicid" => cpu,
        _ => return None,
    })
}

/// A set of processors as a mask, Linux `bitmap_string`: words of 32 bits, the highest first, as wide as all processors.
fn mask(cpus: u32, has: impl Fn(u32) -> bool) -> String {
    let digit = |at: u32| (0..4).filter(|bit| has(at * 4 + bit)).map(|bit| 1 << bit).sum::<u32>();
    let digits = cpus.div_ceil(4);
    let mut out = String::new();
    for at in (0..digits).rev() {
        out.extend(char::from_digit(digit(at), 16));
        if at > 0 && at.is_multiple_of(8) {
            out.push(',');
        }
    }
    out + "\n"
}

/// The mask of all processors.
pub(super) fn all_mask(kernel: &Kernel) -> String {
    mask(count(kernel), |cpu| cpu < count(kernel))
}

/// The list of all processors.
pub(super) fn all_list(kernel: &Kernel) -> String {
    match count(kernel) {
        1 => "0\n".to_owned(),
        n => format!("0-{}\n", n - 1),
    }
}

fn own_mask(kernel: &Kernel, cpu: u32) -> String {
    mask(count(kernel), |other| other == cpu)
}

fn own_list(_: &Kernel, cpu: u32) -> String {
    format!("{cpu}\n")
}

const OWN_MASK: PerCpu = PerCpu::File(own_mask);
const OWN_LIST: PerCpu = PerCpu::File(own_list);
const ALL_MASK: PerCpu = PerCpu::File(|k, _| all_mask(k));
const ALL_LIST: PerCpu = PerCpu::File(|k, _| all_list(k));
const ZERO: PerCpu = PerCpu::File(|_, _| "0\n".to_owned());

/// The directory of a processor.
pub(crate) static CPU_N: CpuTable = &[("topology", PerCpu::Dir(TOPOLOGY))];

static TOPOLOGY: CpuTable = &[
    ("core_cpus", OWN_MASK),
    ("core_cpus_list", OWN_LIST),
    ("core_id", PerCpu::File(own_list)),
    ("core_siblings", ALL_MASK),
    ("core_siblings_list", ALL_LIST),
    ("die_cpus", ALL_MASK),
    ("die_cpus_list", ALL_LIST),
    ("die_id", ZERO),
    ("package_cpus", ALL_MASK),
    ("package_cpus_list", ALL_LIST),
    ("physical_package_id", ZERO),
    ("thread_siblings", OWN_MASK),
    ("thread_siblings_list", OWN_LIST),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_as_wide_as_all_processors() {
        assert_eq!(mask(2, |_| true), "f\n");
        assert_eq!(mask(2, |cpu| cpu < 2), "3\n");
        assert_eq!(mask(8, |cpu| cpu == 0), "01\n");
        assert_eq!(mask(40, |cpu| cpu == 33), "02,00000000\n");
    }
}
