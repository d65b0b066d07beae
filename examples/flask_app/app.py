"""Who spoke when, as a web page: upload a recording, watch its job, see and hear the turns.

    REDIS_URL=… DIARIZATION_RECORDINGS_DIR=/srv/meetings flask --app examples/flask_app/app run

There is no database: an upload, its job and its page have one id, under which the queue keeps the job and this app the
file. Whoever knows the id sees the page; put a login of your own before it. README.md has the settings.
"""

from __future__ import annotations

import errno
import hashlib
import io
import secrets
import shutil
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from flask import Flask, Response, abort, jsonify, redirect, render_template, request, send_file, url_for
from flask.typing import ResponseReturnValue
from itsdangerous import Signer
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.utils import secure_filename

from diarization.diarizer import STAGES
from diarization.errors import DiarizationError, QueueUnavailable
from diarization.formats import FORMATS, find_format
from diarization.turns import Diarization
from tasks.diarize import diarize
from tasks.record import JobRecord, State

MEDIA_TYPES = {
    **{".wav": "audio/wav", ".mp3": "audio/mpeg", ".m4a": "audio/mp4", ".aac": "audio/aac", ".flac": "audio/flac"},
    **{".ogg": "audio/ogg", ".opus": "audio/ogg", ".webm": "video/webm", ".mp4": "video/mp4"},
}
"""What may be uploaded, and served as what. A file that is something else inside fails in its job, which says so."""

app = Flask(__name__)
app.config.update(MAX_CONTENT_LENGTH=2_000_000_000, PUBLIC_URL=None, LINK_HOURS=24.0)
app.config.from_prefixed_env()  # FLASK_PUBLIC_URL=… and so on

SHARED_FOLDER = diarize.settings.diarization_recordings_dir
RECORDINGS = (SHARED_FOLDER or Path(app.instance_path) / "recordings").resolve()
if not (app.config["SECRET_KEY"] if app.config["PUBLIC_URL"] else SHARED_FOLDER):
    raise SystemExit(
        "workers must reach the recordings: set DIARIZATION_RECORDINGS_DIR to a folder that they share with this app, "
        "or FLASK_PUBLIC_URL to this app's address as they see it, and FLASK_SECRET_KEY to sign links with"
    )
signer = Signer(str(app.config["SECRET_KEY"] or secrets.token_hex()), salt="recording", digest_method=hashlib.sha256)


@app.get("/")
def index() -> str:
    """The page with the upload."""
    return render_template("index.html", suffixes=",".join(MEDIA_TYPES), max_bytes=app.config["MAX_CONTENT_LENGTH"])


@app.post("/jobs")
def submit() -> ResponseReturnValue:
    """Keep the uploaded file and submit its job."""
    upload = request.files.get("recording")
    if upload is None or not upload.filename:
        abort(400, "Choose a recording first.")
    name = Path(upload.filename)
    if name.suffix.lower() not in MEDIA_TYPES:
        abort(415, f"{name.name} is none of the files that are taken: {', '.join(MEDIA_TYPES)}.")
    job_id = str(uuid4())
    # A folder for each upload: two of one name do not meet.
    path = RECORDINGS / job_id / f"{secure_filename(name.stem)[:100] or 'recording'}{name.suffix.lower()}"
    path.parent.mkdir(parents=True)
    try:
        upload.save(path)
        if not path.stat().st_size:
            abort(400, f"{name.name} is empty.")
        hints = {"num_speakers": request.form.get("num_speakers", type=int)}
        # `diarize.delay(url, num_speakers=…)`, but that the job's id is ours.
        diarize.apply_async((url_for_workers(path),), hints, task_id=job_id)
    except BaseException:
        shutil.rmtree(path.parent)
        raise
    return redirect(url_for("show", job_id=job_id), 303)


def url_for_workers(path: Path) -> str:
    """Where workers find an upload: the file itself, or a link to this app that runs out."""
    if not app.config["PUBLIC_URL"]:
        return path.as_uri()
    job_id, expires = path.parent.name, int(time.time() + app.config["LINK_HOURS"] * 3600)
    signature = signer.get_signature(f"{job_id} {expires}").decode()
    # The queue shows no query of a URL in logs or errors, and knows these two names: it warns where a job's turn will
    # come too late for its link.
    link = url_for("fetch", job_id=job_id, name=path.name, Expires=expires, Signature=signature)
    return f"{app.config['PUBLIC_URL'].rstrip('/')}{link}"


@app.get("/recordings/<uuid:job_id>/<name>")
def fetch(job_id: UUID, name: str) -> Response:
    """The upload, for a worker with a link of ours; `name` is for the eye."""
    expires = request.args.get("Expires", 0, type=int)
    if not signer.verify_signature(f"{job_id} {expires}", request.args.get("Signature", "")) or expires < time.time():
        abort(403, "This link has run out, or is none of ours.")
    return recording(job_id)


@app.get("/jobs/<uuid:job_id>/recording")
def recording(job_id: UUID) -> Response:
    """The upload, in the ranges that a browser's player asks for."""
    path = next((RECORDINGS / str(job_id)).glob("*"), None)
    if path is None:
        abort(404, "This recording has been deleted.")
    return send_file(path, mimetype=MEDIA_TYPES[path.suffix], conditional=True)


@app.get("/jobs/<uuid:job_id>")
def show(job_id: UUID) -> str:
    """A job's page: how it goes on, then its turns."""
    record = find(job_id)
    return render_template("job.html", job=status_of(record), name=file_name(record), stages=STAGES, formats=FORMATS)


@app.get("/jobs/<uuid:job_id>/status")
def status(job_id: UUID) -> Response:
    """What the page asks for until the job has ended."""
    return jsonify(status_of(find(job_id)))


@app.get("/jobs/<uuid:job_id>/result.<key>")
def result(job_id: UUID, key: str) -> Response:
    """The turns in a format; `?SPEAKER_00=Ann` names a speaker."""
    record, chosen = find(job_id), find_format(key)
    if record.result is None:
        abort(404, "This job has no result.")
    turns = Diarization.from_json(record.result).to_json()
    for entry in (*turns["segments"], *turns["exclusive_segments"], *turns["speakers"]):
        entry["speaker"] = request.args.get(entry["speaker"]) or entry["speaker"]
    stem = Path(file_name(record)).stem
    data = io.BytesIO(chosen.write(Diarization.from_json(turns), stem).encode())
    return send_file(data, chosen.media_type, as_attachment=True, download_name=stem + chosen.suffix)


@app.post("/jobs/<uuid:job_id>/cancel")
def cancel(job_id: UUID) -> ResponseReturnValue:
    """A waiting job never starts, a running one stops after its current batch."""
    diarize.cancel(str(job_id))
    return redirect(url_for("show", job_id=job_id), 303)


@app.post("/jobs/<uuid:job_id>/delete")
def delete(job_id: UUID) -> ResponseReturnValue:
    """Forget an ended job, its result and its recording."""
    diarize.delete(str(job_id))
    shutil.rmtree(RECORDINGS / str(job_id), ignore_errors=True)
    return redirect(url_for("index"), 303)


def find(job_id: UUID) -> JobRecord:
    """The job's record; 404 where there is none."""
    record = diarize.records.get(str(job_id))
    if record is None:
        days = diarize.settings.queue_retention_days
        abort(404, f"There is no such job. Jobs are forgotten {days:g} days after their end.")
    return record


def file_name(record: JobRecord) -> str:
    """Of the upload, as it is kept: a safe one."""
    return Path(urlsplit(record.shown).path).name


def status_of(record: JobRecord) -> dict[str, Any]:
    """How a job goes on, in JSON types. `seconds_left` is a prediction, None where nothing can be said."""
    seconds_left, place = record.seconds_left, None
    if record.state is State.QUEUED:
        position = diarize.position(record.id)
        place, seconds_left = position.place, position.finish_at and max(0.0, position.finish_at - time.time())
    told = {"state": record.state, "ended": record.state.ended, "stage": record.stage, "percent": record.percent}
    error = record.error if record.state.ended else record.last_error  # code, message, advice
    return {**told, "place": place, "seconds_left": seconds_left, "attempts": record.attempts, "error": error}


@app.before_request
def refuse_foreign_forms() -> None:
    """Against forms of other sites (CSRF): with each POST a browser says whose page sends it."""
    origin = request.headers.get("Origin")
    if request.method == "POST" and origin is not None and urlsplit(origin).netloc != request.host:
        abort(403, "This form was sent by another site.")


@app.after_request
def harden(response: Response) -> Response:
    """No script but our own file, no frame, no guessing what an upload is, no job's id for other sites."""
    response.headers["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'; form-action 'self'"
    response.headers |= {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
    return response


@app.errorhandler(Exception)
def failed(error: Exception) -> ResponseReturnValue:
    """What went wrong and what to do about it: JSON for the page's script, else a page."""
    code, advice = 500, ""
    match error:
        case RequestEntityTooLarge():
            code, message = 413, f"This file has more than {app.config['MAX_CONTENT_LENGTH'] / 1e6:g} MB."
        case HTTPException():
            code, message = error.code or 500, error.description or error.name
        case QueueUnavailable():
            app.logger.error("%s %s", error.message, error.advice)
            code, message, advice = 503, "The queue does not answer at the moment.", "Try again in a minute."
        case DiarizationError():
            code, message, advice = 400, error.message, error.advice
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            code, message = 507, "There is no room here for the file."
        case _:
            raise error
    if request.accept_mimetypes.best == "application/json":
        return jsonify(message=message, advice=advice), code
    return render_template("error.html", message=message, advice=advice, code=code), code
