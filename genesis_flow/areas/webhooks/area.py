"""Webhooks."""

from genesis_flow.areas.webhooks.documents import WebhookFields
from genesis_flow.areas.webhooks.methods import Webhooks
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration(
    "webhooks",
    documents=(WebhookFields,),
    registry=(Webhooks,),
)
