"""Links from runs, logged models and traces to the prompt versions that they use.

MLflow keeps a link as a tag of the run, model or trace, so it is the tracking store that is written: the one
that MLflow is set to, which need not be this database. Its calls block and run in a worker thread. As in
MLflow, two processes that link to one run at the same moment may lose a link: the tag is read and written.
"""

import logging
import threading
from typing import Any

from mlflow.entities.logged_model_tag import LoggedModelTag
from mlflow.entities.model_registry.prompt_version import PromptVersion
from mlflow.entities.run_tag import RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.tracing.constant import TraceTagKey
from mlflow.tracing.utils.prompt import update_linked_prompts_tag

from genesis_flow.areas.prompts.methods import Prompts
from genesis_flow.mongo.blocking import in_thread
from genesis_flow.mongo.operation import Area, mutation

_logger = logging.getLogger("genesis_flow")
_linking = threading.Lock()


class PromptLinks(Prompts, Area):
    @mutation
    async def link_prompt_version_to_run(self, name: str, version: str, run_id: str) -> None:
        """Note on a run that it uses a version of a prompt."""
        await in_thread(_link_to_run, await self._linkable(name, version), run_id)

    @mutation
    async def link_prompt_version_to_model(self, name: str, version: str, model_id: str) -> None:
        """Note on a logged model that it uses a version of a prompt."""
        await in_thread(_link_to_model, await self._linkable(name, version), model_id)

    @mutation
    async def link_prompts_to_trace(self, prompt_versions: list[PromptVersion], trace_id: str) -> None:
        """Note on a trace which versions of prompts it used."""
        await in_thread(_link_to_trace, prompt_versions, trace_id)

    async def _linkable(self, name: str, version: str) -> PromptVersion:
        prompt = await self.get_prompt_version(name, version)
        if prompt is None:
            raise MlflowException(
                f"Version {version} of {name} is not a version of a prompt.", RESOURCE_DOES_NOT_EXIST
            )
        return prompt


def _link_to_run(prompt: PromptVersion, run_id: str) -> None:
    store = _tracking_store()
    with _linking:
        old = store.get_run(run_id).data.tags.get(TraceTagKey.LINKED_PROMPTS)
        new = update_linked_prompts_tag(old, [prompt])
        if new != old:
            store.set_tag(run_id, RunTag(TraceTagKey.LINKED_PROMPTS, new))


def _link_to_model(prompt: PromptVersion, model_id: str) -> None:
    store = _tracking_store()
    with _linking:
        old = store.get_logged_model(model_id).tags.get(TraceTagKey.LINKED_PROMPTS)
        new = update_linked_prompts_tag(old, [prompt])
        if new != old:
            store.set_logged_model_tags(model_id, [LoggedModelTag(TraceTagKey.LINKED_PROMPTS, new)])


def _link_to_trace(prompts: list[PromptVersion], trace_id: str) -> None:
    from mlflow.tracing.client import TracingClient

    client = TracingClient()
    with _linking:
        trace = client.get_trace_info(trace_id)
        try:
            _tracking_store().link_prompts_to_trace(trace_id, prompts)
        except (MlflowException, NotImplementedError, AttributeError) as error:
            # Not every tracking store, nor every server's, has links of its own; all have tags.
            _logger.debug("The tracking store keeps no links from traces to prompts: %s", error)
        old = trace.tags.get(TraceTagKey.LINKED_PROMPTS)
        new = update_linked_prompts_tag(old, prompts)
        if new != old:
            client.set_trace_tag(trace_id, TraceTagKey.LINKED_PROMPTS, new)


def _tracking_store() -> Any:
    from genesis_flow.compat.stores import get_store

    return get_store()
