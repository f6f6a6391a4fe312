//! Dense optical flow for the measurement of flicker. It is independent of the motion that [`crate::steady`] uses: inverse search
//! of overlapping patches from coarse to fine (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", 2016, without the
//! variational refinement).

/// Side of a patch in pixels.
const PATCH: usize = 8;

/// Distance of patches.
const STRIDE: usize = 4;

/// Steps of Gauss and Newton for each patch and level.
const STEPS: usize = 8;

/// The coarsest level is not smaller than this.
const SMALLEST: usize = 24;

/// A step that is longer than a patch has lost its content.
const LOST: f32 = PATCH as f32;

/// A plane of grey values.
#[derive(Clone)]
pub struct Grey {
    pub width: usize,
    pub height: usize,
    /// `[height × width]`
    pub values: Vec<f32>,
}

impl Grey {
    /// The value between pixels; beyond the border, that of the border.
    fn at(&self, x: f32, y: f32) -> f32 {
        let x = x.clamp(0.0, (self.width - 1) as f32);
        let y = y.clamp(0.0, (self.height - 1) as f32);
        let (left, top) = (x as usize, y as usize);
        let (right, bottom) = ((left + 1).min(self.width - 1), (top + 1).min(self.height - 1));
        let (u, v) = (x - left as f32, y - top as f32);
        let row = |row: usize| {
            let row = &self.values[row * self.width..][..self.width];
            row[left] * (1.0 - u) + row[right] * u
        };
        row(top) * (1.0 - v) + row(bottom) * v
    }

    fn halved(&self) -> Grey {
        let (width, height) = (self.width / 2, self.height / 2);
        let mean = |n: usize| {
            let at = 2 * (n / width) * self.width + 2 * (n % width);
            let values = &self.values;
            (values[at] + values[at + 1] + values[at + self.width] + values[at + self.width + 1]) / 4.0
        };
        Grey { width, height, values: (0..width * height).map(mean).collect() }
    }

    /// The image and its halves, finest first.
    pub fn pyramid(self) -> Vec<Grey> {
        let mut levels = vec![self];
        while let Some(half) =
            levels.last().filter(|last| last.width.min(last.height) / 2 >= SMALLEST).map(Grey::halved)
        {
            levels.push(half);
        }
        levels
    }
}

/// For each pixel of `from`, the vector to the same content in `to`. The levels are those of [`Grey::pyramid`] of images of the
/// same size.
pub fn flow(from: &[Grey], to: &[Grey]) -> Vec<(f32, f32)> {
    let mut flow: Vec<(f32, f32)> = Vec::new();
    let mut size = (0, 0);
    for (from, to) in from.iter().zip(to).rev() {
        let (width, height) = (from.width, from.height);
        let start = |x: usize, y: usize| {
            if flow.is_empty() {
                return (0.0, 0.0);
            }
            let (u, v) = flow[(y / 2).min(size.1 - 1) * size.0 + (x / 2).min(size.0 - 1)];
            (2.0 * u, 2.0 * v)
        };
        flow = level(from, to, start);
        size = (width, height);
    }
    flow
}

/// One level: searches each patch, and averages the vectors of the patches that cover a pixel, by how well they match there.
fn level(from: &Grey, to: &Grey, start: impl Fn(usize, usize) -> (f32, f32)) -> Vec<(f32, f32)> {
    let (width, height) = (from.width, from.height);
    let mut sums = vec![(0.0_f32, 0.0_f32, 0.0_f32); width * height];
    for top in corners(height) {
        for left in corners(width) {
            let (u, v) = search(from, to, (left, top), start(left + PATCH / 2, top + PATCH / 2));
            for y in top..(top + PATCH).min(height) {
                for x in left..(left + PATCH).min(width) {
                    let at = y * width + x;
                    let difference = to.at(x as f32 + u, y as f32 + v) - from.values[at];
                    let weight = 1.0 / difference.abs().max(1.0);
                    let sum = &mut sums[at];
                    *sum = (sum.0 + weight * u, sum.1 + weight * v, sum.2 + weight);
                }
            }
        }
    }
    sums.into_iter().map(|(u, v, weight)| (u / weight, v / weight)).collect()
}

/// The first pixels of patches that cover a side.
fn corners(side: usize) -> impl Iterator<Item = usize> {
    let last = side.saturating_sub(PATCH);
    (0..last).step_by(STRIDE).chain([last])
}

/// The vector of the patch at `(left, top)`. A search that ends further from its start than a patch found nothing.
fn search(from: &Grey, to: &Grey, (left, top): (usize, usize), start: (f32, f32)) -> (f32, f32) {
    let (width, height) = (from.width, from.height);
    let pixels =
        || (top..(top + PATCH).min(height)).flat_map(|y| (left..(left + PATCH).min(width)).map(move |x| (x, y)));
    let gradient = |x: usize, y: usize| {
        let at = |x: usize, y: usize| from.values[y * width + x];
        let across = at((x + 1).min(width - 1), y) - at(x.saturating_sub(1), y);
        let down = at(x, (y + 1).min(height - 1)) - at(x, y.saturating_sub(1));
        (across / 2.0, down / 2.0)
    };
    let (mut xx, mut xy, mut yy) = (1e-3, 0.0, 1e-3);
    for (x, y) in pixels() {
        let (across, down) = gradient(x, y);
        (xx, xy, yy) = (xx + across * across, xy + across * down, yy + down * down);
    }
    let determinant = xx * yy - xy * xy;
    let (mut u, mut v) = start;
    for _ in 0..STEPS {
        let differences = pixels().map(|(x, y)| to.at(x as f32 + u, y as f32 + v) - from.values[y * width + x]);
        let count = pixels().count() as f32;
        // Without the mean, so that a change of brightness does not count as motion.
        let mean = differences.clone().sum::<f32>() / count;
        let (mut a, mut b) = (0.0, 0.0);
        for ((x, y), difference) in pixels().zip(differences) {
            let (across, down) = gradient(x, y);
            (a, b) = (a + across * (difference - mean), b + down * (difference - mean));
        }
        let step = ((yy * a - xy * b) / determinant, (xx * b - xy * a) / determinant);
        (u, v) = (u - step.0, v - step.1);
        if (u - start.0).hypot(v - start.1) > LOST {
            return start;
        }
        if step.0.hypot(step.1) < 0.01 {
            break;
        }
    }
    (u, v)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A smooth pattern without repetition, moved by `(dx, dy)`.
    fn image(dx: f32, dy: f32) -> Vec<Grey> {
        let (width, height) = (160, 96);
        let value = |n: usize| {
            let (x, y) = ((n % width) as f32 - dx, (n / width) as f32 - dy);
            128.0
                + 40.0 * (x / 7.0 + (y / 23.0).sin()).sin()
                + 40.0 * (y / 9.0 + (x / 31.0).cos()).sin()
                + 30.0 * (x * y / 900.0).sin()
        };
        Grey { width, height, values: (0..width * height).map(value).collect() }.pyramid()
    }

    #[test]
    fn a_shift_is_found() {
        for (dx, dy) in [(0.0, 0.0), (0.4, -0.3), (3.0, 2.0), (-9.5, 4.25)] {
            let (from, to) = (image(0.0, 0.0), image(dx, dy));
            let flow = flow(&from, &to);
            let inner = (20..76).flat_map(|y| (20..140).map(move |x| y * 160 + x));
            let mut errors: Vec<f32> = inner.map(|at| (flow[at].0 - dx).hypot(flow[at].1 - dy)).collect();
            errors.sort_by(f32::total_cmp);
            assert!(errors[errors.len() * 9 / 10] < 0.2, "({dx}, {dy}): {}", errors[errors.len() * 9 / 10]);
        }
    }
}
