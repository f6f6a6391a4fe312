//! How many connections there may be: in all, from one address, and a few in reserve for health checks.
//!
//! When there is no place left, the connection that keeps the server waiting the longest is closed in favour of the new
//! one: it is in the middle of a TLS handshake, of a request's header or body, or between two requests, or it does not
//! read its answer. Among addresses, the one with the most waiting connections comes first. When all connections are busy
//! instead, the new one gets a place in reserve, where only `/healthz` and `/readyz` are answered (`accept`).

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::access::limit::network;

/// A client that has read nothing of its answer for this long may be closed in favour of a new one; likewise, when
/// descriptors are short, one that has sent nothing for this long.
const STALLED: Duration = Duration::from_secs(5);

/// How many connections there may be at the same time.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionLimits {
    /// In all, those in reserve not counted.
    pub all: usize,
    /// From one address (IPv6: one network of 64 bits).
    pub of_one: usize,
    /// Beyond these, for health checks.
    pub reserve: usize,
}

/// A place for each connection.
#[derive(Clone)]
pub(super) struct HttpConnectionLimiter(Arc<LimiterState>);

struct LimiterState {
    counts: ConnectionLimits,
    table: Mutex<ConnectionTable>,
}

#[derive(Default)]
struct ConnectionTable {
    last: u64,
    seats: HashMap<u64, ConnectionSlot>,
}

/// A place that is taken.
struct ConnectionSlot {
    address: IpAddr,
    in_reserve: bool,
    /// Since when the server waits for the client to send something.
    waiting: Option<Instant>,
    /// Since when the client has read nothing of what is written.
    stalled: Option<Instant>,
    close: Arc<Notify>,
}

/// A connection's place. Given back when it is dropped.
pub(super) struct HttpConnectionPermit {
    number: u64,
    in_reserve: bool,
    shared: Arc<LimiterState>,
    close: Arc<Notify>,
    /// The answer has been handed over, but may not have been written yet.
    answered: AtomicBool,
}

impl HttpConnectionLimiter {
    /// So many places, all free.
    pub fn new(counts: ConnectionLimits) -> Self {
        HttpConnectionLimiter(Arc::new(LimiterState { counts, table: Mutex::default() }))
    }

    /// A place for a connection from `address`; `None` when there is not even one in reserve. A `proxy` stands for many
    /// clients and may have all places.
    pub fn enter(&self, address: IpAddr, proxy: bool) -> Option<HttpConnectionPermit> {
        let (address, now) = (network(address), Instant::now());
        let ConnectionLimits { all, of_one, reserve } = self.0.counts;
        let mut table = self.0.table();
        let own = |seat: &ConnectionSlot| !seat.in_reserve && seat.address == address;
        let has_place = if !proxy && table.count(own) >= of_one {
            table.close_one(own, now)
        } else {
            table.count(|seat| !seat.in_reserve) < all || table.close_one(|seat| !seat.in_reserve, now)
        };
        let in_reserve = !has_place;
        if in_reserve && table.count(|seat| seat.in_reserve) >= reserve && !table.close_one(|seat| seat.in_reserve, now)
        {
            return None;
        }
        table.last += 1;
        let (number, close) = (table.last, Arc::new(Notify::new()));
        let seat = ConnectionSlot { address, in_reserve, waiting: Some(now), stalled: None, close: Arc::clone(&close) };
        table.seats.insert(number, seat);
        drop(table);
        Some(HttpConnectionPermit {
            number,
            in_reserve,
            shared: Arc::clone(&self.0),
            close,
            answered: AtomicBool::new(false),
        })
    }

    /// Closes the connection that has been idle the longest, from any address; `false` when none has been idle for
    /// [`STALLED`]. A connection that was just accepted is kept: its request is on the way.
    pub fn close_idle(&self) -> bool {
        self.0.table().close_idle(Instant::now())
    }
}

impl LimiterState {
    fn table(&self) -> MutexGuard<'_, ConnectionTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionTable {
    fn count(&self, which: impl Fn(&ConnectionSlot) -> bool) -> usize {
        self.seats.values().filter(|seat| which(seat)).count()
    }

    fn close_idle(&mut self, now: Instant) -> bool {
        let is_new = |since: Instant| now.saturating_duration_since(since) < STALLED;
        self.close_one(|seat| !seat.waiting.is_some_and(is_new), now)
    }

    /// Closes one of `which` that keeps the server waiting, and frees its place at once; `false` when there is none.
    fn close_one(&mut self, which: impl Fn(&ConnectionSlot) -> bool, now: Instant) -> bool {
        let waits = |seat: &ConnectionSlot| {
            let stalled = seat.stalled.filter(|since| now.saturating_duration_since(*since) >= STALLED);
            seat.waiting.or(stalled)
        };
        let waiting: Vec<(u64, IpAddr, Instant)> = (self.seats.iter())
            .filter(|(_, seat)| which(seat))
            .filter_map(|(number, seat)| Some((*number, seat.address, waits(seat)?)))
            .collect();
        let mut of_address = HashMap::<IpAddr, usize>::new();
        for (_, address, _) in &waiting {
            *of_address.entry(*address).or_default() += 1;
        }
        let longest =
            waiting.iter().max_by_key(|(number, address, since)| (of_address[address], Reverse((*since, *number))));
        let closed = longest.and_then(|(number, ..)| self.seats.remove(number));
        closed.as_ref().map(|seat| seat.close.notify_one()).is_some()
    }
}

impl HttpConnectionPermit {
    /// Whether only health checks are answered here.
    pub fn in_reserve(&self) -> bool {
        self.in_reserve
    }

    /// Ends when the place is given to another connection: this one has to be closed.
    pub async fn closed(&self) {
        self.close.notified().await;
    }

    /// The client has to send something.
    pub fn waits(&self) {
        self.with(|seat| seat.waiting = Some(Instant::now()));
    }

    /// The client has sent what it had to: a request is answered.
    pub fn works(&self) {
        self.answered.store(false, Ordering::Relaxed);
        self.with(|seat| seat.waiting = None);
    }

    /// The whole answer has been handed over to be written.
    pub fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// All that was handed over has been written.
    pub fn written(&self) {
        if self.answered.swap(false, Ordering::Relaxed) {
            self.waits();
        }
    }

    /// The client does not read what is written, or reads again.
    pub fn stalls(&self, stalls: bool) {
        self.with(|seat| seat.stalled = stalls.then(Instant::now));
    }

    fn with(&self, change: impl FnOnce(&mut ConnectionSlot)) {
        if let Some(seat) = self.shared.table().seats.get_mut(&self.number) {
            change(seat);
        }
    }
}

impl Drop for HttpConnectionPermit {
    fn drop(&mut self) {
        self.shared.table().seats.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: ConnectionLimits = ConnectionLimits { all: 5, of_one: 2, reserve: 2 };

    fn busy(places: &HttpConnectionLimiter, address: &str, proxy: bool) -> Option<HttpConnectionPermit> {
        let place = places.enter(address.parse().unwrap(), proxy)?;
        place.works();
        Some(place)
    }

    /// Whether the place was taken away.
    async fn is_closed(place: &HttpConnectionPermit) -> bool {
        tokio::select! {
            biased;
            () = place.closed() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn one_address_has_its_share_and_others_have_theirs() {
        let places = HttpConnectionLimiter::new(COUNTS);
        let one = "192.0.2.1";
        let held = [busy(&places, one, false).unwrap(), busy(&places, one, false).unwrap()];
        assert!(held.iter().all(|place| !place.in_reserve()));
        // The same address, as a socket for both families gives it.
        let more = [one, "::ffff:192.0.2.1"].map(|address| busy(&places, address, false).unwrap());
        assert!(more.iter().all(HttpConnectionPermit::in_reserve), "they are told why, but nothing else");
        assert!(busy(&places, one, false).is_none());
        let networks = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"];
        let others = networks.map(|address| busy(&places, address, false).unwrap());
        assert!(others.iter().all(|place| !place.in_reserve()));
        drop((more, others));
        let neighbours = ["2001:db8::1", "2001:db8::2", "2001:db8::3"];
        let neighbours = neighbours.map(|address| busy(&places, address, false).unwrap().in_reserve());
        assert_eq!(neighbours, [false; 3], "each was given back before the next came");
        let neighbours = ["2001:db8::1", "2001:db8::2", "2001:db8::3"].map(|address| busy(&places, address, false));
        let reserved = neighbours.iter().map(|place| place.as_ref().unwrap().in_reserve());
        assert_eq!(reserved.collect::<Vec<_>>(), [false, false, true], "one client has a whole network");
        drop((held, neighbours));
        let proxy: Vec<_> = (0..5).map(|_| busy(&places, "127.0.0.1", true).unwrap()).collect();
        assert!(proxy.iter().all(|place| !place.in_reserve()), "a proxy stands for many");
        assert!(busy(&places, one, false).unwrap().in_reserve());
    }

    #[tokio::test]
    async fn the_one_that_waits_the_longest_makes_room() {
        let places = HttpConnectionLimiter::new(ConnectionLimits { all: 3, of_one: 3, reserve: 1 });
        let enter = |address: &str| places.enter(address.parse().unwrap(), false).unwrap();
        let [crowd_1, crowd_2, alone] = ["192.0.2.1", "192.0.2.1", "192.0.2.2"].map(enter);
        // Among addresses, the one that waits the most.
        alone.waits();
        let new = enter("192.0.2.3");
        assert!(!new.in_reserve());
        assert_eq!(
            [is_closed(&crowd_1).await, is_closed(&crowd_2).await, is_closed(&alone).await],
            [true, false, false]
        );
        // Who works is left alone; who is done waits again once all is written.
        crowd_2.works();
        new.works();
        crowd_2.answered();
        let fourth = enter("192.0.2.4");
        assert_eq!([is_closed(&alone).await, is_closed(&crowd_2).await], [true, false]);
        crowd_2.written();
        fourth.works();
        let fifth = enter("192.0.2.5");
        assert!(is_closed(&crowd_2).await);
        // An answer that is written while the next request is answered changes nothing.
        new.answered();
        new.works();
        new.written();
        fifth.works();
        assert!(enter("192.0.2.6").in_reserve());
        assert!(!is_closed(&new).await);
    }

    #[tokio::test]
    async fn an_address_makes_room_for_itself_only() {
        let places = HttpConnectionLimiter::new(COUNTS);
        let enter = |address: &str| places.enter(address.parse().unwrap(), false).unwrap();
        let [other, first, second] = ["192.0.2.2", "192.0.2.1", "192.0.2.1"].map(enter);
        let third = enter("192.0.2.1");
        assert!(!third.in_reserve());
        assert_eq!([is_closed(&other).await, is_closed(&first).await, is_closed(&second).await], [false, true, false]);
    }

    #[tokio::test]
    async fn who_does_not_read_makes_room_after_a_while_and_the_reserve_makes_room_for_itself() {
        let places = HttpConnectionLimiter::new(ConnectionLimits { all: 1, of_one: 1, reserve: 1 });
        let busy = busy(&places, "192.0.2.1", false).unwrap();
        let [reserved, again] = ["192.0.2.2", "192.0.2.3"].map(|address| places.enter(address.parse().unwrap(), false));
        let (reserved, again) = (reserved.unwrap(), again.unwrap());
        assert!(reserved.in_reserve() && again.in_reserve());
        assert_eq!([is_closed(&reserved).await, is_closed(&again).await, is_closed(&busy).await], [true, false, false]);
        busy.stalls(true);
        assert!(!places.0.table().close_one(|seat| !seat.in_reserve, Instant::now()), "a pause is nothing");
        assert!(places.0.table().close_one(|seat| !seat.in_reserve, Instant::now() + STALLED));
        assert!(is_closed(&busy).await);
    }

    /// Closed at once, every client would be reset while idle RTSP connections hold the descriptors.
    #[test]
    fn a_lack_of_descriptors_closes_idle_connections_but_not_new_ones() {
        let places = HttpConnectionLimiter::new(ConnectionLimits { all: 2, of_one: 2, reserve: 1 });
        let [new, working] = [1, 2].map(|n| places.enter(IpAddr::from([192, 0, 2, n]), false).unwrap());
        working.works();
        assert!(!places.close_idle(), "it came just now");
        let later = Instant::now() + STALLED;
        assert!(places.0.table().close_idle(later));
        assert!(!places.0.table().close_idle(later), "a request is being answered");
        drop((new, working));
    }
}
