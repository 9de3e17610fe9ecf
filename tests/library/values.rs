//! Promise: values that the protocol does not have cannot be made, and what Display writes, FromStr reads.

use std::error::Error;
use std::fmt::Display;
use std::str::FromStr;

use can_udp::format::controller::{ControllerEvent, StateChange};
use can_udp::format::frames;
use can_udp::gateway::reply::{Line, lines};
use can_udp::gateway::{DataBitRate, ValueError};
use can_udp::{BitRate, Channel, Event, Filter, Frame, Id};

/// Reads a text and writes it again. Its bounds are what `?` under anyhow asks of an error.
fn rewritten<T: FromStr + Display>(text: &str) -> String
where
    T::Err: Error + Send + Sync + 'static,
{
    text.parse::<T>().unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
}

#[test]
fn text_that_is_written_can_be_read() {
    for text in ["STD 000 000", "STD 100 7FF", "EXT 0 0", "EXT 18FEF100 1FFFFFFF"] {
        assert_eq!(rewritten::<Filter>(text), text);
    }
    assert_eq!(rewritten::<BitRate>("500"), "500");
    assert_eq!(rewritten::<DataBitRate>("2000"), "2000");
    assert_eq!(rewritten::<Channel>("4"), "4");
    for text in ["M 1 CSD 100 55 AA", "M 2 FED 18FEF100", "M 3 NSD 7FF 01", "M 4 CSR 101 dlc=05"] {
        assert_eq!(rewritten::<Frame>(text), text);
    }
}

#[test]
fn numbers_go_in_and_out() {
    assert_eq!(BitRate::try_from(500).map(u16::from), Ok(500));
    assert_eq!(DataBitRate::try_from(8000).map(u16::from), Ok(8000));
    assert_eq!(Channel::try_from(4).map(u8::from), Ok(4));
}

fn join(rates: &[u16]) -> String {
    rates.iter().map(u16::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn values_that_the_protocol_lacks_cannot_be_made() {
    assert!([0, 5, 200].map(Channel::try_from).iter().all(Result::is_err));
    assert_eq!("0".parse::<Channel>(), Channel::try_from(0));
    let text = |error: ValueError| error.to_string();
    assert_eq!(
        BitRate::try_from(251).map_err(text),
        Err(format!("the gateway knows these bit rates, in kbit/s: {}", join(BitRate::ALL)))
    );
    let known = join(DataBitRate::ALL);
    assert_eq!(
        DataBitRate::try_from(250).map_err(text),
        Err(format!("the gateway knows these data bit rates, in kbit/s: {known}"))
    );
    let too_long = Err("identifier and mask of a STD filter have 11 bits: at most 7FF".to_owned());
    assert_eq!(Filter::standard(0xFFFF_FFFF, 0).map_err(text), too_long);
    assert_eq!(Filter::standard(0, 0x800).map_err(text), too_long);
    assert_eq!("STD FFFFFFFF 0".parse::<Filter>().map_err(text), too_long);
    let too_long = Err("identifier and mask of an EXT filter have 29 bits: at most 1FFFFFFF".to_owned());
    assert_eq!(Filter::extended(0x2000_0000, 0).map_err(text), too_long);
}

#[test]
fn debug_shows_text_as_text() {
    assert_eq!(format!("{:?}", Event::Datagram(b"M 1 CSD 100\n")), "Datagram(\"M 1 CSD 100\\n\")");
    assert_eq!(format!("{:?}", Event::Early(b"R ERR 5 set\x1Btwice")), "Early(\"R ERR 5 set\\x1btwice\")");
    assert_eq!(format!("{:?}", Frame::parse(b"M 1 CSD 100")), "Ok(Frame(M 1 CSD 100))");
}

#[test]
fn frames_and_controller_events_of_a_datagram_are_typed() {
    let datagram = b"M 1 CSD 7FF 55\nE 1 BUSOFF\nM 1 CED 18FEF100\nM 1 XXX\nR ok\n";
    let ids: Vec<Id> = frames(datagram).map(|frame| frame.id()).collect();
    assert_eq!(ids, [Id::Standard(0x7FF), Id::Extended(0x18FE_F100)]);
    assert!(ids.is_sorted());
    assert_eq!(ids.iter().map(Id::to_string).collect::<Vec<_>>(), ["7FF", "18FEF100"]);
    let changes = lines(datagram).filter_map(|line| match Line::classify(line) {
        Line::Event => ControllerEvent::parse(line),
        _ => None,
    });
    assert_eq!(changes.map(|event| event.change).collect::<Vec<_>>(), [StateChange::BusOff]);
}
