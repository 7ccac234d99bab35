"""Compact samples on the simulated device: pinned by the loader, unpacked where they arrive."""

from pathlib import Path

import simulator


def test_samples_are_pinned_and_unpacked():
    script = Path(__file__).parent / "device_samples.py"
    assert simulator.run([script, "sdaa"]).endswith("as on the CPU\n")
