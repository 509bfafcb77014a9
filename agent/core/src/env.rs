//! `$(NAME)` references in commands, arguments and variables.
//!
//! `$$` is a dollar sign; a reference to an unknown name stays as it stands.
//! Source: Kubernetes `third_party/forked/golang/expansion/expand.go`.

/// Replaces each `$(NAME)` in `text` by what `lookup` says.
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let tail = from.strip_prefix('$').unwrap_or("");
        rest = expand_one(tail, &mut out, &lookup);
    }
    out.push_str(rest);
    out
}

/// Handles what follows a `$`; returns what is left after it.
fn expand_one<'t, 'a>(tail: &'t str, out: &mut String, lookup: &impl Fn(&str) -> Option<&'a str>) -> &'t str {
    if let Some(rest) = tail.strip_prefix('$') {
        out.push('$');
        return rest;
    }
    let Some((name, rest)) = tail.strip_prefix('(').and_then(|t| t.split_once(')')) else {
        out.push('$');
        return tail;
    };
    match lookup(name) {
        Some(value) => out.push_str(value),
        None => {
            out.push_str("$(");
            out.push_str(name);
            out.push(')');
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_as_kubernetes_does() {
        let lookup = |name: &str| match name {
            "A" => Some("1"),
            "EMPTY" => Some(""),
            _ => None,
        };
        for (text, want) in [
            ("plain", "plain"),
            ("$(A)-$(A)", "1-1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(B)"),
            ("[$(EMPTY)]", "[]"),
            ("$(A", "$(A"),
            ("end$", "end$"),
            ("$A", "$A"),
        ] {
            assert_eq!(expand(text, lookup), want, "{text}");
        }
    }
}
