//! Patterns as values: parsing, matching, and cutting a path's pattern into one pattern per level.

use std::fmt;

/// A pattern that makes no sense, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatternError(pub &'static str);

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for PatternError {}

/// The most plain patterns that the braces of one pattern may stand for: what the servers take for one level.
const ALTERNATIVES_MAX: usize = 256;

/// A pattern for one name (`**` is as `*` here).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Matches when one of these does.
    alternatives: Vec<Vec<Token>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Letter(char),
    /// `?`
    Any,
    /// `*`
    Run,
    /// `[..]`
    Class {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
}

impl Pattern {
    /// Reads a pattern. A `[` or `{` that is never closed, braces without a comma, and a `\` at the end stand for
    /// themselves. Refuses braces that
    /// stand for more than 256 patterns.
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        let alternatives = expand_braces(text)?;
        Ok(Pattern { alternatives: alternatives.iter().map(|plain| tokens(plain)).collect() })
    }

    /// Whether `name` matches from its start to its end.
    pub fn matches(&self, name: &str) -> bool {
        let letters: Vec<char> = name.chars().collect();
        self.alternatives.iter().any(|tokens| matches(tokens, &letters))
    }
}

/// Goes back only to the last `*`: an earlier one can always do as well with fewer letters.
fn matches(tokens: &[Token], letters: &[char]) -> bool {
    let (mut token, mut letter) = (0, 0);
    let mut last_run: Option<(usize, usize)> = None;
    while letter < letters.len() {
        if tokens.get(token) == Some(&Token::Run) {
            last_run = Some((token, letter));
            token += 1;
        } else if tokens.get(token).is_some_and(|t| t.takes(letters[letter])) {
            token += 1;
            letter += 1;
        } else if let Some((run, taken)) = last_run {
            last_run = Some((run, taken + 1));
            token = run + 1;
            letter = taken + 1;
        } else {
            return false;
        }
    }
    tokens[token..].iter().all(|t| *t == Token::Run)
}

impl Token {
    fn takes(&self, letter: char) -> bool {
        match self {
            Token::Letter(own) => *own == letter,
            Token::Any => true,
            Token::Run => false,
            Token::Class { ranges, negated } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&letter)) != *negated
            }
        }
    }
}

/// The tokens of a pattern without braces.
fn tokens(text: &str) -> Vec<Token> {
    let letters: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&letter) = letters.get(at) {
        at += 1;
        match letter {
            '*' if found.last() == Some(&Token::Run) => {}
            '*' => found.push(Token::Run),
            '?' => found.push(Token::Any),
            '\\' => {
                found.push(Token::Letter(letters.get(at).copied().unwrap_or('\\')));
                at += 1;
            }
            '[' => match class(&letters, at) {
                Some((class, after)) => {
                    found.push(class);
                    at = after;
                }
                None => found.push(Token::Letter('[')),
            },
            other => found.push(Token::Letter(other)),
        }
    }
    found
}

/// The class whose `[` is just before `at`, and the position after its `]`. `None`: it is never closed.
fn class(letters: &[char], mut at: usize) -> Option<(Token, usize)> {
    let negated = matches!(letters.get(at), Some('!' | '^'));
    at += usize::from(negated);
    let start = at;
    let mut ranges = Vec::new();
    loop {
        // A `]` that comes first is a letter.
        if letters.get(at) == Some(&']') && at > start {
            return Some((Token::Class { ranges, negated }, at + 1));
        }
        let (low, after) = class_letter(letters, at)?;
        at = after;
        let mut high = low;
        if letters.get(at) == Some(&'-') && letters.get(at + 1).is_some_and(|next| *next != ']') {
            (high, at) = class_letter(letters, at + 1)?;
        }
        ranges.push((low, high));
    }
}

fn class_letter(letters: &[char], at: usize) -> Option<(char, usize)> {
    match letters.get(at)? {
        '\\' => Some((*letters.get(at + 1)?, at + 2)),
        letter => Some((*letter, at + 1)),
    }
}

/// The parts of a text that matter to braces: `\x` and `[..]` are never cut.
fn atoms(text: &str) -> Vec<&str> {
    let mut atoms = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\\' => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            '[' => class_end(rest).unwrap_or(1),
            other => other.len_utf8(),
        };
        let (atom, after) = rest.split_at(length);
        atoms.push(atom);
        rest = after;
    }
    atoms
}

/// Bytes of the class that `text` starts with; `None` when it is never closed.
fn class_end(text: &str) -> Option<usize> {
    let letters: Vec<char> = text.chars().collect();
    let (_, after) = class(&letters, 1)?;
    Some(letters[..after].iter().map(|letter| letter.len_utf8()).sum())
}

/// The patterns without braces that `text` stands for, in order.
pub(crate) fn expand_braces(text: &str) -> Result<Vec<String>, PatternError> {
    let mut done = Vec::new();
    // The last one is expanded next; each step takes one brace away.
    let mut open = vec![text.to_string()];
    while let Some(next) = open.pop() {
        match first_braces(&next) {
            None => done.push(next),
            Some(choices) => open.extend(choices.into_iter().rev()),
        }
        if done.len() + open.len() > ALTERNATIVES_MAX {
            return Err(PatternError("the braces stand for more than 256 patterns"));
        }
    }
    Ok(done)
}

/// `text` with its first braces replaced by each of their choices. `None` when there are none.
fn first_braces(text: &str) -> Option<Vec<String>> {
    let atoms = atoms(text);
    let opens = atoms.iter().enumerate().filter(|(_, atom)| **atom == "{");
    let cuts = opens.map(|(open, _)| open).find_map(|open| cuts(&atoms, open))?;
    let (open, close) = (*cuts.first()?, *cuts.last()?);
    let (before, after) = (atoms[..open].concat(), atoms[close + 1..].concat());
    let choice = |cut: &[usize]| format!("{before}{}{after}", atoms[cut[0] + 1..cut[1]].concat());
    Some(cuts.windows(2).map(choice).collect())
}

/// Where the braces that open at `open` have their `{`, their commas and their `}`. `None`: they are never closed, or have
/// no comma.
fn cuts(atoms: &[&str], open: usize) -> Option<Vec<usize>> {
    let mut depth = 0;
    let mut cuts = Vec::new();
    for (at, atom) in atoms.iter().enumerate().skip(open) {
        match *atom {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        match (*atom, depth) {
            ("}", 0) => {
                cuts.push(at);
                // As in shells, braces without a comma stand for themselves.
                return (cuts.len() > 2).then_some(cuts);
            }
            // The opening brace itself: those within are deeper.
            ("{" | ",", 1) => cuts.push(at),
            _ => {}
        }
    }
    None
}

/// One level of a path's pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Just this name.
    Name(String),
    /// The names that match, and the text they are to match.
    Names(Pattern, String),
    /// `**`: any number of directories.
    Deep,
}

/// The levels of a path's pattern, one list for each of the choices that its braces stand for. Braces that hold no `/`
/// stay within their level.
pub(crate) fn levels(text: &str) -> Result<Vec<Vec<Level>>, PatternError> {
    let across = atoms(text).iter().fold((0u32, false), |(depth, across), atom| match *atom {
        "{" => (depth + 1, across),
        "}" => (depth.saturating_sub(1), across),
        "/" => (depth, across || depth > 0),
        _ => (depth, across),
    });
    let choices = if across.1 { expand_braces(text)? } else { vec![text.to_string()] };
    choices.iter().map(|choice| cut_levels(choice)).collect()
}

fn cut_levels(text: &str) -> Result<Vec<Level>, PatternError> {
    let mut names = vec![String::new()];
    for atom in atoms(text) {
        match (atom, names.last_mut()) {
            ("/", _) | (_, None) => names.push(String::new()),
            (_, Some(name)) => name.push_str(atom),
        }
    }
    let levels = names.into_iter().filter(|name| !name.is_empty()).map(|name| {
        if name == "**" {
            Ok(Level::Deep)
        } else if is_pattern(&name) {
            Ok(Level::Names(Pattern::parse(&name)?, name))
        } else {
            Ok(Level::Name(unescape(&name)))
        }
    });
    levels.collect()
}

/// Whether a text has wildcards in it: otherwise it names itself (after [`unescape`]).
pub fn is_pattern(text: &str) -> bool {
    let atoms = atoms(text);
    let wild = |atom: &str| matches!(atom, "*" | "?") || (atom.len() > 1 && atom.starts_with('['));
    atoms.iter().any(|atom| wild(atom)) || first_braces(text).is_some()
}

/// The text with each `\x` replaced by `x`.
pub fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => plain.push(letters.next().unwrap_or('\\')),
            other => plain.push(other),
        }
    }
    plain
}

/// The pattern that matches just this text.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '{' | '}' | ',' | '\\') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

#[cfg(test)]
mod tests;
