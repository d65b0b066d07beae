"""Draws docs/queue.svg and docs/status.svg: what `queue --watch` and `status --watch` show of a busy fleet.

python -m docs.screenshots

The fleet is made up; it stands in a real server, and is read and drawn by the commands' own code.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

from redis import Redis
from rich.console import Console, RenderableType
from rich.screen import Screen

from tasks.valkey import EmbeddedValkey

ROOT = Path(__file__).resolve().parent.parent
QUEUE_SIZE, STATUS_SIZE = (110, 34), (90, 17)
"""Columns and rows."""


def draw(renderable: RenderableType, size: tuple[int, int], title: str) -> str:
    """The SVG of a terminal with that on its screen. It loads no font from elsewhere."""
    console = Console(
        record=True,
        width=size[0],
        height=size[1],
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        markup=False,
        emoji=False,
        highlight=False,
    )
    console.print(Screen(renderable), end="")
    svg = console.export_svg(title=title, unique_id="terminal")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def main() -> None:
    """Write both."""
    with EmbeddedValkey() as server:
        # Read when the settings are, so before anything of the queue is imported.
        os.environ |= {"REDIS_URL": server.url, "REDIS_KEY_PREFIX": "diarize:"}  # noqa: TID251
        from tasks.commands.job_view import JobView  # noqa: PLC0415
        from tasks.commands.queue import Look  # noqa: PLC0415
        from tasks.commands.queue_view import QueueView  # noqa: PLC0415
        from tasks.records import Records  # noqa: PLC0415
        from tasks.settings import current_settings  # noqa: PLC0415
        from tests.busy_fleet import busy_fleet  # noqa: PLC0415

        with Redis.from_url(server.url, decode_responses=True) as redis:
            running = busy_fleet(redis)
            look = Look.at(redis, current_settings())
        job = Records(current_settings()).get(running[0])
        assert job is not None
        queue = QueueView(look.snapshot, look.overflow, bars=True, clock=True)
        pictures = {
            "queue.svg": draw(queue, QUEUE_SIZE, "diarize-queue queue --watch"),
            "status.svg": draw(JobView(job, bars=True), STATUS_SIZE, f"diarize-queue status {job.id} --watch"),
        }
    for name, svg in pictures.items():
        (ROOT / "docs" / name).write_text(svg)


if __name__ == "__main__":
    main()
