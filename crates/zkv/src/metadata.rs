//! What the index file holds beside the index: what is known of collections and segments.

pub(crate) mod catalog;
pub(crate) mod counts;
pub(crate) mod known;
pub(crate) mod live;
pub(crate) mod sections;
