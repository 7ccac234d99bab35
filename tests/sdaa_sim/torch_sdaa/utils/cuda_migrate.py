"""Its import redirects torch.cuda to torch.sdaa."""

from simulated_device.migrate import migrate

import torch_sdaa  # noqa: F401

migrate()
