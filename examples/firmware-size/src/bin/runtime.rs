//! The runtime and the printing alone: what the other programs are compared with.

#![no_std]
#![no_main]

use cortex_m_rt::entry;
use cortex_m_semihosting::hprintln;

#[entry]
fn main() -> ! {
    hprintln!("nothing to do");
    firmware_size::success()
}
