use std::io;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::collect::error::LabelError;
use crate::frame::Rgb;

const SIZE: (u32, u32) = (3, 2);

fn labels() -> Vec<Label> {
    vec![Label::new("background", Rgb(0, 0, 0)), Label::new("person", Rgb(220, 20, 60))]
}

fn time(second: i64) -> Timestamp {
    // A fixed second of the present day, so that records are not old.
    Timestamp::from_second(Timestamp::now().as_second() / 86_400 * 86_400 + second).unwrap()
}

fn add(collection: &Collection, second: i64) -> FrameRecord {
    let frame = NewFrame {
        stream: "gate",
        captured: time(second),
        model: CollectedModel { name: "everyday".into(), sha256: "ab".repeat(32) },
        reason: Reason::Novel,
        uncertainty: 0.25,
        novelty: 0.5,
        confidence: Some(0.75),
        width: SIZE.0,
        height: SIZE.1,
        hash: "00ff00ff00ff00ff".into(),
        thumbnail: vec![1, 2, 3],
        jpeg: b"JPEG",
        mask: &[0, 1, 1, 0, 0, 255],
        labels: &labels(),
    };
    collection.add(&frame).unwrap()
}

fn label_of(pixels: &[u8]) -> Vec<u8> {
    label_png::encode(pixels, SIZE.0, SIZE.1, &[0; 768]).unwrap()
}

fn pixels_of(png: &[u8]) -> Vec<u8> {
    label_png::decode(png, SIZE.0, SIZE.1, 2).unwrap()
}

fn list(folder: &Path, name: &str) -> Vec<String> {
    let text = fs::read_to_string(folder.join("ImageSets/Segmentation").join(format!("{name}.txt"))).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_frame_has_all_files_of_the_layout_and_is_the_same_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let collection = Collection::open(&path).unwrap();
    let (first, second) = (add(&collection, 10), add(&collection, 10));
    assert_eq!(second.id.as_str(), format!("{}-2", first.id));
    let expected = [
        format!("JPEGImages/{}.jpg", first.id),
        format!("SegmentationClass/{}.png", first.id),
        format!("Proposals/{}.png", first.id),
        format!("Frames/{}.json", first.id),
        "labelmap.txt".into(),
    ];
    assert!(expected.iter().all(|file| path.join(file).is_file()), "{expected:?}");
    assert_eq!(fs::read_dir(path.join("Frames")).unwrap().count(), 2, "a mark of an unfinished frame is left");
    assert_eq!(list(&path, "proposed"), [first.id.to_string(), second.id.to_string()]);
    assert_eq!(list(&path, "accepted"), [""; 0]);
    let mode = fs::metadata(path.join(&expected[0])).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "others can read the picture of the camera");

    let again = Collection::open(&path).unwrap();
    assert_eq!(again.frames(), [second.clone(), first.clone()], "newest first");
    assert_eq!(again.frames(), collection.frames());
    assert_eq!(again.problems(), []);
    assert_eq!(again.size(), collection.size());
    assert_eq!(again.thumbnails()[0].1, [1, 2, 3]);
    assert_eq!((again.collected_since(time(0)), again.collected_since(time(11))), (2, 0));
    assert_eq!(again.image(&first.id).unwrap(), b"JPEG");
    let (label, revision) = again.label(&first.id).unwrap();
    assert_eq!((pixels_of(&label), revision), (vec![0, 1, 1, 0, 0, VOID], 0));
    assert_eq!(again.proposal(&first.id).unwrap(), label);
    assert_eq!(again.classes()[1].name, "person");
}

#[test]
fn a_label_is_saved_only_with_the_current_revision() {
    let folder = tempfile::tempdir().unwrap();
    let collection = Collection::open(folder.path()).unwrap();
    let id = add(&collection, 1).id;
    let saved = collection.save_label(&id, &label_of(&[1; 6]), 0).unwrap();
    assert_eq!((saved.revision, saved.state), (1, FrameState::New));
    match collection.save_label(&id, &label_of(&[0; 6]), 0) {
        Err(SaveError::Conflict { current }) => assert_eq!(*current, saved),
        other => panic!("{other:?}"),
    }
    for (pixels, what) in [(label_of(&[7; 6]), "class"), (b"x".to_vec(), "file")] {
        let refused = collection.save_label(&id, &pixels, 1);
        assert!(matches!(refused, Err(SaveError::Label(LabelError::Class { .. } | LabelError::Png(_)))), "{what}");
    }
    let again = Collection::open(folder.path()).unwrap();
    assert_eq!(again.frames(), [saved]);
    let (label, revision) = again.label(&id).unwrap();
    assert_eq!((pixels_of(&label), revision), (vec![1; 6], 1));
    assert_eq!(pixels_of(&again.proposal(&id).unwrap()), [0, 1, 1, 0, 0, VOID], "the proposal stays");
}

#[test]
fn of_two_editors_that_save_at_once_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let collection = Collection::open(folder.path()).unwrap();
    let id = add(&collection, 1).id;
    for round in 0..8 {
        let saves: Vec<_> = std::thread::scope(|scope| {
            let save = |class| collection.save_label(&id, &label_of(&[class; 6]), round);
            let threads: Vec<_> = [0, 1].into_iter().map(|class| scope.spawn(move || save(class).is_ok())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(saves.iter().filter(|saved| **saved).count(), 1);
        let winner = saves.iter().position(|saved| *saved).unwrap() as u8;
        assert_eq!(pixels_of(&collection.label(&id).unwrap().0), [winner; 6]);
    }
}

#[test]
fn accepted_frames_change_the_list_and_discarded_ones_lose_their_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let collection = Collection::open(folder.path()).unwrap();
    let ids: Vec<FrameId> = (1..=3).map(|second| add(&collection, second).id).collect();
    collection.set_state(&ids[0], FrameState::Accepted, 0).unwrap();
    collection.set_state(&ids[1], FrameState::Later, 0).unwrap();
    collection.set_state(&ids[2], FrameState::Discarded, 0).unwrap();
    assert_eq!(list(folder.path(), "accepted"), [ids[0].to_string()]);
    assert_eq!(list(folder.path(), "proposed"), [ids[1].to_string()]);
    assert!(matches!(collection.image(&ids[2]), Err(CollectionError::Discarded { .. })));
    let restored = collection.set_state(&ids[2], FrameState::New, 0);
    assert!(matches!(restored, Err(SaveError::Collection(CollectionError::Discarded { .. }))));
    for picture in Picture::ALL {
        assert!(!collection.files.picture(&ids[2], picture).exists());
    }
    let size = collection.size();
    assert_eq!((size.new, size.later, size.accepted, size.discarded), (0, 1, 1, 1));
    assert_eq!(collection.collected_since(time(0)), 3, "a discarded frame counts");
    collection.forget_old(Timestamp::now() + SignedDuration::from_hours(31 * 24));
    assert_eq!(collection.frames().len(), 2, "its record is deleted after 30 days");
    assert_eq!(Collection::open(folder.path()).unwrap().frames(), collection.frames());
}

#[test]
fn frames_of_a_person_are_not_deleted_for_space() {
    let folder = tempfile::tempdir().unwrap();
    let collection = Collection::open(folder.path()).unwrap();
    let ids: Vec<FrameId> = (1..=3).map(|second| add(&collection, second).id).collect();
    collection.set_state(&ids[0], FrameState::Accepted, 0).unwrap();
    collection.save_label(&ids[1], &label_of(&[0; 6]), 0).unwrap();
    let before = collection.size().bytes;
    let evicted: Vec<bool> = ids.iter().map(|id| collection.evict(id).unwrap()).collect();
    assert_eq!(evicted, [false, false, true]);
    assert!(collection.size().bytes < before);
    assert!(collection.frame(&ids[2]).unwrap().evicted);
    assert!(!collection.evict(&ids[2]).unwrap());
}

#[test]
fn what_a_killed_process_has_left_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let collection = Collection::open(path).unwrap();
    let (kept, gone) = (add(&collection, 1), add(&collection, 2));
    // Killed before the record was written, before the mark was deleted, before pictures of a discarded frame were deleted.
    let unfinished = FrameId::new(time(3), 1);
    fs::write(path.join(format!("Frames/{unfinished}.unfinished")), "").unwrap();
    fs::write(path.join(format!("JPEGImages/{unfinished}.jpg")), "JP").unwrap();
    fs::write(path.join("SegmentationClass/.maskcast-abc.part"), "half").unwrap();
    fs::write(path.join(format!("Frames/{}.unfinished", kept.id)), "").unwrap();
    collection.set_state(&gone.id, FrameState::Discarded, 0).unwrap();
    fs::write(path.join(format!("JPEGImages/{}.jpg", gone.id)), "JPEG").unwrap();
    fs::write(path.join("ImageSets/Segmentation/proposed.txt"), "").unwrap();

    let again = Collection::open(path).unwrap();
    assert_eq!(again.problems(), []);
    assert_eq!(again.image(&kept.id).unwrap(), b"JPEG");
    assert_eq!(list(path, "proposed"), [kept.id.to_string()]);
    let left: Vec<_> = ["JPEGImages", "SegmentationClass", "Proposals"]
        .map(|name| fs::read_dir(path.join(name)).unwrap().count())
        .into();
    assert_eq!(left, [1, 1, 1]);
}

#[test]
fn damaged_and_foreign_files_are_reported_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let collection = Collection::open(path).unwrap();
    let ids: Vec<FrameId> = (1..=3).map(|second| add(&collection, second).id).collect();
    fs::write(path.join(format!("Frames/{}.json", ids[0])), "{\"id\": ").unwrap();
    fs::remove_file(path.join(format!("JPEGImages/{}.jpg", ids[1]))).unwrap();
    fs::write(path.join("JPEGImages/holiday.jpg"), "JPEG").unwrap();
    let again = Collection::open(path).unwrap();
    let problems = again.problems();
    let named: Vec<String> =
        problems.iter().map(|problem| problem.path.strip_prefix(path).unwrap().display().to_string()).collect();
    let expected =
        [format!("Frames/{}.json", ids[0]), format!("JPEGImages/{}.jpg", ids[1]), "JPEGImages/holiday.jpg".into()];
    assert_eq!(named, expected, "{problems:?}");
    assert_eq!(again.frames().len(), 1);
    assert_eq!(list(path, "proposed"), [ids[2].to_string()]);
    assert!(path.join(format!("JPEGImages/{}.jpg", ids[0])).exists(), "pictures of a damaged record are deleted");
}

#[test]
fn a_folder_with_other_content_or_without_its_class_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mine = folder.path().join("voc");
    fs::create_dir_all(mine.join("JPEGImages")).unwrap();
    assert!(matches!(Collection::open(&mine), Err(CollectionError::Foreign { .. })));
    let path = folder.path().join("gate");
    let collection = Collection::open(&path).unwrap();
    add(&collection, 1);
    fs::write(path.join("labelmap.txt"), "person\n").unwrap();
    let error = Collection::open(&path).unwrap_err().to_string();
    assert!(error.contains("line 1") && error.contains("restore the file"), "{error}");
    fs::remove_file(path.join("labelmap.txt")).unwrap();
    assert!(matches!(Collection::open(&path), Err(CollectionError::Classes { .. })));
}

#[test]
fn a_frame_that_cannot_be_written_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let collection = Collection::open(folder.path()).unwrap();
    add(&collection, 1);
    // A folder in the place of the list: it cannot be replaced by a file, also by root.
    let list = folder.path().join("ImageSets/Segmentation/proposed.txt");
    fs::remove_file(&list).unwrap();
    fs::create_dir_all(list.join("x")).unwrap();
    let frame = NewFrame {
        stream: "gate",
        captured: time(2),
        model: CollectedModel { name: "m".into(), sha256: String::new() },
        reason: Reason::Random,
        uncertainty: 0.0,
        novelty: 0.0,
        confidence: None,
        width: 1,
        height: 1,
        hash: String::new(),
        thumbnail: Vec::new(),
        jpeg: b"JPEG",
        mask: &[0],
        labels: &labels(),
    };
    let error = collection.add(&frame).unwrap_err();
    assert!(error.to_string().contains("proposed.txt"), "{error}");
    assert_eq!((collection.frames().len(), fs::read_dir(folder.path().join("JPEGImages")).unwrap().count()), (1, 1));
    assert!(!error.is_full_disk());
    let full = CollectionError::file(&list)(io::Error::from(io::ErrorKind::StorageFull));
    assert!(full.is_full_disk());
}
