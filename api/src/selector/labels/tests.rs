use super::*;
use expect_test::expect;
use proptest::prelude::*;

fn labels(text: &str) -> BTreeMap<String, String> {
    text.split(',').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[test]
fn selectors_read_print_and_match() {
    let mut out = String::new();
    for text in
        ["", "a=b", "a==b,c!=d", "x in (a, b),!y", "x notin (a)", "z", "n>3", "x in (,a)", "a=", "a=b,", "in in (in)"]
    {
        let shown = match parse(text) {
            Err(error) => format!("error: {error}"),
            Ok(s) => format!(
                "{s} | {}",
                ["a=b", "x=a,n=4", "y=1,z=,in=in"].map(|l| if s.matches(&labels(l)) { "y" } else { "n" }).join("")
            ),
        };
        out.push_str(&format!("[{text}] {shown}\n"));
    }
    expect![[r#"
        []  | yyy
        [a=b] a=b | ynn
        [a==b,c!=d] a=b,c!=d | ynn
        [x in (a, b),!y] x in (a,b),!y | nyn
        [x notin (a)] x notin (a) | yny
        [z] z | nny
        [n>3] n>3 | nyn
        [x in (,a)] x in (,a) | nyn
        [a=] a= | nnn
        [a=b,] error: found '', expected: identifier after ','
        [in in (in)] in in (in) | nny
    "#]]
    .assert_eq(&out);
}

#[test]
fn what_cannot_be_read_is_refused() {
    for text in ["a b", "=b", "x in a", "x in (a", "a=b c=d", "-a=b", "a=-", "n>x"] {
        assert!(parse(text).is_err(), "{text}");
    }
}

/// What a requirement means, of a label's value and the requirement's own.
type Meaning = fn(Option<&str>, &[String]) -> bool;

/// A requirement's text, and what it means, said plainly.
fn requirement() -> impl Strategy<Value = (String, Meaning, u8, Vec<String>)> {
    let value = || prop::sample::select(vec!["a", "b", "1", "2", "10", "03", ""]);
    let forms: Vec<(&str, Meaning)> = vec![
        ("K=V", |have, values| have == Some(values[0].as_str())),
        ("K==V", |have, values| have == Some(values[0].as_str())),
        ("K!=V", |have, values| have != Some(values[0].as_str())),
        ("K in (L)", |have, values| have.is_some_and(|have| values.iter().any(|value| value == have))),
        ("K notin (L)", |have, values| !have.is_some_and(|have| values.iter().any(|value| value == have))),
        ("K", |have, _| have.is_some()),
        ("!K", |have, _| have.is_none()),
        ("K>N", |have, values| have.and_then(|have| have.parse::<i64>().ok()).is_some_and(|have| have > size(values))),
        ("K<N", |have, values| have.and_then(|have| have.parse::<i64>().ok()).is_some_and(|have| have < size(values))),
    ];
    let values = prop::collection::vec(value().prop_map(str::to_owned), 1..4);
    (prop::sample::select(forms), 0..3_u8, values).prop_map(|((form, meaning), key, values)| {
        let text = form
            .replace('K', &format!("k{key}"))
            .replace('V', &values[0])
            .replace('L', &values.join(","))
            .replace('N', &size(&values).to_string());
        (text, meaning, key, values)
    })
}

/// The number that an inequality compares with.
fn size(values: &[String]) -> i64 {
    values.len() as i64
}

proptest! {
    /// Every requirement of every form, alone and together, and read again from what it prints.
    #[test]
    fn selectors_mean_what_they_say(
        requirements in prop::collection::vec(requirement(), 0..4),
        have in prop::collection::btree_map(0..3_u8, prop::sample::select(vec!["a", "b", "1", "2", "10", "03", ""]), 0..4),
    ) {
        let text = requirements.iter().map(|(text, ..)| text.as_str()).collect::<Vec<_>>().join(",");
        let expected = requirements.iter().all(|(_, meaning, key, values)| meaning(have.get(key).copied(), values));
        let labels = have.iter().map(|(key, value)| (format!("k{key}"), (*value).to_owned())).collect();
        let selector = parse(&text).expect("it is well formed");
        prop_assert_eq!(selector.matches(&labels), expected, "{}", text);
        let again = parse(&selector.to_string()).expect("what it prints");
        prop_assert_eq!(again.matches(&labels), expected, "{} printed as {}", text, selector);
    }
}
