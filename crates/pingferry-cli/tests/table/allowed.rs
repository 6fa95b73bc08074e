//! The differences between a router and pingferry that are allowed. Any other one fails the test, and so does a row that
//! no tool needs.

use super::tools::Tool;

pub struct Difference {
    /// Part of the name of the tool's row.
    tool: &'static str,
    /// Part of the difference.
    part: &'static str,
    reason: &'static str,
}

pub const DIFFERENCES: &[Difference] = &[
    Difference { tool: "nmap", part: "syn-ack ttl", reason: NO_HOP_LIMIT },
    Difference { tool: "nmap", part: "reset ttl", reason: NO_HOP_LIMIT },
    Difference { tool: "scamper", part: "icmp_q_ttl 1 | ", reason: UNKNOWN_DISTANCE },
];

const UNKNOWN_DISTANCE: &str = "The hop limit that an error other than Time Exceeded quotes is that of the probe on leaving \
     pingferry: the kernel does not report the quoted IP header.";
const NO_HOP_LIMIT: &str =
    "The kernel does not tell the hop limit of an answer to a SYN. pingferry assumes that it was 64 on arrival.";

/// Looks up the reasons of differences, and records which rows were needed.
#[derive(Default)]
pub struct Register([bool; DIFFERENCES.len()]);

impl Register {
    pub fn reason(&mut self, tool: &Tool, difference: &str) -> Option<&'static str> {
        let is_about = |row: &Difference| tool.name().contains(row.tool) && difference.contains(row.part);
        let found = DIFFERENCES.iter().position(is_about)?;
        self.0[found] = true;
        Some(DIFFERENCES[found].reason)
    }

    /// The rows that no tool needed.
    pub fn unused(&self) -> impl Iterator<Item = String> {
        let unused = DIFFERENCES.iter().zip(&self.0).filter(|(_, used)| !**used);
        unused.map(|(row, _)| format!("allowed, but equal: {}: {}: {}", row.tool, row.part, row.reason))
    }
}
