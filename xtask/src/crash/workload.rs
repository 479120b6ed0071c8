//! What is done to a store while its disk may fail at any moment.

use std::fmt;
use std::str::FromStr;

use zkv::Durability;
use zkv_index::Thresholds;

use super::model::DEFAULT;

/// Operations on a store, with all that decides how they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub durability: Durability,
    pub index: IndexFile,
    /// Decides the disk's random bytes and the values that are written.
    pub seed: u64,
    pub operations: Vec<Operation>,
}

/// What becomes of a store's index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexFile {
    Unused,
    /// Each checkpoint is a new file, as that of a store of a few megabytes is.
    Rewritten,
    /// Checkpoints stand one behind the other in the file, as those of a large store do.
    Appended,
}

/// A collection: 0 has no name, and the others are made where a write finds them missing.
pub type Place = u8;

/// What a write does to a key of a collection: no value deletes it.
pub type Change = (Place, Vec<u8>, Option<Vec<u8>>);

/// One step, as a user takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Gives a key a value of so many bytes, each time another one.
    Set(Place, u8, u32),
    Delete(Place, u8),
    /// Writes to a key and those behind it, in turn in the default collection and in the first named
    /// one: so many values of so many bytes, and two deletes.
    Batch {
        key: u8,
        bytes: u32,
        count: u8,
    },
    /// Reads a key, and sets it and one of the first named collection.
    Transact {
        key: u8,
        bytes: u32,
        is_synced: bool,
    },
    /// Removes a collection's keys.
    Clear(Place),
    /// Removes a collection. Who writes to it next makes it again, with another type.
    Drop(Place),
    Flush,
    Sync,
    /// Closes and opens.
    Reopen,
    /// The process is killed, and another one opens the store.
    Kill,
    /// As `Kill`, and somebody has removed the index file.
    LoseIndex,
    RebuildIndex,
    /// Copies the store to a name of its own.
    Backup,
    /// The process is killed, and somebody puts the last backup, if there is one, in the place of the
    /// store. The index file stays, and is of what the store has lost by that.
    Restore,
    /// Does what automatic cleaning would do.
    Clean,
    Compact,
    /// Takes a snapshot, and drops the one before it.
    Hold,
    /// Drops the snapshot.
    Release,
    /// Closes, and opens with an index file where there was none, or without one. The file stays.
    SwitchIndex,
}

/// Pieces of a quarter of a slot: the store's slots have 256 KiB.
pub const LARGE_BYTES: u32 = 150_000;
/// Longer than a slot.
pub const HUGE_BYTES: u32 = 300_000;

/// The least that a store keeps in memory. A workload that writes a batch of more has that little.
pub const BUFFER_BYTES: u32 = 64 << 10;
/// One in so many seeds stands for values that nearly vanish when compressed: a segment then holds more
/// than what is moved together.
const COMPRESSIBLE_SEEDS: u64 = 8;
/// Longer values are written in pieces.
const INLINE_BYTES_MAX: u32 = 64 << 10;

impl Workload {
    /// How much the store keeps in memory; `None` for what it does by itself.
    pub fn buffer_bytes(&self) -> Option<u32> {
        self.operations.iter().any(|operation| operation.is_spilled()).then_some(BUFFER_BYTES)
    }

    /// The value that the operation `number` gives its key: a half of it compresses, or nearly all.
    pub fn value(&self, number: usize, bytes: u32) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(self.seed ^ (number as u64) << 32);
        let mut value = vec![random.u8(..); bytes as usize];
        let noise_share = if self.seed.is_multiple_of(COMPRESSIBLE_SEEDS) { 16 } else { 2 };
        let noise_start = value.len() - value.len() / noise_share;
        random.fill(&mut value[noise_start..]);
        value
    }

    /// Whether it uses the index file that it has, as it is, from beginning to end.
    pub fn keeps_index(&self) -> bool {
        let disturbs = |operation: &Operation| {
            matches!(operation, Operation::SwitchIndex | Operation::Restore)
        };
        self.index.is_used() && !self.operations.iter().any(disturbs)
    }

    /// The first operation that gives space back, or of a snapshot that is held across it.
    pub fn first_cleaning(&self) -> Option<usize> {
        let of_cleaning = [Operation::Clean, Operation::Compact, Operation::Hold];
        self.operations.iter().position(|operation| of_cleaning.contains(operation))
    }
}

impl IndexFile {
    const NAMES: [(&str, Self); 3] =
        [("no-index", Self::Unused), ("index", Self::Rewritten), ("appended", Self::Appended)];

    pub fn is_used(self) -> bool {
        self != Self::Unused
    }

    pub fn thresholds(self) -> Thresholds {
        match self {
            Self::Unused | Self::Rewritten => Thresholds::DEFAULT,
            Self::Appended => Thresholds {
                base_bytes_least: 0,
                besides_base_eighths_max: u64::MAX,
                ..Thresholds::DEFAULT
            },
        }
    }
}

impl Operation {
    /// The bytes of a key.
    pub fn key(number: u8) -> Vec<u8> {
        format!("key {number}").into_bytes()
    }

    /// The collections that it needs.
    pub fn places(self) -> Vec<Place> {
        match self {
            Self::Set(place, ..) | Self::Delete(place, _) => vec![place],
            Self::Batch { .. } | Self::Transact { .. } => vec![1],
            _ => Vec::new(),
        }
    }

    /// What it writes as the operation `number` of its workload, all in one commit. Of several writes
    /// to one key, the last counts.
    pub fn writes(self, workload: &Workload, number: usize) -> Vec<Change> {
        match self {
            Self::Set(place, key, bytes) => {
                vec![(place, Self::key(key), Some(workload.value(number, bytes)))]
            }
            Self::Delete(place, key) => vec![(place, Self::key(key), None)],
            Self::Batch { key, bytes, count } => {
                // The first key is deleted and set.
                let mut writes = vec![(DEFAULT, Self::key(key), None)];
                for turn in 0..count {
                    let (place, key) = (turn % 2, Self::key(key.wrapping_add(turn / 2)));
                    let value = workload.value(number ^ usize::from(turn) << 16, bytes);
                    writes.push((place, key, Some(value)));
                }
                let behind = Self::key(key.wrapping_add(count));
                writes.extend([(DEFAULT, behind.clone(), None), (1, behind, None)]);
                writes
            }
            Self::Transact { key, bytes, .. } => {
                let value = workload.value(number, bytes);
                let other = Self::key(key.wrapping_add(1));
                vec![(DEFAULT, Self::key(key), Some(value.clone())), (1, other, Some(value))]
            }
            _ => Vec::new(),
        }
    }

    /// Bytes of the values that it writes.
    pub fn value_bytes(self) -> u32 {
        match self {
            Self::Set(_, _, bytes) => bytes,
            Self::Batch { bytes, count, .. } => bytes * u32::from(count),
            Self::Transact { bytes, .. } => 2 * bytes,
            _ => 0,
        }
    }

    /// Whether it is a batch of more than the least buffer.
    pub fn is_spilled(self) -> bool {
        matches!(self, Self::Batch { .. }) && self.value_bytes() > BUFFER_BYTES
    }

    /// Whether it goes straight to the log, whatever the store's durability, behind all that waits in
    /// buffers.
    pub fn goes_straight(self) -> bool {
        match self {
            Self::Set(_, _, bytes) => bytes > INLINE_BYTES_MAX,
            Self::Batch { bytes, .. } => self.is_spilled() || bytes > INLINE_BYTES_MAX,
            Self::Transact { bytes, is_synced, .. } => is_synced || bytes > INLINE_BYTES_MAX,
            Self::Clear(_) | Self::Drop(_) => true,
            _ => false,
        }
    }
}

/// The form that [`Workload::from_str`] reads: `synced/index/17/s0.40,d0,y`.
impl fmt::Display for Workload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let durability = match self.durability {
            Durability::Synced => "synced",
            Durability::Flushed => "flushed",
            _ => "buffered",
        };
        let (index, _) = IndexFile::NAMES[self.index as usize];
        write!(formatter, "{durability}/{index}/{}/", self.seed)?;
        for (number, operation) in self.operations.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(formatter, "{comma}{operation}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(place, key, bytes) => {
                write_place(formatter, *place)?;
                write!(formatter, "s{key}.{bytes}")
            }
            Self::Delete(place, key) => {
                write_place(formatter, *place)?;
                write!(formatter, "d{key}")
            }
            Self::Batch { key, bytes, count } => write!(formatter, "b{key}.{bytes}x{count}"),
            Self::Transact { key, bytes, is_synced } => {
                let synced = if *is_synced { "!" } else { "" };
                write!(formatter, "t{key}.{bytes}{synced}")
            }
            Self::Clear(place) => write!(formatter, "c{place}.clear"),
            Self::Drop(place) => write!(formatter, "c{place}.drop"),
            Self::Flush => formatter.write_str("flush"),
            Self::Sync => formatter.write_str("sync"),
            Self::Reopen => formatter.write_str("reopen"),
            Self::Kill => formatter.write_str("kill"),
            Self::LoseIndex => formatter.write_str("lose-index"),
            Self::RebuildIndex => formatter.write_str("rebuild-index"),
            Self::Backup => formatter.write_str("backup"),
            Self::Restore => formatter.write_str("restore"),
            Self::Clean => formatter.write_str("clean"),
            Self::Compact => formatter.write_str("compact"),
            Self::Hold => formatter.write_str("hold"),
            Self::Release => formatter.write_str("release"),
            Self::SwitchIndex => formatter.write_str("switch-index"),
        }
    }
}

fn write_place(formatter: &mut fmt::Formatter<'_>, place: Place) -> fmt::Result {
    if place == DEFAULT { Ok(()) } else { write!(formatter, "c{place}.") }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(4, '/');
        let mut part = || parts.next().ok_or("a workload is durability/index/seed/operations");
        let durability = match part()? {
            "synced" => Durability::Synced,
            "flushed" => Durability::Flushed,
            "buffered" => Durability::Buffered,
            other => return Err(format!("no durability: {other}")),
        };
        let index = part()?;
        let known = IndexFile::NAMES.iter().find(|(name, _)| *name == index);
        let (_, index) = *known.ok_or_else(|| format!("no use of the index file: {index}"))?;
        let seed = part()?.parse().map_err(|error| format!("the seed: {error}"))?;
        let operations = part()?.split(',').filter(|word| !word.is_empty());
        let operations = operations.map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { durability, index, seed, operations })
    }
}

impl FromStr for Operation {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u8>().map_err(|error| format!("{word}: {error}"));
        match word {
            "flush" => return Ok(Self::Flush),
            "sync" => return Ok(Self::Sync),
            "reopen" => return Ok(Self::Reopen),
            "kill" => return Ok(Self::Kill),
            "lose-index" => return Ok(Self::LoseIndex),
            "rebuild-index" => return Ok(Self::RebuildIndex),
            "backup" => return Ok(Self::Backup),
            "restore" => return Ok(Self::Restore),
            "clean" => return Ok(Self::Clean),
            "compact" => return Ok(Self::Compact),
            "hold" => return Ok(Self::Hold),
            "release" => return Ok(Self::Release),
            "switch-index" => return Ok(Self::SwitchIndex),
            _ => {}
        }
        let named = word.strip_prefix('c').and_then(|rest| rest.split_once('.'));
        let (place, rest) = match named {
            Some((place, rest)) => (number(place)?, rest),
            None => (DEFAULT, word),
        };
        let sized = |text: &str| {
            let (key, bytes) = text.split_once('.').ok_or_else(|| format!("{word}: no size"))?;
            let bytes = bytes.parse().map_err(|error| format!("{word}: {error}"))?;
            Ok::<(u8, u32), String>((number(key)?, bytes))
        };
        match rest.split_at_checked(1) {
            _ if rest == "clear" => Ok(Self::Clear(place)),
            _ if rest == "drop" => Ok(Self::Drop(place)),
            Some(("d", key)) => Ok(Self::Delete(place, number(key)?)),
            Some(("s", text)) => sized(text).map(|(key, bytes)| Self::Set(place, key, bytes)),
            Some(("b", text)) => {
                let (text, count) = text.split_once('x').ok_or("a batch is bKEY.BYTESxCOUNT")?;
                let (key, bytes) = sized(text)?;
                Ok(Self::Batch { key, bytes, count: number(count)? })
            }
            Some(("t", text)) => {
                let (key, bytes) = sized(text.trim_end_matches('!'))?;
                Ok(Self::Transact { key, bytes, is_synced: text.ends_with('!') })
            }
            _ => Err(format!("no operation: {word}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_reads_back_as_it_is_printed() {
        let directed = Workload::directed().unwrap();
        for workload in (0..200).map(Workload::random).chain(directed) {
            assert_eq!(workload.to_string().parse(), Ok(workload));
        }
        assert!("synced/index/1/q".parse::<Workload>().is_err());
        assert!("synced/index".parse::<Workload>().is_err());
    }
}
