//! `defmt::Format` of the handles: what a line of a log can use, and no more. Errors, statistics and
//! other plain data derive theirs.

use mempool::__formats;

use crate::{
    AddrEntry, ConsumerSlot, FirstFragment, Flow, FlowTable, Ingress, QueueEntry, Skb, SkbPool,
    Socket, SocketTable,
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
}

#[cfg(feature = "smoltcp")]
mod smoltcp {
    use mempool::__formats;

    use crate::{Nic, PhyNic, Reserved, RxToken, TxToken};

    __formats! {
        ['m, N: Nic<'m>] Reserved<'m, N>: |x| "Reserved(more pending: {=bool})", x.more_pending();
        [] RxToken<'_, '_>: |x| "RxToken";
        [N] TxToken<'_, '_, N>: |x| "TxToken";
        [D] PhyNic<'_, D>: |x| "PhyNic";
    }
}
