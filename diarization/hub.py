"""A folder or a name on the model hub in, a loaded pyannote pipeline out.

Whatever goes wrong is a `ModelUnavailable` that names the repository it went wrong for (which may be a part's, not the
pipeline's) and says what to do.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.errors import GatedRepoError
from pyannote.core.utils.helper import get_class_by_name

from diarization.diarizer import BUNDLED_MODEL
from diarization.errors import ModelUnavailable
from diarization.hub_errors import explain, repository
from diarization.upstream import (
    AssetFileName,
    Pipeline,
    SpeakerDiarization,
    download_from_hf_hub,
    expand_subfolders,
)

log = logging.getLogger(__name__)


# The bundled segmentation is the file of this repository, whose terms ask for consent and whose licence is MIT.
SEGMENTATION = "pyannote/segmentation-3.0"

_HUB_NAME = re.compile(r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class LoadedPipeline:
    """A speaker diarization pipeline, on the CPU.

    Attributes:
        pipeline: Ready to be called.
        name: The folder's name, or the hub's.
        revision: Hub commit; None for a folder.
    """

    pipeline: SpeakerDiarization
    name: str
    revision: str | None


@dataclass(frozen=True)
class _Source:
    """Where a pipeline's `config.yaml` is, and `location`, where its parts named `$model/…` are."""

    config: Path
    location: str
    name: str
    revision: str | None = None


def load_pipeline(model: str, token: str | None = None) -> LoadedPipeline:
    """Load a speaker diarization pipeline with its weights.

    Args:
        model: A folder that holds `config.yaml`, or a hub name: `owner/name` or `owner/name@revision`. What was fetched
            from the hub once is taken from its cache where the hub cannot be reached.
        token: For the hub. None leaves it to what `hf auth login` stored.

    Raises:
        ModelUnavailable: It cannot be loaded.
    """
    with _explained(model, token):
        source = _folder(Path(model)) if Path(model).exists() else _from_hub(model, token)
        pipeline = _load(_read_config(source, token), token)
    pipeline.legacy = False  # a config may ask for pyannote 3's answer, which lacks the exclusive track
    return LoadedPipeline(pipeline, source.name, source.revision)


def _folder(path: Path) -> _Source:
    folder, config = (path.parent, path) if path.is_file() else (path, path / AssetFileName.Pipeline.value)
    if not config.is_file():
        raise ModelUnavailable(f"the folder {path} holds no config.yaml: set DIARIZATION_MODEL to a pipeline's folder")
    return _Source(config, str(folder), folder.resolve().name)


def _from_hub(model: str, token: str | None) -> _Source:
    if Path(model) == BUNDLED_MODEL:
        raise ModelUnavailable(
            "the bundled model is not part of this installation: set DIARIZATION_MODEL to a pipeline's folder, or to a "
            "hub name such as pyannote/speaker-diarization-3.1 together with HF_TOKEN"
        )
    if not (match := _HUB_NAME.fullmatch(model)):
        raise ModelUnavailable(f"{model!r} is no folder here and no hub name (owner/name): check DIARIZATION_MODEL")
    if token and not token.startswith("hf_"):
        # pyannote drops such a token without a word, and the hub then answers as if there were none.
        raise ModelUnavailable("HF_TOKEN is no token of the model hub, whose tokens begin with hf_: check it")
    config = download_from_hf_hub(match["name"], AssetFileName.Pipeline, revision=match["revision"], token=token)
    if config is None:
        raise ModelUnavailable(f"the hub gave no config.yaml for {model}: check DIARIZATION_MODEL")
    commit = Path(config).parent.name
    return _Source(Path(config), match["name"], match["name"], commit if _COMMIT.fullmatch(commit) else None)


def _read_config(source: _Source, token: str | None) -> dict[str, Any]:
    """What `Pipeline.from_pretrained` reads for itself, with the bundled PLDA where the pipeline names none.

    pyannote 4 loads a PLDA for every pipeline, by default from a repository with terms of its own. The bundled one is
    the same.
    """
    config: dict[str, Any] = yaml.safe_load(source.config.read_text(encoding="utf-8"))
    try:
        kind, params = config["pipeline"]["name"], config["pipeline"].setdefault("params", {})
        runs_here = issubclass(
            get_class_by_name(kind, default_module_name="pyannote.pipeline.blocks"), SpeakerDiarization
        )
    except (KeyError, TypeError, AttributeError):
        raise ModelUnavailable(f"the config.yaml of {source.name} describes no pyannote pipeline") from None
    if not runs_here:  # among the others is one that sends recordings to a service
        raise ModelUnavailable(f"{source.name} is a {kind}, not a speaker diarization pipeline that runs here")
    if "plda" not in params and BUNDLED_MODEL.is_dir():
        params["plda"] = str(BUNDLED_MODEL / "plda")
    expand_subfolders(config, source.location, parent_revision=source.revision, token=token)
    return config


def _load(config: dict[str, Any], token: str | None) -> SpeakerDiarization:
    try:
        return _instantiate(config, token)
    except GatedRepoError as error:
        if repository(error) != SEGMENTATION or not BUNDLED_MODEL.is_dir():
            raise
    log.warning("the terms of %s are not accepted; the same weights are taken from models/", SEGMENTATION)
    config["pipeline"]["params"]["segmentation"] = str(BUNDLED_MODEL / "segmentation" / AssetFileName.Model.value)
    return _instantiate(config, token)


def _instantiate(config: dict[str, Any], token: str | None) -> SpeakerDiarization:
    pipeline = Pipeline.from_pretrained(config, token=token)
    if not isinstance(pipeline, SpeakerDiarization):
        raise ModelUnavailable(f"pyannote gave a {type(pipeline).__name__} in place of a pipeline")
    return pipeline


@contextmanager
def _explained(model: str, token: str | None) -> Iterator[None]:
    """Turn whatever fails into a `ModelUnavailable`; what libraries print meanwhile is dropped."""
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ModelUnavailable, MemoryError):
        raise
    except Exception as error:  # a damaged file fails in ways nobody can list, and all mean the same
        raise ModelUnavailable(explain(error, model, has_token=bool(token))) from error
