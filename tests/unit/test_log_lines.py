"""What others choose, such as a path, makes no line of its own in a log and steers no terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from taskcred import logs
from taskcred.config import LogSettings


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers, root.level
    yield
    root.handlers, root.level = before
    structlog.reset_defaults()


def test_a_log_of_text_shows_control_characters_and_does_not_send_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(LogSettings(format="text", level="info"), "web")
    structlog.get_logger("http").info("request", path="/\x1b]0;title\x07/\x9b2J")
    logging.getLogger("other").warning("refused: %s", "a\x1b[2J\n2026-01-01 forged line")
    written = capsys.readouterr().err
    colors = ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[3", "[0m")
    for color in colors:
        written = written.replace(color, "")
    assert "\x1b" not in written
    assert not {"\x07", "\x9b"} & set(written)
    assert not any(line.startswith("2026-01-01 forged") for line in written.splitlines())
    assert r"\x1b]0;title" in written
