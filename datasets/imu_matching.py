"""Find the raw IMU packets between consecutive images.

The synced drives of KITTI have one IMU packet an image; the unsynced (extract) ones have all of
them, 100 a second, with gaps, steps back and repeats in their stamps. An interval whose packets
cannot be trusted is dropped, with a reason; others are not.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datasets.matched import MatchedImu, Reason, offsets_of
from datasets.oxts import ANGLES, STATES, Fault, Packets, Recording, Stamps, columns, format_packet
from datasets.text import DataError

ALIGNMENTS = ("packet", "camera")
STEP_NS = 10 * 10**6  # the raw packets come at 100 Hz
MIN_PACKETS = 11
MAX_DRIFT_MS = 1e6
# A raw packet this near to an exposure says the same as the packet interpolated there.
TOUCH_NS = 1000

_OF_PACKET = (Reason.MISSING_PACKET, Reason.BROKEN_PACKET)


@dataclass(frozen=True)
class Dropped:
    """All intervals that were dropped for one reason.

    Attributes:
        reason: the reason
        intervals: which ones, at least one
        stamp_ns: the stamp that offends in the first; None where a stamp is what is missing
    """

    reason: Reason
    intervals: tuple[int, ...]
    stamp_ns: int | None


@dataclass(frozen=True, eq=False)
class Matching:
    """What `match` found.

    Attributes:
        imu: the packets of every interval
        dropped: the reasons that occurred, in the order of `Reason`
        repeats: raw packets left out because one with the same stamp and content came before
    """

    imu: MatchedImu
    dropped: tuple[Dropped, ...]
    repeats: int


def check_options(max_drift_ms: float, align: str) -> None:
    """Refuse what `match` cannot work with."""
    if align not in ALIGNMENTS:
        raise DataError(f"align: expected one of {', '.join(ALIGNMENTS)}, got {align!r}")
    if not 0 <= max_drift_ms <= MAX_DRIFT_MS:
        raise DataError(
            f"max_drift_ms: expected a number from 0 to {MAX_DRIFT_MS:g}, got {max_drift_ms}"
        )


def match(
    ends: Stamps, raw: Recording, *, max_drift_ms: float = 5.0, align: str = "packet"
) -> Matching:
    """Match raw packets to the intervals between consecutive ends.

    With `packet`, ends are the stamps of the synced packets: an interval has the raw packets from
    the one stamped as its first end to the one stamped as its second, both included. With `camera`,
    ends are the exposures: an interval begins and ends there with a packet interpolated between its
    raw neighbours, and has the raw packets between the two.

    Args:
        ends: N stamps, one for each image
        raw: the recording at 100 Hz
        max_drift_ms: how far a step between raw packets may be from 10 ms
        align: one of ALIGNMENTS

    Returns:
        N - 1 intervals. Each has its packets, or the first reason that holds in the order of
        `Reason`. An end out of order drops both its intervals. With `camera`, the raw packets
        around the ends must be right as well, and no packet out of order may claim to lie between.
    """
    check_options(max_drift_ms, align)
    if not raw.stamps.present.any():
        raise DataError("raw: no packet has a stamp")
    timeline = _Timeline.of(raw, round(max_drift_ms * 1e6))
    spans = (_raw_spans if align == "packet" else _exposure_spans)(timeline, ends)
    masks = spans.masks(timeline)
    reasons = [None, *(reason for reason in Reason if reason in masks)]
    code = np.select([masks[reason] for reason in reasons[1:]], range(1, len(reasons)), 0)
    imu = MatchedImu(
        *_collect(timeline, raw.packets, spans, code == 0, interpolate=align == "camera"),
        tuple(reasons[c] for c in code.tolist()),
    )
    dropped = []
    for c, reason in enumerate(reasons[1:], start=1):
        intervals = tuple(np.flatnonzero(code == c).tolist())
        if intervals:
            stamp_ns = spans.offending_stamp(intervals[0], reason, timeline)
            dropped.append(Dropped(reason, intervals, stamp_ns))
    return Matching(imu, tuple(dropped), timeline.repeats)


@dataclass(frozen=True, eq=False)
class _Timeline:
    """The S raw packets that have a stamp, whole or not, in the order of their files.

    Attributes:
        stamps_ns: (S,) not sorted where stamps step back
        rows: (S,) where each stands in the recording's packets; -1 if it is not whole
        flags: (S,) bool for each reason: the packet, or the step that leads to it, is at fault
        repeats: how many packets were left out because they say again what another said
    """

    stamps_ns: np.ndarray
    rows: np.ndarray
    flags: dict[Reason, np.ndarray]
    repeats: int

    @staticmethod
    def of(raw: Recording, drift_ns: int) -> _Timeline:
        faults = {problem.frame: problem.fault for problem in raw.problems}
        rows = np.full(len(raw.stamps), -1)
        rows[raw.frames] = np.arange(len(raw.frames))
        keep = raw.stamps.present.copy()
        repeats = _exact_repeats(raw.packets)
        keep[raw.frames[repeats]] = False
        frames = np.flatnonzero(keep)
        rows, stamps_ns = rows[frames], raw.stamps.ns[frames]
        step_ns = np.diff(stamps_ns, prepend=stamps_ns[0] - STEP_NS)
        unstamped = np.cumsum(~raw.stamps.present)[frames]  # before each packet
        missing = np.array([faults.get(f) is Fault.MISSING_FILE for f in frames.tolist()])
        flags = {
            Reason.STEP_BACK: step_ns < 0,
            Reason.REPEATED_STAMP: step_ns == 0,
            Reason.MISSING_PACKET: missing,
            Reason.BROKEN_PACKET: (rows < 0) & ~missing,
            Reason.UNSTAMPED_PACKET: np.diff(unstamped, prepend=unstamped[0]) > 0,
            Reason.GAP: step_ns > STEP_NS + drift_ns,
            Reason.SHORT_STEP: step_ns < STEP_NS - drift_ns,
        }
        return _Timeline(stamps_ns, rows, flags, len(repeats))

    @cached_property
    def order(self) -> np.ndarray:
        """The places of the packets that are in order."""
        return in_order(self.stamps_ns)

    def begin(self, reason: Reason, first: np.ndarray) -> np.ndarray:
        """Return from where on flags count in spans that begin at `first`: a step has two ends."""
        return first if reason in _OF_PACKET else first + 1


@dataclass(frozen=True, eq=False)
class _Spans:
    """N - 1 intervals as ranges of the timeline, both ends included; ends found or not."""

    ends: Stamps  # (N,)
    found: np.ndarray  # (N,) which ends have raw packets
    first: np.ndarray  # (N - 1,) the packets that must be right
    last: np.ndarray
    inner_first: np.ndarray  # (N - 1,) the first packet that is taken as it is
    lengths: np.ndarray  # (N - 1,) packets of the interval, the interpolated ones too
    claimed: np.ndarray  # (N - 1,) the stamp of a packet out of order that lies in it, or -1

    def masks(self, timeline: _Timeline) -> dict[Reason, np.ndarray]:
        """Return for each reason which intervals it speaks against (N - 1,)."""
        ns, present = self.ends.ns, self.ends.present
        masks = {
            Reason.NO_STAMP: ~(present[:-1] & present[1:]),
            Reason.STEP_BACK: _beside_strays(self.ends),
            Reason.NO_TWIN: ~(self.found[:-1] & self.found[1:]),
            Reason.TOO_FEW_PACKETS: self.lengths < MIN_PACKETS,
        }
        for reason, flags in timeline.flags.items():
            count = offsets_of(flags)
            begin = np.clip(timeline.begin(reason, self.first), 0, len(flags))
            found = count[np.clip(self.last + 1, 0, len(flags))] > count[begin]
            masks[reason] = masks.get(reason, False) | found
        masks[Reason.STEP_BACK] |= (self.last < self.first) | (self.claimed >= 0)
        masks[Reason.REPEATED_STAMP] |= np.diff(ns) == 0
        return masks

    def offending_stamp(self, interval: int, reason: Reason, timeline: _Timeline) -> int | None:
        """Return the first stamp that offends in an interval, its end if none inside does."""
        if reason is Reason.NO_STAMP:
            return None
        if reason is Reason.NO_TWIN:
            return int(self.ends.ns[interval + bool(self.found[interval])])
        if reason in timeline.flags:
            begin = timeline.begin(reason, self.first[interval])
            hits = np.flatnonzero(timeline.flags[reason][begin : self.last[interval] + 1])
            if len(hits):
                return int(timeline.stamps_ns[begin + hits[0]])
        if reason is Reason.STEP_BACK and self.claimed[interval] >= 0:
            return int(self.claimed[interval])
        return int(self.ends.ns[interval + 1])


def _exact_repeats(packets: Packets) -> np.ndarray:
    """Return the rows of packets whose stamp and content another one has that is kept.

    Kept is the first that stands in order, or just the first.
    """
    _, group, counts = np.unique(packets.stamps_ns, return_inverse=True, return_counts=True)
    doubtful = np.flatnonzero(counts[group] > 1)
    if not len(doubtful):
        return doubtful
    strays = np.setdiff1d(doubtful, in_order(packets.stamps_ns))
    seen, repeats = set(), []
    for row in [*np.setdiff1d(doubtful, strays).tolist(), *strays.tolist()]:
        packet = (int(packets.stamps_ns[row]), packets.values[row].tobytes())
        if packet in seen:
            repeats.append(row)
        seen.add(packet)
    return np.array(repeats, np.int64)


def _beside_strays(ends: Stamps) -> np.ndarray:
    """Say which intervals have an end whose stamp is out of order (N - 1,)."""
    stamped = np.flatnonzero(ends.present)
    stray = np.zeros(len(ends), bool)
    stray[np.delete(stamped, in_order(ends.ns[stamped]))] = True
    return stray[:-1] | stray[1:]


def _raw_spans(timeline: _Timeline, ends: Stamps) -> _Spans:
    """Return the spans between the packets that are stamped exactly as the ends."""
    order = np.argsort(timeline.stamps_ns, kind="stable")
    in_time = timeline.stamps_ns[order]
    left = np.searchsorted(in_time, ends.ns, "left")
    right = np.searchsorted(in_time, ends.ns, "right") - 1
    # Of several packets with the stamp of an end, the span takes in all, to fail on the repeat.
    first = order[np.minimum(left, len(order) - 1)][:-1]
    last = order[np.maximum(right, 0)][1:]
    unclaimed = np.full(len(first), -1)  # twins are found by their stamp, out of order or not
    return _Spans(ends, left <= right, first, last, first, last - first + 1, unclaimed)


def _exposure_spans(timeline: _Timeline, ends: Stamps) -> _Spans:
    """Return the spans from the packet before one exposure to the packet after the next."""
    # Looked up among the packets that are in order. One out of order speaks against the interval
    # that it lies in, by the step back there, and against the one that its stamp claims: either may
    # be the truth.
    order = timeline.order
    in_time = timeline.stamps_ns[order]
    after = np.searchsorted(in_time, ends.ns, "left")
    before = np.searchsorted(in_time, ends.ns, "right") - 1
    found = (before >= 0) & (after < len(order))
    inner_first = np.searchsorted(in_time, ends.ns[:-1] + TOUCH_NS, "left")
    inner_last = np.searchsorted(in_time, ends.ns[1:] - TOUCH_NS, "right") - 1
    lengths = inner_last - inner_first + 1 + 2
    end = len(order) - 1
    before, after = np.clip(before, 0, end), np.clip(after, 0, end)
    first, last = np.minimum(before, after)[:-1], np.maximum(before, after)[1:]
    strays = np.sort(np.delete(timeline.stamps_ns, order))
    claimed = _first_within(strays, in_time[first], in_time[last])
    inner_first = order[np.clip(inner_first, 0, end)]
    return _Spans(ends, found, order[first], order[last], inner_first, lengths, claimed)


def in_order(stamps_ns: np.ndarray) -> np.ndarray:
    """Return the places of the most stamps that do not step back, so that strays are left out."""
    if (np.diff(stamps_ns) >= 0).all():  # as nearly always, and when there are none
        return np.arange(len(stamps_ns))
    # The longest such subsequence: tails[k] ends the best one of k + 1 stamps so far.
    tails: list[int] = []
    places: list[int] = []
    previous = np.full(len(stamps_ns), -1)
    for place, stamp in enumerate(stamps_ns.tolist()):
        k = bisect_right(tails, stamp)
        if k == len(tails):
            tails.append(stamp)
            places.append(place)
        else:
            tails[k], places[k] = stamp, place
        previous[place] = places[k - 1] if k else -1
    chain = [places[-1]]
    while previous[chain[-1]] >= 0:
        chain.append(int(previous[chain[-1]]))
    return np.array(chain[::-1])


def _first_within(stamps_ns: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return for each range, ends included, the first of the sorted stamps in it, or -1."""
    place = np.searchsorted(stamps_ns, low, "left")
    first = np.append(stamps_ns, np.iinfo(np.int64).max)[place]
    return np.where(first <= high, first, -1)


def _collect(
    timeline: _Timeline, packets: Packets, spans: _Spans, valid: np.ndarray, interpolate: bool
) -> tuple[Packets, np.ndarray]:
    """Return the packets of the valid intervals one after the other, and the offsets (N,)."""
    offsets = offsets_of(np.where(valid, spans.lengths, 0))
    intervals = np.flatnonzero(valid)
    begin, lengths = offsets[intervals], spans.lengths[intervals]
    shift = spans.inner_first[intervals] - begin - interpolate
    places = np.repeat(shift, lengths) + np.arange(offsets[-1])
    # With `interpolate` the first and the last place of an interval are not yet the right ones.
    rows = timeline.rows[np.clip(places, 0, len(timeline.rows) - 1)]
    if interpolate:
        ends = np.unique(np.concatenate([intervals, intervals + 1]))
        rows[begin] = len(packets) + np.searchsorted(ends, intervals)
        rows[begin + lengths - 1] = len(packets) + np.searchsorted(ends, intervals + 1)
        packets = _joined(packets, _interpolate(timeline, packets, spans.ends.ns[ends]))
    return packets.select(rows), offsets


def _interpolate(timeline: _Timeline, packets: Packets, stamps_ns: np.ndarray) -> Packets:
    """Return packets at other stamps (M,), each between two whole packets that are in order."""
    order = timeline.order
    after = order[np.searchsorted(timeline.stamps_ns[order], stamps_ns, "left")]
    before = np.where(timeline.stamps_ns[after] == stamps_ns, after, after - 1)
    step_ns = np.maximum(timeline.stamps_ns[after] - timeline.stamps_ns[before], 1)
    weight = ((stamps_ns - timeline.stamps_ns[before]) / step_ns)[:, None]  # (M, 1)
    a, b = (packets.values[timeline.rows[side]] for side in (before, after))  # (M, 30)
    change = b - a
    angles, states = columns(*ANGLES), columns(*STATES)
    change[:, angles] = _wrapped(change[:, angles])  # the short way round
    values = a + weight * change
    values[:, angles] = _wrapped(values[:, angles])
    values[:, states] = np.where(weight < 0.5, a, b)[:, states]
    return Packets(values, stamps_ns, tuple(map(format_packet, values.tolist())))


def _wrapped(angle: np.ndarray) -> np.ndarray:
    """Return angles in [-pi, pi]; those that already are stay the same to the last digit."""
    turns = np.round(angle / (2 * np.pi))
    return np.where(np.abs(angle) <= np.pi, angle, angle - 2 * np.pi * turns)


def _joined(a: Packets, b: Packets) -> Packets:
    return Packets(
        np.concatenate([a.values, b.values]),
        np.concatenate([a.stamps_ns, b.stamps_ns]),
        a.lines + b.lines,
    )
