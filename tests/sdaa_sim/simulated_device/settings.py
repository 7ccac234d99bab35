"""The environment variables of the simulated device; the README lists them."""

import json
import os
import re

import torch


def name() -> str:
    """Device type that this process simulates."""
    return torch._C._get_privateuse1_backend_name()


def setting(key: str, default: str = "") -> str:
    """The variable <NAME>_SIM_<key>."""
    return os.environ.get(f"{name().upper()}_SIM_{key}", default)


def visible_devices() -> list[int]:
    """Which of the machine's devices this process sees, in order."""
    there_are = int(setting("DEVICES", "4"))
    visible = os.environ.get(f"{name().upper()}_VISIBLE_DEVICES")
    if visible is None:
        return list(range(there_are))
    chosen = [part.strip() for part in visible.split(",") if part.strip()]
    if not all(re.fullmatch(r"-?\d+", part) for part in chosen):
        raise RuntimeError(f"{name().upper()}_VISIBLE_DEVICES={visible!r}; write it as 0,1")
    return [index for index in map(int, chosen) if 0 <= index < there_are]


def out_of_memory() -> tuple[int, int, int]:
    """(bytes, count, skip) of _SIM_OOM=bytes:BYTES[*COUNT][@SKIP]."""
    text = setting("OOM")
    if not text:
        return 0, 0, 0
    match = re.fullmatch(r"bytes:(\d+)(?:\*(\d+))?(?:@(\d+))?", text)
    if match is None:
        raise ValueError(f"{name().upper()}_SIM_OOM={text!r}; write it as bytes:BYTES*COUNT@SKIP")
    return int(match[1]), int(match[2] or 1), int(match[3] or 0)


def log(call: str, **fields: object) -> None:
    """Append one line to the file of _SIM_LOG: {"pid": ..., "call": ..., ...}."""
    path = setting("LOG")
    if path:
        line = json.dumps({"pid": os.getpid(), "call": call, **fields})
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
