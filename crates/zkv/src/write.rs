//! Writes: how they gather, what they supersede, and their way into the log and the index.

pub(crate) mod append;
pub(crate) mod buffer;
pub(crate) mod flusher;
pub(crate) mod group;
pub(crate) mod large;
pub(crate) mod memtable;
pub(crate) mod modify;
pub(crate) mod operation;
pub(crate) mod pipeline;
pub(crate) mod recent;
pub(crate) mod reserve;
pub(crate) mod resolve;
pub(crate) mod rewrite;
pub(crate) mod spill;
pub(crate) mod tail;
pub(crate) mod write_set;
pub(crate) mod writer;
