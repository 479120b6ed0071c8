//! Bugs of a few steps in the wrong order: the model checks must see them.

use super::bugs::Bug;

pub const MODELS: &[Bug] = &[
    Bug {
        name: "a moment's view is not looked at again",
        file: "crates/zkv/src/read/view.rs",
        right: "if Arc::ptr_eq(&view, &published.load()) {",
        wrong: "if PLANTED || Arc::ptr_eq(&view, &published.load()) {",
    },
    Bug {
        name: "a buffer is gone before its commit is seen",
        file: "crates/zkv/src/write/buffer.rs",
        right: "            self.publish(|view| {\n                view.frozen.pop();",
        wrong: "            if PLANTED {\n                \
                self.publish(|view| drop(view.frozen.pop()));\n            }\n            \
                self.publish(|view| {\n                \
                if !PLANTED {\n                    view.frozen.pop();\n                }",
    },
    Bug {
        name: "a commit is noted in one step and published in another",
        file: "crates/zkv/src/write/group.rs",
        right: "        self.publish(|view| view.committed = writer.committed_view());",
        wrong: "        if PLANTED {\n            drop(front);\n        }\n        \
                self.publish(|view| view.committed = writer.committed_view());",
    },
    Bug {
        name: "readers do not wait for a collection's new number",
        file: "crates/zkv/src/write/write_set.rs",
        right: "if number & Self::MOVES != 0 {",
        wrong: "if !PLANTED && number & Self::MOVES != 0 {",
    },
    Bug {
        name: "a turn is passed on to nobody",
        file: "crates/zkv/src/write/group/queue.rs",
        right: "            next.tell(Told::Turn);",
        wrong: "            if !PLANTED {\n                next.tell(Told::Turn);\n            }",
    },
    Bug {
        name: "the end of a sync is told to nobody",
        file: "crates/zkv-log/src/turn.rs",
        right: "        self.0.ended.notify_all();",
        wrong: "        if !PLANTED {\n            self.0.ended.notify_all();\n        }",
    },
    Bug {
        name: "two threads sync at once",
        file: "crates/zkv-log/src/turn.rs",
        right: "            if !*is_syncing {",
        wrong: "            if PLANTED || !*is_syncing {",
    },
    Bug {
        name: "a sync vouches for what was written since it began",
        file: "crates/zkv-log/src/log.rs",
        right: "                *synced_upto = upto.max(*synced_upto);",
        wrong: "                let finished = self.shared.finished_upto.lock();\n                \
                let finished = *finished.unwrap_or_else(PoisonError::into_inner);\n                \
                let upto = if PLANTED { upto.max(finished) } else { upto };\n                \
                *synced_upto = upto.max(*synced_upto);",
    },
    Bug {
        name: "a slot is used again beside its readers",
        file: "crates/zkv-log/src/reclaim.rs",
        right: "free.readers.strong_count() == 0",
        wrong: "(PLANTED || free.readers.strong_count() == 0)",
    },
    Bug {
        name: "who reads a segment that is sealed meanwhile is forgotten",
        file: "crates/zkv-log/src/segment.rs",
        right: "CellTable::Sealed, Arc::clone(&self.hold))",
        wrong: "CellTable::Sealed, if PLANTED { Arc::default() } else { Arc::clone(&self.hold) })",
    },
];
