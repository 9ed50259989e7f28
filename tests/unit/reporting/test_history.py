from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from maskserve.reporting.history import merge_logs, read_results, write_curves


def _log(run: Path, start: int, text: str) -> None:
    folder = run / "logs" / f"start_{start}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(text)


def test_steps_done_twice_appear_once_and_from_the_later_start(tmp_path: Path) -> None:
    _log(tmp_path, 0, "epoch,loss,step,val_mask_ap\n0,3.0,9,\n0,,9,12.5\n1,2.0,19,\n1,1.5,29,\n")
    _log(tmp_path, 1, "epoch,loss,step,val_mask_ap\n1,2.5,19,\n1,,19,20.0\n")
    merge_logs(tmp_path)
    curves = read_results(tmp_path)
    assert curves["loss"] == ([10, 20, 30], [3.0, 2.5, 1.5])
    assert curves["val_mask_ap"] == ([10, 20], [12.5, 20.0])


def test_starts_are_taken_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for start in range(11):
        _log(tmp_path, start, f"loss,step\n{start}.0,9\n")
    merge_logs(tmp_path)
    assert read_results(tmp_path)["loss"] == ([10], [10.0])


def test_a_start_without_a_log_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "logs" / "start_0").mkdir(parents=True)
    _log(tmp_path, 1, "epoch,loss,step\n0,3.0,9\n")
    merge_logs(tmp_path)
    assert (tmp_path / "results.csv").read_text() == "step,loss\n10,3.0\n"


def test_a_folder_without_results_has_no_curves(tmp_path: Path) -> None:
    assert read_results(tmp_path) == {}


def test_curves_are_a_picture_also_before_the_first_validation(tmp_path: Path) -> None:
    _log(tmp_path, 0, "epoch,loss,step\n0,3.0,9\n0,2.0,19\n")
    merge_logs(tmp_path)
    write_curves(tmp_path)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > picture.height > 200


def test_nothing_is_cut_off_at_the_edges_of_the_picture(tmp_path: Path) -> None:
    _log(tmp_path, 0, "epoch,loss,step,val_mask_ap,val_loss\n0,3.0,9,12.5,3.5\n0,2.0,19,20.0,3.1\n")
    merge_logs(tmp_path)
    write_curves(tmp_path)
    with Image.open(tmp_path / "curves.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all()
