"""The benchmarks run and say what they measured; how fast is for `make bench` to tell."""

from __future__ import annotations

import pytest

from benchmarks import accuracy, so3_exp, timing


def test_cases_take_turns_and_the_warm_up_is_not_counted(monkeypatch):
    now, order = [0.0], []

    def case(name, durations):
        def run():
            order.append(name)
            now[0] += durations.pop(0)

        return run

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    cases = {"a": case("a", [100, 1, 50, 3]), "b": case("b", [100, 5, 4, 6])}
    assert timing.interleaved_medians(cases, 3) == {"a": 3, "b": 5}
    assert order == list("ab" * 4)


def test_the_table_shows_milliseconds_and_ratios():
    assert timing.table({"plain": 0.02, "ours": 0.005}, reference="plain").splitlines() == [
        "case   median_ms  times plain",
        "plain       20.0  1.00",
        "ours         5.0  0.25",
    ]


def test_so3_exp_prints_its_time_beside_that_of_scipy(capsys):
    so3_exp.main(["--count", "100", "--repeats", "2"])
    printed = capsys.readouterr().out
    assert "100 rotation vectors" in printed
    assert all(case in printed for case in ["SciPy", "float64", "float32", "gradient"])


BOUNDS = {  # in float64 and in float32
    accuracy.round_trip: (1e-12, 5e-7),
    accuracy.at_pi: (1e-12, 1e-6),
    accuracy.against_scipy: (1e-12, 1e-6),
    accuracy.white_noise: (1e-12, 5e-4),
    accuracy.smooth_image: (1e-12, 1e-5),
}


@pytest.mark.parametrize("measure", BOUNDS, ids=lambda measure: measure.__name__)
def test_the_errors_in_the_readme_are_bounded(measure):
    for dtype, bound in zip(accuracy.TYPES, BOUNDS[measure], strict=True):
        assert 0 < measure(dtype) <= bound


def test_every_measure_is_bounded_by_a_test_and_printed(capsys, monkeypatch):
    assert set(accuracy.MEASURES.values()) == set(BOUNDS)
    monkeypatch.setattr(accuracy, "MEASURES", {name: lambda _: 0.5 for name in accuracy.MEASURES})
    accuracy.main()
    printed = capsys.readouterr().out
    assert printed.count("5.0e-01") == 2 * len(accuracy.MEASURES)
