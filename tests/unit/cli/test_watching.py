"""Following a run whose service says hostile things."""

from __future__ import annotations

from typing import Any, cast

import pytest

from taskcred.cli import output, watching
from taskcred.cli.client import Client

HOSTILE = "[/nothing] [link=https://x]\x9b31m\x1b]0;title\x07 \u202e"


class Server:
    """Of one run."""

    def get_changed(self, _path: str, _etag: str) -> tuple[dict[str, Any], str]:
        run = {"state": "succeeded", "attempts_made": 1, "progress_done": 1, "progress_total": 2}
        return {**run, "progress_text": HOSTILE}, "1"

    def get(self, _path: str, *, after: int, **_: Any) -> dict[str, Any]:
        return {"text": "" if after else HOSTILE, "next_after": 1}


def test_what_it_says_is_text_and_no_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    server = cast("Client", Server())
    assert watching.follow(server, "r", quiet=False)["state"] == "succeeded"
    out, err = capsys.readouterr()
    assert out == HOSTILE  # to the letter where it is no terminal
    assert "[/nothing] [link=https://x]" in err
    assert not {"\x9b", "\x07", "\u202e"} & set(err)


def test_tables_facts_and_notes_hold_nothing_that_steers(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["REFERENCE"], [[HOSTILE]], empty="None.")
    output.facts([("Reference", HOSTILE)])
    output.note(HOSTILE)
    output.data({"reference": HOSTILE})
    assert not {"\x9b", "\x1b", "\x07", "\u202e"} & set("".join(capsys.readouterr()))
