//! The maps of a file, which Windows has to let go of before the file can be cut.

#[cfg(not(windows))]
pub(crate) use kept::{Extents, Maps};
#[cfg(windows)]
pub(crate) use let_go::{Extents, Maps};

#[cfg(not(windows))]
mod kept {
    use crate::map::ExtentMap;

    /// The maps of one file.
    #[derive(Debug)]
    pub(crate) struct Maps;

    /// What one of them is made of.
    #[derive(Debug)]
    pub(crate) struct Extents(ExtentMap);

    impl Maps {
        pub(crate) fn none() -> Self {
            Self
        }

        pub(crate) fn add(&self) -> Extents {
            Extents(ExtentMap::new())
        }

        /// Does `cut`, for which nothing has to be let go of here.
        pub(crate) fn while_unmapped<T>(&self, cut: impl FnOnce() -> T) -> T {
            cut()
        }
    }

    impl Extents {
        #[inline]
        pub(crate) fn get(&self) -> &ExtentMap {
            &self.0
        }
    }
}

#[cfg(windows)]
mod let_go {
    use std::ops::Deref;
    use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

    use crate::map::ExtentMap;

    /// The maps of one file.
    #[derive(Debug)]
    pub(crate) struct Maps(Mutex<Vec<Weak<RwLock<ExtentMap>>>>);

    /// What one of them is made of.
    #[derive(Debug)]
    pub(crate) struct Extents(Arc<RwLock<ExtentMap>>);

    impl Maps {
        pub(crate) fn none() -> Self {
            Self(Mutex::default())
        }

        pub(crate) fn add(&self) -> Extents {
            let extents = Arc::new(RwLock::new(ExtentMap::new()));
            let mut maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            maps.retain(|map| map.strong_count() > 0);
            maps.push(Arc::downgrade(&extents));
            Extents(extents)
        }

        /// Does `cut` while nothing is mapped; whoever reads then waits, and maps the file anew.
        pub(crate) fn while_unmapped<T>(&self, cut: impl FnOnce() -> T) -> T {
            let maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let maps: Vec<_> = maps.iter().filter_map(Weak::upgrade).collect();
            let mut let_go: Vec<_> = maps
                .iter()
                .map(|map| map.write().unwrap_or_else(PoisonError::into_inner))
                .collect();
            let_go.iter_mut().for_each(|map| **map = ExtentMap::new());
            cut()
        }
    }

    impl Extents {
        pub(crate) fn get(&self) -> impl Deref<Target = ExtentMap> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
