"""Limits that have as many tokens as a test says, and who took them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from licet.app.limit_ports import Taken
from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.domain.token_bucket import Demand, Refusal


@dataclass(slots=True)
class _Given:
    limits: Tokens
    policies: Sequence[str]

    def give_back(self) -> None:
        for policy in self.policies:
            self.limits.left[policy] += 1


class Tokens:
    """A `Limits`: so many tokens by policy, whoever asks."""

    def __init__(self, **left: int) -> None:
        """Have these."""
        self.left = left
        self.is_far = False
        """Whether the database must be asked."""
        self.error: Exception | None = None

    def take(self, demands: Sequence[Demand], deadline: Deadline) -> Taken | Refusal:
        """See `Limits.take`."""
        return self.take_all([demands], deadline)[0]

    def take_all(
        self, wanted: Sequence[Sequence[Demand]], deadline: Deadline
    ) -> Sequence[Taken | Refusal]:
        """See `Limits.take_all`."""
        if self.is_far and deadline is AT_ONCE:
            raise NotAtOnceError
        if self.error is not None:
            raise self.error
        return [self._take(demands) for demands in wanted]

    def _take(self, demands: Sequence[Demand]) -> Taken | Refusal:
        for demand in demands:
            if not self.left[demand.policy_id]:
                return Refusal(demand, 1_500_000)
        for demand in demands:
            self.left[demand.policy_id] -= 1
        return _Given(self, [demand.policy_id for demand in demands])


NO_LIMITS = Tokens()
"""For policies without a limit."""
