//! Neighbours: strangers in numbers, and servers that come and go.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;

use netreserve::{Flow, FlowTable, Hardware, LruSlot, Mechanism as Part, NeighbourCache, Slot};

use crate::rng::Rng;
use crate::verdict::Findings;

const STEPS: usize = 300;
const SLOTS: usize = 8;
const SERVERS: u8 = 3;

/// Lets the day pass.
pub(super) fn run(rng: &mut Rng, off: Option<Part>, findings: &Findings) {
    let (mut flows, mut addrs) = ([const { Slot::EMPTY }; 8], [const { Slot::EMPTY }; 6]);
    let flows = FlowTable::new(&mut flows, &mut addrs);
    let mut slots = [const { LruSlot::EMPTY }; SLOTS];
    let cache = NeighbourCache::new(&mut slots, &flows, Duration::from_secs(60));
    if let Some(part) = off {
        cache.ablate(part);
    }
    let now = Duration::from_secs(1);
    let mut known = [false; SERVERS as usize];
    for _ in 0..STEPS {
        let number = rng.below(SERVERS.into()) as u8;
        let (server, flow) = (server(number), flow(number));
        let known = &mut known[usize::from(number)];
        match rng.below(8) {
            0 if flows.contains(flow) => {
                let _ = flows.remove(flow);
                *known = false;
            }
            0 | 1 => {
                let _ = flows.add(flow);
                let learned = cache.learn(server, hardware(number), now);
                findings.check(learned.is_ok(), "N8", || {
                    format!("there was no room for the neighbour {server}, whom the VM needs")
                });
                *known = true;
            }
            _ => {
                for _ in 0..rng.range(1, 20) {
                    let stranger = Ipv4Addr::new(10, 0, 1, rng.below(250) as u8);
                    let _ = cache.learn(stranger, [6; 6], now);
                }
            }
        }
        if *known {
            let found = cache.lookup(server, now);
            let right = found == Hardware::Known(hardware(number));
            findings.check(right, "N8", || {
                format!("the VM needs the neighbour {server}, and a flood evicted it")
            });
        }
    }
}

fn server(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 2 + number)
}

fn flow(number: u8) -> Flow {
    let local = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 700);
    Flow::tcp(local, SocketAddrV4::new(server(number), 2049))
}

fn hardware(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}
