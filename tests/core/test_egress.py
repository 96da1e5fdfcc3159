"""Which addresses are private, however they are written."""

import pytest

from router.core.egress import private_address, private_host

PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.7",
    "198.18.0.1",
    "224.0.0.1",
    "239.1.2.3",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "2001::1",
    "100::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "2002:7f00:1::",
    "2002:c0a8:101::1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "nonsense",
    "",
]
PUBLIC = [
    "1.1.1.1",
    "93.184.216.34",
    "8.8.8.8",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "2002:808:808::1",
    "64:ff9b::8.8.8.8",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_no_sink_may_dial(address):
    assert private_address(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_public_internet(address):
    assert not private_address(address)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "0",
        "0x",
        "10.1",
        "[::1]",
        "::1",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "0xa9fea9fe",
        "127.0.0.1.",
    ],
)
def test_every_way_to_write_a_private_host(host):
    assert private_host(host)


@pytest.mark.parametrize(
    "host",
    ["example.org", "hooks.slack.com", "1.1.1.1", "0x08080808", "134744072", "[2606:4700:4700::1111]", "1.2.3.4.5",
     "256.1.1.1.1", "4294967296", "localhost.example.org", "0xzz", "08", "1..2", "", "٣.1"],
)  # fmt: skip
def test_names_and_public_addresses_are_left_to_the_dialling(host):
    assert not private_host(host)
