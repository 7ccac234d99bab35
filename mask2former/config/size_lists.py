"""The one expression that the official config files hold, read as data and never run."""

import re

import yaml

TAG = "tag:yaml.org,2002:python/object/apply:eval"
SIZES = re.compile(r"\[int\(x \* 0\.1 \* (\d{1,5})\) for x in range\((\d{1,3}), (\d{1,3})\)\]")


def read_size_lists() -> None:
    """Let PyYAML's safe reader understand the official configs' lists of sizes.

    They write `!!python/object/apply:eval ["[int(x * 0.1 * 1024) for x in range(5, 21)]"]`:
    sides in pixels, from 0.5 to 2 times 1024. detectron2's own readers, too, go by that reader.
    Everything else below that tag is refused as before: nothing is evaluated.
    """
    yaml.SafeLoader.add_constructor(TAG, _construct_sizes)


def _construct_sizes(loader: yaml.SafeLoader, node: yaml.Node) -> list[int]:
    parts = node.value if isinstance(node, yaml.SequenceNode) else []
    text = parts[0].value if len(parts) == 1 and isinstance(parts[0], yaml.ScalarNode) else ""
    found = SIZES.fullmatch(text)
    if found is None:
        problem = f"could not determine a constructor for the tag {node.tag!r}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    side, start, stop = map(int, found.groups())
    return [int(x * 0.1 * side) for x in range(start, stop)]
