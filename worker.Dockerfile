# Two images from one file. The last target is what RunPod builds from Git; compose starts it as a GPU worker.
#   docker build -f worker.Dockerfile -t diarize-queue .                        all: the model with torch and CUDA
#   docker build -f worker.Dockerfile --target light -t diarize-queue:light .   bridge, Flower, metrics, tools: no torch
# For hosts without a GPU: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Each layer is rebuilt when those above it change: dependencies, then weights, then code.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
# A fixed id, so that whoever mounts a folder can give it to the worker. A new volume is its where the image has the folder.
RUN groupadd --gid 10001 worker && useradd --uid 10001 --gid worker --create-home --shell /usr/sbin/nologin worker \
 && install -d -o worker -g worker /home/worker/.cache /home/worker/.cache/huggingface /var/lib/diarize-queue \
      /var/lib/diarize-queue/gpus /var/lib/diarize-queue/flower
# Threads of torch that spin while they wait would take the core from others. Nothing is written at run time but to /tmp.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_WAIT_POLICY=PASSIVE \
    PYANNOTE_METRICS_ENABLED=false \
    HF_HUB_DISABLE_TELEMETRY=1 \
    DO_NOT_TRACK=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    VIRTUAL_ENV=/opt/venv \
    UV_PYTHON_DOWNLOADS=never \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1
WORKDIR /app

FROM base AS locked
ARG UV_VERSION=0.13.9
RUN pip install --no-cache-dir --root-user-action=ignore "uv==${UV_VERSION}"
COPY pyproject.toml uv.lock ./
# What uv.lock pins, as lists: a pyproject.toml that changes elsewhere leaves these alone, and what is built from them.
# Those with CUDA's libraries and torch stand apart for a build that takes torch from another index.
RUN set -- uv export -q --frozen --no-dev --no-emit-project --no-header --no-annotate --output-file; \
    mkdir /locked \
 && "$@" /locked/light.txt --extra flower --extra metrics \
 && "$@" /locked/full.txt --extra worker --extra runpod \
 && "$@" /locked/versions.txt --extra worker --no-hashes \
 && grep -oE '^torch(audio|codec)?==[0-9.]+' /locked/versions.txt > /locked/torch.txt \
 && sed -nE 's/^name = "(torch|torchaudio|torchcodec|triton|nvidia-.*|cuda-.*)"$/\1/p' uv.lock > /locked/cuda.txt \
 && set -- "$@" /locked/no-torch.txt --extra worker --extra runpod \
 && while read -r name; do set -- "$@" --no-emit-package "$name"; done < /locked/cuda.txt \
 && "$@"

FROM base AS code
COPY LICENSE THIRD_PARTY_NOTICES.md celeryconfig.py ./
COPY diarization diarization
COPY tasks tasks
COPY runpod_worker runpod_worker
RUN python -m compileall -q .

FROM base AS light
RUN --mount=from=locked,source=/locked,target=/locked \
    --mount=from=locked,source=/usr/local/bin/uv,target=/usr/local/bin/uv \
    --mount=type=cache,target=/root/.cache/uv \
    uv venv -q "$VIRTUAL_ENV" \
 && uv pip install -q --require-hashes -r /locked/light.txt
COPY --from=code /app /app
USER 10001
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="diarize-queue (light)" \
      org.opencontainers.image.description="Bridge, Flower, metrics and tools of a queue that answers who spoke when" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}"
HEALTHCHECK --interval=30s --timeout=15s --start-period=60s --retries=3 CMD ["python", "-m", "tasks", "healthcheck"]
CMD ["celery", "-A", "tasks", "worker"]

FROM base AS full
# Where it is set, torch and its companions come from that index, in the locked versions, and CUDA's libraries stay out.
ARG TORCH_INDEX=
RUN --mount=from=locked,source=/locked,target=/locked \
    --mount=from=locked,source=/usr/local/bin/uv,target=/usr/local/bin/uv \
    --mount=type=cache,target=/root/.cache/uv \
    uv venv -q "$VIRTUAL_ENV"; \
    if [ -z "$TORCH_INDEX" ]; then exec uv pip install -q --require-hashes -r /locked/full.txt; fi; \
    uv pip install -q --no-deps --require-hashes -r /locked/no-torch.txt \
 && uv pip install -q --no-deps --index-url "$TORCH_INDEX" -r /locked/torch.txt
COPY models models
COPY --from=code /app /app
USER 10001
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="diarize-queue" \
      org.opencontainers.image.description="Worker that answers who spoke when: pyannote, its weights, ffmpeg" \
      org.opencontainers.image.licenses="MIT AND CC-BY-4.0" \
      org.opencontainers.image.version="${VERSION}"
# RunPod watches its workers by their pings, and a worker there is none of this queue's.
HEALTHCHECK --interval=30s --timeout=15s --start-period=300s --retries=3 \
  CMD ["sh", "-c", "grep -qz runpod_worker.handler /proc/1/cmdline || exec python -m tasks healthcheck"]
CMD ["python", "-u", "-m", "runpod_worker.handler"]
