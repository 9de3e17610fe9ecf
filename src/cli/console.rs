//! Puts what belongs there of a datagram onto stdout, and what concerns the operator onto stderr.

use crate::cli::limiter::Limiter;
use crate::cli::messages::{Messages, Verbosity};
use crate::format::Notice;
use crate::format::controller::{ControllerEvent, StateChange};
use crate::gateway::reply::{Line, Status, has_frame, is_of, lines};
use crate::gateway::{Channel, Verb};
use crate::output::printer::Printer;
use crate::text::escape_truncated;

/// stdout and stderr of one session.
pub(crate) struct Console<'a> {
    pub messages: &'a Messages,
    pub printer: Printer,
    pub limiter: Limiter,
    channel: Channel,
    /// `STATUS` has left, so answers to it can come.
    pub status_was_sent: bool,
    /// Frames that came before `START` left.
    pub handshake_frames: u64,
}

/// What a datagram says about the bus and to our commands.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Content {
    /// It holds a frame of the session's CAN port: data.
    pub has_frame: bool,
    pub has_ok: bool,
    /// It holds a refusal, and no frame, which would tell more.
    pub has_refusal: bool,
    /// The events of the port that no frame follows.
    pub events: Vec<StateChange>,
    pub status: Option<Status>,
    /// It holds nothing but answers to `STATUS` of the port.
    pub is_status: bool,
}

impl Content {
    pub fn of(datagram: &[u8], channel: Channel) -> Content {
        let mut content = Content { has_frame: has_frame(datagram, channel), is_status: true, ..Content::default() };
        // A frame alone is not looked into: line ends come last.
        let end_at = datagram.len().saturating_sub(4);
        if content.has_frame && !datagram[..end_at].iter().any(|byte| matches!(byte, b'\n' | b'\r' | b'\\')) {
            return Content { is_status: false, ..content };
        }
        for line in lines(datagram) {
            match Line::classify(line) {
                Line::Status(status) if status.channel == channel => {
                    content.status = Some(status);
                    continue;
                }
                Line::Ok => content.has_ok = true,
                Line::Refused => content.has_refusal = !content.has_frame,
                Line::Frame if is_of(line, channel) => content.events.clear(),
                Line::Event => {
                    let event = ControllerEvent::parse(line).filter(|event| event.channel == channel);
                    let change = event.map(|event| event.change);
                    content.events.extend(change.filter(|&change| change != StateChange::Other));
                }
                _ => {}
            }
            content.is_status = false;
        }
        content.is_status &= content.status.is_some();
        content
    }
}

impl<'a> Console<'a> {
    pub fn new(messages: &'a Messages, printer: Printer, channel: Channel) -> Console<'a> {
        Console { messages, printer, limiter: Limiter::default(), channel, status_was_sent: false, handshake_frames: 0 }
    }

    /// Prints a datagram of the stream, which answers this command of ours if one is given. Answers to `STATUS` are not
    /// printed, nor is a late one; a refusal is not reported while it `may_be_ours`.
    pub fn print(&mut self, datagram: &[u8], answered: Option<Verb>, may_be_ours: bool) -> Content {
        let content = Content::of(datagram, self.channel);
        if answered == Some(Verb::Status) || content.is_status && self.status_was_sent {
            return content;
        }
        let Console { messages, limiter, printer, .. } = self;
        printer.print(datagram, |notice| {
            let (line, prefix) = match notice {
                // The refusal of a command of ours is reported when that ends.
                Notice::Refusal(_) if may_be_ours => return,
                Notice::Refusal(line) => (line, "the gateway refused a command: ".to_owned()),
                Notice::Event { line, received } => {
                    let (seconds, micros) = (received.as_secs(), received.subsec_micros());
                    (line, format!("({seconds}.{micros:06}) the gateway reports: "))
                }
                Notice::Malformed(line, fault) => {
                    (line, format!("malformed line ({fault}), left out; more will only be counted: "))
                }
            };
            if let Some(text) = admitted(limiter, messages, line) {
                messages.warn(prefix + &text);
            }
        });
        content
    }

    /// Takes a datagram of the handshake, which is no data, and counts its frames.
    pub fn note_early(&mut self, datagram: &[u8]) {
        for line in lines(datagram) {
            if Line::classify(line) == Line::Frame {
                self.handshake_frames += 1;
            } else if self.messages.verbosity == Verbosity::Verbose {
                if let Some(text) = admitted(&mut self.limiter, self.messages, line) {
                    self.messages.debug(format_args!("received {text}"));
                }
            }
        }
    }
}

/// A line of the gateway's as it is shown, unless it is only counted. Says before it how many were.
fn admitted(limiter: &mut Limiter, messages: &Messages, line: &[u8]) -> Option<String> {
    let text = escape_truncated(line);
    let suppressed = limiter.admits(messages.sink.now(), &text)?;
    if suppressed > 0 {
        messages.warn(format_args!("messages of the gateway not shown: {suppressed}"));
    }
    Some(text)
}
