//! How many connections there may be, in all and from one address: who opens all that he can does not shut out the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections of one protocol at the same time.
pub(crate) const MOST: usize = 512;

/// Of these, connections from one address.
pub(crate) const MOST_OF_ONE: usize = 128;

/// A place for each connection.
pub(crate) struct Places {
    all: Arc<Semaphore>,
    most_of_one: usize,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One of the places in all, not yet anybody's.
pub(crate) struct Free {
    _permit: Option<OwnedSemaphorePermit>,
}

/// A connection's place. Given back when it is dropped.
pub(crate) struct Place {
    address: IpAddr,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    _free: Free,
}

impl Places {
    /// So many in all, so many from one address.
    pub fn new(all: usize, most_of_one: usize) -> Self {
        Places { all: Arc::new(Semaphore::new(all)), most_of_one, taken: Arc::default() }
    }

    /// Waits until there is a place.
    pub async fn free(&self) -> Free {
        // Fails for a closed semaphore only; this one never is.
        Free { _permit: Arc::clone(&self.all).acquire_owned().await.ok() }
    }

    /// Whether there is a place now.
    pub fn has_room(&self) -> bool {
        self.all.available_permits() > 0
    }

    /// A place for a connection from `address`, without waiting; `None` when there is none for it.
    pub fn try_take(&self, address: IpAddr) -> Option<Place> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        self.take(Free { _permit: Some(permit) }, address)
    }

    /// Gives the place to a connection from `address`; `None` when that has all that one may have. This machine itself may
    /// have all, for a proxy on it stands for many.
    pub fn take(&self, free: Free, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(address).or_default();
        if *count >= self.most_of_one && !address.is_loopback() {
            return None;
        }
        *count += 1;
        drop(taken);
        Some(Place { address, taken: Arc::clone(&self.taken), _free: free })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_address_has_its_share_and_others_have_theirs() {
        let places = Places::new(5, 2);
        let (one, other) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let held = [places.take(places.free().await, one).unwrap(), places.take(places.free().await, one).unwrap()];
        assert!(places.take(places.free().await, one).is_none());
        // The same address, as a socket for both families gives it.
        assert!(places.take(places.free().await, "::ffff:192.0.2.1".parse().unwrap()).is_none());
        let _other = places.take(places.free().await, other).unwrap();
        drop(held);
        let _again = places.take(places.free().await, one).unwrap();
        let local = "127.0.0.1".parse().unwrap();
        let _local = [
            places.take(places.free().await, local).unwrap(),
            places.take(places.free().await, local).unwrap(),
            places.take(places.free().await, local).unwrap(),
        ];
        assert_eq!(places.all.available_permits(), 0, "who was refused has no place");
        assert_eq!(places.taken.lock().unwrap().len(), 3);
    }
}
