"""A run that lives, and the stand-in key its job holds."""

from __future__ import annotations

from tests.support.server import Person, Server, SignedIn, eventually

# The rate limit would stop a load generator, which is its purpose; here the path itself is measured.
CONFIG = """
[tokens]
standin_rate = 1000000000
standin_burst = 1000000000

[tasks.sleep]
kind = "command"
argv = ["sh", "-c", "printenv IBMCLOUD_API_KEY > key.part && mv key.part key && sleep 3600"]
"""


def owner_with_credential(server: Server) -> tuple[Person, SignedIn]:
    """A person who has a generated task credential."""
    person = server.create_person("bench@example.com")
    if server.process is None:
        server.start()
    me = server.sign_in(person)
    answer = me.request(
        "POST", "/v1/task_credentials", json={"name": "bench", "type": "iam_api_key", "generate": True}
    )
    assert answer.status_code == 201, answer.text
    return person, me


def standin_key_of_live_run(server: Server) -> str:
    """Start a run and take its stand-in key from the file its job wrote into its working directory."""
    _, me = owner_with_credential(server)
    answer = me.request("POST", "/v1/runs", json={"task": "sleep", "parameters": {}})
    assert answer.status_code == 201, answer.text

    def key() -> str | None:
        for file in server.data_dir.glob("jobs/*/key"):
            return file.read_text().strip()
        return None

    return eventually(key, "the job has its stand-in key")
