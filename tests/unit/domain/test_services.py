"""Which addresses a service may have."""

from __future__ import annotations

import pytest

from taskcred.domain.services import answer_url, id_of, leads_back, principal_id, refuse_url

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


@pytest.mark.parametrize(
    "alike",
    [
        "",
        "https://a.example/back/",
        "https://a.example/bac",
        "https://a.example/Back",
        "https://A.example/back",
        "https://a.example:443/back",
        "https://a.example/back?",
        "https://a.example/back#",
        "https://a.example/x/../back",
        "https://a.example/%62ack",
        "https://a.example/back ",
        "https://a.example.evil.test/back",
        "//a.example/back",
    ],
)
def test_browsers_are_led_to_what_is_on_the_list_and_to_nothing_alike(alike: str) -> None:
    assert leads_back(["https://a.example/back"], "https://a.example/back")
    assert not leads_back(["https://a.example/back"], alike)
    assert not leads_back([], alike)


def test_an_answer_goes_into_the_query() -> None:
    assert answer_url("https://a.example/b", run_id="1") == "https://a.example/b?run_id=1"
    assert answer_url("https://a.example/b?c=d", x="&=é") == "https://a.example/b?c=d&x=%26%3D%C3%A9"
