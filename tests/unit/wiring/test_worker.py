"""What a worker tells the isolation to hide from jobs."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from taskcred.config import Settings
from taskcred.data_dir import DataDir
from taskcred.wiring.worker import _hidden


def test_no_job_sees_a_file_that_a_setting_says_holds_a_secret(tmp_path: Path) -> None:
    said: dict[str, dict[str, Path]] = {}
    for section, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for name in field.annotation.model_fields:
                if name.endswith("_file"):
                    said.setdefault(section, {})[name] = tmp_path / section / name
    assert said["database"] == {"password_file": tmp_path / "database" / "password_file"}
    settings = Settings.model_validate({"data_dir": tmp_path / "data", **said})
    files = {path for named in said.values() for path in named.values()}
    assert files <= set(_hidden(settings, DataDir(settings.data_dir)))
