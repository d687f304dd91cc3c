//! nginx's thread pool: work that may block, done in one of its threads, and its result in the event loop.
//!
//! For files only. What runs in a thread may call nothing of nginx and see nothing of the worker: it gets what it needs, and
//! gives it back. Where nginx is built without threads there is no [`ThreadPool`] to be had.

use thiserror::Error;

pub use pool::ThreadPool;
pub(super) use pool::{settle, started};

/// The pool takes no more work: its queue is full, or this process has no threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("nginx's thread pool takes no more work")]
pub struct Full;

#[cfg(nginx_threads)]
mod pool {
    use core::ffi::c_void;
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::mem::MaybeUninit;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::ptr::{self, NonNull};
    use std::rc::Rc;
    use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

    use super::Full;
    use crate::ngx::conf::Conf;
    use crate::ngx::event::{Msec, Timer};
    use crate::ngx::sys;

    /// A pool of the configuration, as `aio threads` uses it; as long as that is in use.
    pub struct ThreadPool(NonNull<sys::ngx_thread_pool_t>);

    /// What is common to all tasks; nginx has a pointer to the first of it.
    #[repr(C)]
    struct Head {
        task: sys::ngx_thread_task_t,
        /// Whether the work is over, for [`settle`].
        finished: AtomicBool,
        /// Calls its `done`, and frees it, if nobody else has its address.
        deliver: unsafe fn(*mut Head, free: bool),
    }

    /// A task on the heap. While it is with nginx the thread has `work` and `result` for itself, and nobody has `done`.
    #[repr(C)]
    struct Task<W, D, T> {
        head: Head,
        work: Option<W>,
        result: Option<T>,
        done: D,
    }

    /// The tasks that are with nginx.
    #[derive(Default)]
    struct Live {
        /// In the order in which they were posted.
        tasks: VecDeque<*mut Head>,
        /// Set while there are any: a worker on its way out waits for its timers.
        keeper: Option<(Timer, Rc<()>)>,
    }

    thread_local! {
        /// Of the event loop's thread. Never borrowed across a call into nginx or to a `done`.
        static LIVE: RefCell<Live> = RefCell::default();
    }

    /// The cycle whose pools have their threads.
    static STARTED: AtomicPtr<sys::ngx_cycle_t> = AtomicPtr::new(ptr::null_mut());

    /// For how long the keeper is set at a time. Nothing happens when it fires.
    const KEEPER: Msec = 60_000;

    impl Conf<'_> {
        /// The pool named "default", which need not be configured (core/ngx_thread_pool.c gives it 32 threads and a queue of
        /// 65536).
        pub fn thread_pool(&mut self) -> Result<ThreadPool, String> {
            // SAFETY: the configuration is being read; the pool lives as long as that does, as does what is made of it.
            let pool = unsafe { sys::ngx_thread_pool_add(self.raw(), ptr::null_mut()) };
            NonNull::new(pool).map(ThreadPool).ok_or_else(|| "out of memory".into())
        }
    }

    impl ThreadPool {
        /// Has `work` done in one of nginx's threads, and then `done` called in the event loop, with what `work` gave, or
        /// None when it panicked. Works of one pool may overtake one another, and so may their results. On an error neither
        /// is called.
        ///
        /// A worker on its way out waits for `done`. One that is told to leave at once (TERM) waits for `work`, and `done`
        /// is called before the hook of this module into the exit of a process: requests and connections are of no use
        /// there. Only a worker that is killed, or a pool whose queue is full just then, leaves a `done` uncalled.
        pub fn run<T: Send + 'static>(
            &self,
            work: impl FnOnce() -> T + Send + 'static,
            done: impl FnOnce(Option<T>) + 'static,
        ) -> Result<(), Full> {
            if !has_threads() {
                return Err(Full);
            }
            post(self.0, work, done)
        }
    }

    /// Whether the running configuration's pools have been started: not in nginx's helpers for its cache, not after the
    /// reload of a nginx without a master process, and of no use with an event method that no thread can wake (select, poll).
    fn has_threads() -> bool {
        // SAFETY: words that only this thread writes, before and between iterations of the event loop.
        unsafe {
            ptr::eq(STARTED.load(Ordering::Relaxed), sys::ngx_cycle.cast_const())
                && matches!(sys::ngx_process as u32, sys::NGX_PROCESS_WORKER | sys::NGX_PROCESS_SINGLE)
                && (&raw const sys::ngx_event_actions.notify).read().is_some()
        }
    }

    fn post<T, W, D>(pool: NonNull<sys::ngx_thread_pool_t>, work: W, done: D) -> Result<(), Full>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
        D: FnOnce(Option<T>) + 'static,
    {
        // SAFETY: a task and its event are plain data for which all zeros is nginx's own initial state.
        let task = unsafe { std::mem::zeroed::<sys::ngx_thread_task_t>() };
        let head = Head { task, finished: AtomicBool::new(false), deliver: deliver::<T, W, D> };
        let task = Box::into_raw(Box::new(Task { head, work: Some(work), result: None::<T>, done }));
        let head = task.cast::<Head>();
        // SAFETY: just made. nginx has the task from a successful ngx_thread_task_post until it calls the event's handler,
        // and forgets it at once when the call fails. The cycle and its log outlive the tasks of its event loop.
        unsafe {
            (*head).task.ctx = task.cast();
            (*head).task.handler = Some(run::<T, W, D>);
            (*head).task.event.data = task.cast();
            (*head).task.event.handler = Some(finished);
            (*head).task.event.log = (*sys::ngx_cycle).log;
            if sys::ngx_thread_task_post(pool.as_ptr(), &raw mut (*head).task) != sys::OK {
                drop(Box::from_raw(task));
                return Err(Full);
            }
        }
        LIVE.with_borrow_mut(|live| {
            live.tasks.push_back(head);
            if live.tasks.len() == 1 {
                let (keeper, _) = live.keeper.get_or_insert_with(|| {
                    let owner = Rc::new(());
                    (Timer::new(Rc::downgrade(&owner), keep), owner)
                });
                keeper.set(KEEPER);
            }
        });
        Ok(())
    }

    fn keep(_: &()) {
        LIVE.with_borrow(|live| {
            if let Some((keeper, _)) = &live.keeper
                && !live.tasks.is_empty()
            {
                keeper.set(KEEPER);
            }
        });
    }

    /// In a thread of the pool.
    unsafe extern "C" fn run<T, W: FnOnce() -> T, D>(task: *mut c_void, _: *mut sys::ngx_log_t) {
        let task = task.cast::<Task<W, D, T>>();
        // SAFETY: nginx hands a posted task to one thread, once, and touches none of these fields. `work` and its result may
        // go from thread to thread, and nothing of the task is dropped here but what `work` owns.
        unsafe {
            if let Some(work) = (&raw mut (*task).work).replace(None) {
                // Nothing is seen of what a panic left half done: all of it is the work's own.
                (&raw mut (*task).result).write(catch_unwind(AssertUnwindSafe(work)).ok());
            }
            let finished = &(*task).head.finished;
            finished.store(true, Ordering::Release);
        }
    }

    /// In the event loop, after the work.
    unsafe extern "C" fn finished(event: *mut sys::ngx_event_t) {
        // SAFETY: only the events of tasks have this handler; nginx has forgotten the task before it calls it.
        unsafe {
            let head = (*event).data.cast::<Head>();
            forget(head);
            ((*head).deliver)(head, true);
        }
    }

    fn forget(head: *mut Head) {
        LIVE.with_borrow_mut(|live| {
            if let Some(at) = live.tasks.iter().position(|task| ptr::eq(*task, head)) {
                live.tasks.remove(at);
            }
            if let Some((keeper, _)) = &live.keeper
                && live.tasks.is_empty()
            {
                keeper.cancel();
            }
        });
    }

    /// # Safety
    /// `head` must be that of a task of these types whose work is over, and which is delivered for the first time.
    unsafe fn deliver<T, W, D: FnOnce(Option<T>)>(head: *mut Head, free: bool) {
        let task = head.cast::<Task<W, D, T>>();
        // SAFETY: by the caller's word. `work` was taken out by the thread; the rest is plain data. Leaked from a box in
        // `post`.
        let (result, done) = unsafe {
            let moved = ((&raw const (*task).result).read(), (&raw const (*task).done).read());
            if free {
                drop(Box::from_raw(task.cast::<MaybeUninit<Task<W, D, T>>>()));
            }
            moved
        };
        done(result);
    }

    /// A process has started, and with it the pools of `cycle`: nginx's own modules come first.
    pub fn started(cycle: *mut sys::ngx_cycle_t) {
        STARTED.store(cycle, Ordering::Relaxed);
    }

    /// Calls every `done` whose work is over.
    ///
    /// # Safety
    /// The event loop must have ended for good: nginx's pools, which end before this module does, have then done all their
    /// work, and nobody delivers it any more.
    pub unsafe fn settle() {
        // No work is taken from here on.
        STARTED.store(ptr::null_mut(), Ordering::Relaxed);
        while let Some(head) = LIVE.with_borrow_mut(|live| live.tasks.pop_front()) {
            // SAFETY: a task that nginx had, and will not deliver again. Its memory stays: if a pool could not be ended, one
            // of its threads may not be done with it. One whose work is not over stays as it is.
            unsafe {
                let finished = &(*head).finished;
                if finished.load(Ordering::Acquire) {
                    ((*head).deliver)(head, false);
                }
            }
        }
        LIVE.with_borrow_mut(|live| live.keeper = None);
    }
}

#[cfg(not(nginx_threads))]
mod pool {
    use super::Full;
    use crate::ngx::conf::Conf;
    use crate::ngx::sys;

    /// There is none: nginx was built without threads.
    pub enum ThreadPool {}

    impl Conf<'_> {
        /// Says why there is none.
        pub fn thread_pool(&mut self) -> Result<ThreadPool, String> {
            Err("this nginx was built without threads (--with-threads)".into())
        }
    }

    impl ThreadPool {
        /// Never called.
        pub fn run<T: Send + 'static>(
            &self,
            _: impl FnOnce() -> T + Send + 'static,
            _: impl FnOnce(Option<T>) + 'static,
        ) -> Result<(), Full> {
            match *self {}
        }
    }

    pub fn started(_: *mut sys::ngx_cycle_t) {}

    /// # Safety
    /// None.
    pub unsafe fn settle() {}
}
