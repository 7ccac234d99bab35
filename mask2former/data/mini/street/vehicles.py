"""Cars, trucks and buses: frusta in space, with windows, wheels and lamps on their faces."""

from dataclasses import dataclass

import cv2
import numpy as np

from mask2former.data.mini.street.canvas import Camera, Canvas, Material, Part, Polygon
from mask2former.data.mini.street.surroundings import ground_strip

TYRE = Material((28, 28, 30), grain=4)
RIM = Material((150, 152, 158), grain=4)
WINDOW = Material((40, 52, 70), grain=4, top=1.7, bottom=0.8)
RED_LIGHT = Material((214, 34, 28), grain=3)
WHITE_LIGHT = Material((250, 248, 224), grain=3)
PLATE = Material((240, 240, 232), grain=3)

CAR_COLOURS = ((48, 92, 176), (176, 184, 196), (38, 44, 60), (226, 228, 232), (92, 128, 172))
TRUCK_COLOURS = ((36, 128, 110), (52, 150, 120), (28, 112, 124))
BUS_COLOURS = ((238, 184, 34), (228, 164, 26), (244, 198, 60))


@dataclass(frozen=True)
class Block:
    """A frustum in a vehicle's own frame: shares of its length and width, heights in metres."""

    bottom: float
    top: float
    from_rear: tuple[float, float]  # share of the length where it begins: at the bottom, the top
    to_front: tuple[float, float]
    inset: tuple[float, float] = (0.0, 0.0)  # share of the width, on either side
    tint: float = 1.0  # brightness against the body's colour
    window: tuple[float, float] | None = None  # its lower and upper edge, as shares of the height
    stripes: int = 0  # on the flanks


@dataclass(frozen=True)
class Vehicle:
    label: str
    length: float
    width: float
    blocks: tuple[Block, ...]
    wheels: tuple[float, ...]  # shares of the length
    wheel_radius: float
    colours: tuple[tuple[int, int, int], ...]


CAR = Vehicle(
    "car",
    4.3,
    1.85,
    (
        Block(0.25, 0.95, (0, 0.02), (1, 0.98)),
        Block(0.9, 1.55, (0.06, 0.16), (0.76, 0.6), (0.03, 0.12), window=(0.14, 0.84)),
    ),
    (0.19, 0.8),
    0.36,
    CAR_COLOURS,
)
VAN = Vehicle(
    "car",
    4.9,
    1.95,
    (
        Block(0.25, 1.05, (0, 0), (1, 0.98)),
        Block(1.0, 1.95, (0.0, 0.03), (0.84, 0.68), (0.02, 0.08), window=(0.12, 0.72)),
    ),
    (0.19, 0.81),
    0.38,
    CAR_COLOURS,
)
TRUCK = Vehicle(
    "truck",
    7.0,
    2.5,
    (
        Block(0.7, 3.4, (0, 0), (0.72, 0.72), stripes=5, tint=1.15),
        Block(0.5, 2.7, (0.75, 0.75), (1, 0.97), (0.02, 0.04), tint=0.8, window=(0.5, 0.86)),
        Block(0.45, 0.75, (0.02, 0.02), (0.98, 0.98), (0.06, 0.06), tint=0.3),
    ),
    (0.14, 0.3, 0.86),
    0.5,
    TRUCK_COLOURS,
)
BUS = Vehicle(
    "bus",
    9.5,
    2.55,
    (Block(0.35, 3.1, (0, 0), (1, 1), window=(0.42, 0.84)),),
    (0.2, 0.82),
    0.48,
    BUS_COLOURS,
)


def _bilinear(quad: Polygon, u: float | np.ndarray, v: float | np.ndarray) -> Polygon:
    """Points of a quad (lower left, lower right, upper right, upper left) at shares u, v."""
    u, v = np.atleast_1d(u)[:, None], np.atleast_1d(v)[:, None]
    low, high = quad[0] + u * (quad[1] - quad[0]), quad[3] + u * (quad[2] - quad[3])
    return low + v * (high - low)


def _panel(quad: Polygon, u0: float, u1: float, v0: float, v1: float) -> Polygon:
    return _bilinear(quad, np.array([u0, u1, u1, u0]), np.array([v0, v0, v1, v1]))


def _disc(quad: Polygon, u: float, v: float, radius_u: float, radius_v: float) -> Polygon:
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    return _bilinear(quad, u + radius_u * np.cos(angles), v + radius_v * np.sin(angles))


class _Body:
    """A vehicle placed in the street: gives the image quads of its blocks' faces."""

    def __init__(self, camera: Camera, vehicle: Vehicle, x: float, z: float, across: bool):
        self.camera, self.vehicle = camera, vehicle
        self.x, self.z, self.across = x, z, across

    def point(self, lengthwise: float, crosswise: float, y: float) -> tuple[float, float, float]:
        """Shares of length (from the rear) and width (from the left), metres up -> space."""
        along, aside = lengthwise * self.vehicle.length, crosswise * self.vehicle.width
        if self.across:  # its rear to our left, its left flank to us
            return self.x - self.vehicle.length / 2 + along, y, self.z + aside
        return self.x - self.vehicle.width / 2 + aside, y, self.z + along

    def faces(self, block: Block) -> dict[str, Polygon]:
        """The visible faces: "flank", "end", "top", each (4,2) pixels, in painting order."""
        (rear_low, rear_high), (front_low, front_high) = block.from_rear, block.to_front
        (in_low, in_high), low, high = block.inset, block.bottom, block.top
        seen_from_right = self.x < 0  # we look at its right flank
        side_low, side_high = (1 - in_low, 1 - in_high) if seen_from_right else (in_low, in_high)
        if self.across:
            side_low, side_high = in_low, in_high
            at_rear = self.x > 0  # the end turned towards us
        else:
            at_rear = True
        end_low, end_high = (rear_low, rear_high) if at_rear else (front_low, front_high)
        corners = {
            "top": [
                (rear_high, in_high, high),
                (rear_high, 1 - in_high, high),
                (front_high, 1 - in_high, high),
                (front_high, in_high, high),
            ],
            "flank": [
                (rear_low, side_low, low),
                (front_low, side_low, low),
                (front_high, side_high, high),
                (rear_high, side_high, high),
            ],
            "end": [
                (end_low, in_low, low),
                (end_low, 1 - in_low, low),
                (end_high, 1 - in_high, high),
                (end_high, in_high, high),
            ],
        }
        return {
            name: self.camera.project([self.point(*corner) for corner in quad])
            for name, quad in corners.items()
        }


def draw_vehicle(
    canvas: Canvas, camera: Camera, vehicle: Vehicle, x: float, z: float, across: bool, rear: bool
) -> None:
    """`across`: it crosses our street; `rear`: it drives our way, so we see its red lights."""
    rng = canvas.rng
    body = _Body(camera, vehicle, x, z, across)
    colour = np.array(vehicle.colours[rng.integers(len(vehicle.colours))]) * rng.uniform(0.9, 1.1)
    paint = Material(tuple(colour), grain=3, blotch=2)
    half, deep = vehicle.width / 2, vehicle.length
    if across:
        half, deep = deep / 2, vehicle.width
    canvas.shade(ground_strip(camera, x - half - 0.25, x + half + 0.25, z - 0.3, z + deep), 0.45)

    light = {"top": 1.25, "flank": 0.82, "end": 1.0}
    if across:
        light = {"top": 1.25, "flank": 1.0, "end": 0.8}
    parts: list[Part] = []
    details: list[Part] = []
    blocks = [(block, body.faces(block)) for block in vehicle.blocks]
    if not across:  # the far end of a vehicle ahead is painted first
        blocks.sort(key=lambda entry: -entry[0].from_rear[0])
    order = ("top", "end", "flank") if across else ("top", "flank", "end")
    for block, faces in blocks:
        tone = paint.lit(block.tint)
        hull = np.concatenate(list(faces.values())).astype(np.float32)
        parts.append((cv2.convexHull(hull)[:, 0].astype(np.float64), tone.lit(0.6)))
        for name in order:
            quad = faces[name]
            parts.append((quad, tone.lit(light[name])))
            if block.window and name != "top":
                low, high = block.window
                pillars = max(1, round(vehicle.length / 2)) if name == "flank" else 1
                for pane in range(pillars):
                    u0, u1 = (pane + 0.07) / pillars, (pane + 0.93) / pillars
                    parts.append((_panel(quad, u0, u1, low, high), WINDOW))
            if block.stripes and name != "top":
                for stripe in range(1, block.stripes + 1):
                    v = stripe / (block.stripes + 1)
                    parts.append((_panel(quad, 0.0, 1.0, v - 0.02, v + 0.02), tone.lit(0.6)))
    parts += _wheels(body, across)
    lowest = vehicle.blocks[0]
    end = body.faces(lowest)["end"]
    if not across:
        lamp = RED_LIGHT if rear else WHITE_LIGHT
        span = lowest.top - lowest.bottom
        v0, v1 = 0.4 / span, 0.62 / span
        details += [(_panel(end, u, u + 0.17, v0, v1), lamp) for u in (0.03, 0.8)]
    if not canvas.add(vehicle.label, parts, min_area=30):
        return
    for polygon, material in details:
        canvas.paint(polygon, material)
    if not across and z < 14:
        canvas.add("license plate", [(_panel(end, 0.36, 0.64, 0.08, 0.26), PLATE)], min_area=4)


def _wheels(body: _Body, across: bool) -> list[Part]:
    vehicle, radius = body.vehicle, body.vehicle.wheel_radius
    side = 0.0 if across or body.x >= 0 else 1.0
    if not across and abs(body.x) < vehicle.width * 0.6:
        side = 0.5  # seen from behind, the flanks are hidden
    parts = []
    for share in vehicle.wheels if side != 0.5 else ():
        half = radius / vehicle.length
        corners = [(share - half, 0.0), (share + half, 0.0), (share + half, 2 * radius)]
        corners.append((share - half, 2 * radius))
        quad = body.camera.project([body.point(along, side, y) for along, y in corners])
        parts.append((_disc(quad, 0.5, 0.5, 0.5, 0.5), TYRE))
        parts.append((_disc(quad, 0.5, 0.5, 0.26, 0.26), RIM))
    if not across:
        for u0 in (0.02, 0.8):
            points = [(u0, 0.0), (u0 + 0.18, 0.0), (u0 + 0.18, radius * 1.2), (u0, radius * 1.2)]
            quad = body.camera.project([body.point(0.0, u, y) for u, y in points])
            parts.append((quad, TYRE))
    return parts
