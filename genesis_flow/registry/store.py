"""The asynchronous registry store: the areas, joined. This is its table of contents."""

from genesis_flow.registry.aliases import Aliases
from genesis_flow.registry.copies import Copies
from genesis_flow.registry.models import RegisteredModels
from genesis_flow.registry.prompt_links import PromptLinks
from genesis_flow.registry.prompts import Prompts
from genesis_flow.registry.stages import Stages
from genesis_flow.registry.versions import ModelVersions
from genesis_flow.registry.webhooks import Webhooks


class AsyncModelRegistryStore(
    PromptLinks, Prompts, Copies, RegisteredModels, ModelVersions, Stages, Aliases, Webhooks
):
    """MLflow's model registry store on MongoDB, awaitable."""
