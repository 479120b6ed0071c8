//! Which sectors cannot be read.

use std::path::Path;

use zkv_sim::{BadSector, Event, Image, Lasts, SimDisk};

use super::super::session::{INDEX, SLOT_BYTES, STORE};

/// The files that have bad sectors.
pub const PATHS: [&str; 2] = [STORE, INDEX];

/// What the system reads at once.
const PAGE_BYTES: u64 = 4096;
/// The first slot starts behind the file's header.
const SLOTS_START: u64 = PAGE_BYTES;

/// One to three sectors, most of them of the data file: of a slot's first page, of the end of a slot, where
/// the seal is, close to where the file ends, of what one write has brought, or anywhere.
pub fn choose(disk: &SimDisk, random: &mut fastrand::Rng) -> Vec<(&'static Path, BadSector)> {
    let (image, slot_bytes) = (disk.image(), u64::from(SLOT_BYTES));
    let count = random.usize(1..4);
    let mut chosen = Vec::new();
    for _ in 0..count {
        let path = Path::new(if random.u32(..6) == 0 { INDEX } else { STORE });
        let Some(bytes) = image.get(path).filter(|bytes| !bytes.is_empty()) else { continue };
        let len = bytes.len() as u64;
        let sector_bytes = [512, PAGE_BYTES][random.usize(..2)];
        let slots = len.saturating_sub(SLOTS_START).div_ceil(slot_bytes).max(1);
        let slot_start = SLOTS_START + random.u64(..slots) * slot_bytes;
        let at = match random.u32(..8) {
            _ if path == Path::new(INDEX) => random.u64(..len),
            0 => slot_start + random.u64(..PAGE_BYTES),
            1 => slot_start + slot_bytes - 1 - random.u64(..PAGE_BYTES),
            2 => last_used(bytes).saturating_sub(random.u64(..8192)),
            3 => random.u64(..len),
            4 => slot_start + random.u64(..slot_bytes),
            _ => written(disk, bytes, random).unwrap_or(slot_start),
        };
        let lasts = [Lasts::ForEver, Lasts::UntilWritten, Lasts::ForAWhile][random.usize(..3)];
        let offset = at - at % sector_bytes;
        if offset < len {
            chosen.push((path, BadSector { offset, bytes: sector_bytes, lasts }));
        }
    }
    chosen
}

/// A place in what a write has left in the file: that of one record is as likely as that of a slot full of
/// them.
fn written(disk: &SimDisk, bytes: &[u8], random: &mut fastrand::Rng) -> Option<u64> {
    let events = disk.events(0);
    let left = events.iter().filter_map(|event| match event {
        Event::Write { offset, bytes: written, .. } => {
            let start = usize::try_from(*offset).ok()?;
            bytes.get(start..)?.starts_with(written).then_some((*offset, written.len() as u64))
        }
        _ => None,
    });
    let left: Vec<(u64, u64)> = left.filter(|(_, len)| *len > 0).collect();
    let (offset, len) = *left.get(random.usize(..left.len().max(1)))?;
    Some(offset + random.u64(..len))
}

/// Behind the last byte that is not zero.
fn last_used(bytes: &[u8]) -> u64 {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

/// Those that are left behind a power cut.
pub fn after_cut(bad: &[BadSector], image: &Image) -> Vec<BadSector> {
    let len = image.get(Path::new(STORE)).map_or(0, <[u8]>::len) as u64;
    bad.iter().filter(|bad| bad.offset < len).copied().collect()
}

/// Whether the system may give a part of a page of which another part cannot be read.
pub fn has_parts_of_pages(bad: &[BadSector]) -> bool {
    bad.iter().any(|bad| bad.bytes < PAGE_BYTES)
}
