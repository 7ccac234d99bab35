"""The commands of model zoos: what they turn into, and one run of each."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from source_files import ROOT

from mask2former.config import flat_keys, load_config
from mask2former.data.datasets import ade20k, coco
from mask2former.data.mini.ade20k import make_mini_ade20k
from mask2former.data.mini.maker import MiniSpec

SCRIPTS = ROOT / "run_scripts"
CITYSCAPES = "configs/cityscapes/semantic-segmentation/maskformer2_R50_bs16_90k.yaml"
ADE20K = "configs/maskformer/ade20k-150/maskformer_R50_bs16_160k.yaml"
CITYSCAPES_MM = "configs/mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py"
ADE20K_MM = "../configs/maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py"

TORCHRUN = f"{sys.executable} -m torch.distributed.run"
TRAIN = f"{ROOT}/train_net.py --config-file"
TRAIN_NET = f"{sys.executable} {TRAIN}"
LOG = "MODEL_ZOO_LOG True"
DATA_ROOT = "train_dataloader.dataset.data_root=/data/ade/ADEChallengeData2016"
VAL_ROOT = "val_dataloader.dataset.data_root=/data/ade/ADEChallengeData2016/"


def called(*words, **variables):
    return subprocess.run(
        words, env=os.environ | variables, capture_output=True, text=True, timeout=60
    )


def run_script(name, arguments):
    return called(sys.executable, str(SCRIPTS / f"run_{name}.py"), *shlex.split(arguments))


@pytest.fixture
def mm_names(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import mm_names

    return mm_names


@pytest.mark.parametrize(
    "name, arguments, expected",
    [
        ("mask2former", "", f"{TRAIN_NET} {CITYSCAPES} --num-gpus 1 {LOG}"),
        ("maskformer", "", f"{TRAIN_NET} {ADE20K} --num-gpus 1 {LOG}"),
        (
            "maskformer",
            f"{ADE20K_MM} --launcher pytorch "
            f"--cfg-options {DATA_ROOT} {VAL_ROOT} train_cfg.max_iters=100",
            f"DETECTRON2_DATASETS=/data/ade {TORCHRUN} --nproc-per-node 1 --standalone "
            f"{TRAIN} {ADE20K} {LOG} SOLVER.MAX_ITER 100",
        ),
        (
            "mask2former",
            f"--config {CITYSCAPES_MM} --nproc_per_node 4 --amp --work-dir out --resume",
            f"{TRAIN_NET} {CITYSCAPES} --num-gpus 4 --resume {LOG} "
            "SOLVER.AMP.ENABLED True OUTPUT_DIR out",
        ),
        (
            "mask2former",
            "my.yaml --no-amp --device cpu --cfg-options 'DATASETS.TRAIN=(\"a\",)' WITH='a b'",
            f"{TRAIN_NET} my.yaml --num-gpus 1 {LOG} SOLVER.AMP.ENABLED False "
            "MODEL.DEVICE cpu DATASETS.TRAIN '(\"a\",)' WITH 'a b'",
        ),
        (
            "mask2former",
            "--nproc-per-node 4 --cfg-options train_dataloader.batch_size=4 optimizer.lr=0.1",
            f"{TRAIN_NET} {CITYSCAPES} --num-gpus 4 {LOG} "
            "SOLVER.IMS_PER_BATCH 16 SOLVER.BASE_LR 0.1",
        ),
        (
            "mask2former",
            "--cfg-options SEED=1 --nnodes 2 --nproc-per-node 4 --master-addr host "
            "--cfg-options train_dataloader.batch_size=1",
            f"{TRAIN_NET} {CITYSCAPES} --num-gpus 4 --num-machines 2 --machine-rank 0 "
            f"--dist-url tcp://host:29500 {LOG} SEED 1 SOLVER.IMS_PER_BATCH 8",
        ),
        (
            "mask2former",
            "--launcher pytorch --nnodes 2 --node-rank 1 --master-addr host --master-port 7",
            f"{TORCHRUN} --nproc-per-node 1 --nnodes 2 --node-rank 1 --master-addr host "
            f"--master-port 7 {TRAIN} {CITYSCAPES} {LOG}",
        ),
        (
            "mask2former",
            "--launcher pytorch --nproc-per-node 2 --master_port 7",
            f"{TORCHRUN} --nproc-per-node 2 --master-addr 127.0.0.1 --master-port 7 "
            f"{TRAIN} {CITYSCAPES} {LOG}",
        ),
        (
            "mask2former",
            "--nproc-per-node 2 --master-port 7",
            f"{TRAIN_NET} {CITYSCAPES} --num-gpus 2 --dist-url tcp://127.0.0.1:7 {LOG}",
        ),
    ],
)
def test_the_command_that_is_printed(name, arguments, expected):
    done = run_script(name, f"{arguments} --dry-run")
    assert done.returncode == 0, done.stderr
    *notes, command = done.stdout.splitlines()
    assert command == expected
    assert all(note.startswith("# ") for note in notes)
    assert ("train_cfg.max_iters" in done.stdout) == ("train_cfg.max_iters" in arguments)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ("a.yaml --config b.yaml", "two configs, a.yaml and b.yaml"),
        ("mask2former_r50_8xb2-90k_cityscapes.py", "did you mean mask2former_r50_8xb2-90k_citys"),
        ("my.py", "my.py: a Python config, and none of ours is like it; give one of the YAML"),
        ("--nnodes 2", "--nnodes 2 without --master-addr"),
        ("--cfg-options SEED", "'SEED'; give KEY=VALUE"),
        ("--cfg-options train_dataloader.batch_size=x", "batch_size=x; give the number of images"),
        ("--cfg-options data_root=/d/Cityscapes", "ln -s /d/Cityscapes /d/cityscapes"),
        (f"--cfg-options {DATA_ROOT}", "the folder has to be called cityscapes"),
        (
            "my.yaml --cfg-options data_root=/d/coco val_dataloader.dataset.data_root=/e/coco",
            "data_root=/d/coco and val_dataloader.dataset.data_root=/e/coco; let both lie in one",
        ),
    ],
)
def test_mistakes_get_a_sentence(arguments, sentence):
    done = run_script("mask2former", arguments)
    assert done.returncode == 2 and not done.stdout
    assert re.fullmatch(r"run_mask2former\.py: error: .+\n", done.stderr)
    assert sentence in done.stderr


@pytest.mark.parametrize(
    "key, hint",
    [
        ("train_cfg.max_iter", "did you mean SOLVER.MAX_ITER?"),
        ("train_dataloader.batchsize", "did you mean SOLVER.IMS_PER_BATCH?"),
        ("crop_size", "did you mean INPUT.CROP.SIZE?"),
        ("x", "mask2former/config/keys.py lists ours"),
    ],
)
def test_unknown_keys_get_a_hint(mm_names, key, hint):
    with pytest.raises(ValueError, match=f"{key}: no config key here; {re.escape(hint)}"):
        mm_names.our_pair(key, "9", 1)


def test_names_are_printed_of_one_config():
    script = str(SCRIPTS / "mm_names.py")
    assert called(sys.executable, script, ADE20K_MM).stdout == f"{ADE20K}\n"
    done = called(sys.executable, script)
    assert done.returncode == 1 and "mm_names.py CONFIG.py" in done.stderr


# Their backbone -> what our config says of it
BACKBONES = {
    "r50": {"MODEL.RESNETS.DEPTH": 50},
    "r101": {"MODEL.RESNETS.DEPTH": 101, "MODEL.RESNETS.STEM_TYPE": "basic"},
    "swin-t": {"MODEL.SWIN.EMBED_DIM": 96, "MODEL.SWIN.DEPTHS": [2, 2, 6, 2]},
    "swin-s": {"MODEL.SWIN.EMBED_DIM": 96, "MODEL.SWIN.DEPTHS": [2, 2, 18, 2]},
    "swin-b": {"MODEL.SWIN.EMBED_DIM": 128, "MODEL.SWIN.PRETRAIN_IMG_SIZE": 384},
    "swin-l": {"MODEL.SWIN.EMBED_DIM": 192, "MODEL.SWIN.PRETRAIN_IMG_SIZE": 384},
}
DATASETS = {
    "cityscapes": "cityscapes_fine_sem_seg_train",
    "ade20k": "ade20k_sem_seg_train",
    "coco": "coco_2017_train",
    "coco-panoptic": "coco_2017_train_panoptic",
}


def test_our_configs_are_what_their_names_say(mm_names):
    for theirs, ours in mm_names.CONFIGS.items():
        cfg = load_config(ours)
        values = {key: value_at(cfg, key) for key in flat_keys(cfg)}
        backbone = theirs.split("_")[1]
        short = re.match(r"r\d+|swin-.", backbone)[0]
        assert BACKBONES[short].items() <= values.items(), theirs
        assert ("swin" in theirs) == ("Swin" in values["MODEL.BACKBONE.NAME"])
        assert ("in22k" in theirs) == ("22k" in values["MODEL.WEIGHTS"]), theirs
        dataset, _, size = theirs.split("_")[-1].partition("-5" if "-512" in theirs else "-6")
        assert values["DATASETS.TRAIN"][0] == DATASETS[dataset], theirs
        assert theirs.startswith("maskformer_") == (
            values["MODEL.MASK_FORMER.MASK_LOSS"] == "whole_masks"
        )
        assert values["SOLVER.IMS_PER_BATCH"] == 16  # 8 processes with 2 images: 8xb2
        if size:
            height, width = re.search(r"(\d+)x(\d+)$", theirs).groups()
            assert list(values["INPUT.CROP.SIZE"]) == [int(height), int(width)], theirs
            thousands = re.search(r"-(\d+)k_", theirs)[1]
            assert values["SOLVER.MAX_ITER"] == int(thousands) * 1000, theirs


def value_at(node, key):
    for name in key.split("."):
        node = node[name]
    return node


def test_keys_and_folders_are_ours(mm_names):
    ours = set(flat_keys(load_config("quick_start.yaml")))
    translated = {*mm_names.KEYS.values(), *mm_names.PER_PROCESS.values()}
    assert translated <= ours
    folders = set(mm_names.DIRECTORIES.values())
    assert folders == {ade20k.DIRECTORY, "cityscapes", coco.DIRECTORY}


@pytest.fixture
def dist_train(python_that_only_shows):
    """Calls tools/dist_train.sh with a python that says what it was to train, and fails."""

    def call(arguments, **variables):
        hidden = dict.fromkeys(("SDAA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"), "")
        variables = hidden | {"PYTHON": python_that_only_shows} | variables
        return called("sh", str(ROOT / "tools/dist_train.sh"), *shlex.split(arguments), **variables)

    return call


@pytest.mark.parametrize(
    "arguments, variables, expected",
    [
        ("c.yaml 4", {}, "c.yaml --num-gpus 4"),
        ("c.yaml 2 --resume A 'b c'", {}, "c.yaml --num-gpus 2 --resume A 'b c'"),
        ('c.yaml 2 A "it\'s"', {}, "c.yaml --num-gpus 2 A 'it'\\''s'"),
        ("c.yaml", {"SDAA_VISIBLE_DEVICES": "0,1,2,3"}, "c.yaml --num-gpus 4"),
        (f"./{CITYSCAPES_MM} 4", {}, f"{CITYSCAPES} --num-gpus 4"),
        ("c.yaml SEED 1", {"CUDA_VISIBLE_DEVICES": "3"}, "c.yaml --num-gpus 1 SEED 1"),
        (
            "c.yaml --resume",
            {"SDAA_VISIBLE_DEVICES": "4,5", "CUDA_VISIBLE_DEVICES": "0"},
            "c.yaml --num-gpus 2 --resume",
        ),
        (
            "c.yaml 2 MODEL.DEVICE cpu",
            {"CUDA_VISIBLE_DEVICES": "-1"},
            "c.yaml --num-gpus 2 MODEL.DEVICE cpu",
        ),
        ("c.yaml", {"CUDA_VISIBLE_DEVICES": "1,-1,2"}, "c.yaml --num-gpus 1"),
        ("c.yaml 2", {"PORT": "7"}, "c.yaml --num-gpus 2 --dist-url tcp://127.0.0.1:7"),
        (
            "c.yaml 4 SEED 1",
            {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "host"},
            "c.yaml --num-gpus 4 --num-machines 2 --machine-rank 1 "
            "--dist-url tcp://host:29500 SEED 1",
        ),
    ],
)
def test_dist_train_prints_what_it_runs(dist_train, arguments, variables, expected):
    done = dist_train(arguments, **variables)
    printed, ran = done.stdout.splitlines()
    assert printed.split(" ", 1)[1] == f"{TRAIN} {expected}"
    assert ran == "".join(f"<{word}>" for word in shlex.split(printed)[1:])
    assert done.returncode == 7  # the run's own


@pytest.mark.parametrize(
    "arguments, variables, said",
    [
        ("", {}, "CONFIG is missing"),
        ("--resume c.yaml", {"SDAA_VISIBLE_DEVICES": "0"}, "CONFIG is '--resume'"),
        ("c.yaml", {}, "NUM_DEVICES is missing, and neither SDAA_VISIBLE_DEVICES nor CUDA_VIS"),
        ("c.yaml --resume", {"CUDA_VISIBLE_DEVICES": "-1"}, "NUM_DEVICES is missing"),
        ("c.yaml two", {}, "NUM_DEVICES is 'two'; give a number"),
        ("c.yaml 1", {"NNODES": "2"}, "NNODES is 2 without MASTER_ADDR"),
        ("my.py 1", {}, "my.py: a Python config"),
    ],
)
def test_dist_train_refuses(dist_train, arguments, variables, said):
    done = dist_train(arguments, **variables)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "error: " in last and said in last and not done.stdout


def test_dist_train_helps(dist_train):
    done = dist_train("--help")
    assert done.returncode == 0 and done.stderr.startswith("usage: ") and "error" not in done.stderr


TINY_MASKFORMER = f"""
_BASE_:
  - {ROOT}/{ADE20K}
  - {ROOT}/configs/recipes/quick_start.yaml
MODEL:
  BACKBONE: {{FREEZE_AT: 5}}
  RESNETS: {{NORM: FrozenBN}}
  SEM_SEG_HEAD: {{CONVS_DIM: 32, MASK_DIM: 32}}
  MASK_FORMER: {{HIDDEN_DIM: 32, NHEADS: 2, DIM_FEEDFORWARD: 32, DEC_LAYERS: 2}}
INPUT:
  SIZE_DIVISIBILITY: 64
  CROP: {{SIZE: [64, 64]}}
  MIN_SIZE_TRAIN: [64]
  MIN_SIZE_TEST: 64
DATALOADER: {{NUM_WORKERS: 0}}
"""


def run_of(name, workplace, *words):
    """A whole run in the workplace."""
    command = [sys.executable, str(SCRIPTS / f"run_{name}.py"), *map(str, words)]
    return subprocess.run(
        command,
        cwd=workplace.folder,
        env=workplace.environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )


def model_zoo_lines(text):
    return re.findall(r"TCAPPDLL .*Iteration: (\d+) .*train\.loss : (\S+)", text)


def test_a_run_of_mask2former(workplace):
    words = ("config.yaml", "--work-dir", "here", "--cfg-options")
    done = run_of("mask2former", workplace, *words, "SOLVER.MAX_ITER=2", "DATASETS.TEST=()")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{TRAIN_NET} config.yaml --num-gpus 1 {LOG} OUTPUT_DIR here")
    assert list(workplace.losses("here")) == [0, 1]
    assert len(model_zoo_lines(done.stdout)) == 2

    done = run_of("mask2former", workplace, *words, "SOLVER.MAX_ITERS=2")
    assert done.returncode == 1
    assert "did you mean SOLVER.MAX_ITER?" in done.stderr


def test_a_run_of_maskformer(workplace, tmp_path):
    root = tmp_path / "data"
    make_mini_ade20k(root, MiniSpec(64, 64, 2, 1), show_progress=False)
    (tmp_path / "maskformer.yaml").write_text(TINY_MASKFORMER)
    data = f"data_root={root}/ADEChallengeData2016"
    options = (data, "train_cfg.max_iters=2", "train_dataloader.batch_size=2", "DATASETS.TEST=()")
    words = ("--config=maskformer.yaml", "--device=cpu", "--launcher=pytorch", "--cfg-options")
    done = run_of("maskformer", workplace, *words, *options)
    assert done.returncode == 0, done.stderr
    assert f"DETECTRON2_DATASETS={root} {TORCHRUN}" in done.stdout
    assert list(workplace.losses()) == [0, 1]
    assert len(model_zoo_lines(done.stdout)) == 2
