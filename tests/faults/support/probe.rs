//! A probe of a process's readiness.

use std::time::Duration;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::WAIT_MAX;

/// A connection over which `/ready` is asked repeatedly.
pub struct Probe(BufReader<TcpStream>);

impl Probe {
    pub async fn connect(address: &str) -> Self {
        Self(BufReader::new(TcpStream::connect(address).await.unwrap()))
    }

    /// Returns the status and the body.
    pub async fn ask(&mut self) -> (u16, String) {
        let request = b"GET /ready HTTP/1.1\r\nhost: turnstream\r\n\r\n";
        self.0.get_mut().write_all(request).await.unwrap();
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await.unwrap();
            match line.trim_end().split_once(' ') {
                Some(("HTTP/1.1", rest)) => status = rest[..3].parse().unwrap(),
                Some(("content-length:", count)) => length = count.parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        let mut said = vec![0; length];
        self.0.read_exact(&mut said).await.unwrap();
        (status, String::from_utf8(said).unwrap())
    }

    /// Asks until the answer has this status.
    pub async fn until(&mut self, wanted: u16) {
        self.until_said(wanted, "").await;
    }

    /// Asks until the answer has this status and contains this text.
    pub async fn until_said(&mut self, wanted: u16, text: &str) {
        let mut last = (0, String::new());
        let waited = timeout(WAIT_MAX, async {
            while last.0 != wanted || !last.1.contains(text) {
                sleep(Duration::from_millis(20)).await;
                last = self.ask().await;
            }
        });
        let in_time = waited.await.is_ok();
        assert!(in_time, "{last:?}, not {wanted} {text}");
    }
}
