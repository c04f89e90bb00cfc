"""The application: every handler that a resource defines is served, and has an example in the OpenAPI document."""

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator

from litestar.handlers import HTTPRouteHandler

import api
from api.app import OPERATIONS, assemble
from domain.runtime.settings import ROOT
from tests.support.builders import ROUTES, some_settings


def defined() -> Iterator[HTTPRouteHandler]:
    """Yield every handler that a module of the API defines."""
    for module in pkgutil.walk_packages(api.__path__, "api."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, HTTPRouteHandler):
                yield value


def test_every_handler_of_every_resource_is_served() -> None:
    app = assemble(some_settings(), ROUTES)

    served = {
        (path, handler.handler_name)
        for route in app.routes
        for handler in getattr(route, "route_handlers", ())
        for path in handler.paths
    }

    assert {(path, handler.handler_name) for handler in defined() for path in handler.paths} <= served


def test_every_handler_in_the_document_has_an_example_and_nothing_else_has() -> None:
    assert {handler.handler_name for handler in defined() if handler.include_in_schema is not False} == set(OPERATIONS)


def test_the_main_process_does_not_import_the_metrics() -> None:
    """They must not be imported before it is known whether several processes share them."""
    look = "import sys, api.main; print('prometheus_client' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
