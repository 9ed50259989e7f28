"""From the names of models to predictors that are ready to work."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from maskserve.core.categories import nearest_name
from maskserve.core.errors import (
    BundleCorruptError,
    BundleError,
    EngineError,
    MaskserveError,
    ParameterError,
    ServerNotReadyError,
    UnknownModelError,
)
from maskserve.runtime.bundle import Bundle, find_bundle, read_bundle, read_manifest
from maskserve.runtime.cpu_limit import cpu_limit
from maskserve.runtime.model_cache import ModelCache
from maskserve.runtime.openvino_engine import OpenVinoEngine, Precision
from maskserve.runtime.predictor import EnginePredictor

__all__ = ["ModelRegistry", "load_engine", "load_predictor", "unknown_model"]


def load_predictor(
    name_or_path: str | Path,
    *,
    precision: Precision = "auto",
    threads: int | None = None,
    cache: ModelCache | None = None,
) -> EnginePredictor:
    """Load a model for the CPU.

        predictor = load_predictor("balloon")
        instances = predictor.predict(image)

    Args:
        name_or_path: The name of a shipped bundle, or the path of a folder or ``.zip``.
        precision: Of the arithmetic; ``f32`` where numbers must be the same on every machine.
        threads: How many CPU threads one inference uses; by default one for each core, or as many
            as a container's limit of CPU time amounts to.
        cache: Where to keep the compiled model for the next time; nowhere by default.

    Raises:
        UnknownModelError: There is neither such a name nor such a path.
        BundleError: The bundle is damaged, or too new.
    """
    bundle = read_bundle(find_bundle(name_or_path))
    engine = load_engine(bundle, precision=precision, threads=threads, cache=cache)
    return EnginePredictor(engine, bundle.manifest)


def load_engine(
    bundle: Bundle,
    *,
    precision: Precision = "auto",
    threads: int | None = None,
    cache: ModelCache | None = None,
) -> OpenVinoEngine:
    """The engine of a bundle; see :func:`load_predictor`.

    With the precision ``auto`` a bundle may ask for ``f32`` (``Manifest.arithmetic``).
    """
    if precision == "auto":
        precision = bundle.manifest.arithmetic
    return OpenVinoEngine(
        bundle.model, precision=precision, threads=threads or cpu_limit(), cache=cache
    )


class ModelRegistry:
    """The models that a server was started with.

    Construction reads the manifests only, so that names are known at once; :meth:`load` does the
    slow part, usually in a thread of its own.

    Args:
        models: Names or paths as :func:`load_predictor` takes them, at least one; the first is
            the default.
        precision: As in :func:`load_predictor`.
        threads: As in :func:`load_predictor`.
        cache: As in :func:`load_predictor`.

    Attributes:
        failures: What went wrong, by model name; empty if all is well.

    Raises:
        UnknownModelError: There is neither such a name nor such a path.
        ParameterError: No model, or two of the same name.
    """

    def __init__(
        self,
        models: Sequence[str | Path],
        *,
        precision: Precision = "auto",
        threads: int | None = None,
        cache: ModelCache | None = None,
    ) -> None:
        self._load_one = partial(load_predictor, precision=precision, threads=threads, cache=cache)
        self._paths: dict[str, Path] = {}
        self._predictors: dict[str, EnginePredictor] = {}
        self.failures: dict[str, MaskserveError] = {}
        for model in models:
            path = find_bundle(model)
            try:
                name = read_manifest(path).name
            except BundleError as error:
                name = str(model)
                self.failures[name] = error
            if name in self._paths:
                raise ParameterError(
                    f"Two models are called “{name}”: {self._paths[name]}, {path}."
                )
            self._paths[name] = path
        if not self._paths:
            raise ParameterError("No model was named.")

    @property
    def names(self) -> tuple[str, ...]:
        """Names as the manifests give them, in the order that they were asked for."""
        return tuple(self._paths)

    @property
    def ready(self) -> bool:
        """Whether every model has answered a warm-up."""
        return len(self._predictors) == len(self._paths)

    def load(self) -> None:
        """Load every model and let it look at one grey photo; failures are kept, not raised."""
        for name, path in self._paths.items():
            try:
                self._predictors[name] = self._load_warm(path)
            except MaskserveError as error:
                self.failures[name] = error
            else:
                self.failures.pop(name, None)

    def reload(self) -> dict[str, MaskserveError | None]:
        """Load again what has changed on disk, or could not be loaded before.

        A model answers with its old bundle until the new one has been verified and has looked
        at one grey photo, and for good if the new one cannot be used.

        Returns:
            For each model that changed, what is wrong with its new bundle; None if nothing is.
        """
        changed: dict[str, MaskserveError | None] = {}
        for name, path in self._paths.items():
            old = self._predictors.get(name)
            try:
                if old and read_manifest(path) == old.manifest:
                    continue
                new = self._load_warm(path)
                if old and new.manifest.name != name:
                    raise BundleCorruptError(
                        f"{path} holds another model now, “{new.manifest.name}”.",
                        hint="Start the server again to serve it.",
                    )
            except MaskserveError as error:
                changed[name] = error
                if old is None:
                    self.failures[name] = error
            else:
                changed[name] = None
                self._predictors[name] = new
                self.failures.pop(name, None)
        return changed

    def _load_warm(self, path: Path) -> EnginePredictor:
        """A predictor that has answered once; every failure becomes an error of this package."""
        grey = np.full((480, 640, 3), 128, dtype=np.uint8)
        try:
            predictor = self._load_one(path)
            predictor.predict(grey, min_score=0.0)  # so that the mask head runs, too
        except MaskserveError:
            raise
        except Exception as error:  # one model must not keep the others from being served
            raise EngineError(f"{path} could not be loaded: {error!r}.") from error
        return predictor

    def get(self, name: str | None = None) -> EnginePredictor:
        """The predictor of a name, or of the default model.

        Raises:
            UnknownModelError: The server was not started with such a model.
            BundleError: It could not be loaded.
            ServerNotReadyError: It is still being loaded.
        """
        name = self.names[0] if name is None else name
        if name in self._predictors:
            return self._predictors[name]
        if name in self.failures:
            raise self.failures[name]
        if name in self._paths:
            raise ServerNotReadyError(
                f"Model “{name}” is still being loaded.", hint="Try again soon."
            )
        raise unknown_model(name, self.names)


def unknown_model(name: str, known: Sequence[str]) -> UnknownModelError:
    """The error for a name that a server has no model of; says the nearest known one."""
    nearest = nearest_name(name, known)
    guess = f"Did you mean “{nearest}”? " if nearest else ""
    return UnknownModelError(
        f"There is no model “{name}” here.", hint=f"{guess}Known: {', '.join(known)}."
    )
