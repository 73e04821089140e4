"""Settings.

One validated object, from the environment (`LICET_*`), then a TOML file, then the defaults.

docs/operations.md has the same settings as a table; a test compares the two.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from typing_extensions import override

from licet.config import rules
from licet.config.listening import Listening

CONFIG_FILE_VARIABLE: Final = "LICET_CONFIG_FILE"
CONNECTIONS_BESIDE_POOL: Final = 2
"""Of each serving process: one that keeps it current, one that watches the others."""
STEWARD_CONNECTIONS: Final = 8
"""Of a host's steward: its pool, and one each to seal, archive, verify, and read the archives."""
# For migrations, `licet replicas`, people, and what PostgreSQL keeps for superusers.
_SPARE_CONNECTIONS: Final = 10
_POSTGRES_CONNECTIONS: Final = 100
_MIB: Final = 1024 * 1024


class ConfigurationError(Exception):
    """The settings are not valid.

    The message names each one and its rule, and never a secret's value.
    """


class Settings(Listening, BaseSettings):
    """What an operator may set. Every default is safe."""

    model_config = SettingsConfigDict(
        env_prefix="LICET_", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL 14 or newer, as a URL or libpq keywords. Unset: an embedded one.",
    )
    migration_database_url: SecretStr | None = Field(
        default=None,
        description="The same database with the right to change the schema. Unset: `database_url`.",
    )
    migrate_on_start: bool = Field(
        default=True, description="Apply missing migrations before serving."
    )
    data_dir: Path | None = Field(
        default=None,
        description="Where the embedded PostgreSQL keeps its data. Unset: the user's data folder.",
    )
    agent_heartbeat_seconds: Annotated[float, Field(ge=0.1, le=3600)] = Field(
        default=30.0,
        description="How often agents say that they live; after three without, one is offline.",
    )
    threads: Annotated[int, Field(ge=1, le=256)] = Field(
        default=16, description="Decisions that run at once; half as many reads do."
    )
    serving: Literal["auto", "stock"] = Field(
        default="auto",
        description="Who answers decisions from memory. `auto`: gRPC's own thread, if its version"
        " is known; `stock`: a thread each, as gRPC does it.",
    )
    max_mutations: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=256, description="Changes at once."
    )
    max_streams: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=256, description="Streams open at once."
    )
    max_watchers: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=64, description="Clients that watch changes at once."
    )
    max_streams_per_caller: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=128,
        description="Streams, watches, exports and replays that one caller has open at once.",
    )
    max_calls: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1024, description="Decisions under way at once, and as many reads."
    )
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=4096, description="Connections open at once."
    )
    max_connection_calls: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=256, description="Calls under way at once on one connection."
    )
    caller_rate: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        default=0.0, description="Questions a second of one caller. 0: as many as it likes."
    )
    address_rate: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        default=0.0, description="Questions a second from one address. 0: as many as it likes."
    )
    rate_burst: Annotated[int, Field(ge=1000, le=1_000_000)] = Field(
        default=2000, description="Questions at once, of one that was quiet, for both rates."
    )
    failure_rate: Annotated[float, Field(ge=0, le=100_000)] = Field(
        default=10.0,
        description="Credentials a second from one address that may not be valid; then none is"
        " verified for a while. 0: any number.",
    )
    heartbeat_seconds: Annotated[float, Field(ge=0.1, le=60)] = Field(
        default=5.0, description="How often a watch without changes says that there were none."
    )
    change_retention_hours: Annotated[int, Field(ge=1, le=8760)] = Field(
        default=24, description="How long changes are kept for watches to resume; the same on all."
    )
    max_message_bytes: Annotated[int, Field(ge=4 * _MIB, le=64 * _MIB)] = Field(
        default=4 * _MIB, description="Largest message, either way."
    )
    drain_seconds: Annotated[float, Field(ge=0, le=300)] = Field(
        default=10.0, description="How long running calls may take to end after SIGTERM."
    )
    pool_min: Annotated[int, Field(ge=1, le=256)] = Field(
        default=2, description="Database connections kept open."
    )
    pool_max: Annotated[int, Field(ge=1, le=256)] = Field(
        default=16, description="Database connections at most."
    )
    pool_acquire_seconds: Annotated[float, Field(gt=0, le=30)] = Field(
        default=2.0, description="How long a call waits for a free connection before UNAVAILABLE."
    )
    statement_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        default=5.0, description="How long a statement runs when the caller's deadline is later."
    )
    cache_bytes: Annotated[int, Field(ge=_MIB, le=64 * 1024 * _MIB)] = Field(
        default=256 * _MIB, description="Memory for capability sets, by estimate."
    )
    cache_negative: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default=10_000, description="Principals without capabilities that are remembered as such."
    )
    lease_seconds: Annotated[float, Field(ge=0.25, le=30)] = Field(
        default=1.0,
        description="How long this replica answers from memory after a renewal; the same on all.",
    )
    state_dir: Path | None = Field(
        default=None,
        description="Where this host keeps spools, keys and what was signed last."
        " Unset: the user's data folder.",
    )
    audit_durability: Literal["none", "group"] = Field(
        default="group",
        description="What a decision on record survives: the process's end, or the machine's too.",
    )
    spool_max_mib: Annotated[int, Field(ge=64, le=1024 * 1024)] = Field(
        default=8192, description="What a process's spool may take before decisions are refused."
    )
    spool_retain_seconds: Annotated[float, Field(ge=0, le=7 * 86_400)] = Field(
        default=3600.0, description="How long events stay in the spool after they were stored."
    )
    audit_origin: str | None = Field(
        default=None,
        description="Name of the audit log, until its first checkpoint. Unset: a random one.",
    )
    audit_signing_key_file: Path | None = Field(
        default=None, description="Key that signs checkpoints. Unset: one of this host's own."
    )
    audit_mac_key_file: Path | None = Field(
        default=None,
        description="Key that authenticates events until they are sealed; the same on all hosts."
        " Unset: one of this host's own.",
    )
    audit_page_seconds: Annotated[float, Field(ge=0.005, le=5)] = Field(
        default=0.07,
        description="How long events are looked for before a page of the audit log comes short.",
    )
    audit_verify_seconds: Annotated[float, Field(ge=1, le=86_400)] = Field(
        default=60.0, description="How often what was sealed in the last hour is verified again."
    )
    audit_verify_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.2, description="Of its time that verifying works; 0: nothing is verified."
    )
    audit_retention_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="How long audit events stay in the database before they are archived in files."
        " Unset: for ever.",
    )
    audit_archive_dir: Path | None = Field(
        default=None, description="Where archives go. Unset: a folder in `state_dir`."
    )
    policy_file: Path | None = Field(
        default=None,
        description="Policies to put whenever this file changes, in development. Unset: none are.",
    )
    metrics_listen: str | None = Field(
        default=None,
        description="Address on which Prometheus finds the metrics over HTTP. Unset: nowhere.",
    )
    tracing: bool = Field(default=False, description="Send spans of sampled calls, by OTLP/HTTP.")
    tracing_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="Of the calls without a trace, the part that is sampled."
    )
    tracing_rate: Annotated[float, Field(ge=1, le=100_000)] = Field(
        default=1000.0, description="Calls a second that are sampled, at most."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least level logged."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="For people, or one JSON object a line."
    )

    @field_validator(*("database_url", "migration_database_url", "policy_file"), mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        # What a compose file makes of a variable that is not set.
        return None if value == "" else value

    @field_validator("metrics_listen")
    @classmethod
    def _has_host_and_port(cls, value: str | None) -> str | None:
        if value is not None:
            rules.check_address(value)
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.pool_min > self.pool_max:
            message = "pool_min must not exceed pool_max"
            raise ValueError(message)
        if self.policy_file is not None and not self.admits_anonymous:
            message = (
                "LICET_POLICY_FILE is for development: whoever writes the file sets the policies;"
                " only on loopback, and where callers need no credential. Use `licet policy put`"
            )
            raise ValueError(message)
        return self

    def embedded_postgres(self) -> dict[str, str]:
        """Return the settings of the embedded PostgreSQL: room for the connections of everyone.

        One worker more than there are and two stewards, because one is replaced by another that
        works already.
        """
        workers = (self.workers + 1) * (self.pool_max + CONNECTIONS_BESIDE_POOL)
        # Who follows a file of policies waits for the replicas, on one more.
        steward = STEWARD_CONNECTIONS + (self.policy_file is not None)
        needed = workers + 2 * steward + _SPARE_CONNECTIONS
        return {"max_connections": str(max(needed, _POSTGRES_CONNECTIONS))}

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = os.environ.get(CONFIG_FILE_VARIABLE)
        toml = (TomlConfigSettingsSource(settings_cls, Path(file)),) if file else ()
        return (init_settings, env_settings, *toml)


def load(**overrides: object) -> Settings:
    """Read the settings; `overrides`, from the command line, win.

    Raises:
        ConfigurationError: a setting is unknown or out of range, or the file cannot be read.
    """
    file = os.environ.get(CONFIG_FILE_VARIABLE)
    if file and not Path(file).is_file():
        message = f"{CONFIG_FILE_VARIABLE}: there is no file {file}"
        raise ConfigurationError(message)
    try:
        chosen: Any = {key: value for key, value in overrides.items() if value is not None}
        return Settings(**chosen)
    except ValidationError as exc:
        problems = [
            ": ".join(filter(None, (".".join(str(part) for part in error["loc"]), _rule(error))))
            for error in exc.errors(include_input=False, include_url=False)
        ]
        raise ConfigurationError("; ".join(problems)) from None
    except (OSError, ValueError) as exc:  # the TOML file
        message = f"{file}: {exc}"
        raise ConfigurationError(message) from None


def _rule(error: ErrorDetails) -> str:
    """Return the sentence of an error, without what pydantic puts before that of a validator."""
    cause = error.get("ctx", {}).get("error")
    return str(cause) if isinstance(cause, ValueError) else error["msg"]
