"""From the network's resolution back to the one asked for.

Legend: N instances, K classes, H W height and width.
"""

from torch import Tensor
from torch.nn import functional as F

from detectron2.structures import Instances


def sem_seg_postprocess(
    result: Tensor, img_size: tuple[int, int], output_height: int, output_width: int
) -> Tensor:  # (K,H,W) -> (K,output_height,output_width)
    """Cut the padding off logits and resize them.

    Args:
        result: logits at the resolution of the padded network input.
        img_size: height and width of the image without the padding.
        output_height: rows of the result.
        output_width: columns of the result.
    """
    height, width = img_size
    return _resize(result[:, :height, :width], output_height, output_width)


def detector_postprocess(
    results: Instances, output_height: int, output_width: int, mask_threshold: float = 0.5
) -> Instances:
    """Scale detections to another size of the image, drop those whose box comes out empty.

    Args:
        results: with pred_boxes or proposal_boxes; optionally pred_masks (N,H,W), probabilities
            or bool over the whole image, and pred_keypoints (N,K,3) as x, y, score.
        output_height: rows of the new image.
        output_width: columns of the new image.
        mask_threshold: probabilities from this on belong to a mask.

    Returns:
        New Instances of the new size; `results` stays as it is.

    Raises:
        ImportError: pred_masks are crops of the boxes (N,1,M,M); those need the real detectron2.
    """
    output_height, output_width = int(output_height), int(output_width)
    height, width = results.image_size
    scale_x, scale_y = output_width / width, output_height / height
    scaled = Instances((output_height, output_width), **results.get_fields())

    name = "pred_boxes" if scaled.has("pred_boxes") else "proposal_boxes"
    assert scaled.has(name), "results have neither pred_boxes nor proposal_boxes"
    boxes = scaled.get(name).clone()
    boxes.scale(scale_x, scale_y)
    boxes.clip(scaled.image_size)
    scaled.set(name, boxes)
    scaled = scaled[boxes.nonempty()]

    if scaled.has("pred_masks"):
        masks = getattr(scaled.pred_masks, "tensor", scaled.pred_masks)
        if masks.dim() != 3:
            raise ImportError(
                f"pasting box crops as pred_masks {tuple(masks.shape)} is not in the embedded "
                "subset; pip install 'git+https://github.com/facebookresearch/detectron2'"
            )
        scaled.pred_masks = _resize(masks.float(), output_height, output_width) >= mask_threshold
    if scaled.has("pred_keypoints"):
        keypoints = scaled.pred_keypoints
        scaled.pred_keypoints = keypoints * keypoints.new_tensor([scale_x, scale_y, 1.0])
    return scaled


def _resize(maps: Tensor, height: int, width: int) -> Tensor:  # (N,H,W) -> (N,height,width)
    return F.interpolate(maps[None], (height, width), mode="bilinear", align_corners=False)[0]
