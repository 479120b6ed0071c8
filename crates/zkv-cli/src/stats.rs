//! `zkv stats`.

use serde::Serialize;
use zkv::CollectionInfo;

use crate::arguments::Stats;
use crate::failure::Failure;
use crate::output::{Output, escaped};
use crate::store;

/// What is printed, in this order.
#[derive(Serialize)]
struct Figures {
    keys: u64,
    keys_in_collections: u64,
    data_file_bytes: u64,
    index_file_bytes: u64,
    raw_bytes: u64,
    live_bytes: u64,
    dead_bytes: u64,
    free_bytes: u64,
    segments: u64,
    dictionaries: u64,
    ratio: f64,
    collections: Vec<Collection>,
}

/// What is printed of each named collection.
#[derive(Serialize)]
struct Collection {
    name: String,
    keys: u64,
    raw_bytes: u64,
    live_bytes: u64,
    /// Of values.
    codec: String,
    key_type: String,
    value_type: String,
}

impl From<CollectionInfo> for Collection {
    fn from(info: CollectionInfo) -> Self {
        Self {
            name: info.name,
            keys: info.keys,
            raw_bytes: info.raw_bytes,
            live_bytes: info.live_bytes,
            codec: match info.codec {
                Some(codec) => format!("{codec:?}").to_lowercase(),
                None => "unknown".to_owned(),
            },
            key_type: info.key_type,
            value_type: info.value_type,
        }
    }
}

/// Prints how many keys a store has, and what they take.
pub fn run(arguments: &Stats) -> Result<(), Failure> {
    let store = store::open_to_read(&arguments.store)?;
    let stats = store.stats()?;
    let collections: Vec<Collection> =
        store.collections().into_iter().map(Collection::from).collect();
    let figures = Figures {
        keys: stats.keys,
        keys_in_collections: collections.iter().map(|collection| collection.keys).sum(),
        data_file_bytes: stats.data_file_bytes,
        index_file_bytes: stats.index_file_bytes,
        raw_bytes: stats.raw_bytes,
        live_bytes: stats.live_bytes,
        dead_bytes: stats.dead_bytes,
        free_bytes: stats.free_bytes,
        segments: stats.segments,
        dictionaries: stats.dictionaries,
        // Four places say all that there is to say, and make no line of seventeen.
        ratio: (stats.ratio() * 10_000.0).round() / 10_000.0,
        collections,
    };
    let text = if arguments.json { json(&figures) } else { table(&figures) };
    let mut output = Output::open(None, &arguments.store)?;
    output.write(text.as_bytes())?;
    output.finish()
}

fn json(figures: &Figures) -> String {
    let mut text = serde_json::to_string(figures).expect("numbers and text are always JSON");
    text.push('\n');
    text
}

fn table(figures: &Figures) -> String {
    let rows = [
        ("keys", figures.keys, ""),
        ("of these in collections", figures.keys_in_collections, ""),
        ("keys and values", figures.raw_bytes, " bytes"),
        ("data file", figures.data_file_bytes, " bytes"),
        ("index file", figures.index_file_bytes, " bytes"),
        ("live", figures.live_bytes, " bytes"),
        ("dead", figures.dead_bytes, " bytes"),
        ("free", figures.free_bytes, " bytes"),
        ("segments", figures.segments, ""),
        ("dictionaries", figures.dictionaries, ""),
    ];
    let mut text: String =
        rows.iter().map(|(name, value, unit)| format!("{name:<24}{value:>16}{unit}\n")).collect();
    text.push_str(&format!("{:<24}{:>16.2}\n", "ratio", figures.ratio));
    for collection in &figures.collections {
        let Collection { name, keys, raw_bytes, key_type, value_type, .. } = collection;
        // Somebody else's, as keys are.
        let [name, key_type, value_type] = [name, key_type, value_type].map(|text| escaped(text));
        text.push_str(&format!(
            "collection {name}: {keys} keys of {key_type}, values of {value_type}, {raw_bytes} bytes\n"
        ));
    }
    text
}
