"""How a job finds its stand-in key: the variables that IBM's SDKs and our own client read."""

from __future__ import annotations

from collections.abc import Iterable

from taskcred.domain.secret import Secret


def job_variables(run_id: str, standin_key: Secret, url: str, sdk_services: Iterable[str]) -> dict[str, str]:
    """The stand-in key takes the place of an API key: as IBMCLOUD_API_KEY, and for each of `sdk_services` as
    IBM's SDKs read it (`<SVC>_AUTH_TYPE`, `_APIKEY`, `_AUTH_URL`, `_URL`)."""
    key = standin_key.reveal()  # the job's clients exchange it for access tokens
    variables = {"IBMCLOUD_API_KEY": key, "TASKCRED_URL": url, "TASKCRED_RUN_ID": run_id}
    for service in sdk_services:
        prefix = service.upper()
        variables |= {
            f"{prefix}_AUTH_TYPE": "iam",
            f"{prefix}_APIKEY": key,
            f"{prefix}_AUTH_URL": url,
            f"{prefix}_URL": url,
        }
    return variables


def ca_variables(ca_file: str) -> dict[str, str]:
    """What requests and OpenSSL's users read in place of the public authorities."""
    return {"REQUESTS_CA_BUNDLE": ca_file, "SSL_CERT_FILE": ca_file}
