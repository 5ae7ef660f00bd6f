//! The reserve under a stack of one's own: here, one that looks at bytes.

#![no_std]
#![no_main]

use cortex_m_rt::entry;
use cortex_m_semihosting::hprintln;
use firmware_size::machine::{self, Arena, FRAMES};
use firmware_size::{LOCAL, SERVER, STRANGER, udp};
use mempool::{FRAME_SIZE, FrameEntry};
use netreserve::Flow;

/// Packets of each kind: several times as many as there are buffers.
const PACKETS: usize = 20;

#[entry]
fn main() -> ! {
    static mut ARENA: Arena = Arena([0; FRAMES * FRAME_SIZE]);
    static mut TABLE: [FrameEntry; FRAMES] = [FrameEntry::EMPTY; FRAMES];

    let (to_us, to_them) = (Flow::udp(LOCAL, SERVER), Flow::udp(SERVER, LOCAL));
    machine::run(ARENA, TABLE, &[to_us, to_them], |mut device| {
        let mut foreign = [0x55; 1000];
        udp(&mut foreign, STRANGER, LOCAL);
        assert!(device.poll_receive().is_none(), "buffers are posted");
        let mut bytes = 0;
        for i in 0..PACKETS {
            for _ in 0..2 {
                assert!(device.nic_mut().arrive(&foreign), "a buffer is posted");
            }
            let token = device.poll_transmit().expect("there is a transmit buffer");
            token.send(500, |packet| {
                packet.fill(i as u8);
                udp(packet, SERVER, LOCAL);
            });
            let (received, _answer) = device.poll_receive().expect("it comes back");
            received.read(|packet| {
                assert!(packet[28..].iter().all(|byte| *byte == i as u8));
                bytes += packet.len();
            });
        }
        assert!(device.poll_receive().is_none());
        hprintln!("delivered: {} packets of {} bytes together", PACKETS, bytes);
    });
    firmware_size::success()
}
