//! The bugs: what is right, once in its file, and what is wrong.

/// A bug that a smoke run must see; of these, that of the crashes.
pub struct Bug {
    pub name: &'static str,
    pub file: &'static str,
    pub right: &'static str,
    /// In place of `right`; `PLANTED` stands for whether the run has this bug.
    pub wrong: &'static str,
}

pub const BUGS: &[Bug] = &[
    Bug {
        name: "a sync syncs nothing",
        file: "crates/zkv-log/src/log.rs",
        right: "let synced = self.shared.file.sync_data();",
        wrong: "let synced = if PLANTED { Ok(()) } else { self.shared.file.sync_data() };",
    },
    Bug {
        name: "a failed sync is tried again",
        file: "crates/zkv-log/src/log.rs",
        right: "self.shared.is_sync_failed.store(true,",
        wrong: "self.shared.is_sync_failed.store(!PLANTED,",
    },
    Bug {
        name: "a commit syncs behind another thread's failed sync",
        file: "crates/zkv-log/src/log.rs",
        right: "        if self.is_sync_failed() {\n            return Err(self.sync_failure());",
        wrong: "        if !PLANTED && self.is_sync_failed() {\n            return Err(self.sync_failure());",
    },
    Bug {
        name: "a synced write is not synced",
        file: "crates/zkv/src/write/group.rs",
        right: "            Durability::Synced => self.log.sync(end)",
        wrong: "            Durability::Synced if PLANTED => Ok(()),\n            \
                Durability::Synced => self.log.sync(end)",
    },
    Bug {
        name: "a new file's directory is not synced",
        file: "crates/zkv-io/src/atomic.rs",
        right: "        storage.sync_dir(parent_directory(path))",
        wrong: "        if PLANTED {\n            return Ok(());\n        }\n        \
                storage.sync_dir(parent_directory(path))",
    },
    Bug {
        name: "a new file gets its name before it is synced",
        file: "crates/zkv-io/src/atomic.rs",
        right: "written.and_then(|value| draft.file.sync_all().map(|()| value));",
        wrong: "written.and_then(|value| if PLANTED { Ok(value) } else { \
                draft.file.sync_all().map(|()| value) });",
    },
    Bug {
        name: "a new file's name is taken for durable",
        file: "crates/zkv-log/src/open.rs",
        right: "if recovered.writer.is_some() && recovered.log.synced_upto() <= FIRST_END {",
        wrong: "if !PLANTED && recovered.writer.is_some() \
                && recovered.log.synced_upto() <= FIRST_END {",
    },
    Bug {
        name: "a segment is taken to lack a collection that came to it later",
        file: "crates/zkv/src/metadata/known.rs",
        right: "None => {\n                if let Some(known) = Arc::make_mut",
        wrong: "None if PLANTED => {}\n            None => {\n                if let Some(known) = Arc::make_mut",
    },
    Bug {
        name: "a part of a segment is taken to lack a collection that came to it later",
        file: "crates/zkv/src/metadata/known.rs",
        right: "Some(growing) => growing.add(parts),",
        wrong: "Some(_) if PLANTED => {}\n            Some(growing) => growing.add(parts),",
    },
    Bug {
        name: "checksums of blocks are skipped",
        file: "crates/zkv-log/src/walk.rs",
        right: "if !is_whole(block, seeds.of(header.tag)?, offset) {",
        wrong: "if !PLANTED && !is_whole(block, seeds.of(header.tag)?, offset) {",
    },
    Bug {
        name: "checksums of blocks do not know their segment",
        file: "crates/zkv-log/src/block.rs",
        right: "let mut seed = crc32c(0, store_id);",
        wrong: "let mut seed = crc32c(0, store_id);\n        if PLANTED {\n            \
                return Self(seed);\n        }",
    },
    Bug {
        name: "a dropped tail is not wiped",
        file: "crates/zkv-log/src/writer.rs",
        right: "self.write_zeros(start + u64::from(self.tail.offset), slot_end.min(file_bytes))?;",
        wrong: "if !PLANTED {\n            \
                self.write_zeros(start + u64::from(self.tail.offset), slot_end.min(file_bytes))?;\n        \
                }",
    },
    Bug {
        name: "a refused commit is wiped later",
        file: "crates/zkv-log/src/commit.rs",
        right: "let _ = self.writer.mend();",
        wrong: "if !PLANTED {\n            let _ = self.writer.mend();\n        }",
    },
    Bug {
        name: "the unproven tail is not written anew",
        file: "crates/zkv-log/src/writer.rs",
        right: "if let Some(unproven) = &repair.unproven {",
        wrong: "if let Some(unproven) = repair.unproven.as_ref().filter(|_| !PLANTED) {",
    },
    Bug {
        name: "what was freed since is not written anew",
        file: "crates/zkv-log/src/recover/finish.rs",
        right: "retired.chain(members)",
        wrong: "retired.filter(|_| !PLANTED).chain(members)",
    },
    Bug {
        name: "a half commit counts",
        file: "crates/zkv-log/src/recover.rs",
        right: "            self.walked.note(&block);\n",
        wrong: "            self.walked.note(&block);\n            if PLANTED {\n                \
                self.end.position = Position { sequence: place.id.sequence, offset: block.end() };\n            }\n",
    },
    Bug {
        name: "a commit says that it is durable itself",
        file: "crates/zkv-log/src/writer.rs",
        right: "CommitMark { number, synced_upto: self.log().synced_upto(), chain: Chain::default() }",
        wrong: "CommitMark { number, synced_upto: if PLANTED { self.end() } else { \
                self.log().synced_upto() }, chain: Chain::default() }",
    },
    Bug {
        name: "a torn tail is taken for damage",
        file: "crates/zkv-log/src/recover/judge.rs",
        right: "if proof > self.end.position {",
        wrong: "if proof > self.end.position || (PLANTED && rest.iter().any(|byte| *byte != 0)) {",
    },
    Bug {
        name: "an index checkpoint is ahead of the log",
        file: "crates/zkv-log/src/writer.rs",
        right: "        self.log().sync(committed.end)?;\n        self.note_durable_roll_call();",
        wrong: "        if !PLANTED {\n            self.log().sync(committed.end)?;\n        }\n        \
                self.note_durable_roll_call();",
    },
    Bug {
        name: "a checkpoint's watermark is not looked at",
        file: "crates/zkv-log/src/recover/start.rs",
        right: "            _ => Err(LogError::CheckpointMismatch),\n        }\n    }\n\n    /// Walks",
        wrong: "            _ if PLANTED => Ok(()),\n            \
                _ => Err(LogError::CheckpointMismatch),\n        }\n    }\n\n    /// Walks",
    },
    Bug {
        name: "a foreign index stays while the log is written",
        file: "crates/zkv/src/open.rs",
        right: "        remove_foreign_index(path, options)?;",
        wrong: "        if !PLANTED {\n            remove_foreign_index(path, options)?;\n        }",
    },
    Bug {
        name: "a slot is used again before its retire entry is durable",
        file: "crates/zkv-log/src/reclaim.rs",
        right: "free.usable_after <= self.log().synced_upto() &&",
        wrong: "(PLANTED || free.usable_after <= self.log().synced_upto()) &&",
    },
    Bug {
        name: "a slot is used again before its header is durable",
        file: "crates/zkv-log/src/commit.rs",
        right: "if is_used_again {",
        wrong: "if is_used_again && !PLANTED {",
    },
    Bug {
        name: "freed segments have no retire entry",
        file: "crates/zkv-log/src/reclaim.rs",
        right: "commit.put_members(BlockKind::Retire, &retired)?;",
        wrong: "if !PLANTED {\n            commit.put_members(BlockKind::Retire, &retired)?;\n        }",
    },
    Bug {
        name: "a roll call is named before it is durable",
        file: "crates/zkv-log/src/writer.rs",
        right: "(Position, Position)| *end > synced_upto;",
        wrong: "(Position, Position)| !PLANTED && *end > synced_upto;",
    },
    Bug {
        name: "an old checkpoint that leads into a slot used again is taken for damage",
        file: "crates/zkv-log/src/recover.rs",
        right: "        Err(LogError::CheckpointMismatch | LogError::Corrupt { .. }) => {",
        wrong: "        Err(error) if matches!(error, LogError::CheckpointMismatch)\n            \
                || (!PLANTED && matches!(error, LogError::Corrupt { .. })) =>\n        {",
    },
    Bug {
        name: "a replay passes over deletions",
        file: "crates/zkv/src/open/replay.rs",
        right: "        let kind = RecordKind::of(record);\n",
        wrong: "        let kind = RecordKind::of(record);\n        \
                if PLANTED && kind == RecordKind::Delete {\n            return Ok(());\n        }\n",
    },
    Bug {
        name: "a spilled batch is several commits",
        file: "crates/zkv/src/write/group.rs",
        right: "        let is_written = |hash| spilled.keys().has(hash);\n",
        wrong: "        if PLANTED {\n            let mut end = writer.log.end();\n            \
                spilled.for_each(&self.keys, self.inline_bytes_max(), |write| -> Result<()> {\n                \
                end = self.write(writer, std::iter::once(&write), room)?;\n                \
                Ok(())\n            })?;\n            return Ok(end);\n        }\n        \
                let is_written = |hash| spilled.keys().has(hash);\n",
    },
    Bug {
        name: "a rebuild passes over deletions",
        file: "crates/zkv/src/open/rebuild.rs",
        right: "                let record = decode_entry(entry?, block.location, block.position, log)?;\n",
        wrong: "                let record = decode_entry(entry?, block.location, block.position, log)?;\n                \
                if PLANTED && record.kind == Kind::Delete {\n                    continue;\n                }\n",
    },
    Bug {
        name: "a flush leaves what is in memory there",
        file: "crates/zkv/src/store.rs",
        right: "        shared.clean_behind(shared.mended(|| shared.flush_all(&mut *shared.writer()?)))",
        wrong: "        if PLANTED {\n            return Ok(());\n        }\n        \
                shared.clean_behind(shared.mended(|| shared.flush_all(&mut *shared.writer()?)))",
    },
    Bug {
        name: "a backup leaves out what is in memory",
        file: "crates/zkv/src/backup.rs",
        right: "                shared.flush_all(&mut writer)?;\n",
        wrong: "                if !PLANTED {\n                    \
                shared.flush_all(&mut writer)?;\n                }\n",
    },
    Bug {
        name: "recovery starts at an old roll call",
        file: "crates/zkv-log/src/recover/start.rs",
        right: "roll_calls.sort_by_key(|roll_call| std::cmp::Reverse(*roll_call));",
        wrong: "roll_calls.sort_by_key(|roll_call| std::cmp::Reverse(*roll_call));\n        \
                if PLANTED {\n            roll_calls.reverse();\n        }",
    },
    Bug {
        name: "the only header that names the newest roll call is wiped",
        file: "crates/zkv-log/src/reclaim.rs",
        right: "newest < header.roll_call && !header.is_base()",
        wrong: "!PLANTED && newest < header.roll_call && !header.is_base()",
    },
    Bug {
        name: "a commit leaves its last page open",
        file: "crates/zkv-log/src/commit.rs",
        right: "let filled = (end + ahead as u64).next_multiple_of(PAGE_BYTES);",
        wrong: "let filled = end + ahead as u64;\n            \
                let filled = if PLANTED { filled } else { filled.next_multiple_of(PAGE_BYTES) };",
    },
    Bug {
        name: "a file that ends within a page is appended to",
        file: "crates/zkv-log/src/recover/finish.rs",
        right: "let ends_within_page = !self.file_bytes.is_multiple_of(PAGE_BYTES);",
        wrong: "let ends_within_page = !PLANTED && !self.file_bytes.is_multiple_of(PAGE_BYTES);",
    },
    Bug {
        name: "a file grows before its tail is wiped",
        file: "crates/zkv-log/src/writer.rs",
        right: "self.write_zeros(start + u64::from(self.tail.offset), slot_end.min(file_bytes))?;",
        wrong: "let page_end = file_bytes.next_multiple_of(PAGE_BYTES);\n        \
                let wiped_end = if PLANTED { page_end } else { file_bytes };\n        \
                self.write_zeros(start + u64::from(self.tail.offset), slot_end.min(wiped_end))?;",
    },
    Bug {
        name: "the seal before a refused base is wiped first",
        file: "crates/zkv-log/src/writer.rs",
        right: "if !repair.stray_slots.is_empty() {\n            // Durably first: a segment",
        wrong: "if PLANTED {\n            \
                self.write_zeros(start + u64::from(self.tail.offset), slot_end.min(file_bytes))?;\n        \
                }\n        if !repair.stray_slots.is_empty() {\n            // Durably first: a segment",
    },
];
