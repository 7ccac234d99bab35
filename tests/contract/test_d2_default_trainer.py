"""A whole training from a config: a model of one weight, a dataset in memory."""

import json
import math

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import (
    DefaultPredictor,
    DefaultTrainer,
    SimpleTrainer,
    hooks,
)
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

DATASET = "contract_points"
POINTS = [{"x": float(x), "y": 3.0 * x} for x in (1, 2, 0.5, 1.5)]

DatasetCatalog.register(DATASET, lambda: [dict(p) for p in POINTS])
MetadataCatalog.get(DATASET).set(evaluator_type="points")


@META_ARCH_REGISTRY.register()
class ContractPoints(nn.Module):
    """y = weight * x; in evaluation it tells its prediction, for an image its mean and size."""

    def __init__(self, cfg):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.norm = nn.BatchNorm1d(1)
        self.device = torch.device(cfg.MODEL.DEVICE)

    def forward(self, batch):
        if "image" in batch[0]:
            image = batch[0]["image"]
            size = {"height": batch[0]["height"], "width": batch[0]["width"]}
            return [{"mean": image.float().mean((1, 2)), "shape": tuple(image.shape), **size}]
        x = torch.tensor([[p["x"]] for p in batch])
        if not self.training:
            return [{"y": (self.weight * p["x"]).item()} for p in batch]
        y = torch.tensor([[p["y"]] for p in batch])
        return {
            "loss_fit": ((self.weight * x - y) ** 2).mean(),
            "loss_norm": 0 * self.norm(x).sum(),
        }


class PointEvaluator(DatasetEvaluator):
    def reset(self):
        self.errors = []

    def process(self, inputs, outputs):
        self.errors += [abs(i["y"] - o["y"]) for i, o in zip(inputs, outputs)]

    def evaluate(self):
        return {"points": {"error": sum(self.errors) / len(self.errors)}}


class Forever:
    """The same batches again and again."""

    def __iter__(self):
        while True:
            yield POINTS


class Trainer(DefaultTrainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return Forever()

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return [[point] for point in DatasetCatalog.get(dataset_name)]

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return PointEvaluator()


class NoEvaluator(Trainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return super(Trainer, cls).build_evaluator(cfg, dataset_name)


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "ContractPoints"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.DATASETS.TRAIN = (DATASET,)
    cfg.DATASETS.TEST = (DATASET,)
    cfg.SOLVER.MAX_ITER = 6
    cfg.SOLVER.BASE_LR = 0.1
    cfg.SOLVER.MOMENTUM = 0.5
    cfg.SOLVER.WARMUP_ITERS = 0
    cfg.SOLVER.STEPS = (4,)
    cfg.SOLVER.CHECKPOINT_PERIOD = 2
    cfg.TEST.EVAL_PERIOD = 3
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    return cfg


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


def train(cfg, resume=False, trainer_class=Trainer):
    trainer = trainer_class(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def test_a_run_learns_and_leaves_its_files(cfg, output):
    trainer = train(cfg)
    assert trainer.iter == 6
    assert trainer.model.weight.item() == pytest.approx(3.0, abs=0.6)
    names = {p.name for p in output.iterdir() if not p.name.startswith("events.")}
    checkpoints = {f"model_000000{i}.pth" for i in (1, 3, 5)} | {"model_final.pth"}
    assert names == checkpoints | {"last_checkpoint", "metrics.json"}
    assert (output / "last_checkpoint").read_text() == "model_final.pth"
    assert len(list(output.glob("events.out.tfevents.*"))) == 1

    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    written = {line.pop("iteration"): line for line in lines}
    assert set(written) == {2, 5, 6}  # of the evaluation between, the last step, and after it
    assert set(written[2]) == {"points/error"}
    assert written[5]["lr"] == pytest.approx(0.01)
    assert {"total_loss", "loss_fit", "loss_norm", "data_time", "time"} <= set(written[5])
    error = abs(trainer.model.weight.item() - 3) * np.mean([p["x"] for p in POINTS])
    assert written[6] == {"points/error": pytest.approx(error)}


def test_the_hooks_stand_in_their_order(cfg):
    cfg.TEST.PRECISE_BN.ENABLED = True
    trainer = Trainer(cfg)
    assert [type(h).__name__ for h in trainer._hooks] == [
        "IterationTimer",
        "LRScheduler",
        "PreciseBN",
        "PeriodicCheckpointer",
        "EvalHook",
        "PeriodicWriter",
    ]
    cfg.TEST.PRECISE_BN.ENABLED = False
    assert not any(isinstance(h, hooks.PreciseBN) for h in Trainer(cfg)._hooks)


def test_what_a_checkpoint_holds(cfg, output):
    train(cfg)
    saved = torch.load(output / "model_0000003.pth", weights_only=True)
    assert set(saved) == {"model", "trainer", "iteration"}
    assert saved["iteration"] == 3
    assert "weight" in saved["model"]
    trainer = saved["trainer"]
    assert set(trainer) == {"iteration", "hooks", "_trainer"}
    assert trainer["iteration"] == 3
    assert set(trainer["hooks"]) == {"LRScheduler"}
    assert trainer["hooks"]["LRScheduler"]["last_epoch"] == 4
    assert set(trainer["_trainer"]) == {"iteration", "optimizer"}
    assert trainer["_trainer"]["optimizer"]["state"]


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(cfg, output, tmp_path):
    whole = train(cfg)

    cfg.OUTPUT_DIR = str(tmp_path / "interrupted")

    class Stops(Trainer):
        def run_step(self):
            if self.iter == 5:
                raise KeyError("power cut")
            super().run_step()

    with pytest.raises(KeyError):
        train(cfg, trainer_class=Stops)
    resumed = Trainer(cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 4  # the last checkpoint is of iteration 3
    resumed.train()
    assert resumed.model.weight.item() == whole.model.weight.item()
    histories = [t.storage.history("lr").values() for t in (whole, resumed)]
    assert histories[1] == histories[0][4:]


def test_resume_without_a_checkpoint_loads_the_weights(cfg, tmp_path):
    path = tmp_path / "start.pth"
    state = {"weight": torch.tensor([2.5])}
    torch.save({"model": state, "iteration": 99}, path)
    cfg.MODEL.WEIGHTS = str(path)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 0
    assert trainer.model.weight.item() == 2.5


def test_without_resume_the_checkpoints_of_the_folder_are_not_read(cfg):
    train(cfg)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    assert trainer.start_iter == 0
    assert trainer.model.weight.item() == 0


def test_a_finished_run_resumes_to_its_evaluation_only(cfg):
    train(cfg)
    calls = []

    class Watches(Trainer):
        @classmethod
        def test(cls, cfg, model, evaluators=None):
            calls.append(model.weight.item())
            return super().test(cfg, model, evaluators)

        def run_step(self):
            raise AssertionError("nothing is left to do")

    trainer = train(cfg, resume=True, trainer_class=Watches)
    assert trainer.start_iter == 6
    assert len(calls) == 1


def test_expected_results_are_verified_and_returned(cfg):
    cfg.TEST.EXPECTED_RESULTS = [["points", "error", 0.0, 1.0]]
    results = Trainer(cfg).train()
    assert results["points"]["error"] < 1.0
    cfg.TEST.EXPECTED_RESULTS = [["points", "error", 77.0, 1.0]]
    with pytest.raises(SystemExit):
        Trainer(cfg).train()


def test_no_results_are_returned_unless_expected(cfg):
    assert Trainer(cfg).train() is None


def test_model_data_and_optimizer_are_of_the_trainer_that_steps(cfg):
    trainer = Trainer(cfg)
    assert isinstance(trainer._trainer, SimpleTrainer)
    for name in ("model", "data_loader", "optimizer"):
        assert getattr(trainer, name) is getattr(trainer._trainer, name)
    trainer.data_loader = [POINTS]
    assert trainer._trainer.data_loader == [POINTS]


def test_evaluation_of_one_dataset_and_of_several(cfg):
    model = Trainer.build_model(cfg).eval()
    mean = np.mean([p["y"] for p in POINTS])
    assert Trainer.test(cfg, model) == {"points": {"error": pytest.approx(mean)}}
    assert Trainer.test(cfg, model, PointEvaluator())["points"]["error"] == pytest.approx(mean)
    assert Trainer.test(cfg, model, [PointEvaluator()])["points"]["error"] == pytest.approx(mean)
    cfg.DATASETS.TEST = (DATASET, "contract_points_again")
    DatasetCatalog.register("contract_points_again", lambda: [dict(POINTS[0])])
    try:
        results = Trainer.test(cfg, model)
        assert list(results) == list(cfg.DATASETS.TEST)
        assert results["contract_points_again"]["points"]["error"] == 3.0
        with pytest.raises(AssertionError):
            Trainer.test(cfg, model, [PointEvaluator()])
    finally:
        DatasetCatalog.remove("contract_points_again")


def test_without_an_evaluator_there_are_no_results(cfg):
    model = NoEvaluator.build_model(cfg)
    assert NoEvaluator.test(cfg, model) == {}
    with pytest.raises(NotImplementedError):
        NoEvaluator.build_evaluator(cfg, DATASET)


def test_config_is_scaled_to_the_number_of_processes(cfg):
    assert DefaultTrainer.auto_scale_workers(cfg, 4) is cfg  # REFERENCE_WORLD_SIZE is 0
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 8
    cfg.SOLVER.IMS_PER_BATCH = 16
    cfg.SOLVER.BASE_LR = 0.1
    cfg.SOLVER.MAX_ITER = 5000
    cfg.SOLVER.STEPS = (4000, 4500)
    cfg.SOLVER.WARMUP_ITERS = 100
    cfg.SOLVER.CHECKPOINT_PERIOD = 1000
    cfg.TEST.EVAL_PERIOD = 501
    cfg.freeze()
    assert DefaultTrainer.auto_scale_workers(cfg, 8) is cfg
    scaled = DefaultTrainer.auto_scale_workers(cfg, 16)
    solver = scaled.SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER) == (32, 0.2, 2500)
    assert (solver.STEPS, solver.WARMUP_ITERS) == ((2000, 2250), 50)
    assert (solver.CHECKPOINT_PERIOD, scaled.TEST.EVAL_PERIOD) == (500, 250)
    assert solver.REFERENCE_WORLD_SIZE == 16
    assert scaled.is_frozen()
    assert cfg.SOLVER.IMS_PER_BATCH == 16
    down = DefaultTrainer.auto_scale_workers(cfg, 2)
    assert (down.SOLVER.IMS_PER_BATCH, down.SOLVER.MAX_ITER) == (4, 20000)
    with pytest.raises((AssertionError, ValueError), match="REFERENCE_WORLD_SIZE"):
        cfg = cfg.clone()
        cfg.defrost()
        cfg.SOLVER.IMS_PER_BATCH = 15
        DefaultTrainer.auto_scale_workers(cfg, 2)


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_predictor_resizes_and_orders_the_channels(cfg, image_format):
    cfg.INPUT.FORMAT = image_format
    cfg.INPUT.MIN_SIZE_TEST = 20
    cfg.INPUT.MAX_SIZE_TEST = 100
    predictor = DefaultPredictor(cfg)
    assert predictor.metadata.evaluator_type == "points"
    assert not predictor.model.training
    image = np.zeros((10, 30, 3), dtype=np.uint8)
    image[:, :, 0] = 100  # blue
    output = predictor(image)
    assert output["shape"] == (3, 20, 60)
    assert (output["height"], output["width"]) == (10, 30)
    blue = 0 if image_format == "BGR" else 2
    assert output["mean"][blue].item() == pytest.approx(100)
    assert output["mean"].sum().item() == pytest.approx(100)


def test_predictor_loads_its_weights(cfg, tmp_path):
    torch.save({"model": {"weight": torch.tensor([7.0])}}, tmp_path / "w.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "w.pth")
    assert DefaultPredictor(cfg).model.weight.item() == 7.0


def test_a_non_finite_loss_ends_the_run(cfg, output):
    class Breaks(Trainer):
        def run_step(self):
            if self.iter == 3:
                self.model.weight.data.fill_(math.nan)
            super().run_step()

    with pytest.raises(FloatingPointError, match="iteration=3"):
        train(cfg, trainer_class=Breaks)
    assert not (output / "model_0000003.pth").exists()
    assert not (output / "model_final.pth").exists()
