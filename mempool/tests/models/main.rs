//! Zone, slabs and reserve tree against models that only count, 100,000 operations and more of each.
//! (Pools, the heap and skbs have theirs beside their code.)

mod counted;
mod memory;
mod slab;
mod tree;
mod zone;
