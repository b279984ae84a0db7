//! Decodes text: the encoding comes from a byte order mark or a declaration, and is never guessed.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8};

use super::ExtractError;

/// The bytes of a page that are searched for its declaration, as in browsers.
const DECLARED_WITHIN: usize = 1024;

/// Decodes text in UTF-8, or in the encoding of its byte order mark.
pub fn text(bytes: &[u8]) -> Result<Cow<'_, str>, ExtractError> {
    decode(bytes, None)
}

/// Decodes a page, which may declare its encoding.
pub fn page(bytes: &[u8]) -> Result<Cow<'_, str>, ExtractError> {
    decode(bytes, declared(bytes))
}

/// Converts text from a named encoding to UTF-8, with a byte order mark that says so. `None`: the encoding is unknown.
pub fn to_utf8(bytes: &[u8], charset: &str) -> Option<Vec<u8>> {
    let encoding = Encoding::for_label(charset.as_bytes())?;
    let (text, ..) = encoding.decode(bytes);
    Some(format!("\u{feff}{}", text.trim_start_matches('\u{feff}')).into_bytes())
}

fn decode<'a>(bytes: &'a [u8], declared: Option<&'static Encoding>) -> Result<Cow<'a, str>, ExtractError> {
    let (encoding, bytes) = match Encoding::for_bom(bytes) {
        Some((encoding, mark)) => (encoding, &bytes[mark..]),
        None => (declared.unwrap_or(UTF_8), bytes),
    };
    let decoded = encoding.decode_without_bom_handling_and_without_replacement(bytes);
    let decoded = match decoded {
        Some(text) => text,
        // A page in an old encoding has a few invalid bytes, which are replaced; other text with such bytes is refused.
        None if declared.is_some_and(|declared| declared == encoding && declared != UTF_8) => {
            encoding.decode_without_bom_handling(bytes).0
        }
        None => return Err(ExtractError::NotText),
    };
    // A file that was concatenated from two has two byte order marks.
    let rest = decoded.trim_start_matches('\u{feff}');
    // UTF-32 begins like UTF-16, and UTF-16 without a mark is valid UTF-8 with a NUL after each letter.
    match rest {
        _ if rest.contains('\0') => Err(ExtractError::NotText),
        _ if rest.len() == decoded.len() => Ok(decoded),
        _ => Ok(Cow::Owned(rest.to_string())),
    }
}

/// Returns the encoding that a page names in a `meta` element or an XML declaration.
fn declared(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = bytes[..bytes.len().min(DECLARED_WITHIN)].to_ascii_lowercase();
    let head = String::from_utf8_lossy(&head);
    let (name, in_xml) = match head.trim_start().starts_with("<?xml") {
        true => ("encoding", true),
        false => ("charset", false),
    };
    let label = head.split(name).skip(1).find_map(|after| {
        let value = after.trim_start().strip_prefix('=')?.trim_start();
        let value = value.trim_start_matches(['"', '\'']);
        let end = value.find(|mark: char| mark.is_whitespace() || "\"'>/;?".contains(mark)).unwrap_or(value.len());
        Some(value[..end].to_string()).filter(|label| !label.is_empty())
    });
    let encoding = match label {
        Some(label) => Encoding::for_label(label.as_bytes()),
        // A page that is also XML may name the encoding in the element only.
        None if in_xml => head.split("charset=").nth(1).and_then(|after| {
            let label = after.trim_start_matches(['"', '\'']);
            Encoding::for_label(label.split(['"', '\'', '>', ' ', ';']).next()?.as_bytes())
        }),
        None => None,
    };
    // A page that is readable up to its declaration is not in UTF-16, even if it declares that.
    encoding.map(|encoding| encoding.output_encoding())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, little: bool) -> Vec<u8> {
        let mut bytes: Vec<u8> = if little { vec![0xff, 0xfe] } else { vec![0xfe, 0xff] };
        for unit in text.encode_utf16() {
            bytes.extend(if little { unit.to_le_bytes() } else { unit.to_be_bytes() });
        }
        bytes
    }

    #[test]
    fn a_byte_order_mark_decides_the_encoding() {
        for little in [true, false] {
            assert_eq!(text(&utf16("Größe 東京", little)).unwrap(), "Größe 東京");
        }
        assert_eq!(text("\u{feff}\u{feff}x".as_bytes()).unwrap(), "x");
        assert_eq!(text("Größe".as_bytes()).unwrap(), "Größe");
    }

    #[test]
    fn bytes_in_an_unknown_encoding_are_no_text() {
        let utf32: Vec<u8> = [0xfeff_u32, 'x' as u32].iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let odd = utf16("ab", true)[..5].to_vec();
        let unmarked: Vec<u8> = "---\nacl: group:hr\n---\nx".bytes().flat_map(|byte| [byte, 0]).collect();
        assert_eq!(text(&unmarked), Err(ExtractError::NotText));
        let alone = [vec![0xff, 0xfe], 0xd800_u16.to_le_bytes().to_vec()].concat();
        for bytes in [&b"Gr\xf6\xdfe"[..], &utf32, &odd, &alone, b"\xff\xfe\x00"] {
            assert_eq!(text(bytes), Err(ExtractError::NotText), "{bytes:?}");
        }
    }

    #[test]
    fn a_page_declares_its_encoding() {
        for head in [
            &b"<meta charset=\"iso-8859-1\">"[..],
            b"<META CHARSET=windows-1252>",
            b"<meta http-equiv='Content-Type' content='text/html; charset=latin1'>",
            b"<?xml version='1.0' encoding='ISO-8859-15'?><p>",
            b"<?xml version='1.0'?><meta charset='latin1'>",
        ] {
            let whole = [head, b"Gr\xf6\xdfe"].concat();
            assert!(page(&whole).unwrap().ends_with("Größe"), "{}", String::from_utf8_lossy(head));
        }
        let shift_jis = [&b"<meta charset=Shift_JIS>"[..], b"\x93\x8c\x8b\x9e"].concat();
        assert!(page(&shift_jis).unwrap().ends_with("東京"));
        let gbk = [&b"<meta charset=gb2312>"[..], b"\xb1\xb1\xbe\xa9"].concat();
        assert!(page(&gbk).unwrap().ends_with("北京"));
        // A byte order mark overrides a declaration, and a declaration of UTF-16 can't be true.
        assert!(page("\u{feff}<meta charset=latin1>ö".as_bytes()).unwrap().ends_with('ö'));
        assert!(page("<meta charset=utf-16>ö".as_bytes()).unwrap().ends_with('ö'));
        assert_eq!(page(b"<p>Gr\xf6\xdfe"), Err(ExtractError::NotText));
        assert_eq!(page(b"<meta charset=utf-8>Gr\xf6\xdfe"), Err(ExtractError::NotText));
    }

    #[test]
    fn a_server_names_an_encoding() {
        assert_eq!(to_utf8(b"\xf6", "ISO-8859-1").unwrap(), "\u{feff}ö".as_bytes());
        assert_eq!(to_utf8("\u{feff}ö".as_bytes(), "utf-8").unwrap(), "\u{feff}ö".as_bytes());
        assert_eq!(to_utf8(b"x", "klingon"), None);
    }
}
