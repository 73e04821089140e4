"""A fleet of agents at work: loads it through the API and replays a day of its decisions.

`python -m examples.fleet`; `--help` says what can be chosen. Where to read: `shape.py` is what the
fleet looks like, `day.py` what happens in it, `load.py` and `replay.py` how licet is used.
"""

from __future__ import annotations
