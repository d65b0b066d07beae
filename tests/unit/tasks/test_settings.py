"""Settings: what the environment may say, and that a mistake is never passed over."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from tasks.settings import Settings, SettingsError, read_settings, settings_faults, settings_lookalikes


def test_the_fixed_names_and_their_defaults() -> None:
    defaults = {name.upper(): field.default for name, field in Settings.model_fields.items()}
    assert defaults["REDIS_URL"].get_secret_value() == "redis://localhost:6379/0"
    assert defaults["REDIS_KEY_PREFIX"] == "diarize:"
    assert defaults["WORKER_ROLE"] == "gpu"
    assert defaults["DIARIZATION_DIARIZER"] == "diarization.pipeline:load"
    assert defaults["DIARIZATION_DEVICE"] == "auto"
    assert defaults["DIARIZATION_PRECISION"] == "exact"
    assert defaults["DIARIZATION_MAX_HOURS"] == 12
    assert defaults["DIARIZATION_MAX_BYTES"] == 4 * 1024**3
    assert (defaults["QUEUE_LEASE_SECONDS"], defaults["QUEUE_MAX_ATTEMPTS"]) == (45, 4)
    assert defaults["QUEUE_RETENTION_DAYS"] == 7
    assert defaults["RUNPOD_ENDPOINT_BASE_URL"] == "https://api.runpod.ai/v2"
    assert (defaults["OVERFLOW_DEADLINE_SECONDS"], defaults["OVERFLOW_BUDGET_USD_PER_DAY"]) == (900, 10)
    assert (defaults["OVERFLOW_USD_PER_SECOND"], defaults["OVERFLOW_MAX_IN_FLIGHT"]) == (0.00031, 3)
    assert not defaults["FLOWER_ALLOW_CONTROL"]
    unset = {name for name, value in defaults.items() if value is None}
    secrets = {"HF_TOKEN", "RUNPOD_API_KEY", "FLOWER_BASIC_AUTH", "WEBHOOK_SECRET", "WEBHOOK_SECRET_OLD"}
    folders = {"FLOWER_DB", "DIARIZATION_RECORDINGS_DIR", "DIARIZATION_GPU_SEATS_DIR", "QUEUE_RUNTIME_DIR"}
    assert unset == folders | secrets | {"CUDA_VISIBLE_DEVICES", "DIARIZATION_JOBS_PER_GPU", "RUNPOD_ENDPOINT_ID"}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://api.runpod.io/v2", "api.runpod.io is RunPod's management API; jobs go to https://api.runpod.ai/v2"),
        ("ftp://api.runpod.ai/v2", "must be an http or https URL"),
    ],
)
def test_a_base_url_that_takes_no_jobs_is_refused(monkeypatch: pytest.MonkeyPatch, url: str, says: str) -> None:
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", url)
    with pytest.raises(SettingsError, match=says):
        read_settings()


def test_every_setting_is_described() -> None:
    assert not [name for name, field in Settings.model_fields.items() if not (field.description or "").endswith(".")]


def test_a_file_among_dockers_secrets_is_a_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "runpod_api_key").write_text("hunter2\n")
    (tmp_path / "REDIS_URL").write_text("redis://from.file/0")
    (tmp_path / "tls.crt").write_text("not ours")
    monkeypatch.setenv("RUNPOD_API_KEY", "")
    monkeypatch.setenv("REDIS_URL", "redis://from.environment/0")
    settings = read_settings(tmp_path)
    assert settings.runpod_api_key is not None
    assert settings.runpod_api_key.get_secret_value() == "hunter2"
    assert settings.redis_url.get_secret_value() == "redis://from.environment/0"


@pytest.mark.parametrize("name", ["DIARIZATION_MODLE", "QUEUE_LEASE", "OVERFLOW_BUDGET", "WEBHOOK_X", "queue_leese"])
def test_a_misspelt_name_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError, match=f"{name} is not a setting"):
        read_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", "http://:hunter2@localhost"),
        ("WORKER_ROLE", "hunter2"),
        ("DIARIZATION_DEVICE", "hunter2"),
        ("DIARIZATION_DIARIZER", "hunter2"),
        ("DIARIZATION_ALLOWED_NETWORKS", "hunter2"),
        ("DIARIZATION_ALLOWED_NETWORKS", "10.0.0.1/8"),
        ("DIARIZATION_MAX_HOURS", "0"),
        ("DIARIZATION_MAX_HOURS", "nan"),
        ("DIARIZATION_PRECISION", "hunter2"),
        ("QUEUE_LEASE_SECONDS", "1"),
        ("QUEUE_MAX_ATTEMPTS", "0"),
        ("QUEUE_RETENTION_DAYS", "-1"),
    ],
)
def test_a_value_out_of_bounds_names_the_setting_and_not_the_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: ") as caught:
        read_settings()
    assert "hunter2" not in str(caught.value)


def test_networks_and_folders_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIARIZATION_ALLOWED_NETWORKS", "10.0.0.0/8, fd00::/8")
    monkeypatch.setenv("DIARIZATION_RECORDINGS_DIR", "/srv/recordings")
    options = read_settings().diarizer_options()
    assert options.allowed_networks == (IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8"))
    assert options.recordings_dir == Path("/srv/recordings")


def test_an_empty_value_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_MAX_ATTEMPTS", "")
    monkeypatch.setenv("HF_TOKEN", "")
    settings = read_settings()
    assert settings.queue_max_attempts == 4
    assert settings.hf_token is None


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@localhost/0")
    monkeypatch.setenv("HF_TOKEN", "hf_hunter2")
    settings = read_settings()
    assert "hunter2" not in f"{settings!r} {settings} {settings.diarizer_options()!r}"


@pytest.mark.parametrize(
    "url", ["redis://:pa55/w0rd@host:6379/0", "redis://:pa55#w0rd@host/0", "redis://[::1/0", "redis://host/queue"]
)
def test_a_redis_url_that_cannot_be_read_is_refused_without_a_word_of_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(SettingsError, match=r"REDIS_URL: must be as redis://:PASSWORD@host:6379/0") as raised:
        read_settings()
    assert "pa55" not in str(raised.value)


def test_all_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_faults() == []
    monkeypatch.setenv("QUEUE_LEASE", "5")
    monkeypatch.setenv("WORKER_ROLE", "cook")
    monkeypatch.setenv("QUEUE_LEASE_SECONDS", "soon")
    assert [fault.partition(" ")[0] for fault in settings_faults()] == [
        "QUEUE_LEASE",
        "WORKER_ROLE:",
        "QUEUE_LEASE_SECONDS:",
    ]


def test_a_name_that_is_like_a_setting_which_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNPOD_POD_ID", "HF_HOME", "REDIS_URL", "REDIS_URLS", "RUNPOD_API_KEYS"):
        monkeypatch.setenv(name, "redis://h")
    assert settings_lookalikes() == {"RUNPOD_API_KEYS": "RUNPOD_API_KEY"}, "REDIS_URL itself is there"


def test_where_workers_keep_their_files_does_not_hang_on_what_can_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TMPDIR", "/no/such/folder")
    assert read_settings().runtime_dir == Path("/no/such/folder")
    monkeypatch.delenv("TMPDIR")
    assert read_settings().runtime_dir == Path("/tmp")
    monkeypatch.setenv("QUEUE_RUNTIME_DIR", "/run/diarize")
    assert read_settings().runtime_dir == Path("/run/diarize")
