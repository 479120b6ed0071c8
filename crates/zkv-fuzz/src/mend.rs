//! Making the checksums of a data file right again, as whoever forges one would.
//!
//! It is written from `docs/format/data.md` alone, and shares no code with the library but CRC32C:
//! what it mends must be what the library takes for whole.

use std::ops::Range;

use zkv_io::crc32c;
use zkv_log::layout::{
    BLOCK_HEADER_BYTES, CELL_BYTES, COMMIT, COMMIT_BYTES, DICTIONARIES_MAX, DICTIONARY_BYTES_MAX,
    FILE_HEADER, FILE_HEADER_BYTES, FILE_HEADER_FIELD_BYTES, FILE_MAGIC, FORMAT_VERSION, Field,
    IDENTITY, SEAL, SEAL_FIELD_BYTES, SEGMENT_HEADER, SEGMENT_HEADER_BYTES,
    SEGMENT_HEADER_FIELD_BYTES, SLOT_BYTES_MAX, SLOT_BYTES_MIN, seal_offset,
};

pub use crate::mend_index::{mend_index, parts_of_index};
pub use crate::pair::{mend_pair, parts_of_pair};

const DIGEST_BYTES: usize = 32;
const DICTIONARY: u8 = 3;
const COMMIT_KIND: u8 = 6;
const SEAL_KIND: u8 = 7;

/// Makes all checksums of a data file right, and what says that it is one of this version: whatever
/// else was changed would not be looked at otherwise.
pub fn mend_file(file: &mut [u8]) {
    if let Some(header) = file.get_mut(..FILE_HEADER_FIELD_BYTES) {
        header[range(FILE_HEADER, "magic")].copy_from_slice(&FILE_MAGIC);
        let identity = &mut header[range(FILE_HEADER, "identity")];
        identity[range(IDENTITY, "version")].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        identity[range(IDENTITY, "features")].fill(0);
        put_checksum(header);
    }
    let Some((slot_bytes, store_id)) = identity(file) else { return };
    let identity = file[range(FILE_HEADER, "identity")].to_vec();
    for place in slots(file.len(), slot_bytes) {
        let slot = &mut file[place];
        if let Some(header) = slot.get_mut(..SEGMENT_HEADER_FIELD_BYTES) {
            header[range(SEGMENT_HEADER, "identity")].copy_from_slice(&identity);
        }
        mend_slot(slot, slot_bytes, store_id);
    }
}

/// The parts of a data file that decide how it is read: headers, the heads of blocks, seals.
#[must_use]
pub fn parts_of_file(file: &[u8]) -> Vec<Range<usize>> {
    let header = 0..FILE_HEADER_FIELD_BYTES.min(file.len());
    let mut parts = Vec::from([header]);
    let Some((slot_bytes, _)) = identity(file) else { return parts };
    for range in slots(file.len(), slot_bytes) {
        let (start, slot) = (range.start, &file[range]);
        parts.push(start..start + SEGMENT_HEADER_FIELD_BYTES.min(slot.len()));
        parts.extend(blocks(slot, slot_bytes).map(|block| start + block.start..start + block.end));
        let seal = seal_offset(slot_bytes) as usize;
        if seal < slot.len() {
            parts.push(start + seal..start + slot.len());
        }
    }
    parts
}

fn slots(file_bytes: usize, slot_bytes: u32) -> impl Iterator<Item = Range<usize>> {
    let first = usize::try_from(FILE_HEADER_BYTES).unwrap_or(0);
    let starts = (first..file_bytes).step_by(slot_bytes as usize);
    starts.map(move |start| start..file_bytes.min(start + slot_bytes as usize))
}

/// The slots' length and the store's id, by the file header.
fn identity(file: &[u8]) -> Option<(u32, [u8; 16])> {
    let header = file.get(..FILE_HEADER_FIELD_BYTES)?;
    let identity = &header[range(FILE_HEADER, "identity")];
    let slot_bytes = number_u32(&identity[range(IDENTITY, "slot_bytes")]);
    let can_be =
        slot_bytes.is_power_of_two() && (SLOT_BYTES_MIN..=SLOT_BYTES_MAX).contains(&slot_bytes);
    can_be.then_some((slot_bytes, identity[range(IDENTITY, "store_id")].try_into().ok()?))
}

/// Where the blocks of a slot lie, as far as their lengths make sense.
fn blocks(slot: &[u8], slot_bytes: u32) -> impl Iterator<Item = Range<usize>> + '_ {
    let end = slot.len().min(seal_offset(slot_bytes) as usize);
    let mut offset = SEGMENT_HEADER_BYTES as usize;
    std::iter::from_fn(move || {
        let block = block_at(slot, offset).filter(|block| block.end <= end)?;
        offset = block.end;
        Some(block)
    })
}

/// Of the segment `sequence`: the checksum of its block that ends at `offset`, and the chain over all
/// blocks up to there.
pub(crate) fn segment_chain(file: &[u8], sequence: &[u8], offset: u32) -> Option<[[u8; 4]; 2]> {
    let (slot_bytes, _) = identity(file)?;
    let place = slots(file.len(), slot_bytes).find(|place| {
        let header = file[place.clone()].get(..SEGMENT_HEADER_FIELD_BYTES);
        header.is_some_and(|header| header[range(SEGMENT_HEADER, "sequence")] == *sequence)
    })?;
    let (slot, mut chain) = (&file[place], 0);
    for block in blocks(slot, slot_bytes).take_while(|block| block.end <= offset as usize) {
        let checksum: [u8; 4] = slot[block.start..].first_chunk().copied()?;
        chain = crc32c(chain, &checksum);
        if block.end == offset as usize {
            return Some([checksum, chain.to_le_bytes()]);
        }
    }
    None
}

fn block_at(slot: &[u8], offset: usize) -> Option<Range<usize>> {
    let header = slot.get(offset..offset + BLOCK_HEADER_BYTES as usize)?;
    let payload_bytes = u32::from_le_bytes([header[5], header[6], header[7], 0]) as usize;
    let end = offset + BLOCK_HEADER_BYTES as usize + payload_bytes;
    ((1..=SEAL_KIND).contains(&(header[4] & 0xF)) && end <= slot.len()).then_some(offset..end)
}

fn mend_slot(slot: &mut [u8], slot_bytes: u32, store_id: [u8; 16]) {
    let Some(header) = slot.get_mut(..SEGMENT_HEADER_FIELD_BYTES) else { return };
    put_checksum(header);
    let (base, header) = (seed(header, store_id), header.to_vec());
    mend_blocks(slot, slot_bytes, base, |commit, offset| sign(commit, &header, store_id, offset));
    mend_seal(slot, slot_bytes, base);
}

/// The seed of a segment's blocks: its store, sequence, slot and nonce.
fn seed(header: &[u8], store_id: [u8; 16]) -> u32 {
    let seed = crc32c(0, &store_id);
    ["sequence", "slot", "nonce"]
        .iter()
        .fold(seed, |seed, name| crc32c(seed, &header[range(SEGMENT_HEADER, name)]))
}

/// Makes a commit name its segment, by that one's header, and signs it.
fn sign(commit: &mut [u8], header: &[u8], store_id: [u8; 16], offset: u32) {
    for name in ["sequence", "nonce"] {
        commit[range(COMMIT, name)].copy_from_slice(&header[range(SEGMENT_HEADER, name)]);
    }
    let (fields, into) = commit.split_at_mut(range(COMMIT, "signature").start);
    let slot = &header[range(SEGMENT_HEADER, "slot")];
    let signed = blake3::hash(&[&store_id[..], slot, &offset.to_le_bytes(), fields].concat());
    into.copy_from_slice(&signed.as_bytes()[..into.len()]);
}

fn mend_blocks(slot: &mut [u8], slot_bytes: u32, base: u32, sign: impl Fn(&mut [u8], u32)) {
    let mut digests = [None; DICTIONARIES_MAX + 1];
    let mut chain = 0;
    let ranges: Vec<_> = blocks(slot, slot_bytes).collect();
    for range in ranges {
        let offset = u32::try_from(range.start).unwrap_or(0);
        let block = &mut slot[range];
        let (kind, number) = (block[4] & 0xF, usize::from(block[4] >> 4));
        let payload = &mut block[BLOCK_HEADER_BYTES as usize..];
        let mut block_seed = base;
        match kind {
            COMMIT_KIND if payload.len() == COMMIT_BYTES => {
                payload[self::range(COMMIT, "chain")].copy_from_slice(&u32::to_le_bytes(chain));
                sign(payload, offset);
            }
            DICTIONARY => digests[number] = mend_digest(payload),
            1 | 2 => {
                block_seed = digests[number]
                    .map_or(base, |digest: [u8; DIGEST_BYTES]| crc32c(base, &digest));
            }
            _ => {}
        }
        put_block_checksum(block, block_seed, offset);
        chain = crc32c(chain, &block[..4]);
    }
}

fn put_block_checksum(block: &mut [u8], seed: u32, offset: u32) {
    let checksum = crc32c(crc32c(seed, &offset.to_le_bytes()), &block[4..]);
    block[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// Puts the digest of the dictionary in front of it, where its frame can be read, and returns it.
fn mend_digest(payload: &mut [u8]) -> Option<[u8; DIGEST_BYTES]> {
    let (digest, stripped) = payload.split_first_chunk_mut::<DIGEST_BYTES>()?;
    // The magic number that frames are stored without (RFC 8878, section 3.1.1).
    let frame = [&0xFD2F_B528_u32.to_le_bytes(), &*stripped].concat();
    let mut dictionary = Vec::with_capacity(DICTIONARY_BYTES_MAX);
    if zstd_safe::decompress(&mut dictionary, &frame).is_ok() {
        *digest = *blake3::hash(&dictionary).as_bytes();
    }
    Some(*digest)
}

fn mend_seal(slot: &mut [u8], slot_bytes: u32, base: u32) {
    let offset = seal_offset(slot_bytes) as usize;
    let whole = BLOCK_HEADER_BYTES as usize + SEAL_FIELD_BYTES + (slot_bytes / CELL_BYTES) as usize;
    let Some(end) = slot.get(offset..).filter(|seal| seal.len() == whole) else { return };
    if end[4] & 0xF != SEAL_KIND {
        return;
    }
    let fields = offset + BLOCK_HEADER_BYTES as usize;
    let at = |name| {
        let field = range(SEAL, name);
        fields + field.start..fields + field.end
    };
    let is_like = |name| slot[at(name)] == slot[range(SEGMENT_HEADER, name)];
    if !is_like("sequence") && !is_like("nonce") {
        // Left by a segment that was here before.
        return;
    }
    let data_end = number_u32(&slot[at("data_end")]) as usize;
    let digest = *blake3::hash(&slot[..data_end.min(offset)]).as_bytes();
    slot[at("digest")].copy_from_slice(&digest);
    put_checksum(&mut slot[at("header")]);
    put_block_checksum(&mut slot[offset..], base, u32::try_from(offset).unwrap_or(0));
}

/// Writes the CRC32C of all before the last four bytes into them.
fn put_checksum(fields: &mut [u8]) {
    if let Some((checked, checksum)) = fields.split_last_chunk_mut::<4>() {
        *checksum = crc32c(0, checked).to_le_bytes();
    }
}

/// Where a field of a layout lies.
pub(crate) fn range(layout: &[Field], name: &str) -> Range<usize> {
    let row = layout.iter().find(|(found, _, _)| *found == name);
    let (_, offset, bytes) = row.expect("the layout has this field");
    *offset..offset + bytes
}

pub(crate) fn number_u32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
