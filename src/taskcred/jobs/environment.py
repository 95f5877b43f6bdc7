"""What a job finds in its environment: all of it is made here, nothing is inherited from the worker."""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path
from typing import Final

from taskcred.domain.secret import Secret
from taskcred.domain.tasks import Task

_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
# Where distributions keep the bundle of public authorities, besides what OpenSSL was built to look for.
_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


def job_environment(
    task: Task, run_id: str, standin_key: Secret, *, url: str, home: str, ca_file: Path | None
) -> dict[str, str]:
    """The environment of one attempt.

    The stand-in key takes the place of an API key: as IBMCLOUD_API_KEY, and for each SDK service of the
    task as IBM's SDKs read it (`<SVC>_AUTH_TYPE`, `_APIKEY`, `_AUTH_URL`, `_URL`). The task's own settings
    come last, so that `<SVC>_URL` can name a service that lives elsewhere.
    """
    key = standin_key.reveal()  # the job's clients exchange it for access tokens
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{_PATH}",
        "HOME": home,
        "LANG": "C.UTF-8",
        "IBMCLOUD_API_KEY": key,
        "TASKCRED_URL": url,
        "TASKCRED_RUN_ID": run_id,
    }
    for service in task.sdk_services:
        prefix = service.upper()
        environment |= {
            f"{prefix}_AUTH_TYPE": "iam",
            f"{prefix}_APIKEY": key,
            f"{prefix}_AUTH_URL": url,
            f"{prefix}_URL": url,
        }
    if ca_file is not None:
        environment |= {"REQUESTS_CA_BUNDLE": str(ca_file), "SSL_CERT_FILE": str(ca_file)}
    return environment | dict(task.environment)


def write_ca_file(own: Path, target: Path) -> None:
    """Write the public authorities and our own into one file: both variables replace the default list, and
    a job may call other services than ours."""
    default = ssl.get_default_verify_paths().cafile
    public = next((path for path in (default, *_BUNDLES) if path and Path(path).is_file()), None)
    text = Path(public).read_text(encoding="utf-8") if public else ""
    fresh = target.with_suffix(".new")
    fresh.write_text(f"{text}\n{own.read_text(encoding='utf-8')}", encoding="utf-8")
    fresh.chmod(0o644)
    os.replace(fresh, target)  # noqa: PTH105 - atomic on purpose
