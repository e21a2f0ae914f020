//! Modes: `drwxr-xr-x`, and the changes that `chmod` understands.

use types::{FileKind, Mode};

/// `drwxr-xr-x`, and `+` where there is an access control list.
pub(crate) fn string(kind: FileKind, mode: Mode) -> String {
    let mut text = String::with_capacity(10);
    text.push(letter(kind));
    for (shift, special, lower, upper) in
        [(6, Mode::SETUID, 's', 'S'), (3, Mode::SETGID, 's', 'S'), (0, Mode::STICKY, 't', 'T')]
    {
        let bits = mode.0 >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode.0 & special != 0) {
            (false, false) => '-',
            (true, false) => 'x',
            (true, true) => lower,
            (false, true) => upper,
        });
    }
    if mode.has(Mode::ACL) || mode.has(Mode::DEFAULT_ACL) {
        text.push('+');
    }
    text
}

/// The letter of a kind, as in `ls -l` and `find -type`, but for files (`-` here, `f` there).
pub(crate) fn letter(kind: FileKind) -> char {
    match kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::SymbolicLink => 'l',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
        FileKind::CharacterDevice => 'c',
        FileKind::BlockDevice => 'b',
    }
}

/// A kind in words.
pub(crate) fn kind_word(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::SymbolicLink => "symbolic link",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::CharacterDevice => "character device",
        FileKind::BlockDevice => "block device",
    }
}

/// A change of modes, as `chmod` reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModeChange(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Absolute(u16),
    Symbolic { who: u16, umasked: bool, action: Action, what: What },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// These bits (all three `rwx`, and the special ones), and `x` where [`What::applies_execute`] says so.
    Bits { bits: u16, execute_if_any: bool },
    /// What the owner, the group or the others have.
    CopyOf { shift: u16 },
}

const EVERYONE: u16 = 0o777;

impl ModeChange {
    /// Reads `644`, `0644`, `u+x`, `go-w,a+rX`, `u=g`, `+t`. Where nobody is named, all are meant but for what the
    /// `umask` masks.
    pub(crate) fn parse(text: &str) -> Result<ModeChange, String> {
        let wrong = || format!("{text:?} is not a mode (examples: 644, 1777, u+x, go-w, a+rX, u=rw,go=r)");
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let bits = u16::from_str_radix(text, 8).ok().filter(|bits| *bits <= Mode::MASK);
            return Ok(ModeChange(vec![Step::Absolute(bits.ok_or_else(wrong)?)]));
        }
        let mut steps = Vec::new();
        for clause in text.split(',') {
            clause_steps(clause, &mut steps).ok_or_else(wrong)?;
        }
        Ok(ModeChange(steps))
    }

    /// The mode after the change.
    pub(crate) fn apply(&self, mode: Mode, kind: FileKind, umask: u16) -> Mode {
        let mut bits = mode.0;
        for step in &self.0 {
            bits = match step {
                Step::Absolute(bits) => *bits,
                Step::Symbolic { who, umasked, action, what } => {
                    let mask = if *umasked { !(umask & EVERYONE) } else { u16::MAX };
                    let change = what.bits(bits, *who, kind) & mask;
                    // `=` also clears the special bits of those named, but a directory keeps its set-id bits.
                    let keep = if kind == FileKind::Directory { Mode::SETUID | Mode::SETGID } else { 0 };
                    match action {
                        Action::Add => bits | change,
                        Action::Remove => bits & !change,
                        Action::Set => (bits & !(who_bits(*who) & !keep & mask)) | change,
                    }
                }
            };
        }
        Mode(bits & Mode::MASK)
    }
}

impl What {
    fn bits(self, old: u16, who: u16, kind: FileKind) -> u16 {
        match self {
            What::Bits { bits, execute_if_any } => {
                let execute = execute_if_any && (kind == FileKind::Directory || old & 0o111 != 0);
                let all = bits | if execute { 0o111 } else { 0 };
                all & who_bits(who)
            }
            What::CopyOf { shift } => (((old >> shift) & 7) * 0o111) & who,
        }
    }
}

/// The permission bits of those in `who`, and the special bits that belong to them.
fn who_bits(who: u16) -> u16 {
    let setuid = if who & 0o700 != 0 { Mode::SETUID } else { 0 };
    let setgid = if who & 0o070 != 0 { Mode::SETGID } else { 0 };
    let sticky = if who == EVERYONE { Mode::STICKY } else { 0 };
    who | setuid | setgid | sticky
}

/// Reads one clause (`go-w`, `u=rw+x`); `None` if it is none.
fn clause_steps(clause: &str, steps: &mut Vec<Step>) -> Option<()> {
    let actions = clause.find(['+', '-', '='])?;
    let (named, mut rest) = clause.split_at(actions);
    let mut who = 0;
    for letter in named.chars() {
        who |= match letter {
            'u' => 0o700,
            'g' => 0o070,
            'o' => 0o007,
            'a' => EVERYONE,
            _ => return None,
        };
    }
    let umasked = named.is_empty();
    let who = if umasked { EVERYONE } else { who };
    while let Some(first) = rest.chars().next() {
        let action = match first {
            '+' => Action::Add,
            '-' => Action::Remove,
            '=' => Action::Set,
            _ => return None,
        };
        rest = &rest[1..];
        let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
        let (letters, after) = rest.split_at(end);
        steps.push(Step::Symbolic { who, umasked, action, what: what(letters)? });
        rest = after;
    }
    Some(())
}

fn what(letters: &str) -> Option<What> {
    match letters {
        "u" => return Some(What::CopyOf { shift: 6 }),
        "g" => return Some(What::CopyOf { shift: 3 }),
        "o" => return Some(What::CopyOf { shift: 0 }),
        _ => {}
    }
    let mut bits = 0;
    let mut execute_if_any = false;
    for letter in letters.chars() {
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' => execute_if_any = true,
            's' => bits |= Mode::SETUID | Mode::SETGID,
            't' => bits |= Mode::STICKY,
            _ => return None,
        }
    }
    Some(What::Bits { bits, execute_if_any })
}

#[cfg(test)]
mod tests;
