//! How typed values become bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use zkv_record::{Codec, RecordError};

use crate::error::Result;
use crate::shared::Shared;

/// How the values of a collection become bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coding {
    pub codec: Codec,
    pub depth_max: u32,
}

impl Coding {
    pub(crate) fn encode<V: Serialize + ?Sized>(self, value: &V) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.codec.encode(value, self.depth_max, &mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn decode<V: DeserializeOwned>(self, bytes: &[u8]) -> Result<V> {
        Ok(self.codec.decode(bytes, self.depth_max)?)
    }

    pub(crate) fn decode_all<V: DeserializeOwned>(
        self,
        values: Vec<Option<Vec<u8>>>,
    ) -> Result<Vec<Option<V>>> {
        let decoded = |value: Option<Vec<u8>>| value.map(|value| self.decode(&value)).transpose();
        values.into_iter().map(decoded).collect()
    }
}

impl Shared {
    pub(crate) fn coding(&self, codec: Codec) -> Coding {
        Coding { codec, depth_max: self.options.decode_depth_max }
    }

    /// That of a store's own values.
    pub(crate) fn postcard(&self) -> Coding {
        self.coding(Codec::Postcard)
    }
}

/// What is wrong with a key, as is told of it: no option lets one nest deeper.
pub(crate) fn of_key(error: RecordError) -> RecordError {
    match error {
        RecordError::TooDeep { max } => RecordError::KeyTooDeep { max },
        error => error,
    }
}
