"""The one list of areas. Stores, documents, checks and reference pages follow from it."""

from genesis_flow.areas.evaluation.area import AREA as EVALUATION
from genesis_flow.areas.experiments.area import AREA as EXPERIMENTS
from genesis_flow.areas.gateway.area import AREA as GATEWAY
from genesis_flow.areas.issues.area import AREA as ISSUES
from genesis_flow.areas.jobs.area import AREA as JOBS
from genesis_flow.areas.judges.area import AREA as JUDGES
from genesis_flow.areas.labels.area import AREA as LABELS
from genesis_flow.areas.logged_models.area import AREA as LOGGED_MODELS
from genesis_flow.areas.mcp.area import AREA as MCP
from genesis_flow.areas.metrics.area import AREA as METRICS
from genesis_flow.areas.models.area import AREA as MODELS
from genesis_flow.areas.prompts.area import AREA as PROMPTS
from genesis_flow.areas.reviews.area import AREA as REVIEWS
from genesis_flow.areas.runs.area import AREA as RUNS
from genesis_flow.areas.skills.area import AREA as SKILLS
from genesis_flow.areas.traces.area import AREA as TRACES
from genesis_flow.areas.users.area import AREA as USERS
from genesis_flow.areas.webhooks.area import AREA as WEBHOOKS
from genesis_flow.areas.workspaces.area import AREA as WORKSPACES
from genesis_flow.documents.audit import AuditFields
from genesis_flow.documents.declared import Declared
from genesis_flow.documents.imports import (
    ImportArtifactFields,
    ImportItemFields,
    ImportJournalFields,
    ImportProblemFields,
    ImportUnitFields,
)

AREAS = (
    EXPERIMENTS,
    RUNS,
    METRICS,
    TRACES,
    LOGGED_MODELS,
    EVALUATION,
    LABELS,
    REVIEWS,
    ISSUES,
    JUDGES,
    MCP,
    SKILLS,
    GATEWAY,
    JOBS,
    USERS,
    PROMPTS,
    MODELS,
    WEBHOOKS,
    WORKSPACES,
)

# Collections that belong to no area.
_OTHERS = (
    ImportJournalFields,
    ImportUnitFields,
    ImportItemFields,
    ImportProblemFields,
    ImportArtifactFields,
    AuditFields,
)

DECLARED: tuple[type[Declared], ...] = (
    *(document for area in AREAS for document in area.documents),
    *_OTHERS,
)
"""Every collection, declared."""
