"""What a call usually comes down to, such that its caller's thread can send it by itself; see ADR 22.

Each is sent again by the loop where the thread is not told that it is done.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar

from pymongo.errors import BulkWriteError, PyMongoError

from genesis_flow.documents.declared import Declared
from genesis_flow.documents.plain import Document
from genesis_flow.mongo import observed
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.operation import Area, Method
from genesis_flow.mongo.scoping import held

P = ParamSpec("P")
T = TypeVar("T")


class OneUpdate(NamedTuple):
    """The one update that a call consists of if nothing is in its way."""

    declared: type[Declared]
    query: Document
    change: Document

    def send(self, database: Database) -> bool:
        """Whether a document matched and is changed."""
        collection = database.blocking_collection(self.declared)
        with observed.timed("update"):
            return bool(collection.update_one(held(self.query), self.change).matched_count)

    def share(self, database: Database) -> bool:
        """Whether a document matched; the update goes in one command with those of other threads."""
        return database.update_from_thread(self.declared, self.query, self.change)


class OneTransaction(NamedTuple):
    """An update, and an insertion that goes with it. Both are made, or none if nothing matches."""

    update: OneUpdate
    fields: Document
    """What the insertion needs of the updated document."""
    declared: type[Declared]
    documents: Callable[[Document], Sequence[Document]]
    """What is inserted. Another insertion of it must fail."""
    made: Callable[[], None]

    def send(self, database: Database) -> bool:
        """Whether a document matched, and all is made."""
        updated = database.blocking_collection(self.update.declared)
        inserted = database.blocking_collection(self.declared)
        query = held(self.update.query)
        with database.clients.blocking().start_session() as session:
            try:
                with session.start_transaction():
                    with observed.timed("findAndModify"):
                        found = updated.find_one_and_update(
                            query, self.update.change, self.fields, session=session
                        )
                    if found is None:
                        session.abort_transaction()
                        return False
                    with observed.timed("insert"):
                        inserted.insert_many(self.documents(found), ordered=False, session=session)
                    with observed.timed("commitTransaction"):
                        session.commit_transaction()
            except BulkWriteError:
                raise  # the server has ended a transaction in which an insertion failed
            except PyMongoError:
                # Neither the commit nor what PyMongo sends to abort it need have arrived.
                database.unended.append(session.session_id)
                raise
        self.made()
        return True


class OneRead(NamedTuple):
    """The one aggregation that a call consists of if it finds all that the answer needs, or one of a few."""

    declared: type[Declared]
    pipeline: list[Document]
    answer: Callable[[list[Document]], Any]
    """Makes the answer from the documents, or the next read; None if there is more to do or to say."""
    hint: str | None = None

    def send(self, database: Database) -> Any:
        """The answer, or None."""
        found: Any = self
        while isinstance(found, OneRead):
            found = found.answer(found._rows(database))
        return found

    def _rows(self, database: Database) -> list[Document]:
        pipeline = database.documents.held(self.pipeline)
        options: dict[str, Any] = {"hint": self.hint} if self.hint else {}
        with observed.timed("aggregate"):
            collection = database.blocking_collection(self.declared)
            return collection.aggregate(pipeline, batchSize=BATCH, **options).to_list()


Command = OneUpdate | OneTransaction | OneRead


def direct(
    command: Callable[..., OneUpdate | OneTransaction | None], *, is_shared: bool = False
) -> Callable[[Method[P, None]], Method[P, None]]:
    """Let a blocking caller send what a public call consists of itself: it spares the way to the loop.

    ``command`` takes what the call takes, in any thread, and returns None if there is more to do. It is
    shared if it mostly is an update that may go with those of other threads.
    """
    return _marked(command, is_shared=is_shared)


def direct_read(command: Callable[..., OneRead | None]) -> Callable[[Method[P, T]], Method[P, T]]:
    """Let a blocking caller read itself what a public call answers with."""
    return _marked(command)


def _marked(
    command: Callable[..., Command | None], *, is_shared: bool = False
) -> Callable[[Method[P, T]], Method[P, T]]:
    def mark(public: Method[P, T]) -> Method[P, T]:
        def command_of(area: Area, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Command | None:
            public.check(area.settings, args, kwargs)  # type: ignore[attr-defined]
            return command(area, *args, **kwargs)

        command_of.is_shared = is_shared  # type: ignore[attr-defined]
        public.command_of = command_of  # type: ignore[attr-defined]
        return public

    return mark
