//! Numbers of which a few come often, as YCSB draws them.

use zkv_measure::random::{Random, mix};

/// YCSB's constant (Cooper et al., SoCC 2010).
const THETA: f64 = 0.99;

/// A Zipfian distribution (Gray et al., SIGMOD 1994, "Quickly generating billion-record synthetic
/// databases").
pub struct Zipf {
    count: usize,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    /// Of the numbers below `count`.
    pub fn new(count: usize) -> Self {
        let zeta_of = |count: usize| (1..=count).map(|rank| float(rank).powf(-THETA)).sum::<f64>();
        let zeta = zeta_of(count);
        let eta =
            (1.0 - (2.0 / float(count)).powf(1.0 - THETA)) / (1.0 - zeta_of(2.min(count)) / zeta);
        Self { count, zeta, alpha: 1.0 / (1.0 - THETA), eta }
    }

    /// A rank: 0 is the most frequent.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "ranks are far below 2^52"
    )]
    pub fn rank(&self, random: &mut Random) -> usize {
        let unit = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let scaled = unit * self.zeta;
        if scaled < 1.0 || self.count < 2 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(THETA) {
            return 1;
        }
        let rank = float(self.count) * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        (rank as usize).min(self.count - 1)
    }

    /// A number whose frequency says nothing about its size.
    pub fn scattered(&self, random: &mut Random) -> usize {
        let rank = self.rank(random) as u64;
        usize::try_from(mix(rank + 1) % self.count as u64).unwrap_or_default()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of records are below 2^52")]
fn float(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_follow_the_law() {
        let (zipf, mut random) = (Zipf::new(1000), Random::new(1));
        let mut counts = [0_u32; 1000];
        for _ in 0..1_000_000 {
            counts[zipf.rank(&mut random)] += 1;
        }
        // 1 / zeta(1000, 0.99) is 0.1287; each rank has rank^-0.99 of it.
        for (rank, share) in [(0, 0.1287), (1, 0.0648), (9, 0.0132), (99, 0.001_35)] {
            let found = f64::from(counts[rank]) / 1e6;
            assert!((found / share - 1.0).abs() < 0.15, "rank {rank}: {found}");
        }
    }

    #[test]
    fn a_single_number_is_always_drawn() {
        let (zipf, mut random) = (Zipf::new(1), Random::new(1));
        assert!((0..100).all(|_| zipf.scattered(&mut random) == 0));
    }
}
