//! The segmentation workers of all models.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::segment::pool::Pool;

/// The pool of each model, by the name of the model. Clones share them.
#[derive(Clone, Default)]
pub struct Pools(Arc<Mutex<Vec<NamedPool>>>);

/// The name of a model and its pool.
type NamedPool = (Arc<str>, Arc<Pool>);

impl Pools {
    /// The pool of the model of this name.
    pub fn of(&self, model: &str) -> Option<Arc<Pool>> {
        self.0.lock().iter().find(|(name, _)| **name == *model).map(|(_, pool)| Arc::clone(pool))
    }

    pub fn add(&self, model: &str, pool: Arc<Pool>) {
        self.0.lock().push((model.into(), pool));
    }

    /// Removes the pool of a model. Its workers end when the returned one is dropped, after their current batches.
    pub fn remove(&self, model: &str) -> Option<Arc<Pool>> {
        let mut pools = self.0.lock();
        let at = pools.iter().position(|(name, _)| **name == *model)?;
        Some(pools.remove(at).1)
    }

    /// [`Pool::stuck`] of the first pool with a worker that hangs.
    pub fn stuck(&self, run_limit: Duration, make_limit: Duration) -> Option<String> {
        let pools = self.0.lock().clone();
        pools.iter().find_map(|(name, pool)| match pool.stuck(run_limit, make_limit)? {
            fault if pools.len() == 1 => Some(fault),
            fault => Some(format!("model {name}: {fault}")),
        })
    }
}
