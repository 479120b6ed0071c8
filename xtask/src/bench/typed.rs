//! `cargo xtask bench typed`.

use std::hint::black_box;
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zkv_measure::figures::median;
use zkv_record::{decode, encode};

use crate::Failure;

/// Calls that are timed together.
const CALLS: u32 = 200;

#[derive(clap::Args)]
pub struct Arguments {
    /// Bytes of the field.
    #[arg(long, default_value_t = 17_000)]
    bytes: u32,
    /// Rounds of which the medians are taken.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
}

/// What a scraper keeps.
#[derive(Serialize, Deserialize)]
struct Page<B> {
    url: String,
    status: u16,
    body: Vec<B>,
}

/// A byte that is not taken for one: a `Vec` of these goes through serde element by element.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Byte(u8);

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let bytes: Vec<u8> =
        (0..arguments.bytes).map(|at| (at.wrapping_mul(at) >> 5).to_le_bytes()[0]).collect();
    let one_by_one: Vec<Byte> = bytes.iter().copied().map(Byte).collect();
    let (at_once, one_by_one) = (page(bytes.clone()), page(one_by_one));
    let mut taken = [const { Vec::new() }; 5];
    for _ in 0..arguments.rounds {
        taken[0].push(time(|| Ok(black_box(&bytes).clone()))?);
        taken[1].push(time(|| encoded(&at_once))?);
        taken[2].push(time(|| encoded(&one_by_one))?);
        let stored = encoded(&at_once)?;
        taken[3].push(time(|| decoded::<Page<u8>>(&stored))?);
        taken[4].push(time(|| decoded::<Page<Byte>>(&stored))?);
    }
    println!("a struct with a field of {} bytes, microseconds:", arguments.bytes);
    let what = [
        "a copy of the bytes",
        "encode, Vec<u8>",
        "encode, element by element",
        "decode, Vec<u8>",
        "decode, element by element",
    ];
    for (name, taken) in what.iter().zip(&taken) {
        println!("  {name:<28} {:8.2}", median(taken));
    }
    Ok(())
}

fn page<B>(body: Vec<B>) -> Page<B> {
    Page { url: "https://example.com/a/page".to_owned(), status: 200, body }
}

fn encoded<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    encode(black_box(value), &mut bytes)?;
    Ok(bytes)
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    Ok(decode(black_box(bytes))?)
}

/// Microseconds that a call takes.
fn time<T>(call: impl Fn() -> Result<T, Failure>) -> Result<f64, Failure> {
    let start = Instant::now();
    for _ in 0..CALLS {
        black_box(call()?);
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS))
}
