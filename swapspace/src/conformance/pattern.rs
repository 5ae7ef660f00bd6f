//! What the suite writes: bytes that say which slot and which version they belong to.

/// Fills a page.
pub(super) fn fill(page: &mut [u8], slot: u32, version: u32) {
    for (word, bytes) in (0u64..).zip(page.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&expected(slot, version, word));
    }
}

/// Whether a page is what [`fill`] made of it.
pub(super) fn matches(page: &[u8], slot: u32, version: u32) -> bool {
    (0u64..)
        .zip(page.chunks_exact(8))
        .all(|(word, bytes)| bytes == expected(slot, version, word))
}

fn expected(slot: u32, version: u32, word: u64) -> [u8; 8] {
    let page = u64::from(slot) << 32 | u64::from(version);
    mix(page ^ mix(word)).to_le_bytes()
}

/// The output function of SplitMix64: every bit of the result depends on every bit of `x`.
pub(super) const fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
