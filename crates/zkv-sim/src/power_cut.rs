//! What a power cut may leave, at each moment of a run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use zkv_io::parent_directory;

use crate::cut::{Cut, Growth, Sectors, Tear};
use crate::disk::PAGE_BYTES;
use crate::event::{Event, FileId};
use crate::image::Image;

/// Up to so many changes are lost and kept in every way; of more, samples are taken.
const EXHAUSTIVE_MAX: usize = 12;
/// What a disk writes whole at the least.
const SECTOR_BYTES: u64 = 512;
/// Prime, so that no alignment of a format's makes it look like anything.
const NOISE_PERIOD: usize = 251;

/// Follows what is done to a disk: what is durable, and what is pending.
#[derive(Clone, Debug, Default)]
pub struct PowerCut {
    files: HashMap<FileId, Arc<Vec<u8>>>,
    /// What an earlier cut has left behind the ends of files.
    hidden: HashMap<FileId, Vec<u8>>,
    names: BTreeMap<PathBuf, FileId>,
    pending: Vec<Event>,
}

impl PowerCut {
    /// A disk that was empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk that held `image`, as [`SimDisk::recording_from`](crate::SimDisk::recording_from)
    /// starts.
    #[must_use]
    pub fn from_image(image: &Image) -> Self {
        let mut started = Self::default();
        for (id, (path, bytes)) in (0..).map(FileId).zip(&image.files) {
            started.files.insert(id, Arc::clone(bytes));
            started.names.insert(path.clone(), id);
            started.hidden.extend(image.hidden.get(path).map(|bytes| (id, bytes.clone())));
        }
        started
    }

    /// Takes one more event into account. Returns whether it is a change that is pending now.
    pub fn follow(&mut self, event: &Event) -> bool {
        match event {
            Event::Synced { file } => {
                let of_file = |other: &Event| data_of(other) == Some(*file);
                let mut changes = self.pending.iter().filter(|other| of_file(other));
                if changes.any(|change| self.reaches_last_page(change, *file)) {
                    // The page is written, with zeros behind the end.
                    self.hidden.remove(file);
                }
                self.settle(of_file, |_| true);
            }
            Event::Discarded { file, seed } => {
                let mut chance = seed.map(fastrand::Rng::with_seed);
                let survives = move |_: &Event| chance.as_mut().is_some_and(fastrand::Rng::bool);
                self.settle(|other| data_of(other) == Some(*file), survives);
            }
            Event::DirectorySynced { directory } => self.settle(
                |other| name_of(other).is_some_and(|name| parent_directory(name) == directory),
                |_| true,
            ),
            change => {
                self.pending.push(change.clone());
                return true;
            }
        }
        false
    }

    /// The changes that nothing has made durable, in their order.
    #[must_use]
    pub fn pending(&self) -> &[Event] {
        &self.pending
    }

    /// Makes the pending changes that are `meant` durable, or drops those that do not `survive`.
    fn settle(&mut self, meant: impl Fn(&Event) -> bool, mut survives: impl FnMut(&Event) -> bool) {
        for event in std::mem::take(&mut self.pending) {
            if !meant(&event) {
                self.pending.push(event);
            } else if survives(&event) {
                apply(&event, None, &mut self.files, &mut self.names);
            }
        }
    }

    /// Ways of cutting the power now, about `most` of them at the most. All subsets of the pending
    /// changes where they are few, samples where they are many, some with a torn write, some with
    /// lengths that came before their bytes. Where the last change is new, only ways that keep some
    /// of it: the others were there before.
    #[must_use]
    pub fn cuts(&self, last_is_new: bool, most: usize, random: &mut fastrand::Rng) -> Vec<Cut> {
        let masks = self.masks(last_is_new, most, random);
        let mut cuts: Vec<Cut> = masks
            .iter()
            .map(|kept| Cut { kept: kept.clone(), tear: None, growth: Growth::AsWritten })
            .collect();
        let mut special = Vec::new();
        for tear in self.tears(last_is_new, random) {
            for kept in sample(&masks, 3, random) {
                let mut kept = kept.clone();
                kept[tear.number] = true;
                special.push(Cut { kept, tear: Some(tear), growth: Growth::AsWritten });
            }
        }
        for growth in [Growth::Zeros, Growth::Garbage, Growth::Short] {
            for kept in sample(&masks, 4, random) {
                special.push(Cut { kept: kept.clone(), tear: None, growth });
            }
        }
        if !self.pending.iter().any(|event| data_of(event).is_some()) {
            special.clear();
        }
        random.shuffle(&mut special);
        special.truncate(most.div_ceil(2));
        cuts.truncate(most.saturating_sub(special.len()).max(2));
        cuts.extend(special);
        cuts.extend(self.begun(last_is_new));
        cuts.extend(self.hiding(last_is_new));
        cuts.extend(self.showing(last_is_new));
        cuts
    }

    /// The new change has arrived but for its last sector, and all before it has: chance alone seldom
    /// finds the one write of which this tells.
    fn begun(&self, last_is_new: bool) -> Option<Cut> {
        let number = self.pending.len().checked_sub(1).filter(|_| last_is_new)?;
        let Event::Write { offset, bytes, .. } = &self.pending[number] else { return None };
        let count = sector_count(*offset, bytes, SECTOR_BYTES);
        let sectors = Sectors::First(count.checked_sub(1).filter(|count| *count > 0)?);
        let tear = Some(Tear { number, sector_bytes: SECTOR_BYTES, sectors });
        Some(Cut { tear, ..self.of_all(true, Growth::AsWritten) })
    }

    /// All has arrived but a length, which the new change has changed: what is behind the old one
    /// stays hidden, up to a page's end.
    fn hiding(&self, last_is_new: bool) -> Option<Cut> {
        let grown = self.grown_by_last(last_is_new)?;
        let len = self.files.get(&grown).map_or(0, |bytes| bytes.len() as u64);
        let hides = !len.is_multiple_of(PAGE_BYTES);
        hides.then(|| self.of_all(true, Growth::Short))
    }

    /// Nothing has arrived but a length, which the new change has changed: what an earlier cut has
    /// hidden comes to light.
    fn showing(&self, last_is_new: bool) -> Option<Cut> {
        let grown = self.grown_by_last(last_is_new)?;
        self.hidden.contains_key(&grown).then(|| self.of_all(false, Growth::Garbage))
    }

    fn of_all(&self, is_kept: bool, growth: Growth) -> Cut {
        Cut { kept: vec![is_kept; self.pending.len()], tear: None, growth }
    }

    /// The file that the new change has made longer than all before it.
    fn grown_by_last(&self, last_is_new: bool) -> Option<FileId> {
        let (last, before) = self.pending.split_last().filter(|_| last_is_new)?;
        let file = data_of(last)?;
        (self.len_behind(before, file) < self.len_behind(&self.pending, file)).then_some(file)
    }

    /// Whether a change writes to the page in which the file ends on the disk, or behind it.
    fn reaches_last_page(&self, change: &Event, file: FileId) -> bool {
        let len = self.files.get(&file).map_or(0, |bytes| bytes.len() as u64);
        match change {
            Event::Write { offset, bytes, .. } => {
                offset + bytes.len() as u64 > len - len % PAGE_BYTES
            }
            _ => true,
        }
    }

    /// What an earlier cut has left at a place behind a file's end.
    fn hidden_at(&self, file: FileId, at: usize) -> Option<u8> {
        let start = self.files.get(&file).map_or(0, |bytes| bytes.len());
        self.hidden.get(&file)?.get(at.checked_sub(start)?).copied()
    }

    /// The length of a file behind all of these changes, which follow what is durable.
    fn len_behind(&self, changes: &[Event], file: FileId) -> u64 {
        let durable = self.files.get(&file).map_or(0, |bytes| bytes.len() as u64);
        let of_file = changes.iter().filter(|change| data_of(change) == Some(file));
        of_file.fold(durable, |len, change| match change {
            Event::Write { offset, bytes, .. } => len.max(offset + bytes.len() as u64),
            Event::SetLen { bytes, .. } => *bytes,
            _ => len,
        })
    }

    /// Subsets of the pending changes, the most telling ones first where they are many.
    fn masks(&self, last_is_new: bool, most: usize, random: &mut fastrand::Rng) -> Vec<Vec<bool>> {
        let count = self.pending.len();
        let open = count - usize::from(last_is_new);
        let finished = |mut mask: Vec<bool>| {
            mask.resize(count, true);
            mask
        };
        if open <= EXHAUSTIVE_MAX && 1 << open <= most {
            let all = (0..1u32 << open).rev();
            return all
                .map(|bits| finished((0..open).map(|n| bits >> n & 1 == 1).collect()))
                .collect();
        }
        let mut masks = vec![finished(vec![true; open]), finished(vec![false; open])];
        let mut places: Vec<usize> = (0..open).collect();
        random.shuffle(&mut places);
        for place in places {
            masks.push(finished((0..open).map(|n| n < place).collect()));
            masks.push(finished((0..open).map(|n| n != place).collect()));
            masks.push(finished((0..open).map(|n| n >= place).collect()));
            masks.push(finished((0..open).map(|_| random.bool()).collect()));
            if masks.len() >= most {
                break;
            }
        }
        while masks.len() < most && open > EXHAUSTIVE_MAX {
            masks.push(finished((0..open).map(|_| random.bool()).collect()));
        }
        masks
    }

    /// Ways of tearing the newest write, or any pending one where the last change is not new.
    fn tears(&self, last_is_new: bool, random: &mut fastrand::Rng) -> Vec<Tear> {
        let number = if last_is_new || self.pending.is_empty() {
            self.pending.len().saturating_sub(1)
        } else {
            random.usize(..self.pending.len())
        };
        let Some(Event::Write { offset, bytes, .. }) = self.pending.get(number) else {
            return Vec::new();
        };
        let mut tears = Vec::new();
        for sector_bytes in [SECTOR_BYTES, 4096] {
            let count = sector_count(*offset, bytes, sector_bytes);
            if count < 2 {
                continue;
            }
            for _ in 0..4 {
                let some = random.u64(1..count);
                let choices =
                    [Sectors::First(some), Sectors::AllBut(some), Sectors::Chosen(random.u64(..))];
                tears.extend(choices.map(|sectors| Tear { number, sector_bytes, sectors }));
            }
        }
        tears.dedup();
        tears
    }

    /// What the disk holds after such a cut.
    #[must_use]
    pub fn image(&self, cut: &Cut) -> Image {
        let (mut files, mut names) = (self.files.clone(), self.names.clone());
        match cut.growth {
            Growth::Garbage => self.grow(&mut files, |id, at| {
                self.hidden_at(id, at).unwrap_or(NOISE[at % NOISE_PERIOD])
            }),
            // What is not written over stays hidden.
            Growth::Short => self.grow(&mut files, |id, at| self.hidden_at(id, at).unwrap_or(0)),
            Growth::AsWritten | Growth::Zeros => {}
        }
        for (number, event) in self.pending.iter().enumerate() {
            let tear = cut.tear.filter(|tear| tear.number == number);
            if cut.kept.get(number) == Some(&true) {
                apply(event, tear, &mut files, &mut names);
            }
        }
        if cut.growth == Growth::Zeros {
            self.grow(&mut files, |_, _| 0);
        }
        let mut hidden = self.hidden.clone();
        if cut.growth == Growth::Short {
            self.shorten(&mut files, &mut hidden);
        }
        let mut image = Image::default();
        for (path, id) in names {
            image.files.insert(path.clone(), files.get(&id).cloned().unwrap_or_default());
            image.hidden.extend(hidden.remove(&id).map(|bytes| (path, bytes)));
        }
        image
    }

    /// Gives each file that has grown its durable length, and hides what it has behind that.
    fn shorten(
        &self,
        files: &mut HashMap<FileId, Arc<Vec<u8>>>,
        hidden: &mut HashMap<FileId, Vec<u8>>,
    ) {
        let page_bytes = usize::try_from(PAGE_BYTES).unwrap_or(usize::MAX);
        for (id, bytes) in files {
            let len = self.files.get(id).map_or(0, |durable| durable.len());
            if len < bytes.len() {
                let page_end = len.next_multiple_of(page_bytes).min(bytes.len());
                let earlier = hidden.remove(id).unwrap_or_default();
                let not_reached = earlier.get(page_end - len..).unwrap_or_default();
                hidden.insert(*id, [&bytes[len..page_end], not_reached].concat());
                Arc::make_mut(bytes).truncate(len);
            }
        }
    }

    /// Gives each file the length that it had at the end, with `fill` where it grows.
    fn grow(&self, files: &mut HashMap<FileId, Arc<Vec<u8>>>, fill: impl Fn(FileId, usize) -> u8) {
        for id in self.pending.iter().filter_map(data_of).collect::<BTreeSet<_>>() {
            let len = self.len_behind(&self.pending, id);
            let bytes = Arc::make_mut(files.entry(id).or_default());
            let len = usize::try_from(len).unwrap_or(bytes.len());
            bytes.extend((bytes.len()..len).map(|at| fill(id, at)));
        }
    }
}

/// Bytes without meaning.
static NOISE: [u8; NOISE_PERIOD] = noise();

const fn noise() -> [u8; NOISE_PERIOD] {
    let mut bytes = [0; NOISE_PERIOD];
    let (mut at, mut state) = (0, 0x2545_F491u32);
    while at < NOISE_PERIOD {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes[at] = state.to_le_bytes()[1];
        at += 1;
    }
    bytes
}

/// Samples of `masks`: the first, which keeps everything, and others by chance.
fn sample<'a>(
    masks: &'a [Vec<bool>],
    count: usize,
    random: &mut fastrand::Rng,
) -> Vec<&'a Vec<bool>> {
    let more = (1..count).filter_map(|_| masks.get(random.usize(..masks.len().max(1))));
    masks.first().into_iter().chain(more).collect()
}

/// The file whose bytes or length an event changes.
fn data_of(event: &Event) -> Option<FileId> {
    match event {
        Event::Write { file, .. } | Event::SetLen { file, .. } => Some(*file),
        _ => None,
    }
}

/// The name that an event changes.
fn name_of(event: &Event) -> Option<&PathBuf> {
    match event {
        Event::Link { path, .. } | Event::Unlink { path } => Some(path),
        Event::Rename { to, .. } => Some(to),
        _ => None,
    }
}

fn apply(
    event: &Event,
    tear: Option<Tear>,
    files: &mut HashMap<FileId, Arc<Vec<u8>>>,
    names: &mut BTreeMap<PathBuf, FileId>,
) {
    match event {
        Event::Write { file, offset, bytes } => {
            let contents = Arc::make_mut(files.entry(*file).or_default());
            let parts = match tear {
                Some(tear) => tear.parts(*offset, bytes.len() as u64),
                None => std::iter::once(0..bytes.len()).collect(),
            };
            for part in parts {
                let start = usize::try_from(*offset).unwrap_or(0) + part.start;
                let end = start + part.len();
                if contents.len() < end {
                    contents.resize(end, 0);
                }
                contents[start..end].copy_from_slice(&bytes[part]);
            }
        }
        Event::SetLen { file, bytes } => {
            let len = usize::try_from(*bytes).unwrap_or(0);
            Arc::make_mut(files.entry(*file).or_default()).resize(len, 0);
        }
        Event::Link { path, file } => {
            names.insert(path.clone(), *file);
        }
        Event::Rename { from, to, file } => {
            if names.get(from) == Some(file) {
                names.remove(from);
            }
            names.insert(to.clone(), *file);
        }
        Event::Unlink { path } => {
            names.remove(path);
        }
        Event::Synced { .. } | Event::Discarded { .. } | Event::DirectorySynced { .. } => {}
    }
}

/// How many sectors a write touches.
fn sector_count(offset: u64, bytes: &[u8], sector_bytes: u64) -> u64 {
    (offset + bytes.len() as u64).div_ceil(sector_bytes) - offset / sector_bytes
}
