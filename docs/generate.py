"""Writes what is generated: tables in README.md, docs/doctor.md and docs/metrics.md, and .env.example.

python -m docs.generate           writes them
python -m docs.generate --check   says whether they are up to date, and exits with 1 where they are not
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from diarization.diarizer import BUNDLED_MODEL
from tasks.checks.finding import Mark
from tasks.doctor import CHECKS
from tasks.doctor_report import HEADINGS
from tasks.metrics import METRICS
from tasks.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
COMPOSE_REQUIRED = {
    "COMPOSE_FILE": (
        "docker-compose.yml",
        "Joined by `:`; docker-compose.tls.yml and docker-compose.remote.yml are for several hosts.",
    ),
    "COMPOSE_PROFILES": ("cpu", "What runs on this host, comma-separated: gpu, cpu, overflow, monitoring, demo."),
    "REDIS_PASSWORD": ("", "Letters and digits, such as those of `openssl rand -hex 24`."),
    "FLOWER_BASIC_AUTH": ("", "`name:password` of who may see Flower; the profile monitoring needs it."),
}
"""What each host has to say to compose: value to begin with, description."""
COMPOSE_OPTIONS = {
    "WORKER_IMAGE": (
        "diarize-queue",
        "Image of the workers: built here, or the name under which your registry has it.",
    ),
    "LIGHT_IMAGE": ("diarize-queue:light", "Image of bridge, Flower, metrics, tools and demo."),
    "TORCH_INDEX": ("", "Index with wheels of torch for CPUs alone, for a build on hosts without a GPU."),
    "WORKER_MEMORY": ("12g", "Memory of one worker, recordings included; a job that needs more goes to another."),
    "WORKER_TMP_SIZE": ("4g", "Of that memory, for recordings while they are decoded; see DIARIZATION_MAX_BYTES."),
    "WORKER_STOP_GRACE": ("45s", "Until a worker that is told to stop is killed; longer than QUEUE_GRACE_SECONDS."),
    "REDIS_IMAGE": ("redis:7.2-bookworm", "Redis 6.2 or newer, or Valkey."),
    "REDIS_MAXMEMORY": ("1gb", "What Redis may hold; when it is full, producers are told so."),
    "REDIS_MEMORY": ("2g", "Memory of the container: twice REDIS_MAXMEMORY."),
    "PROMETHEUS_IMAGE": ("prom/prometheus:v3.5.0", "Prometheus."),
    "GRAFANA_IMAGE": ("grafana/grafana:12.2.0", "Grafana."),
    "REDIS_PORT": ("6379", "Port on loopback."),
    "FLOWER_PORT": ("5555", "Port on loopback."),
    "METRICS_PORT": ("9808", "Port on loopback."),
    "PROMETHEUS_PORT": ("9090", "Port on loopback."),
    "GRAFANA_PORT": ("3000", "Port on loopback."),
    "REDIS_TLS_PORT": ("6380", "Port, or `address:port`, at which docker-compose.tls.yml offers Redis to other hosts."),
    "REDIS_TLS_DIR": ("./tls", "Folder of ca.crt and, where Redis runs, redis.crt and redis.key."),
}
"""Variables that docker-compose*.yml reads and has defaults for: default, description."""
END = "<!-- end -->"


def default(value: Any) -> str:
    """A setting's default as it would stand in the environment."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if value is None or value == ():
        return ""
    if value == str(BUNDLED_MODEL):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def settings_table() -> str:
    """The README's table."""
    rows = ["| name | default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        shown = default(field.default)
        if field.default == str(BUNDLED_MODEL):
            shown = "the bundled model"
        elif shown:
            shown = f"`{shown}`"
        rows.append(f"| `{name.upper()}` | {shown or 'none'} | {field.description} |")
    return "\n".join(rows)


def env_example() -> str:
    """The text of .env.example: what compose needs, then every variable with its default, commented out."""
    lines = ["# Copy to .env, fill in what stands without a #, and uncomment what else you change."]
    for name, (value, description) in COMPOSE_REQUIRED.items():
        lines += ["", f"# {description}", f"{name}={value}"]
    lines += ["", "", "# Of docker-compose.yml alone"]
    for name, (value, description) in COMPOSE_OPTIONS.items():
        lines += ["", f"# {description}", f"# {name}={value}"]
    lines += ["", "", "# Settings of workers, bridges and producers, wherever they run"]
    for name, field in Settings.model_fields.items():
        if name.upper() not in COMPOSE_REQUIRED:
            lines += ["", f"# {field.description}", f"# {name.upper()}={default(field.default)}"]
    return "\n".join(lines) + "\n"


def faults_table() -> str:
    """What the doctor can find, and the cures: a table for each group of checks."""
    lines: list[str] = []
    for group, heading in HEADINGS.items():
        lines += ["", f"### {heading}", "", "| check | looks at | can find | cure |", "|---|---|---|---|"]
        for check in CHECKS:
            if check.group != group:
                continue
            for number, fault in enumerate(check.faults):
                name, looks_at = (f"**{check.name}**", check.looks_at) if not number else ("", "")
                mild = " (warning)" if fault.mark is Mark.WARNING else ""
                cells = (name, looks_at, f"`{fault.code}`{mild}: {fault.means}", fault.cure)
                lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join([*lines[1:], ""])


def metrics_table() -> str:
    """What the exporter says."""
    rows = ["| metric | kind | labels | |", "|---|---|---|---|"]
    for metric in METRICS:
        name = metric.name + ("_total" if metric.kind == "counter" else "")
        rows.append(f"| `{name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.means} |")
    return "\n".join(rows)


def filled(path: Path, name: str, text: str) -> str:
    """The file's text with what is generated between its marks."""
    begin = f"<!-- {name}: make docs -->"
    block = f"{begin}\n{text}\n{END}"
    return re.sub(rf"{re.escape(begin)}.*?{re.escape(END)}", lambda _: block, path.read_text(), flags=re.DOTALL)


def generated() -> dict[Path, str]:
    """Each file with the text it should have."""
    readme, doctor, metrics = ROOT / "README.md", ROOT / "docs" / "doctor.md", ROOT / "docs" / "metrics.md"
    return {
        readme: filled(readme, "settings", settings_table()),
        doctor: filled(doctor, "faults", faults_table()),
        metrics: filled(metrics, "metrics", metrics_table()),
        ROOT / ".env.example": env_example(),
    }


def main() -> int:
    """Write, or check."""
    stale = [path for path, text in generated().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if "--check" in sys.argv:
            sys.stderr.write(f"{path.name} is out of date: run `make docs`\n")
        else:
            path.write_text(generated()[path])
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
