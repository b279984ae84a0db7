//! The text of documents of every form, and of garbage.

use super::*;
use crate::limits;

#[test]
fn a_page_is_reduced_to_its_main_text() {
    let html = "<html><head><title> Returns &amp;\n more </title><script>var x = 'evil'</script></head><body>\
        <nav><a href='/'>Home</a></nav><main><h1>Returns</h1><p>Within <b>17 days</b>.</p><h2>How</h2><ul><li>Pack</li></ul>\
        </main><footer>Imprint</footer></body></html>";
    let page = extract(DocumentFormat::Html, html.as_bytes()).unwrap();
    assert_eq!(page.title.as_deref(), Some("Returns & more"));
    assert!(
        page.text.contains("# Returns") && page.text.contains("Within **17 days**.") && page.text.contains("## How")
    );
    for absent in ["Home", "Imprint", "evil"] {
        assert!(!page.text.contains(absent), "{}", page.text);
    }
    assert_eq!(extract(DocumentFormat::Html, b"<h1>Only</h1><p>x</p>").unwrap().title.as_deref(), Some("Only"));
    assert_eq!(extract(DocumentFormat::Html, b"<script>x</script>"), Err(ExtractError::Empty));
    let deep = "<div>".repeat(5_000) + "x";
    assert_eq!(extract(DocumentFormat::Html, deep.as_bytes()), Err(ExtractError::Nested));
}

#[test]
fn front_matter_sets_title_document_set_and_readers() {
    let read = |text: &str| extract(DocumentFormat::Markdown, text.as_bytes());
    let found = read("---\ntitle: \"A: b\"\nurl: https://a.example/x # here\nset: hr\nacl: [user:ann, 'group:ops']\ntags:\n  - a\n---\n# H\ntext").unwrap();
    let acl = |names: &[&str]| Some(names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
    assert_eq!((found.title.as_deref(), found.text.as_str()), (Some("A: b"), "# H\ntext"));
    assert_eq!((found.front.url.as_deref(), found.front.set.as_deref()), (Some("https://a.example/x"), Some("hr")));
    assert_eq!(found.front.acl, acl(&["user:ann", "group:ops"]));
    for (block, names) in [
        ("acl: public", &["public"][..]),
        ("acl:\n  - user:ann\n  - group:b", &["user:ann", "group:b"]),
        ("acl:\n  users: [ann, bob]\n  groups:\n    - ops", &["user:ann", "user:bob", "group:ops"]),
        ("acl: group:ops # only they", &["group:ops"]),
    ] {
        assert_eq!(read(&format!("---\n{block}\n---\nx")).unwrap().front.acl, acl(names), "{block}");
    }
    // Never guessed: a document with unclear readers is for none.
    for block in [
        "acl:",
        "acl: []",
        "acl: [a",
        "acl:\n  everyone: [x]",
        "acl: public\nacl: user:x",
        "title: |\n  x",
        "acl: x\n  y: z",
        "no key",
    ] {
        assert!(matches!(read(&format!("---\n{block}\n---\nx")), Err(ExtractError::Front(_))), "{block}");
    }
    assert_eq!(read("text\n```\n# no\n```\n## Yes ##\n").unwrap().title.as_deref(), Some("Yes"));
}

#[test]
fn passages_stay_within_the_limit_and_keep_their_headings() {
    let long = "A sentence about returns. ".repeat(100);
    let text = format!("# Guide\n\nIntro.\n\n## Returns\n\n{long}\n\n## Shipping\n\nFive days.\n");
    let found = chunks(DocumentFormat::Markdown, &text);
    assert!(found.iter().all(|chunk| chunk.text.chars().count() <= limits::PASSAGE_CHARS));
    let of = |words: &str| found.iter().find(|chunk| chunk.text.contains(words)).unwrap().headings.join(" > ");
    assert_eq!(of("Intro"), "Guide");
    assert_eq!(of("sentence"), "Guide > Returns");
    // Small sections share a passage, which shows their headings itself.
    assert!(found.iter().any(|chunk| chunk.text.contains("## Shipping") && chunk.text.contains("Five days")));
    assert!(found.iter().filter(|chunk| chunk.text.contains("sentence")).all(|chunk| chunk.text.ends_with('.')));
    assert_eq!(chunks(DocumentFormat::Plain, "# not a heading").len(), 1);
    assert_eq!(chunks(DocumentFormat::Markdown, "# All there is").len(), 1);
}

/// Every supported spelling sets the readers, every other one is refused: none makes a document public.
fn markdown(text: &str) -> Result<ExtractedText, ExtractError> {
    extract(DocumentFormat::Markdown, text.as_bytes())
}

#[test]
fn front_matter_is_parsed() {
    let hr = Some(vec!["group:hr".to_string()]);
    for text in [
        "---\nacl: group:hr\n---\nx",
        "--- \nacl: group:hr\n---\t\nx",
        "---\nacl: group:hr\n...\nx",
        "---\nacl: group:hr\n---",
        "\n\n---\nacl: group:hr\n---\nx",
        "---\r\nacl: group:hr\r\n---\r\nx",
        "---\racl: group:hr\r---\rx",
        "\u{feff}\u{feff}---\nacl: group:hr\n---\nx",
        "\u{200b}---\nacl: group:hr\n---\nx",
        "---\n\"acl\": group:hr\n---\nx",
        "---\nACL : 'group:hr'  # only they\n---\nx",
        "--- # of this page\nacl: group:hr\n---\nx",
        "---\nacl:group:hr\n---\nx",
        "---\nacl:\n- group:hr\n---\nx",
    ] {
        let found = markdown(text);
        assert!(
            found == Err(ExtractError::Empty) || found.as_ref().is_ok_and(|f| f.front.acl == hr),
            "{text:?}: {found:?}"
        );
    }
}

#[test]
fn front_matter_that_is_not_understood_is_refused() {
    for text in [
        "---\nacl: group:hr\n# H\nx",
        "---\nacl: group:hr",
        "---yaml\nacl: group:hr\n---\nx",
        "--- acl: group:hr\n---\nx",
        "+++\nacl = \"group:hr\"\n+++\nx",
        ";;;\n{\"acl\": \"group:hr\"}\n;;;\nx",
        "{\"acl\": \"group:hr\"}\nx",
        "%YAML 1.2\n---\nacl: group:hr\n---\nx",
        "—\nacl: group:hr\n—\nx",
        "–--\nacl: group:hr\n---\nx",
        "acl: group:hr\n---\nx",
        "<!-- acl: group:hr -->\nx",
        "Title: Pay\nACL: group:hr\n\nx",
        "---\n{acl: group:hr}\n---\nx",
        "---\n? acl\n: group:hr\n---\nx",
        "---\n<<: *base\n---\nx",
        "---\nmeta:\n  acl: group:hr\n---\nx",
        "---\nmeta: {acl: group:hr}\n---\nx",
        "---\nacls: group:hr\n---\nx",
        "---\nalc: group:hr\n---\nx",
        "---\na\u{200b}cl: group:hr\n---\nx",
        "---\nacl: \"group:hr\n---\nx",
        "---\nacl: 'group:hr' or public\n---\nx",
        "---\nacl.groups: [hr]\n---\nx",
        "---\nacl_groups: [hr]\n---\nx",
        "---\nmeta: {owner: ann, acl: [group:hr]}\n---\nx",
        "---\n---\nacl: group:hr\n---\nx",
        "---\ntitle: x\n---\n---\nacl: group:hr\n---\nx",
        "# yaml-language-server: $schema=x\n---\nacl: group:hr\n---\nx",
        "# Title\n\n---\nacl: group:hr\n---\nx",
        "{\"title\":\"Pay\",\"acl\":[\"group:hr\"]}\nx",
    ] {
        assert!(matches!(markdown(text), Err(ExtractError::Front(_))), "{text:?}: {:?}", markdown(text));
    }
}

#[test]
fn readers_in_other_formats_are_refused() {
    for (form, text) in [
        (DocumentFormat::Plain, "---\nacl: group:hr\n---\nx"),
        (DocumentFormat::Table, "acl: group:hr\na,b"),
        (DocumentFormat::Html, "---\nacl: group:hr\n---\n<p>x"),
        (DocumentFormat::Html, "<!--\n acl: group:hr\n-->\n<p>x"),
        (DocumentFormat::Html, "<html><head><meta name=\"acl\" content=\"group:hr\"></head><p>x"),
        (DocumentFormat::Plain, ":acl: group:hr\n\nTitle\n=====\n"),
        (DocumentFormat::Plain, "# acl: group:hr\nx"),
    ] {
        assert!(matches!(extract(form, text.as_bytes()), Err(ExtractError::Front(_))), "{form:?} {text:?}");
    }
}

#[test]
fn ordinary_text_is_no_front_matter() {
    for text in [
        "# H\n\nacl: this word means a list of readers",
        "Balance: 7\nPlace = here",
        "----\nx",
        "- a\n- b",
        "x --- y",
        "Call: it, call = me",
    ] {
        assert_eq!(markdown(text).map(|found| found.front), Ok(FrontMatter::default()), "{text:?}");
    }
}

#[test]
fn titles_are_headings_and_nothing_else() {
    let title = |text: &str| extract(DocumentFormat::Markdown, text.as_bytes()).unwrap().title;
    for text in [
        "````\n```\n# no\n```\n````\n# Yes\n",
        "~~~sh\n# no\n```\n# no\n~~~\n# Yes\n",
        "```sh\n# no\n~~~\n# no\n```\n# Yes\n",
        "- list\n\n  ```\n  # no\n  ```\n\n# Yes\n",
        "    # no\n\n# Yes\n",
        "<!--\n# no\n-->\n\n# Yes\n",
        "#no\n\nYes\n===\n",
        "# *Yes*\n",
    ] {
        assert_eq!(title(text).as_deref(), Some("Yes"), "{text:?}");
    }
}

#[test]
fn rows_of_a_table_keep_its_header() {
    let rows: String = (0..80).map(|n| format!("| item {n} | {n} euro and some words |\n")).collect();
    let text = format!("# Prices\n\nBefore.\n\n| item | price |\n|---|---|\n{rows}\nAfter the table.\n");
    let found = chunks(DocumentFormat::Markdown, &text);
    let with_rows = found.iter().filter(|chunk| chunk.text.contains("euro"));
    assert!(with_rows.clone().count() > 2);
    for chunk in with_rows {
        assert_eq!(chunk.text.matches("| item | price |\n|---|---|").count(), 1, "{}", chunk.text);
    }
    assert!(!found.last().unwrap().text.contains("euro") || found.last().unwrap().text.contains("After"));
    let csv = "item,price\n".to_string() + &rows.replace(" | ", ",");
    let found = chunks(DocumentFormat::Table, &csv);
    assert!(found.len() > 2 && found.iter().all(|chunk| chunk.text.matches("item,price").count() == 1));
    let wide = format!("| {} |\n|---|\n{}", "x".repeat(500), rows);
    assert!(
        chunks(DocumentFormat::Markdown, &wide).iter().all(|chunk| chunk.text.chars().count() <= limits::PASSAGE_CHARS)
    );
}

/// A minimal PDF of one page with a line of text.
pub fn small_pdf(line: &str) -> Vec<u8> {
    let content = format!("BT /F1 24 Tf 72 700 Td ({line}) Tj ET");
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_string(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_string(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R \
         /Resources << /Font << /F1 5 0 R >> >> >>"
            .to_string(),
        format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_string(),
    ];
    let mut pdf = "%PDF-1.4\n".to_string();
    let mut places = vec![];
    for (number, object) in objects.iter().enumerate() {
        places.push(pdf.len());
        pdf.push_str(&format!("{} 0 obj\n{object}\nendobj\n", number + 1));
    }
    let table = pdf.len();
    pdf.push_str(&format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1));
    for place in places {
        pdf.push_str(&format!("{place:010} 00000 n \n"));
    }
    pdf.push_str(&format!("trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n", objects.len() + 1));
    pdf.into_bytes()
}

#[test]
fn a_pdf_is_read_and_garbage_is_an_error() {
    let pdf = small_pdf("Returns within 17 days");
    assert!(extract(DocumentFormat::Pdf, &pdf).unwrap().text.contains("Returns within 17 days"));
    assert!(matches!(extract(DocumentFormat::Pdf, b"not one"), Err(ExtractError::Pdf(_))));
    for at in (0..pdf.len()).step_by(7) {
        let mut broken = pdf.clone();
        broken[at] ^= 0x15;
        let _ = extract(DocumentFormat::Pdf, &broken);
        let _ = extract(DocumentFormat::Pdf, &pdf[..at]);
    }
    assert_eq!(extract(DocumentFormat::Plain, &[0xff, 0xfe, 0x00]), Err(ExtractError::NotText));
    assert!(matches!(
        extract(DocumentFormat::Plain, &vec![b'x'; limits::DOCUMENT_MAX_BYTES + 1]),
        Err(ExtractError::TooLarge(_))
    ));
}

/// Files that open without a password but restrict changes: `tests/data/pdf`, made by pypdf with an owner's password.
#[test]
fn a_pdf_with_permissions_only_is_read() {
    for file in [
        &include_bytes!("../../tests/data/pdf/RC4-128.pdf")[..],
        include_bytes!("../../tests/data/pdf/AES-128.pdf"),
        include_bytes!("../../tests/data/pdf/AES-256.pdf"),
    ] {
        assert!(extract(DocumentFormat::Pdf, file).unwrap().text.contains("Returns within 17 days"));
    }
    let locked = extract(DocumentFormat::Pdf, include_bytes!("../../tests/data/pdf/locked.pdf"));
    assert!(matches!(locked, Err(ExtractError::Pdf(why)) if why.contains("password")));
}

#[test]
fn formats_are_detected_by_name_and_content_type() {
    assert_eq!(DocumentFormat::of_name("a/b.MD"), Some(DocumentFormat::Markdown));
    assert_eq!(DocumentFormat::of_name("a.md/b"), None);
    assert_eq!(DocumentFormat::of_name("x.png"), None);
    assert_eq!(DocumentFormat::of_content_type("text/html"), Some(DocumentFormat::Html));
    assert_eq!(DocumentFormat::of_content_type("application/ld+json"), Some(DocumentFormat::Plain));
    assert_eq!(DocumentFormat::of_content_type("image/png"), None);
}
