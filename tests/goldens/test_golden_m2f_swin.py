"""Our Mask2Former with Swin-T on the official implementation's weights gives its numbers."""

from golden_model import GoldenModel


class TestAde20kSwin(GoldenModel):
    tag = "m2f_ade20k_sem_swin_t"
    num_classes = 150
    config = "ade20k/semantic-segmentation/swin/maskformer2_swin_tiny_bs16_160k.yaml"
    is_forward_random = True  # stochastic depth
    class_stride = 8
