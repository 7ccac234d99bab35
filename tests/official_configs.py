"""What the configs of the two official repositories resolve to, and where they stand here."""

import json
from pathlib import Path

_PROJECTS = json.loads(
    (Path(__file__).parent / "goldens" / "official_configs.json").read_text("utf-8")
)
_FOLDERS = {"Mask2Former": "", "MaskFormer": "maskformer/"}

# Path below configs/ -> (official repository, path below its configs/)
OFFICIAL = {
    _FOLDERS[project] + name: (project, name)
    for project, content in _PROJECTS.items()
    for name in content["configs"]
}


def official_values(path):
    """Keys and values that differ from detectron2's defaults, among them the project's own keys."""
    project, name = OFFICIAL[path]
    content = _PROJECTS[project]
    return content["defaults"] | dict(content["pairs"][i] for i in content["configs"][name])
