//! Which users and groups exist for a container, and who they are outside (user_namespaces(7)).
//!
//! Inside ids are the container's own everywhere; what they are outside is the concern of who serves host files.

/// A range of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first, inside.
    pub inside: u32,
    /// The first, outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

impl IdRange {
    fn contains(self, id: u32) -> bool {
        id.checked_sub(self.inside).is_some_and(|offset| offset < self.count)
    }
}

/// The ids of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap(Vec<IdRange>);

impl Default for IdMap {
    /// The map of the initial user namespace: everybody exists, and is the same outside.
    fn default() -> Self {
        Self(vec![IdRange { inside: 0, outside: 0, count: u32::MAX }])
    }
}

impl IdMap {
    /// The map of these ranges, in their order.
    #[must_use]
    pub const fn new(ranges: Vec<IdRange>) -> Self {
        Self(ranges)
    }

    /// Whether the id exists.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        self.0.iter().any(|range| range.contains(id))
    }

    /// The lines of `/proc/PID/uid_map`, Linux `kernel/user_namespace.c:uid_m_show`.
    #[must_use]
    pub fn lines(&self) -> String {
        let line = |range: &IdRange| format!("{:10} {:10} {:10}\n", range.inside, range.outside, range.count);
        self.0.iter().map(line).collect()
    }
}

/// The users and groups of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMaps {
    /// Users.
    pub users: IdMap,
    /// Groups.
    pub groups: IdMap,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_where_they_end() {
        let map = IdMap::new(vec![
            IdRange { inside: 0, outside: 1000, count: 2 },
            IdRange { inside: u32::MAX - 1, outside: 7, count: 1 },
        ]);
        let inside: Vec<u32> = [0, 1, 2, 1000, u32::MAX - 2, u32::MAX - 1, u32::MAX]
            .into_iter()
            .filter(|id| map.contains(*id))
            .collect();
        assert_eq!(inside, [0, 1, u32::MAX - 1]);
        assert!(!IdMap::default().contains(u32::MAX));
        assert!(!IdMap::new(Vec::new()).contains(0));
    }

    #[test]
    fn lines_are_as_linux_has_them() {
        assert_eq!(IdMap::default().lines(), "         0          0 4294967295\n");
    }
}
