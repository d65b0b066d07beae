"""What the exporter says is what the records say; alerts and dashboard ask for nothing that it does not say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from tasks.diarize import diarize
from tasks.metrics import FINISH_SECONDS, METRICS
from tasks.record import State
from tasks.valkey import EmbeddedValkey
from tests.jobs import answers, record
from tests.processes import ROOT, Worker, running_server, wait_until
from tests.servers import free_port

Start = Callable[..., Worker]
Values = Mapping[str, Mapping[tuple[tuple[str, str], ...], float]]

MONITORING = ROOT / "monitoring"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "diarize.json"


@contextmanager
def exporter(tmp_path: Path, **settings: str) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    command = [sys.executable, "-m", "tasks", "metrics", "--port", str(port)]
    with running_server(
        command, tmp_path / "metrics.log", lambda: requests.get(url, timeout=10).status_code, **settings
    ) as process:
        yield url
    assert process.returncode == 0


def scrape(url: str) -> Values:
    text = requests.get(url, timeout=10).text
    values: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return values


def expressions() -> list[str]:
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [rule["expr"] for rule in rules] + [target["expr"] for panel in panels for target in panel["targets"]]


def test_the_numbers_are_those_of_the_records(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    jobs = [
        diarize.delay("http://stand.in/work/600/0.5"),
        diarize.delay("http://stand.in/turns/300/2"),
        diarize.delay("http://stand.in/fail/recording_fetch_failed/1"),
        diarize.delay("http://stand.in/fail/recording_not_found"),
        diarize.delay("http://stand.in/kill/1"),
    ]
    with exporter(tmp_path) as url:
        before = scrape(url)
        assert before["diarize_up"] == {(): 1}
        assert before["diarize_waiting_jobs"][(("queue", "diarize"),)] == 5
        assert before["diarize_oldest_waiting_seconds"][()] > 0
        assert before["diarize_jobs_submitted_total"] == {(): 5}
        assert before["diarize_workers"] == {(("role", "bridge"),): 0, (("role", "gpu"),): 0}
        assert "diarize_finish_in_seconds" not in before
        start_worker(QUEUE_RETRY_BASE_SECONDS=0.1)
        wait_until(lambda: all(record(job).state.ended for job in jobs))
        after = scrape(url)
    assert after["diarize_jobs_ended_total"] == {
        (("code", ""), ("state", "done")): 4,
        (("code", "recording_not_found"), ("state", "dead")): 1,
    }
    assert after["diarize_attempts_total"] == {(): 7}
    assert after["diarize_retries_total"] == {(("code", "recording_fetch_failed"),): 1}
    done = [record(job) for job in jobs if record(job).state is State.DONE]
    audio = sum(one.audio_seconds or 0 for one in done)
    assert after["diarize_audio_seconds_total"] == {(("provider", "local"),): pytest.approx(audio)}
    assert after["diarize_stage_seconds_total"][(("provider", "local"), ("stage", "segmentation"))] >= 0.5
    took = [(one.ended_at or 0) - one.submitted_at for one in done]
    assert after["diarize_finish_seconds_count"] == {(): 4}
    assert after["diarize_finish_seconds_sum"] == {(): pytest.approx(sum(took), abs=0.01)}
    for bound in FINISH_SECONDS:
        assert after["diarize_finish_seconds_bucket"][(("le", str(float(bound))),)] == sum(t <= bound for t in took)
    assert after["diarize_dead_letters"] == {(): 1}
    assert after["diarize_workers"][(("role", "gpu"),)] == 1
    ((labels, speed),) = after["diarize_worker_seconds_per_audio_hour"].items()
    assert dict(labels)["worker"].startswith("w0@test")
    assert speed > 0
    assert after["diarize_leader"] == {(): 1}
    assert after["diarize_running_jobs"] == {(): 0}


def test_an_outage_of_redis_is_told_and_outlived(redis: Redis, server: EmbeddedValkey, tmp_path: Path) -> None:
    with exporter(tmp_path) as url:
        server.kill()
        try:
            assert scrape(url) == {"diarize_up": {(): 0}}
            assert scrape(url) == {"diarize_up": {(): 0}}
        finally:
            server.start()
        wait_until(lambda: answers(redis))
        assert scrape(url)["diarize_up"] == {(): 1}
        log = (tmp_path / "metrics.log").read_text()
        assert log.count("there are no metrics for now") == 1
        assert "Traceback" not in log


def test_alerts_and_dashboard_ask_for_what_there_is() -> None:
    asked = {name for one in expressions() for name in re.findall(r"diarize_\w+", one)}
    known = {metric.name + ("_total" if metric.kind == "counter" else "") for metric in METRICS}
    known |= {metric.name + "_bucket" for metric in METRICS if metric.kind == "histogram"}
    assert asked <= known
    assert len(asked) > 20


def test_names_and_units_are_as_prometheus_wants_them() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"diarize_[a-z_]+", metric.name)
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket", "_hours", "_ms", "_mb"))
        assert metric.means
        assert not metric.means.endswith(".")
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_the_script_that_counts_has_the_same_bounds() -> None:
    script = (ROOT / "tasks" / "scripts" / "finish.lua").read_text()
    (bounds,) = re.findall(r"FINISH_SECONDS = \{ ([\d, ]+) \}", script)
    assert tuple(map(int, bounds.split(", "))) == FINISH_SECONDS


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (Debian's package prometheus) is not installed")
def test_the_alerts_do_as_they_say() -> None:
    for arguments in (
        ("check", "config", str(MONITORING / "prometheus.yml")),
        ("test", "rules", str(MONITORING / "alerts_test.yml")),
    ):
        done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus (Debian's package) is not installed")
def test_prometheus_answers_each_question_of_the_dashboard(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    start_worker(QUEUE_RETRY_BASE_SECONDS=0.1)
    with exporter(tmp_path) as url:
        config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(MONITORING / "alerts.yml")]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [url.split("/")[2]]}]
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        with prometheus(tmp_path) as api:
            jobs = [diarize.delay(f"http://stand.in/work/600/0.2?{n}") for n in range(5)]
            jobs.append(diarize.delay("http://stand.in/fail/transient/1"))
            wait_until(lambda: all(record(job).state.ended for job in jobs))
            wait_until(lambda: _ask(api, "diarize_jobs_submitted_total == 6"))
            time.sleep(2.5)  # a rate needs two scrapes
            for expression in expressions():
                _ask(api, expression)
            assert _ask(api, "sum(diarize_jobs_ended_total)")[0]["value"][1] == "6"
            assert not _ask(api, 'ALERTS{alertstate="firing"}')


@contextmanager
def prometheus(folder: Path) -> Iterator[str]:
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log = folder / "prometheus.log"
    with running_server(command, log, lambda: "ready to receive" in log.read_text(), folder=folder):
        yield f"http://127.0.0.1:{port}/api/v1/query"


def _ask(api: str, expression: str) -> Any:
    answer = requests.get(api, params={"query": expression}, timeout=10).json()
    assert answer["status"] == "success", (expression, answer)
    return answer["data"]["result"]
