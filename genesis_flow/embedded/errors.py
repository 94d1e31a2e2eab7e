"""What can go wrong with an embedded MongoDB."""

from genesis_flow.core.errors import GenesisFlowError


class EmbeddedUnavailable(GenesisFlowError):
    """An embedded MongoDB cannot run here; the message says what to install or use instead."""


class EmbeddedInUse(GenesisFlowError):
    """Other processes use the embedded MongoDB that was to be stopped."""
