"""Semantic ground truth as a directory of pictures and one of label maps of the same names."""

import os


def load_semantic_folders(
    image_dir: str,
    label_dir: str,
    image_ext: str = ".jpg",
    label_ext: str = ".png",
    *,
    advice: str = "correct the path",
    label_advice: str | None = None,
) -> list[dict]:
    """Dataset dicts with file_name and sem_seg_file_name, sorted. No picture is opened.

    detectron2's `load_sem_seg` takes what belongs together and warns; a validation set that
    shrinks unseen gives another number, so here each picture must have its labels.

    Args:
        image_ext, label_ext: how the names end after what they have in common.
        advice: what to do about missing files; it ends a sentence.
        label_advice: the same about missing label maps, if it differs.

    Raises:
        FileNotFoundError: a directory is missing or without such files, or a picture has no
            labels, or labels no picture.
    """
    images = _files_by_stem(image_dir, image_ext, advice)
    label_advice = label_advice or advice
    labels = _files_by_stem(label_dir, label_ext, label_advice)
    for ours, theirs, words, to_do in (
        (images, labels, f"pictures in {image_dir} have no labels in {label_dir}", label_advice),
        (labels, images, f"label maps in {label_dir} have no picture in {image_dir}", advice),
    ):
        alone = sorted(ours.keys() - theirs.keys())
        if alone:
            raise FileNotFoundError(
                f"{len(alone)} of {len(ours)} {words} (the first: {ours[alone[0]]}); {to_do}"
            )
    return [
        {"file_name": images[stem], "sem_seg_file_name": labels[stem]} for stem in sorted(images)
    ]


def _files_by_stem(directory: str, ext: str, advice: str) -> dict[str, str]:
    """Name without `ext` -> path, of the files directly in a directory."""
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"{directory}: no such directory; {advice}")
    names = [name for name in os.listdir(directory) if name.endswith(ext) and name[0] != "."]
    if not names:
        raise FileNotFoundError(f"{directory}: no *{ext} in it; {advice}")
    return {name.removesuffix(ext): os.path.join(directory, name) for name in names}
