"""Imports of arrays, images and tables into the data files that training reads."""

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
    """The result of an import.

    It may be given wherever a data file is expected.

    `splits` has, for each split, the number of groups (classes or tasks) and the number of rows.
    `bytes` is the size of the data file. `notes` are messages for the user.
    """

    output: Path
    kind: str  #: "classes" or "tasks"
    input_shape: tuple[int, ...]
    bytes: int
    division: str  #: how the groups were divided into splits, in words
    splits: dict[str, dict[str, int]]
    notes: list[str] = field(repr=False)
    columns: list[str] = field(repr=False)  #: how each column of a table was read, in words

    def __fspath__(self) -> str:
        return str(self.output)

    @property
    def config(self) -> dict[str, str]:
        """The table [data] of a configuration that trains on this data file."""
        return {"source": "file", "path": str(self.output)}


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that are not None, with paths and numbers as the library takes them."""
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
    """Calls an import of the library.

    call: the import. arguments: the arguments of the Python function, by name. All but "source",
    "output" and "progress" are passed on as options of the same name. The library checks their
    names and refuses unknown ones. more: arguments of `call` after the options.
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
    """Imports classes from NumPy arrays in files (.npy, .npz, or FILE.npz:NAME).

    source: the array [classes, examples, ...], or with `labels` the array [N, ...].
    output: the data file to write.
    labels: the array of labels [N]. classes: a table of the classes' names and splits.
    splits: for each split a file with class names, `{"train": "train.txt", "test": "test.txt"}`.
    fractions: shares of train, validation and test in a random division by `seed`.
    progress: whether to show the progress on standard error; None: only if it is a terminal.
    The other options are those of `kshot import arrays` (docs/own-data.md). None stands for the
    default of the option.
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
    """Imports classes from a folder or a zip file that has one folder of images per class.

    source: the folder or the zip file, with images in PNG or JPEG. output: the data file to write.
    size: the height and width of the images in the data file, in pixels, or (height, width).
    progress: as for `import_arrays`. The other options are those of `kshot import images`
    (docs/own-data.md).
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
    """Imports classes from Omniglot's official archives or folders.

    sources: the archives or folders. output: the data file to write. progress: as for
    `import_arrays`. The other options are those of `kshot import omniglot` (docs/own-data.md).
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
    """Imports one few-shot task for every value of the column `task` of a table.

    source: a CSV file or arrays. output: the data file to write.
    target: the name of the column of the targets, or a list of names.
    progress: as for `import_arrays`. The other options are those of `kshot import table`
    (docs/own-data.md). `ImportSummary.columns` says how each column was read.
    """
    arguments = dict(locals())
    arguments["targets"] = [target] if isinstance(target, str) else list(target)
    del arguments["target"]
    return run_import(_core.import_table, arguments)
