//! Small numbers that stand for named things inside a snapshot.

/// A port's index. Control hands them out and reuses one only when no worker knows the old port any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

/// A network's index, the upper 16 bits of an FDB key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetId(pub u16);

/// A tenant's index. All networks without a tenant are one tenant's, [`TenantId::NOBODY`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u16);

impl PortId {
    /// As an index of a slice.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl NetId {
    /// As an index of a slice.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl TenantId {
    /// Who has the networks without a tenant.
    pub const NOBODY: Self = Self(0);

    /// As an index of a slice.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
