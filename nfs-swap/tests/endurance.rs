//! Many pages out and in again, in clusters, eight requests at a time, and every byte looked at.
//!
//! `NFS_SWAP_URL` leads to the server, in place of the one in this process; `NFS_SWAP_PAGES` says how many pages go
//! each way at least.

mod support;

use std::collections::BTreeMap;

use nfs_server::{Config, Server};
use support::{PAGE, Swap, activate, complete, config, deactivate, page, submit, swap, url};
use swapspace::{CLUSTER_FRAMES, IoOp, Ticket};

const SLOTS: u32 = 8192;
const DEPTH: usize = 8;

struct Open {
    op: IoOp,
    slot: u32,
    len: u32,
}

struct Run {
    swap: Swap,
    /// What each slot holds; 0 is what it was made with.
    versions: Vec<u32>,
    open: BTreeMap<u32, Open>,
    random: u64,
    pages_out: u64,
    pages_in: u64,
}

impl Run {
    fn pick(&mut self, below: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % u64::from(below)) as u32
    }

    /// Where nothing is in flight, so that what a read must give is known.
    fn place(&mut self) -> (u32, u32) {
        loop {
            let len = 1 + self.pick(CLUSTER_FRAMES as u32);
            let slot = self.pick(SLOTS - len + 1);
            let apart = |o: &Open| slot + len <= o.slot || o.slot + o.len <= slot;
            if self.open.values().all(apart) {
                return (slot, len);
            }
        }
    }

    fn start(&mut self) {
        let (slot, len) = self.place();
        let op = if self.pick(2) == 0 {
            IoOp::Read
        } else {
            IoOp::Write
        };
        let frames: Vec<_> = match op {
            IoOp::Read => (0..len).map(|_| vec![0xaa; PAGE].into()).collect(),
            IoOp::Write => (slot..slot + len)
                .map(|slot| page(slot, self.versions[slot as usize] + 1))
                .collect(),
        };
        let Ticket(ticket) = submit(&mut self.swap, op, slot, frames).unwrap();
        self.open.insert(ticket, Open { op, slot, len });
    }

    fn finish(&mut self) {
        let done = complete(&mut self.swap);
        let open = self.open.remove(&done.ticket.0).expect("a ticket of ours");
        done.result.unwrap();
        assert_eq!(done.io.frames.len(), open.len as usize);
        for (slot, frame) in (open.slot..).zip(&done.io.frames) {
            let version = &mut self.versions[slot as usize];
            *version += u32::from(open.op == IoOp::Write);
            let wrong = match *version {
                0 => frame.iter().any(|byte| *byte != 0),
                version => **frame != *page(slot, version),
            };
            assert!(!wrong, "slot {slot} is not version {version}");
        }
        match open.op {
            IoOp::Read => self.pages_in += u64::from(open.len),
            IoOp::Write => self.pages_out += u64::from(open.len),
        }
    }
}

#[test]
fn s4_every_byte_of_every_page_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(Config::new(directory.path())).unwrap();
    let url = std::env::var("NFS_SWAP_URL").unwrap_or_else(|_| url(server.addr()));
    let pages = std::env::var("NFS_SWAP_PAGES").map_or(10_000, |pages| pages.parse().unwrap());
    let mut config = config(&url, SLOTS);
    config.remove_on_deactivate = true;
    let mut run = Run {
        swap: swap(&url, config),
        versions: vec![0; SLOTS as usize],
        open: BTreeMap::new(),
        random: 88_172_645_463_325_252,
        pages_out: 0,
        pages_in: 0,
    };
    activate(&mut run.swap).unwrap();
    // The way from MOUNT to NFS is a new connection.
    let resets = run.swap.stats().resets;
    while run.pages_out < pages || run.pages_in < pages {
        while run.open.len() < DEPTH {
            run.start();
        }
        run.finish();
    }
    while !run.open.is_empty() {
        run.finish();
    }
    assert_eq!(run.swap.stats().resets, resets, "nobody disturbed the run");
    deactivate(&mut run.swap).unwrap();
    println!(
        "{} pages out, {} pages in, each byte as written",
        run.pages_out, run.pages_in
    );
}
