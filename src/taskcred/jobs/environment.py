"""What a job finds in its environment: all of it is made here, nothing is inherited from the worker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from taskcred.domain.job_environment import ca_variables, job_variables
from taskcred.domain.secret import Secret
from taskcred.domain.tasks import Task

_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


def job_environment(
    task: Task, run_id: str, standin_key: Secret, *, url: str, home: str, ca_file: Path | None
) -> dict[str, str]:
    """The environment of one attempt. The task's own settings come last, so that `<SVC>_URL` can name a
    service that lives elsewhere."""
    environment = {"PATH": f"{Path(sys.executable).parent}:{_PATH}", "HOME": home, "LANG": "C.UTF-8"}
    environment |= job_variables(run_id, standin_key, url, task.sdk_services)
    if ca_file is not None:
        environment |= ca_variables(str(ca_file))
    return environment | dict(task.environment)
