"""The shell program of docs/howto/external-execution.md prints what the page says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import Server

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "external-execution.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("jq") is None, reason="the program reads JSON with jq")
def test_the_program_prints_what_the_page_says(start_server: Callable[..., Server], tmp_path: Path) -> None:
    task = PAGE.split("```toml\n", 1)[1].split("```", 1)[0]
    program = PAGE.split("```sh\n", 1)[1].split("```", 1)[0]
    shown = PAGE.split("prints:\n\n```text\n", 1)[1].split("```", 1)[0]
    server = start_server(config=task)
    owner = server.sign_in(server.create_person("ada@example.test"))
    key = {"name": "Key", "generate": True}
    assert owner.request("POST", "/v1/task_credentials", json=key).status_code == 201
    at_home = ("--data-dir", str(server.data_dir), "--config", str(server.directory / "taskcred.toml"))
    create = ("admin", "service", "create", "notebooks", "--tasks", "train", "--executors", "service")
    made = json.loads(server.command(*create, *at_home, "--json"))
    settings = tmp_path / "service.curl"
    settings.write_text(f'user = "{made["client_id"]}:{made["client_secret"]}"\n')
    settings.chmod(0o600)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", program],
        cwd=tmp_path,
        env=os.environ | {"TASKCRED_URL": server.url, "SUBJECT_TOKEN": owner.token},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (shown, "")
    (run,) = owner.request("GET", "/v1/runs").json()["items"]
    assert (run["state"], run["reference"], run["progress_text"]) == ("succeeded", "notebook 7", "trained")
