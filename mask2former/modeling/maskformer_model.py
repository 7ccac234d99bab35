"""MaskFormer and Mask2Former as one meta-architecture (paper, fig. 2).

B batch, Q queries, K classes, T targets of an image, H W the padded batch, h w its stride-4 grid.
"""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone, build_sem_seg_head
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from mask2former.device import (
    amp_dtype,
    autocast,
    copies_from_pinned_memory,
    full_precision,
    image_layout,
    retry_on_cpu,
)
from mask2former.layers.folding import fold_norms
from mask2former.layers.frames import IMAGE_PADDING, pad_to
from mask2former.modeling.criterion.build import build_criterion
from mask2former.modeling.inference import (
    QueryMasks,
    instance_inference,
    panoptic_inference,
    resize,
    semantic_inference,
)


class Prediction(NamedTuple):
    """What the head says of one image, and where in its masks the image lies."""

    class_logits: Tensor  # (Q,K+1)
    mask_logits: Tensor  # (Q,h,w), of the padded image
    padded_size: tuple[int, int]
    image_size: tuple[int, int]  # of the network's input, without the padding


@META_ARCH_REGISTRY.register()
class MaskFormer(nn.Module):
    """Backbone, then head; in training the criterion, else inference."""

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        sem_seg_head: nn.Module,
        criterion: nn.Module,
        size_divisibility: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        semantic_on: bool,
        panoptic_on: bool,
        instance_on: bool,
        sem_seg_postprocess_before_inference: bool,
        thing_classes: Collection[int],
        object_mask_threshold: float,
        overlap_threshold: float,
        test_topk_per_image: int,
        score_threshold: float = 0.0,
        pack_masks: bool = False,
        inference_precision: str = "full",
    ):
        """
        Args:
            size_divisibility: images are padded to multiples of it; negative: the backbone's own.
            pixel_mean, pixel_std: of each channel, in the order of INPUT.FORMAT.
            sem_seg_postprocess_before_inference: resize masks, not classes, to the output size.
            thing_classes: contiguous ids of the classes whose instances are told apart.
            object_mask_threshold, overlap_threshold: see panoptic_inference.
            test_topk_per_image: instances of an image, at most.
            score_threshold: instances that score less are dropped.
            pack_masks: those of instances are PackedMasks.
            inference_precision: of the network: full, or a DTYPE of TEST.AMP.
        """
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.criterion = criterion
        fold_norms(self)
        if size_divisibility < 0:
            size_divisibility = backbone.size_divisibility
        self.size_divisibility = size_divisibility
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        self.semantic_on = semantic_on
        self.panoptic_on = panoptic_on
        self.instance_on = instance_on
        # Segments and instances are made of masks at the output size.
        self.resize_masks = sem_seg_postprocess_before_inference or panoptic_on or instance_on
        self.thing_classes = frozenset(thing_classes)
        self.object_mask_threshold = object_mask_threshold
        self.overlap_threshold = overlap_threshold
        self.test_topk_per_image = test_topk_per_image
        self.score_threshold = score_threshold
        self.pack_masks = pack_masks
        self.inference_precision = inference_precision

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        backbone = build_backbone(cfg)
        head = build_sem_seg_head(cfg, backbone.output_shape())
        mask_former = cfg.MODEL.MASK_FORMER
        test = mask_former.TEST
        if not (test.SEMANTIC_ON or test.PANOPTIC_ON or test.INSTANCE_ON):
            raise ValueError(
                "MODEL.MASK_FORMER.TEST: SEMANTIC_ON, INSTANCE_ON and PANOPTIC_ON are all False, "
                "so that there would be no result; set one of them to True"
            )
        return {
            "backbone": backbone,
            "sem_seg_head": head,
            "criterion": build_criterion(cfg, head.num_classes),
            "size_divisibility": mask_former.SIZE_DIVISIBILITY,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "semantic_on": test.SEMANTIC_ON,
            "panoptic_on": test.PANOPTIC_ON,
            "instance_on": test.INSTANCE_ON,
            "sem_seg_postprocess_before_inference": test.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE,
            "thing_classes": thing_classes_of(cfg, head.num_classes),
            "object_mask_threshold": test.OBJECT_MASK_THRESHOLD,
            "overlap_threshold": test.OVERLAP_THRESHOLD,
            "test_topk_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "score_threshold": test.SCORE_THRESHOLD,
            "pack_masks": test.PACK_MASKS,
            "inference_precision": cfg.TEST.AMP.DTYPE if cfg.TEST.AMP.ENABLED else "full",
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: of each image "image" (3,h,w), and "padded_size", (H, W), if it lies in
                a larger frame; in training "instances" with gt_classes (T,) and gt_masks (T,H,W),
                and optionally "seed", from which its random points are drawn; else optionally
                "height" and "width" of the output.
        Returns:
            in training the weighted losses; else of each image, as switched on, "sem_seg" (K,H,W),
            "panoptic_seg" (see panoptic_inference) and "instances" (see instance_inference).
        """
        if not self.training:
            return [
                self.infer(p, (x.get("height", p.image_size[0]), x.get("width", p.image_size[1])))
                for p, x in zip(self.predict(batched_inputs), batched_inputs)
            ]
        images = self.preprocess(batched_inputs)
        # Before the network: a copy waits for all that the device has been given to do.
        targets = [prepare_target(x, images.tensor.shape[-2:], self.device) for x in batched_inputs]
        outputs = self.sem_seg_head(self.backbone(images.tensor))
        generators = [point_generator(x, self.device) for x in batched_inputs]
        return self.criterion(outputs, targets, generators)

    def predict(self, batched_inputs: list[dict]) -> list[Prediction]:
        """What the head says of each image, before anything is made of it."""
        with self.inference_autocast():
            images = self.preprocess(batched_inputs)
            outputs = self.sem_seg_head(self.backbone(images.tensor))
        padded_size = tuple(images.tensor.shape[-2:])
        return [
            Prediction(class_logits, mask_logits, padded_size, tuple(size))
            for class_logits, mask_logits, size in zip(
                outputs["pred_logits"], outputs["pred_masks"], images.image_sizes
            )
        ]

    def inference_autocast(self) -> AbstractContextManager:
        """TEST.AMP for the network; what becomes of its logits is never its business."""
        if self.inference_precision == "full":
            return nullcontext()
        device_type = self.device.type
        return autocast(device_type, amp_dtype(device_type, self.inference_precision, "TEST.AMP"))

    def preprocess(self, batched_inputs: list[dict]) -> ImageList:
        """Normalise the images and pad them, with the mean colour, to one size.

        They travel to the device as the mapper has made them, bytes for most, and the frames that
        it gave them are filled there.
        """
        device = self.device
        no_wait = copies_from_pinned_memory(device.type)
        images = [x["image"].to(device, non_blocking=no_wait) for x in batched_inputs]
        frames = [
            tuple(x.get("padded_size", image.shape[1:])) for x, image in zip(batched_inputs, images)
        ]
        divisor = max(self.size_divisibility, 1)
        height, width = (-(-max(sides) // divisor) * divisor for sides in zip(*frames))
        shape = (len(images), len(images[0]), height, width)
        layout = image_layout(device.type)
        batch = torch.empty(shape, dtype=images[0].dtype, device=device, memory_format=layout)
        batch.fill_(IMAGE_PADDING)
        for place, image in zip(batch, images):
            place[:, : image.shape[1], : image.shape[2]] = image
        batch = (batch - self.pixel_mean).div_(self.pixel_std)
        for place, (height, width) in zip(batch, frames):
            place[:, height:] = 0
            place[:, :, width:] = 0
        return ImageList(batch, frames)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The keys of a result, as switched on."""
        switches = {
            "sem_seg": self.semantic_on,
            "panoptic_seg": self.panoptic_on,
            "instances": self.instance_on,
        }
        return tuple(task for task, is_on in switches.items() if is_on)

    @torch.no_grad()
    def infer(
        self,
        prediction: Prediction,
        output_size: tuple[int, int],
        tasks: Collection[str] | None = None,
    ) -> dict:
        """The results for one image; masks grow to the output by way of the padded input.

        Args:
            tasks: which of the results to make; None: those that are switched on.
        """
        _, mask_logits, padded_size, image_size = prediction
        grown_size = output_size if self.resize_masks else image_size
        masks = QueryMasks(mask_logits, padded_size, image_size, grown_size)

        def semantic(class_logits: Tensor, masks: QueryMasks) -> Tensor:
            return resize(semantic_inference(class_logits, masks), output_size)

        def panoptic(class_logits: Tensor, masks: QueryMasks) -> tuple[Tensor, list[dict]]:
            return panoptic_inference(
                class_logits,
                masks,
                self.thing_classes,
                self.object_mask_threshold,
                self.overlap_threshold,
            )

        def instance(class_logits: Tensor, masks: QueryMasks) -> Instances:
            return instance_inference(
                class_logits,
                masks,
                self.test_topk_per_image,
                self.thing_classes if self.panoptic_on else None,
                self.score_threshold,
                self.pack_masks,
            )

        functions = {"sem_seg": semantic, "panoptic_seg": panoptic, "instances": instance}
        tasks = self.tasks if tasks is None else tasks
        with full_precision(self.device.type):
            class_logits = prediction.class_logits.float()
            return {task: retry_on_cpu(functions[task], class_logits, masks) for task in tasks}


def thing_classes_of(cfg: CfgNode, num_classes: int) -> frozenset[int]:
    """Contiguous ids of the things, as the metadata of the first dataset has them.

    A dataset of instances alone has only things; one that says nothing of things has none.

    Raises:
        ValueError: MODEL.MASK_FORMER.TEST.PANOPTIC_ON, and nothing is known of the classes.
    """
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)  # an evaluation needs no training set
    metadata = MetadataCatalog.get(names[0]).as_dict() if names else {}
    thing_ids = metadata.get("thing_dataset_id_to_contiguous_id")
    if thing_ids is not None:
        return frozenset(thing_ids.values())
    if "stuff_classes" in metadata:
        return frozenset()
    if "thing_classes" in metadata:
        return frozenset(range(num_classes))
    if cfg.MODEL.MASK_FORMER.TEST.PANOPTIC_ON:
        missing = (
            f"{names[0]} has neither thing_dataset_id_to_contiguous_id nor classes in its metadata"
            if names
            else "DATASETS.TRAIN and DATASETS.TEST are empty"
        )
        raise ValueError(
            f"MODEL.MASK_FORMER.TEST.PANOPTIC_ON needs to know which classes are things, but "
            f"{missing}; name a registered panoptic dataset, or set it to False"
        )
    return frozenset()


def prepare_target(
    mapped: dict, padded_size: tuple[int, int], device: torch.device
) -> dict[str, Tensor]:
    """The target of one image, its masks padded with background: labels (T,), masks (T,H,W) bool.

    gt_masks may be a tensor, BitMasks, LabelMasks or RunLengthMasks.

    Raises:
        ValueError: the mapper gave no "instances".
    """
    if "instances" not in mapped:
        raise ValueError(
            f"{mapped.get('file_name', 'an image')}: no 'instances' in the mapped dict, which "
            "training needs; use a mapper that makes them (INPUT.DATASET_MAPPER_NAME)"
        )
    instances, no_wait = mapped["instances"], copies_from_pinned_memory(device.type)
    labels = instances.gt_classes.to(device, non_blocking=no_wait)
    masks = instances.gt_masks.to(device, non_blocking=no_wait)
    if hasattr(masks, "padded"):  # they travelled in a smaller form
        masks = masks.padded(*padded_size)
    else:
        masks = pad_to(getattr(masks, "tensor", masks), padded_size)  # of BitMasks
    return {"labels": labels, "masks": masks}


def point_generator(mapped: dict, device: torch.device) -> torch.Generator | None:
    """The image's own source of random points, so that its loss depends on no other image.

    None, which is torch's global one, if the mapper gave no "seed".
    """
    if "seed" not in mapped:
        return None
    return torch.Generator(device).manual_seed(mapped["seed"])
