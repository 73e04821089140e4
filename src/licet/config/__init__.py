"""Settings: `settings.py` has them, with `listening.py`; what their texts mean is in `rules.py`."""

from __future__ import annotations

from licet.config.settings import CONFIG_FILE_VARIABLE, ConfigurationError, Settings, load

__all__ = ["CONFIG_FILE_VARIABLE", "ConfigurationError", "Settings", "load"]
