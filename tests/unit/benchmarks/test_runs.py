"""Whether two processes ran one job at a time, from the journal and from who was seen alive when."""

from __future__ import annotations

from benchmarks.runs import Run, overlaps, runs_of

LEASE_SECONDS = 4.0


def line(event: str, what: str, pid: int, at: float) -> dict[str, object]:
    return {"event": event, "what": what, "pid": pid, "at": at}


def test_a_run_ends_by_its_line_or_when_its_process_was_last_seen() -> None:
    journal = [
        line("load", "model", 1, 0),
        line("start", "a", 1, 1),
        line("start", "b", 2, 2),
        line("end", "a", 1, 3),
        line("start", "c", 1, 4),
        line("recording_fetch_failed", "c", 1, 5),
    ]
    assert runs_of(journal, {2: 2.5}) == [
        Run("a", 1, 1, 3, "end"),
        Run("b", 2, 2, 2.5, "died"),
        Run("c", 1, 4, 5, "recording_fetch_failed"),
    ]


def test_a_process_that_left_a_job_without_a_word_and_began_another() -> None:
    journal = [line("start", "a", 1, 1), line("start", "b", 1, 2), line("end", "b", 1, 3)]
    assert [run.how for run in runs_of(journal, {})] == ["left", "end"]


def test_runs_one_after_the_other_do_not_overlap() -> None:
    runs = [Run("a", 1, 0, 1, "died"), Run("a", 2, 1, 2, "end"), Run("b", 3, 0, 9, "end")]
    assert overlaps(runs, {}, LEASE_SECONDS) == []


def test_two_at_a_time_overlap_unless_the_first_stood_still() -> None:
    runs = [Run("a", 2, 5, 9, "end"), Run("a", 1, 0, 8, "cancelled")]
    (overlap,) = overlaps(runs, {}, LEASE_SECONDS)
    assert (overlap.first.pid, overlap.second.pid, overlap.seconds, overlap.frozen) == (1, 2, 3, False)
    assert overlaps(runs, {1: [(0.5, 6)]}, LEASE_SECONDS)[0].frozen
    assert not overlaps(runs, {1: [(0.5, 2)]}, LEASE_SECONDS)[0].frozen, "shorter than the lease"
    assert not overlaps(runs, {1: [(4.5, 9)]}, LEASE_SECONDS)[0].frozen, "the other had begun by then"
    assert not overlaps(runs, {2: [(0.5, 6)]}, LEASE_SECONDS)[0].frozen, "another process"


def test_a_long_run_overlaps_later_ones_as_well() -> None:
    runs = [Run("a", 1, 0, 10, "end"), Run("a", 2, 1, 2, "died"), Run("a", 3, 4, 6, "end")]
    assert [(one.first.pid, one.second.pid) for one in overlaps(runs, {}, LEASE_SECONDS)] == [(1, 2), (1, 3)]
