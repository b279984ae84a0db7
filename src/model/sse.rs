//! Splits a byte stream into server-sent events.
//!
//! Contract: lines are cut on bytes (LF, CRLF, or CR alone), so a character split over packets stays whole; an event is
//! the `data` of the lines up to an empty line, several joined by LF, and its given type; a byte order mark before the
//! first line, comments and every other field are skipped. The result does not depend on how the bytes were packeted.
//! One event is bounded.

/// The largest event, and so also the largest line, that a gateway may send.
const EVENT_MAX_BYTES: usize = 1024 * 1024;
/// The longest type of an event that is distinguished from others.
const EVENT_KIND_MAX_BYTES: usize = 64;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An event or a line beyond [`EVENT_MAX_BYTES`].
#[derive(Debug, PartialEq)]
pub(super) struct EventTooLarge;

/// An event; its type is empty where none was given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SseEvent<'a> {
    pub kind: &'a [u8],
    pub data: &'a [u8],
}

#[derive(Default)]
pub(super) struct SseSplitter {
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    /// The last byte was a CR: an LF that follows belongs to the same line end.
    after_cr: bool,
    event: Event,
}

/// The event that is being read.
#[derive(Default)]
struct Event {
    /// A line was read: no byte order mark can come any more.
    has_begun: bool,
    kind: Vec<u8>,
    /// The data lines, each followed by LF.
    data: Vec<u8>,
}

impl SseSplitter {
    /// Takes the next bytes and passes every event they complete to `on_event`, in order, until it returns `false`; the
    /// rest of the bytes is then dropped.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        mut on_event: impl FnMut(SseEvent<'_>) -> bool,
    ) -> Result<(), EventTooLarge> {
        if std::mem::take(&mut self.after_cr) && bytes.first() == Some(&b'\n') {
            bytes = &bytes[1..];
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) {
            let (head, mut rest) = (&bytes[..end], &bytes[end + 1..]);
            if bytes[end] == b'\r' {
                self.after_cr = rest.is_empty();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            bytes = rest;
            let event_ended = if self.line.is_empty() {
                self.event.take_line(head)?
            } else {
                self.line.extend_from_slice(head);
                let ended = self.event.take_line(&self.line);
                self.line.clear();
                ended?
            };
            if event_ended && !self.event.end(&mut on_event) {
                return Ok(());
            }
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() > EVENT_MAX_BYTES {
            return Err(EventTooLarge);
        }
        Ok(())
    }

    /// Passes on the event that the stream left unfinished when it ended: some gateways leave out the empty line after
    /// their last event.
    ///
    /// A truncated event looks the same; the caller has to distinguish them.
    pub(super) fn finish(mut self, mut on_event: impl FnMut(SseEvent<'_>) -> bool) {
        if self.event.take_line(&self.line).is_ok() {
            self.event.end(&mut on_event);
        }
    }
}

impl Event {
    /// Takes one whole line; true when it is the empty line that ends the event.
    fn take_line(&mut self, mut line: &[u8]) -> Result<bool, EventTooLarge> {
        if !std::mem::replace(&mut self.has_begun, true) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.is_empty() {
            return Ok(true);
        }
        let value_of = |name: &[u8]| match line.strip_prefix(name) {
            Some([b':', b' ', value @ ..]) | Some([b':', value @ ..]) => Some(value),
            Some([]) => Some(&[][..]),
            _ => None,
        };
        if let Some(kind) = value_of(b"event") {
            self.kind = kind[..kind.len().min(EVENT_KIND_MAX_BYTES)].to_vec();
        }
        let Some(value) = value_of(b"data") else { return Ok(false) };
        if self.data.len() + value.len() >= EVENT_MAX_BYTES {
            return Err(EventTooLarge);
        }
        self.data.extend_from_slice(value);
        self.data.push(b'\n');
        Ok(false)
    }

    /// Passes on an event that has data, and resets it.
    fn end(&mut self, on_event: &mut impl FnMut(SseEvent<'_>) -> bool) -> bool {
        let goes_on = match self.data.split_last() {
            Some((_, data)) => on_event(SseEvent { kind: &self.kind, data }),
            None => true,
        };
        self.kind.clear();
        self.data.clear();
        goes_on
    }
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
                    events.push(String::from_utf8(event.data.to_vec()).unwrap());
                    true
                })
                .unwrap();
        }
        splitter.finish(|_| panic!("nothing is unfinished"));
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
    fn line_ends_and_a_byte_order_mark_are_no_content() {
        for lines in ["\n", "\r\n", "\r"] {
            let stream = format!("\u{feff}data: Hel{lines}{lines}: c{lines}data: lo \u{feff}{lines}{lines}");
            let bytes = stream.as_bytes();
            for at in 0..=bytes.len() {
                assert_eq!(split(&[&bytes[..at], &bytes[at..]]), ["Hel", "lo \u{feff}"], "{lines:?} split at {at}");
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(split(&single), ["Hel", "lo \u{feff}"], "{lines:?}");
        }
        assert_eq!(split(&[b"data: a\n\ndata: b\r\rdata: c\r\n\r\n"]), ["a", "b", "c"]);
    }

    #[test]
    fn an_event_keeps_its_type() {
        let mut splitter = SseSplitter::default();
        let mut kinds = Vec::new();
        let stream = b"event: ping\ndata: 1\n\ndata: 2\n\nevent:error\n\nevent\ndata: 3\n\n";
        splitter
            .push(stream, |event| {
                kinds.push(String::from_utf8(event.kind.to_vec()).unwrap());
                true
            })
            .unwrap();
        assert_eq!(kinds, ["ping", "", ""]);
    }

    fn rest(splitter: SseSplitter) -> Option<Vec<u8>> {
        let mut rest = None;
        splitter.finish(|event| {
            rest = Some(event.data.to_vec());
            true
        });
        rest
    }

    #[test]
    fn an_unfinished_event_is_returned_separately() {
        let mut splitter = SseSplitter::default();
        splitter.push(b"data: [DONE]", |_| panic!("no event yet")).unwrap();
        assert_eq!(rest(splitter).as_deref(), Some(&b"[DONE]"[..]));
        let mut splitter = SseSplitter::default();
        splitter.push(b"data: a\nda", |_| panic!("no event yet")).unwrap();
        assert_eq!(rest(splitter).as_deref(), Some(&b"a"[..]));
        assert_eq!(rest(SseSplitter::default()), None);
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
