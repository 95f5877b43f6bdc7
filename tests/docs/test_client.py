"""The program of docs/howto/client.md: its blocks, one after the other, do what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.server import Server

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "client.md").read_text(encoding="utf-8")
CONFIG = """
[tasks.train]
kind = "external"
parameters = {type = "object", properties = {epochs = {type = "integer"}}, additionalProperties = false}
"""
PRINTED = [
    "queued",
    "succeeded ",
    "epoch 1",
    "epoch 2",
    "epoch 3",
    "True",
    "True",
    *["succeeded"] * 4,
    "NotFoundError 404 not_found",
    "succeeded",
]


def test_the_blocks_of_the_page_run(start_server: Callable[..., Server], tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    job = next(block for block in blocks if "from_environment" in block)
    (tmp_path / "job.py").write_text(job)
    (tmp_path / "program.py").write_text("\n".join(block for block in blocks if block is not job))
    server = start_server(config=CONFIG)
    server.command(
        *(
            "admin",
            "service",
            "create",
            "notebooks",
            "--tasks",
            "train",
            "--file",
            str(tmp_path / "notebooks.json"),
        ),
        *("--callback-url", "https://notebooks.example.com/consented"),
        *("--data-dir", str(server.data_dir), "--config", str(server.directory / "taskcred.toml")),
    )
    user = server.sign_in(server.create_person("ada@example.com"))
    service_id = re.search(r'"client_id": "([^"]+)"', (tmp_path / "notebooks.json").read_text())
    assert service_id is not None
    given = user.request("POST", "/v1/grants", json={"service_id": service_id[1], "tasks": ["train"]}).json()
    names = f"users_token, grant_id = {user.token!r}, {given['id']!r}\n"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", f"{names}exec(open('program.py').read())"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"TASKCRED_SERVICE_FILE": str(tmp_path / "notebooks.json")},
    ) as program:
        assert program.stdout is not None
        asked = program.stdout.readline()
        assert asked.startswith(f"taskcred needs your key first: {server.url}/prompts/")
        prompt = asked.strip().rpartition("/")[2]
        answer = user.request("POST", f"/v1/prompts/{prompt}/answer", json={"generate": True, "name": "mine"})
        assert answer.is_success, answer.text
        said = program.stdout.read()
    assert program.returncode == 0
    assert said.split("\n")[:-1] == PRINTED
