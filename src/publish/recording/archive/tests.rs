use super::*;

fn archive(dir: &Path, change: impl FnOnce(&mut RecordConfig)) -> Archive {
    let mut config = RecordConfig::to(dir);
    change(&mut config);
    Archive::new("gate", config)
}

fn put(dir: &Path, files: &[&str]) {
    for file in files {
        std::fs::write(dir.join(file), [0; 100]).unwrap();
    }
}

fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = std::fs::read_dir(dir).unwrap().map(name).collect();
    names.sort();
    names
}

/// A disk that hangs in the middle of a change holds up neither metrics nor the list of streams.
#[test]
fn what_is_known_is_told_while_the_disk_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(folder.path(), |_| {});
    archive.open("2020-01-04T00:00:00Z".parse().unwrap(), None).unwrap();
    let _changing = lock(&archive.changing);
    archive.grown(2.0, 50);
    assert_eq!(archive.usage(), (1, 50));
    assert!(archive.is_open("gate-20200104T000000Z.mp4"));
    archive.closed(true);
    assert_eq!(archive.usage(), (1, 50));
}

#[test]
fn room_is_what_min_free_leaves() {
    let folder = tempfile::tempdir().unwrap();
    assert!(archive(folder.path(), |_| {}).has_room(1));
    assert!(!archive(folder.path(), |_| {}).has_room(u64::MAX));
    assert!(!archive(folder.path(), |config| config.min_free = Some(u64::MAX - 1)).has_room(1));
}

const OLD: &str = "gate-20200101T000000Z.mp4";
const OTHERS: [&str; 4] =
    ["gate-2-20200101T000000Z.mp4", "gate-20200101T000000Z.txt", "notes.txt", "yard-20200101T000000Z.mp4"];

#[test]
fn only_the_streams_own_recordings_are_removed_and_never_the_open_one() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), &OTHERS);
    put(folder.path(), &[OLD, "gate-20200102T000000Z-visit.mkv"]);
    std::fs::create_dir(folder.path().join("gate-20200103T000000Z.mp4")).unwrap();
    let archive = archive(folder.path(), |config| config.max_age = Some(std::time::Duration::from_secs(60)));
    let open = archive.open("2020-01-04T00:00:00Z".parse().unwrap(), None).unwrap();
    std::fs::write(&open, [0; 50]).unwrap();
    archive.grown(2.0, 50);
    archive.tidy().unwrap();
    let mut left = OTHERS.map(str::to_owned).to_vec();
    left.extend(["gate-20200103T000000Z.mp4".into(), "gate-20200104T000000Z.mp4".into()]);
    left.sort();
    assert_eq!(names(folder.path()), left);
    assert_eq!(archive.usage(), (1, 50));
    assert_eq!(archive.removed().map(|(_, count)| count), [2, 0, 0, 0]);
    archive.closed(true);
    assert_eq!(archive.usage(), (1, 50));
    // The clock was wrong when it began, and has been set since: it is not years old.
    archive.tidy().unwrap();
    assert_eq!((archive.usage(), archive.removed()[0].1), ((1, 50), 2));
    // Another process knows its name only.
    let archive = Archive::new("gate", archive.config().clone());
    archive.tidy().unwrap();
    assert_eq!((archive.usage(), archive.removed()[0].1), ((0, 0), 1));
}

/// Two services on one folder, as happens when a configuration is copied.
#[test]
fn what_another_writes_is_neither_removed_nor_taken_for_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let limits = |config: &mut RecordConfig| config.max_size = Some(10);
    let (ours, theirs) = (archive(folder.path(), limits), archive(folder.path(), limits));
    let start = "2020-01-04T00:00:00Z".parse().unwrap();
    let open = theirs.open(start, None).unwrap();
    let second = ours.open(start, None).unwrap();
    assert_ne!(second, open);
    for file in [open, second] {
        std::fs::write(file, [0; 100]).unwrap();
    }
    ours.closed(true);
    ours.tidy().unwrap();
    assert_eq!(names(folder.path()), ["gate-20200104T000000Z.mp4"]);
    assert!(matches!(ours.remove("gate-20200104T000000Z.mp4"), Err(RemoveError::Open)));
    theirs.closed(true);
    ours.tidy().unwrap();
    assert_eq!(names(folder.path()), [] as [&str; 0]);
}

#[test]
fn a_disk_without_room_is_an_error_once_the_recordings_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), &[OLD]);
    let archive = archive(folder.path(), |config| config.min_free = Some(1 << 60));
    let error = archive.tidy().unwrap_err().0;
    assert!(error.contains("less than min_free (1.2 EB)"), "{error}");
    assert_eq!(names(folder.path()), [] as [&str; 0]);
    assert_eq!(archive.removed()[Removal::Space as usize], (Removal::Space, 1));
}

#[test]
fn recordings_are_removed_on_request() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), &[OLD, "notes.txt"]);
    let archive = archive(folder.path(), |_| {});
    archive.tidy().unwrap();
    assert_eq!(archive.usage(), (1, 100));
    for file in ["notes.txt", "gate-20200101T000001Z.mp4", "../gate-20200101T000000Z.mp4", ""] {
        assert!(matches!(archive.remove(file), Err(RemoveError::Unknown)), "{file}");
    }
    let open = archive.open("2020-01-04T00:00:00Z".parse().unwrap(), Some("visit")).unwrap();
    let file = open.file_name().unwrap().to_str().unwrap();
    assert_eq!(file, "gate-20200104T000000Z-visit.mp4");
    assert!(matches!(archive.remove(file), Err(RemoveError::Open)));
    archive.remove(OLD).unwrap();
    assert!(matches!(archive.remove(OLD), Err(RemoveError::Unknown)));
    assert_eq!((archive.usage(), archive.removed()[Removal::Request as usize].1), ((1, 0), 1));
    assert_eq!(names(folder.path()), [file, "notes.txt"]);
}

#[test]
fn a_name_that_is_taken_gets_a_number() {
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(folder.path(), |_| {});
    let start = "2026-11-24T10:15:00Z".parse().unwrap();
    for file in ["gate-20261124T101500Z.mp4", "gate-20261124T101500Z-2.mp4", "gate-20261124T101500Z-3.mp4"] {
        let path = archive.open(start, None).unwrap();
        assert_eq!(path, folder.path().join(file));
    }
}

#[test]
fn the_newest_are_listed_first_page_by_page() {
    let folder = tempfile::tempdir().unwrap();
    let file = |day: usize| format!("gate-202601{day:02}T000000Z.mkv");
    let files: Vec<String> = (1..=5).map(file).collect();
    put(folder.path(), &files.iter().map(String::as_str).collect::<Vec<_>>());
    put(folder.path(), &OTHERS);
    #[cfg(unix)]
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join(file(9))).unwrap();
    let archive = archive(folder.path(), |_| {});
    let page = |before: Option<&str>, limit| -> Vec<String> {
        let before = before.map(|before| archive.parse(before).unwrap());
        archive.list(before.as_ref(), limit).unwrap().into_iter().map(|recording| recording.file).collect()
    };
    assert_eq!(page(None, 2), [file(5), file(4)]);
    assert_eq!(page(Some(&file(4)), 2), [file(3), file(2)]);
    assert_eq!(page(Some(&file(2)), 2), [file(1)]);
    assert_eq!(page(Some(&file(1)), 2), [] as [String; 0]);
    assert_eq!(archive.path_of(&file(9)), None, "a link");
    assert_eq!(archive.path_of(&file(1)), Some(folder.path().join(file(1))));
    let gone = Archive::new("gate", RecordConfig::to(folder.path().join("none")));
    assert_eq!(gone.list(None, 5).unwrap().len(), 0);
}
