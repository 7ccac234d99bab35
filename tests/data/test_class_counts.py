"""Classes of samples, from whatever a dataset gives; repeat factors that stand on them."""

import itertools
from collections import Counter

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from mask2former.data import build_train_loader, class_counts
from mask2former.data.class_counts import classes_of_samples
from mask2former.data.class_weights import balanced_weights
from mask2former.data.errors import SampleError


def save_label(path, *values):
    Image.fromarray(np.array([values], np.uint8)).save(path)
    return {"file_name": f"{path.name} picture", "sem_seg_file_name": str(path)}


def test_every_kind_of_sample_says_its_classes(tmp_path):
    annotated = [{"annotations": [{"category_id": 1}, {"category_id": 1}]}, {"annotations": []}]
    assert classes_of_samples(annotated, 3, 255) == [{1}, set()]
    panoptic = [{"segments_info": [{"category_id": 0}, {"category_id": 2}]}]
    assert classes_of_samples(panoptic, 3, 255) == [{0, 2}]
    # 7 is no class, 255 and here also 1 are ignored
    semantic = [save_label(tmp_path / "a.png", 0, 2, 255), save_label(tmp_path / "b.png", 1, 7)]
    assert classes_of_samples(semantic, 3, 255) == [{0, 2}, {1}]
    assert classes_of_samples(semantic, 3, 1) == [{0, 2}, set()]
    with pytest.raises(ValueError, match="neither annotations nor segments_info nor sem_seg"):
        classes_of_samples([{"file_name": "a.jpg"}], 3, 255)


def test_a_label_file_is_read_once_and_again_if_it_changes(tmp_path, monkeypatch):
    read = []
    true_read = class_counts.read_image
    monkeypatch.setattr(
        class_counts, "read_image", lambda path, mode: read.append(path) or true_read(path, mode)
    )
    sample = save_label(tmp_path / "a.png", 0, 1)
    for _ in range(3):
        assert classes_of_samples([sample], 5, 255) == [{0, 1}]
    assert len(read) == 1
    save_label(tmp_path / "a.png", 0, 1, 2, 3)
    assert classes_of_samples([sample], 5, 255) == [{0, 1, 2, 3}]


def test_labels_that_cannot_be_counted(tmp_path):
    sample = {"file_name": "a", "sem_seg_file_name": str(tmp_path / "a.png")}
    with pytest.raises(SampleError, match=r"a\.png: no such file"):
        classes_of_samples([sample], 3, 255)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(SampleError, match=r"a\.png: not a whole picture"):
        classes_of_samples([sample], 3, 255)
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(SampleError, match=r"a\.png: a label map has one channel"):
        classes_of_samples([sample], 3, 255)


def semantic_samples(folder):
    """Of eight pictures one shows class 1."""
    return [save_label(folder / f"{n}.png", *([0, 1] if n == 5 else [0, 0])) for n in range(8)]


def panoptic_samples(folder):
    return [
        {**sample, "segments_info": [{"category_id": c} for c in ([0, 1] if n == 5 else [0])]}
        for n, sample in enumerate(semantic_samples(folder))
    ]


@pytest.mark.parametrize("samples", [semantic_samples, panoptic_samples])
def test_rare_classes_are_repeated_in_any_kind_of_dataset(cfg, tmp_path, samples):
    """1/8 of the images show the class, so that one is worth 0.5 / (1/8) = 4 of the others."""
    entries = [{"height": 1, "width": 2, **sample} for sample in samples(tmp_path)]
    DatasetCatalog.register("rare", lambda: entries)
    try:
        cfg.DATASETS.TRAIN = ("rare",)
        cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
        cfg.DATALOADER.REPEAT_THRESHOLD, cfg.DATALOADER.REPEAT_SQRT = 0.5, False
        loader = build_train_loader(cfg, seed=3, mapper=dict)
        batches = list(itertools.islice(loader, 11 * 5))  # an epoch has 7 + 4 samples
        later = list(itertools.islice(build_train_loader(cfg, 50, seed=3, mapper=dict), 5))
    finally:
        DatasetCatalog.remove("rare")
        MetadataCatalog.pop("rare", None)
    names = Counter(entry["sem_seg_file_name"] for batch in batches for entry in batch)
    rare = str(tmp_path / "5.png")
    assert {name: count for name, count in names.items() if count != 10} == {rare: 40}
    assert later == batches[50:]


def test_balanced_weights():
    weights = balanced_weights(np.array([100, 25, 4, 0]))
    # 1/10, 1/5, 1/2 over their mean 4/15; a class that does not occur has 1
    assert weights.tolist() == pytest.approx([0.375, 0.75, 1.875, 1])
    assert weights[:3].mean() == pytest.approx(1)
    extreme = balanced_weights(np.array([10**6] * 9 + [1]))
    assert extreme.tolist() == [0.25] * 9 + [4]
    assert balanced_weights(np.zeros(3)).tolist() == [1, 1, 1]
