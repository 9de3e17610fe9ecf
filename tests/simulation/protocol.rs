//! The gateway's lines, read without the crate, so that a mistake made there is not repeated here.

/// A line from the gateway.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// `M` of this CAN port.
    Frame(u8),
    Event(u8, Change),
    Ok,
    /// `R ERR`, the whole line.
    Refused(String),
    /// `R CAN`: the port and the five flags.
    Status(u8, [u8; 5]),
    /// Another `R` line.
    Reply(String),
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    BusOff,
    WarningSet,
    WarningReset,
    Other,
}

/// The lines of a datagram that are not empty.
pub fn lines(datagram: &[u8]) -> Vec<Line> {
    let text = String::from_utf8_lossy(datagram);
    let text = text.replace("\\r", "\n").replace("\\n", "\n").replace('\r', "\n");
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).map(classify).collect()
}

fn classify(line: &str) -> Line {
    let upper = line.to_ascii_uppercase();
    let tokens: Vec<&str> = upper.split_ascii_whitespace().collect();
    let port = tokens.get(1).and_then(|token| token.parse::<u8>().ok()).unwrap_or(0);
    match tokens.as_slice() {
        ["M", ..] => Line::Frame(port),
        ["E", _, "BUSOFF"] => Line::Event(port, Change::BusOff),
        ["E", _, "ERRORWARNING", "SET"] => Line::Event(port, Change::WarningSet),
        ["E", _, "ERRORWARNING", "RESET"] => Line::Event(port, Change::WarningReset),
        ["E", ..] => Line::Event(port, Change::Other),
        ["R", "OK"] => Line::Ok,
        ["R", "ERR", ..] => Line::Refused(line.to_owned()),
        ["R", "CAN", port, flags, buffers] if flags.len() == 5 && buffers.parse::<u32>().is_ok() => {
            let flags: [u8; 5] = flags.as_bytes().try_into().unwrap_or(*b"-----");
            let is_known = flags.iter().zip(b"BEOTI").all(|(flag, known)| flag == known || *flag == b'-');
            match port.parse() {
                Ok(port) if is_known => Line::Status(port, flags),
                _ => Line::Reply(line.to_owned()),
            }
        }
        ["R", ..] => Line::Reply(line.to_owned()),
        _ => Line::Other,
    }
}

/// The number in `R ERR <number> <text>`.
pub fn error_number(refusal: &str) -> Option<u32> {
    refusal.split_ascii_whitespace().nth(2)?.parse().ok()
}

/// Numbers of the vendor's list that name a parameter: no restart cures them.
pub fn names_a_parameter(number: u32) -> bool {
    matches!(number, 1 | 4..=7 | 9 | 11..=22 | 25 | 27..=33)
}
