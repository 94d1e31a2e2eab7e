"""Whether all documents of the database agree with each other; reads everything, so only if asked for."""

from genesis_flow.cli.doctor.consistency import Inconsistency, inconsistencies
from genesis_flow.cli.doctor.finding import Finding, fail, ok, warn
from genesis_flow.cli.doctor.patient import Patient
from genesis_flow.mongo.operation import Area, connect
from genesis_flow.sync.portal import portal

_NAMED = 5


def look(patient: Patient) -> Finding:
    async def read() -> tuple[int, list[Inconsistency]]:
        store = Area(patient.settings)
        hidden, visible = 0, []
        try:
            async for inconsistency in inconsistencies(await connect(store)):
                if inconsistency.visible:
                    visible.append(inconsistency)
                else:
                    hidden += 1
        finally:
            await store.close()
        return hidden, visible

    hidden, visible = portal.run(read)
    if visible:
        named = [f"{each.collection} {each.id} {each.text}" for each in visible[:_NAMED]]
        more = f", and {len(visible) - _NAMED} more" if len(visible) > _NAMED else ""
        return fail(
            "agreement",
            f"Documents contradict each other: {'; '.join(named)}{more}.",
            " ".join(dict.fromkeys(each.remedy for each in visible[:_NAMED])),
            visible=[[each.collection, each.id, each.text] for each in visible],
            hidden=hidden,
        )
    if hidden:
        return warn(
            "agreement",
            f"{hidden} remains of calls that were killed, which no reader sees.",
            "Nothing needs to be done: the same calls, made again, take them for their own, and "
            "`genesis-flow doctor --repair` removes those whose run, trace, model or dataset is gone.",
            hidden=hidden,
        )
    return ok("agreement", "All documents agree with each other.")
