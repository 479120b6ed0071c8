//! Reading: the store at one moment, lookups and iterations, and what they keep in memory.

pub(crate) mod cache;
pub(crate) mod iter;
pub(crate) mod lookup;
pub(crate) mod many;
pub(crate) mod view;
pub(crate) mod wanted;
