"""Signing keys rotate, and no client ever meets a signature it cannot check."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from joserfc import jws
from joserfc.jwk import KeySet

from taskcred.iam.service import IamConfig, LocalIam
from taskcred.iam.signing import PUBLISH_AHEAD
from taskcred.iam.tokens import GRANT_API_KEY, Proof
from taskcred.testing import Failure, RecordingRevocations
from tests.functional.iam.conftest import Room

LIFE = timedelta(days=30)


def kids(room: Room) -> list[str]:
    return [key["kid"] for key in room.http.get("/identity/keys").json()["keys"]]


def kid_of(token: str) -> str:
    return jws.extract_compact(token.encode()).headers()["kid"]


def test_a_new_key_is_published_before_it_signs_and_an_old_one_until_its_tokens_ended(room: Room) -> None:
    (old,) = kids(room)
    room.clock.advance(LIFE - PUBLISH_AHEAD)
    room.iam.tend()
    (_, fresh) = kids(room)
    last_of_old = ""
    while kid_of(token := room.token(room.member)) == old:
        last_of_old = token
        room.clock.advance(timedelta(minutes=1))
    assert kid_of(token) == fresh
    signed_old_for = room.clock.now()
    # A client that fetched the keys now checks the last token of the old key to its last second.
    while old in kids(room):
        room.clock.advance(timedelta(minutes=5))
        room.iam.tend()
    assert room.clock.now() - signed_old_for >= timedelta(hours=1)
    assert kid_of(last_of_old) == old
    assert room.vault.paths("iam/signing/") == [f"iam/signing/{fresh}"]


def test_rotation_again_and_again_never_breaks_a_token(room: Room) -> None:
    for _ in range(40):
        room.clock.advance(timedelta(days=3))
        room.iam.tend()
        token = room.token(room.member)
        fresh = KeySet.import_key_set(room.http.get("/identity/keys").json())
        jws.deserialize_compact(token.encode(), fresh, algorithms=["ES256"])
        with room.as_(room.member) as http:
            assert http.get("/v1/apikeys").status_code == 200
    assert len(kids(room)) <= 2


def test_two_keepers_at_once_make_one_key(room: Room) -> None:
    other = LocalIam(room.iam.config, room.vault, room.clock, RecordingRevocations())
    room.clock.advance(LIFE)
    threads = [threading.Thread(target=iam.tend) for iam in (room.iam, other, room.iam, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert len(kids(room)) == 2
    assert len(room.vault.paths("iam/signing/")) == 2


def test_another_process_signs_with_the_new_key_and_checks_both(room: Room) -> None:
    other = LocalIam(room.iam.config, room.vault, room.clock, RecordingRevocations())
    room.clock.advance(PUBLISH_AHEAD)
    before = room.token(room.member)
    room.iam.signing_keys.rotate()
    (old, fresh) = kids(room)
    assert kid_of(before) == old
    room.clock.advance(PUBLISH_AHEAD)
    assert kid_of(other.signing_keys.sign({"iss": "x"})) == fresh
    assert other.tokens.verify_access_token(before)["iam_id"] == room.member.iam_id
    other.close()


@pytest.mark.parametrize("failure", [Failure.UNAVAILABLE, Failure.COMMIT_THEN_DROP])
def test_a_key_made_by_half_signs_nothing_and_is_cleared_away(room: Room, failure: Failure) -> None:
    (old,) = kids(room)
    room.vault.script("store", failure)
    with pytest.raises(Exception, match="scripted"):
        room.iam.signing_keys.rotate()
    assert kids(room) == [old]
    room.clock.advance(PUBLISH_AHEAD)
    assert kid_of(room.token(room.member)) == old
    room.clock.advance(timedelta(hours=2))
    room.iam.tend()
    assert room.vault.paths("iam/signing/") == [f"iam/signing/{old}"]


def test_preparing_twice_keeps_key_and_client_secret(room: Room) -> None:
    before, secret = kids(room), room.client_secret()
    room.iam.prepare()
    assert (kids(room), room.client_secret()) == (before, secret)


def test_a_vault_older_than_the_database_gets_a_new_key_at_the_start(room: Room) -> None:
    (old,) = kids(room)
    room.clock.advance(PUBLISH_AHEAD)
    room.iam.signing_keys.rotate()
    (_, fresh) = kids(room)
    del room.vault.records[f"iam/signing/{fresh}"]
    room.clock.advance(PUBLISH_AHEAD)
    restarted = LocalIam(room.iam.config, room.vault, room.clock, RecordingRevocations())
    restarted.prepare()
    assert kid_of(restarted.signing_keys.sign({"iss": "x"})) not in {old, fresh}
    restarted.close()
    assert len(kids(room)) == 2


def test_a_token_of_another_issuer_or_too_old_is_refused(room: Room) -> None:
    config = IamConfig(room.iam.config.database, "http://elsewhere.test/identity")
    other = LocalIam(config, room.vault, room.clock, RecordingRevocations())
    subject = room.iam.exchange.subject_of(room.member.api_key)
    foreign = other.tokens.answer(subject, Proof(GRANT_API_KEY))["access_token"]
    other.close()
    old = room.token(room.member)
    room.clock.advance(timedelta(hours=1, seconds=6))
    for token in (foreign, old):
        answer = room.http.get("/v1/apikeys", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["errors"][0]["message_code"]) == (401, "BXNIM0405E")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
