use super::*;
use crate::data::class_file::SourceClass;

fn raw(pixels: Pixels) -> Raw {
    let width = match &pixels {
        Pixels::Gray(values) | Pixels::Indexed(values, _) => values.len(),
        Pixels::Colors(colors) => colors.len(),
    };
    Raw { width, height: 1, pixels }
}

fn sample(pixels: Pixels) -> Sample {
    let mut sample = Sample::default();
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

fn hints(classes: Option<Vec<SourceClass>>) -> Hints<'static> {
    Hints { classes, merges: &[], void: None, camvid: false, voc: false, unread: None, void_color: None }
}

fn translated(coding: &Coding, pixels: Pixels) -> Vec<Option<u8>> {
    let mut out = Vec::new();
    coding.each(&raw(pixels), |_, class| out.push(class));
    out
}

fn names(coding: &Coding) -> Vec<&str> {
    coding.table.classes.iter().map(|label| label.name.as_str()).collect()
}

const RED: Rgb = Rgb(128, 0, 0);
const BLACK: Rgb = Rgb(0, 0, 0);

#[test]
fn numbers_without_names() {
    let pixels = Pixels::Gray(vec![0, 2, 255, 1]);
    let (coding, notes) = Coding::decide(hints(None), &sample(pixels.clone())).unwrap();
    assert_eq!(names(&coding), ["class0", "class1", "class2"]);
    assert_eq!(translated(&coding, pixels), [Some(0), Some(2), Some(VOID), Some(1)]);
    assert!(notes[0].contains("class0 to class2"));
    assert_eq!(translated(&coding, Pixels::Gray(vec![3])), [None]);
    assert!(coding.help(Value::Index(3)).contains("0 to 2, 255"), "{}", coding.help(Value::Index(3)));
}

#[test]
fn segnet_numbers_are_taken_for_camvid_only_where_they_look_so() {
    let camvid = || Hints { camvid: true, ..hints(None) };
    let (coding, notes) = Coding::decide(camvid(), &sample(Pixels::Gray(vec![0, 3, 11]))).unwrap();
    assert_eq!(coding.table.classes.len(), 11);
    assert_eq!(coding.table.values[11], Some(VOID));
    assert!(notes[0].contains("SegNet"));
    let (coding, _) = Coding::decide(camvid(), &sample(Pixels::Gray(vec![0, 1]))).unwrap();
    assert_eq!(names(&coding), ["class0", "class1"]);
}

#[test]
fn numbers_are_taken_for_pascal_vocs_only_where_they_look_so() {
    let voc = || Hints { voc: true, ..hints(None) };
    for values in [vec![0, 1, 2, 255], vec![0, 1], vec![0, 1, 2, 3, 4, 5, 6]] {
        let (coding, notes) = Coding::decide(voc(), &sample(Pixels::Gray(values.clone()))).unwrap();
        assert_eq!(names(&coding)[1], "class1", "{values:?}");
        assert!(notes[0].contains("no class file"), "{notes:?}");
    }
    for values in [vec![0, 15, 255], vec![0, 2, 7, 15], (0..=20).collect::<Vec<u8>>()] {
        let (coding, notes) = Coding::decide(voc(), &sample(Pixels::Gray(values.clone()))).unwrap();
        assert_eq!((names(&coding)[15], names(&coding).len()), ("person", 21), "{values:?}");
        assert!(notes[0].contains("Pascal VOC"), "{notes:?}");
    }
    let unread = Hints { unread: Some(Path::new("my_labels.txt")), ..voc() };
    let (problem, help) = Coding::decide(unread, &sample(Pixels::Gray(vec![0, 15]))).unwrap_err();
    assert!(problem.contains("my_labels.txt") && help.contains("--classes my_labels.txt"), "{problem} {help}");
    // In colours, as CVAT writes them: those of VOC's first numbers are anybody's.
    let (problem, _) = Coding::decide(voc(), &sample(Pixels::Colors(vec![BLACK, RED]))).unwrap_err();
    assert!(problem.contains("no class file says"), "{problem}");
    let person = Pixels::Colors(vec![BLACK, Rgb(192, 128, 128)]);
    let (coding, _) = Coding::decide(voc(), &sample(person.clone())).unwrap();
    assert_eq!(translated(&coding, person), [Some(0), Some(15)]);
}

#[test]
fn black_and_white_masks_are_two_classes() {
    for pixels in [Pixels::Gray(vec![0, 255, 0]), Pixels::Colors(vec![BLACK, Rgb(255, 255, 255), BLACK])] {
        let (coding, notes) = Coding::decide(hints(None), &sample(pixels.clone())).unwrap();
        assert_eq!(names(&coding), ["background", "foreground"]);
        assert_eq!(translated(&coding, pixels), [Some(0), Some(1), Some(0)]);
        assert!(notes[0].contains("black and white"));
    }
    let (coding, _) =
        Coding::decide(hints(source(&[("person", None, 0)])), &sample(Pixels::Gray(vec![0, 255]))).unwrap();
    assert_eq!(names(&coding), ["background", "person"]);
    let (coding, _) =
        Coding::decide(hints(source(&[("sky", None, 0), ("ground", None, 1)])), &sample(Pixels::Gray(vec![0, 255])))
            .unwrap();
    assert_eq!(names(&coding), ["sky", "ground"]);
    assert_eq!(translated(&coding, Pixels::Gray(vec![255])), [Some(1)]);
}

#[test]
fn one_name_gets_the_partner_that_it_lacks() {
    let one = |name| Coding::decide(hints(source(&[(name, None, 0)])), &sample(Pixels::Gray(vec![0, 255]))).unwrap().0;
    assert_eq!(names(&one("person")), ["background", "person"]);
    assert_eq!(names(&one("background")), ["background", "foreground"]);
    let merges = [("person".to_string(), "car".to_string())];
    let hints = Hints { merges: &merges, ..hints(source(&[("background", None, 0)])) };
    let (problem, _) = Coding::decide(hints, &sample(Pixels::Gray(vec![0, 255]))).unwrap_err();
    assert!(problem.contains("person=car: ") && problem.contains("line of its own"), "{problem}");
    assert!(!problem.contains("background, background"), "{problem}");
}

#[test]
fn three_names_and_masks_of_0_and_255_are_an_error() {
    let three = || source(&[("background", None, 0), ("person", None, 1), ("car", None, 2)]);
    let black = Rgb(0, 0, 0);
    for pixels in [
        Pixels::Gray(vec![0, 255, 0]),
        Pixels::Gray(vec![255]),
        Pixels::Indexed(vec![0, 255], vec![black; 256]),
        Pixels::Colors(vec![black, Rgb(255, 255, 255)]),
    ] {
        let (problem, help) = Coding::decide(hints(three()), &sample(pixels)).unwrap_err();
        assert!(problem.contains("255 is the only value beside 0") && problem.contains("void"), "{problem}");
        assert!(help.contains("`255,person`") && help.contains("--void 255"), "{help}");
    }
    // Void beside one class and another that shows is what it is; so is what somebody chose.
    assert!(Coding::decide(hints(three()), &sample(Pixels::Gray(vec![0, 2, 255]))).is_ok());
    assert!(Coding::decide(hints(three()), &sample(Pixels::Gray(vec![0, 0]))).is_ok());
    let void = ["255".to_string()];
    let chosen = Hints { void: Some(&void), ..hints(three()) };
    assert!(Coding::decide(chosen, &sample(Pixels::Gray(vec![0, 255]))).is_ok());
    let numbered = source(&[("background", None, 0), ("person", None, 255), ("car", None, 2)]);
    let (coding, _) = Coding::decide(hints(numbered), &sample(Pixels::Gray(vec![0, 255]))).unwrap();
    assert_eq!(translated(&coding, Pixels::Gray(vec![0, 255])), [Some(0), Some(1)]);
}

#[test]
fn palettes_give_colours_where_nothing_else_does() {
    let color = |coding: &Coding| coding.table.classes.iter().map(|label| label.color).collect::<Vec<_>>();
    let (blue, white) = (Rgb(0, 0, 200), Rgb(255, 255, 255));
    let numbers = Pixels::Indexed(vec![0, 1, 2], vec![BLACK, RED, blue]);
    let (coding, _) = Coding::decide(hints(None), &sample(numbers.clone())).unwrap();
    assert_eq!(color(&coding), [BLACK, RED, blue]);
    let named = source(&[("sky", None, 0), ("road", None, 1), ("car", None, 2)]);
    let (coding, _) = Coding::decide(hints(named), &sample(numbers.clone())).unwrap();
    assert_eq!(color(&coding), [BLACK, RED, blue]);
    let colored =
        source(&[("sky", Some(white), 0), ("road", Some(Rgb(0, 99, 0)), 1), ("car", Some(Rgb(0, 99, 99)), 2)]);
    let (coding, _) = Coding::decide(hints(colored), &sample(numbers)).unwrap();
    assert_eq!(color(&coding), [white, Rgb(0, 99, 0), Rgb(0, 99, 99)]);
    let mut palette = vec![BLACK; 256];
    palette[255] = RED;
    let (coding, _) = Coding::decide(hints(None), &sample(Pixels::Indexed(vec![0, 255], palette))).unwrap();
    assert_eq!(color(&coding), [BLACK, RED], "a black and white mask with a palette");
    let (coding, _) = Coding::decide(hints(None), &sample(Pixels::Indexed(vec![0, 1], vec![BLACK; 2]))).unwrap();
    assert_ne!(color(&coding)[0], color(&coding)[1]);
}

#[test]
fn smooth_masks_are_split_in_the_middle() {
    let mut values = vec![0; 100];
    values.extend([255; 100]);
    values.extend((1..20).map(|n| n * 12));
    let (coding, notes) = Coding::decide(hints(None), &sample(Pixels::Gray(values))).unwrap();
    assert!(coding.halves && notes[0].contains("between"));
    assert_eq!(translated(&coding, Pixels::Gray(vec![127, 128])), [Some(0), Some(1)]);
}

#[test]
fn zero_one_and_255_are_two_classes_and_void() {
    let pixels = Pixels::Gray(vec![0, 1, 255]);
    let (coding, _) =
        Coding::decide(hints(source(&[("a", None, 0), ("b", None, 1)])), &sample(pixels.clone())).unwrap();
    assert_eq!(translated(&coding, pixels), [Some(0), Some(1), Some(VOID)]);
}

#[test]
fn colours_by_class_file() {
    let classes = source(&[("background", Some(BLACK), 0), ("car", Some(RED), 1)]);
    let pixels = Pixels::Colors(vec![RED, BLACK]);
    let (coding, _) = Coding::decide(hints(classes), &sample(pixels.clone())).unwrap();
    assert_eq!(translated(&coding, pixels), [Some(1), Some(0)]);
    let strange = raw(Pixels::Colors(vec![Rgb(1, 2, 3)]));
    assert_eq!(translated(&coding, strange.pixels.clone()), [None]);
    assert_eq!(coding.value(&strange, 0).to_string(), "colour 1,2,3");
}

#[test]
fn a_palette_is_read_by_its_colours_where_they_are_the_classes() {
    let classes = || source(&[("background", Some(BLACK), 0), ("car", Some(RED), 1), ("bus", Some(Rgb(9, 9, 9)), 2)]);
    let by_color = Pixels::Indexed(vec![0, 1], vec![RED, BLACK]);
    let (coding, _) = Coding::decide(hints(classes()), &sample(by_color.clone())).unwrap();
    assert_eq!(translated(&coding, by_color), [Some(1), Some(0)]);
    let by_number = Pixels::Indexed(vec![2, 1], vec![Rgb(1, 1, 1), Rgb(2, 2, 2), Rgb(3, 3, 3)]);
    let (coding, _) = Coding::decide(hints(classes()), &sample(by_number.clone())).unwrap();
    assert_eq!(translated(&coding, by_number), [Some(2), Some(1)]);
}

#[test]
fn grey_masks_with_grey_colours_are_read_by_colour() {
    let classes = source(&[("background", Some(BLACK), 0), ("car", Some(Rgb(255, 255, 255)), 1)]);
    let pixels = Pixels::Gray(vec![255, 0]);
    let (coding, _) = Coding::decide(hints(classes), &sample(pixels.clone())).unwrap();
    assert_eq!(translated(&coding, pixels), [Some(1), Some(0)]);
}

#[test]
fn what_cannot_be_guessed_is_an_error_that_says_what_to_write() {
    for (pixels, problem) in [
        (Pixels::Colors(vec![RED, Rgb(1, 2, 3)]), "in colours"),
        (Pixels::Gray(vec![0, 0]), "all are 0"),
        (Pixels::Gray(vec![0, 100, 200]), "values 0, 100, 200"),
    ] {
        let (text, help) = Coding::decide(hints(None), &sample(pixels)).unwrap_err();
        assert!(text.contains(problem) && !help.is_empty(), "{text}");
    }
}
