"""Apache Airflow 3: a provider with a connection type, a hook, a task decorator and a trigger.

`get_provider_info` is what the entry point `apache_airflow_provider` names; importing it needs no Airflow.
"""

from __future__ import annotations

from typing import Any, Final

from taskcred import __version__

CONNECTION_TYPE: Final = "taskcred"
DEFAULT_CONNECTION: Final = "taskcred_default"


def get_provider_info() -> dict[str, Any]:
    """What Airflow finds in this package, as its provider_info.schema.json wants it."""
    return {
        "package-name": "taskcred",
        "name": "taskcred",
        "description": "Tasks that act for their owner with a stand-in key, never with the owner's own.",
        "versions": [__version__],
        "connection-types": [
            {
                "connection-type": CONNECTION_TYPE,
                "hook-class-name": "taskcred.adapters.airflow.hook.TaskcredHook",
                "hook-name": "taskcred",
            }
        ],
        "task-decorators": [
            {"name": "taskcred", "class-name": "taskcred.adapters.airflow.decorator.taskcred_task"}
        ],
        "integrations": [
            {
                "integration-name": "taskcred",
                "external-doc-url": "https://airflow.apache.org/docs/apache-airflow-providers/",
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": "taskcred", "python-modules": ["taskcred.adapters.airflow.hook"]}],
        "triggers": [
            {"integration-name": "taskcred", "python-modules": ["taskcred.adapters.airflow.trigger"]}
        ],
    }
