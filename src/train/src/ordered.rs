//! Runs tasks on several threads and returns their results in the order of the tasks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

/// A task and the channel for its result.
type Job<T, R> = (T, Sender<R>);

/// An iterator over the results of tasks. At most `ahead` tasks are started before their results are requested. The queue
/// to the threads has the same capacity, so that sending a task does not block.
pub struct OrderedResults<T, R> {
    tasks: Box<dyn Iterator<Item = T> + Send>,
    jobs: Option<Sender<Job<T, R>>>,
    pending: VecDeque<Receiver<R>>,
    ahead: usize,
    threads: Vec<JoinHandle<()>>,
}

impl<T: Send + 'static, R: Send + 'static> OrderedResults<T, R> {
    /// Starts `threads` threads, whose names begin with `name`.
    ///
    /// # Errors
    /// The system cannot create a thread.
    pub fn start(
        name: &str,
        threads: usize,
        ahead: usize,
        tasks: impl Iterator<Item = T> + Send + 'static,
        work: impl Fn(T) -> R + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let ahead = ahead.max(1);
        let (jobs, inbox) = bounded::<Job<T, R>>(ahead);
        let work = Arc::new(work);
        let threads = (0..threads.max(1))
            .map(|index| {
                let (inbox, work) = (inbox.clone(), work.clone());
                std::thread::Builder::new().name(format!("{name}-{index}")).spawn(move || {
                    for (task, outbox) in inbox {
                        // The receiver is gone when the iterator was dropped.
                        if outbox.send(work(task)).is_err() {
                            break;
                        }
                    }
                })
            })
            .collect::<Result<_, _>>()?;
        let mut ordered =
            OrderedResults { tasks: Box::new(tasks), jobs: Some(jobs), pending: VecDeque::new(), ahead, threads };
        ordered.fill();
        Ok(ordered)
    }

    /// Sends tasks to the threads.
    fn fill(&mut self) {
        while self.pending.len() < self.ahead
            && let Some(jobs) = &self.jobs
        {
            let Some(task) = self.tasks.next() else {
                self.jobs = None;
                break;
            };
            let (outbox, result) = bounded(1);
            if jobs.send((task, outbox)).is_err() {
                self.jobs = None;
            }
            self.pending.push_back(result);
        }
    }
}

impl<T: Send + 'static, R: Send + 'static> Iterator for OrderedResults<T, R> {
    type Item = R;

    /// # Panics
    /// A thread panicked in the next task.
    fn next(&mut self) -> Option<R> {
        self.fill();
        let result = self.pending.pop_front()?.recv().expect("a worker thread panicked");
        self.fill();
        Some(result)
    }
}

impl<T, R> Drop for OrderedResults<T, R> {
    fn drop(&mut self) {
        self.jobs = None;
        self.pending.clear();
        for thread in self.threads.drain(..) {
            // The thread has printed its panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_the_number_of_started_tasks_is_limited() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let started = Arc::new(AtomicUsize::new(0));
        let counter = started.clone();
        let mut squares = OrderedResults::start("square", 3, 4, 0..100u64, move |n| {
            counter.fetch_add(1, Ordering::SeqCst);
            n * n
        })
        .unwrap();
        assert_eq!(squares.next(), Some(0));
        assert!(started.load(Ordering::SeqCst) <= 5, "more than four tasks after the first one are started");
        assert_eq!(squares.collect::<Vec<_>>(), (1..100).map(|n| n * n).collect::<Vec<_>>());
    }

    #[test]
    fn threads_end_when_the_iterator_is_dropped() {
        let endless = OrderedResults::start("endless", 2, 8, 0u64.., |n| n).unwrap();
        assert_eq!(endless.take(3).sum::<u64>(), 3);
    }
}
