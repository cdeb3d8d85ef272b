//! PATHPATTERN of delegations (§4.5): shell wildcards that do not cross `/`.

use super::names::TargetPath;

impl TargetPath {
    /// Whether the path matches a PATHPATTERN, by the rules of delegations: `*` and `?` do not cross `/`.
    pub fn matches(&self, pattern: &str) -> bool {
        matches(pattern, self.as_str())
    }
}

/// How much matching is left to one search: a role may hold thousands of patterns, each of which costs pattern × path
/// at worst, and both are of strangers' making.
#[derive(Clone, Debug)]
pub(crate) struct Steps(u64);

impl Steps {
    pub(crate) fn new(steps: u64) -> Self {
        Self(steps)
    }

    /// Whether none is left: what was not matched then was perhaps not tried.
    pub(crate) fn are_spent(&self) -> bool {
        self.0 == 0
    }

    /// Takes some; whether there were as many.
    fn take(&mut self, steps: usize) -> bool {
        self.0 = self.0.saturating_sub(u64::try_from(steps).unwrap_or(u64::MAX));
        self.0 > 0
    }
}

/// [`matches_within`] without a bound, for patterns of the configuration.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    matches_within(pattern, path, &mut Steps::new(u64::MAX))
}

/// Whether a target path matches a pattern. `*` and `?` match within one segment, `[…]` a set of characters as in a
/// shell; case counts; there is no escape. As many segments as the pattern has, no more and no fewer.
///
/// Does not match where `steps` are spent on the way.
pub(crate) fn matches_within(pattern: &str, path: &str, steps: &mut Steps) -> bool {
    let mut segments = path.split('/');
    let all = pattern
        .split('/')
        .all(|pattern| segments.next().is_some_and(|segment| segment_matches(pattern, segment, steps)));
    all && segments.next().is_none()
}

fn segment_matches(pattern: &str, segment: &str, steps: &mut Steps) -> bool {
    if !steps.take(1) {
        return false;
    }
    if !pattern.contains(['*', '?', '[']) {
        return pattern == segment;
    }
    if !steps.take(pattern.len() + segment.len()) {
        return false;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let segment: Vec<char> = segment.chars().collect();
    wildcard_matches(&tokens(&pattern), &segment, steps)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'p> {
    Star,
    One,
    /// What stands between the brackets.
    Set(&'p [char]),
    Is(char),
}

impl Token<'_> {
    /// What trying it costs.
    fn steps(&self) -> usize {
        match self {
            Self::Set(set) => 1 + set.len(),
            _ => 1,
        }
    }

    /// Whether it stands for this one character.
    fn matches(self, c: char) -> bool {
        match self {
            Self::Star => false,
            Self::One => true,
            Self::Set(set) => set_matches(set, c),
            Self::Is(plain) => plain == c,
        }
    }
}

/// Takes a pattern apart, once for all attempts to match it, and in time proportional to its length: a `[` is looked
/// past only where a `]` follows.
fn tokens(pattern: &[char]) -> Vec<Token<'_>> {
    let last_close = pattern.iter().rposition(|c| *c == ']').unwrap_or(0);
    let mut tokens = Vec::with_capacity(pattern.len());
    let mut at = 0;
    while let Some(c) = pattern.get(at) {
        at += 1;
        let set =
            pattern.get(at..).filter(|_| *c == '[' && at <= last_close).and_then(|rest| rest.get(..set_end(rest)?));
        tokens.push(match (c, set) {
            ('*', _) => Token::Star,
            ('?', _) => Token::One,
            (_, Some(set)) => {
                at += set.len() + 1;
                Token::Set(set)
            }
            // Without its end a bracket is a plain one.
            (c, None) => Token::Is(*c),
        });
    }
    tokens
}

/// Greedy with one point of return, the last `*`: at most pattern × segment steps.
fn wildcard_matches(pattern: &[Token<'_>], segment: &[char], steps: &mut Steps) -> bool {
    let (mut p, mut s) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(c) = segment.get(s) {
        if !steps.take(pattern.get(p).map_or(1, Token::steps)) {
            return false;
        }
        match pattern.get(p) {
            Some(Token::Star) => {
                retry = Some((p + 1, s));
                p += 1;
                continue;
            }
            Some(token) if token.matches(*c) => {
                p += 1;
                s += 1;
                continue;
            }
            _ => {}
        }
        let Some((after_star, taken)) = retry else { return false };
        retry = Some((after_star, taken + 1));
        p = after_star;
        s = taken + 1;
    }
    pattern.get(p..).unwrap_or_default().iter().all(|token| *token == Token::Star)
}

/// Where the `]` stands that ends a set; one right at the start, or behind `!`, belongs to the set.
fn set_end(rest: &[char]) -> Option<usize> {
    let first = usize::from(rest.first() == Some(&'!')) + 1;
    rest.iter().enumerate().skip(first).find(|(_, c)| **c == ']').map(|(at, _)| at)
}

fn set_matches(set: &[char], c: char) -> bool {
    let (negated, mut set) = match set {
        ['!', rest @ ..] => (true, rest),
        set => (false, set),
    };
    let mut found = false;
    while !set.is_empty() {
        set = match set {
            [low, '-', high, rest @ ..] => {
                found |= (*low..=*high).contains(&c);
                rest
            }
            [single, rest @ ..] => {
                found |= *single == c;
                rest
            }
            [] => &[],
        };
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stay_within_a_segment() {
        for (pattern, path) in [
            ("*", "a"),
            ("targets/*.tgz", "targets/foo.tgz"),
            ("foo-version-?.tgz", "foo-version-2.tgz"),
            ("*/*", "a/b"),
            ("a*b*c", "aXbYbZc"),
            ("**", "abc"),
            ("?", "é"),
            ("*", ""),
            ("a/", "a/"),
            ("[abc]x", "bx"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[]]", "]"),
            ("[", "["),
            ("[a", "[a"),
            ("a/b", "a/b"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*", "a/b"),
            ("*", "/a"),
            ("a*", "a/b"),
            ("?", "/"),
            ("a?b", "a/b"),
            ("targets/*.tgz", "targets/foo.txt"),
            ("targets/*.tgz", "targets/x/foo.tgz"),
            ("foo-version-?.tgz", "foo-version-alpha.tgz"),
            ("foo-?", "foo-"),
            ("*.doc", "README.DOC"),
            ("*/*", "a"),
            ("a/*", "a"),
            ("", "a"),
            ("a", ""),
            ("[!a]x", "ax"),
            ("[a-c]", "d"),
            ("a[/]b", "a/b"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_made_to_backtrack_ends_soon() {
        let pattern = "*a".repeat(2000);
        let path = format!("{}b", "a".repeat(4000));
        assert!(!matches(&pattern, &path));
        // Brackets without end, which would be looked for at every step, and sets that are gone through at every step.
        for open in ["[", "[!", "[[]", "[a-b]"] {
            let pattern = format!("*{}b", open.repeat(2000 / open.len()));
            assert!(!matches(&pattern, &format!("{}c", "[".repeat(4000))));
        }
    }
}
