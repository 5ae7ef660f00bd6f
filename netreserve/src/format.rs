//! `defmt::Format` of the handles: what a line of a log can use, and no more. Errors, statistics and
//! other plain data derive theirs.

use mempool::__formats;

use crate::{
    AddrEntry, ConsumerSlot, DatagramEntry, FirstFragment, Flow, FlowTable, FragmentSlot, Ingress,
    LruSlot, MemallocContext, NeighbourCache, NeighbourEntry, OwnedSocket, QueueEntry, Reassembled,
    Reassembly, RxLimits, RxRing, Skb, SkbFrags, SkbPool, Socket, SocketTable, TxLimits,
};

__formats! {
    [] FlowTable<'_>: |x| "FlowTable(any: {=bool})", x.any();
    [] AddrEntry: |x| "AddrEntry";
    [] Flow: |x|
        "Flow({} {} - {}, vlan {})",
        x.protocol(), x.local(), x.remote(), x.vlan();
    [] FirstFragment: |x| "FirstFragment";
    [] ConsumerSlot<'_>: |x| "ConsumerSlot";
    [] Ingress<'_>: |x| "Ingress({})", x.stats();
    [] Skb<'_>: |x|
        "Skb({=usize} bytes in {=usize}, emergency: {=bool})",
        x.len(), x.truesize(), x.is_emergency();
    [] SkbPool<'_>: |x| "SkbPool({})", x.stats();
    [] SocketTable<'_>: |x| "SocketTable({})", x.stats();
    [] Socket: |x| "Socket";
    [] QueueEntry<'_>: |x| "QueueEntry";
    [const N: usize] SkbFrags<'_, N>: |x| "SkbFrags({=usize} bytes)", x.len();
    [const N: usize] RxRing<'_, N>: |x| "RxRing({})", x.stats();
    [] NeighbourCache<'_>: |x| "NeighbourCache({})", x.stats();
    [] Reassembly<'_>: |x| "Reassembly({})", x.stats();
    [] Reassembled<'_, '_>: |x| "Reassembled";
    [] NeighbourEntry: |x| "NeighbourEntry";
    [] FragmentSlot<'_>: |x| "FragmentSlot";
    [] DatagramEntry: |x| "DatagramEntry";
    [E] LruSlot<E>: |x| "LruSlot";
    [R] MemallocContext<'_, R>: |x| "MemallocContext";
    [] OwnedSocket<'_, '_>: |x| "OwnedSocket";
    [R] RxLimits<'_, '_, R>: |x| "RxLimits";
    [R] TxLimits<'_, '_, R>: |x| "TxLimits";
}

#[cfg(feature = "embassy")]
mod embassy {
    use mempool::__formats;

    use crate::{NicWaker, ReservedDriver};

    __formats! {
        [] NicWaker: |x| "NicWaker";
        [N] ReservedDriver<'_, N>: |x| "ReservedDriver";
    }
}

#[cfg(feature = "smoltcp")]
mod smoltcp {
    use mempool::__formats;

    use crate::{Nic, OtherMedium, PhyNic, Reserved, RxToken, TxToken};

    __formats! {
        ['m, N: Nic<'m>] Reserved<'m, N>: |x| "Reserved(more pending: {=bool})", x.more_pending();
        [] RxToken<'_, '_>: |x| "RxToken";
        [N] TxToken<'_, '_, N>: |x| "TxToken";
        [D] PhyNic<'_, D>: |x| "PhyNic";
        [D] OtherMedium<D>: |x| "OtherMedium";
    }
}
