//! What is done to a store while its disk may fail at any moment.

use std::fmt;
use std::str::FromStr;

use zkv::Durability;

/// Operations on a store, with all that decides how they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub durability: Durability,
    pub use_index_file: bool,
    /// Decides the disk's random bytes and the values that are written.
    pub seed: u64,
    pub operations: Vec<Operation>,
}

/// One step, as a user takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Gives a key a value of so many bytes, each time another one.
    Set(u8, u32),
    Delete(u8),
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
}

/// Pieces of a quarter of a slot: the store's slots have 256 KiB.
const LARGE_BYTES: u32 = 150_000;
/// Longer than a slot.
const HUGE_BYTES: u32 = 300_000;

/// What the exhaustive run is made of: each kind of operation, and each kind of value.
pub const ALPHABET: [Operation; 12] = [
    Operation::Set(0, 40),
    Operation::Set(1, 900),
    Operation::Set(0, LARGE_BYTES),
    Operation::Set(1, HUGE_BYTES),
    Operation::Delete(0),
    Operation::Flush,
    Operation::Sync,
    Operation::Reopen,
    Operation::Kill,
    Operation::LoseIndex,
    Operation::RebuildIndex,
    Operation::Backup,
];

/// Workloads of more than three operations that chance seldom finds, each with every durability.
const DIRECTED: &[&str] = &[
    // The index file is ahead of the log: by what is missing, and by what is something else.
    "s0.40,backup,s1.900,s0.50,d0,reopen,restore,s2.40,reopen,s1.40",
    "s0.40,backup,s1.900,rebuild-index,restore,s2.900,kill,s1.40",
    // By segments.
    "s0.40,backup,s1.300000,s2.300000,reopen,restore,s1.300000,d0,kill,s2.40",
];

impl Workload {
    /// The workloads that are written out.
    pub fn directed() -> Result<Vec<Self>, String> {
        let durabilities = ["synced", "flushed", "buffered"];
        let texts = DIRECTED.iter().flat_map(|operations| {
            durabilities.map(|durability| format!("{durability}/index/1/{operations}"))
        });
        texts.map(|text| text.parse()).collect()
    }

    /// All workloads of `count` operations of the alphabet, with all durabilities.
    pub fn all(count: u32) -> Vec<Self> {
        let letters = ALPHABET.len();
        let mut all = Vec::new();
        for durability in [Durability::Synced, Durability::Flushed, Durability::Buffered] {
            for number in 0..letters.pow(count) {
                let digits = (0..count).scan(number, |left, _| {
                    let letter = ALPHABET[*left % letters];
                    *left /= letters;
                    Some(letter)
                });
                let operations = digits.collect();
                all.push(Self { durability, use_index_file: true, seed: 1, operations });
            }
        }
        all
    }

    /// A long workload, chosen by `seed`. Most values are small; some runs write enough to fill
    /// segments and to train dictionaries.
    pub fn random(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let durabilities = [Durability::Synced, Durability::Flushed, Durability::Buffered];
        let durability = durabilities[random.usize(..3)];
        let use_index_file = random.u8(..8) > 0;
        let (keys, most_bytes) = (random.u8(2..24), [60, 1500, 9000][random.usize(..3)]);
        let count = random.usize(4..60);
        let operations = (0..count).map(|_| random_operation(&mut random, keys, most_bytes));
        let operations = operations.collect();
        Self { durability, use_index_file, seed, operations }
    }

    /// What another process does with the store after a crash of this one.
    pub fn next_life(&self, number: u32) -> Self {
        let next = Self::random(self.seed ^ u64::from(number) << 20 ^ self.operations.len() as u64);
        let operations = next.operations.into_iter().take(6).collect();
        Self { operations, ..next }
    }

    /// The value that the operation `number` gives its key: a half of it compresses.
    pub fn value(&self, number: usize, bytes: u32) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(self.seed ^ (number as u64) << 32);
        let mut value = vec![random.u8(..); bytes as usize];
        let half = value.len() / 2;
        random.fill(&mut value[half..]);
        value
    }
}

fn random_operation(random: &mut fastrand::Rng, keys: u8, most_bytes: u32) -> Operation {
    let key = random.u8(..keys);
    match random.u8(..100) {
        0..60 => Operation::Set(key, random.u32(..most_bytes)),
        60..63 => Operation::Set(key, random.u32(66_000..LARGE_BYTES)),
        63 => Operation::Set(key, HUGE_BYTES),
        64..76 => Operation::Delete(key),
        76..80 => Operation::Flush,
        80..84 => Operation::Sync,
        84..89 => Operation::Reopen,
        89..93 => Operation::Kill,
        93..95 => Operation::LoseIndex,
        95..97 => Operation::RebuildIndex,
        97..99 => Operation::Backup,
        _ => Operation::Restore,
    }
}

impl Operation {
    /// The bytes of a key.
    pub fn key(number: u8) -> Vec<u8> {
        format!("key {number}").into_bytes()
    }
}

/// The form that [`Workload::from_str`] reads: `synced/index/17/s0.40,d0,y`.
impl fmt::Display for Workload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let durability = match self.durability {
            Durability::Synced => "synced",
            Durability::Flushed => "flushed",
            Durability::Buffered => "buffered",
        };
        let index = if self.use_index_file { "index" } else { "no-index" };
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
            Self::Set(key, bytes) => write!(formatter, "s{key}.{bytes}"),
            Self::Delete(key) => write!(formatter, "d{key}"),
            Self::Flush => formatter.write_str("flush"),
            Self::Sync => formatter.write_str("sync"),
            Self::Reopen => formatter.write_str("reopen"),
            Self::Kill => formatter.write_str("kill"),
            Self::LoseIndex => formatter.write_str("lose-index"),
            Self::RebuildIndex => formatter.write_str("rebuild-index"),
            Self::Backup => formatter.write_str("backup"),
            Self::Restore => formatter.write_str("restore"),
        }
    }
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
        let use_index_file = part()? == "index";
        let seed = part()?.parse().map_err(|error| format!("the seed: {error}"))?;
        let operations = part()?.split(',').filter(|word| !word.is_empty());
        let operations = operations.map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { durability, use_index_file, seed, operations })
    }
}

impl FromStr for Operation {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|error| format!("{word}: {error}"));
        match word {
            "flush" => return Ok(Self::Flush),
            "sync" => return Ok(Self::Sync),
            "reopen" => return Ok(Self::Reopen),
            "kill" => return Ok(Self::Kill),
            "lose-index" => return Ok(Self::LoseIndex),
            "rebuild-index" => return Ok(Self::RebuildIndex),
            "backup" => return Ok(Self::Backup),
            "restore" => return Ok(Self::Restore),
            _ => {}
        }
        if let Some(key) = word.strip_prefix('d') {
            return Ok(Self::Delete(number(key)?));
        }
        let set = word.strip_prefix('s').and_then(|rest| rest.split_once('.'));
        let (key, bytes) = set.ok_or_else(|| format!("no operation: {word}"))?;
        Ok(Self::Set(number(key)?, bytes.parse().map_err(|error| format!("{word}: {error}"))?))
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

    #[test]
    fn the_exhaustive_run_has_every_order_of_every_operation() {
        let all = Workload::all(2);
        assert_eq!(all.len(), 3 * 12 * 12);
        let has = |first, second| all.iter().any(|one| one.operations == [first, second]);
        assert!(has(ALPHABET[11], ALPHABET[0]) && has(ALPHABET[0], ALPHABET[11]));
    }
}
