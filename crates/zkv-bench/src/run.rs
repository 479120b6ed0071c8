//! The rounds: every engine in its turn, every phase in a process of its own.

use std::collections::BTreeMap;
use std::path::Path;

use clap::ValueEnum;
use zkv_measure::figures::run_child;

use crate::cgroup::Group;
use crate::child::{Figures, Phase};
use crate::engine::Kind;
use crate::records::Records;
use crate::report::Report;
use crate::{Arguments, Failure, plot};

/// What the rounds gave: for each engine, the figures of each round.
pub type Rounds = BTreeMap<Kind, Vec<Figures>>;

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let report = match &arguments.from {
        Some(path) => serde_json::from_slice(&std::fs::read(path)?)?,
        None => measure(arguments)?,
    };
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    if let Some(folder) = &arguments.plots {
        plot::write(&report, folder)?;
    }
    // Last: whoever reads the tables may stop doing so, and the files are there.
    report.print();
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<Report, Failure> {
    if cfg!(debug_assertions) {
        return Err("a build without optimization measures nothing: use --release".into());
    }
    let records = Records::new(arguments.input.input()?, arguments.input.seed)?;
    let mut report = Report::new(arguments, &records);
    let record_bytes = records.raw_bytes / records.count() as u64;
    drop(records);
    let mut engines = match &arguments.engines[..] {
        [] => Kind::value_variants().iter().copied().filter(|kind| kind.is_compiled()).collect(),
        engines => engines.to_vec(),
    };
    for round in 0..arguments.rounds {
        for engine in &engines {
            eprintln!("round {} of {}: {}", round + 1, arguments.rounds, engine.name());
            let (figures, failures) = one_engine(arguments, *engine, record_bytes)?;
            for failure in failures {
                eprintln!("  {failure}");
                report.add_failure(*engine, failure);
            }
            report.rounds.entry(*engine).or_default().push(figures);
        }
        // Each round starts with another one.
        engines.rotate_left(1);
    }
    Ok(report)
}

/// All phases of one engine. A phase that fails leaves its figures out, and the rest are measured.
fn one_engine(
    arguments: &Arguments,
    engine: Kind,
    record_bytes: u64,
) -> Result<(Figures, Vec<String>), Failure> {
    let folder = arguments.input.folder()?;
    let (random, sorted) = (folder.path().join("random"), folder.path().join("sorted"));
    let (mut figures, mut failures) = (Figures::new(), Vec::new());
    for at in [&random, &sorted] {
        std::fs::create_dir(at)?;
    }
    for phase in Phase::value_variants() {
        let is_wanted = arguments.phases.is_empty() || arguments.phases.contains(phase);
        let is_possible = match phase {
            Phase::Limits => engine == Kind::Zkv,
            Phase::Limited => arguments.cgroup.is_some(),
            _ => true,
        };
        // All phases but one need what the import leaves.
        let is_needed = *phase == Phase::Import && arguments.phases != [Phase::Sorted];
        if !is_possible || !(is_wanted || is_needed) {
            continue;
        }
        let at = if *phase == Phase::Sorted { &sorted } else { &random };
        match one_phase(arguments, engine, record_bytes, *phase, at) {
            Ok(found) => figures.extend(found),
            Err(failure) => failures.push(format!("{phase:?}: {}", failure.to_string().trim())),
        }
    }
    Ok((figures, failures))
}

fn one_phase(
    arguments: &Arguments,
    engine: Kind,
    record_bytes: u64,
    phase: Phase,
    at: &Path,
) -> Result<Figures, Failure> {
    let name = phase.to_possible_value().map(|value| value.get_name().to_owned());
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    words.extend(["--phase".to_owned(), name.unwrap_or_default()]);
    words.extend(["--engine".to_owned(), engine.name()]);
    words.extend(["--record-bytes".to_owned(), record_bytes.to_string()]);
    words.extend(["--at".to_owned(), at.to_string_lossy().into_owned()]);
    let group = match (&arguments.cgroup, phase) {
        (Some(folder), Phase::Limited) => Some(Group::new(folder)?),
        _ => None,
    };
    if let Some(group) = &group {
        words.extend(["--group".to_owned(), group.path.to_string_lossy().into_owned()]);
    }
    run_child(&words)
}
