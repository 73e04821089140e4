"""The composition root: `process.py` composes what serves, of the parts that stand beside it."""
