"""What a job prints, as its owner will read it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskcred.domain.keytext import STANDIN_KEY_PREFIX, new_key
from taskcred.domain.secret import MASK
from taskcred.jobs.output import Output, Progress

KEY = new_key(STANDIN_KEY_PREFIX)


def shown(*reads: bytes) -> tuple[str, Progress | None]:
    output = Output((KEY,))
    text, progress = "", None
    for read in reads:
        output.feed(read)
        part = output.take()
        text, progress = text + part.text, part.progress or progress
    rest = output.take(final=True)
    return text + rest.text, rest.progress or progress


def test_what_was_printed_is_shown_at_once_line_or_not() -> None:
    output = Output((KEY,))
    output.feed(b"working ... 3")
    assert output.take().text == "working ... 3"


def test_a_progress_line_moves_the_bar_and_is_not_output() -> None:
    text, progress = shown(b"a\n::progress 40/100 half way\nb\n")
    assert (text, progress) == ("a\nb\n", Progress(40, 100, "half way"))


def test_a_progress_line_needs_no_text() -> None:
    assert shown(b"::progress 1/2\n") == ("", Progress(1, 2, ""))


def test_a_progress_line_that_arrives_in_pieces_is_one() -> None:
    assert shown(b"::prog", b"ress 4/", b"8 x", b"y\nz") == ("z", Progress(4, 8, "xy"))


def test_of_several_the_newest_counts() -> None:
    assert shown(b"::progress 1/9\n::progress 2/9\n")[1] == Progress(2, 9)


@pytest.mark.parametrize(
    "line",
    [
        "see ::progress 1/2\n",
        "::progress one/two\n",
        "::progress 1/2x\n",
        "::progress -1/2\n",
        " ::progress 1/2\n",
    ],
)
def test_what_only_looks_like_progress_is_output(line: str) -> None:
    assert shown(line.encode()) == (line, None)


def test_text_that_began_in_the_middle_of_a_line_is_never_progress() -> None:
    assert shown(b"x", b"::progress 1/2\n") == ("x::progress 1/2\n", None)


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert shown(b"\xff\x00ok\n")[0] == "\ufffd\ufffdok\n"


def test_a_character_split_between_two_reads_is_whole() -> None:
    raw = "ü\n".encode()
    assert shown(raw[:1], raw[1:])[0] == "ü\n"


@pytest.mark.promise("key-stays-home")
@given(cuts=st.lists(st.integers(0, 200), max_size=6), before=st.text("ab\nts_c", max_size=40))
def test_the_stand_in_key_is_masked_however_it_is_cut(cuts: list[int], before: str) -> None:
    key = KEY.reveal()
    raw = f"{before}{key}{key} key={key}\n".encode()
    places = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    text, _ = shown(*(raw[a:b] for a, b in pairwise(places)))
    assert text == f"{before}{MASK}{MASK} key={MASK}\n"


def test_the_beginning_of_a_key_is_shown_once_it_cannot_become_one() -> None:
    output = Output((KEY,))
    output.feed(b"tcs_")
    assert output.take().text == ""
    output.feed(b" is a prefix")
    assert output.take().text == "tcs_ is a prefix"
