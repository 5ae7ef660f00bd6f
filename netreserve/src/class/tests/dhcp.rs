//! The lease of our address.

use alloc::vec;

use super::*;
use crate::DhcpClient;

const XID: u32 = 0x1234_5678;
const CLIENT: SocketAddrV4 = SocketAddrV4::new(*LOCAL.ip(), 68);
const DHCP_SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 3), 67);
const EVERYBODY: Ipv4Addr = Ipv4Addr::BROADCAST;

/// A message of DHCP; `reply` says which way.
fn message(reply: bool, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut frame = packet(Protocol::Udp, from, to, 244);
    let bootp = &mut frame[42..];
    bootp[..4].copy_from_slice(&[1 + u8::from(reply), 1, 6, 0]);
    bootp[4..8].copy_from_slice(&XID.to_be_bytes());
    bootp[28..34].copy_from_slice(&MAC);
    bootp[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    frame
}

fn changed(mut frame: Vec<u8>, at: usize) -> Vec<u8> {
    frame[42 + at] ^= 4;
    frame
}

fn answer() -> Vec<u8> {
    message(true, DHCP_SERVER, CLIENT)
}

const SERVES: Class = Class::Control(Control::Dhcp);
const ANYBODYS: Class = Class::Socket {
    protocol: Protocol::Udp,
    local_port: 68,
};

#[test]
fn n8_the_lease_is_renewed_when_that_is_asked_for() {
    with_swap_flow(|flows| {
        let received = |frame: &[u8]| classify(frame, flows);
        let sent = |frame: &[u8]| classify_outgoing(frame, flows);
        let renewal = message(false, CLIENT, DHCP_SERVER);
        assert_eq!((received(&answer()), sent(&renewal)), (ANYBODYS, ANYBODYS));
        flows.allow_dhcp(DhcpClient::new(MAC));
        assert_eq!((received(&answer()), sent(&renewal)), (SERVES, SERVES));

        // Rebinding: to everybody, and from whoever answers, to everybody.
        let to = |ip| SocketAddrV4::new(ip, 68);
        assert_eq!(received(&message(true, DHCP_SERVER, to(EVERYBODY))), SERVES);
        let nobody = to(Ipv4Addr::UNSPECIFIED);
        let all = SocketAddrV4::new(EVERYBODY, 67);
        assert_eq!(sent(&message(false, nobody, all)), SERVES);
        assert_eq!(sent(&message(false, CLIENT, all)), SERVES);

        // For another client, of another kind, to another host, the wrong way.
        for at in [0, 1, 2, 28, 33, 236, 239] {
            assert_eq!(received(&changed(answer(), at)), ANYBODYS, "{at}");
            assert_eq!(sent(&changed(renewal.clone(), at)), ANYBODYS, "{at}");
        }
        let other = message(true, DHCP_SERVER, to(*STRANGER.ip()));
        assert_eq!(received(&other), ANYBODYS);
        assert_eq!(received(&message(false, DHCP_SERVER, CLIENT)), ANYBODYS);
        assert_eq!(sent(&message(true, CLIENT, DHCP_SERVER)), ANYBODYS);
        let port = SocketAddrV4::new(*DHCP_SERVER.ip(), 68);
        assert_eq!(received(&message(true, port, CLIENT)), ANYBODYS);
        assert_eq!(received(&tagged(answer(), 7)), ANYBODYS);
        // The datagram ends before the packet does.
        let mut short = answer();
        short[39] -= 8;
        assert_eq!(received(&short), ANYBODYS);
        for cut in 42..42 + 240 {
            let mut short = answer();
            short.truncate(cut);
            let total = cut as u16 - 14;
            short[16..18].copy_from_slice(&total.to_be_bytes());
            short[38..40].copy_from_slice(&(total - 20).to_be_bytes());
            assert_eq!(received(&short), ANYBODYS);
        }

        flows.forbid_dhcp();
        assert_eq!((received(&answer()), sent(&renewal)), (ANYBODYS, ANYBODYS));
    });
}

#[test]
fn n8_the_lease_of_another_server_transaction_or_vlan_is_anybodys() {
    with_swap_flow(|flows| {
        let received = |frame: &[u8]| classify(frame, flows);
        let client = DhcpClient::new(MAC);
        flows.allow_dhcp(client.server(*DHCP_SERVER.ip()).transaction(XID));
        assert_eq!(received(&answer()), SERVES);
        assert_eq!(received(&changed(answer(), 7)), ANYBODYS);
        let stranger = SocketAddrV4::new(*STRANGER.ip(), 67);
        assert_eq!(received(&message(true, stranger, CLIENT)), ANYBODYS);
        let vlan = VlanId::new(7).unwrap();
        flows.allow_dhcp(client.in_vlan(vlan));
        let to_all = SocketAddrV4::new(EVERYBODY, 68);
        let answer = message(true, DHCP_SERVER, to_all);
        assert_eq!(received(&tagged(answer.clone(), 7)), SERVES);
        assert_eq!(received(&answer), ANYBODYS);
    });
    let frame = vec![0; 14];
    with_swap_flow(|flows| assert_eq!(classify(&frame, flows), Class::Other));
}
