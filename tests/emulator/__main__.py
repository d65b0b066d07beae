"""`make runpod-emulator`: RunPod on this machine, for curl and for a bridge, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import tempfile
import threading
from pathlib import Path

from tests.emulator import Emulator, Settings


def main() -> None:
    """Run it, say how to talk to it, and print the bill at its end."""
    parser = argparse.ArgumentParser(prog="python -m tests.emulator", description=__doc__)
    parser.add_argument("--port", type=int, default=8010, help="of the endpoint's API on loopback (8010)")
    parser.add_argument("--max-workers", type=int, default=1)
    parser.add_argument("--idle-seconds", type=float, default=Settings.idle_seconds)
    parser.add_argument("--cold-start-seconds", type=float, default=Settings.cold_start_seconds)
    given = parser.parse_args()
    settings = Settings(
        max_workers=given.max_workers,
        idle_seconds=given.idle_seconds,
        cold_start_seconds=given.cold_start_seconds,
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with (
        tempfile.TemporaryDirectory(prefix="runpod-emulator-") as folder,
        Emulator(Path(folder), settings, port=given.port) as emulator,
    ):
        run = f"curl -H 'Authorization: Bearer {settings.api_key}' {emulator.endpoint_url}"
        print(f"RUNPOD_ENDPOINT_BASE_URL={emulator.url}")
        print(f"RUNPOD_MANAGEMENT_BASE_URL={emulator.url}")
        print(f"RUNPOD_ENDPOINT_ID={settings.endpoint_id}")
        print(f"RUNPOD_API_KEY={settings.api_key}")
        print(f"""{run}/run -d '{{"input": {{"task": "diarization", "audio_url": "https://…"}}}}'""")
        print(f"{run}/status/ID")
        print(f"workers' logs: {folder}", flush=True)
        stop.wait()
        bill, jobs = emulator.bill_usd, len(emulator.submissions)
    print(f"{jobs} jobs, {bill:.5f} USD")


if __name__ == "__main__":
    main()
