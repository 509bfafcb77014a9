//! Canonical forms and rounding, as the tables of Go's own tests have them.

use proptest::prelude::*;

use super::*;
use seeded_bugs::assert_noticed;

fn canonical(text: &str) -> String {
    text.parse::<Quantity>().map_or_else(|error| format!("error: {error}"), |quantity| quantity.to_string())
}

#[test]
fn canonical_forms() {
    for (text, want) in [
        ("0", "0"),
        ("0n", "0"),
        ("0Mi", "0"),
        ("-0", "0"),
        ("1", "1"),
        ("1000m", "1"),
        ("0.5", "500m"),
        ("100m", "100m"),
        ("1024Mi", "1Gi"),
        ("1Ki", "1Ki"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("0.25", "250m"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("1000", "1k"),
        ("12345", "12345"),
        ("100000", "100k"),
        ("1000000k", "1G"),
        ("0.0001n", "1n"),
        ("0.1n", "1n"),
        ("1.1n", "2n"),
        ("-1.1n", "-2n"),
        ("12.3m", "12300u"),
        ("1E", "1E"),
        ("3Ei", "3Ei"),
        ("1e-3", "1e-3"),
        (".5", "500m"),
        ("5.", "5"),
        ("+5", "5"),
        ("-5Mi", "-5Mi"),
        ("1025", "1025"),
        ("1023Ki", "1023Ki"),
        ("0.001Ki", "1024m"),
        ("9223372036854775807", "9223372036854775807"),
        ("1e100", "9223372036854775807e0"),
        ("100Ei", "9223372036854775807"),
        ("123456789012345678901234567890n", "9223372036854775807"),
        ("3074457345618258602589805231n", "3074457345618258602589805231n"),
        ("2.6666666666666666666666666666Ei", "3074457345618258602666666667n"),
        ("0.00000000000000000000000000000000001Ei", "1n"),
        ("1000000000000000000000000000000e-30", "1e0"),
    ] {
        let want = want.replace("e0", "");
        assert_eq!(canonical(text), want, "{text}");
    }
}

#[test]
fn errors_are_gos() {
    for (text, want) in [
        ("", QuantityError::Format),
        ("abc", QuantityError::Format),
        ("1 ", QuantityError::Format),
        ("1.2.3", QuantityError::Numeric),
        ("1mm", QuantityError::Suffix),
        ("1K", QuantityError::Suffix),
        ("--1", QuantityError::Format),
        ("1i", QuantityError::Suffix),
    ] {
        assert_eq!(text.parse::<Quantity>().unwrap_err(), want, "{text:?}");
    }
}

#[test]
fn values_round_up() {
    let q = |text: &str| text.parse::<Quantity>().unwrap();
    assert_eq!((q("1m").value(), q("1500m").value(), q("-1500m").value()), (1, 2, -2));
    assert_eq!((q("1.0001").milli_value(), q("2Ki").milli_value()), (1001, 2_048_000));
    assert_eq!(q("1Gi").add(q("1G")).to_string(), "2073741824");
    assert_eq!(q("1Gi").sub(q("512Mi")).to_string(), "512Mi");
    assert_eq!(q("0").add(q("1Mi")).to_string(), "1Mi");
    assert!(q("1000m") == q("1") && q("1Ki") > q("1k"));
    assert_eq!(q("1.0001").round_up_milli().to_string(), "1001m");
}

/// What a reference may get wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    RoundsDown,
    KiIsAThousand,
    HasNoLimit,
    PrintsNoSuffix,
}

/// Its sign, the digits before and after the point, and what follows them.
type Parts = (&'static str, String, String, &'static str);

fn text_of((sign, whole, fraction, suffix): &Parts) -> String {
    format!("{sign}{whole}.{fraction}{suffix}")
}

fn sign() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "-", "+"])
}

fn short() -> impl Strategy<Value = Parts> {
    let suffixes = vec!["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "e-3", "e6"];
    (sign(), "[0-9]{1,30}", "[0-9]{0,12}", prop::sample::select(suffixes))
}

fn long() -> impl Strategy<Value = Parts> {
    let suffixes = vec!["", "n", "u", "m", "k", "E", "Ki", "Mi", "Ti", "Ei", "e9", "e-12"];
    (sign(), "[0-9]{1,40}", "[0-9]{0,40}", prop::sample::select(suffixes))
}

fn is_a_fixed_point(parts: Parts, bug: Option<Bug>) -> Result<(), TestCaseError> {
    let first: Quantity = text_of(&parts).parse().unwrap();
    let mut printed = first.to_string();
    if bug == Some(Bug::PrintsNoSuffix) {
        printed.retain(|letter| !letter.is_ascii_alphabetic());
    }
    let again: Quantity = printed.parse().unwrap();
    prop_assert_eq!(first, again);
    prop_assert_eq!(first.to_string(), again.to_string());
    Ok(())
}

/// What a number is multiplied with and divided by, for a suffix.
fn scale(suffix: &str, bug: Option<Bug>) -> (BigUint, BigUint) {
    let ten = |power: u32| BigUint::from(10_u8).pow(power);
    match suffix {
        "n" => (ten(0), ten(9)),
        "u" => (ten(0), ten(6)),
        "m" => (ten(0), ten(3)),
        "k" => (ten(3), ten(0)),
        "E" => (ten(18), ten(0)),
        "e9" => (ten(9), ten(0)),
        "e-12" => (ten(0), ten(12)),
        "Ki" if bug == Some(Bug::KiIsAThousand) => (ten(3), ten(0)),
        "Ki" => (BigUint::from(1_u8) << 10, ten(0)),
        "Mi" => (BigUint::from(1_u8) << 20, ten(0)),
        "Ti" => (BigUint::from(1_u8) << 40, ten(0)),
        "Ei" => (BigUint::from(1_u8) << 60, ten(0)),
        _ => (ten(0), ten(0)),
    }
}

fn is_exact(parts: Parts, bug: Option<Bug>) -> Result<(), TestCaseError> {
    let (sign, whole, fraction, suffix) = &parts;
    let (times, over) = scale(suffix, bug);
    let ten = |power: u32| BigUint::from(10_u8).pow(power);
    let digits: BigUint = format!("{whole}{fraction}").parse().expect("digits");
    let (above, below) = (digits * times * ten(9), over * ten(fraction.len() as u32));
    let nanos = if bug == Some(Bug::RoundsDown) { above / below } else { (above + &below - 1_u8) / below };
    let most = if bug == Some(Bug::HasNoLimit) { i128::MAX } else { MAX };
    let size = i128::try_from(nanos).unwrap_or(most).min(most);
    let quantity: Quantity = text_of(&parts).parse().unwrap();
    prop_assert_eq!(quantity.nanos, if *sign == "-" { -size } else { size }, "{}", text_of(&parts));
    Ok(())
}

proptest! {
    /// Printing and parsing again changes nothing.
    #[test]
    fn canonical_form_is_a_fixed_point(parts in short()) {
        is_a_fixed_point(parts, None)?;
    }

    /// Whatever the digits and the suffix: the exact number of nanos, rounded up, as fractions of whole numbers say.
    #[test]
    fn values_are_exact(parts in long()) {
        is_exact(parts, None)?;
    }

    /// Nothing makes the parser panic.
    #[test]
    fn parser_is_total(text in "[-+]?[0-9.]{0,40}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,25}") {
        let _ = text.parse::<Quantity>().map(|quantity| quantity.to_string());
    }
}

/// A form that is something else when it is read again is found, and so is a fraction that is off.
#[test]
fn a_wrong_number_is_noticed() {
    assert_noticed(&[Bug::PrintsNoSuffix], &short(), is_a_fixed_point);
    assert_noticed(&[Bug::RoundsDown, Bug::KiIsAThousand, Bug::HasNoLimit], &long(), is_exact);
}
