//! Bugs of what gives space back, and of the collections that it forgets.

use super::bugs::Bug;

pub const CLEANING: &[Bug] = &[
    Bug {
        name: "a mark is dropped while what it speaks of is there",
        file: "crates/zkv/src/clean/gather.rs",
        right: "self.oldest.needs_mark(origin) && self.is_mark_needed(hash, &record)?;",
        wrong: "!PLANTED && self.oldest.needs_mark(origin) && self.is_mark_needed(hash, &record)?;",
    },
    Bug {
        name: "a mark of a key that is there moves",
        file: "crates/zkv/src/clean/gather.rs",
        right: "        Ok(found != Some(false))",
        wrong: "        Ok(PLANTED || found != Some(false))",
    },
    Bug {
        name: "a mark moves behind a value that cannot be read",
        file: "crates/zkv/src/clean/gather.rs",
        right: "        let found = self.committed.find(key_of(hash, record), |found| found.is_mark())?;\n",
        wrong: "        let found = match self.committed.find(key_of(hash, record), |found| found.is_mark()) {\n            \
                Err(LookupError::Log(error)) if PLANTED && self.committed.is_lost(&error) => None,\n            \
                found => found?,\n        };\n",
    },
    Bug {
        name: "of a key that a cell has twice the first record moves",
        file: "crates/zkv/src/clean/gather.rs",
        right: "            let bytes = cell.entry(number);\n",
        wrong: "            let number = if PLANTED { cell.len() - 1 - number } else { number };\n            \
                let bytes = cell.entry(number);\n",
    },
    Bug {
        name: "segments are freed before the checkpoint",
        file: "crates/zkv/src/write/writer.rs",
        right: "        self.write_checkpoint()?;\n        self.free_cleaned()",
        wrong: "        if PLANTED {\n            self.free_cleaned()?;\n        }\n        \
                self.write_checkpoint()?;\n        self.free_cleaned()",
    },
    Bug {
        name: "the live table keeps segments that were cleaned",
        file: "crates/zkv/src/clean/mover.rs",
        right: "            self.live.forget(*slot);\n",
        wrong: "            if !PLANTED {\n                self.live.forget(*slot);\n            }\n",
    },
    Bug {
        name: "an index that leads into freed segments is used",
        file: "crates/zkv/src/open.rs",
        right: "usable.take_if(|usable| usable.leads_astray(&recovered, from));",
        wrong: "usable.take_if(|usable| !PLANTED && usable.leads_astray(&recovered, from));",
    },
    Bug {
        name: "records of dropped collections stay in the index",
        file: "crates/zkv/src/clean/mover.rs",
        right: "        append.forget(&forgotten);\n",
        wrong: "        if !PLANTED {\n            append.forget(&forgotten);\n        }\n",
    },
    Bug {
        name: "an index that is made anew has records of dropped collections",
        file: "crates/zkv/src/open/rebuild.rs",
        right: "            is_alive\n        })?;",
        wrong: "            is_alive || PLANTED\n        })?;",
    },
    Bug {
        name: "a base's header is written before what it vouches for is synced",
        file: "crates/zkv-log/src/commit.rs",
        right: "            // Whoever starts at its roll call finds nothing else proven.\n            \
                self.writer.log().sync_again(self.writer.end())?;",
        wrong: "            if !PLANTED {\n                \
                self.writer.log().sync_again(self.writer.end())?;\n            }",
    },
    Bug {
        name: "a base counts without its commit",
        file: "crates/zkv-log/src/recover/start.rs",
        right: "            if recovery.start_roll_call.is_none() {",
        wrong: "            if PLANTED || recovery.start_roll_call.is_none() {",
    },
    Bug {
        name: "a slot is cut off that somebody would look for",
        file: "crates/zkv-log/src/reclaim.rs",
        right: "                    && self.is_forgotten(free.slot, needed_from)",
        wrong: "                    && (PLANTED || self.is_forgotten(free.slot, needed_from))",
    },
    Bug {
        name: "a base is begun in a slot that somebody would look for",
        file: "crates/zkv-log/src/reclaim.rs",
        right: "|writer, slot| writer.is_forgotten(slot, needed_from))",
        wrong: "|writer, slot| PLANTED || writer.is_forgotten(slot, needed_from))",
    },
    Bug {
        name: "a slot is used again while a snapshot holds it",
        file: "crates/zkv-log/src/reclaim.rs",
        right: "&& free.readers.strong_count() == 0",
        wrong: "&& (PLANTED || free.readers.strong_count() == 0)",
    },
    Bug {
        name: "a replay does not forget what was dropped",
        file: "crates/zkv/src/open/replay.rs",
        right: "        forget_dropped(catalog, Arc::make_mut(counts), self.live);\n",
        wrong: "        if !PLANTED {\n            \
                forget_dropped(catalog, Arc::make_mut(counts), self.live);\n        }\n",
    },
    Bug {
        name: "a collection is cleared or dropped before what waits in buffers is written",
        file: "crates/zkv/src/write/group.rs",
        right: "        self.flush_all(writer).map_err(Refused::of_buffers)?;\n        \
                let checked = self.check_all(sets);",
        wrong: "        if !PLANTED || sets.iter().all(|set| set.moves.is_none()) {\n            \
                self.flush_all(writer).map_err(Refused::of_buffers)?;\n        }\n        \
                let checked = self.check_all(sets);",
    },
    Bug {
        name: "a collection's number is used twice",
        file: "crates/zkv/src/metadata/catalog.rs",
        right: "        if entry.id >= self.next_id {",
        wrong: "        if !PLANTED && entry.id >= self.next_id {",
    },
    Bug {
        name: "a copy of a store that is only read lacks freed slots",
        file: "crates/zkv/src/backup.rs",
        right: "copy = |file: &dyn StorageFile| match shared.writer.is_some() {",
        wrong: "copy = |file: &dyn StorageFile| match PLANTED || shared.writer.is_some() {",
    },
];
