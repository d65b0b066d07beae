"""Celery's settings under Celery's own names; the values come from `tasks.settings`.

`tasks/celery.py` loads this file by its location and under another name. Imported as `celeryconfig` it would be
what configures the default app of any other project in the process, so it refuses to be.
"""

import ssl

from kombu import Queue

from tasks.job import ANYWHERE, LOCAL, RUNPOD
from tasks.settings import current_settings

if __name__ == "celeryconfig":
    raise ImportError("this celeryconfig belongs to the app of the package `tasks` and configures no other")

_settings = current_settings()
_redis_url = _settings.redis_url.get_secret_value()

broker_url = _redis_url
# See the module: it waits where Celery's own backend would lose a result.
result_backend = f"tasks.backend:WaitingBackend+{_redis_url}"
if _redis_url.startswith("rediss://") and "ssl_cert_reqs" not in _redis_url:
    broker_use_ssl = redis_backend_use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED}

# Short times: a producer must never hang. A worker waits longer, see `tasks/worker.py`.
broker_transport_options = {
    "global_keyprefix": _settings.redis_key_prefix,
    # Renewed by the worker's main process while a job runs: the time to notice a dead worker, not a job's length.
    "visibility_timeout": _settings.queue_lease_seconds,
    "unacked_restore_interval": max(1, _settings.queue_lease_seconds // 9),
    "unacked_restore_throttle": 1,
    "unacked_mutex_expire": 10,
    "socket_timeout": 2,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "max_retries": 0,
}
redis_socket_timeout = 2
redis_socket_connect_timeout = 2
redis_socket_keepalive = True
result_backend_transport_options = {
    "global_keyprefix": _settings.redis_key_prefix,
    "retry_policy": {"max_retries": 0, "timeout": 2},
}
task_publish_retry = False

broker_connection_retry_on_startup = True
broker_connection_max_retries = None
worker_detect_quorum_queues = False

# A job is acknowledged when it has ended; nothing is held by a worker that is busy.
task_acks_late = True
task_reject_on_worker_lost = True
worker_prefetch_multiplier = 1
worker_disable_prefetch = True
# It closes the jobs of a Redis that restarts as revoked, and loses them (Celery 5.7).
worker_cancel_long_running_tasks_on_connection_loss = False
# It answers a copy without counting it in its chord (Celery 5.7); the guard answers copies.
worker_deduplicate_successful_tasks = False

# See the module: Celery's own ends with some outages of the broker.
worker_consumer = "tasks.consumer:LastingConsumer"

# The queue that a step without `queue=` goes to is none of ours: our workers would throw such a step away.
task_default_queue = "celery"
task_create_missing_queues = True
task_queues = [Queue("celery"), *map(Queue, (ANYWHERE, LOCAL, RUNPOD))]
task_default_priority = 6

task_serializer = result_serializer = event_serializer = "json"
accept_content = ["json"]
result_expires = int(_settings.queue_retention_days * 86400)
result_extended = False
# Celery stores STARTED before the guard has looked at the ticket: a stale copy of a job that failed or was cancelled
# would put it over the job's end, and nobody would hear of that any more. The record says which jobs run.
task_track_started = False
# The backstop of the limits in `tasks/pulse.py`: ten times the length of the longest recording.
task_time_limit = int(
    _settings.diarization_download_timeout_seconds
    + _settings.queue_stall_seconds
    + 10 * 3600 * _settings.diarization_max_hours
)
task_send_sent_event = True
worker_send_task_events = True

# A worker that is not told how many children it has looks whether there is a GPU (`tasks/worker.py`). Spawn, as CUDA
# does not survive a fork. A bridge only waits.
worker_pool = {"gpu": "prefork", "bridge": "threads"}[_settings.worker_role]
worker_concurrency = {"gpu": _settings.diarization_jobs_per_gpu, "bridge": _settings.overflow_max_in_flight}[
    _settings.worker_role
]
worker_pool_start_method = "spawn"
worker_proc_alive_timeout = _settings.queue_start_timeout_seconds
worker_hijack_root_logger = True
imports = ["tasks.diarize", "tasks.runpod_bridge", "tasks.worker"]
