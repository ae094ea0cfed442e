"""Which addresses are this machine's own, and how a URL names them."""

from __future__ import annotations

import pytest
from yarl import URL

from streams.addresses import base_url, is_every_address, is_loopback
from streams.settings import Settings


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("localhost", True),
        ("LocalHost.", True),
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),  # noqa: S104 - not bound
        ("::", False),
        ("128.0.0.1", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_only_loopback_is_this_machine_alone(host: str, answer: bool):
    """By name or address; what others reach too is not."""
    assert is_loopback(host) is answer


@pytest.mark.parametrize(
    ("host", "answer"),
    [("0.0.0.0", True), ("::", True), ("[::]", True), ("", True), ("127.0.0.1", False), ("10.0.0.1", False), ("monitor-1", False)],  # noqa: S104 - not bound
)
def test_nobody_elsewhere_reaches_a_server_under_every_address(host: str, answer: bool):
    """It names each machine to itself."""
    assert is_every_address(host) is answer


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "http://127.0.0.1:80"), ("kafka-1", "http://kafka-1:80"), ("::1", "http://[::1]:80"), ("fe80::1", "http://[fe80::1]:80")])
def test_a_url_has_an_ipv6_address_in_brackets(host: str, url: str):
    """So that it can be read back, also where the API's own address is worked out of the settings."""
    assert base_url(host, 80) == url
    assert (URL(url).host, URL(url).port) == (host, 80)
    assert Settings.model_validate({"web_host": host, "web_port": 80}).advertised_url == url
