"""What can go wrong with an import, beyond single items that cannot be read."""

from genesis_flow.migrate.errors import MigrationError

INCOMPLETE = 3
"""The exit code of an import that went through, but had to leave something out."""


class ImportFailed(MigrationError):
    """The import could not be done; the message says what to do."""


class ImportConflict(ImportFailed):
    """The target holds something else under a name or id of the source."""


class Stopped(ImportFailed):
    """A problem was met, and the user asked to stop at the first one."""
