"""What the embedded detectron2 lacks is an ImportError that says where to get it.

The imports run in a process of their own, so that it is the embedded one whatever the tests use.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MISSING = {
    "from a package": "from detectron2.data.transforms import RandomRotation",
    "from a module": "from detectron2.data.detection_utils import transform_proposals",
    "an evaluator": "from detectron2.evaluation import LVISEvaluator; LVISEvaluator('lvis_v1_val')",
    "a module": "import detectron2.export",
    "a module of a package": "import detectron2.data.datasets.lvis",
}
PRESENT = {
    "a module as an attribute": "from detectron2.data import detection_utils",
    "an evaluator's name": "from detectron2.evaluation import LVISEvaluator",
    "a name of the loaders": "from detectron2.data.build import trivial_batch_collator",
}
PROGRAM = """
import json, sys
import mask2former
answers = {}
for name, statement in json.load(sys.stdin).items():
    try:
        exec(statement)
    except ImportError as error:
        answers[name] = str(error)
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers():
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps({**MISSING, **PRESENT}),
        env={**os.environ, "M2F_DETECTRON2": "embedded"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(found.stdout)


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing_says_where_to_get_it(name, answers):
    assert "detectron2." in answers[name]
    assert "is not in the embedded subset; pip install" in answers[name]


@pytest.mark.parametrize("name", PRESENT)
def test_what_is_there_can_be_imported(name, answers):
    assert name not in answers
