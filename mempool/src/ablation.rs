//! Switches that turn one mechanism off, to show what it is there for.

/// Declares the `Mechanism`s of a crate and its `Ablation`, the set of those that are off. For the
/// crates of this suite alone, which share the feature `ablation`; without it the set has no size,
/// nothing is ever off, and the compiler drops what the switches would do.
#[doc(hidden)]
#[macro_export]
macro_rules! __mechanisms {
    ($($(#[$doc:meta])+ $mechanism:ident = $name:literal, $invariant:literal;)+) => {
        /// What can be switched off, in a test or a demonstration, to show that it is needed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[cfg_attr(not(feature = "ablation"), allow(dead_code, unreachable_pub))]
        pub enum Mechanism {
            $($(#[$doc])+ $mechanism,)+
        }

        #[cfg(feature = "ablation")]
        impl Mechanism {
            /// Every mechanism of this crate.
            pub const ALL: [Mechanism; 0 $(+ { let _ = Mechanism::$mechanism; 1 })+] =
                [$(Mechanism::$mechanism),+];

            /// A short name in kebab case, for command lines and reports; no other mechanism of
            /// the suite has it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Mechanism::$mechanism => $name,)+
                }
            }

            /// The invariant that it keeps, by its name in the architecture (`"M1"`).
            #[must_use]
            pub const fn invariant(self) -> &'static str {
                match self {
                    $(Mechanism::$mechanism => $invariant,)+
                }
            }
        }

        /// Which mechanisms of an object are off.
        #[derive(Debug, Clone, Copy, Default)]
        pub(crate) struct Ablation {
            #[cfg(feature = "ablation")]
            off: u32,
        }

        const _: () = assert!(cfg!(feature = "ablation") || size_of::<Ablation>() == 0);

        impl Ablation {
            /// Everything is on.
            pub(crate) const NONE: Ablation = Ablation {
                #[cfg(feature = "ablation")]
                off: 0,
            };

            #[cfg(feature = "ablation")]
            pub(crate) const fn off(self, mechanism: Mechanism) -> bool {
                self.off & (1 << mechanism as u32) != 0
            }

            #[cfg(not(feature = "ablation"))]
            pub(crate) const fn off(self, _: Mechanism) -> bool {
                false
            }

            #[cfg(feature = "ablation")]
            pub(crate) const fn ablate(&mut self, mechanism: Mechanism) {
                self.off |= 1 << mechanism as u32;
            }
        }

        #[cfg(all(test, feature = "ablation"))]
        mod tests {
            use super::{Ablation, Mechanism};

            #[test]
            fn every_mechanism_has_a_name_and_a_switch_of_its_own() {
                for (i, mechanism) in Mechanism::ALL.into_iter().enumerate() {
                    let name = mechanism.name();
                    let kebab = |c: char| c.is_ascii_lowercase() || c == '-';
                    assert!(name.chars().all(kebab) && !name.is_empty(), "{name}");
                    assert!(!name.starts_with('-') && !name.ends_with('-'), "{name}");
                    assert!(Mechanism::ALL[..i].iter().all(|other| other.name() != name));
                    let [family, number] = *mechanism.invariant().as_bytes() else {
                        panic!("{name}: no invariant");
                    };
                    assert!(b"MNS".contains(&family) && number.is_ascii_digit(), "{name}");

                    let mut ablation = Ablation::NONE;
                    ablation.ablate(mechanism);
                    let off = Mechanism::ALL.into_iter().filter(|m| ablation.off(*m));
                    assert!(off.eq([mechanism]), "{name}");
                }
            }
        }
    };
}

__mechanisms! {
    /// Of a [`Zone`](crate::Zone). Off: an interrupt is entitled while the task below it is in a
    /// memalloc scope.
    InterruptEntitlement = "interrupt-entitlement", "M1";
    /// Of a [`Zone`](crate::Zone), for the softirqs that it is told of from then on. Off: a softirq is
    /// entitled while the task below it is in a memalloc scope.
    SoftirqEntitlement = "softirq-entitlement", "M1";
    /// Of a [`Zone`](crate::Zone), for the scopes that it opens from then on. Off: the end of a
    /// scope leaves its task entitled.
    ScopeEnd = "scope-end", "M1";
    /// Of a [`Zone`](crate::Zone). Off: [`Gfp::NOMEMALLOC`](crate::Gfp::NOMEMALLOC) keeps nobody
    /// from the reserve.
    NoMemalloc = "no-memalloc", "M1";
    /// Of a [`Zone`](crate::Zone). Off: ordinary allocations stop at their part of `min`, and take
    /// the reserve, untagged.
    ReserveMark = "reserve-mark", "M2";
    /// Of a [`Zone`](crate::Zone). Off: nobody is called when memory becomes short.
    PressureHooks = "pressure-hooks", "M2";
    /// Of a [`Zone`](crate::Zone). Off: the discounts of urgent callers apply to the reserve too.
    DiscountOnMinOnly = "discount-on-min-only", "M2";
    /// Of a [`Zone`](crate::Zone). Off: every frame of an entitled caller is tagged, needed or not.
    TagWhenNeeded = "tag-when-needed", "M3";
    /// Of a [`Zone`](crate::Zone). Off: no frame is tagged.
    ReserveTag = "reserve-tag", "M3";
    /// Of a [`SizedCache`](crate::SizedCache). Off: objects of reserve-derived slabs go to anybody,
    /// as in a slab allocator that does not know where its pages came from.
    SlabAdmission = "slab-admission", "M4";
    /// Of a [`SizedCache`](crate::SizedCache). Off: empty reserve-derived slabs stay in the cache,
    /// until it is [shrunk](crate::SizedCache::shrink).
    SlabRelease = "slab-release", "M4";
    /// Of a [`SizedCache`](crate::SizedCache) with [`Magazines`](crate::Magazines). Off: objects in
    /// reserve memory are parked as well, and go to anybody.
    MagazineAdmission = "magazine-admission", "M4";
    /// Of a [`SizedCache`](crate::SizedCache) with [`Magazines`](crate::Magazines). Off: what other
    /// CPUs have parked stays there when memory is short.
    MagazineDrain = "magazine-drain", "M3";
    /// Of a [`Pool`](crate::Pool). Off: an element in reserve memory that comes back to a pool below
    /// its minimum stays, and goes to anybody next.
    PoolReserveReturn = "pool-reserve-return", "M4";
    /// Of the root of a [`ReserveNode`](crate::ReserveNode) tree, before anything is connected to
    /// it. Off: limits rise, and no frames are set aside for them.
    Backing = "backing", "M5";
    /// Of a [`ReserveNode`](crate::ReserveNode). Off: a charge that would fill the limit is refused.
    FullCharge = "full-charge", "M5";
    /// Of a [`ReserveNode`](crate::ReserveNode). Off: more may be charged than the limit.
    ChargeLimit = "charge-limit", "M6";
    /// Of a [`ReserveNode`](crate::ReserveNode). Off: what was charged stays charged.
    Uncharge = "uncharge", "M6";
    /// Of a [`Pool`](crate::Pool). Off: what comes back goes to the source, and what the pool gave
    /// is lost to it until it is filled again.
    PoolRefill = "pool-refill", "M6";
    /// Of a [`Pool`](crate::Pool). Off: the entitled fail, or wait, when the pool is empty, whatever
    /// is left of the reserve.
    PoolEntitledRetry = "pool-entitled-retry", "M6";
}
