//! The mappings of one file, for files to keep.
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use sync::{LockClass, Mutex, RangeMap};

use crate::{MappingKey, MemoryManager, PAGE};

/// Where one byte range of an address space leads: the file offset of its first byte, and whether stores get there.
#[derive(Clone, Copy, Debug)]
struct Target {
    offset: u64,
    writable: bool,
}

fn split(target: &mut Target, by: u64) -> Target {
    Target { offset: target.offset + by, ..*target }
}

/// One address space and its mappings of the file.
#[derive(Debug)]
struct Mapper {
    mm: Weak<MemoryManager>,
    ranges: RangeMap<Target>,
}

/// All mappings of one file. An implementor of [`crate::Mappable`] passes its `add_mapping` and `remove_mapping` on to this and
/// calls [`Self::invalidate`] when it takes pages back. Its lock is of class `Mappings`.
#[derive(Debug)]
pub struct Mappings {
    mappers: Mutex<HashMap<usize, Mapper>>,
}

impl Default for Mappings {
    fn default() -> Self {
        Self { mappers: Mutex::new(LockClass::Mappings, HashMap::new()) }
    }
}

impl Mappings {
    /// No mappings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a mapping.
    pub fn add(&self, key: MappingKey) {
        let mut mappers = self.mappers.lock();
        let mapper = mappers
            .entry(key.mm.as_ptr().addr())
            .or_insert_with(|| Mapper { mm: key.mm.clone(), ranges: RangeMap::new() });
        let range = key.addr..key.addr.saturating_add(key.len);
        let target = Target { offset: key.offset, writable: key.writable };
        mapper.ranges.remove_range(range.clone(), split);
        // The range was freed just now.
        let _refused = mapper.ranges.insert(range, target);
    }

    /// Removes a mapping, a part of one, or several that are next to each other.
    pub fn remove(&self, key: &MappingKey) {
        let mut mappers = self.mappers.lock();
        let id = key.mm.as_ptr().addr();
        if let Some(mapper) = mappers.get_mut(&id) {
            mapper.ranges.remove_range(key.addr..key.addr.saturating_add(key.len), split);
            if mapper.ranges.is_empty() {
                mappers.remove(&id);
            }
        }
    }

    /// Tells whether nobody maps the file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mappers.lock().is_empty()
    }

    /// Tells whether anybody may store to the file by a mapping.
    #[must_use]
    pub fn has_writable(&self) -> bool {
        self.mappers.lock().values().any(|mapper| mapper.ranges.iter().any(|(_, t)| t.writable))
    }

    /// Takes the file's pages out of all mappings of a range of the file. The caller holds no lock of class `MemoryManager`
    /// or later.
    pub fn invalidate(&self, offset: u64, len: u64) {
        for (mm, key) in self.of_range(offset, len) {
            mm.invalidate_mapping(&key, offset, len);
        }
    }

    /// The file was truncated: takes all behind `size` out of all mappings, copies made for private mappings too (Linux
    /// `truncate_pagecache`). The caller holds no lock of class `MemoryManager` or later.
    pub fn truncate(&self, size: u64) {
        for (mm, key) in self.of_range(size, u64::MAX - size) {
            mm.truncate_mapping(&key, size);
        }
    }

    /// The mappings of a range of the file.
    fn of_range(&self, offset: u64, len: u64) -> Vec<(Arc<MemoryManager>, MappingKey)> {
        let end = offset.saturating_add(len);
        let mut found = Vec::new();
        for mapper in self.mappers.lock().values() {
            for (range, target) in mapper.ranges.iter() {
                let len = range.end - range.start;
                if target.offset < end && target.offset.saturating_add(len).div_ceil(PAGE) * PAGE > offset {
                    let Target { offset, writable } = *target;
                    let (mm, addr) = (mapper.mm.clone(), range.start);
                    found.push(MappingKey { mm, addr, len, offset, writable });
                }
            }
        }
        found.into_iter().filter_map(|key| Some((key.mm.upgrade()?, key))).collect()
    }
}
