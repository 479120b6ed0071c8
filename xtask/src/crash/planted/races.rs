//! Bugs that only show where several threads use a store at once: the histories must see them.

use super::bugs::Bug;

pub const RACES: &[Bug] = &[
    Bug {
        name: "a buffered commit does not look for conflicts",
        file: "crates/zkv/src/write/buffer.rs",
        right: "                    check(&front, on)?;\n",
        wrong: "                    if !PLANTED {\n                        \
                check(&front, on)?;\n                    }\n",
    },
    Bug {
        name: "a grouped commit does not look for conflicts",
        file: "crates/zkv/src/write/group.rs",
        right: "let mut agreed = check(&front, set.condition());",
        wrong: "let mut agreed = if PLANTED { Ok(()) } else { check(&front, set.condition()) };",
    },
    Bug {
        name: "commits of one group do not look at each other",
        file: "crates/zkv/src/write/group.rs",
        right: "                && earlier.iter().any(",
        wrong: "                && !PLANTED\n                && earlier.iter().any(",
    },
    Bug {
        name: "a grouped commit is not noted",
        file: "crates/zkv/src/write/group.rs",
        right: "                few => front.recent.note(few.keys()),",
        wrong: "                few if !PLANTED => front.recent.note(few.keys()),\n                \
                _ => {}",
    },
    Bug {
        name: "a buffered commit is not noted",
        file: "crates/zkv/src/write/buffer.rs",
        right: "    front.recent.note(writes.iter().map(|write| (write.hash, write.collection)));",
        wrong: "    if !PLANTED {\n        \
                front.recent.note(writes.iter().map(|write| (write.hash, write.collection)));\n    }",
    },
    Bug {
        name: "a snapshot reads what is published now",
        file: "crates/zkv/src/read/view.rs",
        right: "        self.view.find_buffered(key, self.seen, take)",
        wrong: "        let seen = if PLANTED { self.view.active.seen() } else { self.seen };\n        \
                self.view.find_buffered(key, seen, take)",
    },
    Bug {
        name: "a scan is not remembered",
        file: "crates/zkv/src/transaction.rs",
        right: "        reads.note_scan(collection);",
        wrong: "        if !PLANTED {\n            reads.note_scan(collection);\n        }",
    },
    Bug {
        name: "a read of a transaction is not remembered",
        file: "crates/zkv/src/transaction.rs",
        right: "        reads.keys.insert(key.hash);",
        wrong: "        if !PLANTED {\n            reads.keys.insert(key.hash);\n        }",
    },
    Bug {
        name: "an update does not remember what it has read",
        file: "crates/zkv/src/write/modify.rs",
        right: "            reads.keys.insert(key.hash);\n            reads.note_touch(id);",
        wrong: "            if !PLANTED {\n                \
                reads.keys.insert(key.hash);\n            }\n            reads.note_touch(id);",
    },
    Bug {
        name: "buffered writes pass over what is reserved",
        file: "crates/zkv/src/write/buffer.rs",
        right: "front.reserved.as_ref().is_some_and(",
        wrong: "front.reserved.as_ref().filter(|_| !PLANTED).is_some_and(",
    },
    Bug {
        name: "what a commit has read is not reserved",
        file: "crates/zkv/src/write/reserve.rs",
        right: "                reserved.keys.extend(&reads.keys);",
        wrong: "                if !PLANTED {\n                    \
                reserved.keys.extend(&reads.keys);\n                }",
    },
    Bug {
        name: "what a commit has scanned is not reserved",
        file: "crates/zkv/src/write/reserve.rs",
        right: "                reserved.collections.extend(&reads.scanned);",
        wrong: "                if !PLANTED {\n                    \
                reserved.collections.extend(&reads.scanned);\n                }",
    },
    Bug {
        name: "a batch appears record by record",
        file: "crates/zkv/src/write/buffer.rs",
        right: "            front.active.insert(write.hash, front.arena.add(take(record)));\n",
        wrong: "            front.active.insert(write.hash, front.arena.add(take(record)));\n            \
                if PLANTED {\n                front.active.publish();\n            }\n",
    },
    Bug {
        name: "a transaction's moment is before its beginning",
        file: "crates/zkv/src/write/modify.rs",
        right: "        let mut front = shared.front();\n        \
                // Nothing is published meanwhile.\n        \
                (Self { shared: Arc::clone(shared), since: front.recent.begin() }, shared.now())",
        wrong: "        let early = shared.now();\n        \
                let mut front = shared.front();\n        \
                let since = front.recent.begin();\n        \
                let moment = if PLANTED { early } else { shared.now() };\n        \
                (Self { shared: Arc::clone(shared), since }, moment)",
    },
    Bug {
        name: "the first commit behind a transaction's beginning is passed over",
        file: "crates/zkv/src/write/recent.rs",
        right: "is_some_and(|tick| *tick > reads.since)",
        wrong: "is_some_and(|tick| *tick > reads.since + u64::from(PLANTED))",
    },
    Bug {
        name: "what an open transaction needs is forgotten",
        file: "crates/zkv/src/write/recent.rs",
        right: "            Some((oldest, _)) => self.forget_until(*oldest),",
        wrong: "            Some(_) if PLANTED => self.forget_all(),\n            \
                Some((oldest, _)) => self.forget_until(*oldest),",
    },
    Bug {
        name: "a transaction reads over its own writes",
        file: "crates/zkv/src/transaction.rs",
        right: "            Some(value) => Ok(value),",
        wrong: "            Some(value) if !PLANTED => Ok(value),\n            \
                Some(_) => self.reader.get(key),",
    },
    Bug {
        name: "a kept value hides one that was written since",
        file: "crates/zkv/src/read/view.rs",
        right: "self.change(hash).is_none().then_some(self.checkpoint_id)",
        wrong: "(PLANTED || self.change(hash).is_none()).then_some(self.checkpoint_id)",
    },
    Bug {
        name: "a checkpoint goes by the name of the one before",
        file: "crates/zkv/src/write/writer.rs",
        right: "        self.committed.checkpoint_id = CheckpointId::next();",
        wrong: "        if !PLANTED {\n            \
                self.committed.checkpoint_id = CheckpointId::next();\n        }",
    },
    Bug {
        name: "many keys are read at several moments",
        file: "crates/zkv/src/read/many.rs",
        right: "            let buffered = moment.find_buffered(key, |record| Found::of(record, committed));",
        wrong: "            let later = PLANTED.then(|| self.now());
            let moment = later.as_ref().unwrap_or(moment);
            let buffered = moment.find_buffered(key, |record| Found::of(record, committed));",
    },
];
