use std::fs;
use std::time::Duration;

use super::*;
use crate::format::frame::Frame;
use crate::format::write_pcap_record;

/// A file of so many records, and its content. Each record of 64 bytes of data contains what looks like a record.
fn pcap(name: &str, records: u32, looks_like_records: bool) -> (File, Vec<u8>) {
    let fake = "00 00 00 00 00 00 00 00 48 00 00 00 48 00 00 00 ".repeat(4);
    let data = if looks_like_records { fake } else { "11 22 33 44 55 66 77 88".to_owned() };
    let frame = Frame::parse(format!("M 1 FSD 123 {data}").as_bytes()).expect("a frame");
    let mut content = PCAP_HEADER.to_vec();
    for number in 0..records {
        write_pcap_record(&frame, Duration::from_secs(number.into()), &mut content);
    }
    (file(name, &content), content)
}

fn file(name: &str, content: &[u8]) -> File {
    let path = std::env::temp_dir().join(format!("can-udp-pcap-end-{name}-{}", std::process::id()));
    fs::write(&path, content).expect("a file");
    let file = File::open(&path).expect("a file");
    fs::remove_file(path).expect("it can be removed");
    file
}

#[test]
fn end_is_found_wherever_a_record_is_cut() {
    for (records, fake) in [(1, false), (3, true), (3000, false), (1500, true)] {
        let (_, content) = pcap("whole", records, fake);
        let record = (content.len() - 24) / records as usize;
        for missing in 0..=record {
            let cut = &content[..content.len() - missing];
            let expected = if missing == 0 { content.len() } else { content.len() - record };
            let found = find_end(&file("cut", cut), cut.len() as u64).expect("it can be read");
            assert_eq!(found, PcapEnd::At(expected as u64), "{records} records, {missing} bytes missing");
        }
    }
}

#[test]
fn damage_is_found_where_it_is() {
    let (_, mut content) = pcap("damaged", 3000, false);
    let length = content.len();
    let at = 24 + 32 * 2990;
    content[at..].fill(0);
    let found = find_end(&file("zeros", &content), length as u64).expect("it can be read");
    assert_eq!(found, PcapEnd::Damaged(at as u64));
}
