//! Both files of a store: opened, read, verified, salvaged.

use super::data::{DATA, options, read};
use crate::pair;

pub(crate) fn run(input: &[u8]) {
    let storage = pair::storage(6, input);
    if let Ok(store) = options(&storage).open_read_only(DATA) {
        read(&store);
    }
    super::verify::run(input);
    super::salvage::run(input);
}
