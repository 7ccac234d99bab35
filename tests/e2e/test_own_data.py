"""A person's own files train, evaluate and reload without a line of Python."""

import math
import shutil

import pytest
import yaml
from drawn_shapes import write_coco, write_panoptic, write_semantic

# Small pictures as they are, and as many iterations as the shapes take to be found.
LEARN = (
    *("INPUT.CROP.ENABLED", "False", "INPUT.COLOR_AUG_SSD", "False"),
    *("INPUT.MIN_SIZE_TRAIN", "(48,)", "INPUT.MIN_SIZE_TEST", "48"),
    *("SOLVER.MAX_ITER", "30", "SOLVER.BASE_LR", "0.003"),
)
WEIGHTS = ("MODEL.WEIGHTS", "output/model_final.pth")

# How files of a kind are written, the config for it, where its score stands, what chance cannot do
KINDS = {
    "semantic": (write_semantic, "quick_start.yaml", ("sem_seg", "mIoU"), 70),
    "coco": (write_coco, "quick_start_instance.yaml", ("segm", "AP"), 40),
    "panoptic": (write_panoptic, "quick_start_panoptic.yaml", ("panoptic_seg", "PQ"), 60),
}


def prepare(workplace, kind, **options):
    """Files under train/ and val/, named from the current folder, and a config for them."""
    write, config, *_ = KINDS[kind]
    names = []
    for seed, part in enumerate(("train", "val")):
        name = write(workplace.folder / part, seed=seed, **options)
        names.append(name.replace(f"{workplace.folder}/", ""))
    path = workplace.folder / "config.yaml"
    path.write_text(path.read_text().replace("configs/quick_start.yaml", f"configs/{config}"))
    return "DATASETS.TRAIN", names[0], "DATASETS.TEST", names[1]


def saved_config(workplace, folder="output"):
    return yaml.safe_load((workplace.folder / folder / "config.yaml").read_text())


def numbers(results):
    return {
        (task, name): math.nan if value is None else value
        for task, metrics in results.items()
        for name, value in metrics.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_own_files_are_learned_and_judged_again_to_the_same(workplace, kind):
    data = prepare(workplace, kind)
    workplace.main(*data, *LEARN)
    results = workplace.results()
    *_, (task, score), chance = KINDS[kind]
    assert results[task][score] > chance
    if kind == "panoptic":
        assert results["segm"]["AP"] > 20 and results["sem_seg"]["mIoU"] > 50

    saved = saved_config(workplace)
    names = ["floor", "disk", "box"][kind == "coco" :]
    assert saved["DATASETS"]["CLASS_NAMES"] == names
    assert saved["MODEL"]["SEM_SEG_HEAD"]["NUM_CLASSES"] == len(names)
    # The saved config and the weights are all that an evaluation needs, in any number of processes.
    (workplace.folder / "config.yaml").write_text((workplace.output / "config.yaml").read_text())
    shutil.rmtree(workplace.folder / "train")
    done = workplace.run("--eval-only", "--num-gpus", "2", *WEIGHTS, "OUTPUT_DIR", "again")
    assert done.returncode == 0, done.stderr
    expected = pytest.approx(numbers(results), rel=1e-12, nan_ok=True)
    assert numbers(workplace.results("again")) == expected  # but for the order of sums over images


def test_through_real_processes(workplace):
    """Two of them: each registers the folders, one counts what nobody named."""
    data = prepare(workplace, "semantic", names=None)
    rare = ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler")
    weighed = ("MODEL.MASK_FORMER.CLASS_WEIGHTS", "['auto']")
    scaled = ("SOLVER.AUTO_SCALE", "True", "SOLVER.REFERENCE_IMS_PER_BATCH", "4")
    done = workplace.run("--num-gpus", "2", *data, *rare, *weighed, *scaled)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("NUM_CLASSES 3, from the values in train/labels and val/labels") == 1
    assert "SOLVER.MAX_ITER 4 -> 8" in done.stdout
    saved = saved_config(workplace)
    assert saved["MODEL"]["MASK_FORMER"]["CLASS_WEIGHTS"] == [f"class_{i}=1" for i in range(3)]
    assert saved["SOLVER"]["MAX_ITER"] == 8 and len(workplace.losses()) == 8
    results = workplace.results()

    workplace.main("--eval-only", *data, *WEIGHTS, "OUTPUT_DIR", "again")
    assert workplace.results("again") == results


def test_a_scaled_run_goes_on_as_it_began(workplace):
    """By the same command, and by its saved config, which is not scaled again."""
    scaled = ("SOLVER.AUTO_SCALE", "True", "SOLVER.REFERENCE_IMS_PER_BATCH", "4")
    opts = ("DATASETS.TEST", "()", "SOLVER.CHECKPOINT_PERIOD", "2")
    workplace.main(*opts, *scaled)
    whole = workplace.losses()
    assert list(whole) == list(range(8))
    (workplace.output / "last_checkpoint").write_text("model_0000003.pth")
    workplace.main("--resume", *opts, *scaled)
    assert workplace.losses() == whole
    (workplace.folder / "config.yaml").write_text((workplace.output / "config.yaml").read_text())
    (workplace.output / "last_checkpoint").write_text("model_0000003.pth")
    workplace.main("--resume")
    assert workplace.losses() == whole


def test_a_mistake_in_own_files_is_one_sentence(workplace, capsys):
    data = prepare(workplace, "coco")
    (workplace.folder / "val" / "images" / "3.png").unlink()
    with pytest.raises(SystemExit) as error:
        workplace.main(*data)
    said = capsys.readouterr().err
    assert error.value.code == 1 and "Traceback" not in said
    assert "error: val/images/3.png: no such file, but val/shapes.json lists it" in said
    assert not workplace.output.exists()
