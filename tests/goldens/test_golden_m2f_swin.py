"""Our Mask2Former with Swin-T on the official implementation's weights gives its numbers."""

import json

from golden_model import HERE, GoldenModel, golden_config

from mask2former.engine.optimizer import parameter_settings


class TestAde20kSwin(GoldenModel):
    tag = "m2f_ade20k_sem_swin_t"
    num_classes = 150
    config = "ade20k/semantic-segmentation/swin/maskformer2_swin_tiny_bs16_160k.yaml"
    is_forward_random = True  # stochastic depth
    class_stride = 8

    def test_optimizer(self, model):
        """Learning rate and weight decay of each parameter: position tables do not decay."""
        golden = json.loads((HERE / "optimizer_ade20k_sem_swin_t.json").read_text())
        expected = {
            name: tuple(map(float, settings.split()))
            for settings, names in golden["parameters"].items()
            for name in names
        }
        found = {
            name: (round(lr, 12), weight_decay)
            for name, _, lr, weight_decay in parameter_settings(golden_config(self.config), model)
        }
        assert found == expected
