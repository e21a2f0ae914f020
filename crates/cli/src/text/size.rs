//! Sizes, from text and to it.

/// Bytes in words: `4096`, `4K`, `4k`, `4KiB`, `4 KiB` (1024 each) or `4KB`, `4kB` (1000 each); also fractions, `1.5G`.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("{text:?} is not a size (examples: 4096, 64K, 1.5G, \"4 MiB\", 10MB)");
    let factor = factor(unit.trim()).ok_or_else(wrong)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return Err(wrong());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    let mut bytes = whole.checked_mul(factor).ok_or_else(wrong)?;
    let mut scale = factor;
    for digit in fraction.chars() {
        let digit = u64::from(digit.to_digit(10).ok_or_else(wrong)?);
        bytes = bytes.checked_add(digit.saturating_mul(scale) / 10).ok_or_else(wrong)?;
        scale /= 10;
    }
    Ok(bytes)
}

fn factor(unit: &str) -> Option<u64> {
    let upper = unit.to_ascii_uppercase();
    let (letter, base) = match upper.as_str() {
        "" | "B" => return Some(1),
        s if s.len() == 3 && s.ends_with("IB") => (&s[..1], 1024u64),
        s if s.len() == 2 && s.ends_with('B') => (&s[..1], 1000u64),
        s if s.len() == 1 => (s, 1024u64),
        _ => return None,
    };
    let power = match letter {
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        _ => return None,
    };
    Some(base.pow(power))
}

/// Bytes as `ls -h` writes them: at most four characters, powers of 1024, rounded up.
pub(crate) fn human(bytes: u64) -> String {
    if bytes < 1024 {
        return bytes.to_string();
    }
    let mut unit = 1u128;
    for letter in ["K", "M", "G", "T", "P", "E"] {
        unit *= 1024;
        let tenths = (u128::from(bytes) * 10).div_ceil(unit);
        if tenths < 100 {
            return format!("{}.{}{letter}", tenths / 10, tenths % 10);
        }
        let whole = u128::from(bytes).div_ceil(unit);
        if whole < 1024 {
            return format!("{whole}{letter}");
        }
    }
    bytes.to_string()
}

/// Bytes as a sentence writes them: `1.5 GiB`, `512 bytes`.
pub(crate) fn words(bytes: u64) -> String {
    match bytes {
        1 => "1 byte".to_owned(),
        0..1024 => format!("{bytes} bytes"),
        _ => {
            let short = human(bytes);
            let (number, letter) = short.split_at(short.len() - 1);
            format!("{number} {letter}iB")
        }
    }
}

#[cfg(test)]
mod tests;
