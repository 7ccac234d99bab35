"""Numbers of the command line."""

import argparse
from collections.abc import Callable


def at_least(least: int) -> Callable[[str], int]:
    """A `type` for argparse: whole numbers from `least` on."""

    def whole_number(word: str) -> int:  # argparse tells this name where it is none
        number = int(word)
        if number < least:
            raise argparse.ArgumentTypeError(f"{number} is too small; give {least} or more")
        return number

    return whole_number


def positive_numbers(words: str) -> list[float]:
    """A `type` for argparse: numbers above 0, with commas between them."""
    numbers = [float(word) for word in words.split(",")]
    if min(numbers) <= 0:
        raise argparse.ArgumentTypeError(f"{min(numbers):g} is too small; give numbers above 0")
    return numbers
