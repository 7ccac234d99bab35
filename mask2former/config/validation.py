"""What can be known to be wrong with a config before anything is built or written."""

import os
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY

from mask2former.device import amp_dtype, resolve_device
from mask2former.hints import nearest

# Which list of a dataset's metadata holds the classes that a model of this evaluator_type predicts.
_CLASS_LISTS = {"coco": "thing_classes", "cityscapes_instance": "thing_classes"}
_DEFAULT_CLASS_LIST = "stuff_classes"

# The architectures whose number of classes is MODEL.SEM_SEG_HEAD.NUM_CLASSES.
_SEM_SEG_ARCHITECTURES = ("MaskFormer", "SemanticSegmentor")

# Backbone -> the group of MODEL whose OUT_FEATURES it gives -> what it can give.
_OUT_FEATURES = {
    "build_resnet_backbone": "RESNETS",
    "build_resnet_deeplab_backbone": "RESNETS",
    "D2SwinTransformer": "SWIN",
}
_FEATURES = {
    "RESNETS": ("stem", "res2", "res3", "res4", "res5"),
    "SWIN": ("res2", "res3", "res4", "res5"),
}

_EVALUATORS = ("fast", "reference")

_CLIP_TYPES = ("full_model", "value", "norm")

_SCHEDULERS = (
    "WarmupPolyLR",
    "WarmupMultiStepLR",
    "WarmupCosineLR",
    "WarmupStepWithFixedGammaLR",
)


def validate_config(cfg: CfgNode, num_processes: int = 1, eval_only: bool = False) -> None:
    """Refuse a config that cannot work, before anything is built or written.

    Args:
        num_processes: of the whole run, on all machines.
        eval_only: there will be no training, so what only that needs is not looked at.

    Raises:
        ValueError: in one sentence the key, what was found, and what to do.
    """
    device = resolve_device(cfg.MODEL.DEVICE)
    if device.index is not None and num_processes > 1:
        raise ValueError(
            f"MODEL.DEVICE={cfg.MODEL.DEVICE!r} is one device, but there are {num_processes} "
            f"processes; set it to {device.type}, of which each takes its own"
        )
    _check_output_dir(cfg.OUTPUT_DIR)
    _check_parts(cfg.MODEL)
    _check_datasets(cfg, "TEST", is_needed=eval_only)
    if cfg.MODEL.META_ARCHITECTURE in _SEM_SEG_ARCHITECTURES:
        _check_features(cfg)
    if cfg.MODEL.META_ARCHITECTURE == "MaskFormer":
        _check_outputs(cfg)
    if cfg.MODEL.COMPILE:
        _check_compiled(cfg.MODEL, eval_only)
    _check_views(cfg.TEST.AUG)
    if cfg.TEST.EVALUATOR not in _EVALUATORS:
        raise ValueError(
            f"TEST.EVALUATOR={cfg.TEST.EVALUATOR!r}; set it to {' or '.join(_EVALUATORS)}"
        )
    if cfg.TEST.AMP.ENABLED:
        if cfg.MODEL.META_ARCHITECTURE != "MaskFormer":
            raise ValueError(
                "TEST.AMP.ENABLED=True, but only MaskFormer infers in mixed precision, not "
                f"MODEL.META_ARCHITECTURE={cfg.MODEL.META_ARCHITECTURE}; set it to False"
            )
        amp_dtype(device.type, cfg.TEST.AMP.DTYPE, "TEST.AMP")
    if eval_only:
        return
    _check_datasets(cfg, "TRAIN", is_needed=True)
    _check_solver(cfg, num_processes)
    _check_crop(cfg.INPUT.CROP)
    if cfg.DATALOADER.MAX_BAD_SAMPLES < 0:
        raise ValueError(
            f"DATALOADER.MAX_BAD_SAMPLES={cfg.DATALOADER.MAX_BAD_SAMPLES}; set it to 0 or more"
        )
    if cfg.SOLVER.AMP.ENABLED:
        amp_dtype(device.type, cfg.SOLVER.AMP.DTYPE)


def _check_output_dir(name: str) -> None:
    if not name:
        raise ValueError("OUTPUT_DIR is empty; set it to the folder that the results go to")
    there = Path(name).absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(
            f"OUTPUT_DIR={name!r}, but {there} is no folder that can be written to; set another"
        )


def _check_parts(model: CfgNode) -> None:
    choices = [
        ("META_ARCHITECTURE", model.META_ARCHITECTURE, META_ARCH_REGISTRY),
        ("BACKBONE.NAME", model.BACKBONE.NAME, BACKBONE_REGISTRY),
    ]
    if model.META_ARCHITECTURE in _SEM_SEG_ARCHITECTURES:
        choices.append(("SEM_SEG_HEAD.NAME", model.SEM_SEG_HEAD.NAME, SEM_SEG_HEADS_REGISTRY))
    for key, name, registry in choices:
        if name not in registry:
            known = [known for known, _ in registry]
            hint = nearest(name, known) or f"; set it to one of {', '.join(known)}"
            raise ValueError(f"MODEL.{key}: unknown name {name}{hint}")


def _check_features(cfg: CfgNode) -> None:
    group = _OUT_FEATURES.get(cfg.MODEL.BACKBONE.NAME)
    if group is None:  # somebody's own backbone
        return
    given, known = cfg.MODEL[group].OUT_FEATURES, _FEATURES[group]
    _check_known(f"MODEL.{group}.OUT_FEATURES", given, known)
    head = cfg.MODEL.SEM_SEG_HEAD
    _check_known("MODEL.SEM_SEG_HEAD.IN_FEATURES", head.IN_FEATURES, given)
    if head.PIXEL_DECODER_NAME == "MSDeformAttnPixelDecoder":
        key = "DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES"
        _check_known(f"MODEL.SEM_SEG_HEAD.{key}", head[key], head.IN_FEATURES)


def _check_known(key: str, features: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in features if name not in known]
    if unknown or not features:
        raise ValueError(
            f"{key} names {unknown[0] if unknown else 'nothing'}; "
            f"take some of {', '.join(known)}, which there are"
        )


def _check_outputs(cfg: CfgNode) -> None:
    test = cfg.MODEL.MASK_FORMER.TEST
    if not (test.SEMANTIC_ON or test.INSTANCE_ON or test.PANOPTIC_ON):
        raise ValueError(
            "MODEL.MASK_FORMER.TEST: SEMANTIC_ON, INSTANCE_ON and PANOPTIC_ON are all False, so "
            "that there would be no result; set one of them to True"
        )


def _check_compiled(model: CfgNode, eval_only: bool) -> None:
    if model.META_ARCHITECTURE not in _SEM_SEG_ARCHITECTURES:
        raise ValueError(
            f"MODEL.COMPILE=True, but only {' and '.join(_SEM_SEG_ARCHITECTURES)} can be compiled, "
            f"not MODEL.META_ARCHITECTURE={model.META_ARCHITECTURE}; set it to False"
        )
    groups = ("MASK_FORMER", "SEM_SEG_HEAD", "RESNETS", "SWIN")
    recomputed = [group for group in groups if model[group].USE_CHECKPOINT]
    if recomputed and not eval_only:
        raise ValueError(
            f"MODEL.COMPILE=True and MODEL.{recomputed[0]}.USE_CHECKPOINT=True do not go together: "
            "the compiler cannot follow what is computed again; set one of them to False"
        )


def _check_views(aug: CfgNode) -> None:
    if aug.ENABLED and (not aug.MIN_SIZES or min(*aug.MIN_SIZES, aug.MAX_SIZE) < 1):
        raise ValueError(
            f"TEST.AUG: MIN_SIZES={aug.MIN_SIZES} and MAX_SIZE={aug.MAX_SIZE}; give lengths of 1 "
            "pixel or more, at least one as MIN_SIZES"
        )


def _check_crop(crop: CfgNode) -> None:
    if crop.ENABLED and (len(crop.SIZE) != 2 or min(crop.SIZE) <= 0):
        raise ValueError(
            f"INPUT.CROP.SIZE={list(crop.SIZE)}; set it to a height and a width above 0, "
            "or INPUT.CROP.ENABLED to False"
        )


def _check_datasets(cfg: CfgNode, split: str, is_needed: bool) -> None:
    names = cfg.DATASETS[split]
    if not names and is_needed:
        raise ValueError(f"DATASETS.{split} is empty; name at least one dataset")
    for name in names:
        if name not in DatasetCatalog.list():
            raise ValueError(
                f"DATASETS.{split}: unknown dataset {name}{nearest(name, DatasetCatalog.list())}"
            )
        _check_num_classes(cfg, name)


def predicted_classes(metadata: Metadata) -> list[str] | None:
    """Names of the classes that a model of a dataset predicts; None if its metadata has none.

    In panoptic datasets "stuff_classes" holds things too, but where both are numbered apart.
    """
    class_list = _CLASS_LISTS.get(metadata.get("evaluator_type"), _DEFAULT_CLASS_LIST)
    return metadata.get(class_list) or metadata.get("thing_classes")


def _check_num_classes(cfg: CfgNode, dataset_name: str) -> None:
    if cfg.MODEL.META_ARCHITECTURE not in _SEM_SEG_ARCHITECTURES:
        return
    metadata = MetadataCatalog.get(dataset_name)
    classes = predicted_classes(metadata)
    num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if classes is not None and len(classes) != num_classes:
        if _numbers_things_apart(metadata):
            raise ValueError(
                f"{dataset_name} numbers things and stuff apart, for detectron2's PanopticFPN; "
                "take the dataset that numbers them together, whose name has no _separated"
            )
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES={num_classes}, but {dataset_name} has "
            f"{len(classes)} classes; set it to {len(classes)}, or name a dataset of {num_classes}"
        )


def _numbers_things_apart(metadata: Metadata) -> bool:
    """Whether a thing and another class of a panoptic dataset have the same contiguous id."""
    keys = ("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id")
    things, stuff = (metadata.get(key) or {} for key in keys)
    together = {**things, **stuff}
    is_panoptic = "panoptic" in (metadata.get("evaluator_type") or "")
    return is_panoptic and len(set(together.values())) < len(together)


def _check_solver(cfg: CfgNode, num_processes: int) -> None:
    solver = cfg.SOLVER
    for key in ("MAX_ITER", "IMS_PER_BATCH", "ACCUMULATE_STEPS", "MAX_NON_FINITE_STEPS"):
        if solver[key] < 1:
            raise ValueError(f"SOLVER.{key}={solver[key]}; set it to 1 or more")
    reference = solver.REFERENCE_WORLD_SIZE or num_processes  # else detectron2 scales the batch
    parts = reference * solver.ACCUMULATE_STEPS
    if solver.IMS_PER_BATCH % parts:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH={solver.IMS_PER_BATCH} cannot be shared by {reference} "
            f"process(es) and SOLVER.ACCUMULATE_STEPS={solver.ACCUMULATE_STEPS}; "
            f"set it to a multiple of {parts}"
        )
    if solver.OPTIMIZER not in ("ADAMW", "SGD"):
        raise ValueError(f"SOLVER.OPTIMIZER={solver.OPTIMIZER!r}; set it to ADAMW or SGD")
    if solver.BASE_LR < 0:
        raise ValueError(f"SOLVER.BASE_LR={solver.BASE_LR}; set it to 0 or more")
    clip = solver.CLIP_GRADIENTS
    if clip.ENABLED and clip.CLIP_TYPE not in _CLIP_TYPES:
        raise ValueError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE={clip.CLIP_TYPE!r}; "
            f"set it to one of {', '.join(_CLIP_TYPES)}"
        )
    if solver.LR_SCHEDULER_NAME not in _SCHEDULERS:
        raise ValueError(
            f"SOLVER.LR_SCHEDULER_NAME={solver.LR_SCHEDULER_NAME!r}; "
            f"set it to one of {', '.join(_SCHEDULERS)}"
        )
