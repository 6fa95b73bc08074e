//! Quantiles and spread of the few values that the rounds give. Round-trip times are in a histogram instead.

/// The value below which the share `quantile` (0 to 1) of the values lies, interpolated linearly between neighbours;
/// `None` without values.
pub(crate) fn quantile(values: &[f64], quantile: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let position = quantile * sorted.len().checked_sub(1)? as f64;
    let lower = sorted.get(position.floor() as usize)?;
    let upper = sorted.get(position.ceil() as usize)?;
    Some(lower + (upper - lower) * position.fract())
}

/// The middle value, or the mean of the two in the middle; `None` without values.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The range of the values relative to their median: (max − min) / median. It is 0 for fewer than two values.
pub(crate) fn spread(values: &[f64]) -> f64 {
    match (median(values), quantile(values, 0.0), quantile(values, 1.0)) {
        (Some(median), Some(min), Some(max)) if median > 0.0 => (max - min) / median,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_order_and_extremes() {
        assert_eq!(median(&[9000.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 900.0]), Some(3.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn quantiles_lie_between_the_neighbours() {
        let values = [5.0, 1.0, 2.0, 4.0, 3.0];
        assert_eq!([0.0, 0.25, 0.75, 1.0].map(|share| quantile(&values, share)), [1.0, 2.0, 4.0, 5.0].map(Some));
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.25), Some(1.75));
        assert_eq!(quantile(&[7.0], 0.75), Some(7.0));
    }

    #[test]
    fn the_spread_is_relative_to_the_median() {
        assert_eq!(spread(&[90.0, 100.0, 120.0]), 0.3);
        assert_eq!(spread(&[5.0]), 0.0);
        assert_eq!(spread(&[]), 0.0);
    }
}
