"""The journal of imports: what was brought in from where, so that it can be continued, proven and undone."""

from typing import Any

from pydantic import Field

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.keys import SEPARATOR


class ImportJournalFields(Declared):
    """All imports of one source into one workspace."""

    id: str = Field(alias="_id", description="Hash of the source and the workspace.")
    workspace: str = Field(description="Workspace; every query names it.")
    source: str = Field(description="The source's URI without a password.")
    state: str = Field(
        description="`running`, `done`, `incomplete`, `stopped`, `rolling back` or `rolled back`."
    )
    created_time: int = Field(description="When it began.")
    last_update_time: int = Field(description="When it last changed.")
    experiments: dict[str, int] = Field(
        default_factory=dict,
        description=(
            "Numbers of experiments in the target by their ids in the source, where they could not be kept."
        ),
    )
    names: dict[str, str] = Field(
        default_factory=dict,
        description=(
            "Names of experiments in the target by their ids in the source, where they could not be kept."
        ),
    )
    models: dict[str, str] = Field(
        default_factory=dict,
        description=(
            "Names of registered models in the target by those in the source (escaped), where they "
            "could not be kept."
        ),
    )
    questions: dict[str, str] = Field(
        default_factory=dict,
        description=(
            "Default questions that the target had made itself, by the ids of those in the source (escaped)."
        ),
    )
    merged: list[dict[str, Any]] = Field(
        default_factory=list,
        description=(
            "Experiments that were in the target and took in those of the source: their document before that."
        ),
    )
    made_workspace: dict[str, Any] | None = Field(
        default=None, description="The document of the workspace, if the import made it."
    )
    sessions: list[dict[str, Any]] = Field(
        default_factory=list,
        description="One entry a run of the command: when, by whom, with which filters, what it did.",
    )

    class Settings(CollectionSettings):
        name = "import_journals"


class ImportUnitFields(Declared):
    """A unit of the source that was written completely."""

    id: str = Field(alias="_id", description="The journal and the unit's key: see `journal_key`.")
    fingerprint: str | None = Field(
        default=None,
        description="Of the source when the unit was read; while it is the same, the unit is not read again.",
    )
    counts: dict[str, int] = Field(default_factory=dict, description="How many things it brought, by kind.")
    problems: int = Field(default=0, description="How many things it could not bring.")

    class Settings(CollectionSettings):
        name = "import_units"


class ImportItemFields(Declared):
    """A root document that an import created; noted before the document is written."""

    id: str = Field(alias="_id", description="The journal, the collection and the document's `_id` as text.")
    root: Any = Field(description="The document's `_id`.")
    unit: str = Field(description="The unit that brought it.")
    state: str | None = Field(
        default=None,
        description=(
            "Sum of the hashes of the document and of all that belongs to it, as the import left them; "
            "missing while an import brings it once more."
        ),
    )
    changed: bool = Field(
        default=False, description="Whether people had changed it when it was imported once more."
    )

    class Settings(CollectionSettings):
        name = "import_items"


class ImportProblemFields(Declared):
    """Something of the source that could not be brought over."""

    id: str = Field(alias="_id", description="The journal, the unit and the hash of the rest.")
    kind: str = Field(description="What kind of thing it was.")
    where: str = Field(description="Where it is in the source.")
    reason: str = Field(description="Why it could not be brought over.")
    size: int = Field(default=0, description="How many items it stands for, such as the points of a history.")

    class Settings(CollectionSettings):
        name = "import_problems"


class ImportArtifactFields(Declared):
    """A place of the source whose artifacts were copied, or left behind, and the place that took over."""

    id: str = Field(alias="_id", description="The journal and the place in the source.")
    kind: str = Field(description="The kind of what the artifacts belong to.")
    of: str = Field(description="The id of what the artifacts belong to.")
    target: str = Field(description="The place that took over.")
    files: int = Field(default=0, description="How many files were copied.")
    bytes: int = Field(default=0, description="How large they were.")
    checksum: str = Field(default="", description="Of the names and the contents of all files.")
    signature: str = Field(
        default="", description="Of the names, sizes and times of all files, to see what has changed."
    )
    names: list[str] = Field(
        default_factory=list,
        description="The files that were copied, for a rollback; empty if there are too many.",
    )

    class Settings(CollectionSettings):
        name = "import_artifacts"


def journal_key(journal: str, *parts: str) -> str:
    return SEPARATOR.join((journal, *parts))
