//! Whose file it is: from the file header, from any segment's header, or from a seal's copy of one.

use zkv_io::StorageFile;

use crate::error::Result;
use crate::header::{FileHeader, HeaderFault, Identity, SegmentHeader};
use crate::layout::{
    FILE_HEADER_FIELD_BYTES, SEGMENT_HEADER_FIELD_BYTES, SLOT_BYTES_MAX, SLOT_BYTES_MIN,
    header_copy_offset, slot_count, slot_start,
};

/// The headers that one slot holds: in its first cell, and in the seal at its end.
const HEADERS_A_SLOT: u64 = 2;
/// Whose headers are counted, where the file header is lost: a file has parts of few others.
const IDENTITIES_MAX: usize = 64;

/// What the file's headers say of the file.
pub(super) struct Origin {
    pub identity: Identity,
    /// Where the file header is whole, and of this identity.
    pub first_nonce: Option<u64>,
}

/// Finds the identity that the file header names, or most others do; `None` where none is whole.
///
/// # Errors
/// Where the file header is of a newer version, and nothing contradicts it.
pub(super) fn find(file: &dyn StorageFile, file_bytes: u64) -> Result<Option<Origin>> {
    let mut page = [0; FILE_HEADER_FIELD_BYTES];
    let header = match file.read_at(0, &mut page) {
        Ok(()) => FileHeader::decode(&page),
        Err(_) => Err(HeaderFault::Damaged),
    };
    if let Ok(FileHeader { identity, first_nonce }) = &header {
        let slots = identity.slot_count(file_bytes);
        let mut headers = (0..slots).flat_map(|slot| headers_in(file, slot, identity.slot_bytes));
        let is_ours = |header: SegmentHeader| header.identity == *identity;
        // One that agrees is enough. A page of another store's would have none.
        if slots == 0 || headers.any(is_ours) {
            let origin = Origin { identity: identity.clone(), first_nonce: Some(*first_nonce) };
            return Ok(Some(origin));
        }
    }
    match (header, most_named(file, file_bytes)) {
        // The headers of its segments are lost, and one slot at the most is of another store.
        (Ok(header), named) if named.as_ref().is_none_or(|(_, count)| *count <= HEADERS_A_SLOT) => {
            let FileHeader { identity, first_nonce } = header;
            Ok(Some(Origin { identity, first_nonce: Some(first_nonce) }))
        }
        (_, Some((identity, _))) => Ok(Some(Origin { identity, first_nonce: None })),
        (Err(HeaderFault::Damaged) | Ok(_), None) => Ok(None),
        (Err(fault), None) => Err(fault.into_error()),
    }
}

/// The headers that stand in a slot's first cell and in the seal at its end, as far as they are
/// whole and stand where they say: after the slot was used again, those may be of two segments.
pub(super) fn headers_in(
    file: &dyn StorageFile,
    slot: u32,
    slot_bytes: u32,
) -> impl Iterator<Item = SegmentHeader> {
    let found = [0, header_copy_offset(slot_bytes)].map(|offset| {
        let mut bytes = [0; SEGMENT_HEADER_FIELD_BYTES];
        file.read_at(slot_start(slot, slot_bytes) + u64::from(offset), &mut bytes).ok()?;
        let header = SegmentHeader::decode(&bytes).ok()?;
        let stands_here = header.slot == slot && header.identity.slot_bytes == slot_bytes;
        (stands_here && header.sequence > 0).then_some(header)
    });
    found.into_iter().flatten()
}

/// The identity in most headers, and their number. Looks wherever a header can be, for each size
/// that slots may have.
fn most_named(file: &dyn StorageFile, file_bytes: u64) -> Option<(Identity, u64)> {
    let sizes = std::iter::successors(Some(SLOT_BYTES_MIN), |size| size.checked_mul(2));
    let mut named: Vec<(Identity, u64)> = Vec::new();
    for slot_bytes in sizes.take_while(|size| *size <= SLOT_BYTES_MAX) {
        for slot in 0..slot_count(file_bytes, slot_bytes) {
            for header in headers_in(file, slot, slot_bytes) {
                let known = named.iter().position(|(identity, _)| *identity == header.identity);
                match known {
                    Some(number) => named[number].1 += 1,
                    // A file made for it could name millions.
                    None if named.len() == IDENTITIES_MAX => {}
                    None => named.push((header.identity, 1)),
                }
            }
        }
    }
    named.into_iter().max_by_key(|(_, count)| *count)
}
