"""The Python client library: `from licet.client import Client`.

Public API: what `__all__` names.
"""

from __future__ import annotations

from licet.client.agent_runner import AgentRunner
from licet.client.agents import (
    Agent,
    Agents,
    AgentSwitch,
    AgentToken,
    BootstrapToken,
    Heartbeat,
    NewBootstrapToken,
)
from licet.client.approvals import Approval, ApprovalResolution, Approvals, Consent
from licet.client.callers import ApiKey, CallerIdentity, Callers, KeyRevocation, NewApiKey
from licet.client.client import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_SECONDS, Client
from licet.client.errors import LicetCallError
from licet.client.imports import AuditImport, ForeignEvent, Imports
from licet.client.policies import (
    Policies,
    PolicyCaseResult,
    PolicySet,
    PolicySetPut,
    PolicyTest,
)
from licet.client.proofs import LogCheckpoint, LogExport, LogProof, Proofs
from licet.client.replays import ReplayedDecision, ReplayStep
from licet.client.requests import AuditFilter, AuthorizeRequest, CapabilityFilter, GrantFields
from licet.client.results import (
    AuditEvent,
    AuditPage,
    Candidate,
    Capability,
    CapabilityPage,
    CapabilityTree,
    ConsideredPolicy,
    Decision,
    Explanation,
    JsonObject,
    Revocation,
    ServingStatus,
)
from licet.client.transport import Tls
from licet.client.users import Principals, StandingChange, Suspension, User, UserChange, Users
from licet.domain.errors import Violation

__all__ = [
    "DEFAULT_ADDRESS",
    "DEFAULT_TIMEOUT_SECONDS",
    "Agent",
    "AgentRunner",
    "AgentSwitch",
    "AgentToken",
    "Agents",
    "ApiKey",
    "Approval",
    "ApprovalResolution",
    "Approvals",
    "AuditEvent",
    "AuditFilter",
    "AuditImport",
    "AuditPage",
    "AuthorizeRequest",
    "BootstrapToken",
    "CallerIdentity",
    "Callers",
    "Candidate",
    "Capability",
    "CapabilityFilter",
    "CapabilityPage",
    "CapabilityTree",
    "Client",
    "Consent",
    "ConsideredPolicy",
    "Decision",
    "Explanation",
    "ForeignEvent",
    "GrantFields",
    "Heartbeat",
    "Imports",
    "JsonObject",
    "KeyRevocation",
    "LicetCallError",
    "LogCheckpoint",
    "LogExport",
    "LogProof",
    "NewApiKey",
    "NewBootstrapToken",
    "Policies",
    "PolicyCaseResult",
    "PolicySet",
    "PolicySetPut",
    "PolicyTest",
    "Principals",
    "Proofs",
    "ReplayStep",
    "ReplayedDecision",
    "Revocation",
    "ServingStatus",
    "StandingChange",
    "Suspension",
    "Tls",
    "User",
    "UserChange",
    "Users",
    "Violation",
]
