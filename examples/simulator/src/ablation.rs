//! The mechanisms of the four crates, in one list.

use core::fmt;
use core::str::FromStr;

/// A mechanism that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// Of frames, watermarks, slabs and the reserve.
    Mempool(mempool::Mechanism),
    /// Of packets.
    Netreserve(netreserve::Mechanism),
    /// Of pages.
    Swapspace(swapspace::Mechanism),
    /// Of the swap file.
    NfsSwap(nfs_swap::Mechanism),
}

impl Mechanism {
    /// Every mechanism, from the frames up.
    pub fn all() -> impl Iterator<Item = Mechanism> {
        let mempool = mempool::Mechanism::ALL.into_iter().map(Mechanism::Mempool);
        let netreserve = netreserve::Mechanism::ALL.into_iter();
        let swapspace = swapspace::Mechanism::ALL.into_iter();
        let nfs_swap = nfs_swap::Mechanism::ALL.into_iter();
        mempool
            .chain(netreserve.map(Mechanism::Netreserve))
            .chain(swapspace.map(Mechanism::Swapspace))
            .chain(nfs_swap.map(Mechanism::NfsSwap))
    }

    /// What it is called on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mechanism::Mempool(mechanism) => mechanism.name(),
            Mechanism::Netreserve(mechanism) => mechanism.name(),
            Mechanism::Swapspace(mechanism) => mechanism.name(),
            Mechanism::NfsSwap(mechanism) => mechanism.name(),
        }
    }

    /// The invariant that it keeps: `"M1"` to `"S8"`.
    #[must_use]
    pub const fn invariant(self) -> &'static str {
        match self {
            Mechanism::Mempool(mechanism) => mechanism.invariant(),
            Mechanism::Netreserve(mechanism) => mechanism.invariant(),
            Mechanism::Swapspace(mechanism) => mechanism.invariant(),
            Mechanism::NfsSwap(mechanism) => mechanism.invariant(),
        }
    }

    /// The crate that it is in.
    #[must_use]
    pub const fn package(self) -> &'static str {
        match self {
            Mechanism::Mempool(_) => "mempool",
            Mechanism::Netreserve(_) => "netreserve",
            Mechanism::Swapspace(_) => "swapspace",
            Mechanism::NfsSwap(_) => "nfs-swap",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mechanism {
    type Err = String;

    fn from_str(name: &str) -> Result<Mechanism, String> {
        Mechanism::all()
            .find(|mechanism| mechanism.name() == name)
            .ok_or_else(|| {
                let names: Vec<_> = Mechanism::all().map(Mechanism::name).collect();
                format!("no mechanism '{name}'; there are {}", names.join(", "))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::Mechanism;

    #[test]
    fn every_name_leads_back_to_its_mechanism_and_an_unknown_one_is_an_error() {
        for mechanism in Mechanism::all() {
            assert_eq!(mechanism.name().parse(), Ok(mechanism));
        }
        assert!("luck".parse::<Mechanism>().is_err());
    }
}
