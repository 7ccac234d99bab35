"""What a detectron2 that knows nothing of this project needs to run its configs, on any device."""

from mask2former.patch.build_model import extend_build_model
from mask2former.patch.names import know_all_devices

__all__ = ["extend_build_model", "know_all_devices"]
