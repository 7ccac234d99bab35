"""Every config key that we add does something."""

import ast
from collections.abc import Iterator

from detectron2.config import CfgNode, get_cfg
from source_files import PACKAGE, parse, python_files

from mask2former.config import add_maskformer2_config


def config_paths(tree: ast.AST) -> set[str]:
    """Paths of config keys that a module reads: "MODEL.DEVICE" of `cfg.MODEL.DEVICE`.

    `node = cfg.MODEL.X` is followed. From a name of unknown origin the path starts with "*.".
    """
    aliases: dict[str, set[str]] = {}

    def resolve(node: ast.AST) -> set[str]:
        if isinstance(node, ast.Attribute):
            if node.attr.lower() == "cfg":
                return {""}
            if not node.attr.isupper():
                return set()
            return {f"{base}.{node.attr}".lstrip(".") for base in resolve(node.value) or {"*"}}
        if isinstance(node, ast.Name):
            return {""} if node.id == "cfg" else aliases.get(node.id, set())
        return set()

    for node in ast.walk(tree):  # breadth first: an alias is known before it is used below it
        pairs = []
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs += zip(target.elts, node.value.elts)
                else:
                    pairs.append((target, node.value))
        for target, value in pairs:
            if isinstance(target, ast.Name):
                aliases.setdefault(target.id, set()).update(resolve(value))
    loads = (n for n in ast.walk(tree) if isinstance(n, ast.Attribute))
    return set().union(*(resolve(n) for n in loads if isinstance(n.ctx, ast.Load)))


def leaves(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def added_keys() -> set[str]:
    cfg = get_cfg()
    before = set(leaves(cfg))
    add_maskformer2_config(cfg)
    return set(leaves(cfg)) - before


def is_read(key: str, paths: set[str]) -> bool:
    words = key.split(".")
    return any(".".join(["*"] * (i > 0) + words[i:]) in paths for i in range(len(words)))


def test_every_config_key_is_read():
    paths = set().union(
        *(config_paths(parse(p)) for p in python_files(PACKAGE) if p.name != "keys.py")
    )
    unread = {key for key in added_keys() if not is_read(key, paths)}
    assert unread == set(), "these do nothing: read or remove them"


def test_reading_of_keys_is_checked():
    source = "def f(cfg):\n  n = cfg.A.B\n  g(n.C, self.cfg.D, h.E.F)\n  n.G = 1\n  cfg.X = 2"
    paths = config_paths(ast.parse(source))
    read = [k for k in ("A.B.C", "D", "Q.E.F", "A.B.G", "X", "Z.A.B.C") if is_read(k, paths)]
    assert read == ["A.B.C", "D", "Q.E.F"]
