//! Splits a byte stream into server-sent events.
//!
//! Contract: lines are cut on bytes (LF or CRLF), so a character split over packets stays whole;
//! an event is the `data` of the lines up to an empty line, several joined by LF; comments and
//! every other field are skipped. The result does not depend on how the bytes were packeted. One
//! event is bounded.

/// The largest event, and so also the largest line, that a gateway may send.
const EVENT_MAX_BYTES: usize = 1024 * 1024;

/// An event or a line beyond [`EVENT_MAX_BYTES`].
#[derive(Debug, PartialEq)]
pub(super) struct EventTooLarge;

#[derive(Default)]
pub(super) struct SseSplitter {
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    /// The data lines of the event that is being read, each followed by LF.
    data: Vec<u8>,
}

impl SseSplitter {
    /// Takes the next bytes and hands every event they complete to `on_event`, in order, until it
    /// answers `false`; the rest of the bytes is then dropped.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        mut on_event: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), EventTooLarge> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            let event_ended = if self.line.is_empty() {
                take_line(&mut self.data, head)?
            } else {
                self.line.extend_from_slice(head);
                let ended = take_line(&mut self.data, &self.line);
                self.line.clear();
                ended?
            };
            if event_ended && !self.data.is_empty() {
                let goes_on = on_event(&self.data[..self.data.len() - 1]);
                self.data.clear();
                if !goes_on {
                    return Ok(());
                }
            }
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() > EVENT_MAX_BYTES {
            return Err(EventTooLarge);
        }
        Ok(())
    }

    /// What the stream left unfinished when it ended: gateways exist that leave out the empty line
    /// after their last event. Half an event looks the same; the reader has to tell.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        take_line(&mut self.data, &self.line).ok()?;
        self.data.pop().map(|_| self.data)
    }
}

/// Adds one whole line to `data`; true when it is the empty line that ends an event.
fn take_line(data: &mut Vec<u8>, line: &[u8]) -> Result<bool, EventTooLarge> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Ok(true);
    }
    let value = match line.strip_prefix(b"data") {
        Some([b':', b' ', value @ ..]) | Some([b':', value @ ..]) => value,
        Some([]) => &[],
        _ => return Ok(false),
    };
    if data.len() + value.len() >= EVENT_MAX_BYTES {
        return Err(EventTooLarge);
    }
    data.extend_from_slice(value);
    data.push(b'\n');
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": comment\r\nevent: message\r\nid: 7\r\ndata: {\"a\":\"grüße 🦀\"}\r\n\r\n\
        \n\ndata:zwölf\ndata: 漢字\n\nretry: 3\n\ndata\n\ndatabase: no\n\ndata:  two spaces\n\n";

    fn split(packets: &[&[u8]]) -> Vec<String> {
        let mut splitter = SseSplitter::default();
        let mut events = Vec::new();
        for packet in packets {
            splitter
                .push(packet, |event| {
                    events.push(String::from_utf8(event.to_vec()).unwrap());
                    true
                })
                .unwrap();
        }
        assert_eq!(splitter.finish(), None);
        events
    }

    #[test]
    fn every_split_of_the_bytes_gives_the_same_events() {
        let bytes = STREAM.as_bytes();
        let whole = split(&[bytes]);
        assert_eq!(whole, ["{\"a\":\"grüße 🦀\"}", "zwölf\n漢字", "", " two spaces"]);
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let packets = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(split(&packets), whole, "split at {first} and {second}");
            }
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(split(&single), whole);
    }

    #[test]
    fn what_is_unfinished_at_the_end_is_given_apart() {
        let mut splitter = SseSplitter::default();
        splitter.push(b"data: [DONE]", |_| panic!("no event yet")).unwrap();
        assert_eq!(splitter.finish().as_deref(), Some(&b"[DONE]"[..]));
        let mut splitter = SseSplitter::default();
        splitter.push(b"data: a\nda", |_| panic!("no event yet")).unwrap();
        assert_eq!(splitter.finish().as_deref(), Some(&b"a"[..]));
        assert_eq!(SseSplitter::default().finish(), None);
    }

    #[test]
    fn a_reader_can_stop() {
        let mut splitter = SseSplitter::default();
        let mut seen = 0;
        splitter
            .push(b"data: 1\n\ndata: 2\n\ndata: 3\n\n", |_| {
                seen += 1;
                seen < 2
            })
            .unwrap();
        assert_eq!(seen, 2);
    }

    #[test]
    fn an_endless_line_and_an_endless_event_are_refused() {
        let mut splitter = SseSplitter::default();
        let piece = vec![b'x'; EVENT_MAX_BYTES / 2];
        assert_eq!(splitter.push(&piece, |_| true), Ok(()));
        assert_eq!(splitter.push(&piece, |_| true), Ok(()));
        assert_eq!(splitter.push(b"x", |_| true), Err(EventTooLarge));

        let mut splitter = SseSplitter::default();
        let line = [b"data: ", &piece[..], b"\n"].concat();
        assert_eq!(splitter.push(&line, |_| true), Ok(()));
        assert_eq!(splitter.push(&line, |_| true), Err(EventTooLarge));
    }
}
