"""The journal of imports: what was brought in from where, so that it can be continued, proven and undone."""

from typing import Any, ClassVar

from pydantic import BaseModel, Field
from pymongo import IndexModel

from genesis_flow.documents.keys import SEPARATOR


class ImportJournalFields(BaseModel):
    """All imports of one source into one workspace."""

    id: str = Field(alias="_id")
    workspace: str
    # The source's URI without a password.
    source: str
    # running, done, incomplete, stopped, rolling back or rolled back.
    state: str
    created_time: int
    last_update_time: int
    # What could not be kept: the numbers of experiments and their names, by their ids in the source; the
    # names of registered models, by theirs (escaped).
    experiments: dict[str, int] = Field(default_factory=dict)
    names: dict[str, str] = Field(default_factory=dict)
    models: dict[str, str] = Field(default_factory=dict)
    # Experiments that were in the target and took in those of the source: their document before that.
    merged: list[dict[str, Any]] = Field(default_factory=list)
    # One entry a run of the command: when, by whom, with which filters, what it did.
    sessions: list[dict[str, Any]] = Field(default_factory=list)

    class Settings:
        name = "import_journals"
        indexes: ClassVar[list[IndexModel]] = []


class ImportUnitFields(BaseModel):
    """A unit of the source that was written completely."""

    # The journal and the unit's key: see journal_key.
    id: str = Field(alias="_id")
    # Of the source when the unit was read; while it is the same, the unit is not read again.
    fingerprint: str | None = None
    # How many things it brought, by kind.
    counts: dict[str, int] = Field(default_factory=dict)
    problems: int = 0

    class Settings:
        name = "import_units"
        indexes: ClassVar[list[IndexModel]] = []


class ImportItemFields(BaseModel):
    """A root document that an import created; noted before the document is written."""

    # The journal, the collection and the document's _id as text.
    id: str = Field(alias="_id")
    root: Any
    unit: str

    class Settings:
        name = "import_items"
        indexes: ClassVar[list[IndexModel]] = []


class ImportProblemFields(BaseModel):
    """Something of the source that could not be brought over."""

    # The journal, the unit and the hash of the rest.
    id: str = Field(alias="_id")
    kind: str
    where: str
    reason: str
    size: int = 0

    class Settings:
        name = "import_problems"
        indexes: ClassVar[list[IndexModel]] = []


class ImportArtifactFields(BaseModel):
    """A place of the source whose artifacts were copied, or left behind, and the place that took over."""

    # The journal and the place in the source.
    id: str = Field(alias="_id")
    # The kind and id of what the artifacts belong to.
    kind: str
    of: str
    target: str
    files: int = 0
    bytes: int = 0
    # Of the names and the contents of all files; and of names, sizes and times, to see what has changed.
    checksum: str = ""
    signature: str = ""
    # Of the files that were copied, for a rollback; empty if there are too many.
    names: list[str] = Field(default_factory=list)

    class Settings:
        name = "import_artifacts"
        indexes: ClassVar[list[IndexModel]] = []


def journal_key(journal: str, *parts: str) -> str:
    return SEPARATOR.join((journal, *parts))
