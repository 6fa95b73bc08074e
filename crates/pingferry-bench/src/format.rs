//! How figures are printed.

/// Prints three digits or more, with commas between thousands.
pub(crate) fn number(value: f64) -> String {
    if value < 99.95 && value.fract() != 0.0 {
        let places = if value < 9.995 { 2 } else { 1 };
        return format!("{value:.places$}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (left, digit) in (0..digits.len()).rev().zip(digits.chars()) {
        text.push(digit);
        if left > 0 && left % 3 == 0 {
            text.push(',');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_significant_digits_or_more() {
        let texts = [0.0, 0.5, 1.234, 12.34, 99.96, 123.4, 1000.0, 1_234_567.8].map(number);
        assert_eq!(texts, ["0", "0.50", "1.23", "12.3", "100", "123", "1,000", "1,234,568"]);
    }
}
