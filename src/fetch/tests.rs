//! The guard against a battery of attacks, and the fetcher against servers that attempt them.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use reqwest::header::{AUTHORIZATION, HeaderMap};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::limits;

/// URLs that are refused by their text.
const FORBIDDEN: &[&str] = &[
    // Special IPv4 ranges.
    "http://0.0.0.0/",
    "http://0.1.2.3/",
    "http://10.0.0.1/",
    "http://10.255.255.255/",
    "http://100.64.0.1/",
    "http://100.100.100.200/latest/meta-data",
    "http://100.127.255.254/",
    "http://127.0.0.1/",
    "http://127.255.255.254/",
    "http://168.63.129.16/metadata",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.170.2/v2/credentials",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.0.0.192/opc/v2/",
    "http://192.0.2.1/",
    "http://192.31.196.1/",
    "http://192.52.193.1/",
    "http://192.88.99.1/",
    "http://192.168.1.1/",
    "http://192.175.48.1/",
    "http://198.18.0.1/",
    "http://198.19.255.255/",
    "http://198.51.100.7/",
    "http://203.0.113.9/",
    "http://224.0.0.1/",
    "http://239.255.255.250/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    // Special IPv6 ranges.
    "http://[::]/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:8.8.8.8]/",
    "http://[::127.0.0.1]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b:1::a00:1]/",
    "http://[100::1]/",
    "http://[2001::1]/",
    "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "http://[2001:2::1]/",
    "http://[2001:10::1]/",
    "http://[2001:db8::1]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2620:4f:8000::1]/",
    "http://[3ffe::1]/",
    "http://[3fff::1]/",
    "http://[5f00::1]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/latest/meta-data",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://[2606:4700::5efe:127.0.0.1]/",
    // Addresses in unusual notations.
    "http://2130706433/",
    "http://017700000001/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://127.0.0.1./",
    "http://0/",
    "http://134744072/",
    "http://0x08080808/",
    "http://8.8.2056/",
    "http://010.010.010.010/",
    "http://%31%32%37.0.0.1/",
    "http://１２７.０.０.１/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://256.256.256.256/",
    "http://1.2.3.4.5/",
    // Names of local hosts.
    "http://localhost/",
    "http://LOCALHOST/",
    "http://localhost./",
    "http://a.localhost/",
    "http://ⓛocalhost/",
    "http://loc%61lhost/",
    "http://localhost.localdomain/",
    "http://printer.local/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://METADATA.google.INTERNAL./",
    "http://metadata/",
    "http://nats/",
    "http://router.lan/",
    "http://wiki.corp/",
    "http://nas.home.arpa/",
    "http://1.0.0.127.in-addr.arpa/",
    // User information, backslashes and other confusion.
    "http://user:secret@example.com/",
    "http://example.com@127.0.0.1/",
    "http://127.0.0.1@example.com/",
    "http://@example.com/",
    "http://example.com\\@127.0.0.1/",
    "http://127.0.0.1\\.example.com/",
    "http:\\\\example.com/",
    "http:/example.com/",
    "http:example.com/",
    "http://exam\tple.com/",
    "http://example.com/a b",
    "http://example.com\u{0}/",
    "http://exa\u{ad}mple.com/",
    "http://example%2ecom/",
    "http://example。com/",
    "http://ｅxample.com/",
    "http://",
    "http:///",
    "//example.com/",
    "example.com",
    "",
    // Ports.
    "http://example.com:22/",
    "http://example.com:25/",
    "http://example.com:4222/",
    "http://example.com:6379/",
    "http://example.com:8080/",
    "http://example.com:0/",
    "https://example.com:99999/",
    // Schemes.
    "file:///etc/passwd",
    "ftp://example.com/",
    "gopher://example.com:70/_",
    "data:text/plain,hello",
    "javascript:alert(1)",
    "ws://example.com/",
    "nats://example.com:4222",
    "jar:http://example.com!/",
    "view-source:http://example.com/",
];

const ORDINARY: &[&str] = &[
    "http://example.com/",
    "https://example.com/a/b?c=d&e=%20f#g",
    "https://EXAMPLE.com./",
    "https://example.com:443/",
    "http://example.com:80/",
    "https://bücher.example.de/",
    "https://xn--bcher-kva.example.de/",
    "https://8.8.8.8/",
    "https://1.1.1.1/dns-query",
    "http://172.15.255.255/",
    "http://172.32.0.1/",
    "http://100.63.255.255/",
    "http://192.167.255.255/",
    "http://[2606:4700:4700::1111]/",
    "http://[2001:4860:4860::8888]/",
    "http://[2a00:1450:4001:80b::200e]/",
    "https://example.com/?next=http://127.0.0.1/",
    "https://example.com/@someone",
    "https://127.0.0.1.nip.io/",
];

#[test]
fn url_tricks_are_refused() {
    assert!(FORBIDDEN.len() >= 60);
    let policy = FetchPolicy::default();
    let allowed: Vec<_> = FORBIDDEN.iter().filter(|url| policy.check(url).is_ok()).collect();
    assert!(allowed.is_empty(), "{allowed:?}");
}

#[test]
fn ordinary_urls_are_allowed() {
    let policy = FetchPolicy::default();
    let refused: Vec<_> = ORDINARY.iter().filter_map(|url| policy.check(url).err().map(|e| (url, e))).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn only_listed_private_hosts_are_allowed() {
    let policy = FetchPolicy::parse("wiki.corp:80, 10.0.0.5:8080, [::1]:9000").unwrap();
    for url in ["http://wiki.corp/x", "http://10.0.0.5:8080/", "http://[::1]:9000/"] {
        assert!(policy.check(url).is_ok(), "{url}");
    }
    for url in [
        "https://wiki.corp/",
        "http://10.0.0.5/",
        "http://10.0.0.6:8080/",
        "http://0xa000005:8080/",
        "http://a@wiki.corp/",
    ] {
        assert!(policy.check(url).is_err(), "{url}");
    }
    assert_eq!(FetchPolicy::parse("wiki.corp"), Err("wiki.corp".into()));
    assert_eq!(FetchPolicy::parse("10.0.0.5:0"), Err("10.0.0.5:0".into()));
}

/// Names with one answer after the other; the last one stays.
struct Table {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    lookups: AtomicUsize,
}

impl Table {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        Arc::new(Self { answers: Mutex::new(answers.iter().map(parse).collect()), lookups: AtomicUsize::new(0) })
    }
}

impl NameResolver for Table {
    fn lookup<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        Box::pin(std::future::ready(Ok(answer)))
    }
}

/// A server that answers by path, and the requests that it received.
struct Server {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        crypto();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, heads) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(vec![])));
        let (seen, answer) = (heads.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (seen, answer) = (seen.clone(), answer.clone());
                tokio::spawn(async move {
                    let mut head = vec![];
                    while !head.ends_with(b"\r\n\r\n") {
                        match socket.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    let head = String::from_utf8(head).unwrap();
                    let path = head.split(' ').nth(1).unwrap_or_default().to_string();
                    seen.lock().unwrap().push(head);
                    let _ = socket.write_all(answer(&path).as_bytes()).await;
                });
            }
        });
        Self { address, heads }
    }

    fn paths(&self) -> Vec<String> {
        let heads = self.heads.lock().unwrap();
        heads.iter().map(|head| head.split(' ').nth(1).unwrap_or_default().to_string()).collect()
    }
}

/// Installs the crypto provider, as `main` does for the whole process.
fn crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn page(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{headers}\r\n{body}")
}

fn redirect(target: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nconnection: close\r\ncontent-length: 0\r\nlocation: {target}\r\n\r\n")
}

fn fetcher(allow: &str, names: Arc<Table>) -> Fetcher {
    Fetcher::with_names(FetchPolicy::parse(allow).unwrap(), names)
}

#[tokio::test]
async fn a_listed_host_is_fetched_and_redirects_are_followed() {
    let server = Server::start(|path| match path {
        "/start" => redirect("/end?x=1"),
        _ => page("content-type: Text/HTML; charset=utf-8\r\n", "hello"),
    })
    .await;
    let fetcher = fetcher(&server.address.to_string(), Table::new(&[&[]]));
    let url = format!("http://{}/start", server.address);
    let fetched = fetcher.fetch(&url, &HeaderMap::new()).await.unwrap();
    assert_eq!((fetched.content_type.as_str(), fetched.body.as_slice()), ("text/html", b"hello".as_slice()));
    assert_eq!(fetched.url.path(), "/end");
    assert!(server.heads.lock().unwrap()[0].contains("user-agent: turnstream/"));
}

#[tokio::test]
async fn a_redirect_to_a_forbidden_place_is_not_followed() {
    for target in FORBIDDEN.iter().filter(|target| target.contains(':') && target.is_ascii() && !target.contains('\0'))
    {
        let to = target.to_string();
        // Such a target is relative to the server itself, which is listed.
        if to.starts_with("http:") && !to.starts_with("http://") {
            continue;
        }
        let server = Server::start(move |_| redirect(&to)).await;
        let fetcher = fetcher(&server.address.to_string(), Table::new(&[&["127.0.0.1"]]));
        let url = format!("http://{}/", server.address);
        let result = fetcher.fetch(&url, &HeaderMap::new()).await;
        assert!(matches!(result, Err(FetchError::Refused(_))), "{target}: {result:?}");
    }
}

#[tokio::test]
async fn another_port_of_a_listed_host_is_forbidden_too() {
    let hidden = Server::start(|_| page("", "secret")).await;
    let target = format!("http://{}/", hidden.address);
    let server = Server::start(move |_| redirect(&target)).await;
    let fetcher = fetcher(&server.address.to_string(), Table::new(&[&[]]));
    let url = format!("http://{}/", server.address);
    assert!(matches!(fetcher.fetch(&url, &HeaderMap::new()).await, Err(FetchError::Refused(_))));
    assert!(hidden.paths().is_empty() && server.paths().len() == 1);
}

#[tokio::test]
async fn a_host_is_checked_by_all_its_addresses() {
    crypto();
    for answers in [&["127.0.0.1"][..], &["8.8.8.8", "10.0.0.1"], &["2606:4700::1", "::1"], &["169.254.169.254"]] {
        let result = fetcher("", Table::new(&[answers])).fetch("http://example.com/", &HeaderMap::new()).await;
        assert!(matches!(result, Err(FetchError::Refused(FetchRefusal::Host(_)))), "{answers:?}: {result:?}");
    }
    let nobody = fetcher("", Table::new(&[&[]])).fetch("http://example.com/", &HeaderMap::new()).await;
    assert!(matches!(nobody, Err(FetchError::Unresolved)));
}

/// A name that answers differently at a second lookup; there is no second lookup.
#[tokio::test]
async fn a_host_is_resolved_once_and_the_checked_address_is_used() {
    let server = Server::start(|_| page("", "here")).await;
    let port = server.address.port();
    let names = Table::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let fetcher = fetcher(&format!("flip.example.com:{port}"), names.clone());
    let fetched = fetcher.fetch(&format!("http://flip.example.com:{port}/"), &HeaderMap::new()).await.unwrap();
    assert_eq!((fetched.body.as_slice(), names.lookups.load(Ordering::Relaxed)), (b"here".as_slice(), 1));
}

/// The first hop's name is allowed; after the redirect the same name, not listed with its usual port, leads inside.
#[tokio::test]
async fn a_host_is_checked_again_at_each_redirect() {
    let server = Server::start(|_| redirect("http://flip.example.com/")).await;
    let port = server.address.port();
    let names = Table::new(&[&["127.0.0.1"]]);
    let fetcher = fetcher(&format!("flip.example.com:{port}"), names.clone());
    let result = fetcher.fetch(&format!("http://flip.example.com:{port}/"), &HeaderMap::new()).await;
    assert!(matches!(result, Err(FetchError::Refused(FetchRefusal::Host(_)))), "{result:?}");
    assert_eq!((server.paths().len(), names.lookups.load(Ordering::Relaxed)), (1, 2));
}

#[tokio::test]
async fn oversized_compressed_and_endless_answers_are_refused() {
    let server = Server::start(|path| match path {
        "/loop" => redirect("/loop"),
        "/large" => page("", &"x".repeat(limits::FETCH_MAX_BYTES + 1)),
        "/bomb" => page("content-encoding: gzip\r\n", "x"),
        _ => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into(),
    })
    .await;
    let fetcher = fetcher(&server.address.to_string(), Table::new(&[&[]]));
    let mut seen = vec![];
    for path in ["loop", "large", "bomb", "missing"] {
        let url = format!("http://{}/{path}", server.address);
        seen.push(fetcher.fetch(&url, &HeaderMap::new()).await.unwrap_err());
    }
    assert!(
        matches!(
            seen[..],
            [FetchError::Redirects, FetchError::TooLarge(_), FetchError::Compressed, FetchError::Status(404)]
        ),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_token_does_not_follow_a_redirect_to_another_server() {
    let other = Server::start(|_| page("", "other")).await;
    let target = format!("http://{}/", other.address);
    let server = Server::start(move |_| redirect(&target)).await;
    let fetcher = fetcher(&format!("{},{}", server.address, other.address), Table::new(&[&[]]));
    let headers = HeaderMap::from_iter([(AUTHORIZATION, "Bearer t".parse().unwrap())]);
    fetcher.fetch(&format!("http://{}/", server.address), &headers).await.unwrap();
    assert!(server.heads.lock().unwrap()[0].contains("Bearer t"));
    assert!(!other.heads.lock().unwrap()[0].contains("Bearer t"));
}
