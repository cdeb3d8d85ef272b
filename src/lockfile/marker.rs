//! Environment markers of PEP 508, bounded, and reduced by what is known of an environment.
//!
//! Nothing is evaluated for the machine this runs on: what is signed is installed elsewhere. A marker is reduced by the
//! conditions whose outcome is known, and what is left is shown.

use std::{collections::BTreeSet, fmt, iter::Peekable};

/// The longest marker, in bytes.
pub(super) const MARKER_MAX: usize = 8 << 10;
/// The most conditions of a marker.
const CONDITIONS_MAX: usize = 256;
/// How deep parentheses may be nested.
const DEPTH_MAX: usize = 32;
/// Variables of an environment, and what they were called before PEP 508.
const VARIABLES: [(&str, &str); 21] = [
    ("os_name", "os_name"),
    ("sys_platform", "sys_platform"),
    ("platform_machine", "platform_machine"),
    ("platform_python_implementation", "platform_python_implementation"),
    ("platform_release", "platform_release"),
    ("platform_system", "platform_system"),
    ("platform_version", "platform_version"),
    ("python_version", "python_version"),
    ("python_full_version", "python_full_version"),
    ("implementation_name", "implementation_name"),
    ("implementation_version", "implementation_version"),
    ("extra", "extra"),
    ("extras", "extras"),
    ("dependency_groups", "dependency_groups"),
    ("os.name", "os_name"),
    ("sys.platform", "sys_platform"),
    ("platform.version", "platform_version"),
    ("platform.machine", "platform_machine"),
    ("platform.python_implementation", "platform_python_implementation"),
    ("python_implementation", "platform_python_implementation"),
    ("platform.system", "platform_system"),
];

/// For which environments something is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Marker {
    /// All of them hold; at least two.
    All(Vec<Marker>),
    /// One of them holds; at least two.
    Any(Vec<Marker>),
    /// This holds.
    Condition(Condition),
}

/// One comparison of a marker. Where a text stands on the left, it is turned round.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Condition {
    /// The variable, by its present name.
    pub variable: String,
    /// How it is compared.
    pub operator: Comparison,
    /// With what: a text, or another variable.
    pub with: Operand,
}

/// What a variable is compared with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operand {
    /// A text, without its quotes.
    Text(String),
    /// Another variable.
    Variable(String),
}

/// How a variable is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `>=`
    GreaterEqual,
    /// `>`
    Greater,
    /// `~=`
    Compatible,
    /// `===`
    Identical,
    /// `variable in text`
    In,
    /// `variable not in text`
    NotIn,
    /// `text in variable`
    Contains,
    /// `text not in variable`
    Lacks,
}

/// What is left of a marker once the known conditions are taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reduced {
    /// It always holds.
    Always,
    /// It never holds.
    Never,
    /// It holds where this does.
    Where(Marker),
}

impl Marker {
    /// Reads a marker. The error is a sentence without control characters.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MARKER_MAX {
            return Err(format!("its marker is longer than {MARKER_MAX} bytes"));
        }
        let mut reader = Reader { tokens: tokens(text)?.into_iter().peekable(), conditions: 0 };
        let marker = reader.any(0)?;
        match reader.tokens.next() {
            None => Ok(marker),
            Some(token) => Err(format!("`{token}` stands behind the end of its marker")),
        }
    }

    /// Takes out the conditions that `known` knows the outcome of.
    pub fn reduce(&self, known: &dyn Fn(&Condition) -> Option<bool>) -> Reduced {
        match self {
            Self::Condition(condition) => match known(condition) {
                Some(true) => Reduced::Always,
                Some(false) => Reduced::Never,
                None => Reduced::Where(self.clone()),
            },
            Self::All(parts) => reduce_all(parts, known, Reduced::Never, Reduced::Always, Self::All),
            Self::Any(parts) => reduce_all(parts, known, Reduced::Always, Reduced::Never, Self::Any),
        }
    }

    /// What is left where these extras are asked for, as pip has it: the marker holds if it does with one of them, or,
    /// where none is asked for, with the empty one.
    pub fn reduce_with_extras(&self, extras: &BTreeSet<String>, known: &dyn Fn(&Condition) -> Option<bool>) -> Reduced {
        let none = BTreeSet::from([String::new()]);
        let extras = if extras.is_empty() { &none } else { extras };
        let mut left: Vec<Self> = Vec::new();
        for extra in extras {
            let known = |condition: &Condition| match condition.of_extra(extra) {
                None => known(condition),
                outcome => outcome,
            };
            match self.reduce(&known) {
                Reduced::Always => return Reduced::Always,
                Reduced::Where(marker) if !left.contains(&marker) => left.push(marker),
                Reduced::Where(_) | Reduced::Never => {}
            }
        }
        Self::joined(left, Self::Any).map_or(Reduced::Never, Reduced::Where)
    }

    fn joined(mut parts: Vec<Self>, join: fn(Vec<Self>) -> Self) -> Option<Self> {
        if parts.len() > 1 { Some(join(parts)) } else { parts.pop() }
    }
}

/// `end` is the outcome of one part that decides the whole, `rest` that of parts that decide nothing.
fn reduce_all(
    parts: &[Marker],
    known: &dyn Fn(&Condition) -> Option<bool>,
    end: Reduced,
    rest: Reduced,
    join: fn(Vec<Marker>) -> Marker,
) -> Reduced {
    let mut left = Vec::new();
    for part in parts {
        match part.reduce(known) {
            reduced if reduced == end => return end,
            Reduced::Where(marker) if !left.contains(&marker) => left.push(marker),
            _ => {}
        }
    }
    Marker::joined(left, join).map_or(rest, Reduced::Where)
}

impl Condition {
    /// The outcome of a condition on `extra`, for one extra; `None` for other conditions.
    fn of_extra(&self, extra: &str) -> Option<bool> {
        let Self { variable, operator, with: Operand::Text(text) } = self else { return None };
        if variable != "extra" {
            return None;
        }
        // PEP 685: compared in their normal form.
        let same = normal(text) == normal(extra);
        match operator {
            Comparison::Equal | Comparison::Identical => Some(same),
            Comparison::NotEqual => Some(!same),
            _ => None,
        }
    }
}

/// A name as PEP 503 and PEP 685 compare it.
pub(super) fn normal(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for c in name.chars() {
        match matches!(c, '-' | '_' | '.') {
            true if normal.ends_with('-') => {}
            true => normal.push('-'),
            false => normal.push(c.to_ascii_lowercase()),
        }
    }
    normal
}

impl Comparison {
    fn as_str(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::GreaterEqual => ">=",
            Self::Greater => ">",
            Self::Compatible => "~=",
            Self::Identical => "===",
            Self::In | Self::Contains => "in",
            Self::NotIn | Self::Lacks => "not in",
        }
    }

    /// The same with both sides changed; `~=` has no other side.
    fn turned(self) -> Option<Self> {
        Some(match self {
            Self::Less => Self::Greater,
            Self::LessEqual => Self::GreaterEqual,
            Self::GreaterEqual => Self::LessEqual,
            Self::Greater => Self::Less,
            Self::In => Self::Contains,
            Self::NotIn => Self::Lacks,
            Self::Contains => Self::In,
            Self::Lacks => Self::NotIn,
            Self::Equal | Self::NotEqual | Self::Identical => self,
            Self::Compatible => return None,
        })
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parts, between) = match self {
            Self::Condition(condition) => return condition.fmt(f),
            Self::All(parts) => (parts, " and "),
            Self::Any(parts) => (parts, " or "),
        };
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                f.write_str(between)?;
            }
            match part {
                Self::Condition(condition) => condition.fmt(f)?,
                part => write!(f, "({part})")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, operator, with } = self;
        match operator {
            Comparison::Contains | Comparison::Lacks => write!(f, "{with} {} {variable}", operator.as_str()),
            _ => write!(f, "{variable} {} {with}", operator.as_str()),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(name),
            Self::Text(text) if text.contains('"') => write!(f, "'{text}'"),
            Self::Text(text) => write!(f, "\"{text}\""),
        }
    }
}

/// A word of a marker.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Compare(Comparison),
    Operand(Operand),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("("),
            Self::Close => f.write_str(")"),
            Self::And => f.write_str("and"),
            Self::Or => f.write_str("or"),
            Self::Compare(comparison) => f.write_str(comparison.as_str()),
            Self::Operand(operand) => operand.fmt(f),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, behind) = match first {
            '(' => (Token::Open, rest.split_at(1).1),
            ')' => (Token::Close, rest.split_at(1).1),
            quote @ ('"' | '\'') => quoted(rest, quote)?,
            '<' | '=' | '!' | '>' | '~' => comparison(rest)?,
            _ => word(rest)?,
        };
        tokens.push(token);
        rest = behind.trim_start();
    }
    Ok(tokens)
}

fn quoted(text: &str, quote: char) -> Result<(Token, &str), String> {
    let inner = text.split_at(1).1;
    let (text, behind) = inner.split_once(quote).ok_or("a quotation mark of its marker is not closed")?;
    if text.contains(char::is_control) {
        return Err("a text in its marker has control characters".to_owned());
    }
    Ok((Token::Operand(Operand::Text(text.to_owned())), behind))
}

fn comparison(text: &str) -> Result<(Token, &str), String> {
    // The longer ones first.
    let known = [
        Comparison::Identical,
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::LessEqual,
        Comparison::GreaterEqual,
        Comparison::Compatible,
        Comparison::Less,
        Comparison::Greater,
    ];
    let found = known.into_iter().find_map(|comparison| Some((comparison, text.strip_prefix(comparison.as_str())?)));
    let (comparison, behind) = found.ok_or("its marker compares in an unknown way")?;
    Ok((Token::Compare(comparison), behind))
}

fn word(text: &str) -> Result<(Token, &str), String> {
    let of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    let (word, behind) = text.split_at(text.find(|c| !of_word(c)).unwrap_or(text.len()));
    let token = match word {
        "and" => Token::And,
        "or" => Token::Or,
        "in" => Token::Compare(Comparison::In),
        "not" => {
            let behind = behind.trim_start();
            let after = behind.strip_prefix("in").filter(|after| !after.starts_with(of_word));
            return Ok((Token::Compare(Comparison::NotIn), after.ok_or("its marker has a `not` without its `in`")?));
        }
        word => {
            let variable = VARIABLES.iter().find(|(known, _)| *known == word).map(|(_, name)| (*name).to_owned());
            let unknown = || format!("its marker has the unknown word `{}`", super::shown(word));
            Token::Operand(Operand::Variable(variable.ok_or_else(unknown)?))
        }
    };
    Ok((token, behind))
}

struct Reader<I: Iterator<Item = Token>> {
    tokens: Peekable<I>,
    conditions: usize,
}

impl<I: Iterator<Item = Token>> Reader<I> {
    fn any(&mut self, depth: usize) -> Result<Marker, String> {
        let mut parts = vec![self.all(depth)?];
        while self.tokens.next_if_eq(&Token::Or).is_some() {
            parts.push(self.all(depth)?);
        }
        Marker::joined(parts, Marker::Any).ok_or_else(Self::ended)
    }

    fn all(&mut self, depth: usize) -> Result<Marker, String> {
        let mut parts = vec![self.part(depth)?];
        while self.tokens.next_if_eq(&Token::And).is_some() {
            parts.push(self.part(depth)?);
        }
        Marker::joined(parts, Marker::All).ok_or_else(Self::ended)
    }

    fn part(&mut self, depth: usize) -> Result<Marker, String> {
        if self.tokens.next_if_eq(&Token::Open).is_some() {
            if depth == DEPTH_MAX {
                return Err(format!("its marker is nested more than {DEPTH_MAX} deep"));
            }
            let marker = self.any(depth + 1)?;
            return match self.tokens.next() {
                Some(Token::Close) => Ok(marker),
                _ => Err("its marker has a ( without its )".to_owned()),
            };
        }
        self.conditions += 1;
        if self.conditions > CONDITIONS_MAX {
            return Err(format!("its marker has more than {CONDITIONS_MAX} conditions"));
        }
        let left = self.operand()?;
        let Some(Token::Compare(comparison)) = self.tokens.next() else {
            return Err(format!("its marker compares {left} with nothing"));
        };
        Ok(Marker::Condition(condition(left, comparison, self.operand()?)?))
    }

    fn operand(&mut self) -> Result<Operand, String> {
        match self.tokens.next() {
            Some(Token::Operand(operand)) => Ok(operand),
            Some(token) => Err(format!("its marker has `{token}` where a variable or a text must stand")),
            None => Err(Self::ended()),
        }
    }

    fn ended() -> String {
        "its marker ends where a variable or a text must stand".to_owned()
    }
}

fn condition(left: Operand, operator: Comparison, right: Operand) -> Result<Condition, String> {
    match (left, right) {
        (Operand::Variable(variable), with) => Ok(Condition { variable, operator, with }),
        (text @ Operand::Text(_), Operand::Variable(variable)) => {
            let operator = operator.turned().ok_or("its marker has a text on the left of ~=")?;
            Ok(Condition { variable, operator, with: text })
        }
        (Operand::Text(_), Operand::Text(_)) => Err("its marker compares two texts".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marker(text: &str) -> Marker {
        Marker::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    fn nothing(_: &Condition) -> Option<bool> {
        None
    }

    fn extras(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn markers_of_real_metadata_are_read_and_written_in_one_form() {
        for (text, written) in [
            ("python_version<'3.8'", "python_version < \"3.8\""),
            ("\"3.8\" > python_version", "python_version < \"3.8\""),
            ("extra == 'socks'", "extra == \"socks\""),
            ("os.name=='nt' or sys.platform == \"win32\"", "os_name == \"nt\" or sys_platform == \"win32\""),
            ("'linux' in sys_platform", "\"linux\" in sys_platform"),
            ("platform_system not   in 'a b'", "platform_system not in \"a b\""),
            (
                "(python_version >= '3' and extra == 'a') or extra == 'b'",
                "(python_version >= \"3\" and extra == \"a\") or extra == \"b\"",
            ),
            ("platform_python_implementation != \"Py'Py\"", "platform_python_implementation != \"Py'Py\""),
            ("python_full_version ~= '3.8.1'", "python_full_version ~= \"3.8.1\""),
            ("((((sys_platform == 'x'))))", "sys_platform == \"x\""),
        ] {
            let found = marker(text);
            assert_eq!(found.to_string(), written);
            assert_eq!(marker(written), found);
        }
    }

    #[test]
    fn hostile_markers_are_refused_in_one_line() {
        let deep = format!("{}sys_platform == 'x'{}", "(".repeat(40), ")".repeat(40));
        let many = vec!["os_name == 'x'"; 300].join(" or ");
        let long = format!("os_name == '{}'", "x".repeat(9_000));
        for (text, why) in [
            ("", "ends where"),
            ("os_name", "with nothing"),
            ("os_name ==", "ends where"),
            ("os_name == 'x", "not closed"),
            ("os_name == 'x' 'y'", "behind the end"),
            ("os_name = 'x'", "unknown way"),
            ("(os_name == 'x'", "without its )"),
            ("os_name == 'x')", "behind the end"),
            ("os_name not 'x'", "without its `in`"),
            ("home == 'x'", "unknown word"),
            ("'a' == 'b'", "two texts"),
            ("'1' ~= python_version", "left of ~="),
            ("os_name == '\u{1b}[31m'", "control characters"),
            ("os_name == 'x' and and os_name == 'x'", "where a variable"),
            ("\u{1b}", "unknown word"),
            (&deep, "nested more than"),
            (&many, "conditions"),
            (&long, "longer than"),
        ] {
            let error = Marker::parse(text).unwrap_err();
            assert!(error.contains(why) && !error.contains(char::is_control), "{text}: {error}");
        }
        assert!(Marker::parse(&format!("{}os_name == 'x'{}", "(".repeat(32), ")".repeat(32))).is_ok());
    }

    #[test]
    fn an_extra_that_nobody_asked_for_takes_its_requirements_away_and_one_asked_for_leaves_the_environment() {
        let both = marker("extra == 'Soc_ks' and sys_platform == 'win32'");
        assert_eq!(both.reduce_with_extras(&extras(&[]), &nothing), Reduced::Never);
        assert_eq!(both.reduce_with_extras(&extras(&["other"]), &nothing), Reduced::Never);
        let left = Reduced::Where(marker("sys_platform == 'win32'"));
        assert_eq!(both.reduce_with_extras(&extras(&["a", "soc-ks"]), &nothing), left);
        let either = marker("extra == 'a' or python_version < '3'");
        assert_eq!(either.reduce_with_extras(&extras(&["a"]), &nothing), Reduced::Always);
        let left = Reduced::Where(marker("python_version < '3'"));
        assert_eq!(either.reduce_with_extras(&extras(&[]), &nothing), left);
        assert_eq!(marker("extra != 'a'").reduce_with_extras(&extras(&[]), &nothing), Reduced::Always);
    }

    /// Markers whose conditions are told apart by the text they compare with.
    fn any_marker() -> impl Strategy<Value = Marker> {
        let condition = (0_u8..6).prop_map(|number| {
            let with = Operand::Text(number.to_string());
            Marker::Condition(Condition { variable: "os_name".to_owned(), operator: Comparison::Equal, with })
        });
        condition.prop_recursive(4, 32, 3, |inner| {
            let parts = proptest::collection::vec(inner, 2..4);
            prop_oneof![parts.clone().prop_map(Marker::All), parts.prop_map(Marker::Any)]
        })
    }

    /// The outcome where all conditions are known.
    fn outcome(marker: &Marker, holds: &[bool; 6]) -> bool {
        match marker {
            Marker::All(parts) => parts.iter().all(|part| outcome(part, holds)),
            Marker::Any(parts) => parts.iter().any(|part| outcome(part, holds)),
            Marker::Condition(condition) => holds[number(condition)],
        }
    }

    fn number(condition: &Condition) -> usize {
        let Operand::Text(text) = &condition.with else { panic!("{condition}") };
        text.parse().unwrap()
    }

    proptest! {
        #[test]
        fn what_is_left_holds_where_the_whole_does(
            marker in any_marker(), holds: [bool; 6], known: [bool; 6],
        ) {
            let knows = |condition: &Condition| {
                let number = number(condition);
                known[number].then_some(holds[number])
            };
            let expected = outcome(&marker, &holds);
            match marker.reduce(&knows) {
                Reduced::Always => prop_assert!(expected),
                Reduced::Never => prop_assert!(!expected),
                Reduced::Where(left) => {
                    prop_assert_eq!(outcome(&left, &holds), expected);
                    prop_assert!(known != [true; 6]);
                }
            }
            prop_assert_eq!(Marker::parse(&marker.to_string()).unwrap().to_string(), marker.to_string());
        }

        #[test]
        fn no_text_is_a_panic_and_what_is_read_is_written_and_read_again(text in "[a-z_.'\"<>=!~() 0-9]{0,60}") {
            if let Ok(marker) = Marker::parse(&text) {
                prop_assert_eq!(Marker::parse(&marker.to_string()).unwrap(), marker);
            }
        }
    }
}
