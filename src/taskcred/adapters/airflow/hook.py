"""The connection type `taskcred`: where the server is, and as which service Airflow signs in.

| field | meaning |
|---|---|
| host | the server, `https://taskcred.example.org`; or host, port and schema apart |
| login, password | the service's client id and secret |
| extra `owners` | who a name of Airflow's is in taskcred: {"ada": "IBMid-…"} |
| extra `ca_file` | PEM file of the server's authority, where the system does not know it |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from airflow.sdk.bases.hook import BaseHook

from taskcred.adapters.airflow import CONNECTION_TYPE, DEFAULT_CONNECTION
from taskcred.adapters.owners import grant_of
from taskcred.client import AsyncClient, Client
from taskcred.errors import ConfigurationError, TaskcredError


class TaskcredHook(BaseHook):
    """The service's client, made from a connection."""

    conn_name_attr: Final = "taskcred_conn_id"
    default_conn_name: Final = DEFAULT_CONNECTION
    conn_type: Final = CONNECTION_TYPE
    hook_name: Final = "taskcred"

    def __init__(self, taskcred_conn_id: str = DEFAULT_CONNECTION) -> None:
        super().__init__()
        self.taskcred_conn_id = taskcred_conn_id

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """What the form of a connection shows, in our words."""
        return {
            "hidden_fields": ["schema"],
            "relabeling": {"host": "Server", "login": "Client id", "password": "Client secret"},
            "placeholders": {
                "host": "https://taskcred.example.org",
                "extra": '{"owners": {"ada": "IBMid-0123456789"}}',
            },
        }

    def get_conn(self) -> Client:
        """A client that signs in as the service."""
        return Client(**_arguments(self.get_connection(self.taskcred_conn_id)))

    async def aget_conn(self) -> AsyncClient:
        """The same for an event loop."""
        return AsyncClient(**_arguments(await self.aget_connection(self.taskcred_conn_id)))

    def grant_of(self, owner: str, task: str) -> str:
        """The id of the grant under which `task` runs for `owner`, a name of Airflow's."""
        extra = self.get_connection(self.taskcred_conn_id).extra_dejson
        owners: Mapping[str, str] = extra.get("owners", {})
        with self.get_conn() as client:
            return grant_of(client, owners, owner, task)

    def test_connection(self) -> tuple[bool, str]:
        """What the button Test in Airflow's form says."""
        try:
            with self.get_conn() as client:
                return True, f"The server knows this service; {len(client.grants())} grants."
        except TaskcredError as error:
            return False, f"{error.message} {error.hint}"


def _arguments(connection: Any) -> dict[str, Any]:
    """A connection's fields as a client takes them."""
    host = connection.host
    if not host or not connection.login or not connection.password:
        raise ConfigurationError(
            f"The connection {connection.conn_id} lacks host, login or password.",
            hint="They are the server's URL and what `taskcred admin service create` printed.",
        )
    if "://" not in host:
        port = f":{connection.port}" if connection.port else ""
        host = f"{connection.schema or 'https'}://{host}{port}"
    return {
        "url": host,
        "client_id": connection.login,
        "client_secret": connection.password,
        "ca_file": connection.extra_dejson.get("ca_file"),
    }
