"""Agents: a bootstrap token for each that is not registered yet, good for it alone, once.

An agent's own token is known by the agent alone, so it has to register itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from licet.cli.importing import issuing
from licet.cli.importing.desk import Desk
from licet.cli.importing.issuing import LOST, Issued, Made
from licet.cli.importing.keys_file import KeysFile
from licet.cli.importing.records import AgentRecord, Kind
from licet.cli.importing.sending import each, violations_of
from licet.cli.importing.source import Read
from licet.cli.importing.tally import Fate
from licet.domain.instant import from_datetime

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import BootstrapToken, Client

LIFE: Final = timedelta(days=7)
_THREADS: Final = 4


class _BootstrapMaker:
    """Makes the bootstrap token of one agent; see `issuing.Maker`."""

    def __init__(self, client: Client, record: AgentRecord) -> None:
        self._client = client
        self._record = record

    def make(self, name: str) -> Made:
        """See `Maker.make`."""
        principals = [self._record.principal]
        made = self._client.agents.create_bootstrap(name, principals=principals, ttl=LIFE)
        return Made(made.bootstrap_token.token_id, made.token)

    def revoke(self, key_id: str) -> None:
        """See `Maker.revoke`."""
        self._client.agents.revoke_bootstrap(key_id, reason=LOST)


class AgentLoader:
    """Lets the agents of a file register."""

    def __init__(self, desk: Desk, keys: KeysFile | None) -> None:
        """Write texts into a file; None is for a dry run.

        Raises:
            LicetCallError: which agents there are cannot be known.
        """
        self._desk = desk
        self._keys = keys
        self._earlier: dict[str, list[BootstrapToken]] = defaultdict(list)
        self._there: set[str] = set()
        if len(desk.catalogue.places[Kind.AGENT]):
            self._there = {agent.name for agent in desk.client.agents.list()}
            for token in desk.client.agents.list_bootstrap(include_ended=True):
                if (mark := issuing.mark_of(token.name)) is not None:
                    self._earlier[mark[0]].append(token)

    def load(self) -> None:
        """Make a token for each.

        Raises:
            LicetCallError: licet does not answer; what was made stays. CommandError: see `Desk`.
        """
        for (read, maker), outcome in each(self._calls(), _THREADS):
            if isinstance(outcome, Exception):
                self._desk.reject(read, violations_of(outcome))
            else:
                self._write(read, maker, outcome)
                self._be_holder(read, Fate.IMPORTED)

    def _calls(self) -> Iterator[tuple[tuple[Read, _BootstrapMaker], Callable[[], Made]]]:
        for place in self._desk.catalogue.places[Kind.AGENT]:
            read = self._desk.source.again(place)
            record = _agent(read)
            if record.is_disabled:
                self._desk.settle(Kind.AGENT, Fate.ENDED)
                continue
            digest = issuing.digest_of(self._desk.name, Kind.AGENT, record.id)
            issued = list(map(self._issued, self._earlier[digest]))
            if record.name in self._there or not issuing.is_needed(issued, self._keys):
                self._be_holder(read, Fate.PRESENT)
            elif self._keys is None:
                self._be_holder(read, Fate.IMPORTED)
            else:
                maker = _BootstrapMaker(self._desk.client, record)
                name = issuing.name_of(digest, self._keys.run, record.name)
                lost = [one for one in issued if not one.is_ended]
                yield (read, maker), partial(issuing.issue, maker, name, lost)

    def _issued(self, token: BootstrapToken) -> Issued:
        mark = issuing.mark_of(token.name)
        is_over = from_datetime(token.expires_at) <= self._desk.source.now
        return Issued(
            key_id=token.token_id,
            run="" if mark is None else mark[1],
            is_ended=token.ended_at is not None or is_over,
            # What nobody used in time is as good as lost.
            is_lost=token.end_reason == LOST
            or (is_over and not token.uses and token.ended_at is None),
            is_used=bool(token.uses),
        )

    def _write(self, read: Read, maker: _BootstrapMaker, made: Made) -> None:
        if self._keys is None:
            raise AssertionError  # a dry run makes none
        record = _agent(read)
        note = partial(
            self._keys.add,
            made.key_id,
            made.text,
            agent=record.id,
            name=record.name,
            hostname=record.hostname,
        )
        issuing.written(self._keys, made, maker, note)

    def _be_holder(self, read: Read, fate: Fate) -> None:
        record = _agent(read)
        self._desk.holders[Kind.AGENT, record.id] = record.principal
        self._desk.settle(Kind.AGENT, fate)


def _agent(read: Read) -> AgentRecord:
    if not isinstance(read.record, AgentRecord):
        raise TypeError(f"line {read.place.number} is no agent")
    return read.record
