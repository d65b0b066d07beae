"""What all jobs of a bridge go by that go to one endpoint."""

from __future__ import annotations

import threading

from diarization.errors import ModelUnavailable
from tasks.orders import OrderBook
from tasks.overflow.breaker import Breaker
from tasks.overflow.budget import Ledger
from tasks.overflow.outcomes import Outcomes
from tasks.overflow.price import Price
from tasks.overflow.valve import Valve
from tasks.records import Records
from tasks.registry import Registry
from tasks.runpod.api import RunPodApi
from tasks.server import connect, reachable, server_time
from tasks.settings import Settings


class Endpoint:
    """What all jobs of this process go by that go to one endpoint; its threads share it.

    Attributes:
        stopping: Set once this worker is to end: its runs are left to another bridge.
    """

    def __init__(self, settings: Settings) -> None:
        """Begin.

        Raises:
            ModelUnavailable: There is no endpoint to send anything to.
        """
        key, endpoint_id = settings.runpod_api_key, settings.runpod_endpoint_id
        if key is None or endpoint_id is None:
            raise ModelUnavailable("a bridge needs RUNPOD_API_KEY and RUNPOD_ENDPOINT_ID")
        client = connect(settings, patient=True)
        self.settings = settings
        self.endpoint_id = endpoint_id
        self.records = Records(settings, patient=True)
        self.ledger = Ledger(client, settings)
        self.breaker = Breaker(client, settings)
        self.valve = Valve(client, settings)
        self.outcomes = Outcomes(client, settings)
        self.registry = Registry(client, settings)
        self.orders = OrderBook(client, settings)
        self.price = Price.of(settings)
        self.stopping = threading.Event()
        self._key = key.get_secret_value()
        self._client = client
        self._apis: dict[tuple[str, str], RunPodApi] = {}

    def api(self, base_url: str, endpoint_id: str) -> RunPodApi:
        """The endpoint that a run was submitted to, whatever the settings say by now."""
        return self._apis.setdefault((base_url, endpoint_id), RunPodApi(base_url, endpoint_id, self._key))

    def lets_one_more(self) -> bool:
        """Whether a job that may run anywhere would be let through now."""
        slots = self.valve.slots()
        return slots > 0 and self.breaker.state() is None and self.ledger.today().in_flight < slots

    def now(self) -> float:
        """The fleet's clock, which the records go by."""
        with reachable():
            return server_time(self._client)
