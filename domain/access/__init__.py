"""Access: who sends a request, and what they may do."""

from domain.access import api_keys, provider_keys
from domain.access.principals import ANONYMOUS, Principal, Role
from domain.access.rights import EVERYTHING, OPEN, RIGHTS, Reach, Whose, reach_of

__all__ = [
    "ANONYMOUS",
    "EVERYTHING",
    "OPEN",
    "RIGHTS",
    "Principal",
    "Reach",
    "Role",
    "Whose",
    "api_keys",
    "provider_keys",
    "reach_of",
]
