"""Where a run's weights come from, and what they ask of its settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from torchvision.models.detection import MaskRCNN

from maskserve.core.errors import SettingsError
from maskserve.core.predictor import Image
from maskserve.datasets import Dataset
from maskserve.datasets.download import OnProgress
from maskserve.models import initialise
from maskserve.models.checkpoint import WEIGHTS_FILE
from maskserve.models.initialise import NAMED_STARTS, has_same_pyramid
from maskserve.models.start import Demands, Start, read_start
from maskserve.runtime.image_io import read_image
from maskserve.runtime.preprocess import to_graph_input
from maskserve.training.config import TrainSettings, adopt_start, adopt_unset
from maskserve.training.folder import CHECKPOINT_FILE, FOLDS_FOLDER, run_of_weights
from maskserve.training.norms import set_statistics
from maskserve.training.photos import Photos, photo_names
from maskserve.training.record import SETTINGS_FILE, RunRecord, read_record

__all__ = ["find_start", "load_start", "warn_of_seen_photos"]

_PHOTOS_FOR_STATISTICS = 32


def find_start(
    settings: TrainSettings, out: Path, console: Console, *, resume: bool
) -> tuple[TrainSettings, str | Start]:
    """Read a run's initial weights.

    Args:
        settings: As they were asked for.
        out: The run folder.
        console: For a bar while weights are downloaded, and a line about what they ask for.
        resume: Whether the run goes on from its checkpoint, if it has one.

    Returns:
        Settings that suit the weights, and these; their name if there is nothing to read.

    Raises:
        ParameterError: There is no such file or model, or it holds no weights to start from.
        SettingsError: They ask for other settings than those that were asked for.
        DownloadError: They cannot be downloaded.
    """
    if resume and (out / CHECKPOINT_FILE).exists():  # it has its weights, wherever they came from
        return adopt_unset(settings, read_record(out).settings), settings.init
    if settings.init in NAMED_STARTS:
        return settings, settings.init
    with _download_progress(console) as tell:
        start = read_start(_initial_weights(settings), on_progress=tell)
    settings, demands = _find_demands(settings, start)
    if demands is None:
        return settings, start
    adopted = adopt_start(settings, demands)
    pixels = adopted.preprocess
    console.print(
        f"{settings.init} asks for {adopted.model}, photos in {pixels.channel_order.upper()}, mean "
        f"{_numbers(pixels.mean)}, std {_numbers(pixels.std)} (from {demands.known_from})."
    )
    return adopted, start


def load_start(model: MaskRCNN, settings: TrainSettings, start: str | Start, photos: Photos) -> str:
    """Load initial weights into a run's model.

    Args:
        model: Changed in place.
        settings: Of the run, as :func:`find_start` gave them.
        start: As :func:`find_start` gave it.
        photos: Of the run. Norms that learn their statistics, which a bundle does not hold, get
            them from some.

    Returns:
        What was loaded, in words, for the log and the model card.

    Raises:
        ParameterError: The weights do not fit the model.
        SettingsError: They are to be mixed with, but do not hold the whole model.
    """
    initial = initialise(model, settings.model, start)
    if isinstance(start, Start) and start.is_bundle and has_same_pyramid(model, start.state):
        set_statistics(model, _some_photos(photos.train, settings))
    if settings.initial_share > 0 and not _gives_all(start, model):
        raise SettingsError(
            f"initial_share is {settings.initial_share}, but not the whole model is initialised: "
            f"{initial}; the rest is random, which nothing should be mixed with.",
            hint="Set init to weights.safetensors of a run with the same network.",
        )
    if (earlier := run_of_weights(_initial_weights(settings))) is not None:
        initial += f", {_origin(read_record(earlier))}"
    return initial


def warn_of_seen_photos(settings: TrainSettings, photos: Photos, console: Console) -> None:
    """Say so if what the training starts from has learned from photos that it is measured on."""
    run = run_of_weights(_initial_weights(settings))
    if run is None or settings.has_stand_ins:
        return
    seen = sorted({*read_record(run).train_photos} & {*photo_names(photos.val)})
    if seen:
        console.print(
            f"Warning: {run} has learned from photos of the same names as {len(seen)} of the "
            f"{len(photos.val)} validation photos ({', '.join(seen[:3])}{', …' * (len(seen) > 3)})."
            " If they are the same, this run's figures will flatter it. With the earlier run's "
            "data set, split_seed, val_fraction and folds, the same photos are held out."
        )


def _initial_weights(settings: TrainSettings) -> str:
    """The file that a training starts from: ``init``, or that run's fold for the same fold.

    The run itself has learned from the photos that the fold is measured on; its fold has not.
    """
    run = run_of_weights(settings.init)
    if run is None or settings.fold is None:
        return settings.init
    earlier = read_record(run).settings
    if not earlier.is_cross_validated or (
        (earlier.folds, earlier.holds_out_by) != (settings.folds, settings.holds_out_by)
    ):
        return settings.init
    return str(run / FOLDS_FOLDER / str(settings.fold) / WEIGHTS_FILE)


def _find_demands(settings: TrainSettings, start: Start) -> tuple[TrainSettings, Demands | None]:
    """What initial weights ask for; those of a run or a bundle also give what is not set."""
    demands = start.demands
    folder = run_of_weights(settings.init)
    if demands is None and folder is not None:
        run = read_record(folder).settings
        demands = Demands(run.model, run.design, run.preprocess, str(folder / SETTINGS_FILE))
    elif not start.is_bundle:
        return settings, demands
    assert demands is not None
    settings = adopt_unset(settings, demands)
    return settings, replace(demands, design=settings.design)


def _some_photos(dataset: Dataset, settings: TrainSettings) -> Iterator[Image]:
    """The first of its photos as the network is served them."""
    for sample in dataset.samples[:_PHOTOS_FOR_STATISTICS]:
        yield to_graph_input(read_image(sample.image_path), settings.preprocess)


def _gives_all(start: str | Start, model: MaskRCNN) -> bool:
    """Whether initial weights hold every tensor of the model, so that none is random."""
    if not isinstance(start, Start):
        return False
    shapes = {name: tensor.shape for name, tensor in start.state.items()}
    return all(shapes.get(name) == tensor.shape for name, tensor in model.state_dict().items())


def _origin(record: RunRecord) -> str:
    """Where weights of a run come from, in words; it may have started from a run, too."""
    return f"trained {record.started[:10]} on {record.data} ({record.initial_weights})"


@contextmanager
def _download_progress(console: Console) -> Iterator[OnProgress]:
    """A bar for a download, if there is one and somebody sees it."""
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("Downloading", total=None, visible=False)
        yield lambda done, total: progress.update(task, completed=done, total=total, visible=True)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
