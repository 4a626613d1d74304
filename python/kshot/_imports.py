"""Imports: from the files people have to the data file that training maps."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import _core

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class ImportSummary:
    """What an import wrote. `splits` has the numbers of groups (classes or tasks) and rows."""

    output: Path
    kind: str  #: "classes" or "tasks"
    input_shape: tuple[int, ...]
    bytes: int
    division: str  #: how the groups were divided into splits
    splits: dict[str, dict[str, int]]
    notes: list[str] = field(repr=False)
    columns: list[str] = field(repr=False)  #: how each column of a table was read

    def __fspath__(self) -> str:
        return str(self.output)

    @property
    def config(self) -> dict[str, str]:
        """The table [data] of a configuration that trains on this file."""
        return {"source": "file", "path": str(self.output)}


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Without what is None; paths as the library takes them."""
    given = {name: value for name, value in options.items() if value is not None}
    splits = given.get("splits")
    if splits is not None:
        given["splits"] = {
            name: [os.fspath(files)] if isinstance(files, (str, os.PathLike)) else list(files)
            for name, files in splits.items()
        }
    if "fractions" in given:
        given["fractions"] = [float(share) for share in given["fractions"]]
    return given


def run_import(
    call: Callable[..., dict[str, Any]], arguments: Mapping[str, Any], *more: Any
) -> ImportSummary:
    """Calls an import of the library with the arguments of the function that stands for it.

    What is neither the source, the output nor the progress is an option with that name. The
    library knows the names of all options, and refuses other ones. `more`: what follows them.
    """
    options = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in arguments.items()
    }
    source, output = options.pop("source"), options.pop("output")
    progress = options.pop("progress")
    show = sys.stderr.isatty() if progress is None else progress
    return ImportSummary(**call(source, output, show, _given(options), *more))


def import_arrays(
    source: PathLike,
    output: PathLike,
    *,
    labels: str | None = None,
    classes: PathLike | None = None,
    layout: str | None = None,
    standardise: bool | None = None,
    splits: Mapping[str, Any] | None = None,
    fractions: Sequence[float] | None = None,
    seed: int | None = None,
    min_examples: int | None = None,
    allow_shared_classes: bool | None = None,
    progress: bool | None = None,
) -> ImportSummary:
    """Classes from NumPy arrays in files (.npy, .npz, or FILE.npz:NAME).

    source: the array, [classes, examples, ...], or with labels [N, ...]; output: the data file.
    labels: the array of labels [N]; classes: a table of the classes' names and splits.
    splits: lists of class names per split, `{"train": "train.txt", "test": "test.txt"}`.
    fractions: shares of train, validation, test in a random division by `seed`.
    The other options are those of `kshot import arrays` (docs/own-data.md); None keeps its default.
    """
    return run_import(_core.import_arrays, dict(locals()))


def import_images(
    source: PathLike,
    output: PathLike,
    *,
    size: int | tuple[int, int] | None = None,
    grey: bool | None = None,
    crop: bool | None = None,
    invert: bool | None = None,
    background: str | None = None,
    skip_bad: bool | None = None,
    by_folders: bool | None = None,
    splits: Mapping[str, Any] | None = None,
    fractions: Sequence[float] | None = None,
    seed: int | None = None,
    min_examples: int | None = None,
    allow_shared_classes: bool | None = None,
    progress: bool | None = None,
) -> ImportSummary:
    """A folder (or zip) with a folder of PNG or JPEG images for every class.

    size: pixels, or (height, width). The other options are those of `kshot import images`.
    """
    arguments = dict(locals())
    arguments["height"], arguments["width"] = (
        (size, size) if size is None or isinstance(size, int) else size
    )
    del arguments["size"]
    return run_import(_core.import_images, arguments)


def import_omniglot(
    sources: Sequence[PathLike],
    output: PathLike,
    *,
    size: int | None = None,
    skip_bad: bool | None = None,
    splits: Mapping[str, Any] | None = None,
    min_examples: int | None = None,
    allow_shared_classes: bool | None = None,
    progress: bool | None = None,
) -> ImportSummary:
    """Classes from Omniglot's official archives or folders.

    sources: the archives or folders; output: the data file. The other options are those of
    `kshot import omniglot`.
    """
    arguments = dict(locals())
    many = [sources] if isinstance(sources, (str, os.PathLike)) else sources
    arguments["source"] = [os.fspath(source) for source in many]
    del arguments["sources"]
    return run_import(_core.import_omniglot, arguments)


def import_table(
    source: PathLike,
    output: PathLike,
    *,
    target: str | Sequence[str],
    task: str | None = None,
    classification: bool | None = None,
    tasks: PathLike | None = None,
    split_column: str | None = None,
    categorical: Sequence[str] | None = None,
    categorical_arrays: Sequence[str] | None = None,
    ignore: Sequence[str] | None = None,
    dates: Sequence[str] | None = None,
    columns: PathLike | None = None,
    missing: str | None = None,
    raw_targets: bool | None = None,
    raw_inputs: bool | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
    thousands: str | None = None,
    missing_marks: Sequence[str] | None = None,
    splits: Mapping[str, Any] | None = None,
    fractions: Sequence[float] | None = None,
    seed: int | None = None,
    progress: bool | None = None,
) -> ImportSummary:
    """One few-shot task for every value of the column `task` of a CSV table or of arrays.

    target: the column, or columns, of the targets. The other options are those of
    `kshot import table`; `ImportSummary.columns` says how each column was read.
    """
    arguments = dict(locals())
    arguments["targets"] = [target] if isinstance(target, str) else list(target)
    del arguments["target"]
    return run_import(_core.import_table, arguments)
