//! A device over a device that sees what the swap stack is given.

use core::net::Ipv4Addr;

use netreserve::Medium;
use smoltcp::phy::{self, Device, DeviceCapabilities};
use smoltcp::time::Instant;

use crate::packet;
use crate::verdict::Findings;

/// Lets everything through, and reports what the swap stack must never see.
#[derive(Debug)]
pub(crate) struct Guard<D> {
    pub(crate) inner: D,
    medium: Medium,
    server: Ipv4Addr,
    findings: Findings,
    /// Packets can be damaged on their way, and look like others.
    lossless: bool,
}

impl<D> Guard<D> {
    pub(crate) fn new(
        inner: D,
        medium: Medium,
        server: Ipv4Addr,
        findings: Findings,
        lossless: bool,
    ) -> Self {
        Guard {
            inner,
            medium,
            server,
            findings,
            lossless,
        }
    }
}

/// A received packet on its way up.
pub(crate) struct RxToken<'a, T> {
    inner: T,
    medium: Medium,
    server: Ipv4Addr,
    findings: &'a Findings,
    lossless: bool,
}

impl<T: phy::RxToken> phy::RxToken for RxToken<'_, T> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        self.inner.consume(|frame| {
            let whole = &packet::framed(self.medium, frame);
            let sender = packet::sender(whole);
            let known = sender == Some(self.server) || packet::is_icmp(whole);
            self.findings.check(known || !self.lossless, "N8", || {
                let what = packet::describe(whole);
                format!("the swap stack was given a stranger's packet: {what}")
            });
            f(frame)
        })
    }
}

impl<D: Device> Device for Guard<D> {
    type RxToken<'a>
        = RxToken<'a, D::RxToken<'a>>
    where
        Self: 'a;
    type TxToken<'a>
        = D::TxToken<'a>
    where
        Self: 'a;

    fn receive(&mut self, now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let (inner, tx) = self.inner.receive(now)?;
        let rx = RxToken {
            inner,
            medium: self.medium,
            server: self.server,
            findings: &self.findings,
            lossless: self.lossless,
        };
        Some((rx, tx))
    }

    fn transmit(&mut self, now: Instant) -> Option<Self::TxToken<'_>> {
        self.inner.transmit(now)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.inner.capabilities()
    }
}
