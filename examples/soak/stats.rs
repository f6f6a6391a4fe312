//! Robust statistics of short series.

/// The quantile `share` of `values` (nearest rank); `None` without values.
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The Theil–Sen slope of points `(x, y)`: the median of the slopes of all pairs, which is robust against up to 29 % of
/// outliers (Sen, J. Am. Stat. Assoc. 63, 1968). `None` with fewer than two different x.
pub fn theil_sen(points: &[(f64, f64)]) -> Option<f64> {
    let pairs = points.iter().enumerate().flat_map(|(n, a)| points[n + 1..].iter().map(move |b| (a, b)));
    let slopes: Vec<f64> = pairs.filter(|(a, b)| b.0 != a.0).map(|(a, b)| (b.1 - a.1) / (b.0 - a.0)).collect();
    quantile(&slopes, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_of_the_series() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!([0.0, 0.5, 0.95, 1.0].map(|share| quantile(&values, share)), [1.0, 3.0, 5.0, 5.0].map(Some));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn outliers_do_not_change_the_slope() {
        let mut points: Vec<_> = (0..40).map(|n| (f64::from(n), 2.0 * f64::from(n) + 1.0)).collect();
        for at in [3, 17, 18, 30, 39] {
            points[at].1 += 1000.0;
        }
        let slope = theil_sen(&points).unwrap();
        assert!((slope - 2.0).abs() < 0.2, "{slope}");
        assert_eq!(theil_sen(&[(1.0, 2.0), (1.0, 3.0)]), None);
    }
}
