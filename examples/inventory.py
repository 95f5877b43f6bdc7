"""A job as users write them: plain IBM SDK code that knows nothing of taskcred.

It lists its owner's API keys for SECONDS seconds, a call every quarter of a second, and prints progress.
The launcher set IBMCLOUD_API_KEY and the IAM_IDENTITY_* variables, so the SDK finds its way by itself. At
the end it looks for its owner's API key wherever it can read, and reports as JSON.
"""

import json
import os
import re
import sys
import time
from pathlib import Path

from ibm_cloud_sdk_core import ApiException
from ibm_platform_services import IamIdentityV1

USER_KEY = re.compile(rb"tcu_[A-Za-z0-9]{49}")


def user_key_found() -> bool:
    """Whether a user's key is in the environment, in a process of /proc or in a file of /tmp, /var, /home or /root."""
    if any(USER_KEY.search(value.encode()) for value in os.environ.values()):
        return True
    files = list(Path("/proc").glob("[0-9]*/environ")) + list(Path("/proc").glob("[0-9]*/cmdline"))
    for top in ("/tmp", "/var/lib", "/home", "/root"):
        for folder, _, names in os.walk(top):
            files += [
                Path(folder, name)
                for name in names
                if name.endswith((".db", ".db-wal", ".key", ".log", ".credential"))
            ]
    for file in files:
        try:
            if USER_KEY.search(file.read_bytes()):
                return True
        except OSError:
            continue  # not ours to read: good
    return False


seconds = float(sys.argv[1])
service = IamIdentityV1.new_instance()
calls = failed = 0
end = time.monotonic() + seconds
while (left := end - time.monotonic()) > 0:
    calls += 1
    try:
        service.list_api_keys(scope="entity")
    except (ApiException, OSError) as error:
        failed += 1
        print(f"call {calls} failed: {type(error).__name__}: {error}")
    print(f"::progress {int(seconds - left)}/{int(seconds)} {calls} calls", flush=True)
    time.sleep(0.25)

print(json.dumps({"calls": calls, "failed": failed, "user_key_found": user_key_found()}))
sys.exit(1 if failed else 0)
