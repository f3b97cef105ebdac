//! The kinds of all families, by name. Each message asks for its kind some times.

use std::sync::Arc;

use crate::family::{Family, Kind};

/// All kinds.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    /// By how many bytes their names have: few have as many.
    by_length: Vec<Vec<Known>>,
}

#[derive(Debug)]
struct Known {
    kind: &'static Kind,
    /// The place of its family among all.
    family: usize,
    /// The name, for rows of the inbox.
    name: Arc<str>,
}

impl Kinds {
    /// The kinds of these families.
    pub(super) fn of(families: &[Box<dyn Family>]) -> Self {
        let mut kinds = Self::default();
        for (family, of) in families.iter().enumerate() {
            for kind in of.vocabulary().kinds {
                let length = kind.name.len();
                if kinds.by_length.len() <= length {
                    kinds.by_length.resize_with(length + 1, Vec::new);
                }
                kinds.by_length[length].push(Known { kind, family, name: kind.name.into() });
            }
        }
        kinds
    }

    /// A kind, and the place of its family among all.
    pub(super) fn get(&self, name: &str) -> Option<(usize, &'static Kind)> {
        self.known(name).map(|known| (known.family, known.kind))
    }

    /// A kind's name, as rows of the inbox hold it; those of known kinds are shared.
    pub(super) fn row_name(&self, name: &str) -> Arc<str> {
        self.known(name).map_or_else(|| name.into(), |known| known.name.clone())
    }

    fn known(&self, name: &str) -> Option<&Known> {
        self.by_length.get(name.len())?.iter().find(|known| known.kind.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_and_nothing_else() {
        let families = crate::kinds::all();
        let kinds = Kinds::of(&families);
        for (index, family) in families.iter().enumerate() {
            for kind in family.vocabulary().kinds {
                let (found, same) = kinds.get(kind.name).unwrap();
                assert_eq!((found, same.name, &*kinds.row_name(kind.name)), (index, kind.name, kind.name));
            }
        }
        for name in ["", "querx", "Query", "a name that is longer than any of ours"] {
            assert!(kinds.get(name).is_none());
            assert_eq!(&*kinds.row_name(name), name);
        }
    }
}
