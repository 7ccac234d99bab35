"""One street: where everything goes, and in what order it is painted."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from mask2former.data.mini.street import surroundings, things, vehicles
from mask2former.data.mini.street.canvas import Camera, Canvas, Material

Placed = tuple[float, Callable[[Canvas, Camera], None]]  # distance, how to draw it


@dataclass(frozen=True)
class Scene:
    """A picture (H,W,3) uint8 RGB and its objects from far to near: label, polygon."""

    image: np.ndarray
    objects: list[tuple[str, list[list[int]]]]


def draw_scene(height: int, width: int, seed: tuple[int, ...]) -> Scene:
    """The street that follows from `seed`, as a camera of this size sees it."""
    rng = np.random.default_rng(seed)
    canvas = Canvas(height, width, rng)
    camera = Camera(
        focal=0.62 * width * rng.uniform(0.92, 1.08),
        centre_x=width * rng.uniform(0.4, 0.6),
        horizon_y=height * rng.uniform(0.38, 0.46),
        height=rng.uniform(1.8, 2.3),
    )
    shift = rng.uniform(-1.2, 1.2)  # of the car from the middle of the road
    half = rng.uniform(3.6, 5.2)
    road = (shift - half, shift + half)

    surroundings.draw_sky(canvas, camera)
    surroundings.draw_skyline(canvas, camera)
    surroundings.draw_ground(canvas, camera, road)
    placed: list[Placed] = []
    for side in (-1, 1):
        placed += _furnish_side(canvas, camera, road[(side + 1) // 2], side)
    placed += _traffic(rng, road)
    for _, draw in sorted(placed, key=lambda entry: -entry[0]):
        draw(canvas, camera)
    _frame(canvas)
    brightness = rng.uniform(0.85, 1.08)
    gain = brightness * (1 + rng.uniform(-0.03, 0.03, 3))
    return Scene(canvas.finish(gain, noise=rng.uniform(2, 5)), canvas.objects)


def _furnish_side(canvas: Canvas, camera: Camera, kerb: float, side: int) -> list[Placed]:
    """Paint one side's strips and houses; return what stands on its pavement."""
    rng = canvas.rng
    if rng.random() < 0.2:
        edges = sorted((kerb, kerb + side * 2.2))
        surroundings.draw_strip(canvas, camera, "parking", (edges[0], edges[1]))
        kerb += side * 2.2
    pavement = rng.uniform(2.6, 3.8)
    back = kerb + side * pavement
    if rng.random() < 0.75:
        depth = rng.uniform(2.5, 5.0)
        edges = sorted((back, back + side * depth))
        surroundings.draw_strip(canvas, camera, "terrain", (edges[0], edges[1]))
        back += side * depth
    surroundings.draw_side(canvas, camera, back)

    placed: list[Placed] = []

    def put(draw: Callable[..., None], near: float, far: float, share: tuple[float, float]) -> None:
        z = float(np.exp(rng.uniform(np.log(near), np.log(far))))
        x = kerb + side * pavement * rng.uniform(*share)
        placed.append((z, partial(draw, x=x, z=z)))

    at_kerb, walking, at_back = (0.06, 0.16), (0.25, 0.85), (0.9, 1.05)
    for _ in range(rng.integers(0, 3)):
        put(surroundings.draw_tree, 9, 45, at_back)
    for _ in range(rng.integers(1, 3)):
        put(things.draw_lamp_post, 8, 26, at_kerb)
    for draw in (things.draw_traffic_light, things.draw_traffic_sign):
        for _ in range(rng.integers(1, 3)):
            put(draw, 8, 20, at_kerb)
    for _ in range(rng.integers(2, 5)):
        put(things.draw_person, 6.5, 18, walking)
    if rng.random() < 0.25:
        put(things.draw_crowd, 18, 34, walking)
    if rng.random() < 0.6:
        put(partial(things.draw_cyclist, ridden=False), 7, 14, at_back)
    if rng.random() < 0.3:
        put(things.draw_bin, 9, 20, at_back)
    return placed


def _traffic(rng: np.random.Generator, road: tuple[float, float]) -> list[Placed]:
    """Vehicles in their lanes, one or two crossing ahead, cyclists at the edges."""
    left, right = road
    middle = (left + right) / 2
    placed: list[Placed] = []

    def vehicle(kind: vehicles.Vehicle, x: float, z: float, across: bool, rear: bool) -> None:
        draw = partial(vehicles.draw_vehicle, vehicle=kind, x=x, z=z, across=across, rear=rear)
        placed.append((z, draw))

    for x, rear in ((left + 1.5, False), (right - 1.5, True)):
        z = rng.uniform(8, 15)
        while z < 60:
            kind = _choose(rng, (vehicles.CAR, vehicles.VAN, vehicles.TRUCK, vehicles.BUS))
            vehicle(kind, x + rng.uniform(-0.3, 0.3), z, across=False, rear=rear)
            z += kind.length + rng.uniform(3, 16)
    if rng.random() < 0.75:
        kind = _choose(rng, (vehicles.CAR, vehicles.CAR, vehicles.TRUCK, vehicles.BUS))
        vehicle(kind, middle + rng.uniform(-4, 4), rng.uniform(16, 30), across=True, rear=False)
    for edge, side in ((left, 1), (right, -1)):
        if rng.random() < 0.9:
            x, z = edge + side * rng.uniform(0.5, 1.0), rng.uniform(5.5, 12)
            placed.append((z, partial(things.draw_cyclist, x=x, z=z, ridden=True)))
    return placed


def _choose(rng: np.random.Generator, options: tuple[vehicles.Vehicle, ...]) -> vehicles.Vehicle:
    return options[rng.integers(len(options))]


def _frame(canvas: Canvas) -> None:
    """What the camera sees of its own car and beyond its rectified field: both unlabelled."""
    height, width, rng = canvas.height, canvas.width, canvas.rng
    top = height * rng.uniform(0.9, 0.95)
    x = np.linspace(-0.02, 1.02, 24)
    arc = top + height * 0.12 * (2 * x - 1) ** 4
    bonnet = np.stack([x * width, arc], axis=1)
    bonnet = np.concatenate([bonnet, [(width + 9, height + 9), (-9, height + 9)]])
    steel = Material((46, 50, 60), grain=2, blotch=1, top=1.9, bottom=0.8)
    canvas.add("ego vehicle", [(bonnet, steel)])
    border = max(1.0, width / 256)
    black = Material((8, 8, 8), grain=1, blotch=0)
    for x0, x1 in ((-1, border), (width - border, width + 1)):
        area = np.array([(x0, -1), (x1, -1), (x1, height + 1), (x0, height + 1)])
        canvas.add("out of roi", [(area, black)], min_area=1)
