//! Write-ahead log as a tree of branches: every start of a primary begins a branch, so that "this data directory contains
//! that commit" is answered exactly, whatever the timelines are called.

use mirroring_controller::fsm::types::{Lsn, Timeline, WalPoint};

/// How long a checkpoint record is.
pub const CHECKPOINT: u64 = 112;

/// A place in the write-ahead log: everything on the way from the root to here is contained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pos {
    pub branch: usize,
    pub lsn: u64,
}

#[derive(Debug)]
struct Branch {
    parent: Option<usize>,
    fork: u64,
    timeline: u32,
    checkpoints: Vec<u64>,
}

/// All log ever written by either server.
#[derive(Debug)]
pub struct Wal {
    branches: Vec<Branch>,
}

impl Wal {
    /// The log of a new cluster, and its first checkpoint's end.
    pub fn new() -> (Wal, Pos) {
        let root = Branch { parent: None, fork: 0, timeline: 1, checkpoints: vec![1000 - CHECKPOINT] };
        (Wal { branches: vec![root] }, Pos { branch: 0, lsn: 1000 })
    }

    /// Begins a branch at `at`.
    pub fn fork(&mut self, at: Pos, timeline: u32) -> Pos {
        let at = self.normal(at);
        self.branches.push(Branch { parent: Some(at.branch), fork: at.lsn, timeline, checkpoints: Vec::new() });
        Pos { branch: self.branches.len() - 1, lsn: at.lsn }
    }

    /// The same place, named by the branch on which its last record lies.
    fn normal(&self, mut pos: Pos) -> Pos {
        while let Some(parent) = self.branches[pos.branch].parent {
            if pos.lsn > self.branches[pos.branch].fork {
                break;
            }
            pos.branch = parent;
        }
        pos
    }

    /// Whether all of `part` is in the history of `whole`.
    pub fn contains(&self, mut whole: Pos, part: Pos) -> bool {
        let part = self.normal(part);
        loop {
            if whole.branch == part.branch {
                return whole.lsn >= part.lsn;
            }
            let branch = &self.branches[whole.branch];
            let Some(parent) = branch.parent else { return false };
            whole = Pos { branch: parent, lsn: whole.lsn.min(branch.fork) };
        }
    }

    /// The place with this position in the history of `pos`.
    pub fn at(&self, pos: Pos, lsn: u64) -> Pos {
        self.normal(Pos { branch: pos.branch, lsn: lsn.min(pos.lsn) })
    }

    /// The point at this position, as a digest would show it.
    pub fn point(&self, pos: Pos, lsn: u64) -> WalPoint {
        let at = self.at(pos, lsn);
        let timeline = Timeline(self.branches[at.branch].timeline);
        WalPoint { timeline, lsn: Lsn(at.lsn), length: 1, hash: at.branch as u64 + 1 }
    }

    /// Whether the history of `pos` contains a point.
    pub fn holds(&self, pos: Pos, point: &WalPoint) -> bool {
        point.lsn.0 <= pos.lsn && self.at(pos, point.lsn.0).branch as u64 + 1 == point.hash
    }

    /// The timeline of the last record.
    pub fn timeline(&self, pos: Pos) -> u32 {
        self.branches[self.normal(pos).branch].timeline
    }

    /// The timeline on which a primary at this place writes, though it may not have written yet.
    pub fn own_timeline(&self, pos: Pos) -> u32 {
        self.branches[pos.branch].timeline
    }

    /// Writes a checkpoint record on the tip; its position, which is where it begins.
    pub fn checkpoint(&mut self, pos: &mut Pos) -> u64 {
        let at = pos.lsn;
        self.branches[pos.branch].checkpoints.push(at);
        pos.lsn += CHECKPOINT;
        at
    }

    /// The latest checkpoint record in the history of `pos`, and its timeline.
    pub fn last_checkpoint(&self, mut pos: Pos) -> (u64, u32) {
        loop {
            let branch = &self.branches[pos.branch];
            if let Some(found) = branch.checkpoints.iter().rev().find(|at| **at + CHECKPOINT <= pos.lsn) {
                return (*found, branch.timeline);
            }
            let Some(parent) = branch.parent else { return (0, branch.timeline) };
            pos = Pos { branch: parent, lsn: pos.lsn.min(branch.fork) };
        }
    }
}
