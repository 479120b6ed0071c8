//! Medians, what the system tells of this process, and how a result is printed.

use std::process::Command;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Failure;

/// The middle one of `values`, which are not none; of an even number, the mean of the middle two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// The medians of `left / right` and of `left - right`, round by round.
pub fn compare(left: &[f64], right: &[f64]) -> (f64, f64) {
    let of = |each: fn(f64, f64) -> f64| {
        median(&left.iter().zip(right).map(|(l, r)| each(*l, *r)).collect::<Vec<_>>())
    };
    (of(|l, r| l / r), of(|l, r| l - r))
}

/// `number`, to be divided and printed.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "printed with a few digits")]
pub fn float(number: u64) -> f64 {
    number as f64
}

/// `bytes` in MiB.
#[must_use]
pub fn mib(bytes: u64) -> f64 {
    float(bytes) / f64::from(1 << 20)
}

/// How a figure stands to its bar.
pub fn verdict(holds: bool) -> &'static str {
    if holds { "holds" } else { "MISSED" }
}

/// Runs this program with `arguments` in a process of its own, and returns what it reports.
pub fn run_child<T: DeserializeOwned>(arguments: &[String]) -> Result<T, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.args(arguments).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What [`run_child`] reads.
pub fn report_as_child(result: &impl Serialize) -> Result<(), Failure> {
    println!("{}", serde_json::to_string(result)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        let (ratio, difference) = compare(&[2.0, 40.0, 6.0], &[1.0, 20.0, 2.0]);
        assert_eq!((ratio, difference), (2.0, 4.0));
    }
}
