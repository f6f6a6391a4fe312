use super::*;

fn raw(pixels: RawPixels) -> RawLabel {
    let width = match &pixels {
        RawPixels::Gray(values) | RawPixels::Indexed(values, _) => values.len(),
        RawPixels::Colors(colors) => colors.len(),
    };
    RawLabel { width, height: 1, pixels }
}

fn sample(pixels: RawPixels) -> LabelSample {
    let mut sample = LabelSample::default();
    sample.add(&raw(pixels));
    sample
}

fn source(rows: &[(&str, Option<Rgb>, u8)]) -> Option<Vec<SourceClass>> {
    let class = |(name, color, value): &(&str, Option<Rgb>, u8)| SourceClass {
        name: name.to_string(),
        color: *color,
        values: vec![*value],
    };
    Some(rows.iter().map(class).collect())
}

fn hints(classes: Option<Vec<SourceClass>>) -> CodingHints<'static> {
    CodingHints { classes, merges: &[], void: None, camvid: false, voc: false, unread: None, void_color: None }
}

fn translated(coding: &LabelCoding, pixels: RawPixels) -> Vec<Option<u8>> {
    let mut out = Vec::new();
    coding.for_each_pixel(&raw(pixels), |_, class| out.push(class));
    out
}

fn names(coding: &LabelCoding) -> Vec<&str> {
    coding.table.classes.iter().map(|label| label.name.as_str()).collect()
}

const RED: Rgb = Rgb(128, 0, 0);
const BLACK: Rgb = Rgb(0, 0, 0);

#[test]
fn numbers_without_names() {
    let pixels = RawPixels::Gray(vec![0, 2, 255, 1]);
    let (coding, notes) = LabelCoding::decide(hints(None), &sample(pixels.clone())).unwrap();
    assert_eq!(names(&coding), ["class0", "class1", "class2"]);
    assert_eq!(translated(&coding, pixels), [Some(0), Some(2), Some(VOID), Some(1)]);
    assert!(notes[0].contains("class0 to class2"));
    assert_eq!(translated(&coding, RawPixels::Gray(vec![3])), [None]);
    assert!(coding.help(PixelValue::Index(3)).contains("0 to 2, 255"), "{}", coding.help(PixelValue::Index(3)));
}

#[test]
fn segnet_numbers_are_assumed_only_if_the_values_match() {
    let camvid = || CodingHints { camvid: true, ..hints(None) };
    let (coding, notes) = LabelCoding::decide(camvid(), &sample(RawPixels::Gray(vec![0, 3, 11]))).unwrap();
    assert_eq!(coding.table.classes.len(), 11);
    assert_eq!(coding.table.values[11], Some(VOID));
    assert!(notes[0].contains("SegNet"));
    let (coding, _) = LabelCoding::decide(camvid(), &sample(RawPixels::Gray(vec![0, 1]))).unwrap();
    assert_eq!(names(&coding), ["class0", "class1"]);
}

#[test]
fn pascal_voc_classes_are_assumed_only_if_the_values_match() {
    let voc = || CodingHints { voc: true, ..hints(None) };
    for values in [vec![0, 1, 2, 255], vec![0, 1], vec![0, 1, 2, 3, 4, 5, 6]] {
        let (coding, notes) = LabelCoding::decide(voc(), &sample(RawPixels::Gray(values.clone()))).unwrap();
        assert_eq!(names(&coding)[1], "class1", "{values:?}");
        assert!(notes[0].contains("no class file"), "{notes:?}");
    }
    for values in [vec![0, 15, 255], vec![0, 2, 7, 15], (0..=20).collect::<Vec<u8>>()] {
        let (coding, notes) = LabelCoding::decide(voc(), &sample(RawPixels::Gray(values.clone()))).unwrap();
        assert_eq!((names(&coding)[15], names(&coding).len()), ("person", 21), "{values:?}");
        assert!(notes[0].contains("Pascal VOC"), "{notes:?}");
    }
    let unread = CodingHints { unread: Some(Path::new("my_labels.txt")), ..voc() };
    let error = LabelCoding::decide(unread, &sample(RawPixels::Gray(vec![0, 15]))).unwrap_err();
    assert!(
        matches!(&error, CodingError::UnrecognizedClassFile { path, .. } if path.ends_with("my_labels.txt")),
        "{error}"
    );
    // In colours, as CVAT writes them: VOC's first colours alone prove nothing.
    let error = LabelCoding::decide(voc(), &sample(RawPixels::Colors(vec![BLACK, RED]))).unwrap_err();
    assert!(matches!(error, CodingError::ColorsWithoutClassFile { .. }), "{error}");
    let person = RawPixels::Colors(vec![BLACK, Rgb(192, 128, 128)]);
    let (coding, _) = LabelCoding::decide(voc(), &sample(person.clone())).unwrap();
    assert_eq!(translated(&coding, person), [Some(0), Some(15)]);
}

#[test]
fn black_and_white_masks_are_two_classes() {
    for pixels in [RawPixels::Gray(vec![0, 255, 0]), RawPixels::Colors(vec![BLACK, Rgb(255, 255, 255), BLACK])] {
        let (coding, notes) = LabelCoding::decide(hints(None), &sample(pixels.clone())).unwrap();
        assert_eq!(names(&coding), ["background", "foreground"]);
        assert_eq!(translated(&coding, pixels), [Some(0), Some(1), Some(0)]);
        assert!(notes[0].contains("black and white"));
    }
    let (coding, _) =
        LabelCoding::decide(hints(source(&[("person", None, 0)])), &sample(RawPixels::Gray(vec![0, 255]))).unwrap();
    assert_eq!(names(&coding), ["background", "person"]);
    let (coding, _) = LabelCoding::decide(
        hints(source(&[("sky", None, 0), ("ground", None, 1)])),
        &sample(RawPixels::Gray(vec![0, 255])),
    )
    .unwrap();
    assert_eq!(names(&coding), ["sky", "ground"]);
    assert_eq!(translated(&coding, RawPixels::Gray(vec![255])), [Some(1)]);
}

#[test]
fn a_single_class_name_is_completed_with_a_second_one() {
    let one = |name| {
        LabelCoding::decide(hints(source(&[(name, None, 0)])), &sample(RawPixels::Gray(vec![0, 255]))).unwrap().0
    };
    assert_eq!(names(&one("person")), ["background", "person"]);
    assert_eq!(names(&one("background")), ["background", "foreground"]);
    let merges = [("person".to_string(), "car".to_string())];
    let hints = CodingHints { merges: &merges, ..hints(source(&[("background", None, 0)])) };
    let error = LabelCoding::decide(hints, &sample(RawPixels::Gray(vec![0, 255]))).unwrap_err();
    let known = ["background", "foreground"].map(String::from).to_vec();
    assert_eq!(error, CodingError::UnknownMerge { from: "person".into(), to: "car".into(), known });
}

#[test]
fn three_names_and_masks_of_0_and_255_are_an_error() {
    let three = || source(&[("background", None, 0), ("person", None, 1), ("car", None, 2)]);
    let black = Rgb(0, 0, 0);
    for pixels in [
        RawPixels::Gray(vec![0, 255, 0]),
        RawPixels::Gray(vec![255]),
        RawPixels::Indexed(vec![0, 255], vec![black; 256]),
        RawPixels::Colors(vec![black, Rgb(255, 255, 255)]),
    ] {
        let error = LabelCoding::decide(hints(three()), &sample(pixels)).unwrap_err();
        let (first, second) = ("background".into(), "person".into());
        assert_eq!(error, CodingError::OnlyZeroAndVoid { files: 1, classes: 3, first, second });
    }
    // 255 is void if another class occurs, or if its meaning is given.
    assert!(LabelCoding::decide(hints(three()), &sample(RawPixels::Gray(vec![0, 2, 255]))).is_ok());
    assert!(LabelCoding::decide(hints(three()), &sample(RawPixels::Gray(vec![0, 0]))).is_ok());
    let void = ["255".to_string()];
    let with_void = CodingHints { void: Some(&void), ..hints(three()) };
    assert!(LabelCoding::decide(with_void, &sample(RawPixels::Gray(vec![0, 255]))).is_ok());
    let numbered = source(&[("background", None, 0), ("person", None, 255), ("car", None, 2)]);
    let (coding, _) = LabelCoding::decide(hints(numbered), &sample(RawPixels::Gray(vec![0, 255]))).unwrap();
    assert_eq!(translated(&coding, RawPixels::Gray(vec![0, 255])), [Some(0), Some(1)]);
}

#[test]
fn palette_colours_are_used_for_classes_without_colour() {
    let color = |coding: &LabelCoding| coding.table.classes.iter().map(|label| label.color).collect::<Vec<_>>();
    let (blue, white) = (Rgb(0, 0, 200), Rgb(255, 255, 255));
    let numbers = RawPixels::Indexed(vec![0, 1, 2], vec![BLACK, RED, blue]);
    let (coding, _) = LabelCoding::decide(hints(None), &sample(numbers.clone())).unwrap();
    assert_eq!(color(&coding), [BLACK, RED, blue]);
    let named = source(&[("sky", None, 0), ("road", None, 1), ("car", None, 2)]);
    let (coding, _) = LabelCoding::decide(hints(named), &sample(numbers.clone())).unwrap();
    assert_eq!(color(&coding), [BLACK, RED, blue]);
    let colored =
        source(&[("sky", Some(white), 0), ("road", Some(Rgb(0, 99, 0)), 1), ("car", Some(Rgb(0, 99, 99)), 2)]);
    let (coding, _) = LabelCoding::decide(hints(colored), &sample(numbers)).unwrap();
    assert_eq!(color(&coding), [white, Rgb(0, 99, 0), Rgb(0, 99, 99)]);
    let mut palette = vec![BLACK; 256];
    palette[255] = RED;
    let (coding, _) = LabelCoding::decide(hints(None), &sample(RawPixels::Indexed(vec![0, 255], palette))).unwrap();
    assert_eq!(color(&coding), [BLACK, RED], "a black and white mask with a palette");
    let (coding, _) =
        LabelCoding::decide(hints(None), &sample(RawPixels::Indexed(vec![0, 1], vec![BLACK; 2]))).unwrap();
    assert_ne!(color(&coding)[0], color(&coding)[1]);
}

#[test]
fn smoothed_masks_are_split_at_128() {
    let mut values = vec![0; 100];
    values.extend([255; 100]);
    values.extend((1..20).map(|n| n * 12));
    let (coding, notes) = LabelCoding::decide(hints(None), &sample(RawPixels::Gray(values))).unwrap();
    assert!(coding.binary_mask && notes[0].contains("values from 128 to 254 as 255"));
    assert_eq!(translated(&coding, RawPixels::Gray(vec![127, 128])), [Some(0), Some(1)]);
}

#[test]
fn zero_one_and_255_are_two_classes_and_void() {
    let pixels = RawPixels::Gray(vec![0, 1, 255]);
    let (coding, _) =
        LabelCoding::decide(hints(source(&[("a", None, 0), ("b", None, 1)])), &sample(pixels.clone())).unwrap();
    assert_eq!(translated(&coding, pixels), [Some(0), Some(1), Some(VOID)]);
}

#[test]
fn colours_by_class_file() {
    let classes = source(&[("background", Some(BLACK), 0), ("car", Some(RED), 1)]);
    let pixels = RawPixels::Colors(vec![RED, BLACK]);
    let (coding, _) = LabelCoding::decide(hints(classes), &sample(pixels.clone())).unwrap();
    assert_eq!(translated(&coding, pixels), [Some(1), Some(0)]);
    let unknown = raw(RawPixels::Colors(vec![Rgb(1, 2, 3)]));
    assert_eq!(translated(&coding, unknown.pixels.clone()), [None]);
    assert_eq!(coding.value(&unknown, 0).to_string(), "colour 1,2,3");
}

#[test]
fn palette_colours_that_match_the_classes_are_used() {
    let classes = || source(&[("background", Some(BLACK), 0), ("car", Some(RED), 1), ("bus", Some(Rgb(9, 9, 9)), 2)]);
    let by_color = RawPixels::Indexed(vec![0, 1], vec![RED, BLACK]);
    let (coding, _) = LabelCoding::decide(hints(classes()), &sample(by_color.clone())).unwrap();
    assert_eq!(translated(&coding, by_color), [Some(1), Some(0)]);
    let by_number = RawPixels::Indexed(vec![2, 1], vec![Rgb(1, 1, 1), Rgb(2, 2, 2), Rgb(3, 3, 3)]);
    let (coding, _) = LabelCoding::decide(hints(classes()), &sample(by_number.clone())).unwrap();
    assert_eq!(translated(&coding, by_number), [Some(2), Some(1)]);
}

#[test]
fn grey_masks_with_grey_colours_are_read_by_colour() {
    let classes = source(&[("background", Some(BLACK), 0), ("car", Some(Rgb(255, 255, 255)), 1)]);
    let pixels = RawPixels::Gray(vec![255, 0]);
    let (coding, _) = LabelCoding::decide(hints(classes), &sample(pixels.clone())).unwrap();
    assert_eq!(translated(&coding, pixels), [Some(1), Some(0)]);
}

#[test]
fn labels_without_a_class_file_can_be_an_error() {
    for (pixels, expected) in [
        (
            RawPixels::Colors(vec![RED, Rgb(1, 2, 3)]),
            CodingError::ColorsWithoutClassFile { colors: "128,0,0; 1,2,3".into() },
        ),
        (RawPixels::Gray(vec![0, 0]), CodingError::OnlyZero(1)),
        (RawPixels::Gray(vec![0, 100, 200]), CodingError::ValuesWithoutClassFile(vec![0, 100, 200])),
    ] {
        assert_eq!(LabelCoding::decide(hints(None), &sample(pixels)).unwrap_err(), expected);
    }
}
