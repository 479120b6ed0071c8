//! Locks, and a condition variable whose timeouts come at any moment: in shuttle's, no wait times
//! out, and a guard does not know its lock.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};
use shuttle::{sync, thread};

/// As the standard library's.
#[derive(Default)]
pub struct Mutex<T> {
    inner: sync::Mutex<T>,
}

/// As the standard library's.
pub struct MutexGuard<'a, T> {
    lock: &'a Mutex<T>,
    inner: sync::MutexGuard<'a, T>,
}

/// As the standard library's, with the timeouts of [`Condvar::wait_timeout`].
#[derive(Debug, Default)]
pub struct Condvar {
    inner: sync::Condvar,
}

/// Whether a wait has ended because of its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl<T> Mutex<T> {
    /// A lock that nobody holds.
    pub const fn new(value: T) -> Self {
        Self { inner: sync::Mutex::new(value) }
    }

    /// Waits until nobody else holds the lock.
    ///
    /// # Errors
    /// Where a thread has panicked that held it.
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        map(self.inner.lock(), |inner| MutexGuard { lock: self, inner })
    }

    /// Takes the lock, unless somebody holds it.
    ///
    /// # Errors
    /// As [`Mutex::lock`], and where somebody does.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        let guard = |inner| MutexGuard { lock: self, inner };
        self.inner.try_lock().map(guard).map_err(|error| match error {
            TryLockError::WouldBlock => TryLockError::WouldBlock,
            TryLockError::Poisoned(poisoned) => {
                PoisonError::new(guard(poisoned.into_inner())).into()
            }
        })
    }

    /// The value, where nobody else can have it.
    ///
    /// # Errors
    /// As [`Mutex::lock`].
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        self.inner.get_mut()
    }
}

impl WaitTimeoutResult {
    /// Whether it has.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// With nobody who waits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until somebody notifies: never for nothing, so that a notification that is missing
    /// shows as a deadlock.
    ///
    /// # Errors
    /// As [`Mutex::lock`].
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let MutexGuard { lock, inner } = guard;
        map(self.inner.wait(inner), |inner| MutexGuard { lock, inner })
    }

    /// Gives the lock away, and has it again at some later moment, with the time over or not: waits
    /// may end for nothing, so that this is all that can be relied on. A notification that is
    /// missing does not show.
    ///
    /// # Errors
    /// As [`Mutex::lock`].
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        _timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let lock = guard.lock;
        drop(guard);
        thread::yield_now();
        let result = WaitTimeoutResult(thread_rng().gen_bool(0.5));
        map(lock.lock(), |guard| (guard, result))
    }

    /// As [`Condvar::wait_timeout`], until `condition` does not hold or the time is over.
    ///
    /// # Errors
    /// As [`Mutex::lock`].
    pub fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let mut result = WaitTimeoutResult(false);
        while condition(&mut guard) && !result.timed_out() {
            (guard, result) = self.wait_timeout(guard, timeout)?;
        }
        Ok((guard, result))
    }

    /// Wakes one who waits.
    pub fn notify_one(&self) {
        self.inner.notify_one();
    }

    /// Wakes all who wait.
    pub fn notify_all(&self) {
        self.inner.notify_all();
    }
}

fn map<A, B>(result: LockResult<A>, make: impl FnOnce(A) -> B) -> LockResult<B> {
    match result {
        Ok(inner) => Ok(make(inner)),
        Err(poisoned) => Err(PoisonError::new(make(poisoned.into_inner()))),
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner, formatter)
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, formatter)
    }
}
