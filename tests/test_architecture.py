"""What holds for the source text as a whole. Files are read with `ast`; no model is built.

Each rule is a function from source text to findings, and is tried on a text that breaks it.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_files import EMBEDDED, PACKAGE, ROOT, parse, python_files, relative, repository_files

PARTS = tuple(
    f"modeling.{part}"
    for part in ("backbone", "pixel_decoder", "transformer_decoder", "criterion", "inference")
)

# Which part of the package may import which. What is not listed here has no place yet.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "_provider": (),
    "device": (),
    "files": (),
    "hints": (),
    "curves": (),
    "config": ("device", "hints"),
    "layers": ("device",),
    **{part: ("device", "hints", "layers") for part in PARTS},
    "modeling.criterion": ("config", "device", "hints", "layers"),
    "modeling.head": ("device", "layers", *PARTS),
    "modeling.maskformer_model": ("device", "layers", *PARTS, "modeling.head"),
    "modeling.test_time_augmentation": ("device", *PARTS, "modeling.maskformer_model"),
    "modeling": ("device", "layers", *PARTS, "modeling.head", "modeling.maskformer_model"),
    "data": ("device", "config", "files", "hints", "layers"),
    "evaluation": ("device", "config", "files", "layers"),
    "process_group": ("device",),
    "patch": ("device", "layers", "process_group"),
    # "" and _provider: it logs which detectron2 it is, and reads weights with the embedded reader.
    "engine": (
        *("", "_provider", "device", "patch", "process_group", "curves", "config"),
        *("modeling", "data", "evaluation"),
    ),
    "": ("_provider", "config", "modeling", "data", "evaluation", "patch"),
}

DEVICE_WORD = re.compile(r"(?<![a-z])(cuda|sdaa|nccl|tccl)(?![a-z])", re.IGNORECASE)
MACHINE_PATH = re.compile(r"(?<![\w.}$)])/(?:work|opt|tmp|home|root|Users|mnt|private)/\w")
TEXT_SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".json", ".sh", ".txt", ""}
MAX_LINES = 400
IMPORT_NAMES = {"opencv-python": "cv2", "Pillow": "PIL", "PyYAML": "yaml"}


# The second has names that detectron2 gave.
NAMING_DEVICES = (PACKAGE / "device.py", PACKAGE / "patch" / "names.py")

OWN_FILES = [p for p in python_files(PACKAGE) if not p.is_relative_to(EMBEDDED)]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST) -> Iterator[str]:
    """The dotted names that a module imports; of `from .a import b` it is .a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def part_of(module: str) -> str | None:
    """The entry of MAY_IMPORT to which a dotted name within mask2former belongs.

    "" is the package itself, of which a name that is no module is an attribute.
    """
    inner = module.removeprefix("mask2former").removeprefix(".")
    parts = [p for p in MAY_IMPORT if p and (inner == p or inner.startswith(p + "."))]
    if parts:
        return max(parts, key=len)
    first = inner.split(".")[0]
    is_module = first and ((PACKAGE / first).is_dir() or (PACKAGE / f"{first}.py").is_file())
    return None if is_module else ""


def wrong_imports(module: str, tree: ast.AST) -> list[str]:
    """Imports of `module` that go against the direction, are relative, or have no place yet."""
    own = part_of(module)
    if own == "" and module != "mask2former":
        return [f"{module} is in no part of MAY_IMPORT"]
    found = []
    for name in imports(tree):
        if name.split(".")[0] not in ("mask2former", ""):
            continue
        target = part_of(name)
        allowed = None not in (own, target) and not name.startswith(".")
        allowed = allowed and (
            target == own or any(target == a or target.startswith(a + ".") for a in MAY_IMPORT[own])
        )
        if not allowed:
            found.append(f"{module} imports {name}")
    return found


def broad_excepts(tree: ast.AST) -> list[int]:
    """Lines of handlers that catch everything."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            types = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = {getattr(t, "id", getattr(t, "attr", None)) for t in types}
            if names & {None, "Exception", "BaseException"}:
                lines.append(node.lineno)
        elif isinstance(node, ast.Call) and "suppress" in ast.unparse(node.func):
            names = {getattr(a, "id", "") for a in node.args}
            lines += [node.lineno] if names & {"Exception", "BaseException"} else []
    return lines


def device_words(tree: ast.AST) -> list[str]:
    """Names of devices and their collectives in code; docstrings and comments may have them."""
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    found = []
    for node in ast.walk(tree):
        text = getattr(node, "attr", None) or getattr(node, "id", None) or getattr(node, "arg", "")
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            text = node.value if isinstance(node.value, str) else ""
        if isinstance(node, ast.alias):
            text = node.name
        if isinstance(text, str) and DEVICE_WORD.search(text):
            found.append(f"{getattr(node, 'lineno', 0)}: {text!r}")
    return found


def test_imports_go_in_one_direction():
    found = [w for path in OWN_FILES for w in wrong_imports(module_name(path), parse(path))]
    assert not found


def test_the_package_does_not_stand_on_scripts_or_tests():
    scripts = {"train_net", "tests", "tools", "datasets", "demo"}
    found = [
        f"{relative(path)} imports {name}"
        for path in python_files(PACKAGE)
        for name in imports(parse(path))
        if name.split(".")[0] in scripts
    ]
    assert not found


def test_the_embedded_detectron2_stands_alone():
    found = [
        f"{relative(path)} imports {name}"
        for path in python_files(EMBEDDED)
        for name in imports(parse(path))
        if name.split(".")[0] == "mask2former"
    ]
    assert python_files(EMBEDDED)
    assert not found


def test_each_embedded_package_says_what_it_lacks():
    folder = EMBEDDED / "detectron2"
    packages = [p for p in folder.rglob("__init__.py") if p.parent != folder]
    missing = [
        relative(p) for p in packages if "_missing_attribute(__name__)" not in p.read_text("utf-8")
    ]
    assert packages
    assert not missing


def test_registries_import_no_implementation():
    builds = [p for p in OWN_FILES if p.name == "build.py" and "Registry(" in p.read_text("utf-8")]
    found = []
    for path in builds:
        family = module_name(path).removesuffix(".build")
        names = [n for n in imports(parse(path)) if n == family or n.startswith(family + ".")]
        found += [f"{relative(path)} imports {name}" for name in names]
    assert builds
    assert not found


def test_only_installed_packages_are_imported():
    listed = {
        node.arg: ast.literal_eval(node.value)
        for node in ast.walk(parse(ROOT / "setup.py"))
        if isinstance(node, ast.keyword) and node.arg in ("install_requires", "extras_require")
    }
    extras = (r for name, some in listed["extras_require"].items() if name != "test" for r in some)
    installed = {re.split(r"[<>=!~ ]", r)[0] for r in (*listed["install_requires"], *extras)}
    known = {IMPORT_NAMES.get(name, name) for name in installed}
    known |= {"mask2former", "detectron2", "panopticapi", "", *sys.stdlib_module_names}
    found = [
        f"{relative(path)} imports {name}"
        for path in python_files(PACKAGE)
        for name in imports(parse(path))
        if name.split(".")[0] not in known
    ]
    assert not found


def test_nobody_asks_which_detectron2_it_is():
    found = [
        f"{relative(path)}:{node.lineno}"
        for path in OWN_FILES
        if path.name != "_provider.py"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Compare)
        and {getattr(c, "value", None) for c in node.comparators} & {"embedded", "real"}
    ]
    assert not found


def test_device_names_are_in_one_file():
    found = [
        f"{relative(path)}:{word}"
        for path in OWN_FILES
        if path not in NAMING_DEVICES
        for word in device_words(parse(path))
    ]
    assert not found


def test_no_handler_catches_everything():
    found = [
        f"{relative(path)}:{line}" for path in python_files() for line in broad_excepts(parse(path))
    ]
    assert not found


def test_no_file_is_long():
    lengths = {relative(p): len(p.read_text("utf-8").splitlines()) for p in python_files()}
    assert len(lengths) > 50
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_configs_are_plain_yaml():
    configs = list((ROOT / "configs").rglob("*.yaml"))
    assert configs
    assert [relative(p) for p in configs if re.search(r"!!?\w", p.read_text("utf-8"))] == []


def test_no_paths_of_one_machine():
    found = [
        f"{relative(path)}:{number}: {line.strip()[:80]}"
        for path in repository_files()
        if path.suffix in TEXT_SUFFIXES
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not found


@pytest.mark.parametrize(
    "module, source, is_wrong",
    [
        ("layers.transformer", "from mask2former.device import full_precision", False),
        ("layers.transformer", "from mask2former import device as devices", False),
        ("layers.transformer", "import mask2former.config", True),
        ("device", "def f():\n    from mask2former.layers import point_sampling", True),
        ("modeling.criterion.losses", "from mask2former.modeling.inference import x", True),
        (
            "modeling.criterion.losses",
            "from mask2former.modeling.criterion.matcher import x",
            False,
        ),
        (
            "modeling.backbone.swin",
            "from mask2former.modeling.head.mask_former_head import x",
            True,
        ),
        ("data.loader", "from mask2former.evaluation import build_evaluator", True),
        ("engine.trainer", "from mask2former.modeling.criterion.losses import x", False),
        ("modeling.maskformer_model", "from mask2former.engine import Trainer", True),
        ("layers.transformer", "from mask2former import DETECTRON2_PROVIDER", True),
        ("layers.transformer", "from .position_encoding import x", True),
        ("no_such_part", "import sys", True),
    ],
)
def test_the_direction_is_checked(module, source, is_wrong):
    assert bool(wrong_imports(f"mask2former.{module}", ast.parse(source))) == is_wrong


@pytest.mark.parametrize(
    "caught", ["", " Exception", " (ValueError, Exception) as e", " builtins.Exception"]
)
def test_handlers_are_checked(caught):
    assert broad_excepts(ast.parse(f"try:\n    f()\nexcept{caught}:\n    raise")) == [3]
    assert broad_excepts(ast.parse("try:\n    f()\nexcept (ValueError, OSError):\n    raise")) == []


@pytest.mark.parametrize(
    "source, is_wrong",
    [
        ("x.cuda()", True),
        ("torch.cuda.synchronize()", True),
        ("device = 'cuda:0'", True),
        ("if x.is_cuda: pass", True),
        ("import torch_sdaa", True),
        ('"""About CUDA."""', False),
        ("f(backend=name)", False),
        ("barracuda = 1", False),
    ],
)
def test_device_words_are_checked(source, is_wrong):
    assert bool(device_words(ast.parse(source))) == is_wrong
