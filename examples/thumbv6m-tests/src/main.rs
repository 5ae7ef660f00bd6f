//! The tests of the allocator that run on a Cortex-M0: no compare-and-swap, no 64-bit atomics, no
//! unaligned loads, 16 KiB of memory in frames of 512 bytes.
//!
//! The battery is that of the host (`mempool/tests/battery`). What only this target has is a real
//! interrupt, which comes between any two instructions and allocates as well ([`interrupt`]). Says what
//! it runs, and ends the emulator with its status.

#![no_std]
#![no_main]

#[path = "../../../mempool/tests/battery/battery.rs"]
mod battery;
mod interrupt;

use core::panic::PanicInfo;

use cortex_m_rt::entry;
use cortex_m_semihosting::debug::{self, ExitStatus};
use cortex_m_semihosting::hprintln;
use mempool::FRAME_SIZE;

/// Operations of each test.
const ROUNDS: u32 = 3000;

/// All that the machine has for frames.
#[repr(align(512))]
struct Memory([u8; battery::FRAMES * FRAME_SIZE]);

const _: () = assert!(align_of::<Memory>() == FRAME_SIZE);
const _: () = assert!(!cfg!(target_has_atomic = "32"), "it has compare-and-swap");

#[entry]
fn main() -> ! {
    static mut MEMORY: Memory = Memory([0; battery::FRAMES * FRAME_SIZE]);

    battery::run(&mut MEMORY.0, ROUNDS, &mut |name| {
        hprintln!("test {}", name)
    });
    hprintln!("test interrupt");
    let ticks = interrupt::run(&mut MEMORY.0);
    hprintln!(
        "{} tests of {} rounds and {} interrupts in frames of {} bytes: all well",
        battery::TESTS.len() + 1,
        ROUNDS,
        ticks,
        FRAME_SIZE
    );
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
