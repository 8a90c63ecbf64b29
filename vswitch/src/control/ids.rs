//! Names <-> the small numbers of a snapshot.

use std::collections::{BTreeMap, BTreeSet};

/// Hands out the lowest free number for each name.
#[derive(Clone, Debug, Default)]
pub(super) struct Ids {
    by_name: BTreeMap<String, u16>,
    names: Vec<Option<String>>,
    free: BTreeSet<u16>,
}

impl Ids {
    /// The number of `name`, a new one if it has none. The topology's limits keep it within 16 bit.
    pub(super) fn acquire(&mut self, name: &str) -> u16 {
        if let Some(&id) = self.by_name.get(name) {
            return id;
        }
        let id = self.free.pop_first().unwrap_or_else(|| {
            self.names.push(None);
            (self.names.len() - 1) as u16
        });
        self.names[usize::from(id)] = Some(name.to_owned());
        self.by_name.insert(name.to_owned(), id);
        id
    }

    /// Frees the number of `name`. Only when no worker uses a snapshot that has it.
    pub(super) fn release(&mut self, name: &str) {
        if let Some(id) = self.by_name.remove(name) {
            self.names[usize::from(id)] = None;
            self.free.insert(id);
        }
    }

    /// The number of `name`.
    pub(super) fn get(&self, name: &str) -> Option<u16> {
        self.by_name.get(name).copied()
    }

    /// The name of a number.
    pub(super) fn name(&self, id: u16) -> Option<&str> {
        self.names.get(usize::from(id))?.as_deref()
    }

    /// One more than the highest number in use.
    pub(super) fn span(&self) -> usize {
        self.names.iter().rposition(Option::is_some).map_or(0, |i| i + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_used_again_only_when_released() {
        let mut ids = Ids::default();
        assert_eq!((ids.acquire("a"), ids.acquire("b"), ids.acquire("a")), (0, 1, 0));
        ids.release("a");
        assert_eq!((ids.get("a"), ids.name(0), ids.span()), (None, None, 2));
        assert_eq!(ids.acquire("c"), 0);
        ids.release("b");
        assert_eq!(ids.span(), 1);
    }
}
