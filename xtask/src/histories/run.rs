//! Runs a plan, and writes down what is seen.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use zkv::{Collection, Durability, Error, Options, Store, WriteBatch};
use zkv_io::MemoryStorage;
use zkv_sim::{Act, Watched};

use super::history::{Element, History, Outcome, Step, Transaction};
use super::plan::{Action, Plan, Wish};
use super::source::{Source, Value};

/// What the threads of one history share.
pub struct Stage<'a> {
    pub plan: &'a Plan,
    pub store: Store,
    pub named: Option<Collection<u8, Value>>,
    clock: AtomicU64,
    last_element: AtomicU32,
}

/// One thread's part.
struct Actor<'a> {
    stage: &'a Stage<'a>,
    thread: usize,
    transactions: Vec<Transaction>,
}

/// A transaction that is being written down.
struct Begun {
    kind: &'static str,
    at: u64,
    /// When its reads were as they are.
    moment: (u64, u64),
    steps: Vec<Step>,
}

/// Runs all threads of `plan`, and reads everything when they are done.
pub fn run(plan: &Plan) -> Result<History, Error> {
    let stage = Stage::new(plan)?;
    let barrier = Barrier::new(plan.threads.len());
    let mut history = History::default();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, actions) in plan.threads.iter().enumerate() {
            let mut actor = Actor::new(&stage, number);
            let barrier = &barrier;
            threads.push(scope.spawn(move || {
                actor.run(actions, barrier);
                actor.transactions
            }));
        }
        for thread in threads {
            history.transactions.extend(thread.join().unwrap_or_default());
        }
    });
    let mut actor = Actor::new(&stage, plan.threads.len());
    let everything = plan.lists().map(Wish::Read).chain([Wish::ReadGroup]);
    actor.snapshot("end", &everything.collect::<Vec<_>>());
    history.transactions.append(&mut actor.transactions);
    Ok(history)
}

impl<'a> Stage<'a> {
    fn new(plan: &'a Plan) -> Result<Self, Error> {
        // Commits that are on their way to the log meet others.
        let yielding = Watched::new(Arc::new(MemoryStorage::new()), |act, _| {
            if !matches!(act, Act::Map | Act::Read { .. }) {
                thread::yield_now();
            }
            Ok(())
        });
        let options = Options::new().storage(Arc::new(yielding));
        let options = options.durability(plan.durability).memory_buffer_bytes(64 << 10);
        let store = options.slot_bytes(256 << 10).open("dir/store.zkv")?;
        let named = plan.has_collection().then(|| store.collection("named")).transpose()?;
        let (clock, last_element) = (AtomicU64::new(0), AtomicU32::new(0));
        Ok(Self { plan, store, named, clock, last_element })
    }

    /// The collection of a key; `None` for the default one.
    pub fn collection_of(&self, key: u8) -> Option<&Collection<u8, Value>> {
        self.collection(self.plan.is_named(key))
    }

    /// The named collection, where that is asked for; `None` for the default one.
    pub fn collection(&self, is_named: bool) -> Option<&Collection<u8, Value>> {
        self.named.as_ref().filter(|_| is_named)
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn new_element(&self) -> Element {
        self.last_element.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn value(&self, list: Vec<Element>) -> Value {
        (list, " ".repeat(self.plan.padding_bytes))
    }
}

impl<'a> Actor<'a> {
    fn new(stage: &'a Stage<'a>, thread: usize) -> Self {
        Self { stage, thread, transactions: Vec::new() }
    }

    fn run(&mut self, actions: &[Action], barrier: &Barrier) {
        barrier.wait();
        for (number, action) in actions.iter().enumerate() {
            if self.stage.plan.in_step && number > 0 {
                barrier.wait();
            }
            // Others may wait for this thread at the barrier.
            if panic::catch_unwind(AssertUnwindSafe(|| self.act(action))).is_err() {
                self.note_panic();
            }
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Transaction(wishes, end) => self.transaction(wishes, *end),
            Action::Snapshot(wishes) => self.snapshot("snapshot", wishes),
            Action::Update(key) => self.update(*key),
            Action::Read(wish) => self.read(*wish),
            Action::Batch(durability) => self.batch(*durability),
            Action::Flush => self.maintain("flush", Store::flush),
            Action::Sync => self.maintain("sync", Store::sync),
            Action::RebuildIndex => self.maintain("rebuild", Store::rebuild_index),
        }
    }

    fn transaction(&mut self, wishes: &[Wish], end: Option<Durability>) {
        let kind = match end {
            Some(Durability::Synced) => "synced tx",
            Some(Durability::Flushed) => "flushed tx",
            _ => "tx",
        };
        let at = self.stage.now();
        let begun = self.stage.store.begin();
        let mut record = Begun { kind, at, moment: (at, self.stage.now()), steps: Vec::new() };
        let mut effect = None;
        let done = begun.and_then(|mut tx| {
            wishes.iter().try_for_each(|wish| self.grant(&mut tx, *wish, &mut record.steps))?;
            let Some(durability) = end else { return Ok(Outcome::Dropped) };
            let at = self.stage.now();
            match tx.commit_with(durability) {
                Err(Error::Conflict) => return Ok(Outcome::Conflicted),
                done => done?,
            }
            effect = Some((at, self.stage.now()));
            Ok(Outcome::Committed)
        });
        let effect = effect.filter(|_| record.steps.iter().any(Step::is_write));
        self.note(record, effect, done);
    }

    fn snapshot(&mut self, kind: &'static str, wishes: &[Wish]) {
        let at = self.stage.now();
        let mut snapshot = self.stage.store.snapshot();
        let mut record = Begun { kind, at, moment: (at, self.stage.now()), steps: Vec::new() };
        let read = |wish: &Wish| self.look(&mut snapshot, *wish, &mut record.steps);
        let done = wishes.iter().try_for_each(read);
        self.note(record, None, done.map(|()| Outcome::Committed));
    }

    /// A read by itself.
    fn read(&mut self, wish: Wish) {
        let at = self.stage.now();
        let mut steps = Vec::new();
        let done = self.look(&mut self.stage.store.clone(), wish, &mut steps);
        let record = Begun { kind: "read", at, moment: (at, self.stage.now()), steps };
        self.note(record, None, done.map(|()| Outcome::Committed));
    }

    fn update(&mut self, key: u8) {
        let (stage, at) = (self.stage, self.stage.now());
        let element = stage.new_element();
        let mut before = Vec::new();
        let change = |old: Option<Value>| {
            let mut list = old.map(|(list, _)| list).unwrap_or_default();
            before.clone_from(&list);
            list.push(element);
            // Somebody else may write to the key now.
            thread::yield_now();
            Some(stage.value(list))
        };
        let done = match stage.collection_of(key) {
            Some(named) => named.update(&key, change),
            None => stage.store.update(&key, change),
        };
        let effect = (at, stage.now());
        let steps = vec![Step::Read { key, list: before }, Step::Append { key, element }];
        let record = Begun { kind: "update", at, moment: effect, steps };
        self.note(record, Some(effect), done.map(|_| Outcome::Committed));
    }

    fn batch(&mut self, durability: Durability) {
        let (stage, at) = (self.stage, self.stage.now());
        let element = stage.new_element();
        let mut batch = WriteBatch::new();
        for key in stage.plan.registers() {
            let value = stage.value(vec![element]);
            match stage.collection_of(key) {
                Some(named) => batch.set_in(named, &key, &value),
                None => batch.set(&key, &value),
            };
        }
        let done = stage.store.write_with(batch, durability);
        let effect = (at, stage.now());
        let steps = vec![Step::WriteGroup(element)];
        let record = Begun { kind: "batch", at, moment: effect, steps };
        self.note(record, Some(effect), done.map(|()| Outcome::Committed));
    }

    fn maintain(&mut self, kind: &'static str, maintain: impl FnOnce(&Store) -> zkv::Result<()>) {
        let at = self.stage.now();
        let done = maintain(&self.stage.store);
        let record = Begun { kind, at, moment: (at, self.stage.now()), steps: Vec::new() };
        self.note(record, None, done.map(|()| Outcome::Committed));
    }

    /// A step of a transaction.
    fn grant(
        &self,
        tx: &mut zkv::Transaction,
        wish: Wish,
        steps: &mut Vec<Step>,
    ) -> zkv::Result<()> {
        let stage = self.stage;
        match wish {
            Wish::Append(key) => {
                let mut list = tx.list(stage, key)?;
                steps.push(Step::Read { key, list: list.clone() });
                let element = stage.new_element();
                list.push(element);
                set(stage, tx, key, list)?;
                steps.push(Step::Append { key, element });
            }
            Wish::WriteGroup => {
                let element = stage.new_element();
                for key in stage.plan.registers() {
                    set(stage, tx, key, vec![element])?;
                }
                steps.push(Step::WriteGroup(element));
            }
            _ => self.look(tx, wish, steps)?,
        }
        Ok(())
    }

    /// A read of a transaction or a snapshot.
    fn look(&self, source: &mut impl Source, wish: Wish, steps: &mut Vec<Step>) -> zkv::Result<()> {
        let stage = self.stage;
        match wish {
            Wish::Read(key) => steps.push(Step::Read { key, list: source.list(stage, key)? }),
            Wish::ReadGroup => {
                let read = |key| Ok(source.list(stage, key)?.first().copied());
                let values = stage.plan.registers().map(read).collect::<zkv::Result<_>>()?;
                steps.push(Step::ReadGroup(values));
            }
            Wish::Scan { is_named } => {
                let found = source.scan(stage, is_named)?;
                steps.extend(scanned(stage.plan, is_named, found));
            }
            Wish::ReadMany { is_named } => {
                let all = stage.plan.lists().chain(stage.plan.registers());
                let keys: Vec<u8> =
                    all.filter(|key| stage.plan.is_named(*key) == is_named).collect();
                let lists = source.many(stage, is_named, &keys)?;
                let found = keys.into_iter().zip(lists).collect();
                steps.extend(scanned(stage.plan, is_named, found));
            }
            Wish::Yield => thread::yield_now(),
            Wish::Append(_) | Wish::WriteGroup => {}
        }
        Ok(())
    }

    fn note_panic(&mut self) {
        let at = self.stage.now();
        let begun = Begun { kind: "?", at, moment: (at, self.stage.now()), steps: Vec::new() };
        let done = Outcome::Failed("a panic, printed above".to_owned());
        self.note(begun, None, Ok(done));
    }

    fn note(&mut self, begun: Begun, effect: Option<(u64, u64)>, done: zkv::Result<Outcome>) {
        let outcome = done.unwrap_or_else(|error| Outcome::Failed(error.to_string()));
        self.transactions.push(Transaction {
            thread: self.thread,
            kind: begun.kind,
            span: (begun.at, self.stage.now()),
            effect: effect.unwrap_or(begun.moment),
            steps: begun.steps,
            outcome,
        });
    }
}

fn set(
    stage: &Stage<'_>,
    tx: &mut zkv::Transaction,
    key: u8,
    list: Vec<Element>,
) -> zkv::Result<()> {
    let value = stage.value(list);
    match stage.collection_of(key) {
        Some(named) => named.within(tx)?.set(&key, &value),
        None => tx.set(&key, &value),
    }
}

/// A scan, or a read of many, is a read of every key that its collection may have, those that it has not among them.
fn scanned(plan: &Plan, is_named: bool, mut found: BTreeMap<u8, Vec<Element>>) -> Vec<Step> {
    let is_in = |key: &u8| plan.is_named(*key) == is_named;
    let mut steps: Vec<Step> = plan
        .lists()
        .filter(is_in)
        .map(|key| Step::Read { key, list: found.remove(&key).unwrap_or_default() })
        .collect();
    let group = plan.registers().filter(is_in);
    let value_of = |key| found.remove(&key).and_then(|list| list.first().copied());
    steps.push(Step::ReadGroup(group.map(value_of).collect()));
    steps
}
