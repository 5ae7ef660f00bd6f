//! The heap against a model: a map from address to layout and contents.

use alloc::collections::BTreeMap;

use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    Alloc {
        layout: Layout,
        zeroed: bool,
        entitled: bool,
    },
    Realloc {
        size: usize,
        entitled: bool,
        which: prop::sample::Index,
    },
    Free(prop::sample::Index),
}

fn ops(range: core::ops::Range<usize>) -> impl Strategy<Value = Vec<Op>> {
    let top = FRAME_SIZE.ilog2();
    let size = || prop_oneof![4 => 1usize..300, 2 => 1..FRAME_SIZE, 1 => 1..5 * FRAME_SIZE, 1 => Just(FRAME_SIZE)];
    let align = prop_oneof![4 => 0..5u32, 1 => 0..=top];
    let entitled = || prop::bool::weighted(0.3);
    let which = any::<prop::sample::Index>;
    let op = prop_oneof![
        5 => (size(), align, any::<bool>(), entitled()).prop_map(|(size, align, zeroed, entitled)| {
            Op::Alloc { layout: layout(size, 1 << align), zeroed, entitled }
        }),
        2 => (size(), entitled(), which()).prop_map(|(size, entitled, which)| {
            Op::Realloc { size, entitled, which }
        }),
        4 => which().prop_map(Op::Free),
    ];
    prop::collection::vec(op, range)
}

/// Blocks that are held, by address: their layout, and the byte that fills them.
#[derive(Default)]
struct Model(BTreeMap<NonNull<u8>, (Layout, u8)>);

impl Model {
    fn insert(&mut self, block: NonNull<u8>, layout: Layout, byte: u8) {
        let end = block.addr().get() + layout.size();
        assert!(block.addr().get().is_multiple_of(layout.align()));
        if let Some((before, (l, _))) = self.0.range(..=block).next_back() {
            assert!(before.addr().get() + l.size() <= block.addr().get());
        }
        if let Some((after, _)) = self.0.range(block..).next() {
            assert!(end <= after.addr().get());
        }
        // SAFETY: the block is that long.
        unsafe { block.write_bytes(byte, layout.size()) };
        self.0.insert(block, (layout, byte));
    }

    /// Takes one out, with its bytes seen to be what they were.
    fn remove(&mut self, which: prop::sample::Index) -> Option<(NonNull<u8>, Layout, u8)> {
        if self.0.is_empty() {
            return None;
        }
        let block = *self.0.keys().nth(which.index(self.0.len()))?;
        let (layout, byte) = self.0.remove(&block)?;
        assert!(holds(block, layout.size(), byte), "{layout:?}");
        Some((block, layout, byte))
    }
}

/// 128 times 800 to 1,000 operations.
#[test]
fn blocks_never_overlap_and_everything_comes_back() {
    let b = bench(160, 64);
    let config = ProptestConfig {
        cases: 128,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    };
    proptest!(config, |(ops in ops(800..1000))| {
        let mut model = Model::default();
        for (n, op) in ops.into_iter().enumerate() {
            let byte = n as u8;
            let entitled = matches!(op, Op::Alloc { entitled: true, .. } | Op::Realloc { entitled: true, .. });
            let scope = entitled.then(|| b.machine.zone.memalloc(&b.token));
            let before = (b.machine.zone.stats().reserve_in_use, b.reserve_objects());
            match op {
                Op::Alloc { layout, zeroed, .. } => {
                    // SAFETY: not of size 0.
                    let block = unsafe { if zeroed { b.heap.alloc_zeroed(layout) } else { b.heap.alloc(layout) } };
                    if let Some(block) = NonNull::new(block) {
                        prop_assert!(!zeroed || holds(block, layout.size(), 0));
                        model.insert(block, layout, byte);
                    }
                }
                Op::Realloc { size, which, .. } => if let Some((block, old, filled)) = model.remove(which) {
                    // SAFETY: the model held it with that layout; the size is not 0.
                    let moved = unsafe { b.heap.realloc(block.as_ptr(), old, size) };
                    match NonNull::new(moved) {
                        Some(moved) => {
                            prop_assert!(holds(moved, size.min(old.size()), filled));
                            model.insert(moved, layout(size, old.align()), byte);
                        }
                        None => model.insert(block, old, byte),
                    }
                },
                Op::Free(which) => if let Some((block, layout, _)) = model.remove(which) {
                    b.free(block, layout);
                },
            }
            drop(scope);
            if !entitled {
                let after = (b.machine.zone.stats().reserve_in_use, b.reserve_objects());
                prop_assert!(after.0 <= before.0 && after.1 <= before.1, "M4");
            }
        }
        for (block, (layout, byte)) in model.0 {
            prop_assert!(holds(block, layout.size(), byte));
            b.free(block, layout);
        }
        prop_assert_eq!(b.machine.zone.stats().reserve_in_use, 0);
        b.heap.classes().unwrap().shrink();
        prop_assert_eq!(b.machine.zone.stats().free, 160);
    });
    assert!(
        b.machine.zone.stats().reserve_peak > 16,
        "the reserve was put to use"
    );
}
