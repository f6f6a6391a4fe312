use super::*;

fn archive(dir: &Path, change: impl FnOnce(&mut RecordConfig)) -> Archive {
    let mut config = RecordConfig::to(dir);
    change(&mut config);
    Archive::new("gate", config)
}

/// Creates files of 100 bytes.
fn create_files(dir: &Path, files: &[&str]) {
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

/// A disk that hangs during a change blocks neither the metrics nor the list of streams.
#[test]
fn usage_can_be_read_while_the_disk_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(folder.path(), |_| {});
    archive.open("2020-01-04T00:00:00Z".parse().unwrap(), None).unwrap();
    let _changing = archive.changing.lock();
    archive.update_open(2.0, 50);
    assert_eq!(archive.usage(), (1, 50));
    assert!(archive.is_open("gate-20200104T000000Z.mp4"));
    archive.finish_open(true);
    assert_eq!(archive.usage(), (1, 50));
}

#[test]
fn the_recording_that_shows_a_time_is_found_with_the_second_in_it() {
    let folder = tempfile::tempdir().unwrap();
    create_files(folder.path(), &["gate-20200101T000000Z.mp4"]);
    let archive = archive(folder.path(), |_| {});
    archive.open("2020-01-04T00:00:00Z".parse().unwrap(), None).unwrap();
    archive.update_open(30.0, 50);
    let times = ["03T23:59:57", "03T23:59:58.5", "04T00:00:10.25", "04T00:00:30.75", "04T00:00:32"];
    let times = times.map(|time| format!("2020-01-{time}Z").parse().unwrap());
    std::fs::write(folder.path().join("gate-20200104T000000Z.mp4"), "").unwrap();
    let shown = archive.showing(&times).unwrap();
    let seconds: Vec<Option<f64>> = shown.iter().map(|shown| shown.as_ref().map(|(_, second)| *second)).collect();
    assert_eq!(seconds, [None, Some(0.0), Some(10.25), Some(30.0), None]);
    assert_eq!(shown[1].as_ref().unwrap().0.file, "gate-20200104T000000Z.mp4");
}

#[test]
fn has_room_respects_min_free() {
    let folder = tempfile::tempdir().unwrap();
    assert!(archive(folder.path(), |_| {}).has_room(1));
    assert!(!archive(folder.path(), |_| {}).has_room(u64::MAX));
    assert!(!archive(folder.path(), |config| config.min_free = Some(u64::MAX - 1)).has_room(1));
}

const OLD: &str = "gate-20200101T000000Z.mp4";
const OTHER_FILES: [&str; 4] =
    ["gate-2-20200101T000000Z.mp4", "gate-20200101T000000Z.txt", "notes.txt", "yard-20200101T000000Z.mp4"];

#[test]
fn retention_removes_only_recordings_of_the_stream_and_never_the_open_one() {
    let folder = tempfile::tempdir().unwrap();
    create_files(folder.path(), &OTHER_FILES);
    create_files(folder.path(), &[OLD, "gate-20200102T000000Z-visit.mkv"]);
    std::fs::create_dir(folder.path().join("gate-20200103T000000Z.mp4")).unwrap();
    let archive = archive(folder.path(), |config| config.max_age = Some(std::time::Duration::from_secs(60)));
    let open = archive.open("2020-01-04T00:00:00Z".parse().unwrap(), None).unwrap();
    std::fs::write(&open, [0; 50]).unwrap();
    archive.update_open(2.0, 50);
    archive.apply_retention().unwrap();
    let mut left = OTHER_FILES.map(str::to_owned).to_vec();
    left.extend(["gate-20200103T000000Z.mp4".into(), "gate-20200104T000000Z.mp4".into()]);
    left.sort();
    assert_eq!(names(folder.path()), left);
    assert_eq!(archive.usage(), (1, 50));
    assert_eq!(archive.removed().map(|(_, count)| count), [2, 0, 0, 0]);
    archive.finish_open(true);
    assert_eq!(archive.usage(), (1, 50));
    // The name has a date in the past, as if the clock had been wrong: the file was started only now.
    archive.apply_retention().unwrap();
    assert_eq!((archive.usage(), archive.removed()[0].1), ((1, 50), 2));
    // Another process derives the age from the name only.
    let archive = Archive::new("gate", archive.config().clone());
    archive.apply_retention().unwrap();
    assert_eq!((archive.usage(), archive.removed()[0].1), ((0, 0), 1));
}

/// Two services record to one folder, for example because a configuration was copied.
#[test]
fn a_file_that_another_process_writes_is_neither_removed_nor_reused() {
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
    ours.finish_open(true);
    ours.apply_retention().unwrap();
    assert_eq!(names(folder.path()), ["gate-20200104T000000Z.mp4"]);
    assert!(matches!(ours.remove("gate-20200104T000000Z.mp4"), Err(RemoveError::Open)));
    theirs.finish_open(true);
    ours.apply_retention().unwrap();
    assert_eq!(names(folder.path()), [] as [&str; 0]);
}

#[test]
fn too_little_space_without_recordings_to_remove_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    create_files(folder.path(), &[OLD]);
    let archive = archive(folder.path(), |config| config.min_free = Some(1 << 60));
    let error = archive.apply_retention().unwrap_err();
    assert_eq!(error.path, folder.path());
    assert!(
        matches!(error.kind, RecordingErrorKind::BelowMinFree { free, min_free } if free < min_free && min_free == 1 << 60),
        "{error}"
    );
    assert_eq!(names(folder.path()), [] as [&str; 0]);
    assert_eq!(archive.removed()[Removal::Space as usize], (Removal::Space, 1));
}

#[test]
fn a_recording_is_removed_on_request() {
    let folder = tempfile::tempdir().unwrap();
    create_files(folder.path(), &[OLD, "notes.txt"]);
    let archive = archive(folder.path(), |_| {});
    archive.apply_retention().unwrap();
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
fn a_name_that_exists_gets_a_number() {
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(folder.path(), |_| {});
    let start = "2026-11-24T10:15:00Z".parse().unwrap();
    for file in ["gate-20261124T101500Z.mp4", "gate-20261124T101500Z-2.mp4", "gate-20261124T101500Z-3.mp4"] {
        let path = archive.open(start, None).unwrap();
        assert_eq!(path, folder.path().join(file));
    }
}

#[test]
fn recordings_are_listed_in_pages_from_the_newest_to_the_oldest() {
    let folder = tempfile::tempdir().unwrap();
    let file = |day: usize| format!("gate-202601{day:02}T000000Z.mkv");
    let files: Vec<String> = (1..=5).map(file).collect();
    create_files(folder.path(), &files.iter().map(String::as_str).collect::<Vec<_>>());
    create_files(folder.path(), &OTHER_FILES);
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
    assert_eq!(archive.path_of(&file(9)), None, "a symbolic link");
    assert_eq!(archive.path_of(&file(1)), Some(folder.path().join(file(1))));
    let without_folder = Archive::new("gate", RecordConfig::to(folder.path().join("none")));
    assert_eq!(without_folder.list(None, 5).unwrap().len(), 0);
}
