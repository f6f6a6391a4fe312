//! Connected components of label images: areas of equal labels whose pixels touch at sides or corners.

/// A connected component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Component {
    /// The label of its pixels.
    pub label: u8,
    /// The number of its pixels.
    pub area: usize,
    /// The first and the last row that it touches.
    pub top: usize,
    pub bottom: usize,
}

impl Component {
    /// Its height in pixels.
    pub fn height(&self) -> usize {
        self.bottom - self.top + 1
    }
}

/// The components of a label image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Components {
    /// The component of each pixel, as an index into `list`, `[height, width]`.
    pub of_pixel: Vec<u32>,
    /// In the order of their first pixels.
    pub list: Vec<Component>,
}

impl Components {
    /// Finds the components of `labels`, `[height, width]`, by two passes with union-find (Rosenfeld and Pfaltz, Sequential
    /// Operations in Digital Picture Processing, 1966).
    ///
    /// # Panics
    /// `labels` is not a whole number of rows.
    pub fn of(labels: &[u8], width: usize) -> Self {
        assert!(width > 0 && labels.len().is_multiple_of(width), "whole rows");
        let mut parents: Vec<u32> = Vec::new();
        let mut of_pixel = vec![0u32; labels.len()];
        for (at, &label) in labels.iter().enumerate() {
            let (x, y) = (at % width, at / width);
            // The neighbours that have been visited: left, and the three above.
            let neighbours = [
                (x > 0).then(|| at - 1),
                (y > 0 && x > 0).then(|| at - width - 1),
                (y > 0).then(|| at - width),
                (y > 0 && x + 1 < width).then(|| at - width + 1),
            ];
            let mut own = None;
            for neighbour in neighbours.into_iter().flatten().filter(|&neighbour| labels[neighbour] == label) {
                let root = find(&mut parents, of_pixel[neighbour]);
                match own {
                    None => own = Some(root),
                    Some(other) => {
                        // The smaller index is the root, so that components are in the order of their first pixels.
                        let (low, high) = (root.min(other), root.max(other));
                        parents[high as usize] = low;
                        own = Some(low);
                    }
                }
            }
            of_pixel[at] = own.unwrap_or_else(|| {
                parents.push(parents.len() as u32);
                parents.len() as u32 - 1
            });
        }
        let mut numbers = vec![u32::MAX; parents.len()];
        let mut list: Vec<Component> = Vec::new();
        for (at, component) in of_pixel.iter_mut().enumerate() {
            let row = at / width;
            let number = &mut numbers[find(&mut parents, *component) as usize];
            if *number == u32::MAX {
                *number = list.len() as u32;
                list.push(Component { label: labels[at], area: 0, top: row, bottom: row });
            }
            *component = *number;
            let found = &mut list[*number as usize];
            found.area += 1;
            found.bottom = row;
        }
        Components { of_pixel, list }
    }
}

/// The root of a component. Shortens the path to it.
fn find(parents: &mut [u32], mut of: u32) -> u32 {
    while parents[of as usize] != of {
        parents[of as usize] = parents[parents[of as usize] as usize];
        of = parents[of as usize];
    }
    of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_that_touch_at_corners_are_one_component() {
        #[rustfmt::skip]
        let labels = [
            1, 0, 1, 0,
            0, 1, 0, 0,
            2, 0, 0, 1,
        ];
        let components = Components::of(&labels, 4);
        let facts: Vec<_> = components.list.iter().map(|c| (c.label, c.area, c.top, c.bottom, c.height())).collect();
        assert_eq!(facts, [(1, 3, 0, 1, 2), (0, 7, 0, 2, 3), (2, 1, 2, 2, 1), (1, 1, 2, 2, 1)]);
        assert_eq!(components.of_pixel, [0, 1, 0, 1, 1, 0, 1, 1, 2, 1, 1, 3]);
    }

    #[test]
    fn arms_that_meet_below_are_one_component() {
        #[rustfmt::skip]
        let labels = [
            1, 0, 1, 0, 1,
            1, 0, 1, 0, 1,
            1, 1, 1, 1, 1,
        ];
        let components = Components::of(&labels, 5);
        assert_eq!(components.list.iter().map(|c| (c.label, c.area)).collect::<Vec<_>>(), [(1, 11), (0, 2), (0, 2)]);
    }
}
