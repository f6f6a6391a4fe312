//! The interpolated indicator of a class.

/// Weights of the cells before, at, and behind a position, which is `t` cells from the centre of its cell (-1/2 to 1/2): the
/// quadratic B-spline.
pub(super) fn weights(t: f32) -> [f32; 3] {
    [0.5 * (0.5 - t) * (0.5 - t), 0.75 - t * t, 0.5 * (0.5 + t) * (0.5 + t)]
}

/// Which of the 3×3 cells around a cell have a class: bit `3 * column + row`, from the left and from above.
pub(super) type Pattern = u16;

/// Number of patterns.
pub(super) const PATTERNS: usize = 512;

/// The pattern of a class that has all cells.
pub(super) const ALL_CELLS: Pattern = PATTERNS as Pattern - 1;

/// The values of the eight possible columns of a pattern in a pixel row, from the weights of that row.
pub(super) fn column_values(rows: [f32; 3]) -> [f32; 8] {
    std::array::from_fn(|column| (0..3).filter(|row| column >> row & 1 == 1).map(|row| rows[row]).sum())
}

/// The value of a pattern at a pixel, from 0 (the class is not near) to 1 (only the class is near).
pub(super) fn value(pattern: usize, column_values: &[f32; 8], columns: [f32; 3]) -> f32 {
    let column = |n: usize| columns[n] * column_values[pattern >> (3 * n) & 7];
    column(0) + column(1) + column(2)
}

/// The distance in cells from a straight border, where the leading class leads by `lead` (0 to 1): at a distance of `d` cells, the
/// lead is `2d - d²`. Leads end one cell from the border.
pub(super) fn distance(lead: f32) -> f32 {
    1.0 - (1.0 - lead).max(0.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one_and_meet_at_the_borders_of_cells() {
        for step in 0..=20 {
            let t = step as f32 / 20.0 - 0.5;
            assert!((weights(t).iter().sum::<f32>() - 1.0).abs() < 1e-6, "{t}");
        }
        let ([_, a, b], [c, d, _]) = (weights(0.5), weights(-0.5));
        assert_eq!((a, b), (c, d));
    }

    #[test]
    fn the_lead_gives_the_distance_from_a_straight_border() {
        // The left column and the middle one have the class: the border is at t = 0.5.
        let pattern = 0b000_111_111;
        for step in 0..=20 {
            let t = step as f32 / 20.0 - 0.5;
            let value = value(pattern, &column_values(weights(0.1)), weights(t));
            assert!((distance(2.0 * value - 1.0) - (0.5 - t)).abs() < 1e-3, "{t}: {value}");
        }
    }
}
