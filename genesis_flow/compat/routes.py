"""The routes of MLflow's server: those of FastAPI, and of the Flask application that is mounted below."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Find = Callable[[str, str], str | None]


def finder(app: Any) -> Find:
    """Finds the template of the route that answers a method and a path; None if no route does."""
    native = [*_native(app.routes)]
    flask = next((found for route in app.routes if (found := _flask(route)) is not None), None)

    def find(method: str, path: str) -> str | None:
        matching = [(methods, template) for regex, methods, template in native if regex.match(path)]
        for methods, template in matching:
            if not methods or method in methods:
                return template
        if flask is not None and (rule := _rule(flask, method, path)):
            return rule
        return matching[0][1] if matching else None

    return find


def _native(routes: Iterable[Any]) -> Iterator[tuple[Any, frozenset[str], str]]:
    """The regular expression, the methods and the template of each route of FastAPI."""
    for route in routes:
        if candidates := getattr(route, "effective_candidates", None):  # a router, since FastAPI 0.130
            yield from _native(candidates())
        elif getattr(route, "methods", None) is not None and hasattr(route, "path_regex"):
            yield route.path_regex, frozenset(route.methods), str(route.path)


def _flask(route: Any) -> Any:
    """The Flask application of a mount, which stands in a wrapper."""
    app = getattr(route, "app", None)
    while app is not None and not hasattr(app, "url_map"):
        app = getattr(app, "app", None)
    return app


def _rule(flask: Any, method: str, path: str) -> str | None:
    from werkzeug.exceptions import HTTPException, MethodNotAllowed

    routes = flask.url_map.bind("")
    try:
        return str(routes.match(path, method=method, return_rule=True)[0].rule)
    except MethodNotAllowed as error:
        allowed = next(iter(error.valid_methods or ()), None)
        return None if allowed in (None, method) else _rule(flask, str(allowed), path)
    except HTTPException:  # no such path, or one that is only right with another slash
        return None
