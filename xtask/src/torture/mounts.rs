//! File systems of our own: one that fills up, one that cannot be written, one that loses power.

use std::fs;
use std::path::{Path, PathBuf};

use crate::torture::command::tool;

/// A file system that is mounted, until this is dropped.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    is_mounted: bool,
}

impl Mount {
    /// A file system in memory of `bytes`.
    pub fn memory(path: &Path, bytes: u64) -> Result<Self, String> {
        let options = format!("size={bytes}");
        Self::new(path, &["-t", "tmpfs", "-o", &options, "torture"])
    }

    /// What is in `image`, through a loop device.
    pub fn image(path: &Path, image: &Path, options: &str) -> Result<Self, String> {
        let options = format!("loop,{options}");
        Self::new(path, &["-t", "ext4", "-o", &options, text(image)?])
    }

    /// The folder `of` once more, where it cannot be written.
    pub fn read_only(path: &Path, of: &Path) -> Result<Self, String> {
        let mount = Self::new(path, &["--bind", text(of)?])?;
        tool("mount", &["-o", "remount,bind,ro", text(path)?])?;
        Ok(mount)
    }

    fn new(path: &Path, what: &[&str]) -> Result<Self, String> {
        fs::create_dir_all(path).map_err(|error| error.to_string())?;
        tool("mount", &[what, &[text(path)?]].concat())?;
        Ok(Self { path: path.to_owned(), is_mounted: true })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives a file system in memory another size.
    pub fn resize(&self, bytes: u64) -> Result<(), String> {
        let options = format!("remount,size={bytes}");
        tool("mount", &["-o", &options, text(&self.path)?])
    }

    /// Takes it away, when nobody uses it any more.
    pub fn unmount(mut self) -> Result<(), String> {
        tool("umount", &[text(&self.path)?])?;
        self.is_mounted = false;
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_mounted {
            // It goes with its last user. Nothing can be done about a failure here.
            let _ = text(&self.path).and_then(|path| tool("umount", &["--lazy", path]));
        }
    }
}

/// The path as an argument.
pub fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("{}: no UTF-8", path.display()))
}
