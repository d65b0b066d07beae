""".env.example: every variable that compose and the settings know, with its default."""

from __future__ import annotations

from docs.generators.settings import default
from tasks.settings import Settings

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
