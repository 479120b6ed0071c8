//! What a type's `Deserialize` asks for, as text: two types that read the same have the same shape.
//!
//! `trace` runs a type's `Deserialize` and keeps what it asked for, `tracer` is the deserializer that
//! asks back with plain values, and `text` is the notation. `again` asks whether a type reads what it writes, of
//! which `noted` keeps what counts.

mod access;
mod again;
mod noted;
mod text;
mod trace;
mod tracer;

use serde::de::DeserializeOwned;

use crate::codec::Codec;
pub use again::reads_what_it_writes;
use trace::Trace;

/// The longest shape, in bytes: it is stored with a collection, and stands in an error.
pub const SHAPE_BYTES_MAX: usize = 1024;

/// Describes what `T` asks for when it is read with `codec`, in the notation of "Shapes of types" in
/// `docs/format/record.md`.
///
/// The text depends on nothing but `T`'s `Deserialize`: not on the compiler, the platform, or the
/// path of the type. A text longer than [`SHAPE_BYTES_MAX`] is cut, and ends in a digest of the whole.
///
/// `T::deserialize` is run several times, on values such as 0, 1 and the empty string. Where a type
/// takes none of them, only what it asked for until then is known. Types that differ only in what they
/// make of the same bytes have one shape.
///
/// ```
/// use zkv_record::{Codec, shape_of};
///
/// #[derive(serde::Deserialize)]
/// struct Page {
///     title: String,
///     links: Vec<Option<u32>>,
/// }
///
/// assert_eq!(shape_of::<Page>(Codec::Postcard), "Page { title: string, links: [u32?] }");
/// # let _ = |page: Page| (page.title, page.links);
/// ```
#[must_use]
pub fn shape_of<T: DeserializeOwned>(codec: Codec) -> String {
    text::shorten(text::whole(&Trace::of::<T>(codec)), SHAPE_BYTES_MAX)
}

/// Whether `T` asks the data what it is, anywhere within it, as `serde_json::Value` and `RawValue` do, enums
/// that are untagged or have `#[serde(tag)]`, and `#[serde(flatten)]`. postcard cannot tell: it writes such
/// values and never reads them, and two that differ may be the same bytes.
///
/// An enum asks where one of its variants does. As for [`shape_of`], what stands behind values that a type
/// does not take is not known, and counts as asking nothing.
///
/// ```
/// assert!(zkv_record::asks_the_data::<(String, Vec<serde_json::Value>)>());
/// assert!(!zkv_record::asks_the_data::<(String, Vec<u8>)>());
/// ```
#[must_use]
pub fn asks_the_data<T: DeserializeOwned>() -> bool {
    Trace::of::<T>(Codec::Postcard).asks_the_data
}

/// Describes `T` by its name or, where it has none, by the kind of JSON that it is: for values whose
/// fields may come and go.
///
/// ```
/// use zkv_record::{Codec, outer_shape_of};
///
/// #[derive(serde::Deserialize)]
/// struct Page {
///     title: String,
/// }
///
/// assert_eq!(outer_shape_of::<Page>(Codec::Json), "Page");
/// assert_eq!(outer_shape_of::<Vec<Page>>(Codec::Json), "[any]");
/// assert_eq!(outer_shape_of::<serde_json::Value>(Codec::Json), "any");
/// # let _ = |page: Page| page.title;
/// ```
#[must_use]
pub fn outer_shape_of<T: DeserializeOwned>(codec: Codec) -> String {
    text::shorten(text::outermost(&Trace::of::<T>(codec)), SHAPE_BYTES_MAX)
}
