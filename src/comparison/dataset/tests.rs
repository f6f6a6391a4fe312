//! Tests of the reader of data sets.

use super::*;

/// A palette PNG, or a grey one without a palette.
fn png(values: &[u8], width: u32, palette: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, values.len() as u32 / width);
    encoder.set_color(if palette.is_some() { png::ColorType::Indexed } else { png::ColorType::Grayscale });
    encoder.set_depth(png::BitDepth::Eight);
    if let Some(palette) = palette {
        encoder.set_palette(palette.to_vec());
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(values).unwrap();
    writer.finish().unwrap();
    bytes
}

fn palette(colors: &[(usize, [u8; 3])]) -> Vec<u8> {
    let mut palette = vec![0; 768];
    for (index, color) in colors {
        palette[3 * index..][..3].copy_from_slice(color);
    }
    palette
}

/// A collection with three images, of which two are accepted.
fn collection(root: &Path, label: &[u8]) {
    for folder in ["JPEGImages", "SegmentationClass", LISTS] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for name in ["a", "b", "c"] {
        fs::write(root.join(format!("JPEGImages/{name}.jpg")), "").unwrap();
        fs::write(root.join(format!("SegmentationClass/{name}.png")), label).unwrap();
    }
    fs::write(root.join(LISTS).join(ACCEPTED), "a\nc\n").unwrap();
    fs::write(root.join(LISTS).join(PROPOSED), "b\n").unwrap();
    fs::write(root.join("labelmap.txt"), "# label:color_rgb:parts:actions\nroad:1,2,3::\ncar:4,5,6::\n").unwrap();
}

#[test]
fn of_a_collection_the_accepted_images_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let label = png(&[0, 1, VOID, 1], 2, Some(&palette(&[(0, [1, 2, 3]), (1, [4, 5, 6])])));
    collection(folder.path(), &label);
    let data = Dataset::open(folder.path(), None).unwrap();
    assert_eq!(data.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(data.classes.iter().map(|class| class.name.as_str()).collect::<Vec<_>>(), ["road", "car"]);
    let label = data.label(&data.files[0]).unwrap();
    assert_eq!((label.width, label.height, label.values), (2, 2, vec![0, 1, VOID, 1]));
    let list = folder.path().join("held-out.txt");
    fs::write(&list, "b\nJPEGImages/b.jpg\n").unwrap();
    assert_eq!(Dataset::open(folder.path(), Some(&list)).unwrap().files.len(), 1);
    fs::write(&list, "b\nd\n").unwrap();
    let error = Dataset::open(folder.path(), Some(&list)).unwrap_err().to_string();
    assert!(error.contains("held-out.txt:2: there is no image \"d\""), "{error}");
    fs::write(folder.path().join(LISTS).join(ACCEPTED), "").unwrap();
    let error = Dataset::open(folder.path(), None).unwrap_err().to_string();
    assert!(error.contains("no image is accepted"), "{error}");
}

#[test]
fn labels_that_may_mean_something_else_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (label, expected) in [
        (png(&[0, 1], 2, Some(&palette(&[(0, [1, 2, 3]), (1, [9, 9, 9])]))), "another colour for class car"),
        (png(&[0, 7], 2, None), "a pixel has the value 7, but the data set has 2 classes (0 to 1; 255 is void)"),
    ] {
        collection(folder.path(), &label);
        let data = Dataset::open(folder.path(), None).unwrap();
        let error = data.label(&data.files[0]).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("a.png"), "{error}");
    }
}

#[test]
fn the_class_of_void_in_an_export_for_cvat_is_void() {
    let folder = tempfile::tempdir().unwrap();
    collection(folder.path(), &png(&[0, 1, 2], 3, None));
    fs::write(folder.path().join("labelmap.txt"), "void:0,0,0::\nroad:1,2,3::\ncar:4,5,6::\n").unwrap();
    let data = Dataset::open(folder.path(), None).unwrap();
    assert_eq!(data.label(&data.files[0]).unwrap().values, [VOID, 1, 2]);
}

#[test]
fn the_plain_layout_is_read_and_others_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("val");
    for inner in ["images", "masks"] {
        fs::create_dir_all(root.join(inner)).unwrap();
    }
    fs::write(root.join("images/a.JPG"), "").unwrap();
    fs::write(root.join("images/without-label.jpg"), "").unwrap();
    fs::write(root.join("masks/a.png"), png(&[1, 0], 2, None)).unwrap();
    fs::write(root.join("classes.txt"), "road\ncar\n").unwrap();
    let data = Dataset::open(&root, None).unwrap();
    assert_eq!((data.files.len(), data.files[0].name.as_str(), data.list.as_ref()), (1, "a", None));
    let error = Dataset::open(folder.path(), None).unwrap_err().to_string();
    assert!(error.contains("maskcast-train data export") && error.contains("give one of its folders: "), "{error}");
    assert!(error.ends_with("/val"), "{error}");
    fs::write(root.join("classes.txt"), "0,road\n1,car\n").unwrap();
    let error = Dataset::open(&root, None).unwrap_err().to_string();
    assert!(error.contains("classes.txt:1: the line is not the name of a class"), "{error}");
}
