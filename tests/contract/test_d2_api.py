"""Every name of detectron2's that this project stands on exists, and can be called as there.

goldens/detectron2_signatures.json was read off the real one: for each name its parameters without
annotations ("..." for a default that has no literal), null if it is not callable, and its methods
and properties. Left out is what the embedded subset does not have on purpose.
"""

import ast
import importlib
import inspect
import json
from pathlib import Path

import pytest

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "goldens" / "detectron2_signatures.json").read_text()
)
LITERALS = (type(None), bool, int, float, str, tuple, list)


def parameters(function) -> str:
    """The parameters of `function` as one would write them, without annotations."""
    plain = [
        p.replace(
            annotation=p.empty,
            default=p.default
            if p.default is p.empty or isinstance(p.default, LITERALS)
            else Ellipsis,
        )
        for p in inspect.signature(function).parameters.values()
    ]
    return str(inspect.Signature(plain))[1:-1].replace("Ellipsis", "...")


def parse(text: str) -> ast.arguments:
    return ast.parse(f"def f({text}): pass").body[0].args


def named(args: ast.arguments) -> dict[str, str | None]:
    """Default of each parameter that can be given by name; None where it must be given."""
    positional = args.posonlyargs + args.args
    defaults = [None] * (len(positional) - len(args.defaults)) + args.defaults
    pairs = list(zip(positional, defaults)) + list(zip(args.kwonlyargs, args.kw_defaults))
    return {a.arg: None if d is None else ast.unparse(d) for a, d in pairs}


def differences(expected: str, found: str) -> list[str]:
    """Why a call that fits the parameters `expected` may not fit `found`."""
    theirs, ours = parse(expected), parse(found)
    problems = []
    order = [a.arg for a in theirs.posonlyargs + theirs.args]
    if [a.arg for a in ours.posonlyargs + ours.args][: len(order)] != order:
        problems.append(f"({found}) instead of ({expected})")
    our_names = named(ours)
    for name, default in named(theirs).items():
        if name not in our_names:
            problems.append(f"no parameter {name}")
        elif default != our_names[name] and "..." not in (default, our_names[name]):
            problems.append(f"{name}={our_names[name]} instead of {default}")
    more = set(our_names) - set(named(theirs))
    problems += [f"{name} must be given" for name in sorted(more) if our_names[name] is None]
    for kind in ("vararg", "kwarg"):
        if getattr(theirs, kind) and not getattr(ours, kind):
            problems.append(f"no {kind}")
    return problems


@pytest.mark.parametrize("module", GOLDEN)
def test_the_names_of_a_module(module):
    imported = importlib.import_module(module)
    problems = []
    for name, golden in GOLDEN[module].items():
        found = getattr(imported, name, None)
        if found is None:
            problems.append(f"{name} is missing")
            continue
        if golden["parameters"] is not None:
            why = differences(golden["parameters"], parameters(found))
            problems += [f"{name}: {w}" for w in why]
        for method, expected in golden.get("methods", {}).items():
            if not hasattr(found, method):
                problems.append(f"{name}.{method} is missing")
                continue
            why = differences(expected, parameters(getattr(found, method)))
            problems += [f"{name}.{method}: {w}" for w in why]
        absent = [p for p in golden.get("properties", []) if not hasattr(found, p)]
        problems += [f"{name}.{p} is missing" for p in absent]
    assert not problems


@pytest.mark.parametrize(
    "expected, found, is_compatible",
    [
        ("a, b=1", "a, b=1", True),
        ("a, b=1", "a, b=1, c=2", True),
        ("a, b=1", "a, b=1, *, c", False),
        ("a, b=1", "b, a=1", False),
        ("a, b=1", "a, b=2", False),
        ("a, b=1", "a, b", False),
        ("a, *, b=1", "a, *, c=0, b=1", True),
        ("a, *, b=1", "a", False),
        ("a, **kwargs", "a", False),
        ("a=...", "a=3", True),
    ],
)
def test_the_comparison(expected, found, is_compatible):
    assert (differences(expected, found) == []) == is_compatible
