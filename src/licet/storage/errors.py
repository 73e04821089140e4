"""Translates what psycopg raises, once, next to the library: by class, never by message."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import errors
from psycopg_pool import PoolTimeout, TooManyRequests

from licet.domain.errors import ConflictError, DeadlineError, UnavailableError

_log: Final = logging.getLogger(__name__)

# A schema that is missing, older or newer than this program, or a role without its rights: an
# operator's task, and nothing was decided. The health check says NOT_SERVING for the same cause.
_WRONG_SCHEMA: Final = (
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
    errors.InvalidSchemaName,
    errors.InsufficientPrivilege,
)


@contextmanager
def translated(*, deadline_bound: bool) -> Iterator[None]:
    """Turn psycopg's exceptions into licet's.

    Args:
        deadline_bound: the caller's deadline, and not a limit of ours, is what ends a wait here.

    Raises:
        DeadlineError: a wait ended and `deadline_bound`; nothing was decided or changed.
        ConflictError: the statement lost a race and can be repeated; nothing was changed.
        UnavailableError: the database cannot be used now.
    """
    try:
        yield
    # Most specific first: most of these are OperationalErrors too.
    except TooManyRequests as exc:
        message = "too many requests wait for a database connection"
        raise UnavailableError(message) from exc
    except PoolTimeout as exc:
        if deadline_bound:
            message = "the deadline passed while waiting for a database connection"
            raise DeadlineError(message) from exc
        message = "all database connections are in use, or the database cannot be reached"
        raise UnavailableError(message) from exc
    except (errors.QueryCanceled, errors.LockNotAvailable) as exc:
        if deadline_bound:
            message = "the deadline passed while the database worked"
            raise DeadlineError(message) from exc
        message = "the database took too long"
        raise UnavailableError(message) from exc
    except (
        errors.SerializationFailure,
        errors.DeadlockDetected,
        errors.UniqueViolation,
    ) as exc:
        message = "the change collided with another one"
        raise ConflictError(message) from exc
    except _WRONG_SCHEMA as exc:
        _log.exception("the database's schema or roles are not what this version of licet expects")
        message = "the database's schema is not the expected one"
        raise UnavailableError(message) from exc
    except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
        message = "the database cannot be reached"
        raise UnavailableError(message) from exc
