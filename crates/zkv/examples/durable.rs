//! Writes COUNT small records to the store PATH, each on stable storage before the next.
//!
//! `cargo run -p zkv-store --example durable -- PATH [COUNT]`, or under `strace -c` to see that each
//! takes one write and one sync.

use std::error::Error;

use zkv::{Durability, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: durable PATH [COUNT]")?;
    let count: u64 = arguments.next().map_or(Ok(1000), |count| count.parse())?;
    let store = Options::new().durability(Durability::Synced).open(path)?;
    for number in 0..count {
        store.set(&number, &format!("record {number}"))?;
    }
    println!("{} keys", store.len());
    store.close()?;
    Ok(())
}
