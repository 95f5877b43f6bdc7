"""A pod without a secret, on a real server: the token of its service account, renewed by its cluster."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from taskcred.client import Client, errors
from tests.support.issuer import Issuer
from tests.support.server import Server

SUBJECT = "system:serviceaccount:notebooks:hub"


@pytest.mark.promise("at-once")
def test_a_pod_is_the_service_until_the_trust_ends(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = start_server()
    admin = ("admin", "service")
    here = ("--data-dir", str(server.data_dir))
    server.command(*admin, "create", "notebooks", "--tasks", "exec", *here)
    mounted = tmp_path / "token"
    with Issuer().serving() as cluster:
        server.command(*admin, "trust", "notebooks", "--issuer", cluster.url, "--subject", SUBJECT, *here)

        def renew(**claims: object) -> None:
            """As the cluster does it: another token in the same file. For the server's URL, by default."""
            mounted.write_text(cluster.token(datetime.now(UTC), **{"aud": [server.url], **claims}))

        renew()
        pod = Client(server.url, workload_token_file=mounted)
        assert list(pod.events()) == []
        renew(aud=["https://kubernetes.default.svc"])
        assert _refusal(pod) == (401, "invalid_token")
        renew()
        assert list(pod.events()) == []
        server.command(*admin, "disable", "notebooks", *here)
        assert _refusal(pod) == (403, "service_disabled")
        server.command(*admin, "end", "notebooks", "--yes", *here)
        assert _refusal(pod) == (401, "invalid_token")


def _refusal(pod: Client) -> tuple[int | None, str]:
    with pytest.raises(errors.TaskcredError) as refused:
        pod.events()
    assert refused.value.hint
    return refused.value.status, refused.value.error_code
