//! Writing a large index file anew beside the store's writer, which goes on meanwhile.
//!
//! Under the writer's lock the log is synced, and what the new file is to hold is set down: none of that
//! changes any more. A thread of its own writes the file. Under the lock again, it takes the old one's
//! place; what was committed meanwhile stays in memory, as what comes behind any checkpoint. Nothing is freed
//! between the two, since whoever writes a checkpoint puts the waiting one in its place before.

use std::collections::HashSet;
use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use zkv_index::{Checkpoint, Prepared, Run};
use zkv_log::Position;

use crate::error::Result;
use crate::metadata::sections::Sections;
use crate::options::Cleaning;
use crate::shared::Shared;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{Builder, JoinHandle};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::write::tail::Tail;
use crate::write::writer::{IndexPlace, WriteError, Writer, merge_all};

/// An index file that is being written.
#[derive(Debug)]
pub(crate) struct Rewrite {
    file: Arc<File>,
    /// How many of the committed runs it holds: the oldest ones.
    kept_runs: usize,
    /// What it makes up for.
    tail: Tail,
    /// Where the log ended.
    end: Position,
    /// Slots of segments into which it no longer leads.
    cleaned: HashSet<u32>,
}

/// The file, for those who wait for it.
#[derive(Debug, Default)]
struct File {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum Progress {
    #[default]
    Writing,
    Written(Prepared),
    /// It could not be written, or somebody has it.
    Gone,
}

/// A thread that writes an index file.
#[derive(Debug)]
pub(crate) struct RewriteThread {
    /// Whether all that it does is done.
    is_over: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

/// All that the file is made of.
struct Contents {
    base: Arc<Checkpoint>,
    changes: Arc<Run>,
    sections: Sections,
    place: IndexPlace,
}

impl File {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, progress: Progress) {
        *self.progress() = progress;
        self.changed.notify_all();
    }

    /// The file, as soon as it is written; `None` where it could not be, or somebody has it.
    fn take(&self) -> Option<Prepared> {
        let mut progress = self.progress();
        while matches!(*progress, Progress::Writing) {
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        match std::mem::replace(&mut *progress, Progress::Gone) {
            Progress::Written(prepared) => Some(prepared),
            Progress::Writing | Progress::Gone => None,
        }
    }
}

/// Nobody waits for a file that a panic keeps from being written.
struct Writing<'a>(&'a File);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut progress = self.0.progress();
        if matches!(*progress, Progress::Writing) {
            *progress = Progress::Gone;
        }
        drop(progress);
        self.0.changed.notify_all();
    }
}

impl Contents {
    fn write(&self, file: &File) {
        let _writing = Writing(file);
        let Self { base, changes, sections, place } = self;
        let (storage, path) = (&*place.storage, &*place.path);
        let written = sections.write_with(|meta| base.prepare_next(storage, path, changes, meta));
        // Of a failure, the next checkpoint tells, which runs into the same.
        if let Ok(prepared) = written {
            file.set(Progress::Written(prepared));
        }
    }
}

impl Writer {
    /// How many of the committed runs are being written into a file, and stay as they are.
    pub(crate) fn kept_runs(&self) -> usize {
        self.rewrite.as_ref().map_or(0, |rewrite| rewrite.kept_runs)
    }

    /// Sets down what a new index file is to hold, where it is large and would be written anew.
    fn begin_rewrite(&mut self) -> std::result::Result<Option<Contents>, WriteError> {
        let thresholds = self.index.thresholds;
        let Some(base) = self.committed.checkpoint.clone() else { return Ok(None) };
        let is_large = base.file_bytes() >= thresholds.aside_bytes_least;
        if !is_large || self.has_rewrite_failed || !self.goes_by_its_file() {
            return Ok(None);
        }
        let changes = Arc::new(merge_all(&self.committed.runs));
        if !base.is_to_be_rewritten(&changes, &thresholds)? {
            return Ok(None);
        }
        let log_section = self.log.checkpoint()?;
        let sections = self.sections(log_section);
        self.attempted = self.tail_now();
        self.committed.runs = vec![Arc::clone(&changes)];
        self.committed.runs.retain(|run| !run.is_empty());
        self.rewrite = Some(Rewrite {
            file: Arc::default(),
            kept_runs: self.committed.runs.len(),
            tail: self.attempted,
            end: self.log.end(),
            cleaned: self.cleaned.clone(),
        });
        Ok(Some(Contents { base, changes, sections, place: self.index.clone() }))
    }

    /// Puts the index file that was being written into its place, and returns the slots that can be freed
    /// behind that; `None` where there was none, or it could not be written.
    pub(crate) fn finish_rewrite(&mut self) -> Option<HashSet<u32>> {
        let Rewrite { file, kept_runs, tail, end, cleaned } = self.rewrite.take()?;
        // Unless all goes well. Of a failure, the next checkpoint tells, which is a new file then.
        self.has_rewrite_failed = true;
        let prepared = file.take()?;
        self.retire_checkpoint();
        let checkpoint = prepared.publish(&*self.index.storage, &self.index.path).ok()?;
        let mut newer = take(&mut self.committed.runs);
        newer.truncate(newer.len() - kept_runs);
        let behind = self.tail.behind(&tail);
        // It was begun before whatever the index has not learnt of.
        let is_applying = self.is_applying;
        self.set_checkpoint(checkpoint);
        self.is_applying = is_applying;
        (self.committed.runs, self.committed.checkpoint_end, self.tail) = (newer, end, behind);
        Some(cleaned)
    }

    /// Forgets about an index file that is being written: another one has taken its place.
    pub(crate) fn drop_rewrite(&mut self) {
        self.rewrite = None;
    }
}

impl Shared {
    /// As [`Shared::checkpoint`], but where a large index file is written anew, a thread does that, and
    /// frees what was cleaned when it is done.
    pub(crate) fn checkpoint_aside(&self, writer: &mut Writer) -> Result<()> {
        if writer.rewrite.is_some() {
            return Ok(());
        }
        let begun = writer.begin_rewrite().map_err(|error| self.write_error(error))?;
        self.publish_committed(writer);
        let Some(contents) = begun else { return self.checkpoint(writer) };
        let Some(rewrite) = &writer.rewrite else { return Ok(()) };
        let (file, shared) = (Arc::clone(&rewrite.file), self.itself.upgrade());
        let is_over = Arc::new(AtomicBool::new(false));
        let of_thread = Arc::clone(&is_over);
        let run = move || {
            // A panic is a file that could not be written, and is told of by itself.
            let _ = catch_unwind(AssertUnwindSafe(|| contents.write(&file)));
            drop(contents);
            if let Some(shared) = shared {
                shared.take_up(&file);
            }
            of_thread.store(true, Ordering::Release);
        };
        match Builder::new().name("zkv-index".to_owned()).spawn(run) {
            Ok(handle) => {
                let mut threads = self.rewriting();
                // One that has been overtaken may still wait for the writer.
                threads.retain(|thread| !thread.is_over.load(Ordering::Acquire));
                threads.push(RewriteThread { is_over, handle });
                Ok(())
            }
            // Where the system has no more threads.
            Err(_) => {
                writer.drop_rewrite();
                self.checkpoint(writer)
            }
        }
    }

    /// Puts a file into its place, unless somebody has done that, or another one is there.
    fn take_up(&self, file: &Arc<File>) {
        let Some(writer) = &self.writer else { return };
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = writer.rewrite.as_ref().is_some_and(|one| Arc::ptr_eq(&one.file, file));
        if !is_wanted {
            if let Some(prepared) = file.take() {
                prepared.discard(&*self.index.storage);
            }
            return;
        }
        // What fails here is tried again by the next checkpoint.
        let _ = self.finish_rewrite(&mut writer);
    }

    /// Goes by the index file that was being written, which is waited for, and frees what was cleaned before.
    pub(crate) fn finish_rewrite(&self, writer: &mut Writer) -> Result<()> {
        let freed = writer.finish_rewrite().map_or(Ok(()), |cleaned| writer.free(&cleaned));
        self.publish_committed(writer);
        let freed = freed.map_err(|error| self.write_error(error));
        let done = freed.and_then(|()| self.cut(writer).map(|_| ()));
        if self.options.cleaning != Cleaning::Off {
            // Of what could not be freed, too: whoever cleans tries again.
            self.survey(writer);
            self.cleaner.note_freed();
        }
        done
    }

    fn rewriting(&self) -> MutexGuard<'_, Vec<RewriteThread>> {
        self.rewriting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no thread writes an index file, or has the store open. The caller has no lock.
    pub(crate) fn join_rewriting(&self) {
        let threads = take(&mut *self.rewriting());
        for thread in threads {
            // After a panic there the older file is as good.
            let _ = thread.handle.join();
        }
    }
}

#[cfg(test)]
mod tests;
