//! What a store takes on the disk, and getting it out of the page cache.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

use crate::Failure;

/// The bytes that the files in `folder` take: what is allocated, not how long they claim to be.
pub fn bytes_of(folder: &Path) -> Result<u64, Failure> {
    let sizes = files(folder)?.into_iter().map(|path| Ok(path.metadata()?.blocks() * 512));
    sizes.sum()
}

/// Drops the files in `folder` from the page cache. They must be open nowhere.
pub fn evict(folder: &Path) -> Result<(), Failure> {
    for path in files(folder)? {
        let file = File::open(path)?;
        // What is not written yet cannot be dropped.
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_all_depths_count_with_what_they_take() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("below")).unwrap();
        for name in ["a", "below/b"] {
            let file = File::create(folder.path().join(name)).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &[1; 100_000], 0).unwrap();
            // A hole takes nothing.
            file.set_len(1 << 30).unwrap();
            file.sync_all().unwrap();
        }
        let bytes = bytes_of(folder.path()).unwrap();
        assert!((200_000..1 << 20).contains(&bytes), "{bytes}");
        evict(folder.path()).unwrap();
    }
}
