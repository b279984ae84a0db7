//! Reads the files of a bundle line by line.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
};

/// Opens a file's content, decompressed.
pub fn reader(file: File, zstd: bool) -> io::Result<Box<dyn BufRead>> {
    Ok(match zstd {
        true => Box::new(BufReader::new(zstd::Decoder::new(file)?)),
        false => Box::new(BufReader::with_capacity(1 << 16, file)),
    })
}

/// Reads a file line by line.
pub struct EvidenceLines {
    from: Box<dyn BufRead>,
    line: Vec<u8>,
}

impl EvidenceLines {
    pub fn new(from: Box<dyn BufRead>) -> Self {
        Self { from, line: Vec::new() }
    }

    /// Returns the next line without its line feed.
    pub fn read(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        if self.from.read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        Ok(Some(self.line.strip_suffix(b"\n").unwrap_or(&self.line)))
    }
}
