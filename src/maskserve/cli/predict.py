"""``maskserve predict``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Column, Table

from maskserve.cli.exit_codes import exit_code_of
from maskserve.cli.inputs import expand_inputs
from maskserve.cli.report import make_console, make_progress, report_error
from maskserve.cli.tables import Place, write_tables
from maskserve.core.boxes import xyxy_to_xywh
from maskserve.core.errors import MaskserveError, OutputError, ParameterError
from maskserve.core.types import Instances, percent
from maskserve.runtime.style import Style

if TYPE_CHECKING:
    from maskserve.core.manifest import Manifest
    from maskserve.core.predictor import Predictor

__all__ = ["Job", "describe", "plan_jobs", "predict"]


def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTO|FOLDER|VIDEO...",
            help="Photos (JPEG, PNG, WebP), videos, or folders that hold some; with --tables also "
            "s3:// and gs:// addresses of photos, and no videos.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Where to put what was drawn, or the tables; the latter may be an s3:// or gs:// "
            "address.",
            show_default=False,
        ),
    ],
    *,
    model: Annotated[
        str, typer.Option(metavar="NAME|BUNDLE", help="A shipped model or a bundle of yours.")
    ] = "balloon",
    style: Annotated[
        Style,
        typer.Option(
            help="overlay tints the masks, outline draws around them, splash keeps colour inside "
            "them only, mask is white on black."
        ),
    ] = "overlay",
    min_score: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Leave out what scores lower. By default the model's own threshold."
        ),
    ] = None,
    with_json: Annotated[
        bool, typer.Option("--json", help="Also write boxes, scores, masks and coverage as JSON.")
    ] = False,
    tables: Annotated[
        bool,
        typer.Option(
            "--tables",
            help="Write Parquet tables of photos and instances instead of pictures, for any number "
            "of photos, also in folders of folders. The same command goes on with a run that "
            "was killed.",
        ),
    ] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="With --tables: draw the photos, too.")
    ] = False,
    on: Annotated[
        Place,
        typer.Option(help="With ray, the actors of a Ray cluster do the work; implies --tables."),
    ] = "here",
    actors: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --on ray: how many, each on one CPU. By default as many as there are CPUs.",
        ),
    ] = None,
    part_photos: Annotated[
        int,
        typer.Option(
            min=1,
            help="With --tables: photos of each file of rows. So many are begun anew at most, for "
            "each process that was killed.",
        ),
    ] = 256,
) -> None:
    """Find instances in photos and videos, draw them, and count the pixels they cover.

    A video also gets a table (CSV) of the coverage of each frame. A photo that cannot be used is
    reported, the others go on, and the exit code is 3.

    Examples:

        maskserve predict photo.jpg --out drawn
        maskserve predict holidays/ party.mp4 --out drawn --style splash
        maskserve predict *.jpg --model ./my-bundle --json --out drawn
        maskserve predict roofs/ --tables --out found
        maskserve predict s3://roofs/2026 --on ray --out s3://found/2026
    """
    if tables or on == "ray":
        if with_json:
            raise ParameterError("--json and --tables exclude each other.")
        write_tables(
            inputs,
            out,
            model=model,
            min_score=min_score,
            pictures=style if pictures else None,
            part_photos=part_photos,
            on=on,
            actors=actors,
        )
    else:
        for address in (*inputs, out):
            if "://" in address:
                raise ParameterError(
                    f"{address} is not a path on this machine.", hint="Add --tables."
                )
        _draw(
            list(map(Path, inputs)),
            Path(out),
            model=model,
            style=style,
            min_score=min_score,
            with_json=with_json,
        )


def _draw(
    inputs: Sequence[Path],
    out: Path,
    *,
    model: str,
    style: Style,
    min_score: float | None,
    with_json: bool,
) -> None:
    from maskserve.runtime.model_cache import user_cache
    from maskserve.runtime.registry import load_predictor

    jobs = plan_jobs(inputs, out, style=style)
    predictor = load_predictor(model, cache=user_cache())
    table = Table(
        Column("file", overflow="fold"),
        "found",
        Column("masked %", justify="right"),
        Column("unmasked %", justify="right"),
    )
    failures: list[MaskserveError] = []
    with make_progress() as progress:
        task = progress.add_task("", total=len(jobs))
        for job in jobs:
            progress.update(task, description=job.source.name)
            try:
                if job.is_video:
                    row = _predict_video(job, predictor, style, min_score, progress)
                else:
                    row = _predict_photo(job, predictor, style, min_score, with_json=with_json)
                table.add_row(job.target.name, *row)
            except OutputError:
                raise  # the next one could not be written either
            except MaskserveError as error:
                failures.append(error)
                report_error(error, progress.console)
            progress.advance(task)
    if table.row_count:
        console = make_console()
        console.print(table)
        console.print(f"Drawn in {out}", soft_wrap=True)
    if failures:
        raise typer.Exit(exit_code_of(failures[0]))


@dataclass(frozen=True, slots=True)
class Job:
    """One photo or video to work on.

    Attributes:
        source: The input.
        target: The drawn photo or video; JSON and CSV lie beside it, with other suffixes.
        is_video: Whether ``source`` is a video, by its suffix.
    """

    source: Path
    target: Path
    is_video: bool


def plan_jobs(inputs: Sequence[Path], out: Path, *, style: Style = "overlay") -> list[Job]:
    """Decide what is read and where it goes, before anything is done.

    Folders stand for the photos and videos directly in them. Photos keep their format, but masks
    become PNGs, which lose nothing. Of two inputs with the same name the second gets a number.

    Raises:
        ImageMissingError: A folder holds nothing to read.
        OutputError: A result would overwrite an input.
    """
    from maskserve.runtime.image_io import IMAGE_SUFFIXES
    from maskserve.runtime.video import VIDEO_SUFFIXES

    jobs: list[Job] = []
    taken: set[str] = set()
    for source in expand_inputs(inputs, IMAGE_SUFFIXES | VIDEO_SUFFIXES):
        suffix = source.suffix.lower()
        is_video = suffix in VIDEO_SUFFIXES
        if is_video:
            suffix = ".mp4"
        elif style == "mask" or suffix not in IMAGE_SUFFIXES:
            suffix = ".png"
        stem, number = source.stem, 2
        while stem.casefold() in taken:
            stem, number = f"{source.stem}-{number}", number + 1
        taken.add(stem.casefold())
        jobs.append(Job(source, out / f"{stem}{suffix}", is_video))
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        if job.target.resolve() in sources:
            raise OutputError(
                f"{job.target} is an input and would be overwritten.",
                hint="Choose another folder with --out.",
            )
    return jobs


def _predict_photo(
    job: Job, predictor: Predictor, style: Style, min_score: float | None, *, with_json: bool
) -> tuple[str, str, str]:
    from maskserve.runtime.files import write_file
    from maskserve.runtime.image_io import read_image, write_image
    from maskserve.runtime.render import draw

    image = read_image(job.source)
    instances = predictor.predict(image, min_score=min_score)
    write_image(job.target, draw(image, instances, style=style))
    if with_json:
        document = describe(instances, predictor.manifest)
        write_file(job.target.with_suffix(".json"), json.dumps(document, ensure_ascii=False) + "\n")
    counts = Counter(instances.class_names[i] for i in instances.class_indices)
    found = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    coverage = instances.coverage()
    return found or "nothing", *_percentages(coverage.masked_percent)


def _predict_video(
    job: Job, predictor: Predictor, style: Style, min_score: float | None, progress: Progress
) -> tuple[str, str, str]:
    from maskserve.runtime.video import draw_video, open_video

    task = progress.add_task("  frames", total=open_video(job.source).frame_count)
    try:
        coverage = draw_video(
            predictor,
            job.source,
            target=job.target,
            coverage_csv=job.target.with_suffix(".csv"),
            style=style,
            min_score=min_score,
            on_frame=lambda: progress.advance(task),
        )
    finally:
        progress.remove_task(task)
    return f"{coverage.frame_count} frames, on average", *_percentages(coverage.masked_percent)


def _percentages(masked_percent: float) -> tuple[str, str]:
    return f"{masked_percent:.2f}", f"{100 - masked_percent:.2f}"


def describe(instances: Instances, manifest: Manifest) -> dict[str, Any]:
    """What was found, in the words of the HTTP interface; masks are COCO's compressed RLEs."""
    height, width = instances.image_size
    return {
        "model": {"name": manifest.name, "version": manifest.version},
        "image": {"width": width, "height": height},
        "coverage": asdict(instances.coverage()),
        "instances": [
            {
                "id": i,
                "class": instances.class_names[class_index],
                "class_index": class_index,
                "score": round(score, 4),
                "bbox_xywh": [round(value, 2) for value in box],
                "area_px": area_px,
                "area_percent": percent(area_px, height * width),
                "mask": rle,
            }
            for i, (class_index, score, box, area_px, rle) in enumerate(
                zip(
                    instances.class_indices.tolist(),
                    instances.scores.tolist(),
                    xyxy_to_xywh(instances.boxes_xyxy).tolist(),
                    instances.areas_px.tolist(),
                    instances.rles(),
                    strict=True,
                )
            )
        ],
    }
