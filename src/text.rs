//! Hexadecimal digits, and text that is safe to show.

pub(crate) const HEX_DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// A hexadecimal number of 1 to 8 digits and nothing else.
pub(crate) fn parse_hex(digits: &[u8]) -> Option<u32> {
    let digits = Some(digits).filter(|digits| (1..=8).contains(&digits.len()))?;
    digits.iter().try_fold(0, |value, &digit| Some(value << 4 | char::from(digit).to_digit(16)?))
}

/// Appends `bytes` so that a terminal takes none of them for a control sequence: what is outside 0x20 to 0x7E
/// becomes `\xNN`, except the newline.
pub(crate) fn escape_into(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'\n' | 0x20..=0x7E => out.push(byte),
            _ => out.extend([b'\\', b'x', HEX_DIGITS[usize::from(byte >> 4)], HEX_DIGITS[usize::from(byte & 15)]]),
        }
    }
}

/// A line of the gateway's in a form that is safe to show: escaped, and cut at 200 bytes.
pub(crate) fn escape_truncated(line: &[u8]) -> String {
    const SHOWN_MAX: usize = 200;
    let mut shown = Vec::new();
    escape_into(&mut shown, &line[..line.len().min(SHOWN_MAX)]);
    if line.len() > SHOWN_MAX {
        shown.extend(b"...");
    }
    String::from_utf8_lossy(&shown).into_owned()
}

/// The tokens of a line; runs of white space between them count as one.
pub(crate) fn tokens(line: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    line.split(u8::is_ascii_whitespace).filter(|token| !token.is_empty())
}
