"""Installation: `pip install .` or `pip install -e .`; nothing is compiled."""

import shutil
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithConfigs(build_py):
    """Put configs/ into the wheel as mask2former/configs, where `get_config_file` looks for it.

    An editable install reads the checkout's configs/ instead, so there is one copy to edit.
    """

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "mask2former" / "configs"
            shutil.copytree(ROOT / "configs", target, dirs_exist_ok=True)


setup(
    name="mask2former",
    version="0.1.0",
    description="Mask2Former and MaskFormer: universal image segmentation on CPU, CUDA and SDAA",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_namespace_packages(include=["mask2former", "mask2former.*"]),
    package_data={"": ["*.json", "*.yaml", "*.c", "*.h"]},
    cmdclass={"build_py": BuildWithConfigs},
    install_requires=[
        "torch>=2.4",
        "numpy",
        "scipy",
        "fvcore",
        "iopath",
        "yacs",
        "PyYAML",
        "pycocotools",
        # Elsewhere it would have to be compiled; pycocotools then judges alone.
        "hotcoco>=1.3 ; platform_system == 'Darwin' "
        "or platform_system == 'Linux' and platform_machine in 'x86_64 aarch64' "
        "or platform_system == 'Windows' and platform_machine == 'AMD64'",
        "opencv-python",
        "cityscapesscripts",
        "Pillow",
        "tqdm",
        "tensorboard",
        "matplotlib",
        "tabulate",
        "termcolor",
    ],
    extras_require={
        "test": ["pytest", "hypothesis", "ruff", "h5py", "torchmetrics", "mask2former[triton]"],
        "coco-stuff": ["h5py"],  # its annotations of version 1.0 are HDF5 files
        # A torch for CUDA brings it along. Beside one for CPUs, its interpreter is for our tests.
        "triton": ["triton>=3.2 ; platform_system == 'Linux' and platform_machine == 'x86_64'"],
        "detectron2": ["detectron2 @ git+https://github.com/facebookresearch/detectron2"],
    },
)
