"""The file of certificate authorities that a job is given."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Final

# Where distributions keep the bundle of public authorities, besides what OpenSSL was built to look for.
_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


def write_ca_file(own: Path, target: Path) -> None:
    """Write the public authorities and our own into one file: the variables that name it replace the default
    list, and a job may call other services than ours."""
    default = ssl.get_default_verify_paths().cafile
    public = next((path for path in (default, *_BUNDLES) if path and Path(path).is_file()), None)
    text = Path(public).read_text(encoding="utf-8") if public else ""
    fresh = target.with_suffix(".new")
    fresh.write_text(f"{text}\n{own.read_text(encoding='utf-8')}", encoding="utf-8")
    fresh.chmod(0o644)
    os.replace(fresh, target)  # noqa: PTH105 - atomic on purpose
