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
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import (
    Callback,
    ModelCheckpoint,
    RichProgressBar,
)
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader
from torchvision.models.detection import MaskRCNN

from maskserve.core.errors import DatasetError, SettingsError, TrainingError
from maskserve.core.manifest import Manifest
from maskserve.core.predictor import Image
from maskserve.core.types import Instances
from maskserve.datasets import (
    Dataset,
    Sample,
    available_splits,
    fold_dataset,
    load_dataset,
    split_dataset,
)
from maskserve.datasets.download import OnProgress
from maskserve.evaluation import (
    coverage_error,
    judge_photos,
    measure,
    read_predictions,
    write_predictions,
)
from maskserve.evaluation.calibration import calibrate_threshold
from maskserve.evaluation.coco import MIN_SCORE, predict_dataset, predict_photos
from maskserve.evaluation.gallery import draw_gallery
from maskserve.models import InferenceNetwork, TorchEngine, build_model, initialise
from maskserve.models.backbones import learn_statistics
from maskserve.models.checkpoint import WEIGHTS_FILE, read_weights, write_weights
from maskserve.models.initialise import NAMED_STARTS, has_same_pyramid
from maskserve.models.start import Demands, Start, read_start
from maskserve.reporting.history import merge_logs, write_curves
from maskserve.reporting.run import EXAMPLES_FILE, REPORT_FILE, count_photos
from maskserve.reporting.wording import quantity
from maskserve.runtime.files import write_file
from maskserve.runtime.image_io import read_image, write_image
from maskserve.runtime.predictor import EnginePredictor
from maskserve.runtime.preprocess import to_graph_input
from maskserve.training.averaging import KeptWeights
from maskserve.training.config import (
    TrainSettings,
    adopt_refit,
    adopt_start,
    adopt_unset,
    settings_sha256,
)
from maskserve.training.data import (
    Backgrounds,
    StepSampler,
    TrainingExamples,
    ValidationExamples,
    collate,
    divide_backgrounds,
)
from maskserve.training.loggers import make_loggers
from maskserve.training.module import MaskRcnnModule
from maskserve.training.norms import join_norms, set_statistics
from maskserve.training.preview import draw_examples
from maskserve.training.processes import (
    first_alone,
    from_first,
    gather,
    is_first,
    join_processes,
    process_count,
    rank,
    share,
    started_by_torchrun,
    together,
)
from maskserve.training.record import (
    SETTINGS_FILE,
    VALIDATION_FILE,
    FalseFinds,
    RunRecord,
    Validation,
    read_record,
    read_validation,
)
from maskserve.training.report import PREDICTIONS_FILE, write_reports

__all__ = ["PROBE_FILE", "load_run", "load_run_predictor", "report_run", "train"]

CHECKPOINT_FILE = "last.ckpt"
PROBE_FILE = "probe.jpg"
FOLDS_FOLDER = "folds"

_PHOTOS_FOR_STATISTICS = 32


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
        first_alone(partial(_find_checkpoint, out, settings, resume=resume))
        for fold, folder in _fold_folders(settings, out):
            of_fold = settings.model_copy(update={"fold": fold})
            if first_alone(partial(_has_ended, folder, of_fold, resume=resume)):
                continue
            _console().print(f"Fold {fold} of {settings.folds}:")
            _train(of_fold, data, folder, resume=resume)
        _console().print("The model itself, on all photos:")
        return _train(settings, data, out, resume=resume)


def _fold_folders(settings: TrainSettings, out: Path) -> list[tuple[int, Path]]:
    """Numbers of the folds, from 1, and their run folders."""
    assert settings.folds is not None
    return [(fold, out / FOLDS_FOLDER / str(fold)) for fold in range(1, settings.folds + 1)]


def _has_ended(run: Path, settings: TrainSettings, *, resume: bool) -> bool:
    """Whether nothing is left to do for a run.

    Raises:
        TrainingError: It may not be gone on with; see :func:`_find_checkpoint`.
    """
    if _find_checkpoint(run, settings, resume=resume) is None:
        return False
    return read_validation(run).step >= settings.steps and (run / REPORT_FILE).exists()


def _console() -> Console:
    """Where a run talks to people; only the first of several processes does."""
    return Console(stderr=True, markup=False, highlight=False, soft_wrap=True, quiet=not is_first())


def _train(settings: TrainSettings, data: Path, out: Path, *, resume: bool) -> Validation:
    console = _console()
    settings = first_alone(partial(_find_refit, settings))
    together(partial(_check_batch_size, settings))
    find_start = partial(_find_start, settings, out, console, resume=resume)
    found, start = together(find_start if is_first() else lambda: (settings, "none"))
    settings = from_first(found)
    photos = together(partial(_load_photos, settings, data))
    model = _build_model(settings, photos)
    checkpoint = first_alone(partial(_find_checkpoint, out, settings, resume=resume))
    loggers = together(partial(_make_loggers, settings, out))
    begin = partial(_begin, settings, data, out, photos=photos, model=model, start=start)
    record = first_alone(begin if checkpoint is None else partial(read_record, out))
    together(partial(_compare_photos, record, photos, data))
    if process_count() > 1:  # only the first has read the initial weights
        model.load_state_dict(from_first(model.state_dict()))
    if checkpoint is not None:
        console.print(f"Resuming {out} from its last checkpoint.")
    validated = "" if settings.has_stand_ins else f"; validating on {_count(photos.val)}"
    console.print(
        f"Training {settings.model} ({record.initial_weights}) on {_count(photos.train)}"
        f"{validated}."
    )
    join_norms(model)
    with warnings.catch_warnings():
        # Advice for other machines and tasks: more workers, longer epochs, tensor cores.
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=r".*lightning\.pytorch.*")
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # advertisements
        validator = _Validator(out, record, photos, console, data=data)
        _trainer(settings, out, loggers, validator).fit(
            MaskRcnnModule(model, settings, val_photos=len(photos.val)),
            _train_loader(photos.examples(settings), settings),
            _val_loader(photos.val, settings),
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


def _read_stand_ins(settings: TrainSettings, data: Path, out: Path) -> list[Instances]:
    """What was found on each photo to measure by the model that has not learned from it."""
    if settings.refit is not None:
        _, held_out = _load_splits(settings, data)
        return read_predictions(Path(settings.refit, PREDICTIONS_FILE), held_out)
    found: dict[int, Instances] = {}
    for fold, folder in _fold_folders(settings, out):
        _, val_set = _load_splits(settings.model_copy(update={"fold": fold}), data)
        predictions = read_predictions(folder / PREDICTIONS_FILE, val_set)
        found |= {s.image_id: p for s, p in zip(val_set.samples, predictions, strict=True)}
    dataset, _ = _load_splits(settings, data)
    return [found[sample.image_id] for sample in dataset.samples]


@dataclass(frozen=True, slots=True)
class _Photos:
    """What a run learns from and is measured on."""

    train: Dataset
    val: Dataset
    extra: Dataset | None
    backgrounds: Backgrounds

    def examples(self, settings: TrainSettings) -> TrainingExamples:
        return TrainingExamples(
            self.train, settings, backgrounds=self.backgrounds.train, extra=self.extra
        )


def _load_photos(settings: TrainSettings, data: Path) -> _Photos:
    train_set, val_set = _load_splits(settings, data)
    extra = _load_extra(settings, train_set)
    backgrounds = Backgrounds()
    if settings.backgrounds is not None:
        backgrounds = divide_backgrounds(settings.backgrounds, seed=settings.holds_out_by)
    return _Photos(train_set, val_set, extra, backgrounds)


def _build_model(settings: TrainSettings, photos: _Photos) -> MaskRCNN:
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
    photos: _Photos,
    model: MaskRCNN,
    start: str | Start,
) -> RunRecord:
    """Load the initial weights, and write what a new run folder holds from the start."""
    _warn_of_seen_photos(settings, photos)
    initial = initialise(model, settings.model, start)
    if isinstance(start, Start) and start.is_bundle and has_same_pyramid(model, start.state):
        set_statistics(model, _some_photos(photos.train, settings))
    if settings.initial_share > 0 and not _gives_all(start, model):
        raise SettingsError(
            f"initial_share is {settings.initial_share}, but not the whole model is initialised: "
            f"{initial}; the rest is random, which nothing should be mixed with.",
            hint="Set init to weights.safetensors of a run with the same network.",
        )
    if (earlier := _earlier_run(_initial_weights(settings))) is not None:
        initial += f", {_origin(read_record(earlier))}"
    record = _describe(settings, data, photos, initial_weights=initial)
    write_file(out / SETTINGS_FILE, record.model_dump_json(indent=2) + "\n")
    drawn = draw_examples(photos.examples(settings), record.classes, settings.preprocess)
    write_image(out / EXAMPLES_FILE, drawn)
    write_image(out / PROBE_FILE, read_image(_fullest(photos.val).image_path))
    return record


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


def _compare_photos(record: RunRecord, photos: _Photos, data: Path) -> None:
    """Another machine may have another data set by the same name."""
    names = (_names(photos.train), _names(photos.val))
    if not is_first() and names != (record.train_photos, record.val_photos):
        raise TrainingError(
            f"On {platform.node()}, {data} holds other photos than on the first machine.",
            hint="Give every machine the same data set.",
        )


def _names(dataset: Dataset) -> tuple[str, ...]:
    return tuple(sample.image_path.name for sample in dataset.samples)


def _find_start(
    settings: TrainSettings, out: Path, console: Console, *, resume: bool
) -> tuple[TrainSettings, str | Start]:
    """Settings that suit the initial weights, and these; a line says what they ask for."""
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


def _earlier_run(weights: str) -> Path | None:
    """The run folder that initial weights lie in, if they do."""
    folder = Path(weights).parent
    is_run = Path(weights).name == WEIGHTS_FILE and (folder / SETTINGS_FILE).exists()
    return folder if is_run else None


def _origin(record: RunRecord) -> str:
    """Where weights of a run come from, in words; it may have started from a run, too."""
    return f"trained {record.started[:10]} on {record.data} ({record.initial_weights})"


def _initial_weights(settings: TrainSettings) -> str:
    """The file that a training starts from: ``init``, or that run's fold for the same fold.

    The run itself has learned from the photos that the fold is measured on; its fold has not.
    """
    run = _earlier_run(settings.init)
    if run is None or settings.fold is None:
        return settings.init
    earlier = read_record(run).settings
    if not earlier.is_cross_validated or (
        (earlier.folds, earlier.holds_out_by) != (settings.folds, settings.holds_out_by)
    ):
        return settings.init
    return str(run / FOLDS_FOLDER / str(settings.fold) / WEIGHTS_FILE)


def _warn_of_seen_photos(settings: TrainSettings, photos: _Photos) -> None:
    """Say so if what the training starts from has learned from photos that it is measured on."""
    run = _earlier_run(_initial_weights(settings))
    if run is None or settings.has_stand_ins:
        return
    seen = sorted({*read_record(run).train_photos} & {*_names(photos.val)})
    if seen:
        _console().print(
            f"Warning: {run} has learned from photos of the same names as {len(seen)} of the "
            f"{len(photos.val)} validation photos ({', '.join(seen[:3])}{', …' * (len(seen) > 3)})."
            " If they are the same, this run's figures will flatter it. With the earlier run's "
            "data set, split_seed, val_fraction and folds, the same photos are held out."
        )


def _find_demands(settings: TrainSettings, start: Start) -> tuple[TrainSettings, Demands | None]:
    """What initial weights ask for; those of a run or a bundle also give what is not set."""
    demands = start.demands
    folder = _earlier_run(settings.init)
    if demands is None and folder is not None:
        run = read_record(folder).settings
        demands = Demands(run.model, run.design, run.preprocess, str(folder / SETTINGS_FILE))
    elif not start.is_bundle:
        return settings, demands
    assert demands is not None
    settings = adopt_unset(settings, demands)
    return settings, replace(demands, design=settings.design)


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


class _Validator(Callback):
    """Measures the weights to keep, keeps them, and brings the run folder up to date.

    Args:
        out: The run folder.
        record: The run.
        photos: Its photos.
        console: For a line about each validation.
        data: The data set's folder. If other models stand in for this one, what they have found
            in it is measured.
    """

    def __init__(
        self,
        out: Path,
        record: RunRecord,
        photos: _Photos,
        console: Console,
        *,
        data: Path,
    ) -> None:
        self._out = out
        self._record = record
        self._dataset = photos.val
        self._backgrounds = photos.backgrounds
        self._data = data
        self._console = console
        earlier = is_first() and (out / VALIDATION_FILE).exists()
        self._seconds_before = read_validation(out).seconds if earlier else 0.0
        self._started = time.monotonic()

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,  # noqa: ARG002 -- Lightning's signature
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        pl_module.log("learning_rate", trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        quality = self._validate(trainer, pl_module)
        if quality:
            pl_module.log_dict(quality, prog_bar=True)

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if self._record.settings.has_stand_ins:
            self._validate(trainer, pl_module)

    def _validate(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> dict[str, float]:
        """Look at all photos; AP, but for the processes that are not the first."""
        assert isinstance(pl_module, MaskRcnnModule)
        model, step = pl_module.model, trainer.global_step
        predictor = _predictor(model, self._record.manifest())
        predictions = []
        if not self._record.settings.has_stand_ins:
            predictions = _predict_samples(predictor, self._dataset)
        elif is_first():
            predictions = _read_stand_ins(self._record.settings, self._data, self._out)
        on_empty = {"val": _predict_photos(predictor, self._backgrounds.val)}
        if step >= self._record.settings.steps:  # the rest of the photos is for the end alone
            on_empty["test"] = _predict_photos(predictor, self._backgrounds.test)
        return self._measure(model, step, predictions, on_empty) if is_first() else {}

    def _measure(
        self,
        model: MaskRCNN,
        step: int,
        predictions: Sequence[Instances],
        on_empty: Mapping[str, Sequence[Instances]],
    ) -> dict[str, float]:
        """Choose the threshold, and write what this validation has shown.

        Args:
            model: With the weights to keep.
            step: After which it was.
            predictions: On the validation photos.
            on_empty: On the photos without any instance, by part; the test part only at the end.

        Returns:
            AP of masks and boxes, by their columns in ``results.csv``.
        """
        metrics = measure(self._dataset, predictions)
        limit = self._record.settings.backgrounds
        calibration = calibrate_threshold(
            self._dataset,
            metrics.predictions,
            backgrounds=on_empty["val"],
            max_false_per_photo=limit.max_false_per_photo if limit else 0.0,
        )
        min_score = calibration.threshold
        photos = judge_photos(self._dataset, metrics.predictions, min_score=min_score)
        false_finds = {}
        if "test" in on_empty:
            for part, found in on_empty.items():
                weak_left_out = [(instances.scores > min_score).sum() for instances in found]
                false_finds[part] = FalseFinds(photos=len(found), instances=int(sum(weak_left_out)))
        result = Validation(
            step=step,
            seconds=self._seconds_before + time.monotonic() - self._started,
            min_score=min_score,
            f1=calibration.f1,
            coverage_error=coverage_error(photos),
            metrics=metrics.summary(),
            false_finds=false_finds,
            fold_mask_ap=self._stand_ins_mask_ap(),
        )
        write_weights(self._out / WEIGHTS_FILE, model.state_dict())
        write_file(self._out / VALIDATION_FILE, result.model_dump_json(indent=2) + "\n")
        write_predictions(self._out / PREDICTIONS_FILE, self._dataset, metrics.predictions)
        gallery = draw_gallery(self._dataset, metrics.predictions, min_score=min_score)
        write_image(self._out / "gallery.jpg", gallery)
        merge_logs(self._out)
        write_curves(self._out)
        mask_ap, box_ap = metrics.segm["AP"] or 0.0, metrics.bbox["AP"] or 0.0
        self._console.print(
            f"step {step}: mask AP {mask_ap:.1f}, box AP {box_ap:.1f}, "
            f"best threshold {min_score:.2f}"
        )
        return {"val_mask_ap": mask_ap, "val_box_ap": box_ap}

    def _stand_ins_mask_ap(self) -> tuple[float, ...]:
        settings = self._record.settings
        if not settings.has_stand_ins:
            return ()
        if settings.refit is not None:
            folders = [Path(settings.refit)]
        else:
            folders = [folder for _, folder in _fold_folders(settings, self._out)]
        return tuple(read_validation(folder).metrics["segm"].get("AP", 0.0) for folder in folders)


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
    return _predictor(*load_run(run))


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
    _, val_set = _load_splits(record.settings, folder)
    if _names(val_set) != record.val_photos:
        raise TrainingError(
            f"{folder} holds other validation photos than those of {run}.",
            hint=f"Name the data set that it was trained on: maskserve report {run} --data DIR",
        )
    return write_reports(run, val_set)


def _predictor(model: MaskRCNN, manifest: Manifest) -> EnginePredictor:
    network = InferenceNetwork(model, max_instances=manifest.postprocess.max_instances)
    return EnginePredictor(TorchEngine(network), manifest)


def _predict_samples(predictor: EnginePredictor, dataset: Dataset) -> list[Instances]:
    """Instances by photo; every process looks at some."""
    own = tuple(dataset.samples[number] for number in share(len(dataset)))
    found = predict_dataset(predictor, replace(dataset, samples=own), min_score=MIN_SCORE)
    return gather(found, len(dataset))


def _predict_photos(predictor: EnginePredictor, photos: Sequence[Path]) -> list[Instances]:
    """Instances by photo; every process looks at some."""
    own = [photos[number] for number in share(len(photos))]
    return gather(predict_photos(predictor, own, min_score=MIN_SCORE), len(photos))


def _load_splits(settings: TrainSettings, data: Path) -> tuple[Dataset, Dataset]:
    load = partial(
        load_dataset,
        data,
        format=settings.data_format,
        class_name=settings.class_name,
        class_attribute=settings.class_attribute,
    )
    splits = available_splits(data, format=settings.data_format)
    only_split = splits[0] if len(splits) == 1 else None
    train_set = load(split=only_split or ("train" if splits else None))
    if settings.val_split is not None:
        return train_set, load(split=settings.val_split)
    if settings.is_cross_validated:  # measured on what it learns from, but by other models
        return train_set, train_set
    seed = settings.holds_out_by
    if settings.folds is not None and settings.fold is not None:
        divided = fold_dataset(train_set, folds=settings.folds, fold=settings.fold, seed=seed)
    else:
        divided = split_dataset(train_set, fraction=settings.val_fraction, seed=seed)
    return (train_set, divided[1]) if settings.refit else divided


def _load_extra(settings: TrainSettings, dataset: Dataset) -> Dataset | None:
    if settings.extra is None:
        return None
    extra = load_dataset(
        Path(settings.extra.folder),
        split=settings.extra.split,
        class_name=settings.class_name or dataset.categories.names[0],
    )
    if extra.categories.names != dataset.categories.names:
        raise DatasetError(
            f"{settings.extra.folder} has the classes {', '.join(extra.categories.names)}, but "
            f"the training photos have {', '.join(dataset.categories.names)}."
        )
    return extra


def _find_checkpoint(out: Path, settings: TrainSettings, *, resume: bool) -> Path | None:
    """The checkpoint to go on from; None for a fresh start."""
    if not (out / SETTINGS_FILE).exists():
        if out.is_dir() and any(entry.name != FOLDS_FOLDER for entry in out.iterdir()):
            raise TrainingError(f"{out} is not empty, and it is not a run folder.")
        return None
    if not resume:
        raise TrainingError(
            f"{out} already holds a run.", hint="Name another folder, or add --resume to go on."
        )
    record = read_record(out)
    if record.settings_sha256 != settings_sha256(adopt_unset(settings, record.settings)):
        raise TrainingError(
            f"The settings differ from those of the run in {out}.",
            hint=f"Go on with the same settings ({out / SETTINGS_FILE}), or name another folder.",
        )
    checkpoint = out / CHECKPOINT_FILE
    return checkpoint if checkpoint.exists() else None


def _describe(
    settings: TrainSettings, data: Path, photos: _Photos, *, initial_weights: str
) -> RunRecord:
    annotated = (photos.train, photos.extra)
    return RunRecord(
        settings=settings,
        settings_sha256=settings_sha256(settings),
        classes=photos.train.categories.names,
        category_ids=photos.train.categories.category_ids,
        data="; ".join(_count(part) for part in annotated if part is not None),
        data_folder=str(data.resolve()),
        train_photos=_names(photos.train),
        train_counts=count_photos(photos.train),
        val_photos=_names(photos.val),
        val_counts=count_photos(photos.val),
        backgrounds=len(photos.backgrounds.train),
        initial_weights=initial_weights,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=f"{platform.machine()}, {os.cpu_count()} CPU cores, torch {torch.__version__}",
    )


def _fullest(dataset: Dataset) -> Sample:
    """The photo with most instances."""
    return max(dataset.samples, key=lambda sample: len(sample.annotations))


def _count(dataset: Dataset) -> str:
    instances = sum(len(sample.annotations) for sample in dataset.samples)
    return f"{dataset.name}: {quantity(len(dataset), 'photo')}, {quantity(instances, 'instance')}"


def _train_loader(examples: TrainingExamples, settings: TrainSettings) -> DataLoader[Any]:
    return DataLoader(
        examples,
        batch_size=settings.batch_size // process_count(),
        sampler=StepSampler(
            settings.steps_per_epoch * settings.batch_size,
            rank=rank(),
            processes=process_count(),
        ),
        num_workers=settings.workers,
        persistent_workers=False,  # the sampler's epoch must reach the workers
        collate_fn=collate,
    )


def _val_loader(dataset: Dataset, settings: TrainSettings) -> DataLoader[Any]:
    examples = ValidationExamples(dataset, settings.preprocess)
    return DataLoader(examples, sampler=share(len(dataset)), collate_fn=collate)


def _make_loggers(settings: TrainSettings, out: Path) -> list[Logger]:
    if not is_first():
        return []
    start = f"start_{len(list((out / 'logs').glob('start_*')))}"
    others = make_loggers(settings.loggers, out, model=settings.name, version=start)
    table = CSVLogger(out, name="logs", version=start, flush_logs_every_n_steps=1)
    return [table, *others]


def _trainer(
    settings: TrainSettings, out: Path, loggers: list[Logger], validator: Callback
) -> lightning.Trainer:
    averaged_steps = max(min(settings.ema_steps, settings.steps // 10), 1)
    return lightning.Trainer(
        **_where(),
        max_epochs=settings.epochs,
        precision="bf16-mixed" if _use_bf16(settings) else "32-true",
        logger=loggers,
        log_every_n_steps=min(10, settings.steps_per_epoch),
        num_sanity_val_steps=0,
        limit_val_batches=0 if settings.has_stand_ins else None,
        enable_model_summary=False,
        callbacks=[
            KeptWeights(steps=averaged_steps, initial_share=settings.initial_share),
            validator,  # after the weights to keep have been swapped in
            ModelCheckpoint(out, filename="last", enable_version_counter=False),
            _ProgressBar(),
        ],
    )


def _where() -> dict[str, Any]:
    """The trainer's arguments for the devices of this process and of the others."""
    if not started_by_torchrun():
        return {"devices": 1}
    return {
        "accelerator": "cuda" if torch.cuda.is_available() else "cpu",  # others train alone only
        "devices": int(os.environ["LOCAL_WORLD_SIZE"]),
        "num_nodes": int(os.environ["GROUP_WORLD_SIZE"]),
        # Norms hold the same statistics in every process from the start.
        "strategy": DDPStrategy(broadcast_buffers=False),
        "plugins": [_FirstReads()],
        "use_distributed_sampler": False,
    }


class _FirstReads(TorchCheckpointIO):
    """The first process reads a checkpoint for all: other machines need not have the run folder."""

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        read = partial(super().load_checkpoint, path, *args, **kwargs)
        return first_alone(read)


class _ProgressBar(RichProgressBar):
    def get_metrics(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)  # the name of the log's folder
        return metrics


def _use_bf16(settings: TrainSettings) -> bool:
    if settings.precision != "auto":
        return settings.precision == "bf16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
