"""pyannote.audio, silent and sending nothing. Whoever needs it imports it from here.

As it comes, pyannote.audio 4 reports each start and each recording's length and hints to its makers (OpenTelemetry),
and warns on import where torchcodec finds no shared FFmpeg libraries, which nothing here needs.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=r"\s*torchcodec is not installed correctly", category=UserWarning)
    from pyannote.audio import Pipeline
    from pyannote.audio.core.pipeline import expand_subfolders
    from pyannote.audio.models.embedding.wespeaker import BaseWeSpeakerResNet, WeSpeakerResNet34
    from pyannote.audio.models.segmentation import PyanNet
    from pyannote.audio.pipelines import SpeakerDiarization
    from pyannote.audio.pipelines.clustering import AgglomerativeClustering, VBxClustering
    from pyannote.audio.pipelines.speaker_diarization import DiarizeOutput
    from pyannote.audio.telemetry import set_telemetry_metrics
    from pyannote.audio.telemetry.metrics import is_metrics_enabled
    from pyannote.audio.utils.dependencies import MissingDependency, WrongDependencyVersion
    from pyannote.audio.utils.hf_hub import AssetFileName, download_from_hf_hub
    from pyannote.audio.utils.reproducibility import fix_reproducibility
    from pyannote.audio.utils.vbx import cluster_vbx

__all__ = [
    "AgglomerativeClustering",
    "AssetFileName",
    "BaseWeSpeakerResNet",
    "DiarizeOutput",
    "MissingDependency",
    "Pipeline",
    "PyanNet",
    "SpeakerDiarization",
    "VBxClustering",
    "WeSpeakerResNet34",
    "WrongDependencyVersion",
    "cluster_vbx",
    "download_from_hf_hub",
    "expand_subfolders",
    "fix_reproducibility",
    "is_metrics_enabled",
]

# The exporter is made on import, but sends nothing before a model is loaded. This holds for child processes, too.
set_telemetry_metrics(False)
