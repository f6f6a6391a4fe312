//! Puts the results of tiles together.

use super::axis::{ONE, Place, TileAxis};
use crate::frame::Tiles;

/// The tiles of a frame on one image, row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::segment) struct TileCanvas {
    pub across: TileAxis,
    pub down: TileAxis,
}

impl TileCanvas {
    /// For tiles of `width` × `height`.
    pub fn new(tiles: Tiles, (width, height): (usize, usize)) -> Self {
        TileCanvas { across: TileAxis::new(tiles.columns, width), down: TileAxis::new(tiles.rows, height) }
    }

    /// Width and height of all tiles together.
    pub fn size(&self) -> (usize, usize) {
        (self.across.length(), self.down.length())
    }

    /// Columns and rows of the tiles, in their order.
    pub fn tiles(&self) -> impl Iterator<Item = (usize, usize)> {
        let columns = self.across.tiles;
        (0..self.down.tiles).flat_map(move |row| (0..columns).map(move |column| (column, row)))
    }

    /// One image of `tiles`, which change over in the middle of their overlaps.
    pub fn switched<T: Copy + Default>(&self, tiles: &[&[T]]) -> Vec<T> {
        let (width, height) = self.size();
        let mut image = vec![T::default(); width * height];
        for ((column, row), tile) in self.tiles().zip(tiles) {
            let (left, top) = (self.across.origin(column), self.down.origin(row));
            let own = self.across.own(column);
            for y in self.down.own(row) {
                image[(top + y) * width + left..][own.clone()]
                    .copy_from_slice(&tile[y * self.across.side..][own.clone()]);
            }
        }
        image
    }

    /// One image of logits, with `classes` bytes for each pixel, of the logits of the tiles and of the whole frame. All have the same size.
    pub fn blended(&self, classes: usize, tiles: &[&[u8]], whole: Option<&[u8]>) -> Vec<u8> {
        let (width, height) = self.size();
        let mut image = vec![0; width * height * classes];
        let across: Vec<Place> = (0..width).map(|x| self.across.place(x)).collect();
        let pixel = |tile: &'_ [u8], y: usize, x: usize| -> usize {
            debug_assert!(tile.len() >= (y * self.across.side + x + 1) * classes);
            (y * self.across.side + x) * classes
        };
        let mut sums = vec![0_u32; classes];
        for (y, row) in image.chunks_exact_mut(width * classes).enumerate() {
            let down = self.down.place(y);
            for (x, out) in row.chunks_exact_mut(classes).enumerate() {
                let across = across[x];
                let source = |tile_row: usize, tile_column: usize| {
                    let tile = tiles[tile_row * self.across.tiles + tile_column];
                    let start = pixel(tile, y - self.down.origin(tile_row), x - self.across.origin(tile_column));
                    &tile[start..start + classes]
                };
                if across.first == across.second && down.first == down.second {
                    out.copy_from_slice(source(down.first, across.first));
                    continue;
                }
                sums.fill(0);
                for (tile_row, down) in [(down.first, ONE - down.weight), (down.second, down.weight)] {
                    for (tile_column, across) in [(across.first, ONE - across.weight), (across.second, across.weight)] {
                        if down * across > 0 {
                            let logits = source(tile_row, tile_column);
                            sums.iter_mut()
                                .zip(logits)
                                .for_each(|(sum, &byte)| *sum += down * across * u32::from(byte));
                        }
                    }
                }
                // Up to a half in the middle of an overlap.
                let share = [across, down].map(|place| place.weight.min(ONE - place.weight));
                let share = share[0].max(share[1]);
                let whole = whole.map(|whole| {
                    let at = |position: usize, side: usize, length: usize| (2 * position + 1) * side / (2 * length);
                    let start = pixel(whole, at(y, self.down.side, height), at(x, self.across.side, width));
                    &whole[start..start + classes]
                });
                for (class, (out, sum)) in out.iter_mut().zip(&sums).enumerate() {
                    let mixed = match whole {
                        Some(whole) => (sum / ONE * (ONE - share) + u32::from(whole[class]) * ONE * share) / ONE,
                        None => sum / ONE,
                    };
                    *out = ((mixed + ONE / 2) / ONE).min(255) as u8;
                }
            }
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tiles of an image of `canvas` with one value for each pixel.
    fn cut<T: Copy>(canvas: &TileCanvas, values: usize, image: &[T]) -> Vec<Vec<T>> {
        let width = canvas.size().0;
        let tile = |(column, row): (usize, usize)| {
            let (left, top) = (canvas.across.origin(column), canvas.down.origin(row));
            let rows = (top..top + canvas.down.side)
                .map(|y| &image[(y * width + left) * values..][..canvas.across.side * values]);
            rows.flatten().copied().collect()
        };
        canvas.tiles().map(tile).collect()
    }

    #[test]
    fn tiles_of_an_image_become_the_image() {
        for (columns, rows) in [(1, 1), (2, 2), (3, 1), (4, 3)] {
            let canvas = TileCanvas::new(Tiles { columns, rows }, (40, 30));
            let (width, height) = canvas.size();
            let image: Vec<u16> = (0..width * height).map(|at| at as u16).collect();
            let tiles = cut(&canvas, 1, &image);
            let tiles: Vec<&[u16]> = tiles.iter().map(Vec::as_slice).collect();
            assert_eq!(canvas.switched(&tiles), image);
            let logits: Vec<u8> = (0..width * height * 3).map(|at| (at * 7 % 251) as u8).collect();
            let tiles = cut(&canvas, 3, &logits);
            let tiles: Vec<&[u8]> = tiles.iter().map(Vec::as_slice).collect();
            assert_eq!(canvas.blended(3, &tiles, None), logits);
        }
    }

    #[test]
    fn logits_fade_from_tile_to_tile_and_the_whole_frame_counts_in_overlaps() {
        let canvas = TileCanvas::new(Tiles { columns: 2, rows: 1 }, (100, 4));
        let tiles = [vec![50_u8; 400], vec![150; 400]];
        let tiles: Vec<&[u8]> = tiles.iter().map(Vec::as_slice).collect();
        let row = |whole: Option<&[u8]>| canvas.blended(1, &tiles, whole)[..canvas.size().0].to_vec();
        let faded = row(None);
        assert!(faded.is_sorted() && faded[87] == 50 && faded[100] == 150, "{faded:?}");
        assert!(faded.windows(2).all(|two| two[1] - two[0] <= 10), "{faded:?}");
        let whole = row(Some(&[250; 400]));
        assert_eq!((whole[80], whole[105]), (50, 150));
        let middle = whole[88..100].iter().copied().max();
        assert!(middle.is_some_and(|middle| (165..=180).contains(&middle)), "{whole:?}");
    }
}
