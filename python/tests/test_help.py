"""Checks help() of every public name: its signature, a first line of one sentence, shapes."""

from __future__ import annotations

import importlib
import inspect
import pydoc
import re
from typing import Any

import pytest

import kshot
import kshot.data
import kshot.metrics
import kshot.sklearn


def own(module: Any) -> list[str]:
    """Returns the public names that a module defines itself."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def modules() -> list[Any]:
    found = [kshot.data, kshot.metrics, kshot.sklearn]
    try:
        return [*found, importlib.import_module("kshot.torch")]
    except ImportError:
        return found


def public() -> dict[str, Any]:
    """Returns public classes and functions, and the classes' public methods and properties."""
    named = {f"kshot.{name}": getattr(kshot, name) for name in kshot.__all__}
    for module in modules():
        named |= {f"{module.__name__}.{name}": getattr(module, name) for name in own(module)}
    members = {}
    for name, value in named.items():
        if not inspect.isclass(value):
            continue
        for member, attribute in vars(value).items():
            if isinstance(attribute, (classmethod, staticmethod)):
                attribute = attribute.__func__
            known = inspect.isfunction(attribute) or isinstance(attribute, property)
            if known and not member.startswith("_"):
                members[f"{name}.{member}"] = attribute
    return named | members


PUBLIC = public()
CALLED = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}


def text_of(value: Any) -> str:
    return inspect.cleandoc(value.__doc__ or "")


@pytest.mark.parametrize("name", PUBLIC)
def test_the_first_line_is_a_sentence(name):
    first, _, rest = text_of(PUBLIC[name]).partition("\n")
    assert re.match(r"""^["'\w(\[]""", first), f"{name}: {first!r}"
    assert first.endswith((".", ":")), f"{name}: {first!r}"
    assert not first.endswith("..."), f"{name}: {first!r}"
    # After the first line comes a blank line or nothing. PyTorch's and scikit-learn's parsers rely
    # on this too.
    assert not rest or rest.startswith("\n"), f"{name}: {first!r} {rest[:60]!r}"


@pytest.mark.parametrize("name", PUBLIC)
def test_help_shows_no_trace_of_the_binding(name):
    text = pydoc.plain(pydoc.render_doc(PUBLIC[name]))
    for noise in ("nanobind", "nb_", "ndarray[", "_core.", "std::"):
        assert noise not in text, f"{name}: {noise}"


@pytest.mark.parametrize("name", CALLED)
def test_the_signature_names_its_types_and_the_text_its_arguments(name):
    function, text = CALLED[name], text_of(CALLED[name])
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty, name
    others = "other" in text or "as for" in text or "See the class" in text or "Options" in text
    for argument in list(signature.parameters.values()):
        if argument.name in ("self", "cls", "ctx") or argument.kind is argument.VAR_KEYWORD:
            continue
        assert argument.annotation is not inspect.Parameter.empty, f"{name}: {argument.name}"
        if not others:
            words = rf"\b{argument.name}\b"
            assert re.search(words, text), f"{name}: {argument.name} is not described"


@pytest.mark.parametrize("name", CALLED)
def test_arrays_have_a_shape(name):
    """The text gives a shape where an argument of type Any is an array."""
    arrays = [
        p.name
        for p in inspect.signature(CALLED[name]).parameters.values()
        if p.annotation == "Any"
        and p.name in ("x", "y", "xs", "ys", "X", "query_x", "support_x", "probabilities")
    ]
    if arrays:
        assert re.search(r"\[[a-z]+[^]]*\]", text_of(CALLED[name])), f"{name}: no shape of {arrays}"


def test_help_of_the_package_lists_its_names():
    text = kshot.__doc__ or ""
    for name, value in PUBLIC.items():
        if name.count(".") == 1 and inspect.isfunction(value):
            assert re.search(rf"\b{name.removeprefix('kshot.')}\b", text), name
    for module in modules():
        assert text_of(module).partition("\n")[0].endswith("."), module
