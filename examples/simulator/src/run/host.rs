//! The server, with one swap file for each swapper.

use crate::mmu::PAGE;
use crate::scenario::{File, Scenario};
use crate::server::Host;
use crate::server::nfs::{Existing, NfsServer, ServerConfig};

pub(super) fn host(scenario: &Scenario, slots: u32) -> Host {
    let size = u64::from(slots) * PAGE as u64;
    let existing = match scenario.machine.file {
        File::Missing => None,
        File::Good => Some((size, size)),
        File::Short => Some((size - 1, size - 1)),
        File::Holes => Some((size, size - PAGE as u64)),
    };
    let servers = (0..scenario.machine.swappers).map(|number| {
        let config = ServerConfig {
            export: "/export".into(),
            file: "swap".into(),
            transfer_max: [1, 4, 16, 256][scenario.seed as usize % 4] * PAGE as u32,
            capacity: None,
            existing: existing.map(|(size, used)| Existing { size, used }),
            port: port(number),
        };
        NfsServer::new(config, 0)
    });
    let mut ports: Vec<_> = (0..scenario.machine.swappers)
        .map(|n| (port(n), n))
        .collect();
    ports.push((111, 0));
    Host::new(
        servers.collect(),
        ports,
        scenario.machine.mtu.into(),
        scenario.seed,
    )
}

/// Where the server of that number listens.
pub(super) const fn port(number: usize) -> u16 {
    2049 + number as u16
}
