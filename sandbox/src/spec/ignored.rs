//! What a configuration asks for that is accepted and has no effect, with the reason.
use super::Spec;

impl Spec {
    /// One line for each such thing; docs/oci.md has the same list for people.
    #[must_use]
    pub fn ignored(&self) -> Vec<String> {
        let mut said = Vec::new();
        let mut say = |is: bool, text: &str| {
            if is {
                said.push(format!("ignored: {text}"));
            }
        };
        if let Some(process) = &self.process {
            let given = |label: &Option<String>| label.as_ref().is_some_and(|label| !label.is_empty());
            say(
                given(&process.apparmor_profile),
                "process.apparmorProfile: no program of the container makes host calls that AppArmor sees",
            );
            say(
                given(&process.selinux_label),
                "process.selinuxLabel: no program of the container makes host calls that SELinux sees",
            );
            say(
                process.exec_cpu_affinity.is_some(),
                "process.execCPUAffinity: the host places the sandbox's threads",
            );
        }
        let Some(linux) = &self.linux else { return said };
        say(
            linux.mount_label.as_ref().is_some_and(|label| !label.is_empty()),
            "linux.mountLabel: mounts are the sandbox's own",
        );
        say(linux.intel_rdt.is_some(), "linux.intelRdt");
        say(linux.personality.is_some(), "linux.personality: there is one execution domain");
        say(linux.time_offsets.is_some(), "linux.timeOffsets: the sandbox's clocks are the host's");
        let propagates = linux.rootfs_propagation.as_deref().is_some_and(|p| p.ends_with("shared"));
        say(propagates, "linux.rootfsPropagation: mounts of the container stay in it");
        if let Some(resources) = &linux.resources {
            let listed = |value: &Option<serde_json::Value>| {
                value.as_ref().is_some_and(|v| v.as_array().is_none_or(|list| !list.is_empty()))
            };
            say(resources.rdma.is_some(), "linux.resources.rdma: the sandbox has no RDMA");
            say(listed(&resources.network), "linux.resources.network: the sandbox makes no packets");
        }
        let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
        let users = linux.namespaces.iter().any(|namespace| namespace.kind == "user");
        say(
            mapped && !users,
            "linux.uidMappings, linux.gidMappings: there is no user namespace to have them",
        );
        said
    }
}
