"""People, bicycles, and what stands on the pavement: lamps, traffic lights, signs, bins.

Each function draws one object at x metres right of us and z metres ahead.
"""

import numpy as np

from mask2former.data.mini.street.canvas import Camera, Canvas, Material, Part
from mask2former.data.mini.street.surroundings import ground_strip

RUBBER = Material((28, 28, 30), grain=4)
METAL = Material((66, 74, 72), grain=4, left=1.35, right=0.7)
SKIN = Material((222, 172, 140), grain=4)
TOPS = ((150, 50, 130), (120, 48, 156), (184, 60, 104), (98, 44, 120))
TROUSERS = ((44, 44, 66), (62, 52, 50), (40, 40, 44))
VESTS = ((250, 112, 26), (255, 136, 40), (240, 96, 20))


def _ellipse(x: float, y: float, radius_x: float, radius_y: float) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    return np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1)


def _limb(start: tuple[float, float], end: tuple[float, float], width: float) -> np.ndarray:
    a, b = np.array(start), np.array(end)
    normal = np.array([a[1] - b[1], b[0] - a[0]]) / max(float(np.linalg.norm(b - a)), 1e-6)
    side = normal * width / 2
    return np.stack([a + side, b + side, b - side, a - side])


def _person_parts(rng: np.random.Generator) -> list[tuple[np.ndarray, Material]]:
    """A walker 1.75 m tall, feet at the origin, in metres."""
    stride = rng.uniform(0.06, 0.3)
    top = Material(tuple(np.array(TOPS[rng.integers(len(TOPS))]) * rng.uniform(0.9, 1.15)), 5)
    trousers = Material(TROUSERS[rng.integers(len(TROUSERS))], 4)
    hair = Material(((60, 40, 26), (30, 26, 24), (170, 130, 70))[rng.integers(3)], 4)
    swing = rng.uniform(-0.2, 0.2)
    return [
        (_limb((-0.06, 0.9), (-stride, 0.0), 0.19), trousers.lit(0.85)),
        (_limb((0.06, 0.9), (stride, 0.0), 0.19), trousers),
        (_limb((-0.2, 1.38), (-0.26 - swing, 0.85), 0.13), top.lit(0.8)),
        (_limb((0.2, 1.38), (0.26 + swing, 0.85), 0.13), top.lit(0.8)),
        (_ellipse(0, 1.16, 0.26, 0.33), top),
        (_ellipse(0, 1.6, 0.12, 0.15), SKIN),
        (_ellipse(0, 1.68, 0.125, 0.09), hair),
    ]


def draw_person(canvas: Canvas, camera: Camera, x: float, z: float) -> None:
    size = canvas.rng.uniform(0.9, 1.08)
    canvas.shade(ground_strip(camera, x - 0.4, x + 0.4, z - 0.2, z + 0.3), 0.7)
    parts = [
        (camera.upright(x, z, shape * size), material)
        for shape, material in _person_parts(canvas.rng)
    ]
    canvas.add("person", parts, min_area=24)


def draw_crowd(canvas: Canvas, camera: Camera, x: float, z: float) -> None:
    """People too close together to tell apart: one object, labelled as a group."""
    parts = []
    for _ in range(canvas.rng.integers(4, 7)):
        shift = canvas.rng.uniform(-0.7, 0.7)
        parts += [
            (camera.upright(x + shift, z, shape), material)
            for shape, material in _person_parts(canvas.rng)
        ]
    canvas.add("persongroup", parts, min_area=40)


def draw_cyclist(canvas: Canvas, camera: Camera, x: float, z: float, ridden: bool) -> None:
    """A bicycle seen from the side, more or less turned away; `ridden`: with its rider."""
    rng = canvas.rng
    turn = rng.uniform(0.6, 1.0) * rng.choice([-1.0, 1.0])
    squeeze = np.array([turn, 1.0])
    frame = Material(((196, 30, 40), (170, 24, 60), (210, 52, 30))[rng.integers(3)], 4)
    spokes = Material((128, 92, 96), grain=9)
    canvas.shade(ground_strip(camera, x - 0.9, x + 0.9, z - 0.15, z + 0.2), 0.65)

    def place(shapes: list[tuple[np.ndarray, Material]]) -> list[Part]:
        return [(camera.upright(x, z, shape * squeeze), material) for shape, material in shapes]

    wheels = [
        (-0.52, RUBBER, 0.4),
        (0.52, RUBBER, 0.4),
        (-0.52, spokes, 0.32),
        (0.52, spokes, 0.32),
    ]
    bicycle = [(_ellipse(u, 0.4, radius, radius), material) for u, material, radius in wheels]
    tubes = (
        ((-0.52, 0.4), (-0.12, 0.88)),
        ((-0.52, 0.4), (0.02, 0.36)),
        ((0.02, 0.36), (-0.14, 0.98)),
        ((0.02, 0.36), (0.4, 0.92)),
        ((-0.12, 0.86), (0.38, 0.9)),
        ((0.52, 0.4), (0.36, 1.08)),
    )
    bicycle += [(_limb(a, b, 0.11), frame) for a, b in tubes]
    bicycle += [
        (_limb((0.28, 1.08), (0.5, 1.1), 0.1), RUBBER),
        (_ellipse(-0.14, 1.0, 0.16, 0.07), RUBBER),
    ]
    canvas.add("bicycle", place(bicycle), min_area=24)
    if not ridden:
        return
    vest = Material(VESTS[rng.integers(len(VESTS))], 5)
    trousers = vest.lit(0.7)
    knee = rng.uniform(0.55, 0.75)
    rider = [
        (_limb((-0.14, 1.05), (0.16, knee), 0.2), trousers.lit(0.85)),
        (_limb((0.16, knee), (0.06, 0.3), 0.17), trousers),
        (_ellipse(-0.1, 1.05, 0.2, 0.17), trousers),
        (_limb((-0.14, 1.05), (0.12, 1.52), 0.36), vest),
        (_limb((0.12, 1.46), (0.38, 1.12), 0.13), vest.lit(0.82)),
        (_ellipse(0.14, 1.7, 0.13, 0.15), SKIN),
        (_ellipse(0.13, 1.79, 0.16, 0.1), Material((236, 240, 120), grain=4)),
    ]
    canvas.add("rider", place(rider), min_area=24)


def draw_lamp_post(canvas: Canvas, camera: Camera, x: float, z: float) -> None:
    height, reach = canvas.rng.uniform(4.6, 6.0), -np.sign(x) * canvas.rng.uniform(0.9, 1.5)
    shapes = [
        _limb((0, 0), (0, height), 0.3),
        _limb((0, 0), (0, 0.9), 0.42),
        _limb((0, height), (reach, height + 0.25), 0.2),
        _ellipse(reach, height + 0.2, 0.42, 0.16),
    ]
    canvas.add("pole", [(camera.upright(x, z, shape), METAL) for shape in shapes])


def draw_traffic_light(canvas: Canvas, camera: Camera, x: float, z: float) -> None:
    rng = canvas.rng
    foot = rng.uniform(2.2, 2.7)
    canvas.add("pole", [(camera.upright(x, z, _limb((0, 0), (0, foot + 0.1), 0.28)), METAL)])
    case = np.array([(-0.36, 0), (0.36, 0), (0.36, 1.5), (-0.36, 1.5)]) + (0, foot)
    border = Material((250, 226, 90), grain=4)
    shapes = [(case, border), ((case - (0, foot + 0.75)) * 0.84 + (0, foot + 0.75), RUBBER)]
    canvas.add("traffic light", [(camera.upright(x, z, shape), m) for shape, m in shapes])
    lamps = ((40, 220, 120), (250, 190, 40), (250, 50, 40))
    lit = rng.integers(3)
    for number, colour in enumerate(lamps):
        brightness = 1.0 if number == lit else 0.3
        bulb = _ellipse(0, foot + 0.32 + 0.43 * number, 0.19, 0.19)
        canvas.paint(camera.upright(x, z, bulb), Material(colour, 3).lit(brightness))


def draw_traffic_sign(canvas: Canvas, camera: Camera, x: float, z: float) -> None:
    rng = canvas.rng
    foot = rng.uniform(2.0, 2.5)
    canvas.add("pole", [(camera.upright(x, z, _limb((0, 0), (0, foot + 0.2), 0.22)), METAL)])
    blue, white = Material((20, 84, 210), 4), Material((244, 244, 240), 4)
    red = Material((222, 24, 34), 4)
    triangle = np.array([(-0.62, 0.0), (0.62, 0.0), (0.0, 1.08)])
    square = np.array([(-0.5, 0.0), (0.5, 0.0), (0.5, 1.0), (-0.5, 1.0)])
    disc = _ellipse(0, 0.52, 0.54, 0.54)
    centre = np.array([0.0, 0.5])
    outer, inner, shape = (
        (blue, white, square),
        (red, white, triangle),
        (red, white, disc),
        (blue, white, disc),
    )[rng.integers(4)]
    middle = centre if shape is not triangle else np.array([0.0, 0.38])
    share = 0.66 if outer is red else 0.4
    canvas.add("traffic sign", [(camera.upright(x, z, shape + (0, foot)), outer)])
    canvas.paint(camera.upright(x, z, (shape - middle) * share + middle + (0, foot)), inner)


def draw_bin(canvas: Canvas, camera: Camera, x: float, z: float) -> None:
    """Street furniture that no evaluated class covers."""
    shape = np.array([(-0.3, 0), (0.3, 0), (0.36, 1.0), (-0.36, 1.0)])
    lid = np.array([(-0.4, 1.0), (0.4, 1.0), (0.34, 1.14), (-0.34, 1.14)])
    body = Material((90, 60, 60), 5, left=1.2, right=0.7)
    canvas.add("static", [(camera.upright(x, z, shape), body), (camera.upright(x, z, lid), RUBBER)])
