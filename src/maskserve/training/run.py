"""A training run and its folder.

RUN/settings.json          resolved settings, data, split, initial weights, machine
RUN/report.html            everything worth looking at, on one page; written at the end
RUN/MODEL_CARD.md          what others should know of the model; written at the end
RUN/results.csv            losses, learning rate and validation AP by step
RUN/curves.png             the same as a picture
RUN/training-examples.jpg  the first examples as the network sees them
RUN/gallery.jpg            validation photos: annotated, and predicted
RUN/validation.json        AP and calibrated threshold of the last validation
RUN/predictions.json       what was found on the validation photos, as COCO results
RUN/weights.safetensors    averaged weights of the last validation, and the initial ones' share
RUN/probe.jpg              the validation photo that export compares by
RUN/last.ckpt              everything that --resume needs
RUN/logs/                  Lightning's own log of each start; others beside it, if asked for

After a cross-validation there are RUN/folds/1, RUN/folds/2 and so on as well: the run folders of
the models that were measured.
"""

from __future__ import annotations

import logging
import os
import platform
import warnings
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torchvision.models.detection import MaskRCNN

from maskserve.core.errors import SettingsError, TrainingError
from maskserve.core.manifest import Manifest
from maskserve.models import build_model
from maskserve.models.backbones import learn_statistics
from maskserve.models.checkpoint import WEIGHTS_FILE, read_weights
from maskserve.models.start import Start
from maskserve.reporting.run import EXAMPLES_FILE, count_photos
from maskserve.runtime.files import write_file
from maskserve.runtime.image_io import read_image, write_image
from maskserve.runtime.predictor import EnginePredictor
from maskserve.training.config import TrainSettings, adopt_refit, settings_sha256
from maskserve.training.folder import PROBE_FILE, find_checkpoint, fold_folders, has_ended
from maskserve.training.initial_weights import find_start, load_start, warn_of_seen_photos
from maskserve.training.loggers import run_loggers
from maskserve.training.module import MaskRcnnModule
from maskserve.training.norms import join_norms
from maskserve.training.photos import (
    Photos,
    compare_photos,
    describe_dataset,
    fullest_photo,
    load_photos,
    load_splits,
    photo_names,
)
from maskserve.training.preview import draw_examples
from maskserve.training.processes import (
    first_alone,
    from_first,
    is_first,
    join_processes,
    process_count,
    together,
)
from maskserve.training.record import (
    SETTINGS_FILE,
    RunRecord,
    Validation,
    read_record,
    read_validation,
)
from maskserve.training.report import write_reports
from maskserve.training.trainer import make_trainer, train_loader, val_loader
from maskserve.training.validator import Validator, torch_predictor

__all__ = ["load_run", "load_run_predictor", "report_run", "train"]


def train(settings: TrainSettings, *, data: Path, out: Path, resume: bool = False) -> Validation:
    """Train a model and write a run folder; under torchrun, as one of several processes.

    Args:
        settings: Everything that decides the outcome.
        data: A data set's folder. Training uses its split ``train``, its only split, or all of
            it if it is not divided; see ``val_split`` for the validation photos, and ``folds``
            for a cross-validation.
        out: The run folder; new or empty unless ``resume``.
        resume: Go on from the last checkpoint in ``out``, with the same settings.

    Raises:
        DatasetError: The data cannot be used.
        SettingsError: The processes cannot share a batch evenly.
        TrainingError: ``out`` holds another run, training diverged, or another process has ended.
        MissingExtraError: The package of a logger is not installed.
    """
    with join_processes():
        if not settings.is_cross_validated:
            return _train(settings, data, out, resume=resume)
        first_alone(partial(find_checkpoint, out, settings, resume=resume))
        for fold, folder in fold_folders(settings, out):
            of_fold = settings.model_copy(update={"fold": fold})
            if first_alone(partial(has_ended, folder, of_fold, resume=resume)):
                continue
            _console().print(f"Fold {fold} of {settings.folds}:")
            _train(of_fold, data, folder, resume=resume)
        _console().print("The model itself, on all photos:")
        return _train(settings, data, out, resume=resume)


def _console() -> Console:
    """Where a run talks to people; only the first of several processes does."""
    return Console(stderr=True, markup=False, highlight=False, soft_wrap=True, quiet=not is_first())


def _train(settings: TrainSettings, data: Path, out: Path, *, resume: bool) -> Validation:
    console = _console()
    settings = first_alone(partial(_find_refit, settings))
    together(partial(_check_batch_size, settings))
    find = partial(find_start, settings, out, console, resume=resume)
    found, start = together(find if is_first() else lambda: (settings, "none"))
    settings = from_first(found)
    photos = together(partial(load_photos, settings, data))
    model = _build_model(settings, photos)
    checkpoint = first_alone(partial(find_checkpoint, out, settings, resume=resume))
    loggers = together(partial(run_loggers, settings, out))
    begin = partial(_begin, settings, data, out, photos=photos, model=model, start=start)
    record = first_alone(begin if checkpoint is None else partial(read_record, out))
    together(partial(compare_photos, record, photos, data))
    if process_count() > 1:  # only the first has read the initial weights
        model.load_state_dict(from_first(model.state_dict()))
    if checkpoint is not None:
        console.print(f"Resuming {out} from its last checkpoint.")
    validated = "" if settings.has_stand_ins else f"; validating on {describe_dataset(photos.val)}"
    console.print(
        f"Training {settings.model} ({record.initial_weights}) on {describe_dataset(photos.train)}"
        f"{validated}."
    )
    join_norms(model)
    with warnings.catch_warnings():
        # Advice for other machines and tasks: more workers, longer epochs, tensor cores.
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=r".*lightning\.pytorch.*")
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # advertisements
        validator = Validator(out, record, photos, console, data=data)
        make_trainer(settings, out, loggers, validator).fit(
            MaskRcnnModule(model, settings, val_photos=len(photos.val)),
            train_loader(photos.examples(settings), settings),
            val_loader(photos.val, settings),
            ckpt_path=checkpoint,
            weights_only=True,
        )
    # Lightning has logged the last validation only now.
    report = first_alone(partial(write_reports, out, photos.val))
    console.print(f"Done. Look at {report}. Next: maskserve export {out} --out BUNDLE")
    return first_alone(partial(read_validation, out))


def _find_refit(settings: TrainSettings) -> TrainSettings:
    """Settings to train with: those of the run that is to be trained once more, if there is one."""
    if settings.refit is None:
        return settings
    run = Path(settings.refit)
    earlier = read_record(run).settings
    if read_validation(run).step < earlier.steps:
        raise TrainingError(
            f"{run} has not come to its end, so it does not show what a refit would be like.",
            hint="Go on with it first, with --resume.",
        )
    return adopt_refit(settings, earlier)


def _check_batch_size(settings: TrainSettings) -> None:
    if settings.batch_size % process_count():
        raise SettingsError(
            f"batch_size is {settings.batch_size}, which {process_count()} processes cannot share "
            "evenly.",
            hint="Set batch_size to a multiple of their number; it is that of all together.",
        )


def _build_model(settings: TrainSettings, photos: Photos) -> MaskRCNN:
    torch.manual_seed(settings.seed)
    model = build_model(
        settings.model,
        classes=len(photos.train.categories),
        preprocess=settings.preprocess,
        design=settings.design,
    )
    if settings.learns_statistics:
        learn_statistics(model)
    return model


def _begin(
    settings: TrainSettings,
    data: Path,
    out: Path,
    *,
    photos: Photos,
    model: MaskRCNN,
    start: str | Start,
) -> RunRecord:
    """Load the initial weights, and write what a new run folder holds from the start."""
    warn_of_seen_photos(settings, photos, _console())
    initial = load_start(model, settings, start, photos)
    record = _describe(settings, data, photos, initial_weights=initial)
    write_file(out / SETTINGS_FILE, record.model_dump_json(indent=2) + "\n")
    drawn = draw_examples(photos.examples(settings), record.classes, settings.preprocess)
    write_image(out / EXAMPLES_FILE, drawn)
    write_image(out / PROBE_FILE, read_image(fullest_photo(photos.val).image_path))
    return record


def _describe(
    settings: TrainSettings, data: Path, photos: Photos, *, initial_weights: str
) -> RunRecord:
    annotated = (photos.train, photos.extra)
    return RunRecord(
        settings=settings,
        settings_sha256=settings_sha256(settings),
        classes=photos.train.categories.names,
        category_ids=photos.train.categories.category_ids,
        data="; ".join(describe_dataset(part) for part in annotated if part is not None),
        data_folder=str(data.resolve()),
        train_photos=photo_names(photos.train),
        train_counts=count_photos(photos.train),
        val_photos=photo_names(photos.val),
        val_counts=count_photos(photos.val),
        backgrounds=len(photos.backgrounds.train),
        initial_weights=initial_weights,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=f"{platform.machine()}, {os.cpu_count()} CPU cores, torch {torch.__version__}",
    )


def load_run(run: Path) -> tuple[MaskRCNN, Manifest]:
    """The trained model of a run folder, in evaluation mode, and its description.

    Raises:
        TrainingError: The folder holds no run, or one without a first validation.
        ParameterError: The weights do not belong to the settings.
    """
    record, validation = read_record(run), read_validation(run)
    model = build_model(
        record.settings.model,
        classes=len(record.classes),
        preprocess=record.settings.preprocess,
        design=record.settings.design,
    )
    model.load_state_dict(read_weights(run / WEIGHTS_FILE))
    return model.eval(), record.manifest(validation)


def load_run_predictor(run: Path) -> EnginePredictor:
    """A predictor that runs a run's weights in torch; see :func:`load_run` for errors."""
    return torch_predictor(*load_run(run))


def report_run(run: Path, *, data: Path | None = None) -> Path:
    """Write the report, the model card, the table and the curves of a run again.

    Args:
        run: A run folder with a validation.
        data: Where the data set lies now; by default where it was when the run began.

    Returns:
        The report.

    Raises:
        TrainingError: The folder holds no run or no validation, or the data is another one.
        DatasetError: The data or the predictions cannot be used.
        OutputError: A file cannot be written.
    """
    record = read_record(run)
    folder = data or Path(record.data_folder)
    if not folder.is_dir():
        raise TrainingError(
            f"The photos of {run} are not in {folder}.",
            hint=f"Say where they are: maskserve report {run} --data DIR",
        )
    _, val_set = load_splits(record.settings, folder)
    if photo_names(val_set) != record.val_photos:
        raise TrainingError(
            f"{folder} holds other validation photos than those of {run}.",
            hint=f"Name the data set that it was trained on: maskserve report {run} --data DIR",
        )
    return write_reports(run, val_set)
