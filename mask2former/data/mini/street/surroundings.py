"""What stands still: sky, ground, the houses and gardens along a street, its trees."""

from collections.abc import Callable, Iterator

import numpy as np

from mask2former.data.mini.street.canvas import Camera, Canvas, Material, Polygon

FAR = 90.0  # metres to where the street ends
NEAR = 1.2

ASPHALT = Material((98, 98, 104), grain=9, blotch=4)
PAVING = Material((196, 178, 164), grain=6, blotch=3)
GRASS = Material((150, 168, 74), grain=13, blotch=9)
MARKING = Material((232, 232, 226), grain=6)
LEAVES = Material((58, 104, 48), grain=18, blotch=16)
BARK = Material((88, 66, 48), grain=9)
GLASS = Material((52, 68, 92), grain=5, top=1.5, bottom=0.8)
FACADES = (
    (168, 92, 74),  # brick
    (206, 176, 128),  # sandstone
    (186, 150, 112),
    (158, 112, 98),
    (214, 194, 160),  # plaster
)


def ground_strip(camera: Camera, left: float, right: float, near: float, far: float) -> Polygon:
    return camera.project([(left, 0, near), (left, 0, far), (right, 0, far), (right, 0, near)])


def draw_sky(canvas: Canvas, camera: Camera) -> None:
    width, bottom = canvas.width, camera.horizon_y + 3
    area = np.array([(-1, -1), (width + 1, -1), (width + 1, bottom), (-1, bottom)])
    blue = Material((112, 160, 214), grain=1, blotch=0, top=0.88, bottom=1.12)
    canvas.add("sky", [(area, blue)])
    rows = int(bottom * 2)
    clouds = canvas.smooth_noise(cells=7)[:rows] + 0.4 * canvas.smooth_noise(cells=25)[:rows]
    cover = np.clip(clouds * 0.8 - canvas.rng.uniform(-0.2, 0.6), 0, 0.85)[..., None]
    canvas.image[:rows] += cover * (np.float32(240) - canvas.image[:rows])


def draw_ground(canvas: Canvas, camera: Camera, road: tuple[float, float]) -> None:
    """Pavement everywhere and the road on it, with kerbs, slabs and lane marks."""
    rng = canvas.rng
    left, right = road
    canvas.add("sidewalk", [(ground_strip(camera, -60, 60, NEAR, FAR), PAVING)])
    for z in np.arange(3.0, 45.0, 1.6):  # slabs
        canvas.paint(ground_strip(camera, -30, 30, z, z + 0.07), PAVING.lit(0.84))
    canvas.add("road", [(ground_strip(camera, left, right, NEAR, FAR), ASPHALT)])
    for edge in road:
        canvas.paint(ground_strip(camera, edge - 0.1, edge + 0.1, NEAR, FAR), PAVING.lit(0.72))
    lanes = 3 if right - left > 9 else 2
    for lane in range(1, lanes):
        x = left + (right - left) * lane / lanes
        for z in np.arange(rng.uniform(2, 5), 60.0, 6.0):
            canvas.paint(ground_strip(camera, x - 0.09, x + 0.09, z, z + 3.0), MARKING)
    if rng.random() < 0.3:  # a zebra crossing
        z = rng.uniform(9, 16)
        for x in np.arange(left + 0.4, right - 0.5, 1.0):
            canvas.paint(ground_strip(camera, x, x + 0.5, z, z + 2.6), MARKING)
    for _ in range(rng.integers(0, 4)):  # patches
        x, z = rng.uniform(left, right - 1), rng.uniform(6, 25)
        patch = ground_strip(camera, x, x + rng.uniform(0.8, 2.5), z, z + rng.uniform(1, 6))
        canvas.shade(patch, rng.uniform(0.86, 0.95))


def draw_strip(canvas: Canvas, camera: Camera, label: str, edges: tuple[float, float]) -> None:
    """A strip of grass beside the pavement, or of parking places beside the road."""
    rng = canvas.rng
    start, end = sorted((rng.uniform(NEAR, 10), rng.uniform(30, FAR)))
    material = GRASS if label == "terrain" else ASPHALT.lit(1.12)
    canvas.add(label, [(ground_strip(camera, *edges, start, end), material)])
    if label == "terrain":
        for _ in range(60):  # tufts
            x, z = rng.uniform(*edges), rng.uniform(start, min(end, 35))
            blade = camera.upright(x, z, [(-0.15, 0), (0.15, 0), (0.05, 0.07), (-0.05, 0.07)])
            canvas.paint(blade, GRASS.lit(rng.choice([0.78, 1.14])))
    else:
        for z in np.arange(start, min(end, 50), 5.0):
            canvas.paint(ground_strip(camera, *edges, z, z + 0.15), MARKING)


def draw_skyline(canvas: Canvas, camera: Camera) -> None:
    """What closes the street at its far end: roofs and trees."""
    rng = canvas.rng
    x = -40.0
    while x < 40:
        width = rng.uniform(5, 12)
        if rng.random() < 0.5:
            draw_facade(canvas, camera, "across", x, FAR, width, rng.uniform(6, 13))
        else:
            draw_bush(canvas, camera, x + width / 2, FAR, width * 0.6, rng.uniform(5, 9))
        x += width


def draw_side(canvas: Canvas, camera: Camera, x: float) -> None:
    """The row of houses, walls and fences along one side, from the far end to us."""
    rng = canvas.rng
    z = FAR
    while z > 3:
        length = rng.uniform(9, 20)
        kind = rng.choice(["building", "wall", "fence"], p=[0.56, 0.2, 0.24])
        if kind == "building":
            outwards = rng.uniform(0, 1.5) * np.sign(x)
            draw_facade(canvas, camera, "along", x + outwards, z, length, rng.uniform(5.5, 11))
        else:
            for distance in np.arange(z, z - length, -3.5):
                size = rng.uniform(1.6, 2.6)
                offset = (size + rng.uniform(0.3, 2.0)) * np.sign(x)
                draw_bush(canvas, camera, x + offset, distance, size, rng.uniform(2.5, 6.5))
            draw_barrier(canvas, camera, kind, x, z, length)
        z -= length + rng.choice([0.0, 3.0])


def _facade_frame(
    direction: str, x: float, z: float, length: float
) -> Callable[[float, float], tuple[float, float, float]]:
    """Maps (metres along the facade, metres up) to space; "along" runs towards us from z."""
    if direction == "along":
        return lambda u, v: (x, v, max(z - length, NEAR) + u * (z - max(z - length, NEAR)) / length)
    return lambda u, v: (x + u, v, z)


def draw_facade(
    canvas: Canvas,
    camera: Camera,
    direction: str,
    x: float,
    z: float,
    length: float,
    height: float,
) -> None:
    rng = canvas.rng
    at = _facade_frame(direction, x, z, length)

    def quad(u0: float, u1: float, v0: float, v1: float) -> Polygon:
        return camera.project([at(u0, v0), at(u1, v0), at(u1, v1), at(u0, v1)])

    colour = np.array(FACADES[rng.integers(len(FACADES))]) + rng.uniform(-12, 12, 3)
    light = rng.uniform(0.82, 1.08)
    wall = Material(tuple(colour * light), grain=7, blotch=7)
    parts = [(quad(0, length, 0, height), wall)]
    if direction == "along":  # the end that faces us
        near = max(z - length, NEAR)
        outside = x + 9 * np.sign(x)
        end = [(x, 0, near), (outside, 0, near), (outside, height, near), (x, height, near)]
        parts.append((camera.project(end), wall.lit(0.8)))
    if not canvas.add("building", parts):
        return
    canvas.paint(quad(0, length, height - 0.5, height), wall.lit(0.72))  # eaves
    canvas.paint(quad(0, length, 0, 0.5), wall.lit(0.7))  # plinth
    bay, floor = rng.uniform(2.2, 3.2), rng.uniform(2.7, 3.2)
    for row in range(int((height - 0.7) / floor)):
        for column in range(int(length / bay)):
            u, v = column * bay + 0.25 * bay, row * floor + 0.9
            if row == 0 and rng.random() < 0.2:
                canvas.paint(quad(u, u + bay * 0.5, 0, 2.2), BARK.lit(rng.uniform(0.8, 1.5)))
                continue
            frame = quad(u - 0.12, u + bay * 0.55 + 0.12, v - 0.12, v + 1.5)
            canvas.paint(frame, wall.lit(1.22))
            canvas.paint(quad(u, u + bay * 0.55, v, v + 1.4), GLASS.lit(rng.uniform(0.7, 1.3)))


def draw_barrier(
    canvas: Canvas, camera: Camera, kind: str, x: float, z: float, length: float
) -> None:
    """A wall of stone or a fence of planks along the street."""
    rng = canvas.rng
    at = _facade_frame("along", x, z, length)
    stone = Material((138, 126, 150), grain=9, blotch=9)
    wood = Material((142, 92, 46), grain=7, blotch=8)
    material = (stone if kind == "wall" else wood).lit(rng.uniform(0.9, 1.1))
    height = rng.uniform(2.2, 3.0) if kind == "wall" else rng.uniform(1.5, 2.1)

    def quad(u0: float, u1: float, v0: float, v1: float) -> Polygon:
        return camera.project([at(u0, v0), at(u1, v0), at(u1, v1), at(u0, v1)])

    if not canvas.add(kind, [(quad(0, length, 0, height), material)]):
        return
    if kind == "wall":
        for row, v in enumerate(np.arange(0.0, height - 0.1, 0.5)):
            canvas.paint(quad(0, length, v, v + 0.06), material.lit(0.75))
            for u in np.arange(0.6 * (row % 2), length, 1.2):
                canvas.paint(quad(u, u + 0.06, v, v + 0.5), material.lit(0.75))
        canvas.paint(quad(0, length, height - 0.18, height), material.lit(1.2))
    else:
        for u in np.arange(0.0, length, 0.45):
            canvas.paint(quad(u, u + 0.14, 0, height), material.lit(0.55))
        for v in (0.4, height - 0.45):
            canvas.paint(quad(0, length, v, v + 0.16), material.lit(1.25))


def _blob(rng: np.random.Generator, radius_x: float, radius_y: float, bumps: float) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = np.ones(40)
    for wave in range(2, 9):
        radius += bumps / wave * rng.uniform(-1, 1) * np.cos(wave * angles + rng.uniform(0, 6.3))
    return np.stack([radius_x * radius * np.cos(angles), radius_y * radius * np.sin(angles)], 1)


def _leaves(
    canvas: Canvas, camera: Camera, x: float, z: float, size: tuple[float, float, float]
) -> Iterator[tuple[Polygon, Material]]:
    """Tufts of light and dark within a crown of half width, half height, centre height `size`."""
    rng = canvas.rng
    half_width, half_height, centre = size
    for _ in range(int(np.clip(400 / z, 6, 34))):
        angle, reach = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random()) * 0.78
        du, dv = half_width * reach * np.cos(angle), half_height * reach * np.sin(angle)
        tuft = _blob(rng, half_width * 0.18, half_height * 0.16, 0.5) + (du, centre + dv)
        light = 1.0 + 0.32 * dv / half_height + rng.uniform(-0.16, 0.16)
        yield camera.upright(x, z, tuft), LEAVES.lit(light)


def draw_bush(
    canvas: Canvas, camera: Camera, x: float, z: float, radius: float, height: float
) -> None:
    blob = _blob(canvas.rng, radius, height / 2, 0.25) + (0, height * 0.42)
    blob[:, 1] = np.maximum(blob[:, 1], 0)
    if canvas.add("vegetation", [(camera.upright(x, z, blob), LEAVES)]):
        for polygon, material in _leaves(canvas, camera, x, z, (radius, height / 2, height * 0.45)):
            canvas.paint(polygon, material)


def draw_tree(canvas: Canvas, camera: Camera, x: float, z: float) -> None:
    rng = canvas.rng
    trunk, crown = rng.uniform(2.0, 2.6), rng.uniform(1.3, 2.0)
    centre = trunk + crown * 0.9
    stem = [(-0.2, 0), (0.2, 0), (0.13, trunk + 0.6), (-0.13, trunk + 0.6)]
    outline = _blob(rng, crown, crown * 1.15, 0.3) + (0, centre)
    canvas.shade(ground_strip(camera, x - 1.2, x + 1.2, z - 0.4, z + 0.6), 0.75)
    parts = [(camera.upright(x, z, stem), BARK), (camera.upright(x, z, outline), LEAVES)]
    if canvas.add("vegetation", parts):
        for polygon, material in _leaves(canvas, camera, x, z, (crown, crown * 1.15, centre)):
            canvas.paint(polygon, material)
