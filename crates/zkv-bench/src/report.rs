//! The figures as tables and as JSON: medians of the rounds, ratios to zkv, multiples of limits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zkv_measure::figures::{compare, float, median};

use crate::Arguments;
use crate::engine::Kind;
use crate::measures::{LIMITS, MEASURES, Measure};
use crate::records::Records;
use crate::run::Rounds;

/// Everything that one run found.
#[derive(Serialize, Deserialize)]
pub struct Report {
    /// What the records are.
    pub data: String,
    records: usize,
    raw_bytes: u64,
    threads: usize,
    /// For each engine, the figures of each round.
    pub rounds: Rounds,
    failures: BTreeMap<Kind, Vec<String>>,
}

impl Report {
    pub fn new(arguments: &Arguments, records: &Records) -> Self {
        Self {
            data: arguments.input.title(),
            records: records.count(),
            raw_bytes: records.raw_bytes,
            threads: arguments.threads,
            rounds: Rounds::new(),
            failures: BTreeMap::new(),
        }
    }

    pub fn add_failure(&mut self, engine: Kind, failure: String) {
        self.failures.entry(engine).or_default().push(failure);
    }

    /// What each round gave for `name`.
    fn values(&self, engine: Kind, name: &str) -> impl Iterator<Item = Option<f64>> {
        let rounds = self.rounds.get(&engine).map_or(&[][..], |rounds| rounds);
        rounds.iter().map(move |figures| figures.get(name).copied())
    }

    /// The median of `name`, where it was measured.
    pub fn median(&self, engine: Kind, name: &str) -> Option<f64> {
        let values: Vec<f64> = self.values(engine, name).flatten().collect();
        (!values.is_empty()).then(|| median(&values))
    }

    /// The median of the rounds' ratios to zkv.
    fn ratio(&self, engine: Kind, name: &str) -> Option<f64> {
        self.compare((engine, name), (Kind::Zkv, name))
    }

    /// How many times worse than its limit zkv is.
    fn multiple(&self, measure: &Measure) -> Option<f64> {
        let (limit, ours) = ((Kind::Zkv, measure.limit?), (Kind::Zkv, measure.name));
        match measure.more_is_better {
            true => self.compare(limit, ours),
            false => self.compare(ours, limit),
        }
    }

    /// The median of the ratios of two figures, where each round has both.
    fn compare(&self, left: (Kind, &str), right: (Kind, &str)) -> Option<f64> {
        let (left, right) = (self.values(left.0, left.1), self.values(right.0, right.1));
        let pairs: Option<(Vec<f64>, Vec<f64>)> = left.zip(right).map(|(l, r)| l.zip(r)).collect();
        let (left, right) = pairs?;
        (!left.is_empty()).then(|| compare(&left, &right).0)
    }

    /// Tables in Markdown.
    pub fn print(&self) {
        let engines: Vec<Kind> = self.rounds.keys().copied().collect();
        println!(
            "\n{}: {} records, {:.1} MB of keys and values, {:.0} bytes each; {} threads\n",
            self.data,
            self.records,
            float(self.raw_bytes) / 1e6,
            float(self.raw_bytes) / float(self.records as u64),
            self.threads
        );
        let names: Vec<String> = engines.iter().map(|engine| engine.name()).collect();
        println!("| | {} | zkv / limit |", names.join(" | "));
        println!("|---|{}---:|", "---:|".repeat(engines.len()));
        for measure in MEASURES {
            let cells: Vec<String> =
                engines.iter().map(|engine| self.cell(*engine, measure.name)).collect();
            if cells.iter().all(|cell| cell == "-") {
                continue;
            }
            let multiple =
                self.multiple(measure).map_or(String::new(), |times| format!("{times:.2}"));
            println!("| {} | {} | {multiple} |", measure.title, cells.join(" | "));
        }
        println!("\n| limit | |\n|---|---:|");
        for (name, title) in LIMITS {
            if let Some(value) = self.median(Kind::Zkv, name) {
                println!("| {title} | {} |", digits(value));
            }
        }
        for (engine, failures) in &self.failures {
            let mut distinct = failures.clone();
            distinct.dedup();
            distinct.iter().for_each(|failure| println!("\n{}: {failure}", engine.name()));
        }
    }

    fn cell(&self, engine: Kind, name: &str) -> String {
        let Some(value) = self.median(engine, name) else {
            return "-".to_owned();
        };
        match self.ratio(engine, name) {
            Some(ratio) if engine != Kind::Zkv && ratio.is_finite() => {
                format!("{} ({})", digits(value), digits(ratio))
            }
            _ => digits(value),
        }
    }
}

/// Three digits, or all before the point.
pub fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::Figures;

    /// A report of two rounds, in which redb takes 2 and 3 times as long as zkv, and LMDB and SQLite fail
    /// once.
    fn report() -> Report {
        let round = |get: f64, limit: f64| {
            Figures::from([("get_us".to_owned(), get), ("limit_decompress_us".to_owned(), limit)])
        };
        let theirs = |get: f64| Figures::from([("get_us".to_owned(), get)]);
        Report {
            data: "some".to_owned(),
            records: 1,
            raw_bytes: 1,
            threads: 1,
            rounds: Rounds::from([
                (Kind::Zkv, vec![round(1.0, 0.5), round(10.0, 2.5)]),
                (Kind::Redb, vec![theirs(2.0), theirs(30.0)]),
                (Kind::Lmdb, vec![theirs(1.0), Figures::new()]),
                (Kind::Sqlite, vec![Figures::new(), theirs(5.0)]),
            ]),
            failures: BTreeMap::new(),
        }
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let report = report();
        assert_eq!(report.ratio(Kind::Redb, "get_us"), Some(2.5));
        let get = MEASURES.iter().find(|measure| measure.name == "get_us").unwrap();
        assert_eq!(report.multiple(get), Some(3.0));
    }

    #[test]
    fn what_was_not_measured_each_round_has_no_ratio() {
        let report = report();
        assert_eq!(report.ratio(Kind::Lmdb, "get_us"), None);
        assert_eq!(report.cell(Kind::Lmdb, "get_us"), "1.00");
        // Each of the two was measured once, but not in the same round.
        assert_eq!(report.compare((Kind::Lmdb, "get_us"), (Kind::Sqlite, "get_us")), None);
        assert_eq!(report.cell(Kind::Sled, "get_us"), "-");
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let written = serde_json::to_string(&report()).unwrap();
        let read: Report = serde_json::from_str(&written).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), written);
    }

    #[test]
    fn limits_are_among_the_rows() {
        for measure in MEASURES {
            let is_known = |limit| LIMITS.iter().any(|(name, _)| *name == limit);
            assert!(measure.limit.is_none_or(is_known), "{}", measure.name);
        }
    }

    #[test]
    fn figures_have_three_digits() {
        let found = [0.123, 1.0, 9.999, 12.34, 99.96, 1234.5].map(digits);
        assert_eq!(found, ["0.12", "1.00", "10.0", "12.3", "100", "1234"]);
    }
}
