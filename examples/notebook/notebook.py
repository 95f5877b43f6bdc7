"""A notebook server: about the smallest platform that runs its users' work with task credentials.

`notebook.py` serves the pages on http://127.0.0.1:8400, `notebook.py nightly` is what a timer starts at
night. README.md walks through it, and says what a real platform must add.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import httpx
from flask import Flask, g, redirect, render_template, request, session
from flask.typing import ResponseReturnValue

from taskcred.client import Attempt, Client, Grant, Run, errors

TASK = "notebook-cell"
SHOWN = 5  # runs
HOME = os.environ.get("NOTEBOOK_URL", "http://127.0.0.1:8400")
KEPT = Path(
    os.environ.get("NOTEBOOK_DIR", "notebook-data")
)  # cells to run nightly, and how far events were read
CELL = """\
from ibm_platform_services import IamIdentityV1

service = IamIdentityV1.new_instance()
keys = service.list_api_keys(scope="entity").get_result()["apikeys"]
print(f"API keys I have: {len(keys)}")
"""

client = Client()  # who this platform is, and where taskcred is: TASKCRED_SERVICE_FILE
app = Flask(__name__, template_folder=str(Path(__file__).parent))
# A name of its own: cookies of one host are shared by all its ports, and taskcred is here too.
app.config.update(
    SECRET_KEY=secrets.token_bytes(), SESSION_COOKIE_NAME="notebook", SESSION_COOKIE_SAMESITE="Lax"
)


@dataclass
class Person:
    """Who signed in, and the access token that says so: it stays in this process."""

    name: str
    owner: tuple[str, str]  # iam_id and account_id
    token: str = field(repr=False)
    code: str = CELL


people: dict[str, Person] = {}  # by what their browser's cookie says


@app.before_request
def find_person() -> None:
    """Who sits at the browser."""
    g.person = people.get(session.get("id", ""))


@app.get("/sign-in")
def sign_in() -> ResponseReturnValue:
    """To the identity provider that taskcred believes too, and back with a code: PKCE, RFC 7636."""
    session["state"], session["verifier"] = secrets.token_urlsafe(), secrets.token_urlsafe(48)
    digest = hashlib.sha256(session["verifier"].encode()).digest()
    query = {
        "response_type": "code",
        "client_id": "taskcred-cli",  # a public client for programs on the user's own machine
        "redirect_uri": f"{HOME}/signed-in",
        "state": session["state"],
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    return redirect(f"{client.url}/identity/authorize?{urlencode(query)}")


@app.get("/signed-in")
def signed_in() -> ResponseReturnValue:
    """Redeem the code for the person's interactive access token."""
    if not came_back_to_us() or "code" not in request.args:
        return redirect("/")
    form = {
        "grant_type": "authorization_code",
        "client_id": "taskcred-cli",
        "code": request.args["code"],
        "redirect_uri": f"{HOME}/signed-in",
        "code_verifier": session.pop("verifier"),
    }
    answer = httpx.post(f"{client.url}/identity/token", data=form)
    if not answer.is_success:
        return redirect("/")
    token = answer.json()["access_token"]
    # Straight from the provider: it needs no verifying to know who this is (OpenID Connect Core, 3.1.3.7).
    body = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    session["id"] = secrets.token_urlsafe()
    people[session["id"]] = Person(claims["name"], (claims["iam_id"], claims["account"]["bss"]), token)
    return redirect("/")


def came_back_to_us() -> bool:
    """Whether the answer in the address is to what this browser asked."""
    state = session.pop("state", "")
    return bool(state) and secrets.compare_digest(state, request.args.get("state", ""))


@app.get("/")
def page() -> ResponseReturnValue:
    """The notebook. What was run and what it printed, taskcred remembers."""
    runs = [run for run in client.runs() if is_mine(run)][:SHOWN] if g.person else []
    grants = [each for each in client.grants() if each.is_active and is_mine(each)] if g.person else []
    outputs = {run.id: client.output(run.id).text for run in runs}
    return render_template("page.html", server=client.url, runs=runs, outputs=outputs, grants=grants)


@app.post("/cells")
def run_cell() -> ResponseReturnValue:
    """Start a run for the person who is here: their access token says so, and taskcred does not keep it."""
    if g.person is None:
        return redirect("/sign-in")
    g.person.code = request.form["code"]
    try:
        run = client.start_run(
            TASK, {"code": g.person.code}, subject_token=g.person.token, return_to=f"{HOME}/"
        )
    except errors.InvalidRequestError as error:
        if error.error_code == "invalid_subject_token":  # it has ended: an hour has passed
            return redirect("/sign-in")
        raise
    if not run.is_waiting:
        threading.Thread(target=carry_out, args=(run.id,)).start()
    return redirect("/")


@app.post("/cells/<run_id>/cancel")
def cancel(run_id: str) -> ResponseReturnValue:
    """End a run; `carry_out` hears of it with its next heartbeat."""
    if is_mine(client.run(run_id)):
        client.cancel_run(run_id)
    return redirect("/")


@app.post("/nightly")
def ask_for_grant() -> ResponseReturnValue:
    """At night nobody is here: to the page where the person consents, and back to /granted."""
    if g.person is None:
        return redirect("/sign-in")
    g.person.code = request.form["code"]
    session["state"] = secrets.token_urlsafe()
    where = client.consent_url(tasks=[TASK], days=30, return_to=f"{HOME}/granted", state=session["state"])
    return redirect(where)


@app.get("/granted")
def granted() -> ResponseReturnValue:
    """The person answered: keep what to run under which grant."""
    if came_back_to_us() and "grant_id" in request.args:
        grant = client.grant(request.args["grant_id"])
        if is_mine(grant):  # an address is anybody's to write
            (KEPT / f"{grant.id}.py").write_text(g.person.code)
    return redirect("/")


@app.errorhandler(errors.TaskcredError)
def refused(problem: errors.TaskcredError) -> ResponseReturnValue:
    """Every error of taskcred says what happened and what to do, some also where."""
    return render_template("page.html", server=client.url, problem=problem), problem.status or 500


def is_mine(it: Run | Grant) -> bool:
    """Whether a run or grant is of the person at the browser."""
    return g.person is not None and (it.iam_id, it.account_id) == g.person.owner


def carry_out(run_id: str) -> None:
    """Run the cell in a process that has a stand-in key: dead when this ends, and not the user's own key."""
    try:
        with client.begin_attempt(run_id) as attempt:
            job = subprocess.Popen(  # noqa: S603 - running what its user wrote is what a notebook is for
                [sys.executable, "-c", attempt.run.parameters["code"]],
                env={"PATH": os.environ["PATH"], **attempt.environment()},  # none of this platform's own
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            threading.Thread(target=stop_when_asked, args=(attempt, job)).start()
            for line in job.stdout or ():
                attempt.output(line)
            status = job.wait()
            if attempt.cancel_requested:
                attempt.end("cancelled")
            elif status != 0:
                attempt.end("failed", reason="The cell ended with an error.", exit_code=status)
    except errors.ConflictError as why:
        # It waits again, was cancelled, or was taken away (its grant ended): taskcred knows how it goes on.
        print(f"{run_id}: {why.message}")


def stop_when_asked(attempt: Attempt, job: subprocess.Popen[str]) -> None:
    """End the cell when its run is cancelled or was taken away."""
    while job.poll() is None:
        if attempt.cancel_requested or attempt.ended:
            job.kill()
        time.sleep(0.2)


def follow_events() -> None:
    """Go on with what waited: taskcred tells when the owner has answered, or when to begin once more."""
    read = KEPT / "events"
    while True:
        try:
            for event in client.events(int(read.read_text()) if read.exists() else None):
                if event.type == "run.queued":
                    threading.Thread(target=carry_out, args=(event.data["run_id"],)).start()
                if event.type == "grant.ended":
                    (KEPT / f"{event.data['grant_id']}.py").unlink(missing_ok=True)
                read.write_text(str(event.id))
        except errors.UnavailableError:
            pass  # it is being restarted
        time.sleep(1)


def nightly() -> None:
    """Run each cell that its owner wants to be run at night."""
    for grant in client.grants():
        kept = KEPT / f"{grant.id}.py"
        if not (grant.is_active and kept.exists()):
            continue
        run = client.start_run(TASK, {"code": kept.read_text()}, grant_id=grant.id, reference="nightly")
        if run.is_waiting:
            print(f"{grant.iam_id}: waits for a task credential, and its owner is told.")
            continue
        carry_out(run.id)
        print(f"{grant.iam_id}: {client.run(run.id).state}\n{client.output(run.id).text}", end="")


if __name__ == "__main__":
    KEPT.mkdir(exist_ok=True)
    if sys.argv[1:] == ["nightly"]:
        nightly()
    else:
        threading.Thread(target=follow_events, daemon=True).start()
        app.run(host="127.0.0.1", port=urlsplit(HOME).port)
