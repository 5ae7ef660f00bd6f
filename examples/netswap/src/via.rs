//! The way from the machine to its server: connections to a port of the gateway, opened there when
//! they are first asked for.

use std::collections::HashSet;
use std::sync::Arc;

use core::net::IpAddr;

use nfs_swap::rpc::Framing;
use nfs_swap::transport::{Link, LinkDown, Transport};
use swapspace::Instant;

use crate::gateway::{Forward, Gateway};

/// A transport to the gateway, which stands for the host at `to`.
pub(crate) struct ViaGateway<T> {
    inner: T,
    gateway: Arc<Gateway>,
    to: IpAddr,
    open: HashSet<u16>,
}

impl<T> ViaGateway<T> {
    pub(crate) fn new(inner: T, gateway: Arc<Gateway>, to: IpAddr) -> Self {
        ViaGateway {
            inner,
            gateway,
            to,
            open: HashSet::new(),
        }
    }

    pub(crate) fn inner(&self) -> &T {
        &self.inner
    }
}

impl<T: Transport> Transport for ViaGateway<T> {
    fn framing(&self) -> Framing {
        self.inner.framing()
    }

    fn strangers(&self) -> u64 {
        self.inner.strangers()
    }

    fn connect(&mut self, port: u16, now: Instant) -> Result<(), LinkDown> {
        if self.open.insert(port) {
            self.gateway.forward(Forward {
                port,
                to: (self.to, port).into(),
            });
        }
        self.inner.connect(port, now)
    }

    fn poll(&mut self, now: Instant) -> Link {
        self.inner.poll(now)
    }

    fn send(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> usize {
        self.inner.send(fill)
    }

    fn recv(&mut self, consume: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        self.inner.recv(consume)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.inner.next_deadline()
    }

    fn close(&mut self) {
        self.inner.close();
    }
}
