//! CPU time and memory of processes, read from `/proc`.
//!
//! Contract: a window is opened and closed around a measurement; a process that has ended by then is reported as a fault, never
//! as zero. Without `/proc`, no process can be watched.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::clock::{now_ns, ns_to_seconds};
use super::fault::Fault;

/// Linux reports CPU time to user space in hundredths of a second, at any tick rate of its own.
const TICK_MS: u64 = 10;

/// Often enough to catch a peak, and seldom enough to cost next to nothing.
const PEAK_PAUSE: Duration = Duration::from_millis(250);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedProcess {
    pub name: String,
    pub pid: u32,
}

impl WatchedProcess {
    pub fn new(name: &str, pid: u32) -> WatchedProcess {
        WatchedProcess { name: name.to_owned(), pid }
    }
}

/// The use of one process within a window.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessUse {
    pub name: String,
    pub pid: u32,
    pub cpu_ms: u64,
    pub rss_before_kib: u64,
    pub rss_after_kib: u64,
}

/// The use of all processes within a window.
#[derive(Debug, Default)]
pub struct WindowUse {
    pub seconds: f64,
    pub processes: Vec<ProcessUse>,
    /// CPU time of this process: the clients and the fake gateway.
    pub bench_cpu_ms: u64,
    pub faults: Vec<Fault>,
}

impl WindowUse {
    /// Returns the CPU time of all watched processes.
    pub fn cpu_ms(&self) -> u64 {
        self.processes.iter().map(|used| used.cpu_ms).sum()
    }
}

#[derive(Clone, Copy)]
struct CpuUsage {
    cpu_ms: u64,
    rss_kib: u64,
}

/// A running measurement.
pub struct MeasureWindow {
    started_ns: u64,
    before: Vec<(WatchedProcess, Option<CpuUsage>)>,
    own_before_ms: u64,
}

impl MeasureWindow {
    pub fn open(watched: &[WatchedProcess]) -> MeasureWindow {
        let before = watched.iter().map(|process| (process.clone(), usage(process.pid)));
        MeasureWindow {
            before: before.collect(),
            own_before_ms: cpu_ms(std::process::id()).unwrap_or_default(),
            started_ns: now_ns(),
        }
    }

    pub fn close(self) -> WindowUse {
        let mut used =
            WindowUse { seconds: ns_to_seconds(now_ns().saturating_sub(self.started_ns)), ..WindowUse::default() };
        let own_after_ms = cpu_ms(std::process::id()).unwrap_or_default();
        used.bench_cpu_ms = own_after_ms.saturating_sub(self.own_before_ms);
        for (process, before) in self.before {
            let (Some(before), Some(after)) = (before, usage(process.pid)) else {
                used.faults.push(Fault::ProcessGone(process.name));
                continue;
            };
            used.processes.push(ProcessUse {
                name: process.name,
                pid: process.pid,
                cpu_ms: after.cpu_ms.saturating_sub(before.cpu_ms),
                rss_before_kib: before.rss_kib,
                rss_after_kib: after.rss_kib,
            });
        }
        used
    }
}

/// Samples the memory of processes and keeps each one's highest value.
pub struct PeakMemory {
    base_kib: Vec<u64>,
    highest_kib: Arc<Vec<AtomicU64>>,
    sampler: JoinHandle<()>,
}

impl PeakMemory {
    pub fn start(watched: &[WatchedProcess]) -> PeakMemory {
        let watched = watched.to_vec();
        let base_kib = rss_kib(&watched);
        let start = base_kib.iter().copied().map(AtomicU64::new);
        let highest_kib: Arc<Vec<AtomicU64>> = Arc::new(start.collect());
        let shared = Arc::clone(&highest_kib);
        let sampling = async move {
            loop {
                for (highest, now) in shared.iter().zip(rss_kib(&watched)) {
                    highest.fetch_max(now, Ordering::Relaxed);
                }
                sleep(PEAK_PAUSE).await;
            }
        };
        PeakMemory { base_kib, highest_kib, sampler: tokio::spawn(sampling) }
    }

    /// Returns the growth of each process from the start to its peak.
    pub fn growth_kib(&self) -> Vec<u64> {
        let highest = self.highest_kib.iter().map(|highest| highest.load(Ordering::Relaxed));
        highest.zip(&self.base_kib).map(|(highest, base)| highest - base).collect()
    }
}

impl Drop for PeakMemory {
    fn drop(&mut self) {
        self.sampler.abort();
    }
}

fn rss_kib(watched: &[WatchedProcess]) -> Vec<u64> {
    let rss = watched.iter().map(|process| usage(process.pid).map(|usage| usage.rss_kib));
    rss.map(Option::unwrap_or_default).collect()
}

/// Returns the CPU time of the watched processes since they started.
pub fn total_cpu_ms(watched: &[WatchedProcess]) -> u64 {
    watched.iter().filter_map(|process| cpu_ms(process.pid)).sum()
}

/// Returns the direct children of a process, with their names.
pub fn children(parent: u32) -> Vec<WatchedProcess> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let found = pids.filter_map(|pid: u32| {
        let stat = Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        (stat.parent == parent).then(|| WatchedProcess::new(&stat.name, pid))
    });
    found.collect()
}

/// Returns the limit of open files of this process.
pub fn open_files_limit() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn usage(pid: u32) -> Option<CpuUsage> {
    // The roll-up is exact; only the status line is readable for other users' processes.
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    let rss = rollup.and_then(|text| kib_line(&text, "Rss:"));
    let status = || kib_line(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:");
    Some(CpuUsage { cpu_ms: cpu_ms(pid)?, rss_kib: rss.or_else(status)? })
}

fn cpu_ms(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(Stat::parse(&stat)?.cpu_ticks * TICK_MS)
}

fn kib_line(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The needed fields of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    parent: u32,
    cpu_ticks: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Stat> {
        // The name is in parentheses and may contain any character, parentheses too.
        let (open, close) = (text.find('(')?, text.rfind(')')?);
        let name = text.get(open + 1..close)?.to_owned();
        let fields: Vec<&str> = text.get(close + 1..)?.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let parent = u32::try_from(number(1)?).ok()?;
        Some(Stat { name, parent, cpu_ticks: number(11)? + number(12)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_an_odd_name_is_read() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194304 100 0 0 0 31 11 0 0 20 0 4 0 123 456 789";
        let expected = Stat { name: "a) b (c".to_owned(), parent: 7, cpu_ticks: 42 };
        assert_eq!(Stat::parse(text), Some(expected));
    }

    #[test]
    fn the_own_process_is_sampled_and_a_missing_one_is_a_fault() {
        let own = WatchedProcess::new("own", std::process::id());
        let used = MeasureWindow::open(std::slice::from_ref(&own)).close();
        assert!(used.processes[0].rss_after_kib > 0);
        let gone = WatchedProcess::new("gone", u32::MAX);
        let used = MeasureWindow::open(&[gone]).close();
        assert_eq!(used.faults, [Fault::ProcessGone("gone".to_owned())]);
    }
}
