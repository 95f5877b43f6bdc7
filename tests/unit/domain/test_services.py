"""Which addresses a service may have."""

from __future__ import annotations

import pytest

from taskcred.domain.services import id_of, principal_id, refuse_url

GOOD = (
    "https://a.example",
    "https://a.example:8443/path?query=1&x=%20",
    "https://[2001:db8::1]/",
    "http://127.0.0.1:9000/hook",
    "http://127.1.2.3/",
    "http://[::1]:80/",
    "http://localhost/",
)
BAD = (
    "",
    "/path",
    "//a.example/path",
    "a.example",
    "http://a.example",
    "http://10.0.0.1/",
    "http://localhost.example/",
    "http://127.0.0.1.example/",
    "http://0.0.0.0/",
    "ftp://a.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "https://",
    "https:///path",
    "https://a.example/#fragment",
    "https://a.example/#",
    "https://user@a.example/",
    "https://user:word@a.example/",
    "https://@a.example/",
    "https://a.example\\@b.example/",
    "https://a.example:port/",
    "https://a.example:99999/",
    "https://[::1/",
    "https://a.example/ space",
    "https://a.example/\n",
    "https://bücher.example/",
    "https://a.example/" + "x" * 2048,
)


@pytest.mark.parametrize("url", GOOD)
def test_taken(url: str) -> None:
    assert refuse_url(url) is None


@pytest.mark.parametrize("url", BAD)
def test_refused(url: str) -> None:
    assert refuse_url(url)


def test_a_services_name_among_principals_leads_back_to_its_id() -> None:
    assert id_of(principal_id("7")) == "7"
