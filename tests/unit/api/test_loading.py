"""Loading and reloading beside the requests, as the log tells it."""

from __future__ import annotations

import logging
import threading

import pytest

from api_fakes import FakeRegistry, make_client, make_registry
from maskserve.api.loading import start_loading
from maskserve.api.services import Services
from maskserve.core.errors import BundleCorruptError, MaskserveError

WAIT_S = 10


class ReloadingRegistry(FakeRegistry):
    """Reloads with the outcomes that the test has put there."""

    def __init__(self, *names: str) -> None:
        super().__init__(make_registry(*names).predictors, ready=False)
        self.outcomes: list[dict[str, MaskserveError | None] | Exception] = []
        self.done = threading.Semaphore(0)

    def load(self) -> None:
        super().load()
        self.done.release()

    def reload(self) -> dict[str, MaskserveError | None]:
        try:
            outcome = self.outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        finally:
            self.done.release()


def test_what_happened_to_each_model_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="maskserve.api.loading")
    logging.getLogger("maskserve").propagate = True
    registry = ReloadingRegistry("balloon", "second")
    services: Services = make_client(registry).application.extensions["maskserve"]
    broken = BundleCorruptError("/srv/second.zip: sha256 differs.")
    registry.outcomes = [
        RuntimeError("a bug"),
        {},
        {"balloon": None, "second": broken},
        {"third": broken},
    ]
    start_loading(services)
    assert registry.done.acquire(timeout=WAIT_S)
    while registry.outcomes:
        services.reload_asked.set()
        assert registry.done.acquire(timeout=WAIT_S)
    services.reload_asked.wait(0.1)  # the last lines may still be on their way
    expected = [
        "ready: balloon, second",
        "loading the models failed",
        "reload: no bundle has changed",
        "reload: model balloon is version 1.0.0 now",
        "reload: the changed bundle of model second is refused, version 1.0.0 stays: "
        "/srv/second.zip: sha256 differs.",
        "reload: model third could not be loaded: /srv/second.zip: sha256 differs.",
    ]
    for _ in range(WAIT_S * 100):
        if len(caplog.messages) >= len(expected):
            break
        threading.Event().wait(0.01)
    assert caplog.messages == expected
