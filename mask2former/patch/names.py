"""Which names of detectron2 know CUDA only, and what stands for each on other devices."""

import detectron2

from mask2former.device import unknown_to_detectron2
from mask2former.patch import amp, environment, memory, processes
from mask2former.patch.replace import Replacement, replace
from mask2former.patch.torch_view import BestDevice, NoDevice, TorchView

_ON_BEST_DEVICE = TorchView(cuda=BestDevice())
_WITH_MEMORY = TorchView(cuda=BestDevice(needed="max_memory_allocated"))

# A module's `torch` is replaced where it asks `torch.cuda` in the midst of a long function.
# Not here: SyncBN, which build_model converts; deformable convolutions, which none of our configs
# has, and of which one runs on torchvision's and the modulated one says that it does not run;
# AutogradProfiler, for TorchProfiler has come in its place.
CUDA_ONLY = (
    Replacement("detectron2.engine.launch", "_distributed_worker", processes.run_worker),
    Replacement("detectron2.utils.comm", "synchronize", processes.synchronize),
    Replacement("detectron2.utils.comm", "_get_global_gloo_group", processes.object_group),
    Replacement("detectron2.engine.defaults", "create_ddp_model", processes.create_ddp_model, True),
    Replacement("detectron2.engine.train_loop", "AMPTrainer.__init__", amp.init, True),
    Replacement("detectron2.engine.train_loop", "AMPTrainer.run_step", amp.run_step),
    Replacement("detectron2.utils.memory", "retry_if_cuda_oom", memory.retry_if_out_of_memory),
    Replacement(
        "detectron2.utils.collect_env", "collect_env_info", environment.collect_env_info, True
    ),
    Replacement("detectron2.utils.collect_env", "torch", TorchView(cuda=NoDevice())),
    # seed_all_rng
    Replacement("detectron2.utils.env", "torch", _ON_BEST_DEVICE),
    # CommonMetricPrinter's max_mem
    Replacement("detectron2.utils.events", "torch", _WITH_MEMORY),
    # TorchMemoryStats
    Replacement("detectron2.engine.hooks", "torch", _ON_BEST_DEVICE),
    # inference_on_dataset's times
    Replacement("detectron2.evaluation.evaluator", "torch", _ON_BEST_DEVICE),
    # FLOAT32_PRECISION in default_setup
    Replacement("detectron2.engine.defaults", "torch", _ON_BEST_DEVICE),
)

KNOWN_TO_WORK = "02b5c4e2"  # of June 2026


def know_all_devices() -> list[str]:
    """Make detectron2 work on a device of this machine that it does not know; or do nothing.

    Does nothing on machines with CPUs and CUDA only, and to a detectron2 that says of itself
    KNOWS_ALL_DEVICES. CUDA is not asked for.

    Returns:
        the names for which something else stands now; asked again, the same.

    Raises:
        ImportError: this version of detectron2 lacks a name that would have to be replaced.
    """
    # Asked first: it imports the device's plugin, without which torch has no such device.
    if not unknown_to_detectron2() or vars(detectron2).get("KNOWS_ALL_DEVICES"):
        return []
    version = getattr(detectron2, "__version__", "of unknown version")
    advice = (
        f"detectron2 {version} cannot be made to work on this machine's devices; install "
        "'git+https://github.com/facebookresearch/detectron2"
        f"@{KNOWN_TO_WORK}', or set M2F_DETECTRON2=embedded, which needs no changes"
    )
    replace(CUDA_ONLY, "now knows all devices", advice)
    return [f"{r.module}.{r.name}" for r in CUDA_ONLY]
