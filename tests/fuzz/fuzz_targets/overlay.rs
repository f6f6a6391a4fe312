//! Drawing: frames of any size, format and stride, masks of any size and completeness, any settings and texts.
#![no_main]

use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use maskcast::config::{Legend, OverlayConfig, Style};
use maskcast::frame::{
    Colorimetry, Image, ImageMut, Label, Mask, Matrix, PixelFormat, Plane, PlaneMut, Rgb, VideoInfo, Weight,
};
use maskcast::overlay::Overlay;

/// The value of the bytes in the gaps between rows, which must not change.
const GAP: u8 = 0xA5;

#[derive(Arbitrary, Debug)]
struct Input {
    frames: Vec<Frame>,
    style: u8,
    alpha: u8,
    legend: u8,
    /// Names, colours, and weights in 255ths.
    labels: Vec<(String, [u8; 3], u8)>,
    /// Indices into `labels`; `None`: the default.
    hide: Option<Vec<u8>>,
}

#[derive(Arbitrary, Debug)]
struct Frame {
    width: u16,
    height: u16,
    nv12: bool,
    matrix: u8,
    full_range: bool,
    /// Number of bytes between the rows of source and target.
    gaps: [u8; 2],
    /// Whether the last row has no gap after its pixels.
    last_row_unpadded: [bool; 2],
    mask: Option<MaskInput>,
    badge: Option<String>,
    slate: Option<Vec<String>>,
}

#[derive(Arbitrary, Debug)]
struct MaskInput {
    width: u16,
    height: u16,
    /// Repeated over the mask.
    classes: Vec<u8>,
    /// Number of missing pixels.
    missing: u8,
}

/// The planes of a frame with gaps between the rows.
struct Memory {
    info: VideoInfo,
    planes: [Vec<u8>; 3],
    strides: [usize; 3],
}

impl Memory {
    fn new(info: VideoInfo, gap: u8, last_row_unpadded: bool, value: u8) -> Self {
        let mut memory = Memory { info, planes: Default::default(), strides: [0; 3] };
        for plane in 0..info.planes() {
            let (width, height) = info.plane_size(plane);
            let stride = width + usize::from(gap);
            memory.strides[plane] = stride;
            let length = if last_row_unpadded { stride * (height - 1) + width } else { stride * height };
            let sample = |n: usize| if n % stride < width { value.wrapping_add(n as u8) } else { GAP };
            memory.planes[plane] = (0..length).map(sample).collect();
        }
        memory
    }

    fn image(&self) -> Image<'_> {
        let plane = |n: usize| Plane { data: &self.planes[n], stride: self.strides[n] };
        Image { info: self.info, planes: [plane(0), plane(1), plane(2)] }
    }

    fn image_mut(&mut self) -> ImageMut<'_> {
        let [y, u, v] = &mut self.planes;
        let [sy, su, sv] = self.strides;
        ImageMut {
            info: self.info,
            planes: [
                PlaneMut { data: y, stride: sy },
                PlaneMut { data: u, stride: su },
                PlaneMut { data: v, stride: sv },
            ],
        }
    }

    fn row(&self, plane: usize, row: usize) -> &[u8] {
        &self.planes[plane][row * self.strides[plane]..][..self.info.plane_size(plane).0]
    }

    fn check_gaps(&self) {
        for (plane, data) in self.planes.iter().enumerate().take(self.info.planes()) {
            let width = self.info.plane_size(plane).0;
            assert!(data.chunks(self.strides[plane]).all(|row| row[width..].iter().all(|&byte| byte == GAP)));
        }
    }
}

fuzz_target!(|input: Input| {
    let label = |(name, [r, g, b], weight): (String, [u8; 3], u8)| {
        let weight = Weight::try_from(f64::from(weight) / 255.0).expect("is between 0 and 1");
        Label { name, color: Rgb(r, g, b), weight }
    };
    let labels: Vec<Label> = input.labels.into_iter().take(255).map(label).collect();
    let name = |n: u8| Some(labels.get(usize::from(n))?.name.clone());
    let hide = input.hide.map(|numbers| numbers.into_iter().filter_map(name).collect());
    let style = [Style::Tint, Style::Contour, Style::MaskOnly][usize::from(input.style % 3)];
    let alpha = f32::from(input.alpha) / 255.0;
    let legend = Legend::ALL[usize::from(input.legend % 3)];
    let config = OverlayConfig { style, alpha, hide, legend, ..OverlayConfig::default() };
    let mut overlay = Overlay::new(&config, &labels).expect("hidden labels are among the model's");
    for frame in input.frames.into_iter().take(3) {
        let format = if frame.nv12 { PixelFormat::Nv12 } else { PixelFormat::I420 };
        let side = |side: u16| usize::from(side % 150) + 1;
        let matrix = [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020, Matrix::Fcc, Matrix::Smpte240m]
            [usize::from(frame.matrix % 5)];
        let color = Colorimetry::new(matrix, frame.full_range);
        let info = VideoInfo { color, ..VideoInfo::new(format, side(frame.width), side(frame.height)) };
        let source = Memory::new(info, frame.gaps[0], frame.last_row_unpadded[0], 16);
        let mut target = Memory::new(info, frame.gaps[1], frame.last_row_unpadded[1], 99);
        let mask = frame.mask.map(|input| mask(&input));
        overlay.draw(&source.image(), mask.as_ref(), &mut target.image_mut());
        target.check_gaps();
        if config.legend == Legend::Off {
            check(&source, mask.as_ref(), &target, &config, &labels);
        }
        if let Some(badge) = frame.badge {
            overlay.badge(&badge, &mut target.image_mut());
        }
        if let Some(lines) = frame.slate {
            overlay.slate(Some(&source.image()), &lines, &mut target.image_mut());
            overlay.slate(None, &lines, &mut target.image_mut());
        }
        target.check_gaps();
    }
});

fn mask(input: &MaskInput) -> Mask {
    let (width, height) = (usize::from(input.width % 120), usize::from(input.height % 120));
    let pixels = (width * height).saturating_sub(usize::from(input.missing));
    let classes = (0..pixels).map(|n| input.classes.get(n % input.classes.len().max(1)).copied().unwrap_or(0));
    Mask {
        seq: 0,
        pts: Duration::ZERO,
        captured_at: Instant::now(),
        width,
        height,
        classes: classes.collect(),
        labels: [].into(),
        model: "".into(),
        guide: None, probable: None, confirmed: false, seen: None,
    }
}

/// Asserts that the target equals the source where nothing is drawn.
fn check(source: &Memory, mask: Option<&Mask>, target: &Memory, config: &OverlayConfig, labels: &[Label]) {
    let info = source.info;
    let whole = mask.filter(|mask| mask.width * mask.height > 0 && mask.classes.len() >= mask.width * mask.height);
    let same = |plane: usize, row: usize| source.row(plane, row) == target.row(plane, row);
    match (whole, config.style) {
        (None, Style::Tint | Style::Contour) => {
            assert!((0..info.planes()).all(|plane| (0..info.plane_size(plane).1).all(|row| same(plane, row))));
        }
        (Some(mask), Style::Tint) => {
            let drawn = |class: u8| labels.get(usize::from(class)).is_some_and(|label| !config.hides(&label.name));
            // Edges are smooth: the mask pixels beside also count.
            let around = |at: usize, size: usize, mask_size: usize| {
                let cell = Mask::index(at, size, mask_size);
                cell.saturating_sub(1)..=(cell + 1).min(mask_size - 1)
            };
            for y in 0..info.height {
                for (x, (before, after)) in source.row(0, y).iter().zip(target.row(0, y)).enumerate() {
                    let near_drawn = around(y, info.height, mask.height).any(|row| {
                        let columns = around(x, info.width, mask.width);
                        columns.into_iter().any(|column| drawn(mask.classes[row * mask.width + column]))
                    });
                    assert!(near_drawn || before == after, "{x},{y} of {info}");
                }
            }
        }
        _ => {}
    }
}
