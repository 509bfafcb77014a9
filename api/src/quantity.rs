//! Resource quantities: Go's `resource.Quantity`, its parsing, rounding and canonical form.
//!
//! A value is held as a whole number of nanos, which is the finest Kubernetes keeps.
//!
//! Always holds: printing and parsing again gives the same value and the same text.
//! Source: k8s.io/apimachinery `pkg/api/resource/quantity.go`.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use num_bigint::BigUint;

const NANO: i128 = 1_000_000_000;
/// Kubernetes caps quantities at the largest 64-bit integer.
const MAX: i128 = i64::MAX as i128 * NANO;
/// So many digits are read by machine arithmetic.
const DIGITS_FAST: usize = 18;
/// More digits only round up: they stand far below a nano of the largest quantity.
const DIGITS_KEPT: usize = 80;
/// Beyond this power of ten a value is capped, or less than a nano.
const POWER_MAX: u32 = 160;
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// How a quantity is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `1Ki`
    BinarySi,
    /// `1k`
    DecimalSi,
    /// `1e3`
    DecimalExponent,
}

/// A quantity. Equality and order are those of the value, whatever the format.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity; the messages are Go's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not of the form at all.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The digits are no number.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// No such suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Zero, printed with decimal suffixes.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// A whole number.
    #[must_use]
    pub fn new(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * NANO, format }
    }

    /// A number of thousandths.
    #[must_use]
    pub fn from_milli(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * (NANO / 1000), format }
    }

    /// How it is printed.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The value rounded up to a whole number, as Go's `Value()`.
    #[must_use]
    pub fn value(&self) -> i64 {
        saturate(ceil_away(self.nanos, NANO))
    }

    /// The value in thousandths, rounded up, as Go's `MilliValue()`.
    #[must_use]
    pub fn milli_value(&self) -> i64 {
        saturate(ceil_away(self.nanos, NANO / 1000))
    }

    /// Whether the value is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    #[must_use]
    pub fn sign(&self) -> i32 {
        match self.nanos.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }
    }

    /// The sum; a zero takes over the other's format, as in Go.
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "callers would have to import the operator's trait to name it")]
    pub fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }

    /// The difference; a zero takes over the other's format, as in Go.
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "callers would have to import the operator's trait to name it")]
    pub fn sub(self, other: Self) -> Self {
        self.add(Self { nanos: -other.nanos, format: other.format })
    }

    /// Rounded up to thousandths, which is what Kubernetes keeps of resource lists.
    #[must_use]
    pub fn round_up_milli(self) -> Self {
        let milli = NANO / 1000;
        Self { nanos: ceil_away(self.nanos, milli).saturating_mul(milli), format: self.format }
    }
}

/// Divides, rounding away from zero.
fn ceil_away(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 { quotient } else { quotient + value.signum() }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let end = unsigned.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        if !number.contains(|c: char| c.is_ascii_digit()) || !well_formed_suffix(suffix) {
            return Err(QuantityError::Format);
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') {
            return Err(QuantityError::Numeric);
        }
        let (binary, exponent, format) = interpret(suffix)?;
        let size = magnitude(whole, fraction.trim_end_matches('0'), binary, exponent);
        let below_one = size > 0 && size < NANO;
        let format = if format == Format::BinarySi && below_one { Format::DecimalSi } else { format };
        Ok(Self { nanos: if text.starts_with('-') { -size } else { size }, format })
    }
}

fn well_formed_suffix(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    rest.chars().all(|c| c.is_ascii_digit())
}

/// The power of two and the power of ten a suffix multiplies by.
fn interpret(suffix: &str) -> Result<(u32, i32, Format), QuantityError> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((0, *exponent, Format::DecimalSi));
    }
    if let Some((_, bits)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Ok((*bits, 0, Format::BinarySi));
    }
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let exponent: i64 = digits.parse().map_err(|_| QuantityError::Suffix)?;
    // Beyond these bounds every value is capped or rounds to a nano anyway.
    Ok((0, exponent.clamp(-1000, 1000) as i32, Format::DecimalExponent))
}

/// The size in nanos, rounded up to a nano and capped.
fn magnitude(whole: &str, fraction: &str, bits: u32, exponent: i32) -> i128 {
    let digits = whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0');
    let digits: Vec<u8> = digits.skip_while(|digit| *digit == 0).collect();
    // The value is `digits` * 2^bits * 10^scale nanos.
    let scale = exponent + 9 - i32::try_from(fraction.len()).unwrap_or(i32::MAX / 2);
    if digits.len() > DIGITS_FAST {
        return large(digits, bits, scale);
    }
    // 10^18 * 2^60 fits.
    let mut value = digits.iter().fold(0_i128, |sum, digit| sum * 10 + i128::from(*digit)) << bits;
    let mut lost = false;
    for _ in 0..scale {
        if value == 0 || value > MAX {
            break;
        }
        value *= 10;
    }
    for _ in scale..0 {
        lost |= value % 10 != 0;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    (value + i128::from(lost)).min(MAX)
}

/// The same, of more digits than a machine's numbers hold.
fn large(mut digits: Vec<u8>, bits: u32, mut scale: i32) -> i128 {
    let rest = digits.split_off(digits.len().min(DIGITS_KEPT));
    scale = scale.saturating_add(i32::try_from(rest.len()).unwrap_or(i32::MAX));
    let lost = rest.iter().any(|digit| *digit != 0);
    let value = digits.iter().fold(BigUint::ZERO, |sum, digit| sum * 10_u8 + *digit) << bits;
    let power = BigUint::from(10_u8).pow(scale.unsigned_abs().min(POWER_MAX));
    let (nanos, lost) = if scale > 0 {
        (value * power, lost)
    } else {
        let lost = lost || (&value % &power) != BigUint::ZERO;
        (value / power, lost)
    };
    // What doesn't fit is beyond the cap.
    i128::try_from(nanos).map_or(MAX, |nanos| nanos.saturating_add(i128::from(lost)).min(MAX))
}

impl fmt::Display for Quantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return out.write_str("0");
        }
        let whole = self.nanos / NANO;
        if self.format == Format::BinarySi && self.nanos % NANO == 0 && whole.abs() >= 1024 {
            let steps = (whole.trailing_zeros() / 10).min(6);
            let suffix = if steps == 0 { "" } else { BINARY[steps as usize - 1].0 };
            return write!(out, "{}{suffix}", whole >> (10 * steps));
        }
        let (mut mantissa, mut exponent) = (self.nanos, -9);
        while mantissa % 1000 == 0 && exponent < 18 {
            mantissa /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            if exponent == 0 { write!(out, "{mantissa}") } else { write!(out, "{mantissa}e{exponent}") }
        } else {
            let suffix = DECIMAL.iter().find(|(_, power)| *power == exponent).map_or("", |(suffix, _)| suffix);
            write!(out, "{mantissa}{suffix}")
        }
    }
}
