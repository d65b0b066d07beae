"""An emulator of RunPod serverless: the endpoint's API, the workers' API, the real handler in the SDK's real loop.

It is the yardstick of what this project says about RunPod without an account there. What it does stands in RunPod's
documentation, in the SDK's source or in a public issue; where they leave it open it does the worse of what is possible.
`emulator.Emulator` is what tests use, `python -m tests.emulator` what hands use.
"""

from tests.emulator.emulator import Emulator
from tests.emulator.endpoint import Settings
from tests.emulator.faults import Fault

__all__ = ["Emulator", "Fault", "Settings"]
