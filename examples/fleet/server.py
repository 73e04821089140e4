"""A licet of the example's own, on an embedded PostgreSQL that is thrown away afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from licet import config
from licet.bootstrap.process import Licet


@contextmanager
def served() -> Iterator[str]:
    """Provide the address of a licet that knows nothing yet."""
    with tempfile.TemporaryDirectory(prefix="licet-fleet-") as folder:
        licet = Licet(config.load(listen="127.0.0.1:0", data_dir=Path(folder))).start()
        try:
            yield f"127.0.0.1:{licet.server.port}"
        finally:
            licet.stop()
