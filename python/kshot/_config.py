"""Configurations with the keys of docs/configuration.md, read from a file, a dict or TOML text."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from . import _core

#: Changes to a configuration: a dict with dotted keys (`{"train.steps": 300}`) or with nested
#: tables, or a list of strings such as "train.steps=300".
Overrides = Mapping[str, Any] | Iterable[str] | None
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def _quoted(text: str) -> str:
    # The escapes of JSON are valid in TOML. JSON leaves DEL as it is, which TOML does not allow.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _literal(key: str, value: Any) -> str:
    """Returns a value as TOML. Raises a TypeError that names the key for a type that TOML lacks."""
    if (
        hasattr(value, "item")
        and not isinstance(value, (list, tuple))
        and not hasattr(value, "__len__")
    ):
        value = value.item()  # a NumPy scalar
    to_list = getattr(value, "tolist", None)
    if to_list is not None:
        value = to_list()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, os.PathLike)):
        return _quoted(os.fspath(value))
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_literal(key, v) for v in value) + "]"
    if isinstance(value, Mapping):
        pairs = (f"{_key(str(k))} = {_literal(f'{key}.{k}', v)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    raise TypeError(
        f"{key}: expected a number, a string, a list or a table, got {type(value).__name__}"
    )


def _key(part: str) -> str:
    return part if _BARE_KEY.fullmatch(part) else _quoted(part)


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if not isinstance(key, str):
            raise TypeError(f"configuration: expected strings for keys, got {key!r}")
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, path + ".")
        elif value is not None:  # a key with the value None counts as absent
            yield path, value


def _dotted(path: str) -> str:
    return ".".join(_key(part) for part in path.split("."))


def override_list(overrides: Overrides) -> list[str]:
    """Returns the overrides as the strings "table.key=value" in TOML syntax that the library takes.

    Raises TypeError for overrides of another type.
    """
    if overrides is None:
        return []
    if isinstance(overrides, Mapping):
        return [f"{path}={_literal(path, value)}" for path, value in _leaves(overrides)]
    if isinstance(overrides, str):
        raise TypeError('overrides: expected a dict or a list such as ["train.steps=300"]')
    items = list(overrides)
    for item in items:
        if not isinstance(item, str):
            raise TypeError(f'overrides: expected strings such as "train.steps=300", got {item!r}')
    return items


def toml_text(table: Mapping[str, Any]) -> str:
    """Returns a dict with nested tables or dotted keys as TOML text."""
    return "".join(f"{_dotted(p)} = {_literal(p, v)}\n" for p, v in _leaves(table))


def set_table(values: Mapping[str, Any]) -> str:
    """Returns the table [set] of a sweep as TOML text.

    A dict with the keys "low" or "high" is a range and is written as one value. Other dicts are
    nested tables.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"vary: expected a dict, got {type(values).__name__}")

    def leaves(table: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for key, value in table.items():
            path = f"{prefix}{key}"
            if isinstance(value, Mapping) and not {"low", "high"} & set(value):
                yield from leaves(value, path + ".")
            else:
                yield f"{_dotted(path)} = {_literal(path, value)}\n"

    return "[set]\n" + "".join(leaves(values, ""))


@contextmanager
def without_lines() -> Iterator[None]:
    """Removes line numbers from the messages of ConfigError, because a dict has no lines."""
    try:
        yield
    except _core.ConfigError as error:
        message = re.sub(r"^configuration:\d+: ", "configuration: ", str(error))
        raise _core.ConfigError(message) from None


class Config:
    """A checked configuration of a run.

    `source` is the path of a TOML file, a dict (nested, or with dotted keys such as
    `{"train.steps": 300}`), or another Config. `overrides` are applied on top.

    Raises ConfigError for a configuration that is refused. The message is one line that names the
    key and says what was expected.
    """

    __slots__ = ("_native",)

    def __init__(self, source: ConfigLike, overrides: Overrides = None) -> None:
        changes = override_list(overrides)
        if isinstance(source, Config):
            with without_lines():
                self._native = _core.Config.parse(source.to_toml(), "configuration", changes)
        elif isinstance(source, Mapping):
            text = toml_text(source)
            with without_lines():
                self._native = _core.Config.parse(text, "configuration", changes)
        elif isinstance(source, (str, os.PathLike)):
            self._native = _core.Config.load(os.fspath(source), changes)
        else:
            raise TypeError(
                "config: expected a path, a dict or a kshot.Config, got " + type(source).__name__
            )

    @classmethod
    def parse(cls, text: str, overrides: Overrides = None) -> Config:
        """Reads a configuration from TOML text.

        text: the TOML. overrides: changes to it, such as `{"train.steps": 300}`.
        """
        return cls._of(_core.Config.parse(text, "configuration", override_list(overrides)))

    @classmethod
    def template(cls, algorithm: str) -> Config:
        """Returns a starting configuration for an algorithm.

        algorithm: any algorithm, such as "maml" or "abml". The tasks are sinusoids, so that the
            configuration runs as it is. For "protonet" and "bayes_protonet", which need classes,
            the tasks come from a data file that `data.path` has to name.
        """
        return cls.parse(_core.config_template(algorithm))

    @classmethod
    def _of(cls, native: _core.Config) -> Config:
        config = cls.__new__(cls)
        config._native = native
        return config

    def to_toml(self) -> str:
        """Returns TOML text with every key that applies, and its value."""
        return str(self._native.to_toml())

    def to_dict(self) -> dict[str, Any]:
        """Returns every key that applies, with its value, as nested dicts."""
        # The import is here, and not at the top, because `import kshot` is to be quick.
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib

        return tomllib.loads(self.to_toml())

    def __getitem__(self, key: str) -> Any:
        """Returns the value of a dotted key: `config["train.steps"]`. Raises KeyError."""
        value: Any = self.to_dict()
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise KeyError(key)
            value = value[part]
        return value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Config):
            return NotImplemented
        return bool(self._native == other._native)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<kshot.Config algorithm={self['algorithm']!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Config.parse, (self.to_toml(),)


ConfigLike = str | os.PathLike[str] | Mapping[str, Any] | Config
