//! Heads compared with the steps of the graph, one by one and in floats.

use super::*;

/// Numbers that look random, always the same ones.
struct Noise(u32);

impl Noise {
    fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 24) as u8
    }
}

/// Logits with regions of classes, and noise on them: `[n, rows, columns, classes]`.
fn logits(description: &HeadDescription, n: usize, noise: &mut Noise) -> Vec<u8> {
    let HeadDescription { rows, columns, classes, .. } = *description;
    let mut bytes = Vec::new();
    for image in 0..n {
        for (y, x) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))) {
            let region = (y / 3 + x / 5 + image) % classes;
            bytes.extend((0..classes).map(|class| 120 + noise.byte() % 24 + if class == region { 12 } else { 0 }));
        }
    }
    bytes
}

/// The mask as the graph computes it: floats, limit, enlargement, arg max, table, repetition.
fn by_steps(description: &HeadDescription, logits: &[u8], table: Option<&[i32]>) -> Vec<ClassId> {
    let &HeadDescription { rows, columns, classes, enlarge, repeat, .. } = description;
    let value = |y: usize, x: usize, class: usize| {
        let logit = description.logit(logits[(y * columns + x) * classes + class]);
        match description.rejection {
            Some(PixelRejection { class: rejected, below }) if rejected == class => logit.max(below),
            _ => logit,
        }
    };
    // The logits on both sides of a pixel, and their weights.
    let ends = |pixel: usize, side: usize| {
        let place = ((pixel as f32 + 0.5) / enlarge as f32 - 0.5).clamp(0.0, (side - 1) as f32);
        let first = place as usize;
        let right = if first == side - 1 { 0.5 } else { place - first as f32 };
        (first, (first + 1).min(side - 1), right)
    };
    let (width, height) = (columns * enlarge, rows * enlarge);
    let decided = |pixel_y: usize, pixel_x: usize| {
        let ((y, next_y, down), (x, next_x, right)) = (ends(pixel_y, rows), ends(pixel_x, columns));
        let mixed = |class| {
            (1.0 - right) * (1.0 - down) * value(y, x, class)
                + right * (1.0 - down) * value(y, next_x, class)
                + (1.0 - right) * down * value(next_y, x, class)
                + right * down * value(next_y, next_x, class)
        };
        let best = (0..classes).fold((0, f32::MIN), |best, class| {
            let logit = mixed(class);
            if logit > best.1 { (class, logit) } else { best }
        });
        match (&description.regions, table) {
            (Some(regions), Some(table)) => {
                let part = |pixel: usize, logits: usize, pixels: usize, parts: usize| {
                    (pixel * logits / pixels / regions.cell).min(parts - 1)
                };
                let part = part(pixel_y, rows, height, regions.rows) * regions.columns
                    + part(pixel_x, columns, width, regions.columns);
                table[part * classes + best.0] as ClassId
            }
            _ => best.0 as ClassId,
        }
    };
    (0..height * repeat)
        .flat_map(|y| (0..width * repeat).map(move |x| (y / repeat, x / repeat)))
        .map(|(y, x)| decided(y, x))
        .collect()
}

fn description(rows: usize, columns: usize, classes: usize, enlarge: usize, repeat: usize) -> HeadDescription {
    HeadDescription {
        logits: "logits".into(),
        rows,
        columns,
        classes,
        scale: 0.176_686_4,
        zero: 146,
        scores: false,
        rejection: None,
        enlarge,
        regions: None,
        repeat,
    }
}

#[test]
fn masks_are_those_of_the_steps_of_the_graph() {
    let mut noise = Noise(1);
    for (rows, columns, classes, enlarge, repeat) in [
        (9, 40, 16, 2, 1),
        (12, 33, 11, 2, 1),
        (7, 16, 2, 2, 2),
        (5, 20, 37, 4, 1),
        (6, 19, 64, 3, 1),
        (8, 24, 16, 1, 2),
        (1, 1, 3, 2, 1),
        (40, 3, 5, 8, 1),
    ] {
        for rejection in
            [None, Some((0, -1.0)), Some((classes - 1, -1.27)), Some((1, 0.176_686_4 * -8.0)), Some((0, 99.0))]
        {
            let mut description = description(rows, columns, classes, enlarge, repeat);
            description.rejection = rejection.map(|(class, below)| PixelRejection { class, below });
            let head = Head::new(description.clone()).unwrap();
            let logits = logits(&description, 2, &mut noise);
            let masks = head.masks(&logits, None, 2);
            let each = logits.chunks_exact(logits.len() / 2);
            let expected: Vec<ClassId> = each.flat_map(|logits| by_steps(&description, logits, None)).collect();
            assert_eq!(masks.len(), expected.len());
            let different = masks.iter().zip(&expected).filter(|(a, b)| a != b).count();
            // The weights of a factor of 3 are rounded.
            let allowed = if enlarge == 3 { masks.len() / 1000 } else { 0 };
            assert!(different <= allowed, "{different} of {}: {description:?}", masks.len());
        }
    }
}

#[test]
fn regions_get_the_classes_of_their_table() {
    let mut noise = Noise(2);
    // The last parts are larger in the second case.
    for (rows, columns, parts, cell) in [(16, 32, (2, 4), 8), (19, 37, (2, 4), 8), (9, 20, (3, 5), 4)] {
        let mut description = description(rows, columns, 16, 2, 1);
        let (part_rows, part_columns) = parts;
        description.regions = Some(RegionTable { table: "table".into(), rows: part_rows, columns: part_columns, cell });
        let table: Vec<i32> = (0..2 * part_rows * part_columns * 16)
            .map(|entry| if noise.byte() < 100 { 0 } else { entry as i32 % 16 })
            .collect();
        let logits = logits(&description, 2, &mut noise);
        let head = Head::new(description.clone()).unwrap();
        let masks = head.masks(&logits, Some(&table), 2);
        let tables = table.chunks_exact(table.len() / 2);
        let expected: Vec<ClassId> = logits
            .chunks_exact(logits.len() / 2)
            .zip(tables)
            .flat_map(|(logits, table)| by_steps(&description, logits, Some(table)))
            .collect();
        assert_eq!(masks, expected);
        assert_ne!(masks, head.masks(&logits, None, 2));
    }
}

/// The tiles of a large image of logits give the mask of the image, with the tables of their own regions.
#[test]
fn tiles_of_logits_become_one_mask() {
    let mut noise = Noise(3);
    let canvas = TileCanvas::new(crate::frame::Tiles { columns: 3, rows: 2 }, (20, 16));
    let (columns, rows) = canvas.size();
    let large = description(rows, columns, 5, 2, 1);
    let image = logits(&large, 1, &mut noise);
    let expected = by_steps(&large, &image, None);
    let regions = RegionTable { table: "table".into(), rows: 2, columns: 3, cell: 8 };
    for table in [None, Some([0, 1, 2, 3, 4]), Some([0, 1, 0, 3, 4])] {
        let mut small = description(16, 20, 5, 2, 1);
        small.regions = table.is_some().then(|| regions.clone());
        let images: Vec<ImageLogits> = canvas
            .tiles()
            .map(|(column, row)| {
                let (left, top) = (canvas.across.origin(column), canvas.down.origin(row));
                let lines = (top..top + 16).flat_map(|y| &image[(y * columns + left) * 5..][..20 * 5]);
                ImageLogits { logits: lines.copied().collect(), table: table.map(|table| table.repeat(6)) }
            })
            .collect();
        let tiled = Head::new(small).unwrap().tiled(&canvas, &images);
        assert_eq!((tiled.size, &tiled.logits), ((2 * columns, 2 * rows), &image));
        let look_up = |&class: &ClassId| table.map_or(class, |table| table[usize::from(class)] as ClassId);
        assert_eq!(tiled.classes, expected.iter().map(look_up).collect::<Vec<_>>(), "{table:?}");
    }
}

#[test]
fn wrong_descriptions_are_refused() {
    let good = description(4, 4, 3, 2, 1);
    assert_eq!(good.check(), Ok(()));
    let wrong = |change: fn(&mut HeadDescription)| {
        let mut description = good.clone();
        change(&mut description);
        description.check().unwrap_err()
    };
    assert_eq!(wrong(|d| d.classes = 65), DescriptionProblem::Size(4, 4, 65));
    assert_eq!(wrong(|d| d.rows = 0), DescriptionProblem::Size(4, 0, 3));
    assert_eq!(wrong(|d| d.scale = f32::NAN), DescriptionProblem::Scale);
    assert_eq!(wrong(|d| d.enlarge = 0), DescriptionProblem::Factors(0, 1));
    let rejection = |class| Some(PixelRejection { class, below: 1.0 });
    assert_eq!(
        wrong(|d| d.rejection = Some(PixelRejection { class: 3, below: 1.0 })),
        DescriptionProblem::Rejection(3)
    );
    assert_eq!(HeadDescription { rejection: rejection(2), ..good.clone() }.check(), Ok(()));
    let regions = RegionTable { table: "table".into(), rows: 0, columns: 2, cell: 8 };
    assert_eq!(HeadDescription { regions: Some(regions), ..good }.check(), Err(DescriptionProblem::Regions(2, 0, 8)));
}
