"""What a fair model might predict for drawn streets: the ground truth, disturbed.

Borders are shifted, classes are wrong, objects are lost, cut in two, or found several times. The
same seed gives the same predictions.
"""

from collections.abc import Sequence

import cv2
import numpy as np

SHIFT = 4  # pixels at most
SOME = 0.12  # so often each thing goes wrong


def moved(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.roll(pixels, rng.integers(-SHIFT, SHIFT + 1, 2).tolist(), (0, 1))


def disturbed_labels(
    labels: np.ndarray, num_classes: int, num_blocks: int, rng: np.random.Generator
) -> np.ndarray:
    """(H,W) labels, of which others than 0..num_classes-1 are void -> (H,W) uint8, nowhere void."""
    found = moved(np.where(labels < num_classes, labels, 0), rng).astype(np.uint8)
    height, width = labels.shape
    for _ in range(num_blocks):
        y, x = rng.integers(height), rng.integers(width)
        block = found[y : y + rng.integers(1, height // 4), x : x + rng.integers(1, width // 8)]
        block[:] = rng.integers(num_classes)
    return found


def disturbed_mask(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H,W) bool -> (H,W) bool"""
    pixels = moved(mask.view(np.uint8), rng)
    change = cv2.erode if rng.random() < 0.5 else cv2.dilate
    pixels = change(pixels, np.ones((3, 3), np.uint8), iterations=int(rng.integers(0, SHIFT)))
    if rng.random() < SOME:
        columns = np.flatnonzero(pixels.any(0))
        pixels[:, columns[len(columns) // 2 :]] = 0
    return pixels.view(bool)


def disturbed_objects(
    classes: Sequence[int], number: int, all_classes: Sequence[int], rng: np.random.Generator
) -> list[tuple[int, int, float]]:
    """Which objects are found, each as often as it takes, and how sure the model is.

    Args:
        classes: of the objects.

    Returns:
        `number` times (index of an object, class, score); nothing where there is no object.
    """
    found = []
    for i in range(number if len(classes) else 0):
        index = i % len(classes)
        is_wrong = rng.random() < SOME
        label = int(rng.choice(all_classes)) if is_wrong else classes[index]
        surety = rng.beta(2, 4) if is_wrong or i >= len(classes) else rng.beta(5, 2)
        found.append((index, label, float(np.float32(surety))))
    return found


def disturbed_segments(
    ids: np.ndarray, segments: Sequence[dict], rng: np.random.Generator
) -> tuple[np.ndarray, list[dict]]:
    """Ids (H,W) and dicts with "id" and "category_id" -> the same; new ids are larger than any."""
    found = moved(ids, rng)
    categories = [segment["category_id"] for segment in segments]
    kept, half = [], found.shape[1] // 2
    next_id = int(ids.max()) + 1
    for segment in segments:
        mask = found == segment["id"]
        category = int(rng.choice(categories)) if rng.random() < SOME else segment["category_id"]
        if rng.random() < SOME:
            found[mask] = 0
            continue
        if rng.random() < SOME:
            found[:, half:][mask[:, half:]] = next_id
            kept.append({"id": next_id, "category_id": category})
            next_id += 1
        kept.append({"id": segment["id"], "category_id": category})
    present = set(np.unique(found).tolist())
    listed = {segment["id"] for segment in kept}
    found[~np.isin(found, list(listed))] = 0  # crowds, and what the list leaves out
    return found, [segment for segment in kept if segment["id"] in present]
