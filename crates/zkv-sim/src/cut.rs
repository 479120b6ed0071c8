//! Which of the changes that nothing has made durable a power cut leaves.

/// What one power cut does to the changes that are pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Which changes reached the disk, in their order.
    pub kept: Vec<bool>,
    /// A write of which only a part did.
    pub tear: Option<Tear>,
    /// What became of lengths.
    pub growth: Growth,
}

/// A write of which only some sectors reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tear {
    /// The change's number among those pending.
    pub number: usize,
    /// What a disk writes whole: 512 or 4096 bytes.
    pub sector_bytes: u64,
    /// Which of them.
    pub sectors: Sectors,
}

/// Which of a write's sectors reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sectors {
    /// The first ones.
    First(u64),
    /// All but the first ones.
    AllBut(u64),
    /// As chance has it.
    Chosen(u64),
}

/// A file's length may reach the disk before the bytes that it grew by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// A file is as long as what reached it.
    AsWritten,
    /// It has its last length, and zeros where nothing arrived.
    Zeros,
    /// As `Zeros`, with what the disk held there before: behind a file's end, what an earlier cut has
    /// left there, and else noise.
    Garbage,
    /// It has the length that is durable, and what was written behind that stays in the last page,
    /// where nobody sees it until the file grows.
    Short,
}

impl Sectors {
    /// Whether the sector `number` of the write arrived.
    pub(crate) fn hold(self, number: u64) -> bool {
        match self {
            Self::First(count) => number < count,
            Self::AllBut(count) => count <= number,
            Self::Chosen(seed) => fastrand::Rng::with_seed(seed ^ number).bool(),
        }
    }
}

impl Tear {
    /// The parts of a write of `len` bytes at `offset` that arrived, as ranges of its bytes.
    pub(crate) fn parts(self, offset: u64, len: u64) -> Vec<std::ops::Range<usize>> {
        let mut parts = Vec::new();
        let (mut start, mut number) = (0, 0);
        while start < len {
            let sector_end = ((offset + start) / self.sector_bytes + 1) * self.sector_bytes;
            let end = (sector_end - offset).min(len);
            if self.sectors.hold(number) {
                // A write is in memory: its length fits.
                parts.push(usize::try_from(start).unwrap_or(0)..usize::try_from(end).unwrap_or(0));
            }
            (start, number) = (end, number + 1);
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes of each sector of a write of `len` bytes at `offset` arrive.
    fn lens(sectors: Sectors, offset: u64, len: u64) -> Vec<usize> {
        let tear = Tear { number: 0, sector_bytes: 512, sectors };
        tear.parts(offset, len).iter().map(ExactSizeIterator::len).collect()
    }

    #[test]
    fn a_tear_keeps_whole_sectors_of_the_disk() {
        assert_eq!(lens(Sectors::First(1), 500, 1000), [12]);
        assert_eq!(lens(Sectors::AllBut(1), 500, 1000), [512, 476]);
        assert_eq!(lens(Sectors::First(9), 0, 100), [100]);
        let chosen = lens(Sectors::Chosen(7), 0, 512 * 64);
        assert!((1..64).contains(&chosen.len()), "{}", chosen.len());
    }
}
