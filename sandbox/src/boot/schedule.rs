//! How a process of the container is scheduled, from its description: what the sched_*(2) calls of programs then tell.
use kernel::Scheduling;

use crate::spec::Process;

/// The policies, by number.
const POLICIES: [(&str, i32); 6] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
];
/// The classes of ioprio_set(2), by number.
const CLASSES: [(&str, u16); 3] = [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];
/// Where the class lies in what ioprio_set(2) takes.
const CLASS_SHIFT: u16 = 13;

/// Checks what a description says.
///
/// # Errors
/// What has no meaning.
pub(super) fn check(process: &Process) -> Result<(), String> {
    apply(process, &mut fresh())
}

fn fresh() -> Scheduling {
    Scheduling {
        policy: 0,
        priority: 0,
        nice: 0,
        reset_on_fork: false,
        affinity: [1].into(),
        io_priority: 0,
        timer_slack_ns: 0,
    }
}

/// Changes what a process starts with.
///
/// # Errors
/// What has no meaning.
pub(super) fn apply(process: &Process, scheduling: &mut Scheduling) -> Result<(), String> {
    if let Some(wanted) = &process.scheduler {
        let known = POLICIES.iter().find(|(name, _)| *name == wanted.policy);
        let (_, policy) =
            known.ok_or_else(|| format!("process.scheduler: {:?} is no policy", wanted.policy))?;
        let real_time = matches!(*policy, 1 | 2);
        if real_time != (1..=99).contains(&wanted.priority) || !(-20..=19).contains(&wanted.nice) {
            return Err(format!("process.scheduler: {} with priority {}", wanted.policy, wanted.priority));
        }
        (scheduling.policy, scheduling.priority, scheduling.nice) = (*policy, wanted.priority, wanted.nice);
        scheduling.reset_on_fork = wanted.flags.iter().any(|flag| flag == "SCHED_FLAG_RESET_ON_FORK");
    }
    if let Some(wanted) = &process.io_priority {
        let known = CLASSES.iter().find(|(name, _)| *name == wanted.class);
        let (_, class) =
            known.ok_or_else(|| format!("process.ioPriority: {:?} is no class", wanted.class))?;
        if wanted.priority > 7 {
            return Err(format!("process.ioPriority: there is no priority {}", wanted.priority));
        }
        scheduling.io_priority = class << CLASS_SHIFT | wanted.priority;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduling(text: &str) -> Result<(i32, i32, i32, u16), String> {
        let process: Process = serde_json::from_str(text).unwrap();
        let mut scheduling = fresh();
        apply(&process, &mut scheduling)?;
        Ok((scheduling.policy, scheduling.priority, scheduling.nice, scheduling.io_priority))
    }

    #[test]
    fn reads_policies_and_classes() {
        let fifo = r#"{"cwd":"/","scheduler":{"policy":"SCHED_FIFO","priority":10}}"#;
        assert_eq!(scheduling(fifo), Ok((1, 10, 0, 0)));
        let idle = r#"{"cwd":"/","scheduler":{"policy":"SCHED_BATCH","nice":5},"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":4}}"#;
        assert_eq!(scheduling(idle), Ok((3, 0, 5, 2 << 13 | 4)));
        for bad in [
            r#"{"cwd":"/","scheduler":{"policy":"SCHED_FOO"}}"#,
            r#"{"cwd":"/","scheduler":{"policy":"SCHED_FIFO"}}"#,
            r#"{"cwd":"/","ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8}}"#,
        ] {
            assert!(scheduling(bad).is_err(), "{bad}");
        }
    }
}
