"""mask2former comes first: it decides which detectron2 the tests import."""

import mask2former  # noqa: F401
