//! Limits the number of HTTP connections: in total, from one address, and a reserve for health checks.
//!
//! When a limit is reached, a new connection replaces the connection that has kept the server waiting the longest: one
//! in a TLS handshake, in a request's header or body, between two requests, or one whose client does not read its
//! response. The address with the most waiting connections is considered first. If every connection is busy, the new
//! one gets a slot of the reserve, where only `/healthz` and `/readyz` are answered (`accept`).

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::access::limit::network;

/// A client that has read nothing of its response for this long may be closed in favour of a new connection. If file
/// descriptors are short, the same applies to one that has sent nothing for this long.
const STALLED: Duration = Duration::from_secs(5);

/// The maximum numbers of simultaneous connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionLimits {
    /// In total, without the reserve.
    pub total: usize,
    /// From one address (IPv6: from one /64 network).
    pub per_address: usize,
    /// Additional connections for health checks.
    pub reserve: usize,
}

/// Counts connections and hands out [`HttpConnectionPermit`]s. Clones share one table.
#[derive(Clone)]
pub(super) struct HttpConnectionLimiter(Arc<LimiterState>);

struct LimiterState {
    limits: ConnectionLimits,
    table: Mutex<ConnectionTable>,
}

#[derive(Default)]
struct ConnectionTable {
    last_id: u64,
    slots: HashMap<u64, ConnectionSlot>,
}

/// An open connection.
struct ConnectionSlot {
    address: IpAddr,
    in_reserve: bool,
    /// Since when the server has been waiting for the client to send something.
    waiting: Option<Instant>,
    /// Since when the client has read nothing of its response.
    stalled: Option<Instant>,
    close: Arc<Notify>,
}

/// The slot of one connection. Dropping it frees the slot.
pub(super) struct HttpConnectionPermit {
    id: u64,
    in_reserve: bool,
    shared: Arc<LimiterState>,
    close: Arc<Notify>,
    /// The whole response has been passed to the HTTP library, but may not have been written yet.
    response_produced: AtomicBool,
}

impl HttpConnectionLimiter {
    pub fn new(limits: ConnectionLimits) -> Self {
        HttpConnectionLimiter(Arc::new(LimiterState { limits, table: Mutex::default() }))
    }

    /// A permit for a connection from `address`; `None` when even the reserve is full. A `proxy` carries many clients
    /// and has no limit of its own.
    pub fn acquire(&self, address: IpAddr, proxy: bool) -> Option<HttpConnectionPermit> {
        let (address, now) = (network(address), Instant::now());
        let ConnectionLimits { total, per_address, reserve } = self.0.limits;
        let mut table = self.0.table();
        let same_address = |slot: &ConnectionSlot| !slot.in_reserve && slot.address == address;
        let has_slot = if !proxy && table.count(same_address) >= per_address {
            table.close_one(same_address, now)
        } else {
            table.count(|slot| !slot.in_reserve) < total || table.close_one(|slot| !slot.in_reserve, now)
        };
        let in_reserve = !has_slot;
        if in_reserve && table.count(|slot| slot.in_reserve) >= reserve && !table.close_one(|slot| slot.in_reserve, now)
        {
            return None;
        }
        table.last_id += 1;
        let (id, close) = (table.last_id, Arc::new(Notify::new()));
        let slot = ConnectionSlot { address, in_reserve, waiting: Some(now), stalled: None, close: Arc::clone(&close) };
        table.slots.insert(id, slot);
        drop(table);
        let shared = Arc::clone(&self.0);
        Some(HttpConnectionPermit { id, in_reserve, shared, close, response_produced: AtomicBool::new(false) })
    }

    /// Closes the connection that has been idle the longest, from any address. Returns `false` when none has been idle
    /// for [`STALLED`]: the request of a connection that was just accepted is still on its way.
    pub fn close_idle(&self) -> bool {
        self.0.table().close_idle(Instant::now())
    }
}

impl LimiterState {
    fn table(&self) -> MutexGuard<'_, ConnectionTable> {
        self.table.lock()
    }
}

impl ConnectionTable {
    fn count(&self, matches: impl Fn(&ConnectionSlot) -> bool) -> usize {
        self.slots.values().filter(|slot| matches(slot)).count()
    }

    fn close_idle(&mut self, now: Instant) -> bool {
        let is_new = |since: Instant| now.saturating_duration_since(since) < STALLED;
        self.close_one(|slot| !slot.waiting.is_some_and(is_new), now)
    }

    /// Closes one of the matching connections that keep the server waiting, and frees its slot at once. Returns `false`
    /// when there is none.
    fn close_one(&mut self, matches: impl Fn(&ConnectionSlot) -> bool, now: Instant) -> bool {
        let waiting_since = |slot: &ConnectionSlot| {
            let stalled = slot.stalled.filter(|since| now.saturating_duration_since(*since) >= STALLED);
            slot.waiting.or(stalled)
        };
        let waiting: Vec<(u64, IpAddr, Instant)> = (self.slots.iter())
            .filter(|(_, slot)| matches(slot))
            .filter_map(|(id, slot)| Some((*id, slot.address, waiting_since(slot)?)))
            .collect();
        let mut per_address = HashMap::<IpAddr, usize>::new();
        for (_, address, _) in &waiting {
            *per_address.entry(*address).or_default() += 1;
        }
        let longest = waiting.iter().max_by_key(|(id, address, since)| (per_address[address], Reverse((*since, *id))));
        let closed = longest.and_then(|(id, ..)| self.slots.remove(id));
        closed.as_ref().map(|slot| slot.close.notify_one()).is_some()
    }
}

impl HttpConnectionPermit {
    /// Whether only health checks are answered on this connection.
    pub fn in_reserve(&self) -> bool {
        self.in_reserve
    }

    /// Completes when the slot was given to another connection: this one must be closed.
    pub async fn revoked(&self) {
        self.close.notified().await;
    }

    /// The server waits for the client to send something.
    pub fn set_waiting(&self) {
        self.update(|slot| slot.waiting = Some(Instant::now()));
    }

    /// The request is complete and is being answered.
    pub fn set_answering(&self) {
        self.response_produced.store(false, Ordering::Relaxed);
        self.update(|slot| slot.waiting = None);
    }

    /// The whole response has been passed to the HTTP library.
    pub fn set_response_produced(&self) {
        self.response_produced.store(true, Ordering::Relaxed);
    }

    /// All bytes so far have been written: after a complete response the server waits for the next request.
    pub fn set_flushed(&self) {
        if self.response_produced.swap(false, Ordering::Relaxed) {
            self.set_waiting();
        }
    }

    /// The client does not read what is written, or reads again.
    pub fn set_stalled(&self, stalled: bool) {
        self.update(|slot| slot.stalled = stalled.then(Instant::now));
    }

    fn update(&self, change: impl FnOnce(&mut ConnectionSlot)) {
        if let Some(slot) = self.shared.table().slots.get_mut(&self.id) {
            change(slot);
        }
    }
}

impl Drop for HttpConnectionPermit {
    fn drop(&mut self) {
        self.shared.table().slots.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits { total: 5, per_address: 2, reserve: 2 };

    fn acquire_busy(limiter: &HttpConnectionLimiter, address: &str, proxy: bool) -> Option<HttpConnectionPermit> {
        let permit = limiter.acquire(address.parse().unwrap(), proxy)?;
        permit.set_answering();
        Some(permit)
    }

    async fn is_revoked(permit: &HttpConnectionPermit) -> bool {
        tokio::select! {
            biased;
            () = permit.revoked() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn one_address_cannot_use_the_connections_of_others() {
        let limiter = HttpConnectionLimiter::new(LIMITS);
        let busy = |address: &str| acquire_busy(&limiter, address, false);
        let one = "192.0.2.1";
        let held = [busy(one).unwrap(), busy(one).unwrap()];
        assert!(held.iter().all(|permit| !permit.in_reserve()));
        // The same address, as a dual-stack socket reports it.
        let more = [one, "::ffff:192.0.2.1"].map(|address| busy(address).unwrap());
        assert!(more.iter().all(HttpConnectionPermit::in_reserve), "the reserve only explains the refusal");
        assert!(busy(one).is_none());
        let networks = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"];
        let others = networks.map(|address| busy(address).unwrap());
        assert!(others.iter().all(|permit| !permit.in_reserve()));
        drop((more, others));
        let neighbours = ["2001:db8::1", "2001:db8::2", "2001:db8::3"];
        let sequential = neighbours.map(|address| busy(address).unwrap().in_reserve());
        assert_eq!(sequential, [false; 3], "each permit was dropped before the next connection");
        let simultaneous = neighbours.map(busy);
        let in_reserve = simultaneous.iter().map(|permit| permit.as_ref().unwrap().in_reserve());
        assert_eq!(in_reserve.collect::<Vec<_>>(), [false, false, true], "one client has a whole /64 network");
        drop((held, simultaneous));
        let proxy: Vec<_> = (0..5).map(|_| acquire_busy(&limiter, "127.0.0.1", true).unwrap()).collect();
        assert!(proxy.iter().all(|permit| !permit.in_reserve()), "a proxy carries many clients");
        assert!(busy(one).unwrap().in_reserve());
    }

    #[tokio::test]
    async fn the_longest_waiting_connection_is_closed_first() {
        let limiter = HttpConnectionLimiter::new(ConnectionLimits { total: 3, per_address: 3, reserve: 1 });
        let acquire = |address: &str| limiter.acquire(address.parse().unwrap(), false).unwrap();
        let [crowd_1, crowd_2, alone] = ["192.0.2.1", "192.0.2.1", "192.0.2.2"].map(acquire);
        // The address with the most waiting connections comes first.
        alone.set_waiting();
        let new = acquire("192.0.2.3");
        assert!(!new.in_reserve());
        assert_eq!(
            [is_revoked(&crowd_1).await, is_revoked(&crowd_2).await, is_revoked(&alone).await],
            [true, false, false]
        );
        // A busy connection is kept; after its response is written it waits again.
        crowd_2.set_answering();
        new.set_answering();
        crowd_2.set_response_produced();
        let fourth = acquire("192.0.2.4");
        assert_eq!([is_revoked(&alone).await, is_revoked(&crowd_2).await], [true, false]);
        crowd_2.set_flushed();
        fourth.set_answering();
        let fifth = acquire("192.0.2.5");
        assert!(is_revoked(&crowd_2).await);
        // A response that is written while the next request is answered changes nothing.
        new.set_response_produced();
        new.set_answering();
        new.set_flushed();
        fifth.set_answering();
        assert!(acquire("192.0.2.6").in_reserve());
        assert!(!is_revoked(&new).await);
    }

    #[tokio::test]
    async fn at_its_limit_an_address_closes_only_its_own_connections() {
        let limiter = HttpConnectionLimiter::new(LIMITS);
        let acquire = |address: &str| limiter.acquire(address.parse().unwrap(), false).unwrap();
        let [other, first, second] = ["192.0.2.2", "192.0.2.1", "192.0.2.1"].map(acquire);
        let third = acquire("192.0.2.1");
        assert!(!third.in_reserve());
        assert_eq!(
            [is_revoked(&other).await, is_revoked(&first).await, is_revoked(&second).await],
            [false, true, false]
        );
    }

    #[tokio::test]
    async fn a_stalled_client_is_closed_after_a_while_and_the_reserve_replaces_its_own() {
        let limiter = HttpConnectionLimiter::new(ConnectionLimits { total: 1, per_address: 1, reserve: 1 });
        let busy = acquire_busy(&limiter, "192.0.2.1", false).unwrap();
        let [first, second] =
            ["192.0.2.2", "192.0.2.3"].map(|address| limiter.acquire(address.parse().unwrap(), false));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(first.in_reserve() && second.in_reserve());
        assert_eq!(
            [is_revoked(&first).await, is_revoked(&second).await, is_revoked(&busy).await],
            [true, false, false]
        );
        busy.set_stalled(true);
        assert!(!limiter.0.table().close_one(|slot| !slot.in_reserve, Instant::now()), "it has only just stalled");
        assert!(limiter.0.table().close_one(|slot| !slot.in_reserve, Instant::now() + STALLED));
        assert!(is_revoked(&busy).await);
    }

    /// If new connections were closed, idle RTSP connections that hold the descriptors would lock out every HTTP client.
    #[test]
    fn a_lack_of_descriptors_closes_idle_connections_but_not_new_ones() {
        let limiter = HttpConnectionLimiter::new(ConnectionLimits { total: 2, per_address: 2, reserve: 1 });
        let [new, busy] = [1, 2].map(|n| limiter.acquire(IpAddr::from([192, 0, 2, n]), false).unwrap());
        busy.set_answering();
        assert!(!limiter.close_idle(), "it was accepted just now");
        let later = Instant::now() + STALLED;
        assert!(limiter.0.table().close_idle(later));
        assert!(!limiter.0.table().close_idle(later), "a request is being answered");
        drop((new, busy));
    }
}
