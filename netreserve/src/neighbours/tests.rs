use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use proptest::prelude::*;

use super::*;
use crate::testbed::leak;
use crate::{Flow, Slot, VlanId};

const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const REACHABLE: Duration = Duration::from_secs(60);
const NOW: Duration = Duration::from_secs(1);

fn flows() -> &'static FlowTable<'static> {
    let (flows, addrs) = ([const { Slot::EMPTY }; 8], [const { Slot::EMPTY }; 8]);
    leak(FlowTable::new(leak(flows), leak(addrs)))
}

fn cache(slots: usize, flows: &'static FlowTable<'static>) -> NeighbourCache<'static> {
    let slots: Vec<_> = (0..slots).map(|_| LruSlot::EMPTY).collect();
    NeighbourCache::new(slots.leak(), flows, REACHABLE)
}

fn flow(server: Ipv4Addr) -> Flow {
    Flow::tcp(
        SocketAddrV4::new(LOCAL, 700),
        SocketAddrV4::new(server, 2049),
    )
}

fn stranger(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0b00_0000 + number)
}

fn mac(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [2, 0, a, b, c, d]
}

#[test]
fn n8_a_flood_of_neighbours_evicts_no_vmio_peer() {
    let flows = flows();
    let cache = cache(flows.max_peers() + 4, flows);
    // Learned before and after they became peers, over IPv4 and IPv6, the same address in a VLAN.
    cache.learn(SERVER, mac(1), NOW).unwrap();
    flows.add(flow(SERVER)).unwrap();
    flows.add_peer(GATEWAY).unwrap();
    cache.learn(GATEWAY, mac(2), NOW).unwrap();
    let ip = |host| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host);
    let end = |host, port| SocketAddr::from((ip(host), port));
    flows.add(Flow::udp(end(1, 700), end(2, 2049))).unwrap();
    cache.learn(ip(2), mac(3), NOW).unwrap();
    let tagged = Neighbour::from(SERVER).in_vlan(VlanId::new(7).unwrap());
    cache.learn(tagged, mac(4), NOW).unwrap();

    for number in 0..10_000 {
        cache.learn(stranger(number), mac(number), NOW).unwrap();
        // Strangers are looked up as well, which makes them the most recently used.
        let _ = cache.lookup(stranger(number / 2), NOW);
    }
    for (peer, number) in [
        (SERVER.into(), 1),
        (GATEWAY.into(), 2),
        (Neighbour::from(ip(2)), 3),
    ] {
        assert_eq!(
            cache.lookup(peer, NOW),
            Hardware::Known(mac(number)),
            "{peer:?}"
        );
    }
    assert_eq!(
        cache.lookup(tagged, NOW),
        Hardware::Unknown,
        "that one is nobody's"
    );
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.refused), (cache.capacity(), 0));

    // One that is a peer no longer makes room as all others do.
    flows.remove(flow(SERVER)).unwrap();
    for number in 0..100 {
        cache.learn(stranger(number), mac(number), NOW).unwrap();
    }
    assert_eq!(cache.lookup(SERVER, NOW), Hardware::Unknown);
    assert_eq!(cache.lookup(GATEWAY, NOW), Hardware::Known(mac(2)));
}

#[test]
fn n8_a_peer_finds_room_whoever_was_there_first() {
    let flows = flows();
    let cache = cache(2, flows);
    for number in 0..50 {
        cache.learn(stranger(number), mac(number), NOW).unwrap();
    }
    for (server, number) in [(SERVER, 1), (GATEWAY, 2)] {
        flows.add(flow(server)).unwrap();
        cache.learn(server, mac(number), NOW).unwrap();
    }
    // Now there is room for nobody else, not even for a third one.
    assert_eq!(cache.learn(stranger(1), mac(1), NOW), Err(NeighbourError));
    flows.add_peer(stranger(2)).unwrap();
    assert_eq!(cache.learn(stranger(2), mac(2), NOW), Err(NeighbourError));
    assert_eq!(cache.stats().refused, 2);
    // What is known may change: the server comes back with another card.
    cache.learn(SERVER, mac(9), NOW).unwrap();
    assert_eq!(cache.lookup(SERVER, NOW), Hardware::Known(mac(9)));
    assert!(cache.forget(SERVER) && !cache.forget(SERVER));
    cache.learn(stranger(1), mac(1), NOW).unwrap();
}

#[test]
fn a_neighbour_that_was_not_heard_of_for_long_is_stale() {
    let cache = cache(4, flows());
    cache.learn(SERVER, mac(1), NOW).unwrap();
    assert_eq!(
        cache.lookup(SERVER, NOW + REACHABLE),
        Hardware::Known(mac(1))
    );
    let later = NOW + REACHABLE + Duration::from_millis(1);
    assert_eq!(cache.lookup(SERVER, later), Hardware::Stale(mac(1)));
    cache.learn(SERVER, mac(1), later).unwrap();
    assert_eq!(cache.lookup(SERVER, later), Hardware::Known(mac(1)));
    let none = NeighbourCache::new(&mut [], leak(FlowTable::new(&mut [], &mut [])), REACHABLE);
    assert_eq!(none.learn(SERVER, mac(1), NOW), Err(NeighbourError));
    assert_eq!(none.lookup(SERVER, NOW), Hardware::Unknown);
}

const SLOTS: usize = 4;
const HOSTS: u32 = 8;

/// Hosts, the least recently used first.
fn evict(model: &mut Vec<u32>, peers: &[u32]) -> bool {
    let victim = model.iter().position(|host| !peers.contains(host));
    victim.map(|at| model.remove(at)).is_some()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Peers stay, and the least recently used of the others go: or, of those whose standing changed
    /// since, some other that is none.
    #[test]
    fn n8_peers_stay_whatever_is_learned_and_looked_up(
        ops in prop::collection::vec((0u8..8, 0..HOSTS), 500)
    ) {
        let flows = flows();
        let cache = cache(SLOTS, flows);
        let (mut model, mut peers, mut changed) = (Vec::new(), Vec::new(), false);
        for (op, host) in ops {
            let known = model.contains(&host);
            match op {
                0..4 => {
                    let room = known || model.len() < SLOTS || evict(&mut model.clone(), &peers);
                    let result = cache.learn(stranger(host), mac(host), NOW);
                    prop_assert_eq!(result.is_ok(), room);
                    if room {
                        if !known && model.len() == SLOTS {
                            if changed {
                                // Which of them it was, the cache says.
                                let gone = |h: &u32| !peers.contains(h) && !cache.knows(stranger(*h));
                                let at = model.iter().position(gone);
                                prop_assert!(at.is_some(), "a peer went: {:?} of {:?}", peers, model);
                                model.remove(at.unwrap());
                            } else {
                                evict(&mut model, &peers);
                            }
                        }
                        model.retain(|h| *h != host);
                        model.push(host);
                    }
                }
                4 | 5 => {
                    let found = cache.lookup(stranger(host), NOW);
                    prop_assert_eq!(found == Hardware::Known(mac(host)), known);
                    if known {
                        model.retain(|h| *h != host);
                        model.push(host);
                    }
                }
                6 if peers.contains(&host) => {
                    flows.remove_peer(stranger(host)).unwrap();
                    peers.retain(|peer| *peer != host);
                    changed = true;
                }
                6 => {
                    flows.add_peer(stranger(host)).unwrap();
                    peers.push(host);
                    changed = true;
                }
                _ => {
                    prop_assert_eq!(cache.forget(stranger(host)), known);
                    model.retain(|h| *h != host);
                }
            }
            prop_assert_eq!(cache.stats().entries, model.len());
            for host in 0..HOSTS {
                prop_assert_eq!(cache.knows(stranger(host)), model.contains(&host));
            }
        }
    }
}

impl NeighbourCache<'_> {
    /// Without making it the most recently used.
    fn knows(&self, neighbour: Ipv4Addr) -> bool {
        self.state.lock().entries.find(neighbour.into()).is_some()
    }
}
