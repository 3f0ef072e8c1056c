//! A sorted list of small things, a million of them: full pages of an array instead of a tree's nodes, which are half
//! empty and carry pointers. What the order is is the caller's: each call says where with a predicate, so that an
//! item may be a number whose meaning lies elsewhere.
//!
//! What is used up from the front and added at the end costs the least: nothing moves.

use std::collections::VecDeque;

/// Items on a shelf; inserting moves a quarter as many on average.
const FULL: usize = 512;
/// Neighbours with no more than so many together become one.
const FEW: usize = FULL / 2;

/// Sorted items. No shelf is empty.
#[derive(Debug)]
pub(crate) struct Shelves<T> {
    shelves: Vec<VecDeque<T>>,
    len: usize,
}

/// A place in the order: before the item that is there, or at the end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    shelf: usize,
    at: usize,
}

impl<T> Default for Shelves<T> {
    fn default() -> Self {
        Self {
            shelves: Vec::new(),
            len: 0,
        }
    }
}

/// Of items in order.
impl<T> FromIterator<T> for Shelves<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut all = Self::default();
        for item in items {
            all.append(item);
        }
        all
    }
}

impl<T> Shelves<T> {
    /// Adds an item after all others. What comes in order fills its shelves.
    fn append(&mut self, item: T) {
        self.len += 1;
        match self.shelves.last_mut().filter(|last| last.len() < FULL) {
            Some(last) => last.push_back(item),
            None => self.shelves.push([item].into()),
        }
    }
}

impl<T: Copy> Shelves<T> {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn first(&self) -> Option<T> {
        self.shelves.first()?.front().copied()
    }

    pub(crate) fn last(&self) -> Option<T> {
        self.shelves.last()?.back().copied()
    }

    /// How many items come before a place.
    pub(crate) fn count_before(&self, place: Place) -> usize {
        let shelves = self.shelves.iter().take(place.shelf);
        shelves.map(VecDeque::len).sum::<usize>() + place.at
    }

    fn get(&self, place: Place) -> Option<T> {
        self.shelves.get(place.shelf)?.get(place.at).copied()
    }

    /// The place of the first item that is not `before`; all that are have to come first.
    pub(crate) fn place(&self, mut before: impl FnMut(&T) -> bool) -> Place {
        // What is used up and what comes in order need no search.
        let first = self.shelves.first().and_then(VecDeque::front);
        if !first.is_some_and(&mut before) {
            return Place::default();
        }
        let last = self.shelves.last().and_then(VecDeque::back);
        if last.is_some_and(&mut before) {
            return self.end();
        }
        let shelf = self
            .shelves
            .partition_point(|shelf| shelf.back().is_some_and(&mut before));
        let at = self
            .shelves
            .get(shelf)
            .map_or(0, |shelf| shelf.partition_point(before));
        Place { shelf, at }
    }

    /// The items from a place on.
    pub(crate) fn from(&self, place: Place) -> impl Iterator<Item = T> + use<'_, T> {
        let rest = self.shelves.get(place.shelf..).unwrap_or_default();
        let (first, rest) = rest.split_at(rest.len().min(1));
        let first = first.iter().flat_map(move |shelf| shelf.iter().skip(place.at));
        first.chain(rest.iter().flatten()).copied()
    }

    /// The items before a place, the last first.
    pub(crate) fn before(&self, place: Place) -> impl Iterator<Item = T> + use<'_, T> {
        let (rest, last) = match self.shelves.split_at_checked(place.shelf) {
            Some((rest, [last, ..])) => (rest, Some(last)),
            Some((rest, [])) => (rest, None),
            None => (&self.shelves[..], None),
        };
        let last = last
            .into_iter()
            .flat_map(move |shelf| shelf.range(..place.at).rev());
        last.chain(rest.iter().rev().flat_map(|shelf| shelf.iter().rev()))
            .copied()
    }

    /// The place after all items.
    pub(crate) fn end(&self) -> Place {
        Place {
            shelf: self.shelves.len(),
            at: 0,
        }
    }

    #[cfg(test)]
    fn iter(&self) -> impl Iterator<Item = T> + use<'_, T> {
        self.from(Place::default())
    }

    pub(crate) fn insert(&mut self, place: Place, item: T) {
        let Place { mut shelf, mut at } = place;
        if shelf >= self.shelves.len() {
            return self.append(item);
        }
        self.len += 1;
        if self.shelves[shelf].len() >= FULL {
            let upper = self.shelves[shelf].split_off(FULL / 2);
            self.shelves.insert(shelf + 1, upper);
            if at > FULL / 2 {
                (shelf, at) = (shelf + 1, at - FULL / 2);
            }
        }
        self.shelves[shelf].insert(at, item);
    }

    /// Takes out the item at a place that has one.
    pub(crate) fn remove(&mut self, place: Place) -> Option<T> {
        let Place { shelf, at } = place;
        let items = self.shelves.get_mut(shelf)?;
        let item = items.remove(at)?;
        self.len -= 1;
        if items.is_empty() {
            self.shelves.remove(shelf);
        } else {
            self.join(shelf);
            self.join(shelf.wrapping_sub(1));
        }
        Some(item)
    }

    pub(crate) fn pop_first(&mut self) -> Option<T> {
        self.remove(Place::default())
    }

    pub(crate) fn pop_last(&mut self) -> Option<T> {
        let shelf = self.shelves.len().checked_sub(1)?;
        let at = self.shelves.get(shelf)?.len().checked_sub(1)?;
        self.remove(Place { shelf, at })
    }

    /// Makes one of a shelf and the next if both are sparse.
    fn join(&mut self, shelf: usize) {
        let next = shelf.wrapping_add(1);
        if let Some([one, other]) = self.shelves.get_mut(shelf..).and_then(<[_]>::first_chunk_mut)
            && one.len() + other.len() <= FEW
        {
            one.append(other);
            self.shelves.remove(next);
        }
    }
}

/// Those whose order is their own.
impl<T: Copy + Ord> Shelves<T> {
    /// Adds an item, once.
    pub(crate) fn add(&mut self, item: T) {
        let place = self.place(|one| *one < item);
        if self.get(place) != Some(item) {
            self.insert(place, item);
        }
    }

    /// Takes out an item, if it is there.
    pub(crate) fn take(&mut self, item: T) {
        let place = self.place(|one| *one < item);
        if self.get(place) == Some(item) {
            self.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn check(shelves: &Shelves<u32>, model: &BTreeSet<u32>) {
        assert!(shelves.iter().eq(model.iter().copied()));
        assert!(shelves.before(shelves.end()).eq(model.iter().rev().copied()));
        assert_eq!(
            (shelves.len(), shelves.first()),
            (model.len(), model.first().copied())
        );
        assert!(
            shelves
                .shelves
                .iter()
                .all(|shelf| (1..=FULL).contains(&shelf.len()))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn they_hold_what_a_set_holds(changes in prop::collection::vec((0_u32..4_000, any::<bool>()), 0..6_000)) {
            let (mut shelves, mut model) = (Shelves::default(), BTreeSet::new());
            for (item, add) in changes {
                let place = shelves.place(|one| *one < item);
                let known = shelves.get(place) == Some(item);
                prop_assert_eq!(known, model.contains(&item));
                if add {
                    shelves.add(item);
                    model.insert(item);
                } else if item % 64 == 0 {
                    prop_assert_eq!(shelves.pop_first(), model.pop_first());
                    prop_assert_eq!(shelves.pop_last(), model.pop_last());
                } else {
                    shelves.take(item);
                    model.remove(&item);
                }
            }
            check(&shelves, &model);
            for item in [0, 1, 2_000, 3_999, 4_000] {
                let place = shelves.place(|one| *one < item);
                prop_assert!(shelves.from(place).eq(model.range(item..).copied()));
                prop_assert!(shelves.before(place).eq(model.range(..item).rev().copied()));
                prop_assert_eq!(shelves.count_before(place), model.range(..item).count());
            }
        }
    }

    #[test]
    fn what_comes_in_order_fills_its_shelves_and_what_goes_frees_them() {
        let (mut shelves, mut model) = (Shelves::default(), BTreeSet::new());
        for item in 0..10_000 {
            shelves.insert(shelves.place(|one| *one < item), item);
            model.insert(item);
        }
        check(&shelves, &model);
        assert_eq!(shelves.shelves.len(), 10_000_usize.div_ceil(FULL));
        for item in (0..10_000).filter(|item| item % 50 != 0) {
            assert_eq!(shelves.remove(shelves.place(|one| *one < item)), Some(item));
            model.remove(&item);
        }
        check(&shelves, &model);
        assert!(shelves.shelves.len() <= 4, "sparse shelves become one");
        while let Some(item) = shelves.first() {
            assert_eq!(shelves.remove(shelves.place(|one| *one < item)), Some(item));
        }
        assert!(shelves.is_empty() && shelves.shelves.is_empty());
    }
}
