//! How deep the stack was: the start-up code paints it before anything uses it.

/// What `cortex-m-rt` paints it with (its feature `paint-stack`).
const PAINT: u32 = 0xcccc_cccc;

unsafe extern "C" {
    /// From the linker script: one past the first word of the stack, which grows down.
    static _stack_start: u32;
    /// From the linker script: one past the last static.
    static _stack_end: u32;
}

/// Bytes that the stack took at most until now. O(memory).
#[must_use]
pub fn peak() -> usize {
    let (top, mut lowest) = (&raw const _stack_start, &raw const _stack_end);
    while lowest < top {
        // SAFETY: between the two symbols there is memory, aligned to words, that nothing but the stack
        // uses; the read is volatile because the stack below the current frame belongs to no object.
        if unsafe { lowest.read_volatile() } != PAINT {
            break;
        }
        lowest = lowest.wrapping_add(1);
    }
    top as usize - lowest as usize
}
