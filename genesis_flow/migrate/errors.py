"""What can go wrong with migrations, and the exit code that tells a script which of it did."""

from genesis_flow.core.errors import GenesisFlowError

OK = 0
ERROR = 1
PENDING = 2
LOCKED = 3
CHANGED = 4
MISMATCH = 5
DRIFT = 6
REFUSED = 7
USAGE = 64


class MigrationError(GenesisFlowError):
    """The command could not be done; the message says what to do."""

    exit_code = ERROR


class StepFailed(MigrationError):
    """A step raised; what it had done stays, and running the command again finishes it."""


class Locked(MigrationError):
    """Another run holds the lock."""

    exit_code = LOCKED


class LockLost(Locked):
    """This run held the lock and does not any more."""


class ChangedFile(MigrationError):
    """The file of an applied step is not the one that was applied."""

    exit_code = CHANGED


class HistoryMismatch(MigrationError):
    """The files and the database disagree about the history."""

    exit_code = MISMATCH


class DataLossRefused(MigrationError):
    """The step would lose data, and nobody has agreed to that."""

    exit_code = REFUSED
