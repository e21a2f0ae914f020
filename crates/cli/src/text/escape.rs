//! Names as a terminal may see them.

use std::borrow::Cow;
use std::fmt::Write;

/// `name` as a terminal may see it: as it is when nothing in it could move the cursor, change colours or turn the
/// direction of writing; otherwise in the shell's `$'..'` form, so that it can be pasted into a command.
pub(crate) fn for_terminal(name: &str) -> Cow<'_, str> {
    if !name.chars().any(is_dangerous) {
        return Cow::Borrowed(name);
    }
    let mut quoted = String::with_capacity(name.len() + 8);
    quoted.push_str("$'");
    for character in name.chars() {
        match character {
            '\\' => quoted.push_str("\\\\"),
            '\'' => quoted.push_str("\\'"),
            c => push(&mut quoted, c),
        }
    }
    quoted.push('\'');
    Cow::Owned(quoted)
}

/// A message, which may hold names, as one harmless line.
pub(crate) fn inline(message: &str) -> Cow<'_, str> {
    if !message.chars().any(is_dangerous) {
        return Cow::Borrowed(message);
    }
    let mut line = String::with_capacity(message.len() + 8);
    for character in message.chars() {
        push(&mut line, character);
    }
    Cow::Owned(line)
}

fn push(text: &mut String, character: char) {
    match character {
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        // Writing to a string does not fail.
        c if is_dangerous(c) && u32::from(c) < 0x80 => drop(write!(text, "\\x{:02x}", u32::from(c))),
        c if is_dangerous(c) => drop(write!(text, "\\u{:04x}", u32::from(c))),
        c => text.push(c),
    }
}

/// Control characters, and those that change the direction of the text after them.
fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests;
