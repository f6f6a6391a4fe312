//! Queues on real SQLite files.

use std::os::unix::fs::MetadataExt;

use super::*;

fn open(folder: Option<&Path>, capacity: u64) -> (EventQueue, Arc<QueueStatus>) {
    let status = Arc::new(QueueStatus::default());
    let file = folder.map(|folder| folder.join("queue.sqlite"));
    (EventQueue::open(file.as_deref(), capacity, Arc::clone(&status), "test").unwrap(), status)
}

fn push(queue: &mut EventQueue, numbers: std::ops::Range<usize>) {
    let messages: Vec<(&str, Vec<u8>)> = numbers.map(|n| ("gate", n.to_string().into_bytes())).collect();
    queue.push(&messages);
}

fn all(queue: &mut EventQueue) -> Vec<String> {
    let text = |event: QueuedEvent| String::from_utf8(event.message).unwrap();
    queue.next(&mut Cursor::default(), 1000).into_iter().map(text).collect()
}

#[test]
fn messages_remain_until_they_are_removed_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, status) = open(Some(&folder.path().join("state")), 10);
    push(&mut queue, 0..3);
    assert_eq!((queue.len(), status.waiting(), status.lost()), (3, 3, 0));
    let mut cursor = Cursor::default();
    let first = queue.next(&mut cursor, 2);
    assert_eq!(queue.next(&mut cursor, 2).len(), 1, "it continues after the first two");
    assert!(queue.next(&mut cursor, 2).is_empty());
    queue.remove(&[first[1].key]);
    drop(queue);
    let (mut queue, status) = open(Some(&folder.path().join("state")), 10);
    assert_eq!((all(&mut queue), status.waiting()), (vec!["0".to_owned(), "2".to_owned()], 2));
}

#[test]
fn the_oldest_messages_of_a_full_queue_are_lost_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    for place in [Some(folder.path()), None] {
        let (mut queue, status) = open(place, 3);
        push(&mut queue, 0..2);
        push(&mut queue, 2..5);
        assert_eq!(all(&mut queue), ["2", "3", "4"]);
        assert_eq!((queue.len(), status.waiting(), status.lost()), (3, 3, 2));
    }
}

#[test]
fn a_queue_that_cannot_be_written_continues_in_memory_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, status) = open(Some(folder.path()), 10);
    push(&mut queue, 0..1);
    assert_eq!(status.is_stored(), Some(true));
    let set = |queue: &EventQueue, text: &str| queue.disk.as_ref().unwrap().database.execute_batch(text).unwrap();
    set(&queue, "PRAGMA query_only = ON");
    push(&mut queue, 1..3);
    assert_eq!(all(&mut queue), ["0", "1", "2"]);
    assert_eq!((queue.len(), status.lost(), status.is_stored()), (3, 0, Some(false)));
    assert_eq!(queue.flush().len(), 2, "they are only in memory");
    let mut cursor = Cursor::default();
    assert_eq!(queue.next(&mut cursor, 2).len(), 2);
    // The disk can be written again: what was in memory is stored in its order, and not read twice.
    set(&queue, "PRAGMA query_only = OFF");
    push(&mut queue, 3..4);
    assert_eq!((queue.len(), queue.memory.count, status.is_stored()), (4, 0, Some(true)));
    let rest = queue.next(&mut cursor, 10);
    assert_eq!(rest.iter().map(|event| event.message.as_slice()).collect::<Vec<_>>(), [b"2", b"3"]);
    queue.remove(&[rest[0].key]);
    drop(queue);
    let (mut queue, status) = open(Some(folder.path()), 10);
    assert_eq!(
        (all(&mut queue), status.is_stored()),
        (vec!["0".to_owned(), "1".to_owned(), "3".to_owned()], Some(true))
    );
    drop(queue);
    let (mut queue, _) = open(Some(folder.path()), 10);
    set(&queue, "PRAGMA query_only = ON");
    push(&mut queue, 4..5);
    set(&queue, "PRAGMA query_only = OFF");
    assert!(queue.flush().is_empty(), "they are stored without a new message");
    assert_eq!(queue.memory.count, 0);
}

#[test]
fn a_full_queue_that_cannot_be_written_is_limited_too() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, status) = open(Some(folder.path()), 3);
    push(&mut queue, 0..2);
    queue.disk.as_ref().unwrap().database.execute_batch("PRAGMA query_only = ON").unwrap();
    push(&mut queue, 2..9);
    assert_eq!((queue.len(), status.lost()), (3, 6), "the oldest in memory are lost, as the disk cannot be written");
    assert_eq!(all(&mut queue), ["0", "1", "8"]);
}

/// The names of the files in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_that_cannot_be_opened_is_not_used() {
    let broken = tempfile::tempdir().unwrap();
    std::fs::create_dir(broken.path().join("queue.sqlite")).unwrap();
    let (mut queue, status) = open(Some(broken.path()), 10);
    push(&mut queue, 0..1);
    assert_eq!((all(&mut queue), status.is_stored()), (vec!["0".to_owned()], Some(false)));
    let (mut queue, status) = open(None, 10);
    push(&mut queue, 0..1);
    assert_eq!((all(&mut queue), status.is_stored()), (vec!["0".to_owned()], None));
}

#[test]
fn a_file_that_is_not_a_database_is_renamed() {
    let folder = tempfile::tempdir().unwrap();
    let text = "not a database, but of some length".repeat(100);
    std::fs::write(folder.path().join("queue.sqlite"), &text).unwrap();
    let (mut queue, status) = open(Some(folder.path()), 10);
    push(&mut queue, 0..1);
    assert_eq!((status.is_stored(), status.lost()), (Some(true), 0));
    drop(queue);
    let (mut queue, _) = open(Some(folder.path()), 10);
    assert_eq!(all(&mut queue), ["0"]);
    let kept = names(folder.path()).into_iter().find(|name| name.starts_with("queue-damaged-")).unwrap();
    assert_eq!(std::fs::read_to_string(folder.path().join(kept)).unwrap(), text);
}

#[test]
fn a_file_that_is_damaged_while_it_is_open_is_renamed_and_what_can_be_read_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, status) = open(Some(folder.path()), 10);
    push(&mut queue, 0..3);
    let mut cursor = Cursor::default();
    let first = queue.next(&mut cursor, 1);
    // A message that is a text cannot be read; another program has written it.
    let damage = "UPDATE event SET message = 'text' WHERE id = 2";
    queue.disk.as_ref().unwrap().database.execute_batch(damage).unwrap();
    let rest = queue.next(&mut cursor, 10);
    assert_eq!(rest.iter().map(|event| event.message.as_slice()).collect::<Vec<_>>(), [b"2"]);
    assert_eq!((status.is_stored(), status.lost(), status.waiting()), (Some(true), 1, 2));
    queue.remove(&[first[0].key]);
    drop(queue);
    let (mut queue, _) = open(Some(folder.path()), 10);
    assert_eq!(all(&mut queue), ["2"]);
    assert_eq!(names(folder.path()).iter().filter(|name| name.contains("-damaged-")).count(), 1);
    // Only once a minute.
    queue.disk.as_ref().unwrap().database.execute_batch("DROP TABLE event").unwrap();
    push(&mut queue, 3..4);
    assert_eq!((all(&mut queue), queue.memory.count), (vec!["3".to_owned()], 0));
    queue.disk.as_ref().unwrap().database.execute_batch("DROP TABLE event").unwrap();
    push(&mut queue, 4..5);
    assert_eq!((all(&mut queue), queue.memory.count), (vec!["4".to_owned()], 1));
    assert_eq!(names(folder.path()).iter().filter(|name| name.ends_with(".sqlite")).count(), 3);
}

#[test]
fn a_file_that_is_removed_is_created_again_with_what_waits() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("state");
    let (mut queue, status) = open(Some(&folder), 10);
    push(&mut queue, 0..3);
    queue.note_retained(["topic"].into_iter(), std::iter::empty());
    let mut cursor = Cursor::default();
    let first = queue.next(&mut cursor, 1);
    std::fs::remove_dir_all(&folder).unwrap();
    queue.check_now();
    assert_eq!((status.is_stored(), status.lost(), status.waiting()), (Some(true), 0, 3));
    push(&mut queue, 3..4);
    queue.remove(&[first[0].key]);
    let rest = queue.next(&mut cursor, 10);
    assert_eq!(rest.iter().map(|event| event.message[0]).collect::<Vec<_>>(), b"123", "in their order, not twice");
    // An older copy of the file, beside the log of the removed one.
    std::fs::copy(folder.join("queue.sqlite"), root.path().join("copy")).unwrap();
    std::fs::rename(root.path().join("copy"), folder.join("queue.sqlite")).unwrap();
    assert!(queue.close().is_empty(), "the stop notices it too");
    drop(queue);
    let (mut queue, _) = open(Some(&folder), 10);
    assert_eq!(all(&mut queue), ["1", "2", "3"]);
    assert_eq!(queue.retained().into_iter().collect::<Vec<_>>(), ["topic"]);
}

#[test]
fn a_queue_whose_folder_cannot_be_created_again_is_in_memory_until_it_can() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("disk/state");
    let (mut queue, status) = open(Some(&folder), 10);
    push(&mut queue, 0..2);
    std::fs::remove_dir_all(root.path().join("disk")).unwrap();
    queue.check_now();
    push(&mut queue, 2..3);
    assert_eq!((status.is_stored(), status.lost(), status.waiting()), (Some(false), 0, 3));
    assert!(!root.path().join("disk").exists(), "its disk may be missing");
    std::fs::create_dir(root.path().join("disk")).unwrap();
    queue.check_now();
    assert_eq!((status.is_stored(), queue.memory.count), (Some(true), 0));
    std::fs::remove_dir_all(root.path().join("disk")).unwrap();
    assert_eq!(queue.close().len(), 3, "they are lost when the process ends");
    assert_eq!(status.is_stored(), Some(false));
}

#[test]
fn a_file_that_another_process_uses_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let (mut first, _) = open(Some(folder.path()), 10);
    push(&mut first, 0..1);
    let (mut second, status) = open(Some(folder.path()), 10);
    push(&mut second, 1..2);
    assert_eq!((all(&mut second), status.is_stored()), (vec!["1".to_owned()], Some(false)));
    let file = folder.path().join("queue.sqlite");
    let error = EventQueue::open_unchanged(&file, "test").unwrap_err();
    assert!(error.to_string().contains("queue.sqlite: another process uses it"), "{error}");
    assert_eq!(all(&mut first), ["0"]);
    // It remains in memory: what the other leaves in the file is not its own.
    first.close();
    assert_eq!(second.flush().len(), 1);
    drop(second);
    assert_eq!(all(&mut EventQueue::open_unchanged(&file, "test").unwrap()), ["0"]);
}

#[test]
fn other_users_cannot_read_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(Some(folder.path()), 10);
    push(&mut queue, 0..1);
    let mode = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().mode() & 0o777;
    let found: Vec<(String, u32)> = names(folder.path()).into_iter().map(|name| (name.clone(), mode(&name))).collect();
    let files = ["queue.lock", "queue.sqlite", "queue.sqlite-shm", "queue.sqlite-wal"];
    assert_eq!(found, files.map(|name| (name.to_owned(), 0o600)));
}

#[test]
fn retained_topics_are_known_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(Some(folder.path()), 3);
    queue.note_retained(["a", "b", "a"].into_iter(), std::iter::empty());
    queue.note_retained(["c"].into_iter(), ["a"].into_iter());
    drop(queue);
    let (queue, _) = open(Some(folder.path()), 3);
    assert_eq!(queue.retained().into_iter().collect::<Vec<_>>(), ["b", "c"]);
}
