//! Names: what may be called what, and how Kubernetes says that it may not.
//!
//! Always holds: a check returns every objection, in Kubernetes' words and order; none means valid.
//! Source: k8s.io/apimachinery `pkg/util/validation/validation.go`.

/// The longest DNS label.
pub const LABEL_LENGTH_MAX_BYTES: usize = 63;
/// The longest DNS subdomain.
pub const SUBDOMAIN_LENGTH_MAX_BYTES: usize = 253;
/// The longest base of a generated name; what is longer is cut.
pub const GENERATE_BASE_MAX_BYTES: usize = LABEL_LENGTH_MAX_BYTES - GENERATE_RANDOM_BYTES;
/// How many random characters a generated name ends with.
pub const GENERATE_RANDOM_BYTES: usize = 5;

const LABEL_ERROR: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const LABEL_PATTERN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_ERROR: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const SUBDOMAIN_PATTERN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS1035_ERROR: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const DNS1035_PATTERN: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED_ERROR: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const QUALIFIED_PATTERN: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const VALUE_ERROR: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const VALUE_PATTERN: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
/// No vowels or look-alikes, so that no words arise.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn pattern(message: &str, pattern: &str, examples: &[&str]) -> String {
    let mut out = format!("{message} (e.g. ");
    for (at, example) in examples.iter().enumerate() {
        if at > 0 {
            out.push_str(" or ");
        }
        out.push_str(&format!("'{example}', "));
    }
    out.push_str(&format!("regex used for validation is '{pattern}')"));
    out
}

/// `[a-z0-9]` at both ends and `[-a-z0-9]` between.
fn is_label(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
}

/// Objections to a DNS-1123 label, such as a namespace's name.
#[must_use]
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > LABEL_LENGTH_MAX_BYTES {
        out.push(too_long(LABEL_LENGTH_MAX_BYTES));
    }
    if !is_label(text) {
        // What would pass as a subdomain is told so, as Kubernetes does.
        if dns1123_subdomain(text).is_empty() {
            out.push("must not contain dots".to_owned());
        } else {
            out.push(pattern(LABEL_ERROR, LABEL_PATTERN, &["my-name", "123-abc"]));
        }
    }
    out
}

/// Objections to a DNS-1123 subdomain, such as most objects' names.
#[must_use]
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > SUBDOMAIN_LENGTH_MAX_BYTES {
        out.push(too_long(SUBDOMAIN_LENGTH_MAX_BYTES));
    }
    if !text.split('.').all(is_label) {
        out.push(pattern(SUBDOMAIN_ERROR, SUBDOMAIN_PATTERN, &["example.com"]));
    }
    out
}

/// Objections to a DNS-1035 label, such as a service's name.
#[must_use]
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > LABEL_LENGTH_MAX_BYTES {
        out.push(too_long(LABEL_LENGTH_MAX_BYTES));
    }
    if !is_label(text) || !text.starts_with(|first: char| first.is_ascii_lowercase()) {
        out.push(pattern(DNS1035_ERROR, DNS1035_PATTERN, &["my-name", "abc-123"]));
    }
    out
}

/// Objections to a name that is one segment of a path, such as a role's.
#[must_use]
pub fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"].iter().filter(|bad| text.contains(**bad)).map(|bad| format!("may not contain '{bad}'")).collect()
}

fn is_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// Objections to a qualified name, such as a label's key.
#[must_use]
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let form = || pattern(QUALIFIED_ERROR, QUALIFIED_PATTERN, &["MyName", "my.name", "123-abc"]);
    let name = match text.split_once('/') {
        Some((_, rest)) if rest.contains('/') => {
            out.push(format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                form()
            ));
            return out;
        }
        Some(("", name)) => {
            out.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            out.extend(dns1123_subdomain(prefix).into_iter().map(|message| format!("prefix part {message}")));
            name
        }
        None => text,
    };
    if name.is_empty() {
        out.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_LENGTH_MAX_BYTES {
        out.push(format!("name part {}", too_long(LABEL_LENGTH_MAX_BYTES)));
    }
    if !is_qualified(name) {
        out.push(format!("name part {}", form()));
    }
    out
}

/// Objections to a label's value.
#[must_use]
pub fn label_value(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > LABEL_LENGTH_MAX_BYTES {
        out.push(too_long(LABEL_LENGTH_MAX_BYTES));
    }
    if !text.is_empty() && !is_qualified(text) {
        out.push(pattern(VALUE_ERROR, VALUE_PATTERN, &["MyValue", "my_value", "12345"]));
    }
    out
}

/// Objections to a key of a ConfigMap or Secret.
#[must_use]
pub fn config_map_key(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > SUBDOMAIN_LENGTH_MAX_BYTES {
        out.push(too_long(SUBDOMAIN_LENGTH_MAX_BYTES));
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        let message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        out.push(pattern(message, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    match text {
        "." => out.push("must not be '.'".to_owned()),
        ".." => out.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => out.push("must not start with '..'".to_owned()),
        _ => {}
    }
    out
}

/// `base` and five characters chosen by `random`; a long base is cut to leave room.
#[must_use]
pub fn generate(base: &str, random: [u8; GENERATE_RANDOM_BYTES]) -> String {
    let mut end = base.len().min(GENERATE_BASE_MAX_BYTES);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = base[..end].to_owned();
    out.extend(random.iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_words() {
        assert_eq!(
            dns1123_subdomain("A_b"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(
            label_value("a b"),
            [
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ]
        );
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert_eq!(qualified_name("/x"), ["prefix part must be non-empty"]);
    }

    #[test]
    fn good_names_pass() {
        assert!(dns1123_subdomain("a.b-c.1").is_empty() && dns1123_label("a-1").is_empty());
        assert!(qualified_name("example.com/My_name.x").is_empty() && label_value("").is_empty());
        assert!(config_map_key("a.b_C-1").is_empty() && dns1035_label("a1").is_empty());
        assert!(!dns1035_label("1a").is_empty() && !dns1123_subdomain("a..b").is_empty());
    }

    #[test]
    fn generated_names_fit() {
        assert_eq!(generate("web-", [0, 1, 2, 3, 26]), "web-bcdf9");
        assert_eq!(generate(&"é".repeat(40), [0; 5]).len(), 63);
        assert_eq!(generate(&"x".repeat(100), [0; 5]).len(), 63);
    }
}
