//! The seccomp profile of a container, applied to its programs by the sandbox's own kernel.
use std::collections::BTreeMap;
use std::sync::Arc;

use abi::Errno;
use abi::sysno::{ALL, syscall_name};
use kernel::seccomp::{Decide, FilterList, Seccomp, SeccompData, action};

use crate::spec;

/// The flag of a call of the x32 ABI, which the sandbox does not have.
const X32: u32 = 0x4000_0000;

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    MaskedEq,
}

#[derive(Clone, Copy, Debug)]
struct Condition {
    index: usize,
    compare: Compare,
    value: u64,
    second: u64,
}

impl Condition {
    fn holds(&self, data: &SeccompData) -> bool {
        let arg = data.args.get(self.index).copied().unwrap_or(0);
        match self.compare {
            Compare::Ne => arg != self.value,
            Compare::Lt => arg < self.value,
            Compare::Le => arg <= self.value,
            Compare::Eq => arg == self.value,
            Compare::Ge => arg >= self.value,
            Compare::Gt => arg > self.value,
            Compare::MaskedEq => arg & self.value == self.second,
        }
    }
}

/// A rule of one call: what happens where all conditions hold.
#[derive(Debug)]
struct Rule {
    conditions: Vec<Condition>,
    action: u32,
}

/// A profile, by call number.
#[derive(Debug)]
pub(super) struct Profile {
    rules: Vec<Vec<Rule>>,
    default: u32,
    /// For calls that are newer than the profile, as runc has it: `ENOSYS` where they are not allowed.
    newer: u32,
    highest: u32,
}

impl Decide for Profile {
    fn always_allows(&self, nr: u32) -> bool {
        match self.rules(nr).and_then(<[Rule]>::first) {
            Some(rule) => rule.conditions.is_empty() && rule.action == action::ALLOW,
            None => nr <= self.highest && self.default == action::ALLOW,
        }
    }

    fn decide(&self, data: &SeccompData) -> u32 {
        if data.nr & X32 != 0 {
            return self.default;
        }
        let found = self
            .rules(data.nr)
            .and_then(|rules| rules.iter().find(|rule| rule.conditions.iter().all(|c| c.holds(data))));
        match found {
            Some(rule) => rule.action,
            None if data.nr > self.highest => self.newer,
            None => self.default,
        }
    }
}

impl Profile {
    fn rules(&self, nr: u32) -> Option<&[Rule]> {
        usize::try_from(nr).ok().and_then(|nr| self.rules.get(nr)).map(Vec::as_slice)
    }
}

/// An action by its name.
fn action(name: &str, errno: Option<u32>) -> Result<u32, String> {
    let data = errno.unwrap_or_else(|| u32::from(Errno::EPERM.raw())).min(4095);
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => action::KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => action::KILL_PROCESS,
        "SCMP_ACT_TRAP" => action::TRAP,
        "SCMP_ACT_ERRNO" => action::ERRNO | data,
        // There is no tracer: what a tracer would be told is what the call gives.
        "SCMP_ACT_TRACE" => action::TRACE,
        "SCMP_ACT_LOG" => action::LOG,
        "SCMP_ACT_ALLOW" => action::ALLOW,
        "SCMP_ACT_NOTIFY" => return Err("linux.seccomp: SCMP_ACT_NOTIFY is not supported".to_owned()),
        other => return Err(format!("linux.seccomp: {other:?} is no action")),
    })
}

fn condition(arg: &spec::SeccompArg) -> Result<Condition, String> {
    let compare = match arg.op.as_str() {
        "SCMP_CMP_NE" => Compare::Ne,
        "SCMP_CMP_LT" => Compare::Lt,
        "SCMP_CMP_LE" => Compare::Le,
        "SCMP_CMP_EQ" => Compare::Eq,
        "SCMP_CMP_GE" => Compare::Ge,
        "SCMP_CMP_GT" => Compare::Gt,
        "SCMP_CMP_MASKED_EQ" => Compare::MaskedEq,
        other => return Err(format!("linux.seccomp: {other:?} compares nothing")),
    };
    let index = usize::try_from(arg.index).ok().filter(|index| *index < 6);
    let index = index.ok_or_else(|| format!("linux.seccomp: there is no argument {}", arg.index))?;
    Ok(Condition { index, compare, value: arg.value, second: arg.value_two })
}

/// The conditions of a rule; where one argument is named twice each is a rule of its own, as runc has it.
fn alternatives(args: &[spec::SeccompArg]) -> Result<Vec<Vec<Condition>>, String> {
    let conditions = args.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    let twice = |one: &Condition| conditions.iter().filter(|other| other.index == one.index).count() > 1;
    Ok(if conditions.iter().any(twice) {
        conditions.iter().map(|one| vec![*one]).collect()
    } else {
        vec![conditions]
    })
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// What has no meaning in it.
    pub(super) fn new(profile: &spec::Seccomp) -> Result<Self, String> {
        let numbers: BTreeMap<&str, u32> =
            ALL.iter().filter_map(|nr| Some((syscall_name(*nr)?, u32::try_from(*nr).ok()?))).collect();
        let default = action(&profile.default_action, profile.default_errno_ret)?;
        let span = numbers.values().copied().max().unwrap_or(0);
        let mut rules: Vec<Vec<Rule>> = (0..=span).map(|_| Vec::new()).collect();
        let mut highest = 0;
        for rule in &profile.syscalls {
            let action = action(&rule.action, rule.errno_ret)?;
            let alternatives = alternatives(&rule.args)?;
            // Names that the sandbox does not know are of other architectures, or of the future.
            for nr in rule.names.iter().filter_map(|name| numbers.get(name.as_str())) {
                highest = highest.max(*nr);
                let place = usize::try_from(*nr).ok().and_then(|nr| rules.get_mut(nr));
                let Some(place) = place.filter(|_| action != default) else { continue };
                place.extend(
                    alternatives.iter().map(|conditions| Rule { conditions: conditions.clone(), action }),
                );
            }
        }
        // What has no condition says all there is to say of a call (libseccomp, `db_rule_add`).
        for list in &mut rules {
            list.sort_by_key(|rule| !rule.conditions.is_empty());
        }
        let lets_through = matches!(default & action::MASK, action::ALLOW | action::LOG | action::TRACE);
        let newer = if lets_through { default } else { action::ERRNO | u32::from(Errno::ENOSYS.raw()) };
        Ok(Self { rules, default, newer, highest })
    }
}

/// What decides over the calls of a process of the container.
///
/// # Errors
/// What has no meaning in the profile.
pub(super) fn seccomp(profile: Option<&Arc<Profile>>, log: bool) -> Result<Seccomp, String> {
    let Some(profile) = profile else { return Ok(Seccomp::Disabled) };
    let decide: Arc<dyn Decide> = Arc::<Profile>::clone(profile);
    let list = FilterList::new(decide, 1, log, None).map_err(|errno| errno.to_string())?;
    Ok(Seccomp::Filter(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(text: &str) -> Result<Profile, String> {
        Profile::new(&serde_json::from_str(text).unwrap())
    }

    fn decide(profile: &Profile, nr: u32, args: [u64; 6]) -> u32 {
        profile.decide(&SeccompData { nr, arch: kernel::seccomp::ARCH_X86_64, ip: 0, args })
    }

    #[test]
    fn rules_decide() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["read","write","no_such_call"],"action":"SCMP_ACT_ALLOW"},
            {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]},
            {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]},
            {"names":["mount"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#;
        let profile = profile(text).unwrap();
        assert_eq!(decide(&profile, 0, [0; 6]), action::ALLOW);
        assert_eq!(decide(&profile, 2, [0; 6]), action::ERRNO | 1);
        assert_eq!(decide(&profile, 135, [8, 0, 0, 0, 0, 0]), action::ALLOW);
        assert_eq!(decide(&profile, 135, [9, 0, 0, 0, 0, 0]), action::ERRNO | 1);
        assert_eq!(decide(&profile, 56, [0x11, 0, 0, 0, 0, 0]), action::ALLOW);
        assert_eq!(decide(&profile, 56, [0x1000_0000, 0, 0, 0, 0, 0]), action::ERRNO | 1);
        assert_eq!(decide(&profile, 165, [0; 6]), action::ERRNO | 95);
        assert_eq!(decide(&profile, 400, [0; 6]), action::ERRNO | 38, "newer than the profile");
    }

    #[test]
    fn one_argument_twice_is_an_alternative() {
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["socket"],"action":"SCMP_ACT_ERRNO","args":[
            {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#;
        let profile = profile(text).unwrap();
        assert_eq!(decide(&profile, 41, [2, 0, 0, 0, 0, 0]), action::ERRNO | 1);
        assert_eq!(decide(&profile, 41, [3, 0, 0, 0, 0, 0]), action::ALLOW);
    }

    #[test]
    fn refuses_what_has_no_meaning() {
        for text in [
            r#"{"defaultAction":"SCMP_ACT_FOO"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#,
        ] {
            assert!(profile(text).is_err(), "{text}");
        }
    }
}
