//! A memory control group, of either version, in which a process has little memory.

use std::path::{Path, PathBuf};

use crate::Failure;

/// A group that is removed when it is dropped; it must be empty then.
pub struct Group {
    pub path: PathBuf,
}

impl Group {
    /// Makes one within `folder`, which has to be a group that the user may write to.
    pub fn new(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(format!("zkv-bench-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Where this fails, an empty group stays behind, which is seen and harms nobody.
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// Limits the group at `path`, and moves this process into it. Memory that it has already stays with
/// the group that it came from.
pub fn join(path: &Path, limit_bytes: u64) -> Result<(), Failure> {
    let limits = ["memory.max", "memory.limit_in_bytes"].map(|name| path.join(name));
    let limit = limits.iter().find(|limit| limit.exists());
    let limit = limit.ok_or_else(|| format!("{}: no group of memory", path.display()))?;
    std::fs::write(limit, limit_bytes.to_string())?;
    Ok(std::fs::write(path.join("cgroup.procs"), std::process::id().to_string())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_get_their_limit_before_the_process() {
        for name in ["memory.max", "memory.limit_in_bytes"] {
            let folder = tempfile::tempdir().unwrap();
            let group = Group::new(folder.path()).unwrap();
            assert!(join(&group.path, 1000).is_err());
            assert!(!group.path.join("cgroup.procs").exists());
            std::fs::write(group.path.join(name), "max").unwrap();
            join(&group.path, 1000).unwrap();
            let read = |name| std::fs::read_to_string(group.path.join(name)).unwrap();
            assert_eq!(read(name), "1000");
            assert_eq!(read("cgroup.procs"), std::process::id().to_string());
        }
    }
}
