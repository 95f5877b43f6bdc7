"""A worker goes by the name of its credential: after a crash it finds its attempts by it."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from taskcred.config import Server, Settings
from taskcred.data_dir import DataDir, write_private
from taskcred.domain.secret import Secret
from taskcred.errors import ConfigurationError
from taskcred.store import workers
from taskcred.testing import START
from taskcred.wiring.prepare import WORKER_NAME, prepare
from taskcred.wiring.worker import build_worker_context, settings_of_worker


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(data_dir=tmp_path / "data", server=Server(public_url="http://localhost"))
    prepare(made)
    return made


def test_the_name_is_that_of_the_credential(settings: Settings) -> None:
    store = build_worker_context(settings).store
    assert settings_of_worker(settings, store).name == WORKER_NAME
    secret = Secret(secrets.token_urlsafe(32))
    with store.write() as connection:
        worker_id = workers.add(connection, "bee", secret, START)
    write_private(DataDir(settings.data_dir).worker_credential, f"{worker_id}:{secret.reveal()}\n")
    assert settings_of_worker(settings, store).name == "bee"
    store.engine.dispose()


def test_an_ended_credential_is_refused_at_the_start(settings: Settings) -> None:
    store = build_worker_context(settings).store
    with store.write() as connection:
        workers.end(connection, WORKER_NAME, START)
    with pytest.raises(ConfigurationError, match="was ended"):
        settings_of_worker(settings, store)
    store.engine.dispose()
