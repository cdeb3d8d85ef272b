//! Who is behind an address, where each client is to have a share and no more.

use std::net::{IpAddr, Ipv6Addr};

/// The part of an IPv6 address that is one client's: whoever has a `/64` has all addresses in it.
const IPV6_CLIENT: u128 = !(u64::MAX as u128);

/// The client behind an address: an IPv4 address, also where it is written as one of IPv6, or an IPv6 network of 64 bits.
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & IPV6_CLIENT).into(),
        v4 => v4,
    }
}
