//! Fragments: whose those without ports are.

use alloc::vec;
use alloc::vec::Vec;

use super::ipv6::{LOCAL6, SERVER6, behind};
use super::*;
use crate::FirstFragment;

const FIRST: usize = 48;

fn with_places<const N: usize>(check: impl FnOnce(&FlowTable<'_>)) {
    let (mut flows, mut addrs) = ([const { Slot::EMPTY }; 4], [const { Slot::EMPTY }; 8]);
    let mut places = [const { FirstFragment::EMPTY }; N];
    let table = FlowTable::new(&mut flows, &mut addrs).with_fragments(&mut places);
    table.add(SWAP).unwrap();
    table.add(Flow::tcp(LOCAL6, SERVER6)).unwrap();
    check(&table);
}

/// The first fragment, with so many bytes of a segment, of the packet `id`.
fn first(id: u16, len: usize, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut frame = packet(Protocol::Tcp, from, to, len.saturating_sub(20));
    frame.truncate(34 + len);
    frame[16..18].copy_from_slice(&(20 + len as u16).to_be_bytes());
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    fragment(frame, 0)
}

/// Another one: 8 bytes from `offset` on.
fn part(id: u16, offset: usize, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut frame = ethernet(0x0800, &ipv4(6, *from.ip(), *to.ip(), &[0xee; 8]));
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    fragment(frame, offset as u16 / 8)
}

const REFUSED: Class = Class::Fragment { vmio: false };
const LOST: Class = Class::Fragment { vmio: true };

#[test]
fn n8_the_fragments_of_a_reply_follow_the_first_one() {
    with_places::<4>(|flows| {
        let received = |frame: &[u8]| classify(frame, flows);
        let rest = part(7, FIRST, SERVER, LOCAL);
        assert_eq!(received(&rest), REFUSED, "nothing is known of it yet");
        assert_eq!(
            received(&first(7, FIRST, SERVER, LOCAL)),
            Class::VmioFragment
        );
        assert_eq!(received(&rest), Class::VmioFragment);
        assert_eq!(received(&part(7, 4096, SERVER, LOCAL)), Class::VmioFragment);
        // Of another packet, from another host, of another protocol, in another network.
        assert_eq!(received(&part(8, FIRST, SERVER, LOCAL)), REFUSED);
        assert_eq!(received(&part(7, FIRST, STRANGER, LOCAL)), REFUSED);
        let mut udp = rest.clone();
        udp[23] = 17;
        assert_eq!(received(&udp), REFUSED);
        assert_eq!(received(&tagged(rest.clone(), 7)), REFUSED);
        assert_eq!(received(&tagged(rest.clone(), 0)), Class::VmioFragment);
        // The other way round it is another packet.
        assert_eq!(classify_outgoing(&rest, flows), REFUSED);
        assert_eq!(received(&part(7, FIRST, LOCAL, SERVER)), REFUSED);
    });
}

#[test]
fn n8_our_own_fragments_follow_theirs() {
    with_places::<4>(|flows| {
        let sent = |frame: &[u8]| classify_outgoing(frame, flows);
        assert_eq!(sent(&part(7, FIRST, LOCAL, SERVER)), REFUSED);
        assert_eq!(sent(&first(7, FIRST, LOCAL, SERVER)), Class::VmioFragment);
        assert_eq!(sent(&part(7, FIRST, LOCAL, SERVER)), Class::VmioFragment);
        assert_eq!(sent(&first(9, FIRST, LOCAL, STRANGER)), REFUSED);
    });
}

#[test]
fn n8_fragments_over_ipv6_follow_the_first_one() {
    with_places::<4>(|flows| {
        let frame = |id: u8, field: [u8; 2]| {
            let header = [0, field[0], field[1], 0, 0, 0, id];
            behind(&[(44, &header)], SERVER6, LOCAL6)
        };
        let received = |frame: &[u8]| classify(frame, flows);
        assert_eq!(received(&frame(9, [0, 64])), REFUSED);
        assert_eq!(received(&frame(9, [0, 1])), Class::VmioFragment);
        assert_eq!(received(&frame(9, [0, 64])), Class::VmioFragment);
        assert_eq!(received(&frame(8, [0, 64])), REFUSED);
        assert_eq!(received(&frame(9, [0, 16])), REFUSED, "over the first one");
        let short = {
            let mut short = frame(10, [0, 1]);
            short.truncate(short.len() - 1);
            short[19] -= 1;
            short
        };
        assert_eq!(received(&short), LOST);
    });
}

/// RFC 1858 and 3128: a fragment that writes over the ports would be somebody else's.
#[test]
fn n2_a_fragment_that_overlaps_the_first_one_is_refused() {
    with_places::<4>(|flows| {
        assert_eq!(
            classify(&first(7, FIRST, SERVER, LOCAL), flows),
            Class::VmioFragment
        );
        for offset in (8..FIRST).step_by(8) {
            assert_eq!(
                classify(&part(7, offset, SERVER, LOCAL), flows),
                REFUSED,
                "{offset}"
            );
        }
        // Another first one does not open the door either, whoever's it is.
        assert_eq!(classify(&first(7, FIRST, STRANGER, LOCAL), flows), REFUSED);
        let other = SocketAddrV4::new(*SERVER.ip(), 80);
        assert_eq!(classify(&first(7, FIRST, other, LOCAL), flows), REFUSED);
        let mut gre = part(7, 0, SERVER, LOCAL);
        gre[23] = 47;
        assert_eq!(classify(&gre, flows), REFUSED);
        // A first one without the whole header is too small to be told by.
        for len in [4, 8, 16, 19] {
            assert_eq!(
                classify(&first(8, len, SERVER, LOCAL), flows),
                LOST,
                "{len}"
            );
            assert_eq!(classify(&part(8, 24, SERVER, LOCAL), flows), REFUSED);
        }
        assert_eq!(
            classify(&first(8, 24, SERVER, LOCAL), flows),
            Class::VmioFragment
        );
    });
}

#[test]
fn n4_packets_in_fragments_are_bounded_and_strangers_cannot_push_one_out() {
    with_places::<3>(|flows| {
        let begun = |id| classify(&first(id, FIRST, SERVER, LOCAL), flows) == Class::VmioFragment;
        let goes_on = |id| classify(&part(id, FIRST, SERVER, LOCAL), flows) == Class::VmioFragment;
        assert!(begun(1) && begun(2) && begun(3));
        for id in 0..1000 {
            let stranger = first(id, FIRST, STRANGER, LOCAL);
            assert_eq!(classify(&stranger, flows), REFUSED);
            assert_eq!(classify(&part(id, FIRST, STRANGER, LOCAL), flows), REFUSED);
        }
        assert!(begun(2), "again, in its own place");
        assert!(goes_on(1) && goes_on(2) && goes_on(3));
        assert!(begun(4));
        assert!(!goes_on(1) && goes_on(2) && goes_on(3) && goes_on(4));
    });
    with_places::<0>(|flows| {
        assert_eq!(classify(&first(1, FIRST, SERVER, LOCAL), flows), LOST);
    });
}

#[test]
fn n2_an_identification_that_comes_again_is_another_packet() {
    with_places::<2>(|flows| {
        let vmio = |frame: &[u8]| classify(frame, flows) == Class::VmioFragment;
        let rest = part(7, FIRST, SERVER, LOCAL);
        let other = SocketAddrV4::new(*SERVER.ip(), 80);
        assert!(vmio(&first(7, FIRST, SERVER, LOCAL)) && vmio(&rest));
        // From the same host, but nobody's flow.
        assert!(!vmio(&first(7, FIRST, other, LOCAL)));
        assert!(!vmio(&rest), "they are the other packet's");
        assert!(vmio(&first(7, FIRST, SERVER, LOCAL)) && vmio(&rest));
        // Of which nobody can tell whose it is.
        assert!(!vmio(&first(7, 8, SERVER, LOCAL)));
        assert!(!vmio(&rest));
        // Another identification, another way, another host: another packet.
        assert!(vmio(&first(7, FIRST, SERVER, LOCAL)));
        assert!(!vmio(&first(8, FIRST, other, LOCAL)));
        assert!(!vmio(&first(7, FIRST, STRANGER, LOCAL)));
        assert_eq!(
            classify_outgoing(&first(7, FIRST, LOCAL, STRANGER), flows),
            REFUSED
        );
        assert!(vmio(&rest));
    });
}

#[test]
fn n2_a_flow_that_ends_takes_its_fragments_along() {
    with_places::<4>(|flows| {
        let vmio = |frame: &[u8]| classify(frame, flows) == Class::VmioFragment;
        let second = SocketAddrV4::new(*SERVER.ip(), 111);
        let other = Flow::tcp(LOCAL, second);
        flows.add(other).unwrap();
        assert!(vmio(&first(7, FIRST, SERVER, LOCAL)) && vmio(&first(8, FIRST, second, LOCAL)));
        flows.remove(SWAP).unwrap();
        assert!(!vmio(&part(7, FIRST, SERVER, LOCAL)));
        assert!(vmio(&part(8, FIRST, second, LOCAL)), "that flow goes on");
        flows.add(SWAP).unwrap();
        assert!(!vmio(&part(7, FIRST, SERVER, LOCAL)));
        flows.remove(other).unwrap();
    });
}

/// Identifications come again: what is let in for one packet is bounded.
#[test]
fn n4_a_packet_lets_in_no_more_than_a_packet_can_have() {
    with_places::<1>(|flows| {
        let begin = first(7, FIRST, SERVER, LOCAL);
        let goes_on = || classify(&part(7, 800, SERVER, LOCAL), flows) == Class::VmioFragment;
        for _ in 0..2 {
            assert_eq!(classify(&begin, flows), Class::VmioFragment);
            assert_eq!((0..10_000).filter(|_| goes_on()).count(), 65_536 / 8);
        }
    });
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    id: u16,
    offset: usize,
    stranger: bool,
    outgoing: bool,
}

fn piece() -> impl Strategy<Value = Piece> {
    let offset = prop_oneof![Just(0), (1usize..16).prop_map(|n| n * 8)];
    (1u16..6, offset, any::<bool>(), any::<bool>()).prop_map(|(id, offset, stranger, outgoing)| {
        Piece {
            id,
            offset,
            stranger,
            outgoing,
        }
    })
}

proptest! {
    /// Against a model that keeps the last packets in a list.
    #[test]
    fn n2_fragments_are_those_of_the_last_packets_of_flows(
        pieces in proptest::collection::vec(piece(), 0..200),
    ) {
        with_places::<3>(|flows| {
            let mut model: Vec<(u16, bool)> = vec![];
            let mut ring: Vec<Option<(u16, bool)>> = vec![None; 3];
            let mut next = 0;
            for Piece { id, offset, stranger, outgoing } in pieces {
                let remote = if stranger { STRANGER } else { SERVER };
                let (from, to) = if outgoing { (LOCAL, remote) } else { (remote, LOCAL) };
                let frame = match offset {
                    0 => first(id, FIRST, from, to),
                    _ => part(id, offset, from, to),
                };
                let class = match outgoing {
                    false => classify(&frame, flows),
                    true => classify_outgoing(&frame, flows),
                };
                let key = (id, outgoing);
                if offset == 0 && !stranger && !model.contains(&key) {
                    if let Some(old) = ring[next].replace(key) {
                        model.retain(|known| *known != old);
                    }
                    model.push(key);
                    next = (next + 1) % 3;
                } else if offset == 0 && !stranger && ring[next] == Some(key) {
                    next = (next + 1) % 3;
                }
                let expected = !stranger && model.contains(&key) && (offset == 0 || offset >= FIRST);
                assert_eq!(class == Class::VmioFragment, expected);
            }
        });
    }
}
