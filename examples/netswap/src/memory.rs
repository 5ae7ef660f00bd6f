//! The machine's memory: frames, the packet cache, and the reserve with its derived size.

use core::fmt;

use mempool::{
    Buddy, Budget, FRAME_SIZE, Frame, FrameEntry, Gfp, MemallocToken, ReserveNode, SizedCache,
    StdContext, Watermarks, Zone, ZoneError,
};

use crate::args::{Args, Mechanism};

/// Bytes of a packet buffer: two to a frame, beside the slab's header.
pub(crate) const SKB_SIZE: usize = 2016;
/// Packet buffers in the NIC's receive ring.
pub(crate) const RX_RING: usize = 64;
/// Packet buffers in the NIC's transmit ring.
pub(crate) const TX_RING: usize = 64;
/// Order of each of the two buffers of the swap connection: 128 KiB.
const STREAM_ORDER: u8 = 5;

const RX_BUDGET: Budget = netreserve::rx_budget(RX_RING, SKB_SIZE, 0);
const TX_BUDGET: Budget = netreserve::tx_budget(TX_RING, SKB_SIZE, 0);
/// Frames of ordinary memory that the rings hold while there is any: ordinary memory comes first.
const RINGS: usize = RX_BUDGET.plus(TX_BUDGET).frames();
/// Frames that a program needs besides one for each of its threads: what is mapped must not be
/// evicted before it was touched, with full clusters on their way in and out.
const WORKING_MINIMUM: usize = 64;

/// Everything that is allocated lives as long as the machine does, and that is as long as the
/// process: statics, in a kernel.
pub(crate) struct Memory {
    pub(crate) zone: &'static Zone<'static>,
    pub(crate) skbs: &'static SizedCache<'static>,
    pub(crate) rx: &'static ReserveNode<'static>,
    pub(crate) tx: &'static ReserveNode<'static>,
    pub(crate) token: MemallocToken,
    /// Receive and transmit buffer of the swap connection.
    pub(crate) stream: [&'static mut [u8]; 2],
    /// Frames that were given away for good while booting.
    pub(crate) boot_frames: usize,
    /// Packet buffers that the sockets of the program may hold together, each of them a frame at
    /// worst: half of what nothing else is sure to need.
    pub(crate) socket_skbs: usize,
}

impl Memory {
    /// Cuts up `args.ram` bytes, and sets the computed reserve aside.
    ///
    /// # Errors
    ///
    /// [`TooSmall`] if the memory does not hold the reserve and a working minimum.
    pub(crate) fn boot(args: &Args) -> Result<Memory, TooSmall> {
        let frames = args.ram / FRAME_SIZE;
        let marks = watermarks(frames);
        let budget = RX_BUDGET.plus(TX_BUDGET);
        let stream_frames = 2 << STREAM_ORDER;
        let program = WORKING_MINIMUM + args.threads;
        let needed = budget.frames() + marks.high + RINGS + stream_frames + program;
        if frames < needed {
            return Err(TooSmall {
                frames,
                needed,
                reserve: budget.frames(),
            });
        }
        let memory = vec![0u8; (frames + 1) * FRAME_SIZE].leak();
        let skip = memory.as_ptr().align_offset(FRAME_SIZE);
        let memory = &mut memory[skip..skip + frames * FRAME_SIZE];
        let table = vec![FrameEntry::EMPTY; frames].leak();
        let source: &'static Buddy<'static> =
            forever(Buddy::new(memory, table).expect("sizes agree"));
        let zone: &'static Zone<'static> = forever(Zone::new(source, &StdContext, marks).map_err(
            |e: ZoneError| match e {
                ZoneError::TooSmall { needed, .. } => TooSmall {
                    frames,
                    needed,
                    reserve: 0,
                },
                other => unreachable!("the marks are in order: {other}"),
            },
        )?);
        let stream = || -> &'static mut [u8] {
            let frame: &'static mut Frame<'static> = Box::leak(Box::new(
                zone.alloc(STREAM_ORDER, Gfp::KERNEL).expect("just sized"),
            ));
            frame
        };
        let stream = [stream(), stream()];
        let boot_frames = frames - zone.stats().free;

        let root = forever(ReserveNode::root("total", zone));
        let (rx, tx) = (
            forever(ReserveNode::new("rx")),
            forever(ReserveNode::new("tx")),
        );
        if args.has(Mechanism::Reserve) {
            rx.set_limit(netreserve::rx_limit(RX_RING, SKB_SIZE), RX_BUDGET.frames())
                .and_then(|()| {
                    tx.set_limit(netreserve::tx_limit(TX_RING, SKB_SIZE), TX_BUDGET.frames())
                })
                .expect("nodes without a parent take any limit");
        }
        rx.connect(root)
            .and_then(|()| tx.connect(root))
            .map_err(|_| TooSmall {
                frames,
                needed,
                reserve: budget.frames(),
            })?;
        let skbs: &'static SizedCache<'static> =
            forever(SizedCache::new("skb", zone, SKB_SIZE, 0).expect("two to a frame"));
        if !args.has(Mechanism::SlabAdmission) {
            skbs.ablate(mempool::Mechanism::SlabAdmission);
        }
        let token = zone.claim_memalloc().expect("nobody claimed it before");
        Ok(Memory {
            zone,
            skbs,
            rx,
            tx,
            token,
            stream,
            boot_frames,
            socket_skbs: (frames - needed) / 2,
        })
    }
}

impl Memory {
    /// Bytes of the reserve that are in use.
    pub(crate) fn charged(&self) -> usize {
        self.rx.usage() + self.tx.usage()
    }
}

/// Marks in the proportions that Linux uses: low a quarter, high half above min.
pub(crate) fn watermarks(frames: usize) -> Watermarks {
    let min = (frames / 64).clamp(16, 256);
    Watermarks {
        min,
        low: min + min / 4,
        high: min + min / 2,
    }
}

/// Puts a value where it stays for the life of the process.
pub(crate) fn forever<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// The memory cannot hold what it must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooSmall {
    frames: usize,
    needed: usize,
    reserve: usize,
}

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |frames: usize| frames * FRAME_SIZE / 1024;
        write!(
            f,
            "--ram {}K is less than the budget: {}K are needed, of which {}K are the reserve; give --ram {}K or more",
            kib(self.frames),
            kib(self.needed),
            kib(self.reserve),
            kib(self.needed),
        )
    }
}

impl core::error::Error for TooSmall {}
