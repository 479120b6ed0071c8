//! Records made from a seed: any number of them, any one at any time, the same on every machine.

use std::io::Write;

use crate::input::Record;
use crate::random::{Random, mix};

/// What the records are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A name and a sentence: about 90 bytes.
    Small,
    /// A JSON object that describes a package: about 800 bytes.
    Json,
    /// A page of HTML: about 17 KB.
    Pages,
    /// A kilobyte that no compressor makes smaller, as pictures and archives are.
    Incompressible,
}

/// Makes records.
#[derive(Clone, Debug)]
pub struct Generator {
    kind: Kind,
    seed: u64,
    words: Vec<String>,
}

/// The length of a value of random bytes.
const INCOMPRESSIBLE_BYTES: usize = 1024;

/// A language has about as many words that are in use.
const WORD_COUNT: u64 = 20_000;

impl Generator {
    /// The same seed gives the same records.
    #[must_use]
    pub fn new(kind: Kind, seed: u64) -> Self {
        let words = (0..WORD_COUNT).map(word).collect();
        Self { kind, seed, words }
    }

    /// Puts record `number` into `record`.
    pub fn record(&self, number: u64, record: &mut Record) {
        let mut random = Random::new(mix(self.seed) ^ number);
        record.key.clear();
        record.value.clear();
        let (first, second) = (self.word(&mut random), self.word(&mut random));
        // Writing to a Vec cannot fail.
        let _ = write!(record.key, "{first}-{second}-{number:x}");
        match self.kind {
            Kind::Small => self.sentence(&mut random, 10, &mut record.value),
            Kind::Json => self.json(&mut random, record),
            Kind::Pages => self.page(&mut random, record),
            Kind::Incompressible => {
                for _ in 0..INCOMPRESSIBLE_BYTES / 8 {
                    record.value.extend_from_slice(&random.next().to_le_bytes());
                }
            }
        }
    }

    /// Frequent words come first, roughly as Zipf's law has it.
    fn word(&self, random: &mut Random) -> &str {
        let mut unit = 1 << 20;
        for _ in 0..3 {
            unit = (unit * random.below(1 << 20)) >> 20;
        }
        let place = (unit * WORD_COUNT) >> 20;
        usize::try_from(place).map_or("", |place| &self.words[place])
    }

    fn sentence(&self, random: &mut Random, word_count: u64, into: &mut Vec<u8>) {
        for number in 0..word_count / 2 + random.below(word_count) {
            if number > 0 {
                into.push(b' ');
            }
            into.extend_from_slice(self.word(random).as_bytes());
        }
    }

    fn json(&self, random: &mut Random, record: &mut Record) {
        let into = &mut record.value;
        into.extend_from_slice(b"{\"id\":\"");
        into.extend_from_slice(&record.key);
        let numbers = [random.below(5), random.below(20), random.below(9)];
        let [major, minor, patch] = numbers;
        let (size, digest) = (random.below(1 << 22), (random.next(), random.next()));
        let (section, owner) = (random.below(30), self.word(random));
        let _ = write!(
            into,
            "\",\"version\":\"{major}.{minor}.{patch}\",\"section\":\"{}\",\"maintainer\":\"{owner} \
             <{owner}@example.org>\",\"installed_size\":{},\"size\":{size},\"digest\":\
             \"{:016x}{:016x}\",\"depends\":[",
            word(section),
            size / 300,
            digest.0,
            digest.1,
        );
        for number in 0..random.below(12) {
            let comma = if number > 0 { "," } else { "" };
            let _ = write!(into, "{comma}\"{} (>= {})\"", self.word(random), random.below(9));
        }
        into.extend_from_slice(b"],\"summary\":\"");
        self.sentence(random, 8, into);
        into.extend_from_slice(b"\",\"description\":\"");
        self.sentence(random, 50, into);
        into.extend_from_slice(b"\"}");
    }

    fn page(&self, random: &mut Random, record: &mut Record) {
        let into = &mut record.value;
        into.extend_from_slice(
            b"<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">",
        );
        into.extend_from_slice(b"<link rel=\"stylesheet\" href=\"/style.css\">\n<title>");
        self.sentence(random, 6, into);
        into.extend_from_slice(b"</title></head>\n<body><nav><a href=\"/\">Home</a> ");
        for section in 0..12 {
            let name = word(section);
            let _ = write!(into, "<a class=\"section\" href=\"/{name}/\">{name}</a> ");
        }
        into.extend_from_slice(b"</nav>\n<main>\n");
        for _ in 0..20 + random.below(30) {
            into.extend_from_slice(b"<p class=\"text\">");
            self.sentence(random, 70, into);
            let target = self.word(random);
            let _ = writeln!(into, " <a href=\"/wiki/{target}\">{target}</a>.</p>");
        }
        into.extend_from_slice(b"</main><footer>All of this is made up.</footer></body></html>\n");
    }
}

/// A word of one to four syllables; the frequent ones are the short ones.
fn word(number: u64) -> String {
    const SYLLABLES: [&str; 32] = [
        "ta", "ro", "li", "en", "con", "der", "pa", "is", "mu", "ver", "al", "ing", "se", "tor",
        "ne", "qua", "bi", "lo", "at", "ex", "tra", "ce", "po", "un", "gra", "no", "fi", "or",
        "de", "ka", "mi", "su",
    ];
    let mut random = Random::new(mix(number));
    let count = 1 + number.checked_ilog2().unwrap_or(0) / 5 + u32::from(random.below(3) == 0);
    let syllables = (0..count).map(|_| {
        let place = usize::try_from(random.below(32)).unwrap_or(0);
        SYLLABLES[place]
    });
    syllables.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_of_their_kind_and_always_the_same() {
        for (kind, sizes) in [
            (Kind::Small, 60..120),
            (Kind::Json, 600..1000),
            (Kind::Pages, 13_000..21_000),
            (Kind::Incompressible, 1030..1060),
        ] {
            let generator = Generator::new(kind, 7);
            let (mut record, mut again) = (Record::default(), Record::default());
            let mut bytes = 0;
            for number in 0..200 {
                generator.record(number, &mut record);
                Generator::new(kind, 7).record(number, &mut again);
                assert_eq!(record, again);
                bytes += record.key.len() + record.value.len();
            }
            assert!(sizes.contains(&(bytes / 200)), "{kind:?}: {} bytes", bytes / 200);
        }
    }
}
