//! Numbers that look random and can be had again.

/// xorshift64* (Marsaglia 2003, Vigna 2014).
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    /// Any seed will do; neighbouring ones have nothing in common.
    pub(super) fn new(seed: u64) -> Rng {
        // One step of splitmix64. Its state must not be 0, and of all seeds one gives that.
        let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Rng((z ^ (z >> 31)).max(1))
    }

    /// 64 bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        // The high half times the bound; the bias is below bound / 2^32.
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }

    /// 16 bits.
    pub(super) fn u16(&mut self) -> u16 {
        (self.next() >> 48) as u16
    }

    /// One of `items`, if there are any.
    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        let len = u32::try_from(items.len()).ok().filter(|&len| len > 0)?;
        Some(items[self.below(len) as usize])
    }
}
