//! Filters of host system calls: rules are data, each with its reason.
pub(crate) mod gofer;
pub(crate) mod proxy;
pub(crate) mod sentry;

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// Why a filter is not in force.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The rules make no program.
    #[error("{0}")]
    Compile(#[from] seccompiler::BackendError),
    /// The host refuses.
    #[error("{0}")]
    Install(#[from] seccompiler::Error),
}

/// What an argument must be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Is {
    /// This value, of 32 bits.
    Equal(u32),
    /// All of these bits set, of 64.
    Has(u64),
}

/// A call that is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// Its number.
    pub(crate) nr: i64,
    /// What it is needed for.
    pub(crate) why: &'static str,
    /// Which argument must be what; all of them.
    pub(crate) with: &'static [(u8, Is)],
}

impl Rule {
    /// Allows a call with whatever arguments.
    pub(crate) const fn any(nr: i64, why: &'static str) -> Self {
        Self { nr, why, with: &[] }
    }

    /// Allows a call with these arguments.
    pub(crate) const fn with(nr: i64, why: &'static str, with: &'static [(u8, Is)]) -> Self {
        Self { nr, why, with }
    }
}

/// Makes the program. A call that no rule allows ends the process, whatever flags it was started with: the host's audit log
/// names the call.
fn compile(rules: &[Rule]) -> Result<BpfProgram, FilterError> {
    let mut map: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut free: Vec<i64> = Vec::new();
    for rule in rules {
        debug_assert!(!rule.why.is_empty(), "each rule says why");
        let entry = map.entry(rule.nr).or_default();
        if rule.with.is_empty() {
            free.push(rule.nr);
            continue;
        }
        let conditions = rule.with.iter().map(|(index, is)| match is {
            Is::Equal(value) => {
                SeccompCondition::new(*index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(*value))
            }
            Is::Has(bits) => {
                SeccompCondition::new(*index, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(*bits), *bits)
            }
        });
        entry.push(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?);
    }
    for nr in free {
        map.insert(nr, Vec::new());
    }
    let filter =
        SeccompFilter::new(map, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?;
    Ok(filter.try_into()?)
}

/// Puts the rules in force for this process, which must have one thread and `no_new_privs`.
pub(crate) fn install(rules: &[Rule]) -> Result<(), FilterError> {
    Ok(seccompiler::apply_filter(&compile(rules)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of host calls that design §10 allows the sentry.
    const MOST: usize = 60;

    #[test]
    fn the_filters_compile_and_are_small() {
        for host_calls in [platform::ptrace::HOST_CALLS, platform::systrap::HOST_CALLS] {
            let mut rules = sentry::rules();
            rules.extend(host_calls.iter().map(|(nr, why)| Rule::any(*nr, why)));
            assert!(compile(&rules).is_ok());
            let calls: std::collections::BTreeSet<i64> = rules.iter().map(|rule| rule.nr).collect();
            assert!(calls.len() <= MOST, "{} calls", calls.len());
        }
        assert!(compile(&gofer::rules()).is_ok());
        assert!(compile(&proxy::rules()).is_ok());
    }

    #[test]
    fn no_rule_is_redundant() {
        for rules in [sentry::rules(), gofer::rules(), proxy::rules()] {
            for rule in rules.iter().filter(|rule| rule.with.is_empty()) {
                let same = rules.iter().filter(|other| other.nr == rule.nr).count();
                assert_eq!(same, 1, "{} ({}) is allowed twice", rule.nr, rule.why);
            }
        }
    }
}
