//! A message in a queue.

/// Identifies a message in its queue. The order of keys is the order of the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey(pub(super) i64);

/// A message to store: its key, the name of its stream, and its JSON object.
pub(super) type NewEvent<'a> = (EventKey, &'a str, &'a [u8]);

/// A message about an event that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedEvent {
    pub key: EventKey,
    pub stream: String,
    /// The JSON object of the message.
    pub message: Vec<u8>,
}

impl QueuedEvent {
    /// The message as it is stored.
    pub(super) fn row(&self) -> NewEvent<'_> {
        (self.key, &self.stream, &self.message)
    }
}
