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

/// The most plain patterns that the braces of one pattern may stand for.
const ALTERNATIVES_MAX: usize = 4096;

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
    /// Reads a pattern. Refuses a `[` or `{` that is never closed, a `\` at the end, and braces that stand for more than
    /// 4096 patterns.
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        let alternatives = expand_braces(text)?;
        let alternatives = alternatives.iter().map(|plain| tokens(plain)).collect::<Result<_, _>>()?;
        Ok(Pattern { alternatives })
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
fn tokens(text: &str) -> Result<Vec<Token>, PatternError> {
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
                let next = letters.get(at).ok_or(PatternError("a backslash at the end of the pattern"))?;
                found.push(Token::Letter(*next));
                at += 1;
            }
            '[' => {
                let (class, after) = class(&letters, at)?;
                found.push(class);
                at = after;
            }
            other => found.push(Token::Letter(other)),
        }
    }
    Ok(found)
}

/// The class whose `[` is just before `at`, and the position after its `]`.
fn class(letters: &[char], mut at: usize) -> Result<(Token, usize), PatternError> {
    const OPEN: PatternError = PatternError("a [ that is never closed (write \\[ for the letter)");
    let negated = matches!(letters.get(at), Some('!' | '^'));
    at += usize::from(negated);
    let start = at;
    let mut ranges = Vec::new();
    loop {
        // A `]` that comes first is a letter.
        if letters.get(at) == Some(&']') && at > start {
            return Ok((Token::Class { ranges, negated }, at + 1));
        }
        let (low, after) = class_letter(letters, at).ok_or(OPEN)?;
        at = after;
        let mut high = low;
        if letters.get(at) == Some(&'-') && letters.get(at + 1).is_some_and(|next| *next != ']') {
            (high, at) = class_letter(letters, at + 1).ok_or(OPEN)?;
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
    let (_, after) = class(&letters, 1).ok()?;
    Some(letters[..after].iter().map(|letter| letter.len_utf8()).sum())
}

/// The patterns without braces that `text` stands for, in order.
pub(crate) fn expand_braces(text: &str) -> Result<Vec<String>, PatternError> {
    let mut done = Vec::new();
    // The last one is expanded next; each step takes one brace away.
    let mut open = vec![text.to_string()];
    while let Some(next) = open.pop() {
        match first_braces(&next)? {
            None => done.push(next),
            Some(choices) => open.extend(choices.into_iter().rev()),
        }
        if done.len() + open.len() > ALTERNATIVES_MAX {
            return Err(PatternError("the braces stand for more than 4096 patterns"));
        }
    }
    Ok(done)
}

/// `text` with its first braces replaced by each of their choices. `None` when there are none.
fn first_braces(text: &str) -> Result<Option<Vec<String>>, PatternError> {
    let atoms = atoms(text);
    let Some(open) = atoms.iter().position(|atom| *atom == "{") else { return Ok(None) };
    let mut depth = 0;
    let mut cuts = vec![open];
    let mut close = None;
    for (at, atom) in atoms.iter().enumerate().skip(open) {
        match *atom {
            "{" => depth += 1,
            "}" if depth == 1 => {
                close = Some(at);
                break;
            }
            "}" => depth -= 1,
            "," if depth == 1 => cuts.push(at),
            _ => {}
        }
    }
    let close = close.ok_or(PatternError("a { that is never closed (write \\{ for the letter)"))?;
    cuts.push(close);
    let (before, after) = (atoms[..open].concat(), atoms[close + 1..].concat());
    let choices =
        cuts.windows(2).map(|cut| format!("{before}{}{after}", atoms[cut[0] + 1..cut[1]].concat())).collect();
    Ok(Some(choices))
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
    atoms(text).iter().any(|atom| matches!(*atom, "*" | "?" | "{") || atom.starts_with('['))
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
