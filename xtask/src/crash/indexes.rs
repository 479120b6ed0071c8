//! Index files that a run has had: any of them may be put in the place of the store's own.

use std::path::Path;

use zkv_sim::{Cut, Event, Growth, Image, PowerCut};

use super::session::{INDEX, STORE};

/// How many of them are tried with an image.
const TRIED_MAX: usize = 3;

/// The index files of a run, in their order.
#[derive(Clone, Default)]
pub struct IndexFiles {
    files: Vec<IndexFile>,
    /// Behind so many changes the store was replaced by an older one, of which earlier files say nothing.
    replaced_at: Vec<usize>,
}

#[derive(Clone)]
struct IndexFile {
    bytes: Vec<u8>,
    /// It was whole behind so many changes.
    end_event: usize,
}

impl IndexFiles {
    /// Those of a run of `events`, which starts with `start`, and those that there were `before`.
    pub fn of(events: &[Event], start: &Image, before: &[Vec<u8>]) -> Self {
        let known = before.iter().map(|bytes| IndexFile { bytes: bytes.clone(), end_event: 0 });
        let (mut files, mut replaced_at) = (known.collect::<Vec<_>>(), Vec::new());
        let (mut followed, index) = (PowerCut::from_image(start), Path::new(INDEX));
        let mut last_seen = start.get(index).map(<[u8]>::to_vec);
        for (number, event) in events.iter().enumerate() {
            followed.follow(event);
            match event {
                Event::Rename { to, .. } if to == Path::new(STORE) => replaced_at.push(number + 1),
                Event::Rename { to, .. } if to == index => {}
                Event::Synced { .. } => {}
                _ => continue,
            }
            let image = all_kept(&followed);
            if let Some(bytes) = image.get(index)
                && last_seen.as_deref() != Some(bytes)
            {
                files.push(IndexFile { bytes: bytes.to_vec(), end_event: number + 1 });
                last_seen = Some(bytes.to_vec());
            }
        }
        Self { files, replaced_at }
    }

    /// Those of a store's own past that may be put beside it behind `event_count` changes: the oldest
    /// first.
    pub fn known(&self, event_count: usize) -> Vec<&Vec<u8>> {
        let replaced = self.replaced_at.iter().rfind(|event| **event <= event_count);
        let since = replaced.copied().unwrap_or(0);
        let known = |file: &&IndexFile| (since..=event_count).contains(&file.end_event);
        self.files.iter().filter(known).map(|file| &file.bytes).collect()
    }

    /// As [`IndexFiles::known`], a few of them.
    pub fn tried(&self, event_count: usize) -> Vec<&Vec<u8>> {
        let known = self.known(event_count);
        if known.len() <= TRIED_MAX {
            return known;
        }
        [0, known.len() / 2, known.len() - 1].map(|number| known[number]).into()
    }
}

fn all_kept(followed: &PowerCut) -> Image {
    let kept = vec![true; followed.pending().len()];
    followed.image(&Cut { kept, tear: None, growth: Growth::AsWritten })
}
