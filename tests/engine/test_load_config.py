"""Configs are plain data; what is wrong with one is a sentence that names file and key."""

import pytest
from detectron2.config import get_cfg

from mask2former.config import load_config, validate_config

CONFIG = "configs/quick_start.yaml"


def write(folder, text):
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


def refused(*args):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        load_config(*args)
    sentence = str(error.value)
    assert "\n" not in sentence
    return sentence


def test_opts_override_the_file():
    cfg = load_config(CONFIG, ["SOLVER.MAX_ITER", "7", "DATASETS.TRAIN", "('a',)"])
    assert cfg.SOLVER.MAX_ITER == 7 and cfg.DATASETS.TRAIN == ("a",)


def test_packaged_config_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(CONFIG).SEED == load_config("quick_start.yaml").SEED


def test_missing_config_names_a_near_one():
    assert "did you mean quick_start.yaml?" in refused("configs/quick_stat.yaml")
    assert "--config-file" in refused("")


@pytest.mark.parametrize(
    "text", ["OUTPUT_DIR: !!python/object/apply:os.mkdir [{path}]", "_BASE_: evil.yaml"]
)
def test_python_tags_are_refused_and_do_not_run(tmp_path, text):
    mark = tmp_path / "attacked"
    attack = f"OUTPUT_DIR: !!python/object/apply:os.mkdir [{mark}]\n"
    (tmp_path / "evil.yaml").write_text(attack)
    path = write(tmp_path, text.format(path=mark))
    sentence = refused(path)
    assert "python/object/apply:os.mkdir" in sentence and str(tmp_path) in sentence
    assert "plain data" in sentence and not mark.exists()


def test_the_attack_would_work_on_a_careless_reader(tmp_path):
    import yaml

    mark = tmp_path / "attacked"
    yaml.unsafe_load(f"!!python/object/apply:os.mkdir [{mark}]")
    assert mark.is_dir()


def eval_tag(code):
    return f'INPUT:\n  MIN_SIZE_TRAIN: !!python/object/apply:eval ["{code}"]\n'


def test_size_lists_of_official_files_are_read(tmp_path):
    path = write(tmp_path, eval_tag("[int(x * 0.1 * 1024) for x in range(5, 8)]"))
    assert load_config(path).INPUT.MIN_SIZE_TRAIN == (512, 614, 716)
    cfg = get_cfg()  # as the official scripts read it
    cfg.merge_from_file(path)
    assert cfg.INPUT.MIN_SIZE_TRAIN == (512, 614, 716)


@pytest.mark.parametrize(
    "code",
    [
        "__import__('os').mkdir('{mark}')",
        "[int(x * 0.1 * 8) for x in range(5, 8)] + [__import__('os').mkdir('{mark}')]",
        "[__import__('os').mkdir('{mark}') for x in range(5, 8)]",
        "[int(x * 0.1 * 8) for x in range(5, 10 ** 9)]",
    ],
)
def test_other_expressions_are_refused_and_do_not_run(code, tmp_path):
    mark = tmp_path / "attacked"
    path = write(tmp_path, eval_tag(code.format(mark=mark)))
    assert "line 2" in refused(path) and not mark.exists()


@pytest.mark.parametrize("content", [b"MODEL: [", b"- 1\n- 2\n", b"", b"words", b"\xff\xfe"])
def test_what_is_no_mapping_is_refused(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    assert str(path) in refused(str(path))
    top = tmp_path / "top.yaml"
    top.write_text("_BASE_: config.yaml\n")
    assert refused(str(top)).startswith(str(path))


def test_files_that_stand_on_each_other(tmp_path):
    (tmp_path / "other.yaml").write_text("_BASE_: config.yaml\n")
    path = write(tmp_path, "_BASE_: other.yaml\n")
    assert refused(path).startswith(f"{path}: stands on itself ({path} -> {tmp_path}/other.yaml")


def test_a_file_may_stand_twice_under_another(tmp_path):
    (tmp_path / "low.yaml").write_text("SEED: 5\n")
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text("_BASE_: low.yaml\n")
    assert load_config(write(tmp_path, "_BASE_: [one.yaml, two.yaml]\n")).SEED == 5


@pytest.mark.parametrize("base", ["", "5", "[3]"])
def test_base_that_is_no_path(tmp_path, base):
    path = write(tmp_path, f"_BASE_: {base}\n")
    assert refused(path).startswith(f"{path}: its _BASE_ is ")


def test_config_of_another_version(tmp_path):
    assert "VERSION is 1; convert" in refused(write(tmp_path, "VERSION: 1\n"))


def test_missing_base_is_named(tmp_path):
    assert "nothing.yaml" in refused(write(tmp_path, "_BASE_: nothing.yaml\n"))


def test_unknown_key_in_a_file_names_the_nearest(tmp_path):
    path = write(tmp_path, "SOLVER:\n  MAX_ITERS: 3\n")
    sentence = refused(path)
    assert path in sentence and "SOLVER.MAX_ITERS" in sentence
    assert "did you mean SOLVER.MAX_ITER?" in sentence
    top = tmp_path / "top.yaml"
    top.write_text("_BASE_: config.yaml\n")
    assert refused(str(top)) == sentence  # the key stands in the lower file


def test_unknown_key_on_the_command_line_names_the_nearest():
    sentence = refused(CONFIG, ["MODEL.MASK_FORMER.NUM_OBJECT_QUERYS", "3"])
    assert sentence.startswith("command line: ")
    assert "did you mean MODEL.MASK_FORMER.NUM_OBJECT_QUERIES?" in sentence


def test_value_of_another_type(tmp_path):
    path = write(tmp_path, "SOLVER:\n  MAX_ITER: many\n")
    assert f"{path}: SOLVER.MAX_ITER=many" in refused(path)
    assert "SOLVER.MAX_ITER=many" in refused(CONFIG, ["SOLVER.MAX_ITER", "many"])
    assert "SOLVER is a group of keys" in refused(CONFIG, ["SOLVER", "1"])


@pytest.mark.parametrize("where", ["config.yaml", "top.yaml"])
@pytest.mark.parametrize("value", ["3", "[1, 2]", ""])
def test_value_in_the_place_of_a_group(tmp_path, where, value):
    """Also in a file that others stand on, which detectron2 merges before it looks at types."""
    path = write(tmp_path, f"SOLVER: {value}\n")
    (tmp_path / "top.yaml").write_text("_BASE_: config.yaml\nSOLVER: {MAX_ITER: 3}\n")
    sentence = refused(str(tmp_path / where))
    assert sentence.startswith(f"{path}: SOLVER is a group of keys, not a value; set one of ")


def test_one_dataset_needs_neither_quotes_nor_brackets():
    cfg = load_config(
        CONFIG, ["DATASETS.TRAIN", "semantic:C:\\new:b", "DATASETS.TEST", "('a','b')"]
    )
    assert cfg.DATASETS.TRAIN == ("semantic:C:\\new:b",) and cfg.DATASETS.TEST == ("a", "b")


def test_odd_number_of_words():
    assert "'7' is left over" in refused(CONFIG, ["SOLVER.MAX_ITER", "3", "7"])
    assert "put --resume before" in refused(CONFIG, ["SOLVER.MAX_ITER", "3", "--resume"])


@pytest.mark.parametrize(
    "opts, expected",
    [
        (["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "20"], "has 19 classes; set it to 19"),
        (["DATASETS.TRAIN", "('mini_cityscapes_fine_sem_seg_trian',)"], "did you mean mini_"),
        (["DATASETS.TEST", "('nowhere',)"], "DATASETS.TEST: unknown dataset nowhere"),
        (["DATASETS.TRAIN", "()"], "DATASETS.TRAIN is empty"),
        (["SOLVER.IMS_PER_BATCH", "7", "SOLVER.ACCUMULATE_STEPS", "2"], "multiple of 2"),
        (["SOLVER.MAX_ITER", "0"], "SOLVER.MAX_ITER=0"),
        (["SOLVER.OPTIMIZER", "ADAM"], "set it to ADAMW or SGD"),
        (["SOLVER.LR_SCHEDULER_NAME", "Poly"], "set it to one of WarmupPolyLR, "),
        (["MODEL.META_ARCHITECTURE", "MaskForner"], "did you mean MaskFormer?"),
        (["MODEL.BACKBONE.NAME", "?"], "MODEL.BACKBONE.NAME: unknown name ?; set it to one of"),
        (["MODEL.SEM_SEG_HEAD.NAME", "MaskHead"], "did you mean MaskFormerHead?"),
        (["MODEL.DEVICE", "gpu"], "MODEL.DEVICE='gpu'"),
        (["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "int8"], "SOLVER.AMP.DTYPE='int8'"),
        (["OUTPUT_DIR", ""], "OUTPUT_DIR is empty"),
        (["OUTPUT_DIR", __file__], f"but {__file__} is no folder"),
        (["OUTPUT_DIR", f"{__file__}/new/folder"], f"but {__file__} is no folder"),
        (["SOLVER.BASE_LR", "-1.0"], "SOLVER.BASE_LR=-1.0"),
        (["MODEL.MASK_FORMER.TEST.SEMANTIC_ON", "False"], "set one of them to True"),
        (["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "()"], "MIN_SIZES=() and MAX_SIZE="),
        (["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(0,9)"], "MIN_SIZES=(0, 9) and"),
        (["TEST.EVALUATOR", "slow"], "TEST.EVALUATOR='slow'; set it to fast or reference"),
        (["SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "all"], "set it to one of full_model, value, norm"),
        (["INPUT.CROP.SIZE", "[0, 0]"], "INPUT.CROP.SIZE=[0, 0]; set it to a height and a width"),
        (["MODEL.SEM_SEG_HEAD.IN_FEATURES", "['res9']"], "names res9; take some of res2, res3, "),
        (["MODEL.SEM_SEG_HEAD.IN_FEATURES", "[]"], "names nothing; take some of res2, res3, "),
        (["MODEL.RESNETS.OUT_FEATURES", "['res9']"], "MODEL.RESNETS.OUT_FEATURES names res9"),
        (["MODEL.RESNETS.OUT_FEATURES", "['res5']"], "IN_FEATURES names res2; take some of res5"),
        (
            ["MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES", "['res6']"],
            "ENCODER_IN_FEATURES names res6; take some of res2, res3, res4, res5",
        ),
        (["MODEL.MASK_FORMER.TEST.SEMANTIC_ON", "False"], "PANOPTIC_ON are all False"),
        (["DATALOADER.MAX_BAD_SAMPLES", "-1"], "MAX_BAD_SAMPLES=-1; set it to 0 or more"),
    ],
)
def test_what_cannot_work_is_refused(opts, expected):
    cfg = load_config(CONFIG, opts)
    with pytest.raises(ValueError) as error:
        validate_config(cfg)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_batch_must_suit_the_processes():
    cfg = load_config(CONFIG, ["SOLVER.IMS_PER_BATCH", "4"])
    validate_config(cfg, num_processes=4)
    with pytest.raises(ValueError, match="3 process"):
        validate_config(cfg, num_processes=3)


def test_several_processes_do_not_share_one_device(monkeypatch):
    monkeypatch.setattr("mask2former.device.device_count", lambda kind: 2)
    cfg = load_config(CONFIG, ["MODEL.DEVICE", "cuda:1"])
    validate_config(cfg)
    with pytest.raises(ValueError, match="'cuda:1' is one device, but there are 2 processes"):
        validate_config(cfg, num_processes=2)


def test_evaluation_needs_a_dataset():
    cfg = load_config(CONFIG, ["DATASETS.TEST", "()"])
    validate_config(cfg)
    with pytest.raises(ValueError, match=r"DATASETS\.TEST is empty"):
        validate_config(cfg, eval_only=True)


def test_evaluation_does_not_look_at_what_training_needs():
    cfg = load_config(CONFIG, ["SOLVER.IMS_PER_BATCH", "3", "DATASETS.TRAIN", "('nowhere',)"])
    validate_config(cfg, num_processes=2, eval_only=True)


CLASSES_OF_DATASETS = {
    "ade20k_sem_seg_val": 150,
    "ade20k_instance_val": 100,
    "ade20k_panoptic_val": 150,
    "ade20k_full_sem_seg_val": 847,
    "cityscapes_fine_sem_seg_val": 19,
    "cityscapes_fine_instance_seg_val": 8,
    "cityscapes_fine_panoptic_val": 19,
    "coco_2017_val": 80,
    "coco_2017_train_panoptic": 133,
    "coco_2017_val_panoptic_with_sem_seg": 133,
    "coco_2017_test_stuff_10k_sem_seg": 171,
    "mapillary_vistas_sem_seg_val": 65,
    "mapillary_vistas_panoptic_val": 65,
}


@pytest.mark.parametrize("name", CLASSES_OF_DATASETS)
def test_number_of_classes_of_each_kind_of_dataset(name):
    number = CLASSES_OF_DATASETS[name]
    opts = ["DATASETS.TRAIN", name, "DATASETS.TEST", name, "MODEL.SEM_SEG_HEAD.NUM_CLASSES"]
    validate_config(load_config(CONFIG, [*opts, str(number)]))
    with pytest.raises(ValueError, match=f"but {name} has {number} classes; set it to {number}"):
        validate_config(load_config(CONFIG, [*opts, str(number + 1)]))


@pytest.mark.parametrize("number", [80, 133])
def test_things_and_stuff_that_are_numbered_apart(number):
    name = "coco_2017_val_panoptic_separated"
    cfg = load_config(
        CONFIG, ["DATASETS.TEST", name, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", str(number)]
    )
    with pytest.raises(ValueError, match=f"{name} numbers things and stuff apart, .* PanopticFPN"):
        validate_config(cfg, eval_only=True)
