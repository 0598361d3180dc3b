"""Which addresses the service asks, and which lead into its own network."""

import pytest

from serve_app.sources.addresses import is_public


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("127.1.2.3", False),
        ("10.1.2.3", False),
        ("172.31.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:7f00:1::1", False),
        ("64:ff9b:1::5db8:d822", False),
        ("64:ff9b:1:a00:1::", False),
        ("fec0::1", False),
        ("feff:ffff::1", False),
        ("::127.0.0.1", False),
        ("::93.184.216.34", False),
        ("::ffff:0:127.0.0.1", False),
        ("::ffff:168.63.129.16", False),
        ("64:ff9b::a83f:8110", False),
        ("2001:0:7f00:1::1", False),
        ("2001:0:5db8:d822::1", False),
        ("2002:5db8:d822::1", False),
        ("2606:2800:220:1:0:5efe:7f00:1", False),
        ("2606:2800:220:1:200:5efe:a00:1", False),
        ("168.63.129.16", False),
        ("168.63.129.17", True),
        ("100.100.100.200", False),
        ("192.0.0.192", False),
        ("192.0.0.9", False),
        ("192.88.99.1", False),
        ("198.18.0.1", False),
        ("203.0.113.7", False),
        ("240.0.0.1", False),
        ("fd00:ec2::254", False),
        ("fd20:ce::254", False),
        ("fe80::a9fe:a9fe", False),
        ("100::1", False),
        ("2001:db8::1", False),
        ("3ffe::1", False),
        ("3fff::1", False),
        ("5f00::1", False),
        ("4000::1", False),
        ("2a00:1450:4001:81b::200e", True),
    ],
)
def test_public_addresses_are_told_from_others(address, public):
    assert is_public(address) is public


@pytest.mark.parametrize("text", ["", "example.org", "1.2.3", "::g"])
def test_what_is_no_address_is_not_judged(text):
    with pytest.raises(ValueError, match="does not appear to be"):
        is_public(text)
