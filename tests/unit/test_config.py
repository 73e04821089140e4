"""Settings: each rule, where a value comes from, and that secrets stay secret."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from licet.config import (
    CONFIG_FILE_VARIABLE,
    ConfigurationError,
    Settings,
    load,
)
from licet.config.rules import is_loopback

SECRET = "postgresql://licet:hunter2@db/licet"


@pytest.fixture(autouse=True)
def _no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONFIG_FILE_VARIABLE, raising=False)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"LICET_{name.upper()}", raising=False)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide the path of the settings file, which a test has to write."""
    path = tmp_path / "licet.toml"
    monkeypatch.setenv(CONFIG_FILE_VARIABLE, str(path))
    return path


def test_the_defaults_are_safe() -> None:
    settings = load()
    assert is_loopback(settings.listen)
    assert not settings.insecure_bind
    assert settings.database_url is None


@pytest.mark.parametrize(
    ("name", "least", "most", "too_small", "too_large"),
    [
        ("threads", 1, 256, 0, 257),
        ("max_streams", 1, 4096, 0, 4097),
        ("max_watchers", 1, 4096, 0, 4097),
        ("max_streams_per_caller", 1, 4096, 0, 4097),
        ("max_calls", 1, 100_000, 0, 100_001),
        ("max_connections", 1, 1_000_000, 0, 1_000_001),
        ("max_connection_calls", 1, 100_000, 0, 100_001),
        ("caller_rate", 0, 1_000_000, -0.1, 1_000_000.1),
        ("address_rate", 0, 1_000_000, -0.1, 1_000_000.1),
        ("rate_burst", 1000, 1_000_000, 999, 1_000_001),
        ("failure_rate", 0, 100_000, -0.1, 100_000.1),
        ("heartbeat_seconds", 0.1, 60.0, 0.0, 60.1),
        ("change_retention_hours", 1, 8760, 0, 8761),
        ("max_message_bytes", 4_194_304, 67_108_864, 4_194_303, 67_108_865),
        ("drain_seconds", 0.0, 300.0, -0.1, 300.1),
        ("pool_min", 1, 16, 0, 257),
        ("pool_max", 2, 256, 0, 257),
        ("pool_acquire_seconds", 0.001, 30.0, 0.0, 30.1),
        ("statement_seconds", 0.001, 60.0, 0.0, 60.1),
        ("cache_bytes", 1_048_576, 68_719_476_736, 1_048_575, 68_719_476_737),
        ("cache_negative", 1, 10_000_000, 0, 10_000_001),
        ("spool_max_mib", 64, 1_048_576, 63, 1_048_577),
        ("spool_retain_seconds", 0, 604_800, -1, 604_801),
    ],
)
def test_a_number_has_a_range(
    name: str, least: float, most: float, too_small: float, too_large: float
) -> None:
    for value in (least, most):
        assert getattr(load(**{name: value}), name) == value
    for refused in (too_small, too_large, "many", float("nan")):
        with pytest.raises(ConfigurationError, match=f"^{name}: "):
            load(**{name: refused})


@pytest.mark.parametrize(("name", "taken"), [("log_level", "DEBUG"), ("log_format", "json")])
def test_a_choice_is_one_of_its_words(name: str, taken: str) -> None:
    assert getattr(load(**{name: taken}), name) == taken
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        load(**{name: "loud"})


@pytest.mark.parametrize(
    "address", ["127.0.0.1:50051", "127.255.0.9:1", "[::1]:0", "localhost:65535"]
)
def test_a_loopback_address_needs_no_permission(address: str) -> None:
    assert load(listen=address).listen == address


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:50051", "[::]:50051", "10.0.0.1:1", "licet:1", "localhost.example:1", "128.0.0.1:1"],
)
def test_another_address_needs_permission(address: str) -> None:
    with pytest.raises(ConfigurationError, match="LICET_INSECURE_BIND=true"):
        load(listen=address)
    assert load(listen=address, insecure_bind=True).listen == address


TLS = {"tls_cert_file": "c.pem", "tls_key_file": "k.pem"}
MUTUAL_TLS = TLS | {"tls_client_ca_file": "ca.pem"}


def test_another_address_needs_tls() -> None:
    with pytest.raises(ConfigurationError, match="there is no TLS: "):
        load(listen="0.0.0.0:1")
    for files in (TLS, MUTUAL_TLS):
        assert load(listen="0.0.0.0:1", **files).listen == "0.0.0.0:1"


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "[::1]:1", "localhost:1"])
def test_who_has_no_credential_is_admitted_on_loopback_only(listen: str) -> None:
    assert load(listen=listen).admits_anonymous
    assert load(listen=listen, **TLS).admits_anonymous
    assert not load(listen=listen, authentication="required").admits_anonymous
    # Who has to show a certificate is not admin for having none that is known.
    assert not load(listen=listen, **MUTUAL_TLS).admits_anonymous


@pytest.mark.parametrize("permission", [TLS, MUTUAL_TLS, {"insecure_bind": True}])
def test_nobody_is_admitted_without_a_credential_elsewhere(permission: dict[str, Any]) -> None:
    assert not load(listen="0.0.0.0:1", **permission).admits_anonymous


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("tls_cert_file", "tls_key_file"),
        ("tls_key_file", "tls_cert_file"),
        ("tls_client_ca_file", "tls_cert_file"),
        ("tls_callers_file", "tls_client_ca_file"),
    ],
)
def test_a_file_of_tls_needs_its_others(name: str, needed: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?i)LICET_{name} needs LICET_{needed}"):
        load(**{name: "a.pem"})
    load(**{name: ""})  # as a compose file makes of a variable that is not set


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1", ":50051", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:-1", "a:65536"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^listen: .*host:port"):
        load(listen=address, insecure_bind=True)


def test_a_unix_socket_stands_beside_the_port_or_instead_of_it(tmp_path: Path) -> None:
    path = tmp_path / "s"
    beside = load(socket=path)
    assert (beside.socket, beside.address, beside.socket_bits) == (path, beside.listen, 0o600)
    instead = load(socket=path, listen="none", socket_mode="0660")
    assert (instead.socket, instead.address, instead.socket_bits) == (path, None, 0o660)
    assert load(socket="").socket is None
    with pytest.raises(ConfigurationError, match="LICET_LISTEN=none needs LICET_SOCKET"):
        load(listen="none")
    with pytest.raises(ConfigurationError, match="LICET_TLS_CERT_FILE is for the port"):
        load(socket=path, listen="none", **TLS)
    for mode in ("0700", "0640", "600", "0o600", "0777"):
        with pytest.raises(ConfigurationError, match=r"^socket_mode: "):
            load(socket_mode=mode)


def test_who_has_no_credential_is_not_admitted_where_there_is_a_socket(tmp_path: Path) -> None:
    for settings in ({}, {"listen": "none"}, {"authentication": "auto"}):
        assert not load(socket=tmp_path / "s", **settings).admits_anonymous
    with pytest.raises(ConfigurationError, match="LICET_POLICY_FILE is for development"):
        load(socket=tmp_path / "s", policy_file="policies.yaml")


def test_the_path_of_a_socket_is_absolute_and_leaves_room_for_those_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(socket="s").socket == tmp_path / "s"
    monkeypatch.chdir("/")
    longest = "/" + "s" * 96
    assert str(load(socket=longest).socket) == longest
    for too_long in (longest + "s", longest[1:] + "s", "/" + "é" * 48 + "s"):
        with pytest.raises(ConfigurationError, match=r"^socket: must be at most 97 bytes"):
            load(socket=too_long)


@pytest.mark.parametrize(
    ("named", "cores"),
    [
        ("3", (3,)),
        ("3,2", (3, 2)),
        ("0-3", (0, 1, 2, 3)),
        ("6, 0-1,8191", (6, 0, 1, 8191)),
        ("5-5", (5,)),
        ("", ()),
    ],
)
def test_cores_are_named_in_an_order(named: str, cores: tuple[int, ...]) -> None:
    settings = load(worker_cores=named)
    assert settings.cores == cores
    # Each is for a worker, unless there are to be fewer.
    assert settings.workers == (len(cores) or len(os.sched_getaffinity(0)))
    assert not cores or load(worker_cores=named, workers=1).workers == 1


@pytest.mark.parametrize(
    "named", [",", "1,", "a", "-1", "1-", "3-2", "0-8192", "1 2", "0-99999", "²", "0x1", "0-8:2"]
)
def test_what_names_no_cores_is_refused(named: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^worker_cores: must be numbers of cores"):
        load(worker_cores=named)


@pytest.mark.parametrize("named", ["1,1", "0-2,1"])
def test_a_core_is_not_for_two_workers(named: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^worker_cores: must name each core once"):
        load(worker_cores=named)


def test_there_is_a_core_for_each_worker_if_any_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"LICET_WORKER_CORES=0,1 .*each of 3 workers"):
        load(worker_cores="0,1", workers=3)
    with pytest.raises(ConfigurationError, match="LICET_PIN_WORKERS=false does not"):
        load(worker_cores="0,1", pin_workers=False)


def test_there_are_as_many_workers_as_there_can_be_for_many_cores() -> None:
    assert load(worker_cores="0-99").workers == 64


def test_the_pool_has_room_for_what_it_keeps_open() -> None:
    assert load(pool_min=16, pool_max=16).pool_min == 16
    with pytest.raises(ConfigurationError, match="pool_min must not exceed pool_max"):
        load(pool_min=17, pool_max=16)


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('threads = 3\nmax_streams = 3\nlog_level = "DEBUG"\n', encoding="utf-8")
    monkeypatch.setenv("LICET_THREADS", "4")
    monkeypatch.setenv("LICET_MAX_STREAMS", "4")
    settings = load(threads=5, max_streams=None)
    assert (settings.threads, settings.max_streams, settings.log_level) == (5, 4, "DEBUG")


def test_an_unknown_setting_is_refused(file: Path) -> None:
    file.write_text("thread = 3\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"^thread: "):
        load()
    file.write_text("", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"^colour: "):
        load(colour="red")


def test_every_problem_is_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(threads=0, pool_max=0)
    assert re.fullmatch("threads: [^;]+; pool_max: [^;]+", str(caught.value))


def test_a_file_that_is_missing_or_no_toml_is_named(file: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"{CONFIG_FILE_VARIABLE}: there is no file"):
        load()
    for content in (b"threads =\n", b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(ConfigurationError, match=re.escape(str(file))):
            load()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        load().threads = 3


@pytest.mark.parametrize("name", ["database_url", "migration_database_url"])
def test_a_secret_is_not_shown(name: str) -> None:
    settings = load(**{name: SECRET})
    assert getattr(settings, name).get_secret_value() == SECRET
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "hunter2" not in shown


@pytest.mark.parametrize("name", ["database_url", "migration_database_url"])
def test_a_secret_is_in_no_error(name: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Beside another problem, of the wrong type, and in a file that is broken where it stands.
    for content in (
        f'{name} = "{SECRET}"\nthreads = 0\n',
        f'{name} = ["{SECRET}"]\n',
        f'{name} = {{ url = "{SECRET}" }}\n',
        f'{name} = "{SECRET}\n',
        f"{name} = {SECRET}\n",
    ):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(ConfigurationError) as caught:
            load()
        assert "hunter2" not in str(caught.value)
        assert caught.value.__suppress_context__
    monkeypatch.delenv(CONFIG_FILE_VARIABLE)
    monkeypatch.setenv(f"LICET_{name.upper()}", SECRET)
    with pytest.raises(ConfigurationError) as caught:
        load(pool_min=99)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "admits"),
    [
        ({}, True),
        ({"listen": "[::1]:0"}, True),
        ({"authentication": "required"}, False),
        ({"listen": "0.0.0.0:0", "insecure_bind": True}, False),
        ({"listen": "licet.example:443", "insecure_bind": True}, False),
        ({"insecure_bind": True}, True),
    ],
)
def test_only_on_loopback_and_only_if_not_told_otherwise_is_everybody_admitted(
    settings: dict[str, object], admits: bool
) -> None:
    assert load(**settings).admits_anonymous is admits
