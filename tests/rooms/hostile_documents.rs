//! Documents made to exhaust their reader: each ends as a document in time or as an error of its own, and this process survives.

use std::io::Write;

use turnstream::{
    extract::{DocumentFormat, SandboxReader, sandbox::SandboxOutput},
    limits,
};

async fn read(form: DocumentFormat, content: impl Into<Vec<u8>>) -> Result<SandboxOutput, String> {
    within(limits::READER_CPU_SECS, form, content).await
}

/// Reads with a shorter CPU limit, so that the refusal of an attack comes sooner.
async fn within(cpu_secs: u64, form: DocumentFormat, content: impl Into<Vec<u8>>) -> Result<SandboxOutput, String> {
    SandboxReader::of(env!("CARGO_BIN_EXE_turnstream").into(), cpu_secs)
        .read(form, content.into())
        .await
        .map_err(|failure| failure.to_string())
}

/// Returns a PDF with one page, this content stream, and an extra entry in its font.
fn pdf(content: &[u8], filter: &str, in_font: &str) -> Vec<u8> {
    let stream =
        [format!("<< /Length {} {filter} >>\nstream\n", content.len()).as_bytes(), content, b"\nendstream"].concat();
    let objects: [&[u8]; 5] = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        &stream,
        &format!("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding {in_font} >>")
            .into_bytes(),
    ];
    let (mut pdf, mut table) = (b"%PDF-1.4\n".to_vec(), String::from("0000000000 65535 f \n"));
    for (n, object) in objects.iter().enumerate() {
        table.push_str(&format!("{:010} 00000 n \n", pdf.len()));
        pdf.extend_from_slice(format!("{} 0 obj\n", n + 1).as_bytes());
        pdf.extend_from_slice(object);
        pdf.extend_from_slice(b"\nendobj\n");
    }
    let at = pdf.len();
    pdf.extend_from_slice(
        format!("xref\n0 6\n{table}trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n{at}\n%%EOF\n").as_bytes(),
    );
    pdf
}

/// Returns `text` repeated 1024 × `times`, compressed with zlib.
fn unfolding(text: &[u8], times: usize) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let large = text.repeat(1 << 10);
    for _ in 0..times {
        encoder.write_all(&large).unwrap();
    }
    encoder.finish().unwrap()
}

#[tokio::test]
async fn harmless_documents_are_read() {
    let page = read(DocumentFormat::Html, "<title>T</title><main><h1>Returns</h1><p>Within 17 days.</p></main>")
        .await
        .unwrap();
    assert_eq!(page.extracted.title.as_deref(), Some("T"));
    assert_eq!(page.chunks[0].text, "# Returns\n\nWithin 17 days.");
    let printed =
        read(DocumentFormat::Pdf, pdf(b"BT /F1 24 Tf 72 700 Td (Returns within 17 days) Tj ET", "", "")).await.unwrap();
    assert!(printed.extracted.text.contains("Returns within 17 days"), "{printed:?}");
    let text = "# A\nword\n".repeat(100_000);
    let long = read(DocumentFormat::Markdown, text).await.unwrap();
    assert!(long.chunks.len() > 500 && long.chunks.iter().all(|piece| piece.headings.len() <= 1));
    assert!(read(DocumentFormat::Plain, vec![0xff; 300_000]).await.unwrap_err().contains("UTF-8"));
    assert!(read(DocumentFormat::Html, "<script>x</script>").await.unwrap_err().contains("no text"));
}

#[tokio::test]
async fn a_deep_or_expanding_pdf_is_an_error() {
    for deep in [50_000, 1_000_000] {
        let arrays = format!("/X {}{}", "[".repeat(deep), "]".repeat(deep));
        let in_font = within(3, DocumentFormat::Pdf, pdf(b"BT ET", "", &arrays)).await;
        assert!(in_font.is_err(), "{deep}: {in_font:?}");
        let content = format!("{}{} TJ", "[".repeat(deep), "]".repeat(deep));
        assert!(within(3, DocumentFormat::Pdf, pdf(content.as_bytes(), "", "")).await.is_err(), "{deep}");
    }
    // Two megabytes that inflate to two gigabytes.
    let bomb = unfolding(&[b' '; 1024], 2 * 1024);
    assert!(bomb.len() < 4 * 1024 * 1024);
    assert!(within(1, DocumentFormat::Pdf, pdf(&bomb, "/Filter /FlateDecode", "")).await.is_err());
}

#[tokio::test]
async fn oversized_pages_and_texts_end_in_time() {
    const ALL: usize = 8 * 1024 * 1024 - 100;
    assert!(within(1, DocumentFormat::Html, "<div>".repeat(200_000) + "x").await.is_err());
    assert!(within(1, DocumentFormat::Html, "<a><b><i><div>".repeat(ALL / 14)).await.is_err());
    // Long but harmless texts are read, and the time grows only linearly with their length.
    const LONG: usize = 300 * 1024;
    for (form, text) in
        [(DocumentFormat::Plain, "word. "), (DocumentFormat::Markdown, "a"), (DocumentFormat::Markdown, "# a\nword\n")]
    {
        let found = read(form, text.repeat(LONG / text.len())).await;
        let pieces = found.unwrap_or_else(|why| panic!("{form:?} {text}: {why}")).chunks;
        assert!(pieces.len() >= LONG / limits::PASSAGE_CHARS, "{form:?} {text}: {}", pieces.len());
    }
}
