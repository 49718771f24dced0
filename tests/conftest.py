"""What holds for all tests: small tensors are quicker on one thread, whatever else the machine does."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
