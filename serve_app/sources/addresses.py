"""Tells public IP addresses from those that lead into the service's own network or to a cloud's metadata.

Addresses are admitted from a list and not refused by one: whatever no registry has given to the public is refused. The
properties of `ipaddress` are not enough. They follow the release of Python, and know no way in which an IPv6 address
leads to an IPv4 address.
(the lists: iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry)
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_NOT_PUBLIC_4 = tuple(
    map(
        IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
            *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
            "168.63.129.16/32",  # Azure answers every virtual machine there; the other clouds use private addresses
        ),
    )
)
_UNICAST_6 = IPv6Network("2000::/3")
"""All that is given to the public. Outside it are, among others, ::/96 with an IPv4 address, fec0::/10 (site-local),
fc00::/7 with the metadata of AWS and Google, and 64:ff9b:1::/48, whose meaning each network decides."""
_NOT_PUBLIC_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocols, among them Teredo, which holds an IPv4 address
            "2001:db8::/32",
            "2002::/16",  # 6to4, which holds an IPv4 address; nobody serves it any more (RFC 7526)
            "3ffe::/16",
            "3fff::/20",
        ),
    )
)
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)


def is_public(address: str) -> bool:
    """Whether an IP address is public.

    An IPv6 address that stands for an IPv4 address, mapped or behind NAT64, is as public as that one.

    Raises:
        ValueError: the text is not an IP address.
    """
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv4Address):
        return not any(ip in network for network in _NOT_PUBLIC_4)
    return is_public(str(IPv4Address(int(ip) & 0xFFFFFFFF))) if ip in _MAPPED or ip in _NAT64 else _is_public_6(ip)


def _is_public_6(ip: IPv6Address) -> bool:
    leads_to_ipv4 = (int(ip) >> 32) & 0xFFFFFFFF in _ISATAP
    return ip in _UNICAST_6 and not leads_to_ipv4 and not any(ip in network for network in _NOT_PUBLIC_6)
