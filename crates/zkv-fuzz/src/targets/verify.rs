//! Finding out what is wrong with forged files: of a store that is closed, and of one that is open.

use super::data::{DATA, options};
use crate::pair;

pub(crate) fn run(input: &[u8]) {
    let storage = pair::storage(4, input);
    let _ = zkv::verify(DATA, options(&storage), |_| {});
    if let Ok(store) = options(&storage).open_read_only(DATA) {
        let _ = store.verify(|_| {});
    }
    if let Ok(store) = options(&storage).open(DATA) {
        let _ = store.set_bytes(b"new", b"value");
        let _ = store.verify(|_| {});
    }
}
