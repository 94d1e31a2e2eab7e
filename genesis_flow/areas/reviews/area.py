"""Review queues."""

from genesis_flow.areas.reviews.documents import ReviewQueueFields, ReviewQueueItemFields
from genesis_flow.areas.reviews.items import ReviewQueueItems
from genesis_flow.areas.reviews.queues import ReviewQueues
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration(
    "reviews",
    documents=(ReviewQueueFields, ReviewQueueItemFields),
    tracking=(ReviewQueues, ReviewQueueItems),
)
