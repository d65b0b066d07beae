"""What a worker does when it starts: role, patience, model, gate, heartbeat, due-set."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from contextlib import suppress
from typing import Any

from celery import bootsteps, signals
from celery.concurrency.prefork import TaskPool
from celery.worker import state
from celery.worker.components import Pool
from redis.exceptions import AuthenticationError, RedisError

from diarization.errors import DiarizationError, InternalError, QueueUnavailable
from tasks.celery import app
from tasks.chores import Chores
from tasks.delivered import DeliveredJob
from tasks.gate import EXIT_UNUSABLE, Gate
from tasks.gpu_seat import Seat, computes_on_gpu, list_gpus, processes_of_worker, take_seat
from tasks.guard import GuardedTask
from tasks.heartbeat import Beat, Heartbeat, snapshot
from tasks.intake import Intake
from tasks.job import ANYWHERE, LOCAL, RUNPOD
from tasks.loading import about, load, use
from tasks.losses import Losses
from tasks.orders import OrderBook
from tasks.prefork import PreforkPool
from tasks.pulse import Pulse
from tasks.records import Records, worker_name
from tasks.registry import Registry, WorkerFacts
from tasks.runpod_bridge import Bridge
from tasks.server import RedisUnfit, check_server, connect
from tasks.settings import Settings, current_settings
from tasks.sieve import SieveStep
from tasks.tap import IntakeStep, TapStep
from tasks.tickets import issue_due
from tasks.version import code_version
from tasks.vitals import BROKEN, LOADING, READY, STOPPING, VitalSigns
from tasks.watch import Watch
from tasks.webhooks import Webhooks

logger = logging.getLogger(__name__)

QUEUES = {"gpu": (ANYWHERE, LOCAL), "bridge": (RUNPOD,)}
"""What a worker of that role always takes jobs from; `tasks.tap` adds the valve's to a bridge."""
ISSUE_EVERY_SECONDS = 1.0
CHORES_EVERY_SECONDS = 5.0
WATCH_EVERY_SECONDS = 1.0
HEAR_EVERY_SECONDS = 1.0
"""Between looks for the operator's orders: one round trip each."""
LEAST_STALE_SECONDS = 45.0
"""Celery's main loop may sleep for half a minute before it tries a broker that is back."""


def be_patient() -> None:
    """From now on this process waits for Redis, as a worker must; a producer fails fast instead."""
    GuardedTask.patient = True
    conf = app.conf
    conf.broker_transport_options = {
        **conf.broker_transport_options,
        "socket_timeout": 15,
        "socket_connect_timeout": 5,
        "max_retries": None,
    }
    conf.redis_socket_timeout = 15
    conf.redis_socket_connect_timeout = 5
    conf.result_backend_always_retry = True
    conf.result_backend_transport_options = {
        **conf.result_backend_transport_options,
        "retry_policy": {"max_retries": None, "interval_start": 0, "interval_step": 0.5, "interval_max": 5},
    }
    conf.task_publish_retry = True
    conf.task_publish_retry_policy = {"max_retries": None, "interval_start": 0, "interval_step": 0.5, "interval_max": 5}


@signals.celeryd_init.connect
def _take_role(**_: Any) -> None:
    """In the main process, before anything connects."""
    be_patient()
    settings = current_settings()
    app.amqp.queues.select(list(QUEUES[settings.worker_role]))
    if app.conf.worker_concurrency is None:
        app.conf.worker_concurrency = processes_of_worker(settings)


@signals.after_setup_logger.connect
def _speak_up(loglevel: int | None = None, **_: Any) -> None:
    """Celery's default level would hide that the worker is ready, and how each job ended; `-l error` still does."""
    if loglevel is not None and loglevel <= logging.WARNING:
        for name in ("tasks", "diarization"):
            logging.getLogger(name).setLevel(min(loglevel, logging.INFO))


@signals.worker_process_init.connect
def _prepare_child(**_: Any) -> None:
    """In a pool child: load the model. Celery swallows what is raised here, so a child that cannot work ends itself."""
    be_patient()
    GuardedTask.main_pid = os.getppid()
    settings = current_settings()
    gate = Gate(os.getppid(), settings)
    if not gate.exists():  # the main process died while this child was being spawned
        os._exit(EXIT_UNUSABLE)
    # Threads that spin while they wait take the core that others need: three times slower beside a busy neighbour.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # noqa: TID251 - written, for torch, which is not loaded yet
    try:
        started, losses = time.monotonic(), Losses(gate)
        diarizer = load(settings, gate.device_lock)
        losses.compare(about(diarizer))
        logger.info("model loaded in %.1f s", time.monotonic() - started)
        GuardedTask.losses = losses
        GuardedTask.pulse = Pulse(
            gate.folder,
            stall_seconds=settings.queue_stall_seconds,
            download_stall_seconds=settings.diarization_stall_timeout_seconds,
        )
        gate.open(about(diarizer))
    except DiarizationError as error:
        gate.refuse(error)
        os._exit(EXIT_UNUSABLE)
    except BaseException as error:  # without a model there is no child
        logger.exception("the model cannot be loaded")
        gate.refuse(InternalError(f"{type(error).__name__}: {error}"))
        os._exit(EXIT_UNUSABLE)


class GateStep(bootsteps.StartStopStep):
    """Holds the worker back from its queues until every child has loaded its model."""

    requires = (Pool,)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        settings = current_settings()
        if settings.worker_role == "gpu" and not issubclass(parent.pool_cls, TaskPool):
            logger.critical("this worker cannot start: a GPU worker needs the prefork pool; leave -P out")
            raise SystemExit(EXIT_UNUSABLE)
        if settings.worker_role == "gpu":
            parent.pool_cls = PreforkPool
        try:
            self._gate = Gate(os.getpid(), settings)
            self._gate.prepare()
            # On a CPU each child has the cores that OMP_NUM_THREADS gives it, and waits for no other.
            if settings.worker_role == "gpu" and computes_on_gpu(settings):
                self._gate.share_device()
        except (DiarizationError, OSError) as error:
            logger.critical("this worker cannot start: %s", error)
            raise SystemExit(EXIT_UNUSABLE) from None
        atexit.register(self._gate.remove)  # not sooner: a child that ends its job still writes there
        worker = worker_name(parent.hostname, os.getpid())
        self._intake = parent.intake = Intake(worker, role=settings.worker_role, held=_jobs_held)
        stale_after_seconds = max(LEAST_STALE_SECONDS, 2.0 * settings.queue_lease_seconds)
        self._vital_signs = parent.vital_signs = VitalSigns(
            self._gate.folder, worker, settings.worker_role, stale_after_seconds
        )
        self._vital_signs.turn()
        # Held until this process ends: a child that is still busy when the worker stops still sits there.
        self._seat = _take_gpu(settings)
        self._beats: list[Beat] = []
        self._bridge: Bridge | None = None

    def start(self, parent: Any) -> None:
        """Blocks; ends the process where a child cannot work."""
        settings = current_settings()
        try:
            _check_server(settings)
            if settings.worker_role == "gpu":
                self._gate.wait(lambda: parent.pool._pool._pool, settings.queue_start_timeout_seconds, _heed_signals)
                if computes_on_gpu(settings) and self._gate.about().get("device") == "cpu":
                    logger.warning("works on the CPU, though there is a GPU: python -m tasks doctor says why")
            else:
                bridge = self._bridge = Bridge(settings)
                use(bridge)
                signals.worker_shutting_down.connect(
                    lambda **_: _leave(bridge, settings.queue_grace_seconds), weak=False
                )
        except (DiarizationError, RedisUnfit) as error:
            logger.critical("this worker cannot start: %s", error)
            raise SystemExit(EXIT_UNUSABLE) from None
        logger.info("ready: takes jobs from %s", ", ".join(QUEUES[settings.worker_role]))
        watch = Watch(self._gate.folder, lambda: snapshot(state.active_requests), settings.queue_grace_seconds)
        signals.worker_shutting_down.connect(lambda **_: watch.stop_in_time(), weak=False)
        signals.worker_shutting_down.connect(lambda **_: self._vital_signs.enter(STOPPING), weak=False)
        DeliveredJob.on_device_lost = lambda: self._stands_still("its GPU failed, the model is loaded anew")
        DeliveredJob.on_no_room = self._intake.fills
        self._vital_signs.enter(READY)
        self._beats = [Beat("watch", WATCH_EVERY_SECONDS, watch.look)]
        if settings.worker_role == "gpu":
            # A child that comes after a dead one loads anew, and may fail then.
            self._beats.append(Beat("gate", WATCH_EVERY_SECONDS, lambda: self._check(parent)))
        for beat in self._beats:
            beat.start()

    def _check(self, parent: Any) -> None:
        refusal = self._gate.refusal()
        self._stands_still(refusal or ("" if self._gate.is_open() else "its process died, the model is loaded anew"))
        if refusal is not None and not state.should_terminate and not state.should_stop:
            logger.critical("this worker must stop: %s", refusal)
            self._vital_signs.enter(BROKEN, refusal)
            parent.exitcode = EXIT_UNUSABLE
            # Another child that works may finish its job.
            how = "should_stop" if self._gate.is_open() else "should_terminate"
            setattr(state, how, EXIT_UNUSABLE)

    def _stands_still(self, why: str) -> None:
        """No child can work now, for that reason; empty where one can."""
        self._intake.breaks(why)
        self._vital_signs.enter(LOADING if why else READY, why)

    def stop(self, parent: Any) -> None:
        """Celery's hook."""
        # A shutdown by remote control sends no signal.
        self._vital_signs.enter(STOPPING)
        if self._bridge is not None:
            self._bridge.endpoint.stopping.set()
        for beat in self._beats:
            beat.stop()

    terminate = stop


class BeatStep(bootsteps.StartStopStep):
    """The heartbeat, the issuer of what is due and the fleet's chores, beside the main loop."""

    requires = (GateStep,)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._beats: list[Beat] = []

    def start(self, parent: Any) -> None:
        """Celery's hook."""
        settings = current_settings()
        worker, records = worker_name(parent.hostname, os.getpid()), Records(settings)
        client = connect(settings, patient=False)
        said = Gate(os.getpid(), settings).about() if settings.worker_role == "gpu" else {}
        precision = settings.diarization_precision if settings.worker_role == "gpu" else ""
        facts = WorkerFacts(
            settings.worker_role, children=parent.concurrency, precision=precision, version=code_version(), **said
        )
        intake, book = parent.intake, OrderBook(client, settings)
        registry = Registry(client, settings)
        heartbeat = Heartbeat(records, client, settings, worker, facts, intake, parent.vital_signs)
        chores = Chores(app, records, registry, client, settings, worker)
        # Stopped when all else is over: a worker that shuts down keeps its jobs until they have ended.
        beats = Beat("heartbeat", settings.queue_lease_seconds / 4, heartbeat.beat)
        beats.start()

        def leave(**_: Any) -> None:
            beats.stop()
            with suppress(QueueUnavailable):
                registry.leave(worker)

        signals.worker_shutdown.connect(leave, weak=False)

        def hear() -> None:
            intake.look(book)
            if settings.worker_role == "gpu" and (parent.max_concurrency or parent.pool.num_processes) > 1:
                intake.look_round(registry.others_idle)
            if heartbeat.has_news():
                beats.wake()

        self._beats = [
            Beat("orders", HEAR_EVERY_SECONDS, hear),
            Beat("due-set", ISSUE_EVERY_SECONDS, lambda: issue_due(app, records)),
            Beat("chores", CHORES_EVERY_SECONDS, chores.round),
            Webhooks(records, client, settings),
        ]
        for beat in self._beats:
            beat.start()

    def stop(self, parent: Any) -> None:
        """Celery's hook."""
        for beat in self._beats:
            beat.stop()

    terminate = stop


def _leave(bridge: Bridge, grace_seconds: float) -> None:
    """Leave the runs to another bridge, which finds them in the records; without Redis nothing else is left to do."""

    def end() -> None:
        logger.warning("the grace of %g s is over: this bridge ends, and its runs go on", grace_seconds)
        os._exit(0)

    bridge.endpoint.stopping.set()
    timer = threading.Timer(grace_seconds, end)
    timer.daemon = True
    timer.start()


def _take_gpu(settings: Settings) -> Seat | None:
    """A GPU for the children of this worker, which start after this; None where there is no choice."""
    told = settings.cuda_visible_devices or settings.hides_gpus or settings.diarization_device not in ("auto", "cuda")
    gpus = [] if told or settings.worker_role != "gpu" else list_gpus()
    if not gpus:
        return None
    try:
        seat = take_seat(gpus, settings.diarization_gpu_seats_dir)
    except OSError as error:
        logger.critical("this worker cannot start: DIARIZATION_GPU_SEATS_DIR cannot be written to: %s", error)
        raise SystemExit(EXIT_UNUSABLE) from None
    os.environ["CUDA_VISIBLE_DEVICES"] = seat.gpu.uuid  # noqa: TID251 - written, for the children's CUDA
    with_whom = f"shared with {seat.others} more" if seat.others else "its own"
    logger.info("works on %s (%s), %s", seat.gpu.name, seat.gpu.uuid, with_whom)
    return seat


def _jobs_held() -> int:
    return len(state.reserved_requests)


def _heed_signals() -> None:
    state.maybe_shutdown()


def _check_server(settings: Settings) -> None:
    """Wait for Redis, and see whether it is fit.

    Raises:
        RedisUnfit: It would throw jobs away.
    """
    with connect(settings, patient=False) as client:
        said = False
        while True:
            _heed_signals()
            try:
                for warning in check_server(client):
                    logger.warning(warning)
                return
            except AuthenticationError as error:
                raise RedisUnfit(f"Redis refuses the password or user of REDIS_URL: {error}") from None
            except RedisError as error:
                if not said:
                    logger.warning("waits for Redis: %s", error)
                said = True
                time.sleep(1.0)


app.steps["worker"].update((GateStep, BeatStep))
app.steps["consumer"].update((SieveStep, IntakeStep, TapStep))
