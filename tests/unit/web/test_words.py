"""States, times and actors in words."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import taskcred
from taskcred.domain.credentials import CredentialState, KeyState, Origin
from taskcred.domain.runs import AttemptOutcome, Misfire, RunState
from taskcred.web import words

NOW = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("distance", "said"),
    [
        (timedelta(0), "just now"),
        (timedelta(seconds=-4), "just now"),
        (timedelta(seconds=4), "in a moment"),
        (timedelta(seconds=-59), "59 seconds ago"),
        (timedelta(minutes=-1), "1 minute ago"),
        (timedelta(minutes=59, seconds=59), "in 59 minutes"),
        (timedelta(hours=3), "in 3 hours"),
        (timedelta(days=-1), "1 day ago"),
        (timedelta(days=60), "in 60 days"),
        (timedelta(days=90), "on 2027-02-21"),
        (timedelta(days=-90), "on 2026-08-25"),
    ],
)
def test_times_are_seen_from_now(distance: timedelta, said: str) -> None:
    assert words.relative(NOW + distance, NOW) == said


def test_the_absolute_time_names_utc() -> None:
    assert words.absolute(NOW) == "2026-11-23 01:02:03 UTC"


def test_nothing_is_said_in_words() -> None:
    assert [words.count(number, "run") for number in (0, 1, 2)] == ["no runs", "1 run", "2 runs"]


def test_every_state_has_words() -> None:
    assert set(words.KEY_STATES) == set(KeyState)
    assert set(words.CREDENTIAL_STATES) == set(CredentialState)
    assert set(words.RUN_STATES) == set(RunState)
    assert set(words.OUTCOMES) == {None, *AttemptOutcome}
    assert set(words.ORIGINS) == set(Origin)
    assert set(words.MISFIRES) == set(Misfire)


def test_labels_tell_states_apart_without_colour() -> None:
    for states in (words.KEY_STATES, words.CREDENTIAL_STATES, words.RUN_STATES):
        labels = [word.label for word in states.values()]
        assert len(labels) == len(set(labels))


def test_every_audit_action_has_words() -> None:
    source = "".join(path.read_text() for path in Path(taskcred.__file__).parent.rglob("services/*.py"))
    used = set(
        re.findall(
            r'"((?:attempt|credential|key|prompt|run|schedule|session|token|intent|notice|grant):[a-z_]+)"',
            source,
        )
    )
    assert len(used) > 20
    assert not [action for action in used if words.action(action) == action]


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ("IBMid-1", "You"),
        ("IBMid-2", "IBMid-2"),
        ("keeper", "taskcred itself"),
        ("operator", "An operator of this server"),
        ("worker:embedded", "A worker (embedded)"),
        ("run:0815", "The run"),
        ("service:1", "The service Notebooks"),
        ("service:2", "The service 2"),
    ],
)
def test_actors_are_named_as_the_reader_would(who: str, said: str) -> None:
    assert words.actor(who, "IBMid-1", {"1": "Notebooks"}) == said
