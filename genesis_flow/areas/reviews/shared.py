"""What queues and items ask of each other."""

from genesis_flow.areas.reviews.documents import ReviewQueueFields
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.mongo.connection import Database


async def find_queue(database: Database, queue_id: str, projection: Document | None = None) -> Document:
    """The queue's document, or MLflow's error for one that is not there."""
    queues = database.collection(ReviewQueueFields)
    return await entities.find(queues, {"_id": queue_id}, unknown_queue(queue_id), projection)


def unknown_queue(queue_id: str) -> entities.Refusal:
    return entities.unknown(f"Review queue with id '{queue_id}' not found.")
