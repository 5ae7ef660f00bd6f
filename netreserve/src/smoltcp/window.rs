//! The window follows the buffers.
//!
//! A peer sends what the window allows. If that is more than the card has buffers for, the rest of
//! every burst is lost, and TCP sends it again a piece at a time, after a second, two, four, eight:
//! when memory is short and few buffers are posted, that is when nobody can wait. So whatever leaves
//! says that there is room for as many segments as buffers are posted now, and for one at least: the
//! connection goes on in small steps, without a loss. (A window that shrinks is unusual but lawful, RFC
//! 9293 section 3.8.6: the sender must cope.)

use ::smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpOption, TcpPacket, TcpSeqNumber,
};

/// Bytes of the headers in front of a segment: those of TCP over IPv4 without options.
const HEADERS: usize = 40;

/// What is known of the windows that the swap stack advertises.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// By how many bits the stack shifts its windows, as its last SYN said.
    scale: u8,
    /// What that SYN offered, and which acknowledgement answers it, until the connection is made.
    offer: Option<(u8, TcpSeqNumber)>,
}

impl Window {
    /// Lowers the window of a finished frame to what `posted` buffers hold of segments of packets of
    /// `mtu` bytes. The checksum is made new if it is the stack's business.
    pub(super) fn clamp(&mut self, frame: &mut [u8], posted: usize, mtu: usize, checksum: bool) {
        let _ = self.try_clamp(frame, posted, mtu, checksum);
    }

    /// Looks at a frame for the stack: windows are not shifted if the peer does not do so (RFC 7323
    /// section 1.3).
    pub(super) fn received(&mut self, frame: &[u8]) {
        if let Some((offer, expected)) = self.offer
            && let Some((acknowledged, scaled)) = answer(frame)
            && acknowledged == expected
        {
            self.scale = if scaled { offer } else { 0 };
        }
    }

    /// `None` for what is no TCP over IPv4, and for a SYN.
    fn try_clamp(
        &mut self,
        frame: &mut [u8],
        posted: usize,
        mtu: usize,
        checksum: bool,
    ) -> Option<()> {
        let mut ethernet = EthernetFrame::new_checked(frame).ok()?;
        if ethernet.ethertype() != EthernetProtocol::Ipv4 {
            return None;
        }
        let mut ip = Ipv4Packet::new_checked(ethernet.payload_mut()).ok()?;
        let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
        let fragment = ip.more_frags() || ip.frag_offset() > 0;
        if fragment || ip.next_header() != IpProtocol::Tcp {
            return None;
        }
        let segment = ip.payload_mut();
        let head = TcpPacket::new_checked(&*segment).ok()?;
        // The window of a SYN is left alone: the next segment comes before any data can, and a peer that
        // has seen no window but a small one may send half segments.
        if head.syn() {
            self.scale = window_scale(head.options()).unwrap_or(0);
            self.offer = Some((self.scale, head.seq_number() + 1));
            return None;
        }
        self.offer = None;
        let mut tcp = TcpPacket::new_unchecked(segment);
        let room = posted.max(1).saturating_mul(mtu.saturating_sub(HEADERS));
        // Rounded up: a sender waits long with a segment for which the last few bytes are missing.
        let most = room.div_ceil(1 << self.scale);
        if usize::from(tcp.window_len()) > most {
            tcp.set_window_len(most as u16);
            if checksum {
                tcp.fill_checksum(&source, &destination);
            }
        }
        Some(())
    }
}

/// What the answer to a SYN acknowledges, and whether it shifts windows; `None` for any other frame, and
/// for a damaged one.
fn answer(frame: &[u8]) -> Option<(TcpSeqNumber, bool)> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    if ip.next_header() != IpProtocol::Tcp {
        return None;
    }
    let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
    let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
    let answers = tcp.syn() && tcp.ack();
    let intact = || ip.verify_checksum() && tcp.verify_checksum(&source, &destination);
    (answers && intact()).then(|| (tcp.ack_number(), window_scale(tcp.options()).is_some()))
}

fn window_scale(mut options: &[u8]) -> Option<u8> {
    while !options.is_empty() {
        let (rest, option) = TcpOption::parse(options).ok()?;
        match option {
            TcpOption::WindowScale(scale) => return Some(scale.min(14)),
            TcpOption::EndOfList => return None,
            _ => options = rest,
        }
    }
    None
}

#[cfg(test)]
mod tests;
