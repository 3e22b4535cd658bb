"""API keys in files and settings: hashed, several for a tenant, replaced while the server runs."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest

from plato.api.access.keys import CHECK_S, KeyFile, hash_key, new_key, read_keys
from plato.errors import SettingsError
from tests.clock import Clock

ONE, TWO = "sk-plato-0123456789", "sk-plato-abcdefghij"


def line(tenant: str, key: str) -> str:
    return f"{tenant}={hash_key(key)}\n"


def test_a_tenant_has_several_keys_and_only_their_hashes_are_kept() -> None:
    keys = read_keys(["# Of the shop", line("shop", ONE), "", line("shop", TWO)])
    assert keys == {hash_key(ONE): "shop", hash_key(TWO): "shop"}
    assert ONE not in str(keys)


def test_a_setting_may_have_keys_in_plain_text() -> None:
    entries = [f"shop={ONE}", f" lab = {hash_key(TWO)} "]
    assert read_keys(entries, plain=True) == {hash_key(ONE): "shop", hash_key(TWO): "lab"}


@pytest.mark.parametrize(
    ("entries", "plain", "reason"),
    [
        (["shop"], True, "TENANT=KEY"),
        ([f"={ONE}"], True, "TENANT=KEY"),
        ([f"a shop={ONE}"], True, "TENANT=KEY"),
        ([f"{'x' * 129}={ONE}"], True, "TENANT=KEY"),
        ([f"shop={ONE}"], False, "is not a hash"),
        (["shop=sha256:abc"], True, "is not a hash"),
        (["shop=short"], True, "less than 16 characters"),
        ([f"shop={ONE}", f"lab={ONE}"], True, "lab and shop have the same API key"),
    ],
)
def test_what_is_no_key_is_refused_without_repeating_it(
    entries: list[str], plain: bool, reason: str
) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        read_keys(entries, plain=plain)
    assert ONE not in str(caught.value)


def test_the_line_of_a_file_that_is_no_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# Of the shop\n" + line("shop", ONE) + "\nnonsense\n")
    with pytest.raises(SettingsError, match=rf"{path}: line 4: .*TENANT=KEY"):
        KeyFile(str(path))
    with pytest.raises(SettingsError, match=r"key 2: .*TENANT=KEY"):
        read_keys([f"shop={ONE}", "nonsense"], plain=True)


def test_new_keys_are_long_and_differ() -> None:
    keys = {new_key() for _ in range(8)}
    assert len(keys) == 8
    assert all(key.startswith("sk-plato-") and len(key) > 50 for key in keys)


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys", Clock()
    path.write_text(line("shop", ONE))
    keys = KeyFile(str(path), clock)
    path.write_text(line("shop", ONE) + line("lab", TWO))
    assert keys.keys() == {hash_key(ONE): "shop"}
    clock.now += CHECK_S
    assert keys.keys() == {hash_key(ONE): "shop", hash_key(TWO): "lab"}


def test_a_file_without_keys_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    path.write_text("# Nobody yet.\n")
    with caplog.at_level(logging.WARNING):
        assert not KeyFile(str(path)).keys()
    assert f"{path} has no API key" in caplog.text


@pytest.mark.parametrize("content", ["nonsense", None])
def test_a_file_that_breaks_leaves_the_keys_as_they_were(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    path, clock = tmp_path / "keys", Clock()
    path.write_text(line("shop", ONE))
    keys = KeyFile(str(path), clock)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    clock.now += CHECK_S
    with caplog.at_level(logging.ERROR):
        assert keys.keys() == {hash_key(ONE): "shop"}
    assert "those before stay valid" in caplog.text


@pytest.mark.hostile
def test_a_file_that_could_not_be_read_is_read_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "keys", Clock()
    path.write_text(line("shop", ONE) + line("lab", TWO))
    keys = KeyFile(str(path), clock)
    path.write_text(line("lab", TWO))

    def fail(*_: object, **__: object) -> str:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as failing:
        failing.setattr(Path, "read_text", fail)
        clock.now += CHECK_S
        assert keys.keys() == {hash_key(ONE): "shop", hash_key(TWO): "lab"}
    clock.now += CHECK_S
    assert keys.keys() == {hash_key(TWO): "lab"}


@pytest.mark.parametrize("content", [None, b"\xff", b"shop"])
def test_a_server_does_not_start_with_a_broken_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError):
        KeyFile(str(path))
