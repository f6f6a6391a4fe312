//! The dead-letter file: messages that were not delivered, one JSON object a line.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

use super::delivery::Delivery;
use crate::base::log_dedup;

/// The name of the file in the state directory.
const NAME: &str = "webhook-dead.jsonl";

/// Where the file is moved when it is full. The file that was there is replaced.
const OLDER: &str = "webhook-dead.1.jsonl";

/// Maximum size of each of the two files in bytes.
const MAX_SIZE: u64 = 5_000_000;

/// The dead-letter file of all webhooks.
#[derive(Debug)]
pub(super) struct DeadLetters {
    /// `None`: there is no state directory, and the messages are only counted and logged.
    folder: Option<PathBuf>,
    max_size: u64,
    lock: Mutex<()>,
}

/// A line of the file. It has no address, because that may contain a secret.
#[derive(Serialize)]
struct DeadLetter<'a> {
    /// Name of the webhook.
    webhook: &'a str,
    /// When the message was given up.
    given_up: String,
    reason: &'a str,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_problem: Option<&'a str>,
    attempts: u32,
    message: &'a Value,
}

impl DeadLetters {
    /// The file in the state directory.
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        DeadLetters { folder, max_size: MAX_SIZE, lock: Mutex::default() }
    }

    /// Appends a message. An error is logged.
    pub(super) fn write(&self, webhook: &str, delivery: &Delivery, reason: &str) {
        let Some(folder) = &self.folder else { return };
        let message = serde_json::from_str(&delivery.message.body).unwrap_or_default();
        let letter = DeadLetter {
            webhook,
            given_up: format!("{:.3}", Timestamp::now()),
            reason,
            last_problem: delivery.problem.as_deref(),
            attempts: delivery.attempts,
            message: &message,
        };
        if let Err(error) = self.append(folder, &letter) {
            let text = format!("dead-letter file of webhooks not written: {}: {error}", folder.join(NAME).display());
            log_dedup::error("", "webhook", None, &text);
        }
    }

    fn append(&self, folder: &Path, letter: &DeadLetter) -> io::Result<()> {
        let mut line = serde_json::to_vec(letter)?;
        line.push(b'\n');
        let _lock = self.lock.lock();
        let path = folder.join(NAME);
        let size = path.metadata().map_or(0, |metadata| metadata.len());
        if size > 0 && size + line.len() as u64 > self.max_size {
            std::fs::rename(&path, folder.join(OLDER))?;
        }
        File::options().create(true).append(true).mode(0o640).open(&path)?.write_all(&line)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::pending::Pending;
    use super::super::tests::message;
    use super::*;
    use crate::events::EventHub;

    #[test]
    fn the_newest_dead_letters_are_kept_in_two_files_of_limited_size() {
        let folder = tempfile::tempdir().unwrap();
        let letters = DeadLetters { max_size: 2000, ..DeadLetters::new(Some(folder.path().to_path_buf())) };
        let pending = Pending::open("alarm", EventHub::default().queue(), None, &Arc::new(letters)).unwrap();
        let messages: Vec<_> = (0..40).map(|n| message("gate", "blocked", &n.to_string())).collect();
        pending.add(&messages);
        pending.give_up_all("HTTP 400");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let (older, newer) = (read(OLDER), read(NAME));
        assert!(older.len() <= 2000 && newer.len() <= 2000);
        let all = older + &newer;
        let ids = all.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!((&line["webhook"], &line["reason"]), (&"alarm".into(), &"HTTP 400".into()));
            line["message"]["id"].as_str().unwrap().parse::<u32>().unwrap()
        });
        let ids: Vec<u32> = ids.collect();
        assert!(ids.len() > 4, "{ids:?}");
        assert_eq!(ids, (40 - ids.len() as u32..40).collect::<Vec<_>>(), "the newest, in order");
    }
}
