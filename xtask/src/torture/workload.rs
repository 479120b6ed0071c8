//! Operations, and values that tell which operation wrote them.

use zkv_measure::random::{Random, mix};

/// Few keys, so that most operations replace or delete something.
const KEY_COUNT: u64 = 150;

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Gives the key the value that [`Values::get`] has for the number.
    Set { key: String, number: u64 },
    /// Removes the key.
    Delete { key: String },
}

/// The value of every operation's number.
#[derive(Clone, Copy, Debug)]
pub struct Values {
    seed: u64,
}

impl Values {
    /// The same seed gives the same values.
    pub fn new(seed: u64) -> Self {
        Self { seed: mix(seed) }
    }

    /// The value that operation `number` writes: its number, and text without line ends, from
    /// nothing to some that spans segments.
    pub fn get(self, number: u64) -> Vec<u8> {
        let mut random = Random::new(self.seed ^ number);
        let bytes = match random.below(100) {
            0..80 => random.below(300),
            80..94 => random.below(5_000),
            94..99 => random.below(80_000),
            _ => 80_000 + random.below(600_000),
        };
        let compresses = random.below(2) == 0;
        let mut value = format!("{number}:").into_bytes();
        while (value.len() as u64) < bytes {
            let word = random.next();
            if compresses {
                value.extend_from_slice(if word.is_multiple_of(3) {
                    b"the same again "
                } else {
                    b"and another "
                });
            } else {
                // Six bits a byte: incompressible but for a quarter, and no line end among them.
                value.extend((0..10).map(|at| b'0' + (word >> (at * 6) & 63) as u8));
            }
        }
        value
    }

    /// The operation that wrote `value`, if one did: every byte counts.
    pub fn number_of(self, value: &[u8]) -> Option<u64> {
        let end = value.iter().position(|&byte| byte == b':')?;
        let number = std::str::from_utf8(&value[..end]).ok()?.parse().ok()?;
        (self.get(number) == value).then_some(number)
    }
}

/// Sets of random keys, numbered from `first` on.
pub fn sets(random: &mut Random, first: u64, count: u64) -> Vec<Operation> {
    (first..first + count).map(|number| Operation::Set { key: key(random), number }).collect()
}

/// Deletes of random keys, some of which are not there.
pub fn deletes(random: &mut Random, count: u64) -> Vec<Operation> {
    (0..count).map(|_| Operation::Delete { key: key(random) }).collect()
}

fn key(random: &mut Random) -> String {
    format!("key-{}", random.below(KEY_COUNT))
}

/// The sets among `operations` as `zkv import --format tsv` reads them.
pub fn table(operations: &[Operation], values: Values) -> Vec<u8> {
    let mut table = Vec::new();
    for operation in operations {
        if let Operation::Set { key, number } = operation {
            table.extend_from_slice(key.as_bytes());
            table.push(b'\t');
            table.extend(values.get(*number));
            table.push(b'\n');
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_its_operation_and_any_change_shows() {
        let values = Values::new(3);
        for number in 0..300 {
            let mut value = values.get(number);
            assert!(!value.contains(&b'\n'));
            assert_eq!(values.number_of(&value), Some(number));
            let last = value.len() - 1;
            value[last] ^= 1;
            assert_eq!(values.number_of(&value), None);
            value.pop();
            assert_eq!(values.number_of(&value), None);
        }
        assert_eq!(Values::new(4).number_of(&values.get(95)), None);
        assert_eq!(values.number_of(b""), None);
    }
}
