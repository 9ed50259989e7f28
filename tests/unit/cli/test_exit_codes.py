from __future__ import annotations

from collections.abc import Iterator

import pytest

from maskserve.cli.exit_codes import exit_code_of
from maskserve.core.errors import MaskserveError

EXPECTED = {
    "bad_parameter": 2,
    "unknown_class": 2,
    "unknown_model": 2,
    "bad_settings": 2,
    "bad_image": 3,
    "image_missing": 3,
    "image_undecodable": 3,
    "image_type_unsupported": 3,
    "image_too_large": 3,
    "bad_dataset": 3,
    "bad_bundle": 4,
    "bundle_missing": 4,
    "bundle_corrupt": 4,
    "bundle_too_new": 4,
    "missing_extra": 5,
    "training_failed": 6,
    "export_failed": 6,
    "parity_failed": 6,
    "engine_failed": 7,
    "output_not_writable": 7,
    "download_failed": 7,
    "server_unreachable": 7,
    "server_not_ready": 1,
    "server_full": 1,
    "deadline_passed": 1,
    "bad_job": 1,
    "jobs_off": 1,
    "unknown_job": 1,
    "no_pictures": 1,
    "job_gone": 1,
    "job_too_large": 1,
    "bad_archive": 1,
    "job_store_full": 1,
}


def all_kinds(kind: type[MaskserveError] = MaskserveError) -> Iterator[type[MaskserveError]]:
    for child in kind.__subclasses__():
        yield child
        yield from all_kinds(child)


@pytest.mark.parametrize(
    "kind",
    [kind for kind in all_kinds() if kind.__module__ == "maskserve.core.errors"],
    ids=lambda kind: kind.code,
)
def test_every_kind_of_error_has_its_exit_code(kind: type[MaskserveError]) -> None:
    assert exit_code_of(kind("It broke.")) == EXPECTED[kind.code]
