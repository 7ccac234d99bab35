"""What the configs and config keys of mmsegmentation and mmdetection are called here.

python run_scripts/mm_names.py CONFIG.py        prints our name of a config
"""

import difflib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
KEYS_FILE = "mask2former/config/keys.py"
NAMES_FILE = "run_scripts/mm_configs.json"

# Their config, without .py -> ours: of the same backbone, data, crop and schedule
CONFIGS: dict[str, str] = json.loads((HERE / "mm_configs.json").read_text(encoding="utf-8"))

# Their key -> ours, with the same value
KEYS = {
    "train_cfg.max_iters": "SOLVER.MAX_ITER",
    "train_cfg.val_interval": "TEST.EVAL_PERIOD",
    "optim_wrapper.optimizer.lr": "SOLVER.BASE_LR",
    "optim_wrapper.optimizer.weight_decay": "SOLVER.WEIGHT_DECAY",
    "optim_wrapper.clip_grad.max_norm": "SOLVER.CLIP_GRADIENTS.CLIP_VALUE",
    "optimizer.lr": "SOLVER.BASE_LR",
    "optimizer.weight_decay": "SOLVER.WEIGHT_DECAY",
    "train_dataloader.num_workers": "DATALOADER.NUM_WORKERS",
    "default_hooks.checkpoint.interval": "SOLVER.CHECKPOINT_PERIOD",
    "model.decode_head.num_classes": "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
    "model.decode_head.num_queries": "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES",
    "randomness.seed": "SEED",
    "load_from": "MODEL.WEIGHTS",
    "work_dir": "OUTPUT_DIR",
}

# Theirs count the images of one process, ours those of all of them.
PER_PROCESS = {"train_dataloader.batch_size": "SOLVER.IMS_PER_BATCH"}

DATA_ROOTS = {
    "data_root",
    "train_dataloader.dataset.data_root",
    "val_dataloader.dataset.data_root",
    "test_dataloader.dataset.data_root",
}

# What occurs in the path of a config -> the folder of its dataset in DETECTRON2_DATASETS
DIRECTORIES = {"cityscapes": "cityscapes", "ade20k": "ADEChallengeData2016", "coco": "coco"}


def our_config(config: str) -> str:
    """A config as it is given, but ours in place of one of theirs.

    Raises:
        ValueError: a Python config that has none of ours beside it.
    """
    name, extension = os.path.splitext(os.path.basename(config))
    if extension != ".py":
        return config
    if name not in CONFIGS:
        hint = closest(name, {n: f"{n}.py" for n in CONFIGS})
        hint = hint or "; give one of the YAML files in configs/"
        raise ValueError(f"{config}: a Python config, and none of ours is like it{hint}")
    return CONFIGS[name]


def our_pair(key: str, value: str, num_processes: int) -> tuple[str, str]:
    """A config key of theirs and its value as ours; a key of ours, in capitals, as it is.

    Raises:
        ValueError: there is no such key in the table, or the value is no number.
    """
    if key in PER_PROCESS:
        if not value.isdigit():
            raise ValueError(f"{key}={value}; give the number of images of a process")
        return PER_PROCESS[key], str(int(value) * num_processes)
    if key in KEYS:
        return KEYS[key], value
    if key.partition(".")[0].isupper():
        return key, value  # train_net.py knows which there are
    hint = closest(key, {k.lower(): k for k in _our_keys()} | KEYS | PER_PROCESS)
    raise ValueError(f"{key}: no config key here{hint or f'; {KEYS_FILE} lists ours'}")


def datasets_folder(key: str, root: str, config: str) -> str:
    """DETECTRON2_DATASETS for a dataset that lies in `root`: the folder that holds it.

    Raises:
        ValueError: the dataset of `config` has to lie in a folder of another name.
    """
    path = os.path.abspath(root)
    words = [word for word in DIRECTORIES if word in config] or DIRECTORIES
    expected = [DIRECTORIES[word] for word in words]
    if os.path.basename(path) not in expected:
        link = os.path.join(os.path.dirname(path), expected[0])
        raise ValueError(
            f"{key}={root}; the folder has to be called {' or '.join(expected)}: "
            f"rename it, or link it (ln -s {path} {link}), and give that"
        )
    return os.path.dirname(path)


def closest(name: str, meanings: Mapping[str, str]) -> str:
    """The end of a sentence: what the known name means that is most like `name`, if any is."""
    close = difflib.get_close_matches(name.lower(), meanings, n=1, cutoff=0.5)
    return f"; did you mean {meanings[close[0]]}?" if close else ""


def _our_keys() -> list[str]:
    # Only who has made a mistake waits for the package, which need not be installed.
    sys.path.append(str(HERE.parent))
    from mask2former.config import flat_keys, load_config

    return list(flat_keys(load_config("quick_start.yaml")))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        print(our_config(sys.argv[1]))
    except ValueError as error:
        sys.exit(f"error: {error}")
