"""A PostgreSQL server of one's own in a folder of one's own: a real one, started and stopped by the tests."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.ports import free_port


def binaries() -> Path:
    """The folder of initdb and postgres. AssertionError where PostgreSQL is not installed: `make test-annotate` installs it."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    assert folders, "PostgreSQL is not installed; `make test-annotate` installs it"
    return folders[-1]


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a new server; it syncs every commit, as PostgreSQL does by default."""
    folder = Path(tempfile.mkdtemp(prefix="sipo-postgres-"))
    user = {}
    if os.geteuid() == 0:  # the server refuses to be root
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    port, data = free_port(), folder / "data"
    start = ["initdb", "-D", data, "-U", "sipo", "--auth", "trust", "-E", "UTF8"]
    subprocess.run([binaries() / start[0], *start[1:]], check=True, capture_output=True, cwd=folder, **user)
    command = [binaries() / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **user)
    try:
        ready = [binaries() / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        for _ in range(300):
            if subprocess.run(ready, capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        yield f"postgresql://sipo@127.0.0.1:{port}/postgres"
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
