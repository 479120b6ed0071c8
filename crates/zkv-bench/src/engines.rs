//! The engines, one file each, used as its own documentation advises.

pub mod fjall;
pub mod lmdb;
pub mod redb;
pub mod sled;
pub mod sqlite;
pub mod zkv;
