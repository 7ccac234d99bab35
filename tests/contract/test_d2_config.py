"""Config nodes, the defaults, config files, and what is built from a config."""

import json
import pickle
from pathlib import Path

import detectron2.config
import pytest
from detectron2.config import CfgNode, configurable, get_cfg, set_global_cfg

# key -> repr of its default: written by the real detectron2
DEFAULTS = json.loads(
    (Path(__file__).parents[1] / "goldens" / "d2_config_defaults.json").read_text()
)


def leaves(node, prefix=""):
    for name, value in node.items():
        if isinstance(value, CfgNode):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@pytest.fixture
def write(tmp_path):
    def write_file(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return write_file


def test_every_default_has_its_value_and_type():
    assert {key: repr(value) for key, value in leaves(get_cfg())} == DEFAULTS


def test_every_config_is_a_copy_of_its_own():
    first = get_cfg()
    first.MODEL.PIXEL_MEAN.append(1.0)
    first.MODEL.RESNETS.DEPTH = 18
    assert get_cfg().MODEL.RESNETS.DEPTH == 50
    assert len(get_cfg().MODEL.PIXEL_MEAN) == 3
    copy = first.clone()
    copy.MODEL.RESNETS.DEPTH = 34
    assert first.MODEL.RESNETS.DEPTH == 18


def test_a_file_overrides_its_bases_in_order(write):
    write("base.yaml", "SOLVER: {BASE_LR: 0.5, MAX_ITER: 10}\nMODEL: {RESNETS: {DEPTH: 18}}\n")
    write("more/middle.yaml", "_BASE_: ../base.yaml\nSOLVER: {MAX_ITER: 20}\n")
    path = write("more/top.yaml", "_BASE_: middle.yaml\nMODEL: {RESNETS: {DEPTH: 34}}\n")
    cfg = get_cfg()
    cfg.merge_from_file(path)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.MODEL.RESNETS.DEPTH) == (0.5, 20, 34)
    assert cfg.SOLVER.MOMENTUM == 0.9


def test_several_bases(write):
    write("a.yaml", "SEED: 1\nSOLVER: {MAX_ITER: 1}\n")
    write("b.yaml", "SEED: 2\n")
    loaded = CfgNode.load_yaml_with_base(write("c.yaml", "_BASE_: [a.yaml, b.yaml]\nVIS_PERIOD: 3"))
    assert loaded == {"SEED": 2, "SOLVER": {"MAX_ITER": 1}, "VIS_PERIOD": 3}


def test_the_type_of_the_default_decides(write):
    cfg = get_cfg()
    text = "SOLVER: {STEPS: [1, 2]}\nINPUT: {CROP: {SIZE: '(0.5, 0.5)'}}\nDATASETS:\n  TRAIN: "
    with pytest.raises(ValueError, match="DATASETS"):  # (a,) is no python literal: a string
        cfg.merge_from_file(write("wrong.yaml", text + "(a,)"))
    cfg.merge_from_file(write("right.yaml", text + "('a',)"))
    assert cfg.SOLVER.STEPS == (1, 2)
    assert cfg.INPUT.CROP.SIZE == [0.5, 0.5]
    assert cfg.DATASETS.TRAIN == ("a",)
    cfg.SOLVER.WEIGHT_DECAY_BIAS = None
    cfg.merge_from_list(["SOLVER.WEIGHT_DECAY_BIAS", "0.5", "MODEL.WEIGHTS", "a/b.pkl"])
    assert cfg.SOLVER.WEIGHT_DECAY_BIAS == 0.5
    assert cfg.MODEL.WEIGHTS == "a/b.pkl"
    cfg.merge_from_list(["TEST.AUG.MIN_SIZES", "[1, 2]", "SOLVER.AMP.ENABLED", "True"])
    assert cfg.TEST.AUG.MIN_SIZES == (1, 2)
    assert cfg.SOLVER.AMP.ENABLED is True


def test_unknown_keys_and_wrong_types_are_refused(write):
    with pytest.raises(KeyError, match=r"MODEL\.BACKBON"):
        get_cfg().merge_from_file(write("a.yaml", "MODEL: {BACKBON: {NAME: x}}"))
    with pytest.raises(ValueError, match=r"SOLVER\.MAX_ITER"):
        get_cfg().merge_from_file(write("b.yaml", "SOLVER: {MAX_ITER: many}"))
    with pytest.raises((AssertionError, KeyError)):
        get_cfg().merge_from_list(["MODEL.NO_SUCH_KEY", "1"])
    with pytest.raises(ValueError, match=r"SOLVER\.MAX_ITER"):
        get_cfg().merge_from_list(["SOLVER.MAX_ITER", "1.5"])


def test_versions(write):
    cfg = get_cfg()
    cfg.merge_from_file(write("without.yaml", "SEED: 1"))
    cfg.merge_from_file(write("same.yaml", "VERSION: 2\nVIS_PERIOD: 7"))
    assert (cfg.VERSION, cfg.SEED, cfg.VIS_PERIOD) == (2, 1, 7)
    with pytest.raises((AssertionError, ValueError), match=r"3"):
        cfg.merge_from_file(write("newer.yaml", "VERSION: 3\nSEED: 9"))
    assert cfg.SEED == 1


def test_a_missing_file_is_named():
    with pytest.raises((AssertionError, FileNotFoundError), match=r"nowhere\.yaml"):
        get_cfg().merge_from_file("nowhere.yaml")


def test_freezing():
    cfg = get_cfg()
    cfg.freeze()
    with pytest.raises(AttributeError):
        cfg.SEED = 3
    with pytest.raises(AttributeError):
        cfg.MODEL.DEVICE = "cpu"
    cfg.COMPUTED_SIZE = 3  # keys of this prefix may be put once, at any time
    with pytest.raises(KeyError):
        cfg.COMPUTED_SIZE = 4
    cfg.defrost()
    cfg.SEED = 3
    assert (cfg.SEED, cfg.COMPUTED_SIZE) == (3, 3)


def test_new_keys_where_they_are_allowed(write):
    path = write("a.yaml", "A: {X: {Y: 2}}")
    with pytest.raises(KeyError):
        CfgNode({"VERSION": 2, "A": {}}).merge_from_file(path)
    cfg = CfgNode({"VERSION": 2, "A": {}})
    cfg.A.set_new_allowed(True)
    cfg.merge_from_file(path)
    assert cfg.A.X.Y == 2


def test_dump_and_load_give_the_same_config(write):
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.STEPS", "(5, 6)", "MODEL.MASK_ON", "True", "OUTPUT_DIR", "x"])
    other = get_cfg()
    other.merge_from_file(write("dump.yaml", cfg.dump()))
    # JSON, as the inner tuples of a nested one come back as lists
    assert json.dumps(dict(leaves(other))) == json.dumps(dict(leaves(cfg)))
    assert other.SOLVER.STEPS == (5, 6)
    assert dict(leaves(pickle.loads(pickle.dumps(cfg)))) == dict(leaves(cfg))


def test_the_global_config_stays_one_object():
    before = detectron2.config.global_cfg
    cfg = get_cfg()
    cfg.SEED = 12
    set_global_cfg(cfg)
    assert before is detectron2.config.global_cfg
    assert before.SEED == 12


class Layer:
    @configurable
    def __init__(self, width, *, depth=2, name="layer"):
        self.width, self.depth, self.name = width, depth, name

    @classmethod
    def from_config(cls, cfg, scale=1):
        return {"width": cfg.WIDTH * scale, "depth": cfg.DEPTH}


class DoubleLayer(Layer):
    @classmethod
    def from_config(cls, cfg, scale=1):
        return {**super().from_config(cfg, scale), "depth": 2 * cfg.DEPTH}


class OwnInit(Layer):
    def __init__(self, width):
        super().__init__(width, depth=9)


CFG = CfgNode({"WIDTH": 3, "DEPTH": 5})


@pytest.mark.parametrize(
    "layer, expected",
    [
        (lambda: Layer(1), (1, 2, "layer")),
        (lambda: Layer(width=1, depth=4), (1, 4, "layer")),
        (lambda: Layer(CFG), (3, 5, "layer")),
        (lambda: Layer(cfg=CFG), (3, 5, "layer")),
        (lambda: Layer(CFG, 2), (6, 5, "layer")),
        (lambda: Layer(CFG, scale=2, name="other"), (6, 5, "other")),
        (lambda: Layer(CFG, depth=7), (3, 7, "layer")),
        (lambda: DoubleLayer(CFG), (3, 10, "layer")),
        (lambda: OwnInit(8), (8, 9, "layer")),
    ],
)
def test_configurable_classes(layer, expected):
    made = layer()
    assert (made.width, made.depth, made.name) == expected


@configurable(from_config=lambda cfg, scale=1: {"width": cfg.WIDTH * scale})
def make_layer(width, name="made"):
    return width, name


def test_configurable_functions():
    assert make_layer(4) == (4, "made")
    assert make_layer(CFG) == (3, "made")
    assert make_layer(CFG, scale=3, name="x") == (9, "x")
    assert make_layer.from_config(CFG) == {"width": 3}


def test_from_config_may_take_anything():
    @configurable(from_config=lambda cfg, **kwargs: {"given": kwargs})
    def make(given):
        return given

    assert make(CFG, a=1, b=2) == {"a": 1, "b": 2}


def test_configurable_needs_from_config():
    class Without:
        @configurable
        def __init__(self, width):
            self.width = width

    class OtherName(Without):
        @classmethod
        def from_config(cls, config):
            return {"width": 1}

    with pytest.raises((AttributeError, TypeError), match="from_config"):
        Without(CFG)
    with pytest.raises(TypeError, match="cfg"):
        OtherName(CFG)
