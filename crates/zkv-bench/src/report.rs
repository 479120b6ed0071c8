//! The figures as tables and as JSON: medians of the rounds, ratios to zkv, multiples of limits.

use std::collections::BTreeMap;

use serde::Serialize;
use zkv_measure::figures::{compare, float, median};

use crate::engine::Kind;
use crate::measures::{LIMITS, MEASURES, Measure};
use crate::records::Records;
use crate::run::Rounds;
use crate::{Arguments, Failure};

/// Everything that one run found.
#[derive(Serialize)]
pub struct Report {
    data: String,
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

    pub fn to_json(&self) -> Result<String, Failure> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// The rounds' values of `name`.
    fn values(&self, engine: Kind, name: &str) -> Vec<f64> {
        let rounds = self.rounds.get(&engine).map_or(&[][..], |rounds| rounds);
        rounds.iter().filter_map(|figures| figures.get(name).copied()).collect()
    }

    /// The median of `name`, where it was measured.
    pub fn median(&self, engine: Kind, name: &str) -> Option<f64> {
        let values = self.values(engine, name);
        (!values.is_empty()).then(|| median(&values))
    }

    /// The median of the rounds' ratios to zkv.
    fn ratio(&self, engine: Kind, name: &str) -> Option<f64> {
        let (theirs, ours) = (self.values(engine, name), self.values(Kind::Zkv, name));
        (!theirs.is_empty() && theirs.len() == ours.len()).then(|| compare(&theirs, &ours).0)
    }

    /// How many times worse than its limit zkv is.
    fn multiple(&self, measure: &Measure) -> Option<f64> {
        let limit = self.values(Kind::Zkv, measure.limit?);
        let ours = self.values(Kind::Zkv, measure.name);
        let (worse, better) = if measure.more_is_better { (limit, ours) } else { (ours, limit) };
        (!worse.is_empty() && worse.len() == better.len()).then(|| compare(&worse, &better).0)
    }

    /// Tables in Markdown, for `engines`.
    pub fn print(&self, engines: &[Kind]) {
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
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
