"""What the vehicle's sensors make of a drive: stamps, OXTS packets, noisy scans, exposures.

All is drawn from streams of random numbers of their own, named by seed, drive and purpose, so that
nothing depends on the order in which things are made, or on what else is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy.spatial.transform import Rotation

from datasets.oxts import EARTH_RADIUS, FIELDS, Packets
from datasets.synthetic.trajectory import Motion
from ekf.noise import preset

GRAVITY = 9.8087  # [m/s^2]

FRAME_PERIOD_NS = 103_100_000
FRAME_JITTER_NS = 100_000  # standard deviation; the largest is three times as much
RAW_PERIOD_NS = 10_000_000
RAW_JITTER_NS = 70_000
SPARE_NS = 100_000_000, 300_000_000  # the OXTS unit is switched on and off so long before and after

ORIGIN_LAT_LON_ALT = 49.0, 8.4, 110.0  # [deg, deg, m]

# Those of a Velodyne HDL-64E, from low to high and counter-clockwise, as the renderer wants them.
BEAMS_RAD = np.deg2rad(np.concatenate([np.linspace(-24.33, -8.83, 32), np.linspace(-8.33, 2, 32)]))
AZIMUTHS = 2083
AZIMUTHS_RAD = np.pi * ((2 * np.arange(AZIMUTHS) + 1) / AZIMUTHS - 1)
RANGE_STD_M = 0.01

# Of the exposure at strength 1, of logarithms.
GAIN_STD, GAMMA_STD, WHITE_STD, CAMERA_STD = 0.25, 0.1, 0.04, 0.02
EXPOSURE_PERIODS_S = 1.5, 6.0
_SATELLITE_PERIODS_S = 20.0, 90.0
_WAVES = 5


class Stream(IntEnum):
    """What random numbers are drawn for."""

    CLOCK = 101  # below 100 are those of the world
    IMU = 102
    SATELLITES = 103
    LIDAR = 104
    EXPOSURE = 105
    FAULTS = 106


@dataclass(frozen=True)
class Source:
    """The random numbers of one drive."""

    seed: int
    drive: int

    def rng(self, stream: Stream, *parts: int) -> np.random.Generator:
        """Return the generator of a stream, or of a part of it."""
        return np.random.default_rng([self.seed, self.drive, stream, *parts])

    def world_seed(self) -> int:
        """Return the seed of street, trajectory and world: another one for every drive."""
        return int(np.random.SeedSequence([self.seed, self.drive]).generate_state(1)[0])


@dataclass(frozen=True, eq=False)
class Clock:
    """The stamps of a drive.

    Attributes:
        zero_ns: time 0 of the trajectory, nanoseconds since 1970
        image_ns: (N,) int64 of the exposures, which all cameras and the LiDAR share
        raw_ns: (M,) int64 of the OXTS packets at 100 Hz
        twins: (N,) which of these is nearest to each exposure: the synced packet
    """

    zero_ns: int
    image_ns: np.ndarray
    raw_ns: np.ndarray
    twins: np.ndarray

    def seconds(self, stamps_ns: np.ndarray) -> np.ndarray:
        """Return the trajectory's time [s] at stamps."""
        return (stamps_ns - self.zero_ns) / 1e9


def duration_s(frames: int) -> float:
    """Return how long a drive of so many images lasts [s], not less than a trajectory can be."""
    return max(1.0, (frames - 1) * FRAME_PERIOD_NS / 1e9)


def make_clock(source: Source, frames: int, start_ns: int) -> Clock:
    """Draw the stamps of a drive: cameras and OXTS unit each have a grid and a jitter of their own.

    Args:
        source: of the drive
        frames: N
        start_ns: the first image comes within a second after it
    """
    rng = source.rng(Stream.CLOCK)
    zero_ns = start_ns + int(rng.integers(3 * FRAME_JITTER_NS, 10**9))
    image_ns = zero_ns + FRAME_PERIOD_NS * np.arange(frames) + _jitter(rng, frames, FRAME_JITTER_NS)
    before_ns, after_ns = rng.integers(*SPARE_NS, 2).tolist()
    last_ns = zero_ns + FRAME_PERIOD_NS * (frames - 1) + after_ns
    grid_ns = np.arange(zero_ns - before_ns, last_ns, RAW_PERIOD_NS)
    raw_ns = grid_ns + _jitter(rng, len(grid_ns), RAW_JITTER_NS)
    after = np.searchsorted(raw_ns, image_ns)
    nearer = image_ns - raw_ns[after - 1] < raw_ns[after] - image_ns
    return Clock(zero_ns, image_ns, raw_ns, after - nearer)


def _jitter(rng: np.random.Generator, count: int, std_ns: int) -> np.ndarray:
    normal = np.clip(rng.standard_normal(count), -3, 3)
    return np.rint(std_ns * normal).astype(np.int64)


@dataclass(frozen=True, eq=False)
class ImuErrors:
    """What is added to the true rates [rad/s] (columns 0 to 2) and forces [m/s^2] (3 to 5).

    Attributes:
        bias: (M, 6) drifts slowly
        white: (M, 6) independent from packet to packet
    """

    bias: np.ndarray
    white: np.ndarray


def draw_imu_errors(source: Source, count: int, scale: float) -> ImuErrors:
    """Draw the errors of consecutive packets; 0 leaves none, 1 is the real unit.

    The level is that of the calibrated preset of the filter, with which its errors on a real KITTI
    recording are what it believes them to be: a filter that is honest there is honest here.
    """
    rng, noise = source.rng(Stream.IMU), preset("calibrated")
    step_s = RAW_PERIOD_NS / 1e9
    white = np.repeat(np.sqrt(np.array([noise.gyro_density, noise.accel_density]) / step_s), 3)
    walk = np.array([noise.gyro_bias_density, noise.accel_bias_density])
    walk = np.repeat(np.sqrt(walk * step_s), 3)
    first = np.repeat([noise.gyro_bias_std, noise.accel_bias_std], 3) * rng.standard_normal(6)
    drawn = rng.standard_normal((count, 2, 6))
    bias = first + (walk * drawn[:, 0]).cumsum(0)
    return ImuErrors(bias=scale * bias, white=scale * white * drawn[:, 1])


def record_oxts(source: Source, clock: Clock, motion: Motion, errors: ImuErrors) -> Packets:
    """Return the packets (M, 30) of an OXTS unit.

    Position, attitude and velocity are the truth: the real unit delivers them filtered, and no
    model of its filter is tried here. Rates and forces have errors, those of the level frame the
    same as those of the body's axes.

    Args:
        source: of the drive
        clock: M raw stamps
        motion: at these
        errors: of these
    """
    roll, pitch, yaw = motion.rpy.T
    east, north, up = motion.velocity_w.T
    position_w, R_w_b = motion.T_w_b[:, :3, 3], motion.T_w_b[:, :3, :3]
    force_w = motion.acceleration_w + [0, 0, GRAVITY]
    force_b = np.einsum("nji,nj->ni", R_w_b, force_w) + errors.bias[:, 3:] + errors.white[:, 3:]
    rate_b = motion.rate_b + errors.bias[:, :3] + errors.white[:, :3]
    R_level_b = Rotation.from_euler("YX", np.column_stack([pitch, roll]))
    fields = {
        **_named("lat lon alt", lat_lon_alt(position_w - position_w[clock.twins[0]])),
        **{"roll": roll, "pitch": pitch, "yaw": (yaw + np.pi) % (2 * np.pi) - np.pi},
        **{"vn": north, "ve": east, "vu": up},
        "vf": east * np.cos(yaw) + north * np.sin(yaw),
        "vl": north * np.cos(yaw) - east * np.sin(yaw),
        **_named("ax ay az", force_b),
        **_named("af al au", R_level_b.apply(force_b)),
        **_named("wx wy wz", rate_b),
        **_named("wf wl wu", R_level_b.apply(rate_b)),
        **_reception(source, clock.seconds(clock.raw_ns)),
    }
    return Packets(np.column_stack([fields[name] for name in FIELDS]), clock.raw_ns)


def lat_lon_alt(offset_w: np.ndarray) -> np.ndarray:
    """Return latitude, longitude [deg], altitude [m] (N, 3) of places (N, 3) around the origin.

    The inverse of KITTI's Mercator projection, which is true to scale at the latitude of the first
    packet that is read: counted from the first synced one, places are read back exactly.
    """
    lat, lon, alt = ORIGIN_LAT_LON_ALT
    radius = EARTH_RADIUS * np.cos(np.deg2rad(lat))
    y = np.log(np.tan(np.deg2rad(90 + lat) / 2)) + offset_w[:, 1] / radius
    return np.column_stack(
        [
            2 * np.rad2deg(np.arctan(np.exp(y))) - 90,
            lon + np.rad2deg(offset_w[:, 0] / radius),
            alt + offset_w[:, 2],
        ]
    )


def _named(names: str, values: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(names.split(), values.T, strict=True))


def _reception(source: Source, time_s: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the unit says of itself: good reception that comes and goes."""
    rng = source.rng(Stream.SATELLITES)
    position, velocity, count = (Wander(rng, _SATELLITE_PERIODS_S).at(time_s) for _ in range(3))
    fields = {
        "pos_accuracy": 0.08 * np.exp(0.3 * position),
        "vel_accuracy": 0.02 * np.exp(0.2 * velocity),
        "numsats": np.clip(np.rint(9.5 + 1.2 * count), 8, 11),
    }
    # As in the real recordings: all is initialised, and the receiver has its best mode.
    modes = {"navstat": 4, "posmode": 6, "velmode": 6, "orimode": 6}
    return fields | {name: np.full(len(time_s), float(mode)) for name, mode in modes.items()}


class Wander:
    """A smooth random function of time with mean 0 and variance 1."""

    def __init__(self, rng: np.random.Generator, periods_s: tuple[float, float]) -> None:
        """Draw the waves that it is the sum of, with periods from the first to the second."""
        self._rates = 2 * np.pi / np.exp(rng.uniform(*np.log(periods_s), _WAVES))
        self._phases = rng.uniform(0, 2 * np.pi, _WAVES)

    def at(self, time_s: np.ndarray | float) -> np.ndarray:
        """Return the values (...) at times (...) [s]."""
        waves = np.sin(np.multiply.outer(time_s, self._rates) + self._phases)
        return np.sqrt(2 / _WAVES) * waves.sum(-1)


def with_range_noise(rng: np.random.Generator, scan: np.ndarray) -> np.ndarray:
    """Return a scan (N, 4) whose points are moved along their rays, as a LiDAR is wrong."""
    distance = np.linalg.norm(scan[:, :3], axis=1)
    moved = distance + RANGE_STD_M * rng.standard_normal(len(scan))
    ratio = moved / np.maximum(distance, RANGE_STD_M)
    return np.concatenate([scan[:, :3] * ratio[:, None], scan[:, 3:]], 1, dtype=np.float32)


class Exposure:
    """How gain, gamma and white balance of the two cameras wander in a drive."""

    def __init__(self, source: Source, strength: float) -> None:
        """Draw the course of it; 0 leaves images as they are, 1 changes them strongly."""
        rng = source.rng(Stream.EXPOSURE)
        self._strength = strength
        self._gain, self._gamma, self._difference, *self._white = (
            Wander(rng, EXPOSURE_PERIODS_S) for _ in range(6)
        )

    def develop(self, image: np.ndarray, camera: int, time_s: float) -> np.ndarray:
        """Return what a camera, 2 (left) or 3, delivers at a time: (H, W, 3) uint8.

        Args:
            image: (H, W, 3) float32 RGB in 0..1
        """
        if self._strength:
            gain, gamma = self.gains(camera, time_s), self._factor(self._gamma, GAMMA_STD, time_s)
            image = np.clip(image * gain.astype(np.float32), 0, 1) ** np.float32(gamma)
        return np.rint(255 * image).astype(np.uint8)

    def gains(self, camera: int, time_s: float) -> np.ndarray:
        """Return the factors (3,) of red, green and blue."""
        side = {2: 1.0, 3: -1.0}[camera]
        both = self._factor(self._gain, GAIN_STD, time_s)
        own = self._factor(self._difference, side * CAMERA_STD, time_s)
        return both * own * np.array([self._factor(w, WHITE_STD, time_s) for w in self._white])

    def _factor(self, wander: Wander, std: float, time_s: float) -> float:
        """Return a factor whose mean over time is 1."""
        std *= self._strength
        return float(np.exp(std * wander.at(time_s) - std**2 / 2))
