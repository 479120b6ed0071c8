//! What is on a disk.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// All files of a disk at one moment. Clones share the bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image {
    pub(crate) files: BTreeMap<PathBuf, Arc<Vec<u8>>>,
    /// What stands on the disk behind the ends of files, in their last pages.
    pub(crate) hidden: BTreeMap<PathBuf, Vec<u8>>,
}

impl Image {
    /// An image with no files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a file into the image, in place of one of the same name.
    pub fn insert(&mut self, path: impl Into<PathBuf>, bytes: Vec<u8>) {
        self.files.insert(path.into(), Arc::new(bytes));
    }

    /// Takes a file out of the image.
    pub fn remove(&mut self, path: &Path) {
        self.files.remove(path);
    }

    /// What the file at `path` holds.
    #[must_use]
    pub fn get(&self, path: &Path) -> Option<&[u8]> {
        self.files.get(path).map(|bytes| bytes.as_slice())
    }

    /// Whether something other than zeros stands behind the end of a file, which may come to light when
    /// that grows.
    #[must_use]
    pub fn hides_something(&self) -> bool {
        self.hidden.values().flatten().any(|byte| *byte != 0)
    }

    /// The names and contents of all files.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.files.iter().map(|(path, bytes)| (path.as_path(), bytes.as_slice()))
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = self.files().map(|(path, bytes)| (path, bytes.len()));
        formatter.debug_map().entries(lengths).finish()
    }
}
