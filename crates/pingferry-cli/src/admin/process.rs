//! What the process itself takes: memory, processor time, descriptors.
//!
//! A confined process cannot open files. So those of `/proc` are opened before, and read again at each scrape, which gives
//! their newest content.

use std::fs::File;
use std::os::unix::fs::FileExt;

use pingferry_sys::preflight::descriptor_limit;
use rustix::fs::Dir;
use rustix::param::page_size;
use rustix::time::{ClockId, clock_gettime};

/// Open files of `/proc/self`.
#[derive(Debug)]
pub(crate) struct ProcessFiles {
    /// Sizes in pages (proc_pid_statm(5)).
    statm: Option<File>,
    /// The open descriptors.
    descriptors: Option<File>,
    page_size: u64,
}

/// How much a process takes. What could not be read is `None`.
#[derive(Debug)]
pub(super) struct Usage {
    pub(super) cpu_seconds: f64,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) descriptors: Option<u64>,
    pub(super) max_descriptors: u64,
}

impl ProcessFiles {
    pub(crate) fn open() -> Self {
        let open = |path| File::open(path).ok();
        Self { statm: open("/proc/self/statm"), descriptors: open("/proc/self/fd"), page_size: page_size() as u64 }
    }

    pub(super) fn usage(&self) -> Usage {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let (virtual_bytes, resident_bytes) = self.sizes().unzip();
        Usage {
            cpu_seconds: time.tv_sec as f64 + time.tv_nsec as f64 / 1e9,
            virtual_bytes,
            resident_bytes,
            descriptors: self.count_descriptors(),
            max_descriptors: descriptor_limit().soft,
        }
    }

    /// Virtual and resident size in bytes.
    fn sizes(&self) -> Option<(u64, u64)> {
        let mut buffer = [0; 128];
        let len = self.statm.as_ref()?.read_at(&mut buffer, 0).ok()?;
        let text = std::str::from_utf8(buffer.get(..len)?).ok()?;
        let mut pages = text.split_whitespace().map_while(|number| number.parse::<u64>().ok());
        Some((pages.next()? * self.page_size, pages.next()? * self.page_size))
    }

    fn count_descriptors(&self) -> Option<u64> {
        let descriptor = self.descriptors.as_ref()?.try_clone().ok()?;
        let mut folder = Dir::new(descriptor).ok()?;
        folder.rewind();
        // Without `.`, `..`, and the one that was cloned to read it.
        Some((folder.filter_map(Result::ok).count() as u64).saturating_sub(3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_time_and_descriptors_each_time_it_is_asked() {
        let files = ProcessFiles::open();
        let before = files.usage();
        let _more: Vec<File> = (0..50).map(|_| File::open("/dev/null").unwrap()).collect();
        let usage = files.usage();
        assert!(usage.resident_bytes.unwrap() > 100_000 && usage.virtual_bytes > usage.resident_bytes, "{usage:?}");
        // Other tests open and close some at the same time.
        assert!(usage.descriptors.unwrap() >= before.descriptors.unwrap() + 10, "{before:?} {usage:?}");
        assert!(usage.cpu_seconds > 0.0 && usage.max_descriptors >= usage.descriptors.unwrap(), "{usage:?}");
    }
}
