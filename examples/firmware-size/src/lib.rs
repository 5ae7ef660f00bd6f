//! A microcontroller with 64 KiB of memory, the reserve on it, and what it costs.
//!
//! Each program boots, uses up the ordinary memory, shows that a packet which serves the VM gets through
//! and a stranger's does not, and says how much stack that took. [`machine`] is the system, [`card`] a
//! network card whose cable leads back into it, [`stack`] measures.

#![no_std]

pub mod card;
pub mod machine;
pub mod stack;

use core::net::{Ipv4Addr, SocketAddrV4};
use core::panic::PanicInfo;

use cortex_m_semihosting::debug::{self, ExitStatus};
use cortex_m_semihosting::hprintln;

/// Our address, which is the server's as well.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Our end of the connection.
pub const LOCAL: SocketAddrV4 = SocketAddrV4::new(ADDRESS, 700);
/// The other end.
pub const SERVER: SocketAddrV4 = SocketAddrV4::new(ADDRESS, 2049);
/// Whom nobody asked.
pub const STRANGER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 66), 6666);

/// Ends the program, and the emulator with it: all went well.
pub fn success() -> ! {
    hprintln!("stack: {} bytes at most", stack::peak());
    debug::exit(ExitStatus::Ok(()));
    halt()
}

#[panic_handler]
fn failure(info: &PanicInfo<'_>) -> ! {
    hprintln!("{}", info);
    debug::exit(ExitStatus::Err(()));
    halt()
}

/// Outside of the emulator nobody ends a program.
fn halt() -> ! {
    loop {
        cortex_m::asm::wfi();
    }
}

/// A UDP packet of `payload` bytes, as IP carries it, into `packet`. Nobody here looks at its checksum.
pub fn udp(packet: &mut [u8], from: SocketAddrV4, to: SocketAddrV4) {
    let (len, udp) = (packet.len() as u16, packet.len() as u16 - 20);
    packet[..4].copy_from_slice(&[0x45, 0, (len >> 8) as u8, len as u8]);
    packet[4..12].copy_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
    packet[12..16].copy_from_slice(&from.ip().octets());
    packet[16..20].copy_from_slice(&to.ip().octets());
    packet[20..22].copy_from_slice(&from.port().to_be_bytes());
    packet[22..24].copy_from_slice(&to.port().to_be_bytes());
    packet[24..26].copy_from_slice(&udp.to_be_bytes());
    packet[26..28].copy_from_slice(&[0, 0]);
}
