"""Access: who sends a request."""

from domain.access.principals import ANONYMOUS, Principal

__all__ = ["ANONYMOUS", "Principal"]
