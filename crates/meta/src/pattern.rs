//! Wildcards on names: `*` any characters, `?` one, `[a-z]` or `[!a-z]` one of a set, `{a,b}` one of some words, `\` takes
//! the next character as it is. A name beginning with a dot is a name like any other.

use types::meta::{MetaError, PATH_MAX};

/// The most plain patterns that braces may stand for.
const ALTERNATIVES_MAX: usize = 256;

/// A compiled wildcard.
#[derive(Clone, Debug)]
pub struct Pattern {
    alternatives: Vec<Vec<Token>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    One(char),
    Any,
    Many,
    Set { not: bool, ranges: Vec<(char, char)> },
}

impl Pattern {
    /// Compiles a wildcard. Refused with [`MetaError::Invalid`] when it is too long or its braces stand for too much. A
    /// bracket or brace that is never closed stands for itself.
    pub fn new(text: &str) -> Result<Pattern, MetaError> {
        if text.len() > PATH_MAX {
            return Err(MetaError::Invalid);
        }
        let text: Vec<char> = text.chars().collect();
        let mut alternatives = Vec::new();
        expand(&text, &mut alternatives)?;
        Ok(Pattern { alternatives: alternatives.iter().map(|text| tokens(text)).collect() })
    }

    /// Whether a name fits.
    pub fn matches(&self, name: &str) -> bool {
        self.alternatives.iter().any(|tokens| fits(tokens, name))
    }

    /// What every fitting name begins with.
    pub fn prefix(&self) -> String {
        let [tokens] = self.alternatives.as_slice() else { return String::new() };
        let plain = |token: &Token| match token {
            Token::One(c) => Some(*c),
            Token::Any | Token::Many | Token::Set { .. } => None,
        };
        tokens.iter().map_while(plain).collect()
    }
}

/// Replaces the first group of braces by each of its words, and goes on with the results.
fn expand(text: &[char], out: &mut Vec<Vec<char>>) -> Result<(), MetaError> {
    let Some((open, commas, close)) = braces(text) else {
        if out.len() == ALTERNATIVES_MAX {
            return Err(MetaError::Invalid);
        }
        out.push(text.to_vec());
        return Ok(());
    };
    let mut start = open + 1;
    for end in commas.into_iter().chain([close]) {
        let word = [&text[..open], &text[start..end], &text[close + 1..]].concat();
        expand(&word, out)?;
        start = end + 1;
    }
    Ok(())
}

/// The first group of braces that is closed and has a comma: where it opens, its commas, where it closes.
fn braces(text: &[char]) -> Option<(usize, Vec<usize>, usize)> {
    let mut from = 0;
    while let Some(open) = unescaped(text, from, '{') {
        let mut depth = 0;
        let mut commas = Vec::new();
        let mut at = open;
        while at < text.len() {
            match text[at] {
                '\\' => at += 1,
                '{' => depth += 1,
                ',' if depth == 1 => commas.push(at),
                '}' if depth == 1 => {
                    if commas.is_empty() {
                        break;
                    }
                    return Some((open, commas, at));
                }
                '}' => depth -= 1,
                _ => {}
            }
            at += 1;
        }
        from = open + 1;
    }
    None
}

fn unescaped(text: &[char], from: usize, wanted: char) -> Option<usize> {
    let mut at = from;
    while at < text.len() {
        match text[at] {
            '\\' => at += 1,
            c if c == wanted => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

fn tokens(text: &[char]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let token = match text[at] {
            '\\' if at + 1 < text.len() => {
                at += 1;
                Token::One(text[at])
            }
            '*' => Token::Many,
            '?' => Token::Any,
            '[' => match set(&text[at..]) {
                Some((token, length)) => {
                    at += length - 1;
                    token
                }
                None => Token::One('['),
            },
            c => Token::One(c),
        };
        // Two stars in a row are one.
        if token != Token::Many || tokens.last() != Some(&Token::Many) {
            tokens.push(token);
        }
        at += 1;
    }
    tokens
}

/// The set at the start of `text`, and its length there. `]` first in a set is one of its members.
fn set(text: &[char]) -> Option<(Token, usize)> {
    let not = matches!(text.get(1), Some('!' | '^'));
    let first = if not { 2 } else { 1 };
    let mut ranges = Vec::new();
    let mut at = first;
    loop {
        match *text.get(at)? {
            ']' if at > first => return Some((Token::Set { not, ranges }, at + 1)),
            low => match (text.get(at + 1), text.get(at + 2)) {
                (Some('-'), Some(high)) if *high != ']' => {
                    ranges.push((low, *high));
                    at += 3;
                }
                _ => {
                    ranges.push((low, low));
                    at += 1;
                }
            },
        }
    }
}

/// Whether `name` fits. On a mismatch only the last star need take more: each character is looked at once per star at most.
fn fits(tokens: &[Token], name: &str) -> bool {
    let (mut token, mut rest) = (0, name);
    let mut star: Option<(usize, &str)> = None;
    loop {
        let mut characters = rest.chars();
        let character = characters.next();
        let step = match (tokens.get(token), character) {
            (Some(Token::Many), _) => {
                star = Some((token, rest));
                token += 1;
                continue;
            }
            (Some(Token::Any), Some(_)) => true,
            (Some(Token::One(wanted)), Some(c)) => *wanted == c,
            (Some(Token::Set { not, ranges }), Some(c)) => {
                ranges.iter().any(|(low, high)| *low <= c && c <= *high) != *not
            }
            (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => false,
        };
        if step {
            token += 1;
            rest = characters.as_str();
            continue;
        }
        // Let the last star take one character more.
        let Some((at, from)) = star else { return false };
        let mut characters = from.chars();
        if characters.next().is_none() {
            return false;
        }
        (token, rest) = (at + 1, characters.as_str());
        star = Some((at, rest));
    }
}

#[cfg(test)]
mod tests;
