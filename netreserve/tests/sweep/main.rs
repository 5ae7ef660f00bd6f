//! Fail-the-Nth sweep of the packet path: every frame, buffer and charge that can fail to be had does,
//! once by itself and once with all after it. No charge, buffer or frame is lost by that, no counter is
//! wrong, and when memory is back everything goes on.

#[cfg(feature = "smoltcp")]
mod connection;
#[path = "../../../mempool/tests/sweep/inject.rs"]
mod inject;
mod machine;
mod packets;
mod receive;
mod skbs;
mod transmit;
