//! A log of lines: appends what comes on standard input to the log FILE as one commit, and prints
//! how many lines the log holds.
//!
//! `cargo run -p zkv-log --example events -- FILE < LINES`

use std::error::Error;
use std::io::{self, BufRead};
use std::path::Path;
use std::sync::Arc;

use zkv_io::{FileStorage, Storage};
use zkv_log::{Access, LogError, LogOptions, OpenFile, create};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: events FILE < LINES")?;
    let (path, storage) = (Path::new(&path), Arc::new(FileStorage));
    match create(&*storage, path, &LogOptions::default()) {
        Err(LogError::Io { cause, .. }) if cause.kind() == io::ErrorKind::AlreadyExists => {}
        created => created?,
    }
    let storage: Arc<dyn Storage> = storage;
    let file = OpenFile::open(storage, path, Access::ReadWrite, LogOptions::default())?;
    let mut writer = file.recover(None)?.writer.ok_or("opened for writing")?;
    let lines: Vec<String> = io::stdin().lock().lines().collect::<Result<_, _>>()?;
    let entries: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
    if !entries.is_empty() {
        writer.append(&entries)?;
        writer.log().sync(writer.end())?;
    }
    println!("{} lines", count(&writer.log().view())?);
    writer.close()?;
    Ok(())
}

fn count(view: &zkv_log::LogView) -> Result<usize, LogError> {
    let mut count = 0;
    for segment in view.segments() {
        let mut scan = view.scan(segment.slot, None)?;
        while let Some(block) = scan.next_block()? {
            count += block.entries()?.count();
        }
    }
    Ok(count)
}
