//! The process: its build, its NATS connection, its use of the machine.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::{Gauges, add, labels};

pub struct ProcessMetrics {
    build: Gauges,
    ready: Gauge,
    clock_offset: Gauge<f64, AtomicU64>,
    connected: Gauge,
    connections: Counter,
    violations: Counter,
    slow_consumers: Counter,
    memory: Gauge,
    cpu: Counter<f64, AtomicU64>,
    files: Gauge,
}

impl ProcessMetrics {
    pub(super) fn new(r: &mut Registry) -> Self {
        let start: Gauge<f64, AtomicU64> = Gauge::default();
        start.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        add(r, "start_time_seconds", "Start of the process, Unix time", start);
        Self {
            build: add(r, "build_info", "The program and its role", Gauges::default()),
            ready: add(r, "ready", "1 while /ready answers 200", Gauge::default()),
            clock_offset: add(r, "clock_offset_seconds", "The NATS server's clock, less this one's", Gauge::default()),
            connected: add(r, "nats_connected", "1 while the process is connected", Gauge::default()),
            connections: add(r, "nats_connections", "Connections made to NATS", Counter::default()),
            violations: add(r, "nats_violations", "Permissions that NATS denied", Counter::default()),
            slow_consumers: add(r, "nats_slow_consumers", "Subscriptions that overflowed", Counter::default()),
            memory: add(r, "memory_bytes", "Resident memory", Gauge::default()),
            cpu: add(r, "cpu_seconds", "Processor time, user and system", Counter::default()),
            files: add(r, "open_files", "Open file descriptors", Gauge::default()),
        }
    }

    pub fn runs(&self, version: &str, role: &str, region: &str) {
        self.build.get_or_create(&labels([("version", version), ("role", role), ("region", region)])).set(1);
    }

    pub fn connection_made(&self) {
        self.connections.inc();
    }

    pub fn violated(&self) {
        self.violations.inc();
    }

    pub fn overflowed(&self) {
        self.slow_consumers.inc();
    }

    /// Takes the state of the process at the time of a scrape.
    pub fn scraped(&self, is_ready: bool, is_connected: bool, clock_offset_secs: f64) {
        self.ready.set(is_ready.into());
        self.connected.set(is_connected.into());
        self.clock_offset.set(clock_offset_secs);
        self.measure();
    }

    /// Reads the use of the machine where Linux tells it.
    fn measure(&self) {
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let pages = fs::read_to_string("/proc/self/statm").ok();
        if let Some(pages) = pages.and_then(|text| number(text.split_whitespace().nth(1)?)) {
            self.memory.set(i64::try_from(pages.saturating_mul(page_bytes())).unwrap_or(i64::MAX));
        }
        if let Some(seconds) = cpu_seconds() {
            self.cpu.inner().store(seconds.to_bits(), Ordering::Relaxed);
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            self.files.set(i64::try_from(files.count()).unwrap_or(i64::MAX));
        }
    }
}

fn page_bytes() -> u64 {
    // SAFETY: sysconf reads a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

/// Returns the processor time of the process.
fn cpu_seconds() -> Option<f64> {
    let mut used = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage fills the structure that it is given, and 0 says that it did.
    let used = match unsafe { libc::getrusage(libc::RUSAGE_SELF, used.as_mut_ptr()) } {
        0 => unsafe { used.assume_init() },
        _ => return None,
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Some(seconds(used.ru_utime) + seconds(used.ru_stime))
}
