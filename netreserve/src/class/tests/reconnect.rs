//! The first packets of a new connection, and the last ones of the old.

use super::*;

fn other_port(end: SocketAddrV4) -> SocketAddrV4 {
    SocketAddrV4::new(*end.ip(), end.port() + 1)
}

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

fn segment(from: SocketAddrV4, to: SocketAddrV4, flags: u8) -> Vec<u8> {
    let mut frame = packet(Protocol::Tcp, from, to, 0);
    frame[47] = flags;
    frame
}

#[test]
fn s7_all_packets_of_a_reconnect_are_of_the_flow_that_was_added_before_it() {
    with_swap_flow(|flows| {
        // The old connection is given up, and the new one has another port.
        flows.remove(SWAP).unwrap();
        let local = other_port(LOCAL);
        flows.add(Flow::tcp(local, SERVER)).unwrap();
        for flags in [SYN, ACK, RST] {
            assert_eq!(
                classify_outgoing(&segment(local, SERVER, flags), flows),
                Class::Vmio
            );
        }
        for flags in [SYN | ACK, ACK, RST, RST | ACK] {
            assert_eq!(classify(&segment(SERVER, local, flags), flows), Class::Vmio);
        }
    });
}

/// RFC 5961, section 4.2: the server still has the old connection, and answers the SYN of a new one with
/// an acknowledgement out of it. Our reset ends that, and the next SYN is heard.
#[test]
fn s7_a_new_connection_with_the_old_ends_can_reset_the_old_one() {
    with_swap_flow(|flows| {
        flows.remove(SWAP).unwrap();
        flows.add(SWAP).unwrap();
        assert_eq!(
            classify_outgoing(&segment(LOCAL, SERVER, SYN), flows),
            Class::Vmio
        );
        assert_eq!(classify(&segment(SERVER, LOCAL, ACK), flows), Class::Vmio);
        assert_eq!(
            classify_outgoing(&segment(LOCAL, SERVER, RST), flows),
            Class::Vmio
        );
    });
}

#[test]
fn s7_what_comes_late_for_the_old_connection_serves_nobody_and_is_not_answered() {
    with_swap_flow(|flows| {
        flows.remove(SWAP).unwrap();
        flows.add(Flow::tcp(other_port(LOCAL), SERVER)).unwrap();
        let strangers = |local_port| Class::Socket {
            protocol: Protocol::Tcp,
            local_port,
        };
        for flags in [ACK, RST, RST | ACK] {
            let late = segment(SERVER, LOCAL, flags);
            assert_eq!(classify(&late, flows), strangers(700));
            let answer = segment(LOCAL, SERVER, flags);
            assert_eq!(classify_outgoing(&answer, flows), strangers(700));
        }
        let late = icmp(3, Protocol::Tcp, LOCAL, SERVER);
        assert_eq!(classify(&late, flows), Class::Icmp);
    });
}
