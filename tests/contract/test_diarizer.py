"""What every `Diarizer` keeps, whatever is behind it: one set of checks, run on each."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile

from diarization.diarizer import STAGES, Diarizer, DiarizerOptions
from diarization.errors import Cancelled, RecordingNotFound
from diarization.recording import Recording
from diarization.turns import Diarization, SpeakerHints, total_seconds

NO_HINTS = SpeakerHints()


@dataclass(frozen=True)
class Subject:
    """A diarizer, and recordings that it can reach."""

    diarizer: Diarizer
    speech: Recording
    silence: Recording
    missing: Recording


def stand_in(folder: Path) -> Subject:
    from tests.standin import load

    at = "http://stand.in"
    return Subject(
        diarizer=load(DiarizerOptions(model="stand-in")),
        speech=Recording(f"{at}/turns/60/3"),
        silence=Recording(f"{at}/turns/10/0"),
        missing=Recording(f"{at}/fail/recording_not_found"),
    )


def pyannote(folder: Path) -> Subject:
    import numpy as np

    from diarization.diarizer import BUNDLED_MODEL
    from diarization.pipeline import load
    from tests.pyannote_model import SAMPLE_RATE, sample

    soundfile.write(folder / "speech.wav", sample(7, 17), SAMPLE_RATE)
    soundfile.write(folder / "silence.wav", np.zeros(2 * SAMPLE_RATE, np.float32), SAMPLE_RATE)
    return Subject(
        diarizer=load(DiarizerOptions(model=str(BUNDLED_MODEL), device="cpu", recordings_dir=folder)),
        speech=Recording(f"file://{folder}/speech.wav"),
        silence=Recording(f"file://{folder}/silence.wav"),
        missing=Recording(f"file://{folder}/missing.wav"),
    )


@pytest.fixture(scope="module", params=[stand_in, pytest.param(pyannote, marks=pytest.mark.model)])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    build: Callable[[Path], Subject] = request.param
    return build(tmp_path_factory.mktemp("recordings"))


@dataclass(frozen=True)
class Run:
    result: Diarization
    reports: list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def run(subject: Subject) -> Run:
    """The recording with speech, diarized once for the checks that only look."""
    reports: list[tuple[str, int, int]] = []
    result = subject.diarizer.diarize(subject.speech, NO_HINTS, lambda *report: reports.append(report))
    return Run(result, reports)


def ignore(stage: str, done: int, total: int) -> None:
    """A report nobody reads."""


def test_turns_come_by_start_under_speaker_labels(run: Run) -> None:
    segments = run.result.segments

    assert [turn.start for turn in segments] == sorted(turn.start for turn in segments)
    labels = {turn.speaker for turn in segments}
    assert labels == {f"SPEAKER_{number:02d}" for number in range(len(labels))}
    assert len(labels) > 1


def test_times_are_seconds_in_whole_milliseconds(run: Run) -> None:
    times = [time for turn in run.result.segments + run.result.exclusive_segments for time in (turn.start, turn.end)]

    assert all(type(time) is float and round(time, 3) == time for time in times)
    assert max(times) <= run.result.audio_seconds + 0.1


def test_one_speaker_at_a_time_in_the_exclusive_track(run: Run) -> None:
    exclusive = run.result.exclusive_segments

    assert all(first.end <= second.start for first, second in itertools.pairwise(exclusive))
    assert {turn.speaker for turn in exclusive} <= {turn.speaker for turn in run.result.segments}


def test_speakers_carry_the_seconds_of_their_turns(run: Run) -> None:
    assert run.result.speakers == total_seconds(run.result.segments)


def test_a_result_survives_the_wire(run: Run) -> None:
    assert Diarization.from_json(json.loads(json.dumps(run.result.to_json()))) == run.result


def test_provenance_says_how_it_came_about(run: Run) -> None:
    provenance = run.result.provenance

    assert provenance.model
    assert provenance.device
    assert provenance.precision == "exact"
    assert set(provenance.stage_seconds) <= set(STAGES)


def test_progress_names_known_stages_and_never_goes_back(run: Run) -> None:
    places = [(STAGES.index(stage), done) for stage, done, _ in run.reports]

    assert places == sorted(places)
    assert all(done <= total for _, done, total in run.reports if total)
    stage, done, total = run.reports[-1]
    assert stage == "clustering"
    assert done == total


def test_the_same_recording_gives_the_same_turns(subject: Subject, run: Run) -> None:
    again = subject.diarizer.diarize(subject.speech, NO_HINTS, ignore)

    assert (again.segments, again.exclusive_segments) == (run.result.segments, run.result.exclusive_segments)


def test_silence_is_an_answer(subject: Subject) -> None:
    result = subject.diarizer.diarize(subject.silence, NO_HINTS, ignore)

    assert (result.segments, result.exclusive_segments, result.speakers) == ((), (), ())
    assert result.audio_seconds > 0


def test_a_hint_is_followed_where_it_can_be(subject: Subject) -> None:
    result = subject.diarizer.diarize(subject.speech, SpeakerHints(max_speakers=1), ignore)

    assert len(result.speakers) == 1
    assert not result.warnings


def test_a_hint_that_cannot_be_met_is_a_warning(subject: Subject) -> None:
    result = subject.diarizer.diarize(subject.speech, SpeakerHints(num_speakers=99), ignore)

    assert result.segments
    assert f"asked for 99 speakers, found {len(result.speakers)}" in result.warnings


@pytest.mark.parametrize("when", STAGES)
def test_a_cancel_passes_through_and_leaves_the_diarizer_usable(subject: Subject, when: str) -> None:
    def cancel(stage: str, done: int, total: int) -> None:
        if stage == when:
            raise Cancelled("nobody wants it any more")

    with pytest.raises(Cancelled, match="nobody wants it any more"):
        subject.diarizer.diarize(subject.speech, NO_HINTS, cancel)
    assert subject.diarizer.diarize(subject.silence, NO_HINTS, ignore).segments == ()


def test_a_recording_that_is_not_there_has_its_error(subject: Subject) -> None:
    with pytest.raises(RecordingNotFound):
        subject.diarizer.diarize(subject.missing, NO_HINTS, ignore)
