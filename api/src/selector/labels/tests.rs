use super::*;
use expect_test::expect;
use proptest::prelude::*;
use seeded_bugs::assert_noticed;

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

/// What a requirement may be taken to mean that it doesn't.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    UnequalWantsTheLabel,
    NotInWantsTheLabel,
    GreaterOrEqual,
}

/// One requirement of a form, by the number of its key.
#[derive(Debug, Clone)]
struct Wanted {
    form: &'static str,
    key: u8,
    values: Vec<String>,
}

impl Wanted {
    fn text(&self) -> String {
        self.form
            .replace('K', &format!("k{}", self.key))
            .replace('V', &self.values[0])
            .replace('L', &self.values.join(","))
            .replace('N', &self.size().to_string())
    }

    /// The number that an inequality compares with.
    fn size(&self) -> i64 {
        self.values.len() as i64
    }

    /// What it means, said plainly.
    fn holds(&self, have: Option<&str>, bug: Option<Bug>) -> bool {
        let is_first = have == Some(self.values[0].as_str());
        let is_listed = have.is_some_and(|have| self.values.iter().any(|value| value == have));
        let number = have.and_then(|have| have.parse::<i64>().ok());
        match self.form {
            "K=V" | "K==V" => is_first,
            "K!=V" if bug == Some(Bug::UnequalWantsTheLabel) => have.is_some() && !is_first,
            "K!=V" => !is_first,
            "K in (L)" => is_listed,
            "K notin (L)" if bug == Some(Bug::NotInWantsTheLabel) => have.is_some() && !is_listed,
            "K notin (L)" => !is_listed,
            "K" => have.is_some(),
            "!K" => have.is_none(),
            "K>N" if bug == Some(Bug::GreaterOrEqual) => number.is_some_and(|have| have >= self.size()),
            "K>N" => number.is_some_and(|have| have > self.size()),
            "K<N" => number.is_some_and(|have| have < self.size()),
            other => unreachable!("no form: {other}"),
        }
    }
}

fn value() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "1", "2", "10", "03", ""])
}

fn requirement() -> impl Strategy<Value = Wanted> {
    let forms = vec!["K=V", "K==V", "K!=V", "K in (L)", "K notin (L)", "K", "!K", "K>N", "K<N"];
    let values = prop::collection::vec(value().prop_map(str::to_owned), 1..4);
    (prop::sample::select(forms), 0..3_u8, values).prop_map(|(form, key, values)| Wanted { form, key, values })
}

/// Requirements, and the labels of an object.
fn case() -> impl Strategy<Value = (Vec<Wanted>, BTreeMap<u8, &'static str>)> {
    (prop::collection::vec(requirement(), 0..4), prop::collection::btree_map(0..3_u8, value(), 0..4))
}

fn means_what_it_says(
    (requirements, have): (Vec<Wanted>, BTreeMap<u8, &'static str>),
    bug: Option<Bug>,
) -> Result<(), TestCaseError> {
    let text = requirements.iter().map(Wanted::text).collect::<Vec<_>>().join(",");
    let expected = requirements.iter().all(|wanted| wanted.holds(have.get(&wanted.key).copied(), bug));
    let labels = have.iter().map(|(key, value)| (format!("k{key}"), (*value).to_owned())).collect();
    let selector = parse(&text).expect("it is well formed");
    prop_assert_eq!(selector.matches(&labels), expected, "{}", text);
    let again = parse(&selector.to_string()).expect("what it prints");
    prop_assert_eq!(again.matches(&labels), expected, "{} printed as {}", text, selector);
    Ok(())
}

proptest! {
    /// Every requirement of every form, alone and together, and read again from what it prints.
    #[test]
    fn selectors_mean_what_they_say(case in case()) {
        means_what_it_says(case, None)?;
    }
}

/// A form that is taken for another is found.
#[test]
fn a_wrong_meaning_is_noticed() {
    let bugs = [Bug::UnequalWantsTheLabel, Bug::NotInWantsTheLabel, Bug::GreaterOrEqual];
    assert_noticed(&bugs, &case(), means_what_it_says);
}
