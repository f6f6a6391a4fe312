//! The tiles in one direction, on an image in which each tile has its own size.

use std::ops::Range;

/// Share of a tile that the next one overlaps.
const OVERLAP: f64 = 0.12;

/// A weight of 1.
pub(in crate::segment) const ONE: u32 = 256;

/// Where tiles lie in one direction. Lengths are in pixels (of a mask, or of logits) of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::segment) struct TileAxis {
    pub tiles: usize,
    /// The length of a tile.
    pub side: usize,
    overlap: usize,
}

/// The tiles that have a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::segment) struct Place {
    pub first: usize,
    /// The same as the first one outside of overlaps.
    pub second: usize,
    /// The weight of the second tile, up to [`ONE`].
    pub weight: u32,
}

impl TileAxis {
    pub fn new(tiles: usize, side: usize) -> Self {
        let overlap = if tiles > 1 { ((side as f64 * OVERLAP).round() as usize).clamp(1, side.div_ceil(2)) } else { 0 };
        TileAxis { tiles, side, overlap: overlap.min(side.saturating_sub(1)) }
    }

    /// From the beginning of a tile to that of the next one.
    fn step(self) -> usize {
        self.side - self.overlap
    }

    /// The length of all tiles.
    pub fn length(self) -> usize {
        (self.tiles - 1) * self.step() + self.side
    }

    /// The beginning of a tile.
    pub fn origin(self, tile: usize) -> usize {
        tile * self.step()
    }

    /// The tiles at a position.
    pub fn place(self, position: usize) -> Place {
        let second = (position / self.step()).min(self.tiles - 1);
        let inside = position - self.origin(second);
        if second == 0 || inside >= self.overlap {
            return Place { first: second, second, weight: ONE };
        }
        let weight = (2 * inside as u32 + 1) * ONE / (2 * self.overlap as u32);
        Place { first: second - 1, second, weight }
    }

    /// The part of a tile up to the middles of its overlaps, from the beginning of the tile.
    pub fn own(self, tile: usize) -> Range<usize> {
        let start = if tile == 0 { 0 } else { self.overlap / 2 };
        let end = if tile + 1 == self.tiles { self.side } else { self.step() + self.overlap / 2 };
        start..end
    }

    /// The part of an image side of `pixels` that a tile shows: an even start, and a length.
    pub fn shown(self, tile: usize, pixels: usize) -> (usize, usize) {
        let at = |position: usize| position * pixels / self.length();
        let start = (at(self.origin(tile)) & !1).min(pixels.saturating_sub(1) & !1);
        let end = if tile + 1 == self.tiles {
            pixels
        } else {
            at(self.origin(tile) + self.side).next_multiple_of(2).min(pixels)
        };
        (start, end.saturating_sub(start).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_the_whole_length_and_fade_into_each_other() {
        for (tiles, side) in [(1, 256), (2, 256), (3, 144), (4, 5), (4, 2), (2, 1)] {
            let axis = TileAxis::new(tiles, side);
            let owned: usize = (0..tiles).map(|tile| axis.own(tile).len()).sum();
            assert_eq!(owned, axis.length(), "{axis:?}");
            let mut weights = Vec::new();
            for position in 0..axis.length() {
                let Place { first, second, weight } = axis.place(position);
                for tile in [first, second] {
                    let start = axis.origin(tile);
                    assert!((start..start + side).contains(&position), "{axis:?} {position} {tile}");
                }
                let owner = (0..tiles).find(|&tile| axis.own(tile).contains(&position.wrapping_sub(axis.origin(tile))));
                assert_eq!(owner, Some(if weight >= ONE / 2 { second } else { first }), "{axis:?} {position}");
                weights.push(second as u32 * ONE + weight);
            }
            assert!(weights.is_sorted(), "{axis:?}");
        }
    }

    #[test]
    fn tiles_show_overlapping_parts_of_any_frame() {
        for (tiles, side, pixels) in
            [(2, 512, 1920), (3, 288, 1080), (4, 512, 1921), (4, 256, 7), (4, 256, 1), (2, 512, 100)]
        {
            let axis = TileAxis::new(tiles, side);
            let shown: Vec<_> = (0..tiles).map(|tile| axis.shown(tile, pixels)).collect();
            assert_eq!(shown[0].0, 0);
            assert!(shown.iter().all(|(start, length)| start % 2 == 0 && start + length <= pixels), "{shown:?}");
            assert_eq!(shown.last().map(|(start, length)| start + length), Some(pixels));
            assert!(shown.windows(2).all(|two| two[0].0 + two[0].1 >= two[1].0), "{shown:?}");
            if pixels >= 1080 {
                let share = |(_, length): (usize, usize)| length as f64 * axis.length() as f64 / (side * pixels) as f64;
                assert!(shown.iter().all(|&part| (share(part) - 1.0).abs() < 0.02), "{shown:?}");
            }
        }
    }
}
