"""Matching packets to images, against a slow and plain count of the same rules, and as laws."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from benchmarks import imu_matching as benchmark
from datasets.imu_matching import ALIGNMENTS, MIN_PACKETS, TOUCH_NS, in_order, match
from datasets.matched import Reason
from datasets.oxts import FIELDS, Fault, Packets, Problem, Recording, Stamps, parse_packet
from datasets.text import DataError
from tests.kitti_tree import START_NS, packet_line, packets

MS = 1_000_000
FRAMES = 2 + 10 * np.arange(7)  # of 65 raw packets


def recording(stamps_ns, faults=None, values=None):
    """Return a recording in memory, in which some packets are at fault."""
    stamps_ns, faults = np.asarray(stamps_ns, np.int64), faults or {}
    values = packets((stamps_ns - START_NS) / 1e9) if values is None else values
    unstamped = [place for place, fault in faults.items() if fault is Fault.NO_STAMP]
    present = ~np.isin(np.arange(len(stamps_ns)), unstamped)
    rows = np.array([row for row in range(len(stamps_ns)) if row not in faults], np.int64)
    texts = tuple(packet_line(values[row]) for row in rows)
    problems = tuple(Problem(faults[i], i, Path("file"), 1, "x") for i in sorted(faults))
    stamps = Stamps(np.where(present, stamps_ns, 0), present)
    return Recording(Packets(values[rows], stamps_ns[rows], texts), rows, stamps, problems)


def raw_stamps():
    return START_NS + 10 * MS * np.arange(65)


def ends_at(stamps_ns, missing=()):
    stamps_ns = np.asarray(stamps_ns)
    return Stamps(stamps_ns, ~np.isin(np.arange(len(stamps_ns)), missing))


def reasons(matching):
    return {i: reason for i, reason in enumerate(matching.imu.reasons) if reason}


def test_an_interval_has_the_raw_packets_from_twin_to_twin():
    raw = recording(raw_stamps())
    matching = match(ends_at(raw_stamps()[FRAMES]), raw)
    assert len(matching.imu) == 6 and matching.imu.valid.all()
    assert matching.dropped == () and matching.repeats == 0
    for i in range(6):
        expected = np.arange(2 + 10 * i, 13 + 10 * i)
        np.testing.assert_array_equal(matching.imu.interval(i).stamps_ns, raw_stamps()[expected])
        assert matching.imu.interval(i).texts == tuple(raw.packets.texts[e] for e in expected)


@pytest.mark.parametrize(
    "shift_ns, dropped",
    [
        (5 * MS, {}),
        (5 * MS + 1, {2: Reason.GAP}),
        (1920 * MS, {2: Reason.GAP}),
        (-5 * MS, {}),
        (-5 * MS - 1, {2: Reason.SHORT_STEP}),
        (-10 * MS, {2: Reason.REPEATED_STAMP}),
        (-10 * MS - 1, {2: Reason.STEP_BACK}),
        # Twins of frame 2 are now on both sides of the step, so that interval 1 has it as well.
        (-50 * MS, {1: Reason.STEP_BACK, 2: Reason.STEP_BACK}),
    ],
)
def test_a_step_of_the_clock_drops_what_contains_it(shift_ns, dropped):
    stamps_ns = raw_stamps()
    stamps_ns[25:] += shift_ns
    values = packets(np.arange(65) / 100)  # what has the same stamp is not the same
    matching = match(ends_at(stamps_ns[FRAMES]), recording(stamps_ns, values=values))
    assert reasons(matching) == dropped
    if len(dropped) == 1:
        (report,) = matching.dropped
        assert (report.reason, report.intervals) == (dropped[2], (2,))
        assert report.stamp_ns == stamps_ns[25]


def test_the_drift_is_an_option():
    stamps_ns = raw_stamps()
    stamps_ns[25:] += 2 * MS
    raw, ends = recording(stamps_ns), ends_at(stamps_ns[FRAMES])
    assert reasons(match(ends, raw, max_drift_ms=2)) == {}
    assert reasons(match(ends, raw, max_drift_ms=1.999999)) == {2: Reason.GAP}


@pytest.mark.parametrize("first, offending", [(3, 2), (0, 22)])
def test_an_end_without_a_twin_drops_both_its_intervals(first, offending):
    lacking = [22] if first == 0 else []
    kept = np.delete(np.arange(65), lacking)[first:]
    matching = match(ends_at(raw_stamps()[FRAMES]), recording(raw_stamps()[kept]))
    (report,) = matching.dropped
    assert report.reason is Reason.NO_TWIN
    assert report.intervals == ((1, 2) if lacking else (0,))
    assert report.stamp_ns == raw_stamps()[offending]


def test_an_end_without_a_stamp_drops_both_its_intervals():
    matching = match(ends_at(raw_stamps()[FRAMES], missing=[3]), recording(raw_stamps()))
    assert reasons(matching) == {2: Reason.NO_STAMP, 3: Reason.NO_STAMP}
    assert matching.dropped[0].stamp_ns is None


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_ends_that_repeat_or_step_back_are_no_interval(align):
    ends_ns = raw_stamps()[FRAMES[[0, 1, 1, 3, 2, 4]]]
    assert reasons(match(ends_at(ends_ns), recording(raw_stamps()), align=align)) == {
        1: Reason.REPEATED_STAMP,
        2: Reason.STEP_BACK,
        3: Reason.STEP_BACK,
    }


@pytest.mark.parametrize("align", ALIGNMENTS)
@pytest.mark.parametrize("place, other", [(2, 5), (4, 1)])
def test_an_end_that_is_stamped_as_another_time_costs_both_its_intervals(align, place, other):
    ends_ns = raw_stamps()[FRAMES]
    ends_ns[place] = raw_stamps()[FRAMES[other] + 3]
    matching = match(ends_at(ends_ns), recording(raw_stamps()), align=align)
    assert reasons(matching) == dict.fromkeys([place - 1, place], Reason.STEP_BACK)
    assert (np.diff(matching.imu.offsets) <= 11).all()


def test_a_stray_packet_that_claims_an_interval_is_what_the_report_points_at():
    stamps_ns = raw_stamps()
    stamps_ns[55] = stamps_ns[15] + 4 * MS
    matching = match(ends_at(exposures()), recording(stamps_ns), align="camera")
    assert reasons(matching) == {1: Reason.STEP_BACK, 5: Reason.STEP_BACK}
    assert matching.dropped[0].stamp_ns == stamps_ns[55]


def test_of_two_equal_packets_the_one_in_order_stays():
    places = np.insert(np.arange(65), 5, 30)  # packet 30 once more, 25 packets early
    for align, ends_ns in (("packet", raw_stamps()[FRAMES]), ("camera", exposures())):
        matching = match(ends_at(ends_ns), recording(raw_stamps()[places]), align=align)
        assert matching.repeats == 1 and matching.imu.valid.all()


@pytest.mark.parametrize(
    "fault, reason",
    [
        (Fault.MISSING_FILE, Reason.MISSING_PACKET),
        (Fault.BROKEN_PACKET, Reason.BROKEN_PACKET),
        (Fault.NO_STAMP, Reason.UNSTAMPED_PACKET),
    ],
)
@pytest.mark.parametrize("align", ALIGNMENTS)
def test_a_packet_at_fault_drops_its_interval_and_is_named(fault, reason, align):
    ends_ns = raw_stamps()[FRAMES]
    matching = match(ends_at(ends_ns), recording(raw_stamps(), {25: fault}), align=align)
    assert reasons(matching) == {2: reason}
    following = 26 if fault is Fault.NO_STAMP else 25
    assert matching.dropped[0].stamp_ns == raw_stamps()[following]


def test_a_packet_at_fault_at_an_end_drops_both_its_intervals():
    raw = recording(raw_stamps(), {22: Fault.BROKEN_PACKET})
    dropped = dict.fromkeys([1, 2], Reason.BROKEN_PACKET)
    assert reasons(match(ends_at(raw_stamps()[FRAMES]), raw)) == dropped


def test_too_few_packets_are_no_interval():
    ends_ns = raw_stamps()[[2, 2 + MIN_PACKETS - 1, 2 + 2 * MIN_PACKETS - 3, 60]]
    matching = match(ends_at(ends_ns), recording(raw_stamps()))
    assert reasons(matching) == {1: Reason.TOO_FEW_PACKETS}
    assert matching.dropped[0].stamp_ns == ends_ns[2]


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_packets_that_are_repeated_exactly_are_left_out(align):
    places = np.sort(np.append(np.arange(65), [22, 25, 25]))
    ends = ends_at(raw_stamps()[FRAMES])
    repaired = match(ends, recording(raw_stamps()[places]), align=align)
    whole = match(ends, recording(raw_stamps()), align=align)
    assert repaired.repeats == 3 and repaired.imu.valid.all()
    assert repaired.imu.packets.texts == whole.imu.packets.texts


def test_a_block_said_twice_is_repaired_too():
    places = np.concatenate([np.arange(30), np.arange(24, 65)])
    matching = match(ends_at(raw_stamps()[FRAMES]), recording(raw_stamps()[places]))
    assert matching.repeats == 6 and matching.imu.valid.all()


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_a_stamp_with_two_contents_is_not(align):
    stamps_ns = np.insert(raw_stamps(), 22, raw_stamps()[22])
    values = packets((stamps_ns - START_NS) / 1e9)
    values[22] += 0.5
    ends = ends_at(raw_stamps()[FRAMES])
    matching = match(ends, recording(stamps_ns, values=values), align=align)
    assert reasons(matching) == dict.fromkeys([1, 2], Reason.REPEATED_STAMP)
    assert matching.repeats == 0


# camera: intervals end at exposures


def exposures():
    return raw_stamps()[FRAMES] - 3 * MS - np.arange(7) * 123_457


def test_intervals_begin_and_end_at_exposures_with_the_raw_packets_between():
    raw = recording(raw_stamps())
    matching = match(ends_at(exposures()), raw, align="camera")
    assert matching.imu.valid.all()
    for i in range(6):
        stamps_ns = matching.imu.interval(i).stamps_ns
        start, stop = exposures()[i : i + 2]
        between = raw_stamps()[(raw_stamps() > start) & (raw_stamps() < stop)]
        np.testing.assert_array_equal(stamps_ns, [start, *between, stop])


def test_packets_at_exposures_are_interpolated_and_written_as_they_are():
    raw = recording(raw_stamps())
    imu = match(ends_at(exposures()), raw, align="camera").imu
    seconds = (imu.packets.stamps_ns - START_NS) / 1e9
    raw_seconds = (raw_stamps() - START_NS) / 1e9
    for name in FIELDS:  # NumPy as an oracle; states are constant here
        expected = np.interp(seconds, raw_seconds, raw.packets[name])
        np.testing.assert_allclose(imu.packets[name], expected, rtol=1e-12)
    written = np.array([parse_packet(text) for text in imu.packets.texts])
    np.testing.assert_array_equal(written, imu.packets.values)


@pytest.mark.parametrize("weight", [0.25, 0.5, 0.75])
def test_angles_are_interpolated_the_short_way_round(weight):
    values = packets((raw_stamps() - START_NS) / 1e9)
    yaw = np.pi + 0.1 * np.sin(np.arange(65))  # crosses from pi to -pi again and again
    values[:, FIELDS.index("yaw")] = np.arctan2(np.sin(yaw), np.cos(yaw))
    ends_ns = raw_stamps()[FRAMES] + round(10 * MS * weight)
    imu = match(ends_at(ends_ns[:-1]), recording(raw_stamps(), values=values), align="camera").imu
    found = imu.packets["yaw"][imu.offsets[:-1]]
    before, after = (Rotation.from_euler("z", yaw[FRAMES[:-2] + k, None]) for k in (0, 1))
    expected = (before * (before.inv() * after) ** weight).as_euler("xyz")[:, 2]
    np.testing.assert_allclose(np.exp(1j * found), np.exp(1j * expected), atol=1e-12)
    assert np.abs(found).max() <= np.pi


def test_states_come_from_the_nearest_packet():
    values = packets((raw_stamps() - START_NS) / 1e9)
    values[:, FIELDS.index("numsats")] = np.arange(65)
    ends_ns = raw_stamps()[FRAMES] + np.array([4, 5, 6, 4, 5, 6, 0]) * MS
    imu = match(ends_at(ends_ns), recording(raw_stamps(), values=values), align="camera").imu
    expected = FRAMES[:-1] + [0, 1, 1, 0, 1, 1]
    np.testing.assert_array_equal(imu.packets["numsats"][imu.offsets[:-1]], expected)


@pytest.mark.parametrize("distance_ns", [-TOUCH_NS, 1 - TOUCH_NS, 0, TOUCH_NS - 1, TOUCH_NS])
def test_a_raw_packet_that_touches_an_exposure_is_not_repeated(distance_ns):
    ends_ns = raw_stamps()[FRAMES] - distance_ns  # the raw packet comes so much later
    imu = match(ends_at(ends_ns), recording(raw_stamps()), align="camera").imu
    assert imu.valid.all()
    assert (np.diff(imu.offsets) == (12 if abs(distance_ns) == TOUCH_NS else 11)).all()
    assert (imu.padded().dt > 0.99e-6).all()


@pytest.mark.parametrize("first, last", [(3, 65), (0, 62)])
def test_an_exposure_outside_of_the_recording_has_no_twin(first, last):
    raw = recording(raw_stamps()[first:last])
    matching = match(ends_at(raw_stamps()[FRAMES]), raw, align="camera")
    assert reasons(matching) == {0 if first else 5: Reason.NO_TWIN}


def test_the_first_and_the_last_raw_packet_may_be_at_exposures():
    values = packets(np.arange(61) / 100)
    values[:, FIELDS.index("alt")] = np.where(np.arange(61) % 10, 1e8, 0.1)  # the last digit counts
    raw, ends = recording(raw_stamps()[2:63], values=values), ends_at(raw_stamps()[FRAMES])
    at_packets, at_exposures = (match(ends, raw, align=align).imu for align in ALIGNMENTS)
    assert at_exposures.valid.all()
    np.testing.assert_array_equal(at_exposures.packets.values, at_packets.packets.values)


def test_exposures_that_step_back_between_two_raw_packets_are_no_interval():
    ends_ns = raw_stamps()[[2, 12]] + np.array([4, 5]) * MS
    ends_ns = np.insert(ends_ns, 1, ends_ns[0] - MS)
    matching = match(ends_at(ends_ns), recording(raw_stamps()), align="camera")
    assert reasons(matching) == {0: Reason.STEP_BACK}


def test_ends_in_order_whose_packets_are_not_are_no_interval():
    places = np.r_[10:20, 0:10]  # as if the recording began in the middle
    raw = recording(raw_stamps()[places])
    assert reasons(match(ends_at(raw_stamps()[[2, 15]]), raw)) == {0: Reason.STEP_BACK}


def test_the_raw_packets_around_an_exposure_must_be_right_as_well():
    # Exposure 2 lies in the gap that packet 22 left; exposure 4 between 41 and 42, which is broken.
    raw = recording(raw_stamps(), {42: Fault.BROKEN_PACKET})
    keep = np.arange(65) != 21
    gap = recording(raw_stamps()[keep], {41: Fault.BROKEN_PACKET})
    broken = dict.fromkeys([3, 4], Reason.BROKEN_PACKET)
    assert reasons(match(ends_at(exposures()), raw, align="camera")) == broken
    both = broken | dict.fromkeys([1, 2], Reason.GAP)
    assert reasons(match(ends_at(exposures()), gap, align="camera")) == dict(sorted(both.items()))


@pytest.mark.parametrize("shift_ns", [3_600_000 * MS, -3_600_000 * MS, 40 * MS, -40 * MS])
@pytest.mark.parametrize("align", ALIGNMENTS)
def test_one_wrong_stamp_costs_what_it_touches_and_no_more(align, shift_ns):
    stamps_ns = raw_stamps()
    stamps_ns[35] += shift_ns
    matching = match(
        ends_at(exposures() if align == "camera" else stamps_ns[FRAMES]),
        recording(stamps_ns, values=packets(np.arange(65) / 100)),
        align=align,
    )
    assert set(reasons(matching)) <= {2, 3, 4} and 3 in reasons(matching)
    if abs(shift_ns) > 1000 * MS:
        assert reasons(matching) == {3: Reason.STEP_BACK}


@given(st.lists(st.integers(0, 12), min_size=1, max_size=9))
def test_the_order_is_the_longest_that_does_not_step_back(stamps):
    places = in_order(np.array(stamps))
    kept = [stamps[i] for i in places]
    assert (np.diff(places) > 0).all() and (np.diff(kept) >= 0).all()
    subsets = (
        itertools.compress(stamps, mask) for mask in itertools.product([0, 1], repeat=len(stamps))
    )
    assert len(kept) == max(len(s) for s in map(list, subsets) if s == sorted(s))


# Both, with any damage, against the rules counted slowly


def plain_match(ends_ns, stamps_ns, faults, align):
    """Return the reason or the places of the raw packets in between, for each interval."""

    def around(t):
        if align == "packet":
            at = [place for place, ns in enumerate(stamps_ns) if ns == t]
            return (at[0], at[-1]) if at else None
        after = [place for place in orderly if stamps_ns[place] >= t]
        before = [place for place in orderly if stamps_ns[place] <= t]
        both = after and before and sorted([after[0], before[-1]])
        return tuple(both) if both else None

    stamped = [place for place, ns in enumerate(stamps_ns) if ns is not None]
    orderly = [stamped[i] for i in in_order(np.array([stamps_ns[place] for place in stamped]))]
    strays = set(stamped) - set(orderly) if align == "camera" else set()
    orderly_ends = set(in_order(np.array(ends_ns)).tolist())
    results = []
    for i, (start, stop) in enumerate(zip(ends_ns, ends_ns[1:], strict=False)):
        if around(start) is None or around(stop) is None:
            results.append(Reason.NO_TWIN)
            continue
        places = range(around(start)[0], around(stop)[1] + 1)
        inside = [faults.get(place) for place in places]
        known = [stamps_ns[place] for place in places if stamps_ns[place] is not None]
        steps = [b - a for a, b in zip(known, known[1:], strict=False)]
        taken = [
            place
            for place in places
            if align == "packet"
            or (
                stamps_ns[place] is not None
                and start + TOUCH_NS <= stamps_ns[place] <= stop - TOUCH_NS
            )
        ]
        claimed = [
            place
            for place in (strays if places else ())
            if stamps_ns[places[0]] <= stamps_ns[place] <= stamps_ns[places[-1]]
        ]
        rules = {
            Reason.STEP_BACK: not places
            or claimed
            or not {i, i + 1} <= orderly_ends
            or any(step < 0 for step in steps),
            Reason.REPEATED_STAMP: 0 in steps,
            Reason.MISSING_PACKET: Fault.MISSING_FILE in inside,
            Reason.BROKEN_PACKET: Fault.BROKEN_PACKET in inside,
            Reason.UNSTAMPED_PACKET: Fault.NO_STAMP in inside,
            Reason.GAP: any(step > 15 * MS for step in steps),
            Reason.SHORT_STEP: any(step < 5 * MS for step in steps),
            Reason.TOO_FEW_PACKETS: len(taken) + 2 * (align == "camera") < MIN_PACKETS,
        }
        results.append(next((reason for reason, holds in rules.items() if holds), taken))
    return results


damages = st.lists(
    st.tuples(st.integers(0, 64), st.sampled_from([*Fault, -50, -11, -9, -5, 4, 7, 30])),
    max_size=6,
)


@given(damages, st.sampled_from(ALIGNMENTS), st.integers(-9 * MS, 9 * MS))
def test_any_damage_gives_what_the_plain_rules_give(damages, align, delay_ns):
    stamps_ns, faults = raw_stamps(), {}
    for place, what in damages:
        if isinstance(what, Fault):
            faults[place] = what
        else:
            stamps_ns[place:] += what * MS
    ends_ns = stamps_ns[FRAMES] + (delay_ns if align == "camera" else 0)
    # Packets of the same stamp differ, so that nothing is repaired.
    values = packets(np.arange(65) / 100)
    matching = match(ends_at(ends_ns), recording(stamps_ns, faults, values), align=align)
    hidden = [
        None if faults.get(place) is Fault.NO_STAMP else ns
        for place, ns in enumerate(stamps_ns.tolist())
    ]
    expected = plain_match(ends_ns.tolist(), hidden, faults, align)
    if align == "camera" and (np.diff(ends_ns) <= 0).any():
        return  # the plain rules know no exposures that step back
    for i, outcome in enumerate(expected):
        if isinstance(outcome, Reason):
            assert matching.imu.reasons[i] is outcome
            continue
        found = matching.imu.interval(i)
        inner = found.stamps_ns if align == "packet" else found.stamps_ns[1:-1]
        np.testing.assert_array_equal(inner, stamps_ns[outcome])
        assert (found.stamps_ns[[0, -1]] == ends_ns[i : i + 2]).all()
    assert sum(len(report.intervals) for report in matching.dropped) == (~matching.imu.valid).sum()


@pytest.mark.parametrize("align", ALIGNMENTS)
@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_frames_are_fine_and_inputs_stay_as_they_were(align, count):
    raw, ends = recording(raw_stamps()), ends_at(raw_stamps()[FRAMES][:count])
    before = raw.packets.values.copy(), raw.stamps.ns.copy(), ends.ns.copy()
    assert len(match(ends, raw, align=align).imu) == max(count - 1, 0)
    for a, b in zip(before, (raw.packets.values, raw.stamps.ns, ends.ns), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"align": "image"}, r"align: expected one of packet, camera, got 'image'"),
        ({"max_drift_ms": -1}, r"max_drift_ms: expected a number from 0 to 1e\+06, got -1"),
        (
            {"max_drift_ms": float("nan")},
            r"max_drift_ms: expected a number from 0 to 1e\+06, got nan",
        ),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        match(ends_at(raw_stamps()[FRAMES]), recording(raw_stamps()), **options)


def test_a_recording_without_stamps_is_refused():
    raw = recording(raw_stamps()[:2], dict.fromkeys([0, 1], Fault.NO_STAMP))
    with pytest.raises(DataError, match="raw: no packet has a stamp"):
        match(ends_at(raw_stamps()[FRAMES]), raw)


def test_the_benchmark_prints_its_times_beside_the_limits(capsys):
    benchmark.main(["--frames", "5", "--repeats", "1"])
    printed = capsys.readouterr().out
    assert all(case in printed for case in ["5 frames", "read", "packet", "camera", "limit"])
