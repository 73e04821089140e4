"""What the container image is built from is there: nobody here has docker at hand."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def copied() -> list[str]:
    """Return what the image's build copies from the repository."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copies = [line.split()[1:-1] for line in lines if line.startswith("COPY ")]
    return [name for names in copies if not names[0].startswith("--from=") for name in names]


def test_the_build_is_sent_just_what_it_copies() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    sent = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert "*" in rules
    assert sorted(sent) == sorted(copied())
    assert [name for name in sent if not (ROOT / name).exists()] == []
