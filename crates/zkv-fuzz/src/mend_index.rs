//! Making the checksums of an index file right again, by `docs/format/index.md`.

use std::ops::Range;

use zkv_index::layout::{BUCKET, FORMAT_VERSION, HEADER, HEADER_BYTES, Row, SECTION, TABLE};
use zkv_io::crc32c;
use zkv_log::layout::{CHECKPOINT, CHECKPOINT_FIELD_BYTES};

use crate::corpus::INDEXED_STORE;
use crate::mend::{number_u32, range};

/// Headers in one file that are followed: forged ones may lead back.
const HEADERS_MAX: usize = 100;

/// Makes all checksums of an index file right: of buckets, tables, sections and headers; and what says
/// that it belongs to [`INDEXED_STORE`] and is of this version.
pub fn mend_index(file: &mut [u8]) {
    if let Some(magic) = file.first_chunk_mut() {
        *magic = *b"zkvindex";
    }
    for start in headers(file) {
        let mut header = file[start..start + HEADER_BYTES].to_vec();
        header[range(HEADER, "version")].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        header[range(HEADER, "store_id")].copy_from_slice(&INDEXED_STORE[16..32]);
        header[range(HEADER, "required_features")].fill(0);
        header[range(HEADER, "offset")].copy_from_slice(&(start as u64).to_le_bytes());
        mend_tables(file, &mut header);
        mend_sections(file, &mut header);
        header[range(HEADER, "check")].fill(0);
        let check = crc32c(0, &header);
        header[range(HEADER, "check")].copy_from_slice(&check.to_le_bytes());
        file[start..start + HEADER_BYTES].copy_from_slice(&header);
    }
}

/// Puts what a log's checkpoint keeps of the block that ends at its watermark: checksum and chain, as
/// `chain_at` finds them in the data file, by segment and offset.
pub(crate) fn mend_watermark(
    file: &mut [u8],
    chain_at: impl Fn(&[u8], u32) -> Option<[[u8; 4]; 2]>,
) {
    for start in headers(file) {
        let sections = number_u64(&file[start..][range(HEADER, "sections_offset")]);
        // The log's checkpoint is the first section.
        let Some(checkpoint) = usize::try_from(sections)
            .ok()
            .and_then(|at| file.get_mut(at..at.checked_add(CHECKPOINT_FIELD_BYTES)?))
        else {
            continue;
        };
        let offset = number_u32(&checkpoint[range(CHECKPOINT, "watermark_offset")]);
        let sequence = &checkpoint[range(CHECKPOINT, "watermark_sequence")];
        if let Some([checksum, chain]) = chain_at(sequence, offset) {
            checkpoint[range(CHECKPOINT, "watermark_checksum")].copy_from_slice(&checksum);
            checkpoint[range(CHECKPOINT, "chain")].copy_from_slice(&chain);
        }
    }
}

/// The parts of an index file that decide how it is read.
#[must_use]
pub fn parts_of_index(file: &[u8]) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    for start in headers(file) {
        parts.push(start..start + HEADER_BYTES);
        let body = start + HEADER_BYTES;
        parts.push(body..file.len().min(body + 128));
        let sections = number_u64(&file[start..][range(HEADER, "sections_offset")]);
        parts.extend(
            usize::try_from(sections)
                .ok()
                .filter(|at| *at < file.len())
                .map(|at| at..file.len().min(at + 256)),
        );
    }
    parts
}

fn headers(file: &[u8]) -> Vec<usize> {
    let mut starts: Vec<usize> = Vec::new();
    let mut start = 0usize;
    while starts.len() < HEADERS_MAX
        && let Some(header) = file.get(start..start.saturating_add(HEADER_BYTES))
        && header.starts_with(b"zkvindex")
    {
        starts.push(start);
        let body_end = number_u64(&header[range(HEADER, "body_end")]);
        let Some(next) = usize::try_from(body_end).ok().filter(|next| *next > start) else { break };
        start = next;
    }
    starts
}

fn records(layout: &'static [Row], area: &str, count: &str, header: &[u8]) -> Vec<Range<usize>> {
    let area = range(HEADER, area);
    let bytes = layout.last().map_or(0, |(_, offset, bytes)| offset + bytes);
    let count = usize::from(header[range(HEADER, count)][0]);
    let starts = area.clone().step_by(bytes).take(count);
    starts.map(|start| start..start + bytes).collect()
}

fn mend_tables(file: &mut [u8], header: &mut [u8]) {
    let bucket_bytes = BUCKET.last().map_or(0, |(_, offset, bytes)| offset + bytes);
    for place in records(TABLE, "tables", "table_count", header) {
        let record = &mut header[place];
        let number = |name| number_u32(&record[range(TABLE, name)]);
        let spilled = &record[range(TABLE, "spill_count")];
        let spill_count = u32::from(u16::from_le_bytes([spilled[0], spilled[1]]));
        let (first, salt) = (number("first_bucket") as usize, number("salt"));
        let total = number("bucket_count").saturating_add(spill_count);
        let mut check = 0;
        for bucket_number in 0..total {
            let start = (first + bucket_number as usize) * bucket_bytes;
            let Some(bucket) = file.get_mut(start..start + bucket_bytes) else { break };
            put_bucket_check(bucket, salt ^ bucket_number);
            check = crc32c(check, bucket);
        }
        record[range(TABLE, "check")].copy_from_slice(&check.to_le_bytes());
    }
}

/// CRC32C folded to 16 bits, of which zero is stored as another number.
fn put_bucket_check(bucket: &mut [u8], seed: u32) {
    let place = range(BUCKET, "check");
    let [a, b, c, d] = crc32c(seed, &bucket[..place.start]).to_le_bytes();
    let check = u16::from_le_bytes([a, b]) ^ u16::from_le_bytes([c, d]).rotate_left(13);
    let check = if check == 0 { 0x00A5 } else { check };
    bucket[place].copy_from_slice(&check.to_le_bytes());
}

fn mend_sections(file: &[u8], header: &mut [u8]) {
    let mut start = number_u64(&header[range(HEADER, "sections_offset")]);
    for place in records(SECTION, "sections", "section_count", header) {
        let record = &mut header[place];
        let end = start.saturating_add(number_u64(&record[range(SECTION, "length")]));
        let bytes = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        if let Some(section) = bytes.and_then(|(start, end)| file.get(start..end)) {
            record[range(SECTION, "check")].copy_from_slice(&crc32c(0, section).to_le_bytes());
        }
        start = end;
    }
}

fn number_u64(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
