"""The asynchronous registry store: the areas, joined. This is its table of contents."""

from genesis_flow.areas.models.aliases import Aliases
from genesis_flow.areas.models.copies import Copies
from genesis_flow.areas.models.methods import RegisteredModels
from genesis_flow.areas.models.stages import Stages
from genesis_flow.areas.models.versions import ModelVersions
from genesis_flow.areas.prompts.links import PromptLinks
from genesis_flow.areas.prompts.methods import Prompts
from genesis_flow.areas.webhooks.methods import Webhooks


class AsyncModelRegistryStore(
    PromptLinks, Prompts, Copies, RegisteredModels, ModelVersions, Stages, Aliases, Webhooks
):
    """MLflow's model registry store on MongoDB, awaitable."""
