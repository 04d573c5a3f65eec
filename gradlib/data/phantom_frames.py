"""How a frame of the phantom is drawn.

Tissue, chambers and valves of a view lie on a polar grid (range x angle) with speckle, blood
velocity beside them; both are scan-converted into a sector. Velocity shows red (towards the probe)
or blue (away) and wraps at the Nyquist limit; a jet of regurgitation is faster and turbulent, hence
its mosaic. Its class is the valve it leaks from, and only the grey anatomy tells which that is.
Places are complex numbers x + iy in image heights, the probe at 0, y down; directions are degrees
from straight down, 90 to the right; velocities are in Nyquist limits; [R, A] is the polar grid.
"""

import functools
from cmath import exp
from math import pi, radians, sin

import numpy as np
from PIL import Image

# How hard the set is; part of the default folder's name, see `phantom.ensure`.
SPECKLE = 0.12  # strength of speckle on log-compressed grey levels
HAZE = 0.04  # mean clutter in the chambers; exponential between patients
GAIN_SPREAD = 0.06  # spread between patients of the overall grey level, 0-1
ANATOMY_JITTER = 0.06  # relative spread between patients of chamber sizes, places and outlines
TILT = 5.0  # spread between patients of the heart's rotation in the plane, degrees
DEPTH_SPREAD = 0.05  # relative spread between patients of the imaging depth
NUISANCE_RATE = 0.20  # share of videos with a mosaic patch that leaks from no valve
ALIASED_FLOW = 0.10  # share of normal flows that wrap, and so look turbulent
JET_LENGTH = (0.22, 0.36)  # range between videos, at the jet's peak
JET_SPEED = (1.1, 2.0)  # range between videos; below 1 a jet is as laminar as normal flow
BOX_NOISE = 0.005  # spread of an annotator's box edges, as a share of the frame

# What is seen from where: chambers (centre, radius, radius, turn), valves (two hinges, direction of
# a leak, room for it), normal flows (chamber, direction, beat), depth of the bright far wall.
_WINDOWS = {
    "A4C": ({"LV": (.14+.42j, .125, .22, 6), "RV": (-.14+.45j, .10, .18, -10),
         "LA": (.15+.76j, .135, .125, 0), "RA": (-.15+.75j, .13, .12, 0)},
        {"M": (.04+.635j, .25+.625j, 0, 1), "T": (-.25+.62j, -.05+.62j, 0, 1)},
        "LV 180 d, RV 180 d, LV 0 s, LA 180 s, RA 0 s", .93),
    "PLAX": ({"RV": (.02+.26j, .21, .06, -8), "LV": (-.16+.54j, .23, .12, 10),
         "AO": (.23+.45j, .17, .07, -14), "LA": (.17+.68j, .16, .11, -5)},
        {"A": (.06+.42j, .09+.55j, -80, 1), "M": (.05+.56j, .7j, 75, 1),
         "T": (-.09+.22j, -.08+.33j, -60, .2)},
        "LV 220 d, LV 30 s, AO 60 s, LA 250 d, RV 0 s", .84),
    "PSAX aortic": (
        {"RV": (-.09+.32j, .20, .085, -18), "AO": (.5j, .09, .09, 0),
         "LA": (.03+.73j, .16, .10, 0), "RA": (-.20+.63j, .13, .12, 20),
         "PA": (.18+.53j, .06, .15, -15)},
        {"A": (-.06+.47j, .06+.47j, 10, .17), "P": (.09+.39j, .20+.38j, 215, 1),
         "T": (-.24+.48j, -.10+.49j, -20, 1), "M": (.03+.63j, .14+.64j, -10, 1)},
        "RV 90 s, PA 10 s, RA 160 d, LA 180 d, RV 180 d", .86),
    "PSAX mitral": ({"RV": (-.20+.38j, .065, .20, -40), "LV": (.04+.56j, .18, .17, 0)},
        {"M": (-.06+.55j, .12+.57j, 10, 1)}, "LV 180 d, LV 0 s, RV 180 d, RV 20 s", .86),
}  # fmt: skip
_SECTORS = ((44, 1.12), (42, 1.0), (47, 0.94), (38, 1.15))  # half angle, range
_STOPS = 1, 64, 127, 129, 190, 255  # velocity codes and their RGB: cyan, blue, still, red, yellow
_RGB = (20, 0, 0, 95, 250, 255), (250, 70, 0, 0, 80, 250), (255, 240, 110, 0, 0, 50)
_COLOURS = np.transpose([np.interp(range(256), _STOPS, c) for c in _RGB]).astype(np.uint8)


@functools.lru_cache(maxsize=16)
def _grid(size, sector):
    """Sector geometry: r, angle [R, A], and each pixel's 4 cells and their shares [4, H, W]."""
    (width, height), (half, reach) = size, sector
    rows, columns = int(0.9 * height), int(0.7 * height)
    r = np.linspace(0.03, 1, rows, dtype=np.float32) * reach
    angle = np.linspace(-half, half, columns, dtype=np.float32)
    y, x = (np.mgrid[:height, :width] + 0.5) / height
    x -= width / height / 2
    row = (np.hypot(x, y) / reach - 0.03) / 0.97 * (rows - 1)
    column = (np.degrees(np.arctan2(x, y)) / half + 1) / 2 * (columns - 1)
    inside = (row >= 0) & (row < rows - 1) & (column >= 0) & (column < columns - 1)
    i, j = np.where(inside, (row, column), 0).astype(int)
    corners = [(a, b) for a in (0, 1) for b in (0, 1)]
    cells = [(i + a) * columns + j + b for a, b in corners]
    shares = [inside * abs(1 - a - row + i) * abs(1 - b - column + j) for a, b in corners]
    return *np.meshgrid(r, angle, indexing="ij"), cells, np.array(shares, np.float32)


def _smooth(rng, shape, *cells):
    """Smooth noise [R, A] of about unit spread with `cells` (rows, columns) features."""
    coarse = Image.fromarray(rng.standard_normal(cells, dtype=np.float32))
    return 1.3 * np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))


class Video:
    """What the frames of a video share (patient, window, scanner, leak), and how one is drawn."""

    def __init__(self, spec, size, seed):
        one, rng = (np.random.default_rng([seed, *k]) for k in ((1, spec.patient), (2, spec.video)))
        chambers, self.valves, flows, floor = _WINDOWS[spec.window]
        half, reach = sector = _SECTORS[one.integers(len(_SECTORS))]
        r, angle, self.cells, self.shares = _grid(size, sector)
        self.number, self.seed, self.aspect, self.angle = spec.video, seed, size[0] / size[1], angle
        # The patient's heart: depth, tilt, place and outline; a video varies a little.
        scale = 1 + DEPTH_SPREAD * one.uniform(-1.7, 1.7) + 0.03 * rng.normal()
        self.tilt = TILT * one.uniform(-1.7, 1.7) + 3 * rng.normal()
        x, y = (0.25 * one.normal(size=2) + 0.1 * rng.normal(size=2)).tolist()
        self.place = 1j * r * np.exp(-1j * np.radians(angle))
        self.heart = (self.place - 0.52j) * (exp(-1j * radians(self.tilt)) / scale) + 0.52j
        self.heart += ANATOMY_JITTER * (0.2 * _smooth(one, r.shape, 6, 6) - complex(x, y))
        self.heart += 0.2j * ANATOMY_JITTER * _smooth(one, r.shape, 6, 6)
        self.q = {}  # [R, A] for each chamber: below 1 inside, 1 on its wall
        for name, (centre, a, b, turn) in chambers.items():
            x, y, da, db = (ANATOMY_JITTER * one.uniform(-1.7, 1.7, 4)).tolist()
            at = (self.heart - centre - 0.1 * complex(x, y)) * exp(1j * radians(turn))
            self.q[name] = (at.real / (a + a * da)) ** 2 + (at.imag / (b + b * db)) ** 2
        self.haze = HAZE * one.exponential()
        lungs = np.clip(abs(angle) / half - (0.6 + 0.6 * one.random()), 0, 0.3)  # shade the sides
        self.tissue = GAIN_SPREAD * one.normal() + 0.24 + 0.09 * _smooth(rng, r.shape, 10, 8)
        self.tissue += 0.35 * np.exp(-(((self.heart.imag - floor) / 0.06) ** 2)) - 1.2 * lungs
        self.fine = r.shape[0], r.shape[1] // 2  # speckle is wider across the beam than along it
        self.speckle = [_smooth(rng, r.shape, *self.fine) for _ in range(2)]  # real, imaginary
        # Doppler: normal flows, perhaps a turbulent patch that is no leak, and the leak.
        self.flows = []
        for name, way, beat in map(str.split, flows.split(",")):
            speed = rng.uniform(1, 1.5) if rng.random() < ALIASED_FLOW else rng.uniform(0.25, 0.9)
            if rng.random() < 0.75:
                self.flows.append((name, float(way) + 20 * rng.normal(), beat == "s", speed))
        self.speed, self.flare = rng.uniform(*JET_SPEED), rng.uniform(0.25, 0.5)
        centre = chambers[str(rng.choice(list(chambers)))][0]
        centre += complex(*rng.uniform(-0.06, 0.06, 2))
        self.patch = centre, rng.uniform(0, 360), rng.uniform(0.08, 0.16)
        self.patched = rng.random() < NUISANCE_RATE
        side, wide = half * rng.uniform(-0.2, 0.2), half * rng.uniform(0.5, 0.8)  # the colour box
        near, far = rng.uniform(0.12, 0.32), reach * rng.uniform(0.75, 0.98)
        if spec.kind:
            hinge, other, way, room = self.valves[spec.kind[0]]
            start = hinge + rng.uniform(0.3, 0.7) * (other - hinge)
            self.leak = start, way + 18 * rng.normal(), min(room, rng.uniform(*JET_LENGTH))
            jet = self._plume(*self.leak, 0)[1]  # whoever sets the box looks at the leak
            wide = max(wide, abs(angle[jet] - side).max(initial=0) + 3)
            near = min(near, r[jet].min(initial=1) - 0.03)
            far = max(far, r[jet].max(initial=0) + 0.03)
        self.gate = (abs(angle - side) < wide) & (r > near) & (r < far)

    def _leaflets(self, systole):
        """Echoes [R, A] of the valves: two leaflets each, shut or swung open in this half beat."""
        near = []
        for name, (one, two, *_) in self.valves.items():
            swing = 0.46 if systole == (name in "MT") else 0.1 - 0.45j
            for hinge, leaf in ((one, (two - one) * swing), (two, (one - two) * swing.conjugate())):
                at = (self.heart - hinge) / leaf
                near.append(abs(at - np.clip(at.real, 0, 1)) * abs(leaf))
        return 0.8 * np.exp(-((np.minimum.reduce(near) / 0.011) ** 2))

    def _towards(self, way):
        """Share of a flow that the probe sees [1, A]; a flow across the beam keeps some colour."""
        seen = -np.cos(np.radians(way - self.tilt - self.angle[:1]))
        return np.copysign(np.maximum(abs(seen), 0.5), seen)

    def _plume(self, start, way, length, noise):
        """Velocity of a turbulent plume [R, A] from `start` on, and the cells that it fills."""
        at = (self.heart - start) * (-1j * exp(1j * radians(way)))  # real part along it
        width = 0.028 + self.flare * np.clip(at.real, 0, 0.6 * length)
        edge = (at.imag / width) ** 2 + (((at.real / length - 0.45) / 0.55) ** 2) ** 2
        speed = self.speed * (1.1 - 0.5 * at.real / length) + 0.5 * noise
        return self._towards(way) * speed, edge + 0.35 * noise < 1

    def frame(self, spec):
        """Draw a frame: RGB [H, W, 3], and the jet's box (x0, y0, x1, y1 in 0-1) or None."""
        rng = np.random.default_rng([self.seed, 3, spec.video, int(spec.time * 2**30)])
        small = 1 + 0.25 * sin(pi * spec.time)  # ventricles in systole, the rest in diastole
        q = {k: d * (small if (k[1] == "V") == spec.systole else 1) for k, d in self.q.items()}
        near = np.minimum.reduce(list(q.values()))
        grey = self.tissue + 0.22 * np.exp(-(((near - 1.3) / 0.25) ** 2))
        grey += np.clip((1.25 - near) / 0.3, 0, 1) * (self.haze - grey)
        grey = np.maximum(grey, self._leaflets(spec.systole))
        velocity, jet = self._blood(rng, spec, q, grey)
        a, b = (0.85 * s + 0.5 * _smooth(rng, grey.shape, *self.fine) for s in self.speckle)
        grey += SPECKLE * np.log(a * a + b * b + 0.02)
        edge = (self.gate ^ np.roll(self.gate, 1, 0)) | (self.gate ^ np.roll(self.gate, 1, 1))
        grey = (255 * np.clip(np.where(edge, 0.5, grey), 0, 1)).ravel()
        picture = sum(grey[c] * s for c, s in zip(self.cells, self.shares, strict=True))
        code = np.where(velocity == 0, 0, 128 + 127 * ((velocity + 1) % 2 - 1)).astype(np.uint8)
        code = (code.ravel()[self.cells[0]] * (self.shares[0] > 0))[..., None]
        pixels = np.where(code > 0, _COLOURS[code[..., 0]], picture[..., None].astype(np.uint8))
        if jet.sum() < 12:  # no jet, or out of sight
            return pixels, None
        at = self.place[jet]  # an annotator's box: the jet's extent, the edges a little off
        low, high = np.quantile((at.real / self.aspect + 0.5, at.imag), (0.02, 0.98), axis=1)
        box = np.array([*low - 0.02, *high + 0.02]) + BOX_NOISE * rng.normal(size=4)
        return pixels, np.clip(box, 0.002, 0.998)

    def _blood(self, rng, spec, q, grey):
        """Velocity [R, A], 0 where no colour is shown, and the cells of the jet [R, A]."""
        broad, fine = _smooth(rng, grey.shape, 14, 12), _smooth(rng, grey.shape, 36, 26)
        velocity = np.where(broad + 0.5 * fine > 2.4, 0.5 * fine, 0)  # flashes of moving walls
        phase, shown, jet = 0.3 + 0.7 * sin(pi * spec.time), grey < 0.38, np.zeros(grey.shape, bool)
        for name, way, systole, speed in self.flows:
            if systole == spec.systole:
                fast = speed * phase * (1.1 - 0.6 * q[name]) + 0.05 * fine
                here = q[name] + 0.4 * broad < 1.1 * phase
                velocity = np.where(here, self._towards(way) * fast, velocity)
        if self.patched:
            fast, here = self._plume(*self.patch, fine)
            velocity = np.where(here, fast, velocity)
        if spec.jet:  # a jet shows everywhere, other colour gives way to bright tissue
            fast, jet = self._plume(*self.leak[:2], self.leak[2] * (0.3 + 0.7 * spec.jet), fine)
            velocity, shown = np.where(jet, fast, velocity), shown | jet
        return velocity * (shown & self.gate & (abs(velocity) > 0.1)), jet & self.gate
