"""Folders and hub names: what loads, and what each way of failing says.

The hub is a server on loopback that answers as huggingface.co does, error headers included; huggingface_hub itself is
the real one. It reads its settings on import, so loads from the hub run in processes of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from diarization.errors import ModelUnavailable
from diarization.hub import load_pipeline
from diarization.hub_errors import explain
from tests.hub import COMMIT, TOKEN, Hub, serving
from tests.processes import ROOT

pytestmark = pytest.mark.model

BUNDLED = ROOT / "models" / "speaker-diarization-community-1"

# As published, but for the two lines that name the parts.
CONFIG = """
version: 3.1.0
pipeline:
  name: pyannote.audio.pipelines.SpeakerDiarization
  params:
    clustering: AgglomerativeClustering
    embedding: {embedding}
    embedding_batch_size: 32
    embedding_exclude_overlap: true
    segmentation: {segmentation}
    segmentation_batch_size: 32
params:
  clustering:
    method: centroid
    min_cluster_size: 12
    threshold: 0.7045654963945799
  segmentation:
    min_duration_off: 0.0
"""
SEGMENTATION, EMBEDDING = "pyannote/segmentation-3.0", "pyannote/wespeaker-voxceleb-resnet34-LM"
DIARIZATION = "pyannote/speaker-diarization-3.1"
COMMUNITY = "pyannote/speaker-diarization-community-1"
SERVICE = "pipeline:\n  name: pyannote.audio.pipelines.pyannoteai.sdk.SDK\n  params: {}\n"


def config(segmentation: str = SEGMENTATION, embedding: str = EMBEDDING) -> bytes:
    return CONFIG.format(segmentation=segmentation, embedding=embedding).encode()


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """Serves two pipelines; of the first its own terms are accepted and those of no part, of the second all are."""
    segmentation = (BUNDLED / "segmentation" / "pytorch_model.bin").read_bytes()
    embedding = (BUNDLED / "embedding" / "pytorch_model.bin").read_bytes()
    files = {
        DIARIZATION: {"config.yaml": config()},
        EMBEDDING: {"pytorch_model.bin": embedding},
        "someone/pipeline": {"config.yaml": config(segmentation="someone/segmentation")},
        "someone/segmentation": {"pytorch_model.bin": segmentation},
        "someone/gated-part": {"config.yaml": config(segmentation="someone/gated-segmentation")},
        "someone/damaged": {"config.yaml": config(segmentation="someone/damaged-segmentation")},
        "someone/damaged-segmentation": {"pytorch_model.bin": segmentation[:100_000]},
        "someone/no-config": {"README.md": b""},
        "someone/service": {"config.yaml": SERVICE.encode()},
    }
    gated = {COMMUNITY, SEGMENTATION, "someone/gated-segmentation"}
    with serving(Hub(files, gated, forbidden={"someone/forbidden"})) as running:
        yield running


DRIVER = """
import json, sys
from diarization.errors import ModelUnavailable
from diarization.hub import load_pipeline

for model, token in json.loads(sys.argv[1]):
    try:
        loaded = load_pipeline(model, token)
        outcome = {"name": loaded.name, "revision": loaded.revision, "clustering": loaded.pipeline.klustering}
    except ModelUnavailable as error:
        outcome = {"error": str(error)}
    print(json.dumps(outcome), file=sys.stderr)
"""

Load = tuple[str, str | None]
Outcome = dict[str, str]


def load_all(loads: Iterable[Load], cache: Path, endpoint: str, **settings: str) -> dict[Load, Outcome]:
    """What each load, of a model with a token, came to. All run in one process, which may print nothing else."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint, **settings}
    command = [sys.executable, "-c", DRIVER, json.dumps(list(loads))]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return dict(zip(loads, (json.loads(line) for line in done.stderr.splitlines() if line[:1] == "{"), strict=True))


LOADS = {
    (DIARIZATION, TOKEN): {"name": DIARIZATION, "revision": COMMIT, "clustering": "AgglomerativeClustering"},
    ("someone/pipeline", TOKEN): {
        "name": "someone/pipeline",
        "revision": COMMIT,
        "clustering": "AgglomerativeClustering",
    },
    ("someone/pipeline@v1", None): {
        "name": "someone/pipeline",
        "revision": COMMIT,
        "clustering": "AgglomerativeClustering",
    },
}
REFUSALS: dict[Load, str] = {
    (COMMUNITY, TOKEN): (
        f"{COMMUNITY} asks for consent: accept its terms at https://hf.co/{COMMUNITY} "
        "with the account that HF_TOKEN belongs to"
    ),
    (COMMUNITY, None): f"{COMMUNITY} asks for consent: accept its terms at https://hf.co/{COMMUNITY} and set HF_TOKEN",
    ("someone/gated-part", TOKEN): (
        "someone/gated-segmentation (which someone/gated-part needs) asks for consent: accept its terms at "
        "https://hf.co/someone/gated-segmentation with the account that HF_TOKEN belongs to"
    ),
    ("someone/misspelt", TOKEN): (
        "there is no folder and no hub repository someone/misspelt, or it is hidden: "
        "check the spelling, and that the account of HF_TOKEN may read it"
    ),
    ("someone/misspelt", None): (
        "there is no folder and no hub repository someone/misspelt, or it is hidden: "
        "check the spelling, and set HF_TOKEN if it is private"
    ),
    ("someone/pipeline", "hf_expired"): (
        "the hub refuses HF_TOKEN (401) for someone/pipeline: make a new one at https://hf.co/settings/tokens"
    ),
    ("someone/forbidden", TOKEN): (
        "the hub does not let HF_TOKEN read someone/forbidden (403): "
        "a fine-grained token must be given read access to gated repositories at https://hf.co/settings/tokens"
    ),
    ("someone/no-config", TOKEN): (
        "someone/no-config lacks a file that a pyannote pipeline has: check DIARIZATION_MODEL"
    ),
    ("someone/service", TOKEN): (
        "someone/service is a pyannote.audio.pipelines.pyannoteai.sdk.SDK, "
        "not a speaker diarization pipeline that runs here"
    ),
    ("someone/pipeline", "an_api_key_of_another_service"): (
        "HF_TOKEN is no token of the model hub, whose tokens begin with hf_: check it"
    ),
}
DAMAGED = ("someone/damaged", TOKEN)
FETCHED = ("someone/pipeline", TOKEN)


@dataclass(frozen=True)
class Visit:
    """What a worker that reached the hub got, and the cache it left."""

    outcomes: dict[Load, Outcome]
    cache: Path


@pytest.fixture(scope="module")
def visit(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    cache = tmp_path_factory.mktemp("cache")
    # The refusals first: a cache that holds a file would answer in the hub's place.
    return Visit(load_all([*REFUSALS, DAMAGED, *LOADS], cache, hub.url), cache)


@pytest.mark.parametrize("load", LOADS)
def test_a_hub_pipeline_loads_with_no_terms_accepted_but_its_own(visit: Visit, load: Load) -> None:
    assert visit.outcomes[load] == LOADS[load]


@pytest.mark.parametrize("load", REFUSALS)
def test_a_refusal_of_the_hub_says_what_to_do_and_for_which_repository(visit: Visit, load: Load) -> None:
    assert visit.outcomes[load] == {"error": REFUSALS[load]}


def test_a_damaged_download_is_called_damaged(visit: Visit) -> None:
    assert visit.outcomes[DAMAGED]["error"].startswith("someone/damaged cannot be loaded, a file may be damaged: ")


def test_what_was_fetched_once_loads_where_the_hub_cannot_be_reached(visit: Visit) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"

    assert load_all([FETCHED], visit.cache, nobody) == {FETCHED: LOADS[FETCHED]}


def test_offline_is_the_same_and_says_what_was_never_fetched(visit: Visit, hub: Hub) -> None:
    absent = (COMMUNITY, TOKEN)

    outcomes = load_all([FETCHED, absent], visit.cache, hub.url, HF_HUB_OFFLINE="1")

    missing = f"{COMMUNITY} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it: start once without"
    assert outcomes == {FETCHED: LOADS[FETCHED], absent: {"error": missing}}


def test_a_hub_that_cannot_be_reached_is_named_with_the_part_it_was_asked_for() -> None:
    """As huggingface_hub raises it, after half a minute of trying."""
    request = httpx2.Request("HEAD", f"https://huggingface.co/{EMBEDDING}/resolve/main/pytorch_model.bin?sig=secret")
    error = LocalEntryNotFoundError("An error happened while trying to locate the file on the Hub and…")
    error.__cause__ = httpx2.ConnectError("[Errno 111] Connection refused", request=request)

    assert explain(error, DIARIZATION, has_token=True) == (
        f"the hub cannot be reached and {EMBEDDING} (which {DIARIZATION} needs) is not in the cache: "
        "check the network, or set DIARIZATION_MODEL to a folder"
    )


def test_a_hub_that_is_ill_gives_its_status() -> None:
    request = httpx2.Request("HEAD", f"https://huggingface.co/{DIARIZATION}/resolve/main/config.yaml")
    error = LocalEntryNotFoundError("An error happened while trying to locate the file on the Hub and…")
    error.__cause__ = HfHubHTTPError("Server error '503'", response=httpx2.Response(503, request=request))

    assert explain(error, DIARIZATION, has_token=True) == (
        f"the hub answered 503 for {DIARIZATION}: try again later, or set DIARIZATION_MODEL to a folder"
    )


def test_a_folder_or_its_config_loads_and_needs_no_token(capsys: pytest.CaptureFixture[str]) -> None:
    for model, token in ((BUNDLED, None), (BUNDLED / "config.yaml", "a token that nobody asks for")):
        loaded = load_pipeline(str(model), token)

        assert (loaded.name, loaded.revision) == ("speaker-diarization-community-1", None)
        assert loaded.pipeline.klustering == "VBxClustering"
    assert capsys.readouterr() == ("", "")


BUNDLED_CONFIG = (BUNDLED / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("config.yaml", None, "the folder {folder} holds no config.yaml: set DIARIZATION_MODEL to a pipeline's folder"),
        ("config.yaml", "params: {}", "the config.yaml of broken describes no pyannote pipeline"),
        ("config.yaml", "", "the config.yaml of broken describes no pyannote pipeline"),
        ("config.yaml", "pipeline: [", "{folder} cannot be loaded, a file may be damaged: ParserError: "),
        (
            "config.yaml",
            BUNDLED_CONFIG.replace("4.0.0", "9.0.0"),
            "{folder} needs what is not installed: Pipeline requires pyannote.audio ~ 9.0.0 but ",
        ),
        (
            "config.yaml",
            BUNDLED_CONFIG.replace("pyannote.audio.pipelines.", "no_such_package."),
            "{folder} needs what is not installed: No module named 'no_such_package'",
        ),
        (
            "segmentation/pytorch_model.bin",
            None,
            "{folder} is not complete: {folder}/segmentation/pytorch_model.bin is missing",
        ),
        ("embedding/pytorch_model.bin", "", "{folder} cannot be loaded, a file may be damaged: "),
        ("embedding/pytorch_model.bin", "no weights", "{folder} cannot be loaded, a file may be damaged: "),
        ("plda/plda.npz", "no arrays", "{folder} cannot be loaded, a file may be damaged: "),
        ("plda/plda.npz", None, "{folder} is not complete: {folder}/plda/plda.npz is missing"),
    ],
)
def test_a_broken_folder_says_what_is_wrong(tmp_path: Path, file: str, content: str | None, expected: str) -> None:
    folder = Path(shutil.copytree(BUNDLED, tmp_path / "broken"))
    (folder / file).unlink() if content is None else (folder / file).write_text(content)

    with pytest.raises(ModelUnavailable) as raised:
        load_pipeline(str(folder))

    assert str(raised.value).startswith(expected.format(folder=folder))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["/no/such/folder", "community-1", "models\\community", "a/b/c", "https://hf.co/a/b"])
def test_what_can_be_neither_folder_nor_hub_name_is_said_so(name: str) -> None:
    with pytest.raises(ModelUnavailable) as raised:
        load_pipeline(name)

    assert str(raised.value) == f"{name!r} is no folder here and no hub name (owner/name): check DIARIZATION_MODEL"


def test_without_the_bundled_model_a_setting_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("diarization.hub.BUNDLED_MODEL", tmp_path / "models" / "speaker-diarization-community-1")

    with pytest.raises(
        ModelUnavailable, match="the bundled model is not part of this installation: set DIARIZATION_MODEL"
    ):
        load_pipeline(str(tmp_path / "models" / "speaker-diarization-community-1"))
